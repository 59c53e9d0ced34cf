"""Scale and offset per channel: one multiplier a lane."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal, Value

from bittrue.rtl.dataflow.adders.stage import ADDERS, AdderStage
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
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.rtl.parts.requantize import RequantizePipe, channel_constants, store_constants
from bittrue.sim.contract import Format, Range
from bittrue.sim.held import Held
from bittrue.sim.operations.affine import Affine


@realises(Affine)
class AffineStage(Stage):
    """`y[c] = requantize(weight[c] x[c])`.

    Latency     weights and codes 2, product 2, output FIFO 1 cycles and the requantiser's
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
        self.arrival = 4
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
        operands_and_products = sum(op.input.format.bits + self.products(lane).bits for lane in range(lanes))
        built.registers += 2 * operands_and_products
        built.inside += operands_and_products
        if self.weight_table is None:
            lanes_of = [op.weight[lane::lanes] for lane in range(lanes)]
            stored = sum(Format.covering(mine).bits for mine in lanes_of if (mine != mine[0]).any())
            if stored:
                store_constants(built, stored, op.input.channels // lanes)
                built.registers += stored
                built.inside += stored
        else:
            built += self.weight_table.structure()
        if self.tables:
            built += Exchange.structure(self.exchange_bits, self.arrival)
            built.count(self.timing.frame - 1, op.input.channels // lanes - 1)
        if self.requantize.tables:
            built.registers += 2 * counting_bits(op.input.channels // lanes)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A product for each code, by constants that are read."""
        op, effort, bits = self.operation, Effort(), self.operation.weight_format.bits
        effort.multiply(op.input.format.bits, bits, op.input.size)
        effort.access("weights", op.input.channels * bits, op.input.size * bits)
        effort.requantize(self.requantize, op.input.tokens)
        return effort

    def follow(self, m: Module, go: Value) -> list[Value]:
        """The row in the tables of the beat that is taken in this cycle; and of the requantiser's, two cycles later."""
        beats, groups = self.timing.frame, self.operation.input.channels // self.lanes_in
        at, group = Signal(counting(beats), name="frame_beat"), Signal(counting(groups), name="row_group")
        banks = self.exchange.follow(m, go & advance(m, at, beats - 1, go), self.arrival)
        advance(m, group, groups - 1, go)
        bits = (groups - 1).bit_length()
        rows = [Cat(group[:bits], banks[0])]
        if self.requantize.tables:
            rows.append(Cat(register(m, group, name="row_group_before", cycles=2)[:bits], banks[2]))
        return rows

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        valid = valid_chain(m, go, self.timing.depth - 1)
        rows = self.follow(m, go) if self.tables else [None]
        if self.weight_table is not None:
            weights = self.weight_table.build(m, "weight", rows[0])
        else:
            read = channel_constants(m, "weight", {"weight": self.operation.weight}, self.lanes_in, go)["weight"]
            weights = [w if isinstance(w, Const) else register(m, w, name=f"w{lane}") for lane, w in enumerate(read)]
        products = []
        for lane in range(self.lanes_in):
            code = self.i.payload[lane]
            x = register(m, code, shape_of(self.operation.input.format), name=f"x{lane}", cycles=2)
            product = x * Value.cast(weights[lane])
            products.append(register(m, product, shape_of(self.products(lane)), name=f"product{lane}", cycles=2))
        result = self.requantize.build(m, products, valid[self.arrival - 1], held=rows[-1])
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid[-1])]
        m.d.comb += [outlet.payload[lane].eq(v) for lane, v in enumerate(result)]
        return m


@realises(Affine, ADDERS)
class AdderAffineStage(AdderStage):
    """The same without a multiplier, all channels in every beat: the weights are a diagonal matrix of adders."""

    @classmethod
    def matrix(cls, operation: Affine) -> np.ndarray:
        return np.diag(operation.weight)
