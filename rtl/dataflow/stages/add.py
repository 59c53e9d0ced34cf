"""Saturating sum of two streams: the join of a residual connection."""

from __future__ import annotations

from amaranth.hdl import Module, Mux

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Stage, Structure, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.operations.add import Add


@realises(Add)
class AddStage(Stage):
    """`y = saturate(i + i1)`; a beat is taken from both operands at once.

    Latency     3 cycles (2 when no sum can saturate)
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Add, *, lanes: int):
        self.operation = operation
        exact, fmt = operation.accumulator, operation.format
        self.saturates = exact.low < fmt.low or exact.high > fmt.high
        depth = 2 + self.saturates
        self.timing = Blocks(
            depth=depth, credits=enough_credits(depth), operands=2, frame=operation.output.size // lanes
        )
        super().__init__([(operation.left.format, lanes), (operation.right.format, lanes)], (fmt, lanes))

    def structure(self) -> Structure:
        built = super().structure()
        for _ in range(self.lanes_in):
            built.add(self.operation.accumulator.bits)
            if self.saturates:
                built.select(self.operation.format.bits)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """An addition for each code."""
        effort = Effort()
        effort.add(self.operation.accumulator.bits, self.operation.output.size)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        fmt, cycles = self.operation.format, self.timing.depth - 1
        for lane in range(self.lanes_in):
            both = self.i.payload[lane] + self.i1.payload[lane]
            total = register(m, both, shape_of(self.operation.accumulator), name=f"sum{lane}")
            if self.saturates:
                clipped = Mux(total > fmt.high, fmt.high, Mux(total < fmt.low, fmt.low, total))
                total = register(m, clipped, shape_of(fmt), name=f"clipped{lane}")
            m.d.comb += outlet.payload[lane].eq(total)
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid_chain(m, go, cycles)[-1])]
        return m
