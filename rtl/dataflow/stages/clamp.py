"""Limit every code to a range: two comparisons a lane."""

from __future__ import annotations

from amaranth.hdl import Module, Mux

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Stage, Structure, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.operations.clamp import Clamp


@realises(Clamp)
class ClampStage(Stage):
    """`y = min(max(x, lowest), highest)`; latency 2 cycles, one beat a cycle."""

    def __init__(self, operation: Clamp, *, lanes: int):
        self.operation = operation
        self.timing = Blocks(depth=2, credits=enough_credits(2), frame=operation.input.size // lanes)
        super().__init__([(operation.input.format, lanes)], (operation.format, lanes))

    def structure(self) -> Structure:
        built = super().structure()
        for _ in range(self.lanes_in):
            built.select_bits += self.operation.input.format.bits
            built.registers += self.operation.format.bits
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Clamps are left out everywhere."""
        return Effort()

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        lowest, highest = self.operation.lowest, self.operation.highest
        for lane in range(self.lanes_in):
            x = self.i.payload[lane]
            y = Mux(x > highest, highest, Mux(x < lowest, lowest, x))
            m.d.comb += outlet.payload[lane].eq(register(m, y, shape_of(self.operation.format), name=f"y{lane}"))
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid_chain(m, go, 1)[-1])]
        return m
