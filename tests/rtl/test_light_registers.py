"""The registers of the photonic controller, and what it does with bad input: illegal accesses, resets, lost codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bittrue.rtl.bus.registers import OKAY, SLVERR
from bittrue.rtl.light.design import FrontEndTap
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.rtl.light.registers import Address, Errors, register_map
from bittrue.rtl.light.system import PhotonicSystem
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from tests.helpers.photonic_bench import ARRAY, ArrayModel, Bench, losing_codes, without_codes
from tests.helpers.photonic_programs import images, photonic_network


def test_starts_when_told():
    program = photonic_network()
    x = images(program, 3)

    async def script(bench):
        assert await bench.write(Address.CONTROL, 0) == OKAY
        bench.send(x)
        await bench.cycle(600)
        assert not bench.results
        assert await bench.read(Address.STATUS) == (0, OKAY)
        assert await bench.write(Address.CONTROL, 2) == OKAY
        assert (await bench.read(Address.STATUS))[0] == 1
        await bench.receive(1)
        await bench.cycle(600)
        assert len(bench.results) == 1
        assert await bench.write(Address.CONTROL, 1) == OKAY
        assert np.array_equal(await bench.receive(3), program(x))

    Bench(PhotonicSystem(program, ARRAY, images=1)).run(script)


def test_illegal_accesses_are_answered():
    program = photonic_network()
    system = PhotonicSystem(program, ARRAY, settling=4, images=5)
    place = system.controller.map.window("CALIBRATION")
    x = images(program, 2)
    beyond = place.address + (len(system.jobs.work) << place.index_bits[1] + 2)
    assert beyond < 1 << system.controller.map.address_bits
    writes = [
        (Errors.ADDRESS, 0x30, 0, 0xF),
        (Errors.ADDRESS, Address.SETTLING + 1, 9, 0xF),
        (Errors.ADDRESS, beyond, 0, 0xF),
        *((Errors.ACCESS, r, 1, 0xF) for r in ("STATUS", "FRAMES", "GEOMETRY", "WORK", "PROGRAM", "CAPACITY")),
        (Errors.VALUE, Address.SETTLING, 3, 0xF),
        (Errors.VALUE, Address.SETTLING, 1 << 16, 0xF),
        (Errors.VALUE, Address.SETTLING, 9, 0x3),
        (Errors.VALUE, Address.BATCH, 0, 0xF),
        (Errors.VALUE, Address.BATCH, 6, 0xF),
        (Errors.VALUE, Address.BATCH, 1 << 16 | 1, 0xF),
        (Errors.VALUE, Address.TIMEOUT, 1 << 20, 0xF),
        (Errors.VALUE, Address.CONTROL, 4, 0xF),
        (Errors.VALUE, Address.CONTROL, 3, 0xF),
        (Errors.VALUE, Address.ERRORS, 1 << len(Errors), 0xF),
        (Errors.VALUE, place.at(0, 1), system.jobs.offset.high + 1, 0xF),
        (Errors.VALUE, place.at(0, 1), -1, 0xF),
        (Errors.VALUE, place.at(0, 1), 0, 0x7),
    ]
    busy = [(Address.SETTLING, 9), (Address.IMAGE, 1), (place.at(0, 0), 0)]
    busy += [(Address.BATCH, 1), (Address.TIMEOUT, 1)]

    async def flagged(bench, error):
        assert await bench.read(Address.ERRORS) == (1 << error, OKAY)
        assert await bench.write(Address.ERRORS, 0) == OKAY  # a 0 clears nothing
        assert await bench.read(Address.ERRORS) == (1 << error, OKAY)
        assert await bench.write(Address.ERRORS, 1 << error) == OKAY
        assert await bench.read(Address.ERRORS) == (0, OKAY)

    async def script(bench):
        for error, register, value, strobe in writes:
            address = Address[register] if isinstance(register, str) else register
            assert await bench.write(address, value, strobe) == SLVERR
            await flagged(bench, error)
        for address in (0x30, 2, beyond):
            assert (await bench.read(address))[1] == SLVERR
            await flagged(bench, Errors.ADDRESS)
        assert await bench.read(Address.SETTLING) == (4, OKAY)
        assert await bench.read(Address.CONTROL) == (1, OKAY)
        assert await bench.read(Address.BATCH) == (5, OKAY) == await bench.read(Address.CAPACITY)
        assert await bench.read(Address.TIMEOUT) == (0xFFFFF, OKAY)
        assert await bench.read(Address.GEOMETRY) == (4 | 4 << 16, OKAY)
        assert await bench.read(Address.WORK) == (len(system.jobs.work) | 2 << 16, OKAY)
        assert await bench.read(Address.PROGRAM) == (int(program.sha256[:8], 16), OKAY)
        assert await bench.read(place.at(0, 1)) == (system.jobs.offsets[0, 1], OKAY)
        bench.send(x)
        await bench.cycle(200)
        for address, value in busy:
            assert await bench.write(address, value) == SLVERR
            await flagged(bench, Errors.BUSY)
        assert await bench.read(place.at(0, 0)) == (0, SLVERR)
        await flagged(bench, Errors.BUSY)
        assert np.array_equal(await bench.receive(2), program(x))

    Bench(system).run(script)


def test_offsets_of_32_bits_without_a_sign():
    program = photonic_network((2, 2), 1, codes=16, cells=16)
    system = PhotonicSystem(program, Geometry(1, 2, 1))
    fmt, place = system.jobs.offset, system.controller.map.window("CALIBRATION")
    assert str(fmt) == "u32"

    async def script(bench):
        for value in (fmt.high, 1 << 31, (1 << 31) - 1, 0):
            assert await bench.write(place.at(0, 1), value) == OKAY
            assert await bench.read(place.at(0, 1)) == (value, OKAY)
        assert await bench.read(Address.ERRORS) == (0, OKAY)

    Bench(system).run(script)


@pytest.mark.parametrize("options", [{}, {"noise": True}, {"weights": "stream"}])
def test_reset_in_the_middle_of_a_batch(options):
    program = photonic_network(noise="noise" in options)
    x = images(program, 4)
    system = PhotonicSystem(program, ARRAY, weights=options.get("weights", "memory"), images=3)

    async def script(bench):
        for wait in (1, 37, 150, 333):
            await bench.batch(x[:3])
            await bench.cycle(wait)
            await bench.reset()
            assert await bench.read(Address.IMAGE) == (0, OKAY)
        bench.send(x)
        assert np.array_equal(await bench.receive(4), program(x))
        assert await bench.read(Address.ERRORS) == (0, OKAY)

    Bench(system, idle=0.2, backpressure=0.2).run(script)


def test_images_of_a_wrong_length():
    """One that ends too early is filled with code 0; one that goes on is whole, and what is over makes a short one."""
    program = photonic_network()
    x = images(program, 4)
    lanes = ARRAY.lanes
    short, over = x[:1].copy(), np.zeros_like(x[:1])
    short[:, -lanes:] = 0
    over[:, :lanes] = 3
    whole = np.concatenate([short, over, x[1:3], over, x[3:]])
    rest = int.from_bytes(bytes([3] * lanes), "little")

    async def script(bench):
        bench.send(x[:1])
        words, last = bench.images.words, 1 << len(bench.system.slave.tdata)
        words[-2:] = [words[-2] | last, rest | last]
        bench.send(x[1:3])
        words[-1:] = [words[-1] ^ last, rest | last]
        bench.send(x[3:])
        assert np.array_equal(await bench.receive(6), program(whole))
        assert await bench.read(Address.ERRORS) == (1 << Errors.FRAME, OKAY)
        assert bench.ctx.get(bench.system.slave.framing_errors) == 4

    Bench(PhotonicSystem(program, ARRAY, images=2), idle=0.2).run(script)


def test_codes_that_nobody_waits_for():
    system = PhotonicSystem(photonic_network(), ARRAY, twin=False)
    valid = next(signal for signal, _ in system.front if signal.name == "fe_adc_valid")

    async def script(bench):
        bench.ctx.set(valid, 1)
        await bench.cycle()
        bench.ctx.set(valid, 0)
        assert await bench.read(Address.ERRORS) == (1 << Errors.CONVERTER, OKAY)

    Bench(system).run(script)


def test_weight_stream_out_of_step():
    program = photonic_network()
    system = PhotonicSystem(program, ARRAY, weights="stream")
    words, last = Bench(system).weights, 1 << len(system.weights[0])

    async def script(bench):
        bench.send(images(program, 1))
        await bench.receive(1)
        assert await bench.read(Address.ERRORS) == (1 << Errors.WEIGHTS, OKAY)

    Bench(system, weights=[*words[:-2], words[-2] | last]).run(script)


@pytest.mark.parametrize("length", [1, None])
def test_weights_of_a_wrong_length(length):
    """The second batch's weights end too early, or without TLAST: those of the third are right again."""
    program = photonic_network()
    system = PhotonicSystem(program, ARRAY, weights="stream", images=1)
    words = Bench(system).weights
    x = images(program, 3)
    last = 1 << len(system.weights[0])
    wrong = [*words[:-1], words[-1] ^ last] if length is None else [*words[: length - 1], words[length - 1] | last]
    bench = Bench(system, weights=[*words, *wrong, *words], idle=0.2)

    async def script(bench):
        bench.send(x)
        await bench.receive(1)
        y = await bench.receive(3)
        assert np.array_equal(y[[0, 2]], program(x)[[0, 2]])
        assert np.array_equal(y[1], program(x)[1]) == (length is None)
        assert await bench.read(Address.ERRORS) == (1 << Errors.WEIGHTS, OKAY)

    bench.run(script)


