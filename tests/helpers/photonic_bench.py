"""Drives a photonic system in Amaranth's own simulator: both streams with pauses, AXI4-Lite, reset at any time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
from amaranth.hdl import Cat
from amaranth.lib import data
from amaranth.sim import Simulator

from bittrue.rtl.bus.registers import OKAY
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.rtl.light.ports import weight_beat
from bittrue.rtl.light.registers import Address, Errors
from bittrue.rtl.light.system import PhotonicSystem
from bittrue.rtl.light.weights import stream_words
from bittrue.sim.program import Program
from tests.helpers.collisions import garbling
from tests.helpers.drive import Drive, Lite, Sink, Source, Wires, edge
from tests.helpers.photonic_programs import images, photonic_network

#: Cycles without any handshake that are taken for a deadlock.
QUIET = 20_000
#: The array of most tests.
ARRAY = Geometry(4, 4, 2)


def exact(program: Program, geometry: Geometry = ARRAY, count: int = 3, stalls: float = 0.3, **options) -> Bench:
    """The system gives the program's results for some images, under stalls of all streams."""
    system = PhotonicSystem(program, geometry, **options)
    x = images(program, count, seed=1)
    expected = program(x)

    async def script(bench):
        bench.send(x)
        y = await bench.receive(count)
        assert np.array_equal(y, expected)
        await bench.cycle(20)
        assert await bench.read(Address.FRAMES) == (count, OKAY)
        assert await bench.read(Address.ERRORS) == (0, OKAY)
        assert await bench.read(Address.STATUS) == (0b10, OKAY)

    return Bench(system, idle=stalls, backpressure=stalls).run(script)


