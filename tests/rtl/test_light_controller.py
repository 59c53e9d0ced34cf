"""The controller of a photonic array, batch after batch, against the golden program, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bittrue.rtl.bus.registers import OKAY
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.rtl.light.registers import Address
from bittrue.rtl.light.system import PhotonicSystem, emit
from bittrue.rtl.readback import lint
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.program import Program
from bittrue.sim.written import written
from tests.helpers.lengths import long_but
from tests.helpers.photonic_bench import ARRAY, ArrayModel, Bench, exact
from tests.helpers.photonic_programs import images, photonic_network


# -- results ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sizes", "geometry", "options", "system", "count"),
    [
        ((10, 7, 5), Geometry(4, 4, 2), {}, {"settling": 3, "images": 3}, 7),
        ((10, 7, 5), Geometry(4, 4, 2), {"noise": True}, {"settling": 3, "dac_cycles": 3, "images": 2}, 4),
        ((8, 5, 6, 3), Geometry(8, 4, 4), {"seed": 1, "per_channel": True}, {"settling": 1, "conversion": 1}, 5),
        ((8, 9, 6, 3), Geometry(4, 8, 1), {"seed": 2, "noise": True}, {"settling": 5, "images": 1}, 3),
        ((6, 3), Geometry(8, 2, 2), {"seed": 3, "noise": True}, {"images": 5}, 9),
        ((5, 1, 2), Geometry(1, 1, 1), {"seed": 4}, {"settling": 2, "images": 3}, 4),
        (
            (8, 7, 5),
            Geometry(4, 4, 4),
            {"seed": 5, "codes": 8, "cells": 8, "adc": 8},
            {"weights": "stream", "images": 4},
            6,
        ),
    ],
)
def test_equals_the_program(sizes, geometry, options, system, count):
    exact(photonic_network(sizes, geometry.rows, **options), geometry, count, **system)


def test_stalls_change_nothing_but_time():
    program = photonic_network()
    free, stalled = (exact(program, stalls=stalls).cycles for stalls in (0.0, 0.8))
    assert free < stalled


@pytest.mark.parametrize("settling", [4, 5, 40])
def test_any_legal_settling_time(settling):
    program = photonic_network()
    x = images(program, 2)

    async def script(bench):
        assert await bench.write(Address.SETTLING, settling) == OKAY
        assert await bench.read(Address.SETTLING) == (settling, OKAY)
        bench.send(x)
        assert np.array_equal(await bench.receive(2), program(x))

    Bench(PhotonicSystem(program, ARRAY, settling=4)).run(script)


@pytest.mark.parametrize(("seed", "capacity"), [(0, 1), (1, 3), (2, 4)])
def test_controller_alone_with_an_array_of_its_own_pace(seed, capacity):
    program = photonic_network((10, 7, 6, 5), seed=seed)
    system = PhotonicSystem(program, ARRAY, settling=4, images=capacity, twin=False)
    work = range(len(system.jobs.work))
    x = images(program, 6, seed)

    async def script(bench):
        bench.array = ArrayModel(system, 4, seed)
        bench.send(x)
        assert np.array_equal(await bench.receive(6), program(x))
        # Every image is in one batch; in it, a job measures all images before the next job.
        measured, first = bench.array.measured, 0
        batches = 0
        while measured:
            size = sum(job == 0 and image < first + capacity for image, job in measured[:capacity])
            part = [(first + k, job) for job in work for k in range(size)]
            assert 1 <= size <= capacity
            assert measured[: len(part)] == part
            measured, first, batches = measured[len(part) :], first + size, batches + 1
        assert first == 6
        assert bench.array.swaps == batches * len(work), "weights are set once a batch"

    Bench(system, seed=seed, idle=0.2, backpressure=0.2).run(script)


@pytest.mark.parametrize("pace", [1, 5])
def test_every_channel_has_its_own_table_however_close_the_codes_of_two_come(pace):
    """Whatever the requantiser takes: the number of a beat comes with its codes."""
    program = photonic_network((8, 5, 6, 3), 8, seed=1, per_channel=True)
    system = PhotonicSystem(program, Geometry(8, 4, 1), settling=4, images=2, twin=False)
    x = images(program, 4)

    async def script(bench):
        bench.array = ArrayModel(system, 4, pace=(3, pace))
        bench.send(x)
        assert np.array_equal(await bench.receive(4), program(x))

    Bench(system).run(script)


def test_a_sample_too_early_shows():
    program = photonic_network()
    x = images(program, 1)
    system = PhotonicSystem(program, ARRAY, settling=4)
    system.twin.settling = 5

    async def script(bench):
        bench.send(x)
        assert not np.array_equal(await bench.receive(1), program(x))

    Bench(system).run(script)


def test_images_have_an_index():
    program = photonic_network(noise=True)
    x = images(program, 2)
    assert not np.array_equal(program(x), program(x, first=0xFFFF))

    async def script(bench):
        assert await bench.write(Address.IMAGE, 0xFFFF) == OKAY
        bench.send(x)
        assert np.array_equal(await bench.receive(2), program(x, first=0xFFFF))
        assert await bench.read(Address.IMAGE) == (0x10001, OKAY)

    Bench(PhotonicSystem(program, ARRAY)).run(script)


# -- batches ------------------------------------------------------------------------------------------------
def test_a_batch_takes_what_is_there_and_no_more_than_it_may():
    program = photonic_network()
    system = PhotonicSystem(program, ARRAY, weights="stream", images=3)
    x = images(program, 12)

    async def script(bench):
        assert await bench.write(Address.CONTROL, 0) == OKAY
        done = 0
        for sent, most, batches in [(5, 2, (2, 2, 1)), (1, 3, (1,)), (6, 3, (3, 3))]:
            assert await bench.write(Address.BATCH, most) == OKAY
            bench.send(x[done : done + sent])
            await bench.cycle(60)
            for batch in batches:
                assert await bench.write(Address.CONTROL, 2) == OKAY
                assert await bench.read(Address.STATUS) == (1, OKAY)
                done += batch
                assert np.array_equal(await bench.receive(done), program(x[:done]))
                await bench.cycle(20)
                assert len(bench.results) == done
                assert await bench.read(Address.FRAMES) == (done, OKAY) == await bench.read(Address.IMAGE)
        assert bench.weight_source.taken == 6 * system.jobs.beats, "weights come once a batch"

    Bench(system).run(script)


def test_results_that_nobody_takes_hold_up_the_fourth_batch():
    """Those of the first wait where they leave, those of the next two in the banks of the buffer."""
    program = photonic_network()
    x = images(program, 4)

    async def script(bench):
        bench.sink.backpressure = 1.0
        bench.send(x)
        await bench.cycle(1500)
        assert await bench.read(Address.FRAMES) == (3, OKAY)
        assert await bench.read(Address.STATUS) == (0b10, OKAY)
        bench.sink.backpressure = 0.0
        assert np.array_equal(await bench.receive(4), program(x))

    Bench(PhotonicSystem(program, ARRAY, images=1)).run(script)


@pytest.mark.parametrize(
    ("sizes", "geometry", "settling", "pace"),
    [
        ((10, 7, 5), Geometry(4, 4, 2), 1, (1, 1)),  # weights are what takes the time
        ((10, 7, 9, 5), Geometry(4, 4, 2), 20, (5, 3)),  # the array is
        ((20, 5), Geometry(16, 2, 1), 1, (2, 1)),  # inputs are, and weights
        ((8, 9, 3), Geometry(2, 8, 2), 5, (2, 14)),  # results are there before the last codes
    ],
)
def test_cycles_of_a_batch(sizes, geometry, settling, pace):
    program = photonic_network(sizes, geometry.rows)
    system = PhotonicSystem(program, geometry, settling, images=3, twin=False)
    busy = system.controller.slave.busy
    x = images(program, 4)

    async def script(bench):
        bench.array = ArrayModel(system, settling, pace=pace)
        for part in (x[:1], x[1:]):
            await bench.batch(part)
            cycles = 0
            while not bench.ctx.get(busy):
                await bench.cycle()
            while bench.ctx.get(busy):
                cycles += 1
                await bench.cycle()
            assert cycles == system.controller.cycles(len(part), settling, *pace)
        assert np.array_equal(await bench.receive(4), program(x))

    Bench(system).run(script)
    with pytest.raises(BittrueError, match="a batch of 4 images; it has 1 to 3"):
        system.controller.cycles(4, settling, *pace)


# -- calibration --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("noise", [False, True])
def test_calibration_is_the_golden_offset(noise):
    program = photonic_network(noise=noise)
    system = PhotonicSystem(program, ARRAY)
    jobs = system.jobs
    x = images(program, 4)
    rng = np.random.default_rng(7)
    wanted = np.clip(jobs.offsets + rng.integers(-20, 21, jobs.offsets.shape), 0, jobs.offset.high)
    golden = jobs.with_offsets(wanted)
    assert not np.array_equal(golden(x), program(x))
    place = system.controller.map.window("CALIBRATION")

    async def script(bench):
        for job in jobs.work:
            for column in range(ARRAY.columns):
                address = place.at(job.number, column)
                assert await bench.read(address) == (jobs.offsets[job.number, column], OKAY)
                assert await bench.write(address, int(wanted[job.number, column]), data_first=column % 2 == 1) == OKAY
                assert await bench.read(address) == (wanted[job.number, column], OKAY)
        bench.send(x[:2])
        assert np.array_equal(await bench.receive(2), golden(x[:2]))
        await bench.reset()  # which leaves the calibration
        bench.send(x[2:])
        assert np.array_equal(await bench.receive(2), golden(x[2:]))

    Bench(system, idle=0.2, backpressure=0.2).run(script)


# -- refusals and text --------------------------------------------------------------------------------------
def test_refusals():
    program = photonic_network()
    for geometry, words in [((4, 4, 3), "power of two"), ((4, 6, 4), "do not divide"), ((0, 4, 1), "at least 1")]:
        with pytest.raises(BittrueError, match=words):
            Geometry(*geometry)
    with pytest.raises(BittrueError, match="'mac0' have 4 rows, the array has 8"):
        Jobs.of(program, Geometry(8, 4, 2))
    with pytest.raises(BittrueError, match=r"'mac0\.plus' is a held input.*give it the program that `bind` makes"):
        Jobs.of(written(program, ["mac0"]), Geometry(4, 4, 2))
    with pytest.raises(BittrueError, match="4 lanes do not divide the 10 inputs"):
        Jobs.of(program, Geometry(4, 4, 4))
    nodes = list(program.nodes)
    mac = replace(nodes[3].operation, bits=7)
    total = replace(nodes[4].operation, input=mac.output)
    nodes[3:] = [replace(nodes[3], operation=mac), replace(nodes[4], operation=total)]
    with pytest.raises(BittrueError, match="'mac1' has an ADC"):
        Jobs.of(replace(program, nodes=tuple(nodes)), ARRAY)
    tensor = TensorType((4,), Format(4, signed=False))
    build = Builder({"x": tensor})
    table = Lerp(tensor, np.zeros((1, 17), np.int64))
    with pytest.raises(BittrueError, match="'table' is a Lerp where a PhotonicMac has to be"):
        Jobs.of(build.program(build.add("table", table, "x")), ARRAY)
    with pytest.raises(BittrueError, match="settling time of 0 cycles"):
        PhotonicSystem(program, ARRAY, settling=0)
    with pytest.raises(BittrueError, match="weights come from memory or stream"):
        PhotonicSystem(program, ARRAY, weights="disk")
    with pytest.raises(BittrueError, match="batches of 0 images"):
        PhotonicSystem(program, ARRAY, images=0)


@pytest.mark.parametrize("options", long_but([{}, {"weights": "stream"}, {"twin": False}], {}))
def test_verilog_is_deterministic_and_clean(options):
    program = photonic_network(noise=not options)
    texts = [emit(PhotonicSystem(program, ARRAY, **options)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert lint(texts[0]) == []


@pytest.mark.parametrize("backwards", [False, True])
def test_what_a_controller_gives_out_is_what_its_last_layer_makes(backwards):
    """Whatever the tensors are named: another one as the result is refused."""
    program = photonic_network()
    letters = "zyxwvutsrq" if backwards else "abcdefghij"
    names = dict(zip((node.name for node in program.nodes), letters, strict=False))
    nodes = tuple(
        replace(node, name=names[node.name], operands=tuple(names.get(of, of) for of in node.operands))
        for node in program.nodes
    )
    tensors = [node.name for node in nodes]
    assert len(Jobs.of(Program(program.inputs, nodes, tensors[-1]), ARRAY).layers) == 2
    for tensor in tensors[:-1]:
        with pytest.raises(BittrueError, match=f"the result is '{tensor}', not its last tensor '{tensors[-1]}'"):
            Jobs.of(Program(program.inputs, nodes, tensor), ARRAY)