# -- codes that do not come in time -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lost", "late"),
    [
        ({0: 0}, 0),  # none of the first measurement
        ({4: 1, 5: 0, 11: 0}, 0),  # the second half of one; two in a row
        ({13: 0}, 18),  # while the next measurement settles
    ],
)
def test_codes_that_do_not_come_in_time_count_as_0(lost, late):
    losing_codes(lost, late)


def test_the_time_limit_is_exact():
    program = photonic_network()
    x = images(program, 2)
    system = PhotonicSystem(program, ARRAY, settling=4, images=2, twin=False)
    dark = without_codes(system.jobs, x, {(image, job.number): 0 for image in range(2) for job in system.jobs.work})

    async def script(bench):
        for pace, limit, y in [((9, 9), 9, program(x)), ((9, 1), 8, dark), ((9, 9), 0, program(x))]:
            await bench.reset()
            bench.array = ArrayModel(system, 4, pace=pace)
            assert await bench.write(Address.TIMEOUT, limit) == OKAY
            assert await bench.read(Address.TIMEOUT) == (limit, OKAY)
            bench.send(x)
            assert np.array_equal(await bench.receive(2), y)
            flags = (1 << Errors.TIMEOUT | 1 << Errors.CONVERTER) * (y is dark)
            assert await bench.read(Address.ERRORS) == (flags, OKAY)

    Bench(system).run(script)


