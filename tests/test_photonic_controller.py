"""The controller of a photonic array, with the digital twin behind it, against the golden program, bit for bit."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Mux
from photonic_bench import ArrayModel, Bench
from photonic_programs import images, photonic_network

import rtl.photonic_registers
import rtl.photonic_sums
import rtl.photonic_twin
from flow.compiled import CompiledRtl
from flow.photonic_cosim import Access, Answer, run
from rtl.photonic_jobs import Geometry, Jobs
from rtl.photonic_noise import SerialNoise
from rtl.photonic_registers import OKAY, SLVERR, Errors, Map, Register
from rtl.photonic_system import PhotonicSystem, emit
from rtl.photonic_weights import Sender
from rtl.readback import lint
from sim.contract import Format
from sim.errors import BittrueError
from sim.lerp import Lerp
from sim.operation import TensorType
from sim.program import Builder, Program

ARRAY = Geometry(4, 4, 2)


def weight_words(jobs: Jobs) -> list[int]:
    """The beats of the weight stream for an image."""
    bits = jobs.cells.bits
    words = []
    for plus, minus in jobs.rails():
        codes = [*map(int, plus), *map(int, minus)]
        words.append(sum(code << bits * k for k, code in enumerate(codes)))
    return words


def exact(program: Program, geometry: Geometry = ARRAY, count: int = 3, stalls: float = 0.3, **options) -> Bench:
    """The system gives the program's results for some images, under stalls of both streams."""
    system = PhotonicSystem(program, geometry, **options)
    x = images(program, count, seed=1)
    expected = program(x)

    async def script(bench):
        bench.send(x)
        y = await bench.receive(count)
        assert np.array_equal(y, expected)
        await bench.cycle(20)
        assert await bench.read(Register.FRAMES) == (count, OKAY)
        assert await bench.read(Register.ERRORS) == (0, OKAY)
        assert await bench.read(Register.STATUS) == (0b10, OKAY)

    words = weight_words(system.jobs) if options.get("weights") == "stream" else None
    return Bench(system, weights=words, idle=stalls, backpressure=stalls).run(script)


# -- results ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sizes", "geometry", "options", "system"),
    [
        ((10, 7, 5), Geometry(4, 4, 2), {}, {"settling": 3}),
        ((10, 7, 5), Geometry(4, 4, 2), {"noise": True}, {"settling": 3, "dac_cycles": 3}),
        ((8, 5, 6, 3), Geometry(8, 4, 4), {"seed": 1, "per_channel": True}, {"settling": 1, "conversion": 1}),
        ((8, 9, 6, 3), Geometry(4, 8, 1), {"seed": 2, "noise": True}, {"settling": 5, "conversion": 9}),
        ((6, 3), Geometry(8, 2, 2), {"seed": 3, "noise": True}, {}),
        ((5, 1, 2), Geometry(1, 1, 1), {"seed": 4}, {"settling": 2}),
        ((8, 7, 5), Geometry(4, 4, 4), {"seed": 5, "codes": 8, "cells": 8, "adc": 8}, {"weights": "stream"}),
    ],
)
def test_equals_the_program(sizes, geometry, options, system):
    exact(photonic_network(sizes, geometry.rows, **options), geometry, **system)


def test_stalls_change_nothing_but_time():
    program = photonic_network()
    free, stalled = (exact(program, stalls=stalls).cycles for stalls in (0.0, 0.8))
    assert free < stalled


@pytest.mark.parametrize("settling", [4, 5, 40])
def test_any_legal_settling_time(settling):
    program = photonic_network()
    x = images(program, 2)

    async def script(bench):
        assert await bench.write(Register.SETTLING, settling) == OKAY
        assert await bench.read(Register.SETTLING) == (settling, OKAY)
        bench.send(x)
        assert np.array_equal(await bench.receive(2), program(x))

    Bench(PhotonicSystem(program, ARRAY, settling=4)).run(script)


