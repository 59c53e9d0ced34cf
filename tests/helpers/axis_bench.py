"""Drives a top with AXI4-Stream ports in Amaranth's own simulator: any beats, any TLAST, seeded stalls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.sim import Simulator

from bittrue.flow.run.result import Beats
from tests.helpers.drive import Drive, Sink, Source, Wires, edge

#: Cycles in which nothing moves: a deadlock.
PATIENCE = 1000
#: Cycles after the last beat in which one too many would come.
DRAIN = 40


@dataclass(frozen=True)
class Seen:
    """What came of a run.

    words    the output's beats as bytes, uint8 `[n, beat_bytes]`;  last   their TLAST, bool `[n]`
    errors   what every input counts in the end
    latency  cycles from the first beat taken to the first that left
    """

    words: np.ndarray
    last: np.ndarray
    errors: list[int]
    latency: int


class AxisBench:
    """A top with `aclk`, `aresetn` and the AxisSignals `slaves` and `master`, elaborated once for many runs."""

    def __init__(self, top, slaves: Sequence, master) -> None:
        self.top, self.slaves, self.master = top, slaves, master
        self.sim = Simulator(top)
        self.sim.add_testbench(self._testbench)
        self.fresh = True

    async def _testbench(self, ctx) -> None:
        await self.script(ctx)

    def run(
        self, beats: Sequence[Beats], produced: int, idle: float = 0.0, backpressure: float = 0.0, seed: int = 0
    ) -> Seen:
        """From reset: the beats of every input go in, `produced` must come out, and no more."""
        sources = []
        for k, (slave, (words, last)) in enumerate(zip(self.slaves, beats, strict=True)):
            whole = [
                int.from_bytes(word.tobytes(), "little") | int(flag) << len(slave.tdata)
                for word, flag in zip(words, last, strict=True)
            ]
            sources.append(Source(Wires.of(slave), whole, idle=idle, seed=[seed, k]))
        sink = Sink(Wires.of(self.master), backpressure=backpressure, seed=[seed, len(sources)])
        errors: list[int] = []

        async def script(ctx) -> None:
            drive = Drive(*sources, sink, patience=PATIENCE)
            for _ in range(2):
                await edge(ctx, self.top.aclk)
            ctx.set(self.top.aresetn, 1)
            left = DRAIN
            while left and len(sink.words) <= produced:
                drive.set(ctx)
                drive.see(ctx)
                await edge(ctx, self.top.aclk)
                left -= len(sink.words) == produced and not any(source.left for source in sources)
            errors.extend(ctx.get(slave.framing_errors) for slave in self.slaves)

        self.script = script
        if not self.fresh:
            self.sim.reset()
        self.fresh = False
        self.sim.run()
        width, size = len(self.master.tdata), self.master.port.beat_bytes
        words = [np.frombuffer((word & (1 << width) - 1).to_bytes(size, "little"), np.uint8) for word in sink.words]
        first = min(source.cycles[0] for source in sources)
        return Seen(
            np.array(words, np.uint8).reshape(-1, size),
            np.array([word >> width for word in sink.words], bool),
            errors,
            sink.cycles[0] - first,
        )