# -- documents ----------------------------------------------------------------------------------------------
def test_the_table_in_the_documents_is_that_of_the_map():
    table = PhotonicSystem(photonic_network(), ARRAY).controller.map.markdown()
    assert table in (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("geometry", [Geometry(4, 4, 2), Geometry(4, 6, 1), Geometry(2, 8, 2)])
def test_a_tap_sees_every_code_once(geometry):
    """Of an image, in the order of the jobs: what the rows are given, and what the converter makes of the columns."""
    jobs = PhotonicSystem(photonic_network((10, 7, 5), geometry.rows), geometry).jobs
    rng, tap = np.random.default_rng(1), FrontEndTap(jobs)
    inputs = [rng.integers(0, jobs.codes.levels, layer.mac.input.channels) for layer in jobs.layers]
    codes = [rng.integers(0, jobs.adc.levels, (layer.mac.tiles, layer.outputs)) for layer in jobs.layers]
    found = {layer.name: np.full(made.size, -1) for layer, made in zip(jobs.layers, codes, strict=True)}
    second = jobs.program.nodes[[node.name for node in jobs.program.nodes].index(jobs.layers[1].name)].operands[0]
    found[second] = np.full(inputs[1].size, -1)

    def word(values, fmt):
        return "".join(format(int(value), f"0{fmt.bits}b") for value in reversed(values))

    def see(cycle, **given):
        idle = {"input_valid": "0", "sample": "0", "adc_valid": "0"}
        for seen in tap.see(cycle, (idle | given).__getitem__):
            assert (seen.frame, seen.cycle, seen.known) == (5, cycle, True)
            at = found[seen.node][seen.places]
            assert (at == (-1 if seen.node != second else at)).all()  # an input, once for each tile of columns
            found[seen.node][seen.places] = seen.codes

    for number, work in enumerate(jobs.work):
        top, left = work.row_tile * geometry.rows, work.column_tile * geometry.columns
        rows = np.zeros(geometry.rows, int)
        rows[: work.rows] = inputs[work.layer][top : top + work.rows]
        see(1, input_valid="1", input_data=word(rows, jobs.codes))
        see(2, sample="1", job=format(number, "b"), image=format(5, "b"))
        columns = np.zeros(geometry.columns, int)
        columns[: work.columns] = codes[work.layer][work.row_tile, left : left + work.columns]
        for group in range(geometry.groups + 1):  # one that nobody waits for
            lanes = np.resize(columns, geometry.columns + geometry.lanes)[group * geometry.lanes :][: geometry.lanes]
            see(3 + group, adc_valid="1", adc_data=word(lanes, jobs.adc))
    assert np.array_equal(found[second], inputs[1])
    for layer, made in zip(jobs.layers, codes, strict=True):
        assert np.array_equal(found[layer.name], made.reshape(-1))


@pytest.mark.parametrize("sizes", [(3, 40, 2), (3, 2, 40, 2)])
def test_one_requantiser_is_as_wide_as_every_layer_needs_and_no_wider(sizes):
    jobs = PhotonicSystem(photonic_network(sizes), Geometry(4, 4, 1)).jobs
    ends = [layer.total.ranges[2] for layer in jobs.layers]
    for layers in (jobs.layers, jobs.layers[::-1]):
        made = replace(jobs, layers=layers).requantize.format
        assert made == Format.covering(*(end for one in ends for end in (one.low, one.high)))
    assert len({Format.covering(one.low, one.high) for one in ends}) > 1


@pytest.mark.parametrize(
    ("settling", "images", "taken"),
    [(1, 1, True), (65535, 65535, True), (0, 1, False), (65536, 1, False), (1, 0, False), (1, 65536, False)],
)
def test_settling_times_and_batches_are_what_registers_hold(settling, images, taken):
    jobs = Jobs.of(photonic_network(), ARRAY)
    if taken:
        made = register_map(jobs, settling, images)
        assert {r.name: r.reset for r in made.registers}.items() >= {"SETTLING": settling, "BATCH": images}.items()
        return
    with pytest.raises(BittrueError, match="they have 1 to 65535" if settling == 1 else "it is 1 to 65535"):
        register_map(jobs, settling, images)