@pytest.mark.parametrize("seed", range(3))
def test_controller_alone_with_an_array_of_its_own_pace(seed):
    program = photonic_network((10, 7, 6, 5), seed=seed)
    system = PhotonicSystem(program, ARRAY, settling=4, twin=False)
    x = images(program, 3, seed)

    async def script(bench):
        bench.array = ArrayModel(system, 4, seed)
        bench.send(x)
        assert np.array_equal(await bench.receive(3), program(x))
        assert bench.array.measured == [(k, job.number) for k in range(3) for job in system.jobs.work]

    Bench(system, seed=seed, idle=0.2, backpressure=0.2).run(script)


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
        assert await bench.write(Register.IMAGE, 0xFFFF) == OKAY
        bench.send(x)
        assert np.array_equal(await bench.receive(2), program(x, first=0xFFFF))
        assert await bench.read(Register.IMAGE) == (0x10001, OKAY)

    Bench(PhotonicSystem(program, ARRAY)).run(script)


def test_starts_when_told():
    program = photonic_network()
    x = images(program, 3)

    async def script(bench):
        assert await bench.write(Register.CONTROL, 0) == OKAY
        bench.send(x)
        await bench.cycle(600)
        assert not bench.results
        assert await bench.read(Register.STATUS) == (0, OKAY)
        assert await bench.write(Register.CONTROL, 2) == OKAY
        assert (await bench.read(Register.STATUS))[0] == 1
        await bench.receive(1)
        await bench.cycle(600)
        assert len(bench.results) == 1
        assert await bench.write(Register.CONTROL, 1) == OKAY
        assert np.array_equal(await bench.receive(3), program(x))

    Bench(PhotonicSystem(program, ARRAY)).run(script)


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
    place = Map(len(jobs.work), ARRAY.columns)

    async def script(bench):
        for job in jobs.work:
            for column in range(ARRAY.columns):
                address = place.offset(job.number, column)
                assert await bench.read(address) == (jobs.offsets[job.number, column], OKAY)
                assert await bench.write(address, int(wanted[job.number, column]), data_first=column % 2 == 1) == OKAY
                assert await bench.read(address) == (wanted[job.number, column], OKAY)
        bench.send(x[:2])
        assert np.array_equal(await bench.receive(2), golden(x[:2]))
        await bench.reset()  # which leaves the calibration
        bench.send(x[2:])
        assert np.array_equal(await bench.receive(2), golden(x[2:]))

    Bench(system, idle=0.2, backpressure=0.2).run(script)


