"""Drives a planned pipeline in Amaranth's own simulator: no build, any geometry, seeded idle and back-pressure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan


@dataclass(frozen=True)
class Run:
    outputs: np.ndarray
    latency: int
    first: int
    ends: list[int]
    meets: list[int] = field(default_factory=list)
    errors: int = 0

    @property
    def interval(self) -> int:
        return self.ends[-1] - self.ends[-2]


@dataclass(frozen=True)
class Written:
    """Words to be written to the weights once so many frames have begun; `last` on the last, unless told where."""

    after: int
    words: np.ndarray
    lasts: Sequence[int] | None = None


def run(
    plan: Plan,
    batches: list[np.ndarray],
    idle: float = 0.0,
    backpressure: float = 0.0,
    seed: int = 0,
    sets: Sequence[Written] = (),
) -> Run:
    """Feed `batches` (one per program input) through the pipeline; the next frame follows at once.

    `sets` are written meanwhile; `Run.meets` says for every frame how many had taken effect when it began.
    """
    network = plan.network
    dut = Pipeline(network)
    rng = np.random.default_rng(seed)
    frames = len(batches[0])
    sources = []
    for name, batch in zip(plan.program.inputs, batches, strict=True):
        lanes = network.elements[network.made[name]].stage.lanes_in
        sources.append((dut.inlet(name), batch.reshape(frames, -1, lanes)))
    lanes = network.elements[network.output].stage.lanes_out
    expected = frames * plan.program.output.size // lanes
    beats, cycles = [], []
    first_in, meets, status = [], [], []
    words = [(w.after, int(word), k in (w.lasts or [len(w.words) - 1])) for w in sets for k, word in enumerate(w.words)]

    async def bench(ctx):
        position = [0] * len(sources)
        offered = [False] * len(sources)
        ready = True
        quiet = now = written = begun = 0
        offering = False
        while len(beats) < expected or written < len(words):
            for k, (port, data) in enumerate(sources):
                total = data.shape[0] * data.shape[1]
                if not offered[k] and position[k] < total and rng.random() >= idle:
                    offered[k] = True
                    frame, index = divmod(position[k], data.shape[1])
                    for lane, code in enumerate(data[frame, index]):
                        ctx.set(port.payload[lane], int(code))
                ctx.set(port.valid, offered[k])
            if written < len(words):
                after, word, last = words[written]
                offering = offering or (begun >= after and rng.random() >= idle)
                ctx.set(dut.loader.word, word & ((1 << len(dut.loader.word)) - 1))
                ctx.set(dut.loader.last, last)
            if words:
                ctx.set(dut.loader.valid, offering)
            ready = rng.random() >= backpressure
            ctx.set(dut.o.ready, ready)
            quiet += 1
            if offering and ctx.get(dut.loader.ready):
                written, offering, quiet = written + 1, False, 0
            for k, (port, _) in enumerate(sources):
                if offered[k] and ctx.get(port.ready):
                    first_in.append(now)
                    if position[k] == begun * sources[k][1].shape[1]:
                        begun += 1
                        meets.append(ctx.get(dut.loader.sets) if dut.loader else 0)
                    offered[k] = False
                    position[k] += 1
                    quiet = 0
            if ready and ctx.get(dut.o.valid):
                beats.append([ctx.get(dut.o.payload[lane]) for lane in range(lanes)])
                cycles.append(now)
                quiet = 0
            assert quiet < 5000, f"deadlock after {len(beats)} of {expected} beats"
            await ctx.tick()
            now += 1
        if words:
            status.append(ctx.get(dut.loader.errors))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    outputs = np.array(beats).reshape(frames, *plan.program.output.shape)
    per_frame = expected // frames
    ends = cycles[per_frame - 1 :: per_frame]
    return Run(outputs, cycles[0] - first_in[0], cycles[0], ends, meets, sum(status))
