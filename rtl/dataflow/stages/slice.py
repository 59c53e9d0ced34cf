"""Some of the channels: beats of the others are dropped."""

from __future__ import annotations

import math

from amaranth.hdl import Module, Signal

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Stage, Structure, advance, counting, realises, register, valid_chain
from bittrue.rtl.dataflow.timing import Phase, Phases, enough_credits
from bittrue.sim.operations.slice import Slice


@realises(Slice)
class SliceStage(Stage):
    """`y[t] = x[t, start:stop]`; nothing is stored.

    Latency     start / lanes cycles and 2: code 1, output FIFO 1
    Throughput  one input beat a cycle
    """

    def __init__(self, operation: Slice, *, lanes: int):
        self.operation = operation
        ends = (0, operation.start, operation.stop, operation.input.channels)
        self.parts = [(b - a) // lanes for a, b in zip(ends[:-1], ends[1:], strict=True)]
        phases = [Phase((1,), (1,), emits=int(k == 1), times=beats) for k, beats in enumerate(self.parts) if beats]
        self.timing = Phases(tuple(phases), (0,), depth=2, credits=enough_credits(2), frame=operation.input.tokens)
        fmt = operation.input.format
        super().__init__([(fmt, lanes)], (fmt, lanes))

    @classmethod
    def legal_lanes(cls, operation: Slice, offered: int) -> int:
        """A beat is taken or dropped as a whole."""
        return math.gcd(offered, operation.start, operation.stop, operation.input.channels)

    def structure(self) -> Structure:
        built = super().structure()
        built.count(sum(self.parts) - 1)
        built.registers += self.o.payload.shape().size
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Nothing is computed or stored."""
        return Effort()

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        before, inside, _ = self.parts
        taken, kept = self.accept(m, outlet), Signal(name="kept")
        at = Signal(counting(sum(self.parts)))
        advance(m, at, sum(self.parts) - 1, taken)
        with m.Switch(at):
            with m.Case(*range(before, before + inside)):
                m.d.comb += kept.eq(taken)
        m.d.comb += outlet.issue.eq(kept)
        m.d.comb += outlet.payload.eq(register(m, self.i.payload, self.o.payload.shape(), name="y"))
        m.d.comb += outlet.push.eq(valid_chain(m, kept, 1)[-1])
        return m
