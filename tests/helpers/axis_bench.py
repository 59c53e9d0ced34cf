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

    words    of every output, the beats as bytes, uint8 `[n, beat_bytes]`;  last   their TLAST, bool `[n]`
    errors   what every input counts in the end
    latency  cycles from the first beat taken to the first that left the output that began last
    """

    words: list[np.ndarray]
    last: list[np.ndarray]
    errors: list[int]
    latency: int


class AxisBench:
    """A top with `aclk`, `aresetn` and the AxisSignals `slaves` and `masters`, elaborated once for many runs."""

    def __init__(self, top, slaves: Sequence, masters: Sequence) -> None:
        self.top, self.slaves, self.masters = top, slaves, masters
        self.sim = Simulator(top)
        self.sim.add_testbench(self._testbench)
        self.fresh = True

    async def _testbench(self, ctx) -> None:
        await self.script(ctx)

    def run(
        self,
        beats: Sequence[Beats],
        produced: Sequence[int],
        idle: float = 0.0,
        backpressure: float = 0.0,
        seed: int = 0,
        closed: int | None = None,
    ) -> Seen:
        """From reset: the beats of every input go in, `produced` must come out of every output, and no more.

        The output `closed` is never ready: the run ends when nothing moves any more.
        """
        sources = []
        for k, (slave, (words, last)) in enumerate(zip(self.slaves, beats, strict=True)):
            whole = [
                int.from_bytes(word.tobytes(), "little") | int(flag) << len(slave.tdata)
                for word, flag in zip(words, last, strict=True)
            ]
            sources.append(Source(Wires.of(slave), whole, idle=idle, seed=[seed, k]))
        sinks = [
            Sink(Wires.of(m), backpressure=1.0 if k == closed else backpressure, seed=[seed, len(sources) + k])
            for k, m in enumerate(self.masters)
        ]
        errors: list[int] = []

        async def script(ctx) -> None:
            drive = Drive(*sources, *sinks, patience=PATIENCE)
            for _ in range(2):
                await edge(ctx, self.top.aclk)
            ctx.set(self.top.aresetn, 1)
            left = DRAIN
            while left and all(len(s.words) <= n for s, n in zip(sinks, produced, strict=True)):
                drive.set(ctx)
                drive.see(ctx)
                await edge(ctx, self.top.aclk)
                got = all(len(s.words) == n for s, n in zip(sinks, produced, strict=True))
                left -= got and not any(source.left for source in sources)
                if closed is not None and drive.quiet > PATIENCE // 2:
                    break
            errors.extend(ctx.get(slave.framing_errors) for slave in self.slaves)

        self.script = script
        if not self.fresh:
            self.sim.reset()
        self.fresh = False
        self.sim.run()
        all_words, all_last = [], []
        for sink, master in zip(sinks, self.masters, strict=True):
            width, size = len(master.tdata), master.port.beat_bytes
            words = [np.frombuffer((word & (1 << width) - 1).to_bytes(size, "little"), np.uint8) for word in sink.words]
            all_words.append(np.array(words, np.uint8).reshape(-1, size))
            all_last.append(np.array([word >> width for word in sink.words], bool))
        first = min(source.cycles[0] for source in sources)
        latency = max((sink.cycles[0] for sink in sinks if sink.cycles), default=first) - first
        return Seen(all_words, all_last, errors, latency)
