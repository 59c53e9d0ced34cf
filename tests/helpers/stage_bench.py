"""Drives a planned pipeline in Amaranth's own simulator: no build, any geometry, seeded idle and back-pressure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.hdl import Cat
from amaranth.sim import Simulator

from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan
from bittrue.sim.program import alone
from tests.helpers.collisions import garbling
from tests.helpers.drive import Drive, Sink, Source, Wires, pack, unpack


@dataclass(frozen=True)
class Run:
    """What came out, by result, and when: `beats` int64 `[frames, beats]` for each, in cycles from the first input."""

    results: tuple[np.ndarray, ...]
    beats: tuple[np.ndarray, ...]
    began: int
    meets: list[int] = field(default_factory=list)
    errors: int = 0

    @property
    def outputs(self) -> Any:
        """The codes of the only result, or of all."""
        return alone(self.results)

    @property
    def first(self) -> int:
        """Cycle of the first output beat, counted from the start of the bench: of the output that begins last."""
        return self.began + self.latency

    @property
    def latency(self) -> int:
        return max(int(cycles.flat[0]) for cycles in self.beats)

    @property
    def firsts(self) -> list[int]:
        """By output, from the first input on."""
        return [int(cycles.flat[0]) for cycles in self.beats]

    @property
    def output_ends(self) -> list[list[int]]:
        """By output, from the first input on."""
        return [cycles[:, -1].tolist() for cycles in self.beats]

    @property
    def ends(self) -> list[int]:
        """Of every frame, counted from the start of the bench."""
        return [self.began + max(ends) for ends in zip(*self.output_ends, strict=True)]

    @property
    def interval(self) -> int:
        return max(ends[-1] - ends[-2] for ends in self.output_ends)


@dataclass(frozen=True)
class Written:
    """Words to be written to the weights once so many frames have begun; `last` on the last, unless told where."""

    after: int
    words: np.ndarray
    lasts: Sequence[int] | None = None


class StageBench:
    """A pipeline in the simulator, elaborated once for many runs; every run begins with a reset of everything.

    What is read from a memory in the cycle in which it is written is garbage, where synthesis was told that nobody
    uses it.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.dut = Pipeline(plan.network)
        with garbling():
            self.sim = Simulator(self.dut)
        self.sim.add_clock(1e-6)
        self.sim.add_testbench(self._testbench)
        self.fresh = True

    async def _testbench(self, ctx) -> None:
        await self.script(ctx)

    def run(
        self,
        batches: list[np.ndarray],
        idle: float = 0.0,
        backpressure: float = 0.0,
        seed: int = 0,
        sets: Sequence[Written] = (),
    ) -> Run:
        """Feed `batches` (one per program input) through the pipeline; the next frame follows at once.

        `sets` are written meanwhile; `Run.meets` says for every frame how many had taken effect when it began.
        """
        plan, dut, network = self.plan, self.dut, self.plan.network
        meets: list[int] = []
        errors = 0
        frames = len(batches[0])
        sources: list[Source] = []
        starts: list[int] = []

        def begins(ctx, k: int):
            """Notes the set that a frame meets, when the first of its beats goes, on whatever input."""

            def then(word: int) -> None:
                if word == len(meets) * starts[k]:
                    meets.append(ctx.get(dut.loader.sets) if dut.loader else 0)

            return then

        for k, (name, batch) in enumerate(zip(plan.program.inputs, batches, strict=True)):
            kind, lanes = plan.program.inputs[name], network.elements[network.made[name]].stage.lanes_in
            beats = batch.reshape(frames, -1, lanes)
            starts.append(beats.shape[1])
            words = [pack(beat, kind.format.bits) for beat in beats.reshape(-1, lanes)]
            sources.append(Source(Wires.of(dut.inlet(name)), words, idle=idle, seed=[seed, k]))
        sinks = [
            Sink(Wires.of(outlet), backpressure=backpressure, seed=[seed, len(sources) + k])
            for k, outlet in enumerate(dut.outlets)
        ]
        lanes = [network.elements[k].stage.lanes_out for k in network.outputs]
        kinds = list(plan.program.outputs.values())
        expected = [frames * kind.size // wide for kind, wide in zip(kinds, lanes, strict=True)]
        streams = [*sources, *sinks]
        loader = None
        if sets:
            after, words = [], []
            for w in sets:
                lasts = w.lasts or [len(w.words) - 1]
                width = len(dut.loader.word)
                words += [pack([int(word)], width) | (k in lasts) << width for k, word in enumerate(w.words)]
                after += [w.after] * len(w.words)
            wires = Wires(Cat(dut.loader.word, dut.loader.last), dut.loader.valid, dut.loader.ready)
            loader = Source(wires, words, idle=idle, seed=[seed, len(streams)], may=lambda k: len(meets) >= after[k])
            streams.insert(0, loader)
        drive = Drive(*streams, patience=5000)

        async def script(ctx) -> None:
            nonlocal errors
            for k, source in enumerate(sources):
                source.then = begins(ctx, k)
            while any(len(s.words) < n for s, n in zip(sinks, expected, strict=True)) or (loader and loader.left):
                await drive.cycle(ctx)
            errors = ctx.get(dut.loader.errors) if loader else 0

        self.script = script
        if not self.fresh:
            self.sim.reset()
        self.fresh = False
        self.sim.run()
        began = min(source.cycles[0] for source in sources)
        results, cycles = [], []
        for sink, kind, wide in zip(sinks, kinds, lanes, strict=True):
            fmt = kind.format
            codes = np.array([unpack(word, fmt.bits, wide, fmt.signed) for word in sink.words])
            results.append(codes.reshape(frames, *kind.shape))
            cycles.append(np.array(sink.cycles).reshape(frames, -1) - began)
        return Run(tuple(results), tuple(cycles), began, meets, errors)


def run(plan: Plan, *arguments, **options) -> Run:
    """One run of a pipeline; the arguments are those of `StageBench.run`."""
    return StageBench(plan).run(*arguments, **options)
