"""Drives the digital twin of the photonic array alone, as a controller may, and compares it with `PhotonicMac`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from amaranth.sim import Simulator

from bittrue.rtl.light.jobs import Geometry, Job, Jobs
from bittrue.rtl.light.twin import PhotonicTwin
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.program import Program
from tests.helpers.collisions import garbling
from tests.helpers.drive import Source, Wires
from tests.helpers.photonic_programs import photonic_network

#: Cycles in which codes have to come.
PATIENCE = 2000


def network(
    geometry: Geometry, kinds: tuple[str, ...] | None = None, sizes: tuple[int, ...] = (10, 7, 5), **options
) -> Program:
    """A network whose layers have these kinds of noise: the names of its sources, "" for none."""
    program = photonic_network(sizes, geometry.rows, noise=kinds is not None, **options)
    nodes, wanted = [], iter(kinds or ())
    for node in program.nodes:
        operation = node.operation
        if isinstance(operation, PhotonicMac) and kinds is not None:
            names = next(wanted).split()
            # Strong enough that every source alone changes codes; images of the layers start elsewhere.
            factors = {
                name: getattr(operation.noise, name) * 4 if name in names else 0
                for name in ("relative", "shot", "thermal")
            }
            first = (1 << 32) - 2 - operation.noise.layer
            operation = replace(operation, noise=replace(operation.noise, first=first, **factors) if names else None)
        nodes.append(replace(node, operation=operation))
    return replace(program, nodes=tuple(nodes))


class Bench:
    """The twin, cycle by cycle, as the controller sees it.

    codes     groups of codes that came, with the cycle of each
    """

    def __init__(self, jobs: Jobs, seed: int = 0, **options):
        self.jobs, self.twin = jobs, PhotonicTwin(jobs, **options)
        self.weights = Source(Wires.of(self.twin.front.weight), idle=0.2, seed=seed)
        self.now, self.codes = 0, []

    def run(self, script) -> Bench:
        async def main(ctx):
            self.ctx = ctx
            await script(self)

        with garbling():
            sim = Simulator(self.twin)
        sim.add_clock(1e-8)
        sim.add_testbench(main)
        sim.run()
        return self

    async def cycle(self, count: int = 1) -> None:
        ctx, front = self.ctx, self.twin.front
        for _ in range(count):
            self.weights.set(ctx)
            self.weights.see(ctx, self.now)
            if ctx.get(front.adc_valid):
                self.codes.append((self.now, [ctx.get(code) for code in front.adc_data]))
            await ctx.tick()
            self.now += 1

    def fill(self, job: Job) -> None:
        """Weights and offsets of a job are to go to the other bank; what it does not use is 0."""
        g, mac, front = self.jobs.geometry, self.jobs.layers[job.layer].mac, self.twin.front
        left, top = job.column_tile * g.columns, job.row_tile * g.rows
        plus, minus = np.zeros((2, g.rows, g.columns), np.int64)
        for rail, cells in ((plus, mac.plus), (minus, mac.minus)):
            rail[: job.rows, : job.columns] = cells[left : left + job.columns, top : top + job.rows].T
        offset = np.zeros(g.columns, np.int64)
        offset[: job.columns] = mac.offset[job.row_tile, left : left + job.columns]
        dark = [0] * g.lanes
        for row in range(g.rows + 1):
            for group in range(g.groups):
                part, bias = slice(group * g.lanes, (group + 1) * g.lanes), row == g.rows
                cells = {"plus": dark, "minus": dark, "offset": offset[part].tolist()}
                if not bias:
                    cells = {"plus": plus[row, part].tolist(), "minus": minus[row, part].tolist(), "offset": dark}
                beat = {"row": 0 if bias else row, "group": group, "bias": int(bias), **cells}
                self.weights.words.append(front.weight.payload.shape().const(beat).as_bits())

    async def filled(self) -> None:
        while self.weights.left:
            await self.cycle()

    async def swap(self, job: Job, inputs: np.ndarray | None = None, image: int = 0) -> None:
        """The banks change places, in the same cycle as the inputs of the first image if there are any."""
        front = self.twin.front
        self.ctx.set(front.swap, 1)
        if inputs is None:
            await self.cycle()
        else:
            await self.light(inputs, image)
        self.ctx.set(front.swap, 0)
        self.ctx.set(front.job, job.number)
        self.ctx.set(front.shift, self.jobs.layers[job.layer].mac.shift)

    async def light(self, inputs: np.ndarray, image: int) -> None:
        """Codes of the inputs of an image."""
        ctx, front = self.ctx, self.twin.front
        codes = np.zeros(self.jobs.geometry.rows, np.int64)
        codes[: len(inputs)] = inputs
        ctx.set(front.input_data, codes.tolist())
        ctx.set(front.input_valid, 1)
        await self.cycle()
        ctx.set(front.input_valid, 0)
        ctx.set(front.input_data, [0] * len(codes))
        ctx.set(front.image, image)

    async def measure(self, wait: int) -> np.ndarray:
        """The codes of all columns, sampled after so many cycles without light or change."""
        ctx, front, first = self.ctx, self.twin.front, len(self.codes)
        await self.cycle(wait)
        ctx.set(front.sample, 1)
        await self.cycle()
        ctx.set(front.sample, 0)
        begin = self.now
        while len(self.codes) - first < self.jobs.geometry.groups:
            await self.cycle()
            assert self.now - begin < PATIENCE, "no codes come"
        return np.array([code for _, lanes in self.codes[first:] for code in lanes])


def part(codes: np.ndarray, job: Job, jobs: Jobs) -> np.ndarray:
    """What a job measures of `[tiles, outputs]`."""
    left = job.column_tile * jobs.geometry.columns
    return codes[job.row_tile, left : left + job.columns]


def exact(program: Program, geometry: Geometry, images: int = 2, settling: int = 3, seed: int = 0, **options) -> Bench:
    """All jobs of some images, each with one set of weights for all images; the next weights come meanwhile."""
    jobs = Jobs.of(program, geometry)
    bench = Bench(jobs, seed, settling=settling, **options)
    rng = np.random.default_rng(seed + 1)
    inputs = [rng.integers(0, jobs.codes.high + 1, (images, layer.mac.input.channels)) for layer in jobs.layers]
    expected = [layer.mac.reference(x) for layer, x in zip(jobs.layers, inputs, strict=True)]

    async def script(bench):
        bench.fill(jobs.work[0])
        for job in jobs.work:
            await bench.filled()
            rows = slice(job.row_tile * geometry.rows, job.row_tile * geometry.rows + job.rows)
            for image in range(images):
                x = inputs[job.layer][image, rows]
                if image:
                    await bench.light(x, image)
                elif job.number % 2:  # inputs later than weights
                    await bench.swap(job)
                    await bench.cycle(2)
                    await bench.light(x, image)
                else:
                    await bench.swap(job, x, image)
                if image == 0 and job.number + 1 < len(jobs.work):
                    bench.fill(jobs.work[job.number + 1])
                codes = await bench.measure(settling - 1)
                wanted = part(expected[job.layer][image], job, jobs)
                np.testing.assert_array_equal(codes[: job.columns], wanted, f"job {job.number}, image {image}")

    return bench.run(script)
