"""Weighted sum over the taps of a window, each channel by itself: one multiplier a lane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.stage import Structure, advance, counting, realises, register, shape_of
from bittrue.rtl.dataflow.sums import RunningStage, codes, lanes_of, stored_bits
from bittrue.rtl.parts.held import Table
from bittrue.rtl.parts.requantize import RequantizePipe, channel_constants, store_constants
from bittrue.sim.contract import Range, product_sum_range
from bittrue.sim.held import Held, bounds
from bittrue.sim.operations.depthwise import Depthwise


@realises(Depthwise)
class DepthwiseStage(RunningStage):
    """`y[..., c] = requantize(sum_t weight[t, c] x[..., t, c])`.

    Latency     (T - 1) * C / lanes + depth cycles; depth = weights and codes 2, product 2, sum 1, requantiser, output
                FIFO 1
    Throughput  one input beat a cycle, C / lanes output beats a vector
    """

    def __init__(self, operation: Depthwise, *, lanes: int):
        requantize = RequantizePipe(operation.requantize, *operation.sums, lanes)
        super().__init__(
            operation,
            lanes=lanes,
            terms=operation.terms,
            totals=lanes_of(operation.sums, lanes),
            frame=operation.output.tokens,
            arrival=5,
            requantize=requantize,
        )
        self.weight_table = None
        if isinstance(operation.weight, Held):
            self.weight_table = Table(operation.weight, np.arange(operation.weight.size).reshape(-1, lanes))
            self.tables.insert(0, self.weight_table)

    def products(self, lane: int) -> Range:
        """Exact range of the products of a lane."""
        low, high = (ends.reshape(-1)[lane :: self.lanes_in] for ends in bounds(self.operation.weight))
        return Range.of(*product_sum_range((low[None], high[None]), self.operation.input.format, 0, "depthwise"))

    def structure(self) -> Structure:
        built, op, lanes = super().structure(), self.operation, self.lanes_in
        built.multipliers += lanes
        operands_and_products = sum(op.input.format.bits + self.products(lane).bits for lane in range(lanes))
        built.registers += 2 * operands_and_products
        built.inside += operands_and_products
        beats = op.terms * self.timing.beats_out
        if self.weight_table is not None:
            built += self.weight_table.structure()
            built.count(beats - 1)
        elif stored := stored_bits(op.weight, lanes):
            store_constants(built, stored, beats)
            built.registers += stored
            built.inside += stored
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A product and an addition to a running sum for each code, by weights that are read."""
        op, effort, weight = self.operation, Effort(), self.operation.weight_format.bits
        bits = width(*op.sums)
        effort.multiply(op.input.format.bits, weight, op.input.size)
        effort.add(bits, op.input.size)
        effort.access("weights", op.weight.size * weight, op.input.size * weight)
        effort.access("state", op.input.channels * bits, op.input.size * bits, op.input.size * bits)
        effort.requantize(self.requantize, op.output.tokens)
        return effort

    def terms_of(self, m: Module, go: Value, bank: Value | None) -> Sequence[Value]:
        op, lanes = self.operation, self.lanes_in
        weights: Sequence[Value]
        if self.weight_table is not None:
            beats = op.terms * self.timing.beats_out
            at = Signal(counting(beats), name="weight_at")
            advance(m, at, beats - 1, go)
            row = Cat(at[: (beats - 1).bit_length()], bank)
            weights = [Value.cast(w) for w in self.weight_table.build(m, "weight", row)]
        else:
            read = channel_constants(m, "weight", {"weight": op.weight.reshape(-1)}, lanes, go)["weight"]
            weights = [w if isinstance(w, Const) else register(m, w, name=f"w{lane}") for lane, w in enumerate(read)]
        return [
            register(m, x * w, shape_of(self.products(lane)), name=f"product{lane}", cycles=2)
            for lane, (x, w) in enumerate(zip(codes(self, m, 2), weights, strict=True))
        ]

    def following(self, first: Value, before: Value, term: Value) -> Value:
        return Mux(first, 0, before) + term
