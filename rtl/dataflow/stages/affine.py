"""Scale and offset per channel: one multiplier a lane."""

from __future__ import annotations

from amaranth.hdl import Module, Value

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import (
    Stage,
    Structure,
    Timing,
    enough_credits,
    realises,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.parts.requantize import RequantizePipe, channel_constants, store_constants
from bittrue.sim.contract import Range
from bittrue.sim.operations.affine import Affine


@realises(Affine)
class AffineStage(Stage):
    """`y[c] = requantize(weight[c] x[c])`.

    Latency     3 cycles and the requantiser's
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Affine, *, lanes: int):
        self.operation = operation
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, lanes)
        depth = 2 + self.requantize.cycles + 1
        beats = operation.input.size // lanes
        self.timing = Timing(depth=depth, credits=enough_credits(depth), frame=beats)
        super().__init__([(operation.input.format, lanes)], (operation.output.format, lanes))

    def structure(self) -> Structure:
        built = super().structure() + self.requantize.structure()
        op, lanes = self.operation, self.lanes_in
        built.multipliers += lanes
        built.registers += lanes * (op.input.format.bits + op.accumulator.bits)
        store_constants(built, lanes * op.weight_format.bits, op.input.channels // lanes)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A product for each code, by constants that are read."""
        op, effort, bits = self.operation, Effort(), self.operation.weight_format.bits
        effort.multiply(op.input.format.bits, bits, op.input.size)
        effort.access("weights", op.input.channels * bits, op.input.size * bits)
        effort.requantize(self.requantize, op.input.tokens)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        valid = valid_chain(m, go, self.timing.depth - 1)
        weights = channel_constants(m, "weight", {"weight": self.operation.weight}, self.lanes_in, go)["weight"]
        low, high = self.operation.sums
        products = []
        for lane in range(self.lanes_in):
            x = register(m, self.i.payload.data[lane], shape_of(self.operation.input.format), name=f"x{lane}")
            exact = Range.of(low[lane :: self.lanes_in], high[lane :: self.lanes_in])
            products.append(register(m, x * Value.cast(weights[lane]), shape_of(exact), name=f"product{lane}"))
        result = self.requantize.build(m, products, valid[1])
        m.d.comb += [
            outlet.issue.eq(go),
            outlet.push.eq(valid[-1]),
            outlet.payload.last.eq(register(m, self.i.payload.last, name="last", cycles=self.timing.depth - 1)),
        ]
        m.d.comb += [outlet.payload.data[lane].eq(v) for lane, v in enumerate(result)]
        return m