# -- bad input ----------------------------------------------------------------------------------------------
def test_illegal_accesses_are_answered():
    program = photonic_network()
    system = PhotonicSystem(program, ARRAY, settling=4)
    place = Map(len(system.jobs.work), ARRAY.columns)
    x = images(program, 2)
    beyond = place.calibration + (len(system.jobs.work) << place.column_bits + 2)
    assert beyond < 1 << place.address_bits
    writes = [
        (Errors.ADDRESS, 0x24, 0, 0xF),
        (Errors.ADDRESS, Register.SETTLING + 1, 9, 0xF),
        (Errors.ADDRESS, beyond, 0, 0xF),
        *((Errors.READ_ONLY, r, 1, 0xF) for r in ("STATUS", "FRAMES", "GEOMETRY", "WORK", "PROGRAM")),
        (Errors.VALUE, Register.SETTLING, 3, 0xF),
        (Errors.VALUE, Register.SETTLING, 1 << 16, 0xF),
        (Errors.VALUE, Register.SETTLING, 9, 0x3),
        (Errors.VALUE, Register.CONTROL, 4, 0xF),
        (Errors.VALUE, Register.CONTROL, 3, 0xF),
        (Errors.VALUE, Register.ERRORS, 1 << len(Errors), 0xF),
        (Errors.VALUE, place.offset(0, 1), system.jobs.offset.high + 1, 0xF),
        (Errors.VALUE, place.offset(0, 1), -1, 0xF),
        (Errors.VALUE, place.offset(0, 1), 0, 0x7),
    ]
    busy = [(Register.SETTLING, 9), (Register.IMAGE, 1), (place.offset(0, 0), 0)]

    async def flagged(bench, error):
        assert await bench.read(Register.ERRORS) == (1 << error, OKAY)
        assert await bench.write(Register.ERRORS, 0) == OKAY  # a 0 clears nothing
        assert await bench.read(Register.ERRORS) == (1 << error, OKAY)
        assert await bench.write(Register.ERRORS, 1 << error) == OKAY
        assert await bench.read(Register.ERRORS) == (0, OKAY)

    async def script(bench):
        for error, register, value, strobe in writes:
            address = Register[register] if isinstance(register, str) else register
            assert await bench.write(address, value, strobe) == SLVERR
            await flagged(bench, error)
        for address in (0x24, 2, beyond):
            assert (await bench.read(address))[1] == SLVERR
            await flagged(bench, Errors.ADDRESS)
        assert await bench.read(Register.SETTLING) == (4, OKAY)
        assert await bench.read(Register.CONTROL) == (1, OKAY)
        assert await bench.read(Register.GEOMETRY) == (4 | 4 << 16, OKAY)
        assert await bench.read(Register.WORK) == (len(system.jobs.work) | 2 << 16, OKAY)
        assert await bench.read(Register.PROGRAM) == (int(program.sha256[:8], 16), OKAY)
        assert await bench.read(place.offset(0, 1)) == (system.jobs.offsets[0, 1], OKAY)
        bench.send(x)
        await bench.cycle(200)
        for address, value in busy:
            assert await bench.write(address, value) == SLVERR
            await flagged(bench, Errors.BUSY)
        assert await bench.read(place.offset(0, 0)) == (0, SLVERR)
        await flagged(bench, Errors.BUSY)
        assert np.array_equal(await bench.receive(2), program(x))

    Bench(system).run(script)


@pytest.mark.parametrize("noise", [False, True])
def test_reset_in_the_middle_of_an_image(noise):
    program = photonic_network(noise=noise)
    x = images(program, 3)

    async def script(bench):
        for wait in (1, 4, 37, 150, 333, 700):
            bench.send(x)
            await bench.cycle(wait)
            await bench.reset()
            assert await bench.read(Register.IMAGE) == (0, OKAY)
        bench.send(x[:2])
        assert np.array_equal(await bench.receive(2), program(x[:2]))

    Bench(PhotonicSystem(program, ARRAY), idle=0.2, backpressure=0.2).run(script)


def test_images_of_a_wrong_length_are_dropped():
    program = photonic_network()
    x = images(program, 4)

    async def script(bench):
        bench.send(x[:1])
        bench.queue[-2] = (bench.queue[-2][0], True)  # ends too early; its last beat is then an image of one beat
        bench.send(x[1:2])
        bench.send(x[2:3])
        bench.queue[-1] = (bench.queue[-1][0], False)  # goes on
        bench.queue += [(3, False)] * 7 + [(3, True)]
        bench.send(x[3:])
        assert np.array_equal(await bench.receive(2), program(x[[1, 3]]))
        assert await bench.read(Register.ERRORS) == (1 << Errors.FRAME, OKAY)

    Bench(PhotonicSystem(program, ARRAY), idle=0.2).run(script)


def test_codes_that_nobody_waits_for():
    system = PhotonicSystem(photonic_network(), ARRAY, twin=False)
    valid = next(signal for signal in system.front if signal.name == "fe_adc_valid")

    async def script(bench):
        bench.ctx.set(valid, 1)
        await bench.cycle()
        bench.ctx.set(valid, 0)
        assert await bench.read(Register.ERRORS) == (1 << Errors.CONVERTER, OKAY)

    Bench(system).run(script)


