"""Branches side by side along the channels: beats of one operand after those of the other."""

from __future__ import annotations

import math

from amaranth.hdl import Module, Signal

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Stage, Structure, advance, counting, realises, register, valid_chain
from bittrue.rtl.dataflow.timing import Phase, Phases, enough_credits
from bittrue.sim.operations.concat import Concat


@realises(Concat)
class ConcatStage(Stage):
    """`y[t] = (i[t], i1[t], ..)`: the beats of a token of each operand in turn; nothing is stored.

    Latency     2 cycles: code 1, output FIFO 1
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Concat, *, lanes: int):
        self.operation = operation
        self.beats = [part.channels // lanes for part in operation.parts]
        count = len(self.beats)
        phases = []
        for k, beats in enumerate(self.beats):
            one = tuple(int(k == operand) for operand in range(count))
            phases.append(Phase(one, one, times=beats))
        self.timing = Phases(
            tuple(phases), (0,) * count, depth=2, credits=enough_credits(2), frame=operation.output.tokens
        )
        fmt = operation.output.format
        super().__init__([(fmt, lanes)] * count, (fmt, lanes))

    @classmethod
    def legal_lanes(cls, operation: Concat, offered: int) -> int:
        """Codes of one operand only are in a beat."""
        return math.gcd(offered, *(part.channels for part in operation.parts))

    def structure(self) -> Structure:
        built, word = super().structure(), self.o.payload.shape().size
        built.count(sum(self.beats) - 1)
        built.registers += word
        built.select_bits += word * (len(self.beats) - 1)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Nothing is computed or stored."""
        return Effort()

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        total, go, come = sum(self.beats), Signal(name="go"), Signal(name="come")
        at = Signal(counting(total))
        advance(m, at, total - 1, go)
        chosen = Signal(self.o.payload.shape(), name="chosen")
        first = 0
        with m.Switch(at):
            for operand, beats in zip(self.operands, self.beats, strict=True):
                last = first + beats == total
                with m.Default() if last else m.Case(*range(first, first + beats)):
                    m.d.comb += [come.eq(operand.valid), operand.ready.eq(outlet.available)]
                    m.d.comb += chosen.eq(operand.payload)
                first += beats
        m.d.comb += [go.eq(come & outlet.available), outlet.issue.eq(go)]
        m.d.comb += outlet.payload.eq(register(m, chosen, self.o.payload.shape(), name="y"))
        m.d.comb += outlet.push.eq(valid_chain(m, go, 1)[-1])
        return m
