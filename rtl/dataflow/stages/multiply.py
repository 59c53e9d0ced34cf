"""Product of two streams: one multiplier a lane."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Stage, Structure, advance, counting, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.held import Exchange
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.operations.multiply import Multiply

#: Cycles from a beat to its product: operands 1, product 2.
ARRIVAL = 3


@realises(Multiply)
class MultiplyStage(Stage):
    """`y[c] = requantize(i[c] * i1[c])`; a beat is taken from both operands at once.

    Latency     operands 1, product 2, output FIFO 1 cycles and the requantiser's
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Multiply, *, lanes: int):
        self.operation = operation
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, lanes)
        self.tables = [*self.requantize.tables.values()]
        depth = ARRIVAL + self.requantize.cycles + 1
        self.timing = Blocks(
            depth=depth, credits=enough_credits(depth), operands=2, frame=operation.output.size // lanes
        )
        kinds = [(kind.format, lanes) for kind in operation.inputs]
        super().__init__(kinds, (operation.output.format, lanes))

    def structure(self) -> Structure:
        built, op = super().structure() + self.requantize.structure(), self.operation
        built.multipliers += self.lanes_in
        operands = op.left.format.bits + op.right.format.bits
        built.registers += self.lanes_in * (operands + 2 * op.product.bits)
        built.inside += self.lanes_in * (operands + op.product.bits)
        if self.tables:
            built += Exchange.structure(self.exchange_bits, ARRIVAL)
            groups = op.left.channels // self.lanes_in
            built.count(self.timing.frame - 1, groups - 1)
            built.registers += (ARRIVAL - 2) * max(1, (groups - 1).bit_length())
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A product for each pair of codes."""
        op, effort = self.operation, Effort()
        effort.multiply(op.left.format.bits, op.right.format.bits, op.output.size)
        effort.requantize(self.requantize, op.output.tokens)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        op = self.operation
        valid = valid_chain(m, go, self.timing.depth - 1)
        row = self._row(m, go) if self.tables else None
        products = []
        for lane in range(self.lanes_in):
            a, b = (
                register(m, operand.payload[lane], shape_of(kind.format), name=f"{name}{lane}")
                for name, operand, kind in zip("ab", self.operands, op.inputs, strict=True)
            )
            products.append(register(m, a * b, shape_of(op.product), name=f"product{lane}", cycles=2))
        result = self.requantize.build(m, products, valid[ARRIVAL - 1], held=row)
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid[-1])]
        m.d.comb += [outlet.payload[lane].eq(v) for lane, v in enumerate(result)]
        return m

    def _row(self, m: Module, go: Value) -> Value:
        """The row in the requantiser's tables, a cycle before the products are there."""
        beats, groups = self.timing.frame, self.operation.left.channels // self.lanes_in
        at, group = Signal(counting(beats), name="frame_beat"), Signal(counting(groups), name="row_group")
        banks = self.exchange.follow(m, go & advance(m, at, beats - 1, go), ARRIVAL)
        advance(m, group, groups - 1, go)
        before = register(m, group, name="row_group_before", cycles=ARRIVAL - 2)
        return Cat(before[: (groups - 1).bit_length()], banks[ARRIVAL - 2])