def losing_codes(lost: dict[int, int], late: int = 0, **options) -> Bench:
    """Two batches of 3 images on an array that does not give all codes of some measurements of the first: they count as
    0, ERRORS says so, and the second batch is right. With `late` their codes come, that many cycles after the others.
    """
    program = photonic_network()
    system = PhotonicSystem(program, ARRAY, settling=30, images=3, twin=False, **options)
    work = len(system.jobs.work)
    x = images(program, 6)
    expected = program(x)
    missing = {(n % 3, n // 3): groups for n, groups in lost.items()}
    expected[:3] = without_codes(system.jobs, x[:3], missing)
    assert not np.array_equal(expected, program(x))

    async def script(bench):
        bench.drive.patience = 3000
        bench.array = ArrayModel(system, 30, pace=(5, 5), lost=lost, late=late)
        assert await bench.write(Address.TIMEOUT, 12) == OKAY
        for part in (0, 3):
            await bench.batch(x[part : part + 3])
            y = await bench.receive(part + 3)
            assert np.array_equal(y, expected[: part + 3])
            flags = 1 << Errors.TIMEOUT | (1 << Errors.CONVERTER if late else 0)
            assert await bench.read(Address.ERRORS) == (flags if part == 0 else 0, OKAY)
            assert await bench.write(Address.ERRORS, flags) == OKAY
        assert bench.array.measured == [
            (n, job) for first in (0, 3) for job in range(work) for n in range(first, first + 3)
        ]

    return Bench(system).run(script)


def without_codes(jobs: Jobs, x: np.ndarray, missing: dict[tuple[int, int], int]) -> np.ndarray:
    """The program's results when of measurements `(image, job)` only so many groups of columns give codes, else 0."""
    program, g = jobs.program, jobs.geometry
    tensors = {next(iter(program.inputs)): x}
    for node in program.nodes:
        y = np.array(node.operation(*(tensors[name] for name in node.operands)))
        for (image, job), groups in missing.items():
            work = jobs.work[job]
            if jobs.layers[work.layer].name == node.name:
                left = work.column_tile * g.columns
                y[image, work.row_tile, left + groups * g.lanes : left + g.columns] = 0
        tensors[node.name] = y
    return tensors[program.result]


class Bench:
    """The system, cycle by cycle; `script` gets the bench and calls its asynchronous functions.

    A system that wants weights is offered them again and again: `weights`, with TLAST above TDATA, or those it needs.

    results   the images' results that have left since the last reset
    """

    def __init__(
        self,
        system: PhotonicSystem,
        *,
        weights: list[int] | None = None,
        seed: int = 0,
        idle: float = 0.0,
        backpressure: float = 0.0,
    ):
        self.system = system
        self.images = Source(Wires.of(system.slave), idle=idle, seed=[seed, 0])
        self.sink = Sink(Wires.of(system.master), backpressure=backpressure, seed=[seed, 1], then=self.take)
        self.registers = Lite(system.registers.__getitem__, self.cycle, seed=[seed, 3])
        self.read, self.write = self.registers.read, self.registers.write
        streams = [self.images, self.sink, *self.registers.streams]
        self.weights: list[int] = []
        if system.streamed:
            tdata, tvalid, tready, tlast = system.weights
            self.weights = weights or [int.from_bytes(bytes(word), "little") for word in stream_words(system.jobs)]
            if weights is None:
                self.weights[-1] |= 1 << len(tdata)
            wires = Wires(Cat(tdata, tlast), tvalid, tready)
            self.weight_source = Source(wires, self.weights, idle=idle, seed=[seed, 2], then=self.again)
            streams.append(self.weight_source)
        self.drive = Drive(*streams, patience=QUIET)
        self.results: list[list[int]] = []
        self.partial: list[int] = []
        self.array: ArrayModel | None = None  # behind a system without a twin

    @property
    def cycles(self) -> int:
        return self.drive.now

    def run(self, script: Callable[[Bench], Awaitable[None]]) -> Bench:
        """Reset, then the script."""

        async def main(ctx):
            self.ctx = ctx
            await self.reset()
            await script(self)

        with garbling():
            sim = Simulator(self.system)
        sim.add_testbench(main)
        sim.run()
        return self

    # -- time ------------------------------------------------------------------------------------------
    async def reset(self) -> None:
        """Reset; what was to be sent or was half received is forgotten."""
        self.ctx.set(self.system.aresetn, 0)
        for stream in self.drive.streams:
            stream.clear()
        self.results, self.partial = [], []
        if self.weights:
            self.weight_source.words = list(self.weights)
        for _ in range(2):
            await edge(self.ctx, self.system.aclk)
        self.ctx.set(self.system.aresetn, 1)

    async def cycle(self, count: int = 1) -> None:
        """Cycles in which the streams move."""
        for _ in range(count):
            self.drive.set(self.ctx)
            if self.array is not None:
                self.array.step(self.ctx)
            self.drive.see(self.ctx)
            await edge(self.ctx, self.system.aclk)

    def again(self, k: int) -> None:
        """After the last of the weights they are offered from the first on."""
        if k == len(self.weight_source.words) - 1:
            self.weight_source.words += self.weights

    def take(self, word: int) -> None:
        width = len(self.system.master.tdata)
        self.partial.append(word & ((1 << width) - 1))
        last = len(self.partial) == self.system.output.beats
        assert bool(word >> width) == last, "TLAST is not on the last beat"
        if last:
            self.results.append(self.partial)
            self.partial = []

    # -- images ----------------------------------------------------------------------------------------
    def send(self, images: np.ndarray) -> None:
        """Images to go in, one after the other."""
        for words in self.system.input.pack(images):
            beats = [int.from_bytes(bytes(beat), "little") for beat in words]
            beats[-1] |= 1 << len(self.system.slave.tdata)
            self.images.words += beats

    async def batch(self, images: np.ndarray) -> None:
        """Start one batch when all these images are there, and no earlier."""
        assert await self.write(Address.CONTROL, 0) == OKAY
        self.send(images)
        while self.ctx.get(self.system.controller.image_buffer.arrived) < len(images):
            await self.cycle()
        assert await self.write(Address.CONTROL, 2) == OKAY

    async def receive(self, count: int) -> np.ndarray:
        """Go on until so many results are there."""
        while len(self.results) < count:
            await self.cycle()
        bytes_ = self.system.output.code_bytes
        raw = np.array(self.results[:count], dtype="<u8").view(np.uint8).reshape(count, -1, 8)[:, :, :bytes_]
        return self.system.output.unpack(np.ascontiguousarray(raw))


class ArrayModel:
    """An array without noise in numpy, behind a controller without a twin.

    pace        cycles from the sample to the first codes, and between groups of codes; None: it takes its time as it
                likes, for beats of weights, too
    lost        measurement (counted from 0) -> how many groups of its codes come; the others come `late` cycles after
                their time or, if that is 0, never
    measured    image and job of every measurement
    swaps       how often weights were changed
    """

    def __init__(
        self,
        system: PhotonicSystem,
        settling: int,
        seed: int = 0,
        pace: tuple[int, int] | None = None,
        lost: dict[int, int] | None = None,
        late: int = 0,
    ):
        self.jobs, self.settling, self.pace = system.jobs, settling, pace
        self.lost, self.late = lost or {}, late
        self.rng = np.random.default_rng(seed)
        self.pins = {signal.name.removeprefix("fe_"): signal for signal, _ in system.front}
        self.beat = data.View(weight_beat(system.jobs), self.pins["weight_payload"])
        g = self.jobs.geometry
        self.filling, self.used = (self.empty(g.rows, g.columns) for _ in range(2))
        self.applied = self.now = self.swaps = 0
        self.answers: list[tuple[int, int]] = []  # when at the earliest, and what
        self.measured: list[tuple[int, int]] = []

    @staticmethod
    def empty(rows: int, columns: int) -> dict[str, np.ndarray]:
        """A bank before anything was sent: what is not sent is seen."""
        unset = np.full((rows, columns), 10**6)
        return {"plus": unset.copy(), "minus": unset.copy(), "offset": unset[0].copy()}

    def step(self, ctx) -> None:
        """One cycle: sets what goes to the controller, then looks at what comes from it."""
        pins, g = self.pins, self.jobs.geometry
        self.now += 1
        ready = self.pace is not None or bool(self.rng.random() < 0.7)
        ctx.set(pins["weight_ready"], ready)
        due = bool(self.answers) and self.answers[0][0] <= self.now
        answer = due and (self.pace is not None or self.rng.random() < 0.4)
        ctx.set(pins["adc_valid"], answer)
        if answer:
            ctx.set(pins["adc_data"], self.answers.pop(0)[1])
        if ready and ctx.get(pins["weight_valid"]):
            beat = ctx.get(self.beat)
            part = slice(beat.group * g.lanes, (beat.group + 1) * g.lanes)
            if beat.bias:
                self.filling["offset"][part] = [beat.offset[k] for k in range(g.lanes)]
            else:
                for rail in ("plus", "minus"):
                    self.filling[rail][beat.row, part] = [beat[rail][k] for k in range(g.lanes)]
        if ctx.get(pins["swap"]):
            assert ctx.get(pins["input_valid"]), "weights change together with the inputs of a job's first image"
            self.used, self.filling = self.filling, self.empty(g.rows, g.columns)
            self.swaps += 1
            self.held = ctx.get(pins["job"]), ctx.get(pins["shift"])
        if ctx.get(pins["input_valid"]):
            assert self.late or not self.answers, "new inputs while the converter is at work"
            bits, word = self.jobs.codes.bits, ctx.get(pins["input_data"])
            self.codes = np.array([word >> bits * k & self.jobs.codes.high for k in range(g.rows)])
            self.applied, self.image = self.now, ctx.get(pins["image"])
        if self.swaps:
            assert self.held == (ctx.get(pins["job"]), ctx.get(pins["shift"]))
            assert self.image == ctx.get(pins["image"])
        if ctx.get(pins["sample"]):
            self.measure()

    def measure(self) -> None:
        """Codes of the light, to be given out later."""
        g = self.jobs.geometry
        assert self.now - self.applied == self.settling
        job, shift = self.held
        light = self.codes @ self.used["plus"] + (self.jobs.codes.high - self.codes) @ self.used["minus"]
        code = (light - self.used["offset"] + ((1 << shift) >> 1)) >> shift
        codes = np.clip(code, 0, self.jobs.adc.high).reshape(g.groups, g.lanes)
        first, step = self.pace or (1, 1)
        words = [sum(int(c) << self.jobs.adc.bits * k for k, c in enumerate(row)) for row in codes]
        self.answers = [(self.now + first + step * k, word) for k, word in enumerate(words)]
        come = self.lost.get(len(self.measured), g.groups)
        tardy = [(due + self.late, word) for due, word in self.answers[come:] if self.late]
        self.answers[come:] = tardy
        self.measured.append((self.image, job))
