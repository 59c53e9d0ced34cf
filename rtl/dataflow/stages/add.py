"""Saturating sum of two streams or more: the join of a residual connection."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Module, Mux

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Stage, Structure, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.contract import Range
from bittrue.sim.operations.add import Add


@realises(Add)
class AddStage(Stage):
    """`y = saturate(i + i1 + ..)`; a beat is taken from all operands at once.

    Latency     3 cycles (2 when no sum can saturate), and one more for every doubling of two operands
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Add, *, lanes: int):
        self.operation = operation
        exact, fmt = operation.accumulator, operation.format
        self.saturates = exact.low < fmt.low or exact.high > fmt.high
        kinds = operation.inputs
        levels = (len(kinds) - 1).bit_length()
        depth = 1 + levels + self.saturates
        self.timing = Blocks(
            depth=depth, credits=enough_credits(depth), operands=len(kinds), frame=operation.output.size // lanes
        )
        super().__init__([(kind.format, lanes) for kind in kinds], (fmt, lanes))

    def tree(self) -> list[list[Range]]:
        """The range of what is left to be added, level by level, the operands first."""
        levels = [[Range(kind.format.low, kind.format.high) for kind in self.operation.inputs]]
        while len(last := levels[-1]) > 1:
            pairs = [Range(a.low + b.low, a.high + b.high) for a, b in zip(last[::2], last[1::2], strict=False)]
            levels.append(pairs + last[len(pairs) * 2 :])
        return levels

    def structure(self) -> Structure:
        built = super().structure()
        for _ in range(self.lanes_in):
            levels = self.tree()
            for before, after in pairwise(levels):
                for total in after[: len(before) // 2]:
                    built.add(total.bits)
                built.registers += sum(alone.bits for alone in after[len(before) // 2 :])
            if self.saturates:
                built.select(self.operation.format.bits)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """An addition for each code of every operand but one."""
        effort = Effort()
        for before, after in pairwise(self.tree()):
            for total in after[: len(before) // 2]:
                effort.add(total.bits, self.operation.output.size)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        fmt, cycles = self.operation.format, self.timing.depth - 1
        for lane in range(self.lanes_in):
            values = [operand.payload[lane] for operand in self.operands]
            for level, ranges in enumerate(self.tree()[1:]):
                pairs = [a + b for a, b in zip(values[::2], values[1::2], strict=False)]
                left = [*pairs, *values[len(pairs) * 2 :]]
                name = f"sum{lane}" if len(left) == 1 else f"sum{lane}_{level}"
                values = [
                    register(m, value, shape_of(kind), name=name if len(left) == 1 else f"{name}_{k}")
                    for k, (value, kind) in enumerate(zip(left, ranges, strict=True))
                ]
            (total,) = values
            if self.saturates:
                clipped = Mux(total > fmt.high, fmt.high, Mux(total < fmt.low, fmt.low, total))
                total = register(m, clipped, shape_of(fmt), name=f"clipped{lane}")
            m.d.comb += outlet.payload[lane].eq(total)
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid_chain(m, go, cycles)[-1])]
        return m