def test_weight_stream_out_of_step():
    program = photonic_network()
    system = PhotonicSystem(program, ARRAY, weights="stream")

    async def script(bench):
        bench.send(images(program, 1))
        await bench.receive(1)
        assert await bench.read(Register.ERRORS) == (1 << Errors.WEIGHTS, OKAY)

    Bench(system, weights=weight_words(system.jobs)[:-1]).run(script)


def test_refusals():
    program = photonic_network()
    for geometry, words in [((4, 4, 3), "power of two"), ((4, 6, 4), "do not divide"), ((0, 4, 1), "at least 1")]:
        with pytest.raises(BittrueError, match=words):
            Geometry(*geometry)
    with pytest.raises(BittrueError, match="'mac0' have 4 rows, the array has 8"):
        Jobs.of(program, Geometry(8, 4, 2))
    with pytest.raises(BittrueError, match="4 lanes do not divide the 10 inputs"):
        Jobs.of(program, Geometry(4, 4, 4))
    nodes = list(program.nodes)
    mac = replace(nodes[3].operation, bits=7)
    total = replace(nodes[4].operation, input=mac.output)
    nodes[3:] = [replace(nodes[3], operation=mac), replace(nodes[4], operation=total)]
    with pytest.raises(BittrueError, match="'mac1' has an ADC"):
        Jobs.of(replace(program, nodes=tuple(nodes)), ARRAY)
    tensor = TensorType((4,), Format(4, signed=False))
    build = Builder(x=tensor)
    table = Lerp(tensor, np.zeros((1, 17), np.int64))
    with pytest.raises(BittrueError, match="'table' is a Lerp where a PhotonicMac has to be"):
        Jobs.of(build.program(build.add("table", table, "x")), ARRAY)
    with pytest.raises(BittrueError, match="settling time of 0 cycles"):
        PhotonicSystem(program, ARRAY, settling=0)
    with pytest.raises(BittrueError, match="weights come from memory or stream"):
        PhotonicSystem(program, ARRAY, weights="disk")


