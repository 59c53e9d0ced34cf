"""Drives a top with AXI4-Stream ports in Amaranth's own simulator: any beats, any TLAST, seeded stalls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from amaranth.sim import Simulator

from bittrue.flow.run.result import Beats

#: Cycles in which nothing moves that are taken for the end, when all has come and when something has not.
DRAIN, QUIET = 40, 600
#: Beats too many after which a run ends: there may be no end to them.
SURPLUS = 20


class Stimulus(NamedTuple):
    """A run: the beats of every input, how many must come out, and how often source and sink wait (probabilities)."""

    beats: Sequence[Beats]
    produced: int
    idle: float = 0.0
    backpressure: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What came of a run.

    words    the output's beats as bytes, uint8 `[n, beat_bytes]`;  last   their TLAST, bool `[n]`
    errors   what every input counts in the end
    taken    beats that every input took
    latency  cycles from the first beat taken to the first that left
    """

    words: np.ndarray
    last: np.ndarray
    errors: list[int]
    taken: list[int]
    latency: int


class AxisBench:
    """A top with `aclk`, `aresetn` and the AxisSignals `slaves` and `master`, elaborated once for many runs."""

    def __init__(self, top, slaves: Sequence, master) -> None:
        self.top, self.slaves, self.master = top, slaves, master

    def runs(self, stimuli: Sequence[Stimulus]) -> list[Seen]:
        """One run after the other, each from reset."""
        seen: list[Seen] = []

        async def bench(ctx):
            for seed, stimulus in enumerate(stimuli):
                seen.append(await self._run(ctx, stimulus, np.random.default_rng(seed)))

        sim = Simulator(self.top)
        sim.add_testbench(bench)
        sim.run()
        return seen

    async def _edge(self, ctx) -> None:
        ctx.set(self.top.aclk, 1)
        await ctx.delay(5e-9)
        ctx.set(self.top.aclk, 0)
        await ctx.delay(5e-9)

    async def _run(self, ctx, stimulus: Stimulus, rng: np.random.Generator) -> Seen:
        (beats, produced, idle, backpressure), master = stimulus, self.master
        size, sent = master.port.beat_bytes, [len(b.words) for b in beats]
        for slave in self.slaves:
            ctx.set(slave.tvalid, 0)
        ctx.set(self.top.aresetn, 0)
        for _ in range(2):
            await self._edge(ctx)
        ctx.set(self.top.aresetn, 1)
        words, lasts, taken, offered = [], [], [0] * len(beats), [False] * len(beats)
        held, first, left, quiet, now = None, None, None, 0, 0
        while (
            quiet < (DRAIN if taken == sent and len(words) >= produced else QUIET) and len(words) <= produced + SURPLUS
        ):
            for k, (slave, (codes, last)) in enumerate(zip(self.slaves, beats, strict=True)):
                if not offered[k] and taken[k] < len(codes) and rng.random() >= idle:
                    offered[k] = True
                    ctx.set(slave.tdata, int.from_bytes(codes[taken[k]].tobytes(), "little"))
                    ctx.set(slave.tlast, bool(last[taken[k]]))
                ctx.set(slave.tvalid, offered[k])
            ready = bool(rng.random() >= backpressure)
            ctx.set(master.tready, ready)
            quiet, now = quiet + 1, now + 1
            for k, slave in enumerate(self.slaves):
                if offered[k] and ctx.get(slave.tready):
                    offered[k], quiet = False, 0
                    taken[k] += 1
                    first = now if first is None else first
            beat = (ctx.get(master.tdata), ctx.get(master.tlast)) if ctx.get(master.tvalid) else None
            assert held is None or beat == held, "an output beat changed while it waited"
            held = None if ready else beat
            if beat is not None and ready:
                words.append(np.frombuffer(beat[0].to_bytes(size, "little"), np.uint8))
                lasts.append(bool(beat[1]))
                left, quiet = now if left is None else left, 0
            await self._edge(ctx)
        return Seen(
            np.array(words, np.uint8).reshape(-1, size),
            np.array(lasts, bool),
            [ctx.get(slave.framing_errors) for slave in self.slaves],
            taken,
            -1 if left is None or first is None else left - first,
        )
