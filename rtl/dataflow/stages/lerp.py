"""A learnable function per channel: one look-up of a knot and its slope, one small product."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import (
    Stage,
    Storage,
    Structure,
    advance,
    counting,
    realises,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.contract import Format, Range, round_shift
from bittrue.sim.operations.lerp import Lerp


@realises(Lerp)
class LerpStage(Stage):
    """`y = L[m] + round_shift((L[m+1] - L[m]) * l, f)`.

    Each lane has a ROM of (knot, difference to the next knot), so that one read serves both and the last knot needs
    no address of its own. Up to 3 fraction bits the product is made of shifted additions, without a multiplier.

    Latency     7 cycles (4 without fraction bits)
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Lerp, *, lanes: int):
        self.operation = operation
        depth = 7 if operation.fraction_bits else 4
        beats = operation.input.size // lanes
        self.timing = Blocks(depth=depth, credits=enough_credits(depth), frame=beats)
        super().__init__([(operation.input.format, lanes)], (operation.format, lanes))

    @property
    def difference(self) -> Format:
        step = np.diff(self.operation.knots, axis=1)
        return Range.of(step, step).format

    @property
    def products(self) -> Range:
        """Exact range of a difference times what is left of a code."""
        step, last = np.diff(self.operation.knots, axis=1), (1 << self.operation.fraction_bits) - 1
        return Range(int(min(0, step.min() * last)), int(max(0, step.max() * last)))

    @property
    def additions(self) -> Range:
        """Exact range of what is added to a knot: the product, rounded."""
        f = self.operation.fraction_bits
        return Range(*(int(round_shift(end, f)) for end in (self.products.low, self.products.high)))

    @property
    def storage(self) -> Storage:
        """The ROM of one lane."""
        op = self.operation
        rows = 1 if len(op.knots) == 1 else op.input.channels // self.lanes_in
        return Storage(op.format.bits + self.difference.bits, rows * op.segments, table=True)

    def structure(self) -> Structure:
        built = super().structure()
        op, f = self.operation, self.operation.fraction_bits
        built.count(op.input.channels // self.lanes_in - 1)
        built.store(self.storage, self.lanes_in)
        for _ in range(self.lanes_in):
            built.registers += op.input.format.bits + op.format.bits
            if f:
                built.registers += 2 * op.format.bits
                product = self.products.bits
                built.registers += self.difference.bits + 2 * f
                if f <= 3:
                    for _ in range(max(1, f - 1)):
                        built.add(product, registered=False)
                    built.select_bits += product
                else:
                    built.multipliers += 1
                built.registers += product
                built.add(self.additions.bits)
                built.add(op.format.bits)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A knot and the difference to the next are read; one product, and two additions with the rounding."""
        op, effort, size = self.operation, Effort(), self.operation.input.size
        if op.fraction_bits:
            effort.multiply(self.difference.bits, op.fraction_bits, size)
            effort.add(op.accumulator.bits, 2 * size)
        effort.access("weights", self.lanes_in * self.storage.bits, size * self.storage.width)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        op, f, lanes = self.operation, self.operation.fraction_bits, self.lanes_in
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        valid = valid_chain(m, go, self.timing.depth - 1)
        segment_bits = op.segments.bit_length() - 1
        groups = op.input.channels // lanes
        group = Signal(counting(groups))
        advance(m, group, groups - 1, valid[1])
        layout = data.StructLayout({"knot": shape_of(op.format), "step": shape_of(self.difference)})
        for lane in range(lanes):
            rows = op.knots if len(op.knots) == 1 else op.knots[lane::lanes]
            content = [
                {"knot": int(row[k]), "step": int(row[k + 1] - row[k])} for row in rows for k in range(op.segments)
            ]
            m.submodules[f"knots{lane}"] = rom = self.storage.memory(layout, content)
            port = rom.read_port(domain="sync")
            # x - low of a two's complement code is the code with its sign bit inverted.
            offset = Value.cast(self.i.payload[lane]).as_unsigned() ^ (-op.input.format.low)
            offset = register(m, offset, op.input.format.bits, name=f"offset{lane}")
            address = offset[f:] if segment_bits else Const(0, 0)
            m.d.comb += [port.addr.eq(Cat(address, group) if len(rows) > 1 else address), port.en.eq(1)]
            knot = register(m, port.data.knot, shape_of(op.format), name=f"knot{lane}")
            if f == 0:
                result = knot
            else:
                rest = register(m, offset[:f], f, name=f"rest{lane}", cycles=2)
                step = register(m, port.data.step, shape_of(self.difference), name=f"step{lane}")
                if f <= 3:
                    product = sum((Mux(rest[k], step << k, 0) for k in range(f)), Const(0))
                else:
                    product = rest * step
                product = register(m, product, shape_of(self.products), name=f"product{lane}")
                rounded = (product + (1 << (f - 1))) >> f
                rounded = register(m, rounded, shape_of(self.additions), name=f"rounded{lane}")
                held = register(m, knot, shape_of(op.format), name=f"held{lane}", cycles=2)
                result = register(m, held + rounded, shape_of(op.format), name=f"y{lane}")
            m.d.comb += outlet.payload[lane].eq(result)
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid[-1])]
        return m
