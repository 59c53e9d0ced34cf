"""The channel with the largest code, compared one after the other."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import (
    Stage,
    Structure,
    advance,
    counting,
    counting_bits,
    realises,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.operations.arg_max import ArgMax


@realises(ArgMax)
class ArgMaxStage(Stage):
    """`y = argmax_c x[c]`, one code a beat.

    Latency     C - 1 cycles and 3: code 1, largest 1, output FIFO 1
    Throughput  one input beat a cycle
    """

    def __init__(self, operation: ArgMax, *, lanes: int):
        self.operation = operation
        depth = 3
        self.timing = Blocks(
            beats_in=operation.input.channels, depth=depth, credits=enough_credits(depth), frame=operation.input.tokens
        )
        super().__init__([(operation.input.format, lanes)], (operation.output.format, 1))

    @classmethod
    def legal_lanes(cls, operation: ArgMax, offered: int) -> int:  # noqa: ARG003
        """One: a decision is rare."""
        return 1

    def structure(self) -> Structure:
        built, op = super().structure(), self.operation
        bits, number = op.input.format.bits, counting_bits(op.input.channels)
        built.count(op.input.channels - 1)
        built.registers += (
            2 * bits + 2 * number + 2
        )  # the code, its number, whether it is the first and comes; the best
        built.select_bits += bits + number
        built.add(bits, registered=False)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A comparison for each code."""
        effort = Effort()
        effort.add(self.operation.input.format.bits, self.operation.input.size)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        op, shape = self.operation, shape_of(self.operation.input.format)
        at = Signal(counting(op.input.channels), name="channel")
        last = advance(m, at, op.input.channels - 1, go)
        m.d.comb += outlet.issue.eq(go & last)
        code, number = register(m, self.i.payload[0], shape, name="code"), register(m, at, name="number")
        first, come = register(m, at == 0, 1, name="first"), valid_chain(m, go, 1)[-1]
        best, which = Signal(shape, name="best", reset_less=True), Signal.like(number, name="which", reset_less=True)
        larger = Signal(name="larger")
        m.d.comb += larger.eq(first | (code > best))
        with m.If(come):
            m.d.sync += [best.eq(Mux(larger, code, best)), which.eq(Mux(larger, number, which))]
        m.d.comb += outlet.payload[0].eq(which)
        m.d.comb += outlet.push.eq(valid_chain(m, outlet.issue, self.timing.depth - 1)[-1])
        return m