# -- text ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"weights": "stream"}, {"twin": False}])
def test_verilog_is_deterministic_and_clean(options):
    program = photonic_network(noise=True)
    texts = [emit(PhotonicSystem(program, ARRAY, **options)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert lint(texts[0]) == []


# -- the tests can fail -------------------------------------------------------------------------------------
def spoil_weight(monkeypatch):
    rails = Jobs.rails

    def spoiled(self):
        for k, (plus, minus) in enumerate(rails(self)):
            yield plus ^ 4 * (k < 2), minus

    monkeypatch.setattr(Jobs, "rails", spoiled)


def spoil_table(monkeypatch):
    tables = Jobs.tables
    monkeypatch.setattr(Jobs, "tables", lambda self, lane: (tables(self, lane)[0] ^ 1, tables(self, lane)[1]))


def spoil_scale(monkeypatch):
    monkeypatch.setattr(rtl.photonic_sums.Sums, "scale", lambda self, total: total << self.steps[0])


def spoil_converter(monkeypatch):
    monkeypatch.setattr(
        rtl.photonic_twin, "Mux", lambda c, a, b: Mux(c, a // 2, b) if isinstance(a, int) and a == 63 else Mux(c, a, b)
    )


def spoil_offsets(monkeypatch):
    monkeypatch.setattr(rtl.photonic_registers.Registers, "word", lambda self, _: [0] * self.jobs.geometry.lanes)


def spoil_noise(monkeypatch):
    factors = SerialNoise.factors

    def spoiled(self, m):
        self.noises = [replace(noise, shot=noise.shot + 400) for noise in self.noises]
        return factors(self, m)

    monkeypatch.setattr(SerialNoise, "factors", spoiled)


def spoil_dark(monkeypatch):
    used = Sender.used
    monkeypatch.setattr(Sender, "used", lambda self, m, job: used(self, m, job ^ 1))


@pytest.mark.parametrize(
    ("spoil", "noise"),
    [
        (spoil_weight, False),
        (spoil_table, False),
        (spoil_scale, False),
        (spoil_converter, False),
        (spoil_offsets, False),
        (spoil_dark, False),
        (spoil_noise, True),
    ],
)
def test_mutations_are_caught(monkeypatch, spoil, noise):
    program = photonic_network(noise=noise)
    spoil(monkeypatch)
    with pytest.raises(AssertionError):
        exact(program, stalls=0.0)


# -- Verilog, in the simulators -----------------------------------------------------------------------------
needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
SIMULATORS = [pytest.param("icarus", marks=needs_icarus), "verilator"]


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_cocotb_with_both_buses(simulator, tmp_path):
    program = photonic_network(noise=True)
    system = PhotonicSystem(program, ARRAY, settling=3)
    jobs = system.jobs
    wanted = jobs.offsets.copy()
    wanted[2, 1] += 9
    x = images(program, 6)
    golden = jobs.with_offsets(wanted)(x, first=40)
    assert not np.array_equal(golden, program(x))
    address = Map(len(jobs.work), ARRAY.columns).offset(2, 1)
    before = [
        Access(Register.IMAGE, 40),
        Access(Register.SETTLING, 7),
        Access(address, int(wanted[2, 1])),
        Access(address),
        Access(Register.SETTLING, 2),
        Access(Register.ERRORS),
        Access(Register.ERRORS, 1 << Errors.VALUE),
    ]
    # The first of these may still find an idle controller; it writes what is there already.
    during = [Access(Register.SETTLING, 7), Access(Register.STATUS), Access(Register.PROGRAM, 1), Access(0x24)]
    after = [Access(Register.FRAMES), Access(Register.IMAGE), Access(Register.ERRORS)]
    done = run(
        system,
        x,
        golden,
        simulator,
        idle=0.3,
        backpressure=0.3,
        seed=5,
        folder=tmp_path,
        before=before,
        during=during,
        after=after,
    )
    done.run.check(golden)
    assert [a.response for a in done.before] == [OKAY, OKAY, OKAY, OKAY, SLVERR, OKAY, OKAY]
    assert done.before[3].value == wanted[2, 1]
    assert done.before[5].value == 1 << Errors.VALUE
    turns = len(done.during) // len(during)
    assert turns > 10
    assert [a.response for a in done.during[2::4]] == [SLVERR] * turns == [a.response for a in done.during[3::4]]
    assert SLVERR in [a.response for a in done.during[0::4]]
    flags = 1 << Errors.ADDRESS | 1 << Errors.READ_ONLY | 1 << Errors.BUSY
    assert done.after == (Answer(OKAY, 6), Answer(OKAY, 46), Answer(OKAY, flags))


@pytest.mark.parametrize("noise", [False, True])
def test_compiled(noise):
    program = photonic_network((12, 9, 6), 4, noise=noise, seed=6)
    system = PhotonicSystem(program, ARRAY, settling=2)
    x = images(program, 200)
    compiled = CompiledRtl(emit(system, registers=False), [system.input], system.output)
    compiled.run(x).check(program(x))
    compiled.run(x, stall_seed=3, idle=0.3, backpressure=0.5).check(program(x))


def test_compiled_mutation_is_caught():
    program = photonic_network(noise=True)
    system = PhotonicSystem(program, ARRAY)
    text = emit(system, registers=False)
    word = re.search(r"( weights\[0\] = 12'h)(\w+);", text)
    broken = text.replace(word[0], f"{word[1]}{int(word[2], 16) ^ 4:03x};")
    x = images(program, 200)
    assert broken != text
    with pytest.raises(BittrueError, match="expected"):
        CompiledRtl(broken, [system.input], system.output).run(x).check(program(x))
