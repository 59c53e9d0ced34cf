"""Scale and offset per channel: one multiplier a lane."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Module, Signal, Value

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Stage, Structure, advance, counting, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.rtl.parts.requantize import RequantizePipe, channel_constants, store_constants
from bittrue.sim.contract import Range
from bittrue.sim.held import Held
from bittrue.sim.operations.affine import Affine


@realises(Affine)
class AffineStage(Stage):
    """`y[c] = requantize(weight[c] x[c])`.

    Latency     3 cycles and the requantiser's; one more where the weights are held
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Affine, *, lanes: int):
        self.operation = operation
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, lanes)
        self.tables = [*self.requantize.tables.values()]
        self.weight_table = None
        if isinstance(operation.weight, Held):
            self.weight_table = Table(operation.weight, np.arange(operation.weight.size).reshape(-1, lanes))
            self.tables.insert(0, self.weight_table)
        self.arrival = 2 if self.weight_table is None else 3
        depth = self.arrival + self.requantize.cycles + 1
        beats = operation.input.size // lanes
        self.timing = Blocks(depth=depth, credits=enough_credits(depth), frame=beats)
        super().__init__([(operation.input.format, lanes)], (operation.output.format, lanes))

    def products(self, lane: int) -> Range:
        """Exact range of the products of a lane."""
        return Range.of(*(ends[lane :: self.lanes_in] for ends in self.operation.sums))

    def structure(self) -> Structure:
        built = super().structure() + self.requantize.structure()
        op, lanes = self.operation, self.lanes_in
        built.multipliers += lanes
        built.registers += lanes * op.input.format.bits + sum(self.products(lane).bits for lane in range(lanes))
        if self.weight_table is None:
            store_constants(built, lanes * op.weight_format.bits, op.input.channels // lanes)
        else:
            built += self.weight_table.structure()
            built.registers += lanes * op.input.format.bits
        if self.tables:
            built += Exchange.structure(self.exchange_bits, self.arrival)
            built.count(self.timing.frame - 1, op.input.channels // lanes - 1)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A product for each code, by constants that are read."""
        op, effort, bits = self.operation, Effort(), self.operation.weight_format.bits
        effort.multiply(op.input.format.bits, bits, op.input.size)
        effort.access("weights", op.input.channels * bits, op.input.size * bits)
        effort.requantize(self.requantize, op.input.tokens)
        return effort

    def follow(self, m: Module, go: Value) -> list[Value]:
        """The row of the beat that is taken in this cycle, and of the one that was a cycle ago, in the tables."""
        beats, groups = self.timing.frame, self.operation.input.channels // self.lanes_in
        at, group = Signal(counting(beats), name="frame_beat"), Signal(counting(groups), name="row_group")
        banks = self.exchange.follow(m, go & advance(m, at, beats - 1, go), self.arrival)
        advance(m, group, groups - 1, go)
        before = register(m, group, name="row_group_before")
        bits = (groups - 1).bit_length()
        return [Cat(group[:bits], banks[0]), Cat(before[:bits], banks[1])]

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        valid = valid_chain(m, go, self.timing.depth - 1)
        rows = self.follow(m, go) if self.tables else [None] * 2
        if self.weight_table is not None:
            weights = self.weight_table.build(m, "weight", rows[0])
        else:
            weights = channel_constants(m, "weight", {"weight": self.operation.weight}, self.lanes_in, go)["weight"]
        products = []
        for lane in range(self.lanes_in):
            code = self.i.payload[lane]
            x = register(m, code, shape_of(self.operation.input.format), name=f"x{lane}", cycles=self.arrival - 1)
            product = x * Value.cast(weights[lane])
            products.append(register(m, product, shape_of(self.products(lane)), name=f"product{lane}"))
        result = self.requantize.build(m, products, valid[self.arrival - 1], held=rows[self.arrival - 2])
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid[-1])]
        m.d.comb += [outlet.payload[lane].eq(v) for lane, v in enumerate(result)]
        return m
