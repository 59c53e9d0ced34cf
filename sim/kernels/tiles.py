"""Register tiles of a matrix product, as LLVM IR: rows wherever they lie, sums or codes out.

A step multiplies four bytes of every row, broadcast, with a vector of weights, and steps are made in groups; what a
step holds and with which instructions it is made follows from the type of the image (`sim.kernels.isa`). Sums stay in
registers until all steps are made, and where codes are wanted they are requantised there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bittrue.sim.kernels.isa import I8, I32, I64, Isa, Step, isa_of

#: Numbers of the epilogue that each output has, and that all have together: see `tile`.
EACH, ALL = 3, 3


def tile(vectors: int, stored: bool) -> Any:
    """The intrinsic `tile(image, where, row, reach, weight, table, entry, out, to, place, column, numbers)` for as many
    vectors of outputs.

    image    uint8, int16 or int8, flat
    where    int64: the tile's rows begin at byte `where[row]` and those after it
    reach    int64, flat: bytes from there to those of a step
    weight   flat: panels of weights
    table    int64, flat: from `entry` on the panel's first step in `reach`, its first byte in `weight`, and how many
             groups of each size there are
    out      sums int32 [rows, N]: the tile's rows from `to` on; or where it is `stored` codes uint8, requantised in
             registers: row `to + place[row]` and those of the places after it; in both as many columns from `column` on
    numbers  of the epilogue, int32: what is added, multiplier, shift [N each]; low, high, whether there is a multiplier
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        isa = isa_of(kinds[0])
        if vectors > isa.widest:  # a branch that is never taken
            return context.get_dummy_value()
        arrays = {k: context.make_array(kinds[k])(context, builder, arguments[k]) for k in (0, 1, 3, 4, 5, 7, 9, 11)}
        image, where, reach, weight, table, out, place, numbers = arrays.values()
        row, entry, to, column = (arguments[k] for k in (2, 6, 8, 10))
        written = _Tile(builder, isa, vectors)
        first = written.load(table.data, entry)
        start = written.load(table.data, builder.add(entry, I64(1)))
        counts = [written.load(table.data, builder.add(entry, I64(2 + k))) for k in range(len(isa.groups))]
        begins = [written.load(where.data, builder.add(row, I64(r))) for r in range(isa.rows)]
        written.rows = [written.at(image.data, begin) for begin in begins]
        written.numbers, written.column = numbers, column
        from_ = written.initial() if stored else [ir.Constant(isa.vector, [0] * isa.lanes)] * vectors
        sums = written.sums(reach.data, first, written.at(weight.data, start), counts, from_)
        if stored:
            rows = [written.load(place.data, builder.add(row, I64(r))) for r in range(isa.rows)]
            sums = written.requantised(sums)
        else:
            rows = [I64(r) for r in range(isa.rows)]
        width, size = cgutils.unpack_tuple(builder, out.strides)[0], 1 if stored else 4
        places = [
            written.at(
                out.data, builder.mul(width, builder.add(to, r)), builder.mul(builder.add(column, I64(c)), I64(size))
            )
            for r in rows
            for c in range(0, isa.lanes * vectors, isa.lanes)
        ]
        if stored:
            isa.store(builder, sums, [written.spread(k) for k in (ALL, ALL - 1)], places, vectors)
        else:
            for total, pointer in zip(sums, places, strict=True):
                builder.store(total, builder.bitcast(pointer, isa.vector.as_pointer()), align=1)
        return context.get_dummy_value()

    def typed(typingctx, image, where, row, reach, weight, table, entry, out, to, place, column, numbers):  # noqa: ARG001
        index = types.int64
        return types.void(image, where, index, reach, weight, table, index, out, index, place, index, numbers), generate

    return intrinsic(typed)


class _Tile:
    """The instructions of one tile, as they are written."""

    def __init__(self, builder: ir.IRBuilder, isa: Isa, vectors: int) -> None:
        self.builder, self.isa, self.vectors = builder, isa, vectors
        self.rows: list[Any] = []
        self.numbers: Any = None
        self.column: Any = None
        self.chains = isa.chains(vectors)

    def at(self, base: Any, *offsets: Any) -> Any:
        """The byte at these offsets, added up."""
        pointer = self.builder.bitcast(base, I8.as_pointer())
        for offset in offsets:
            pointer = self.builder.gep(pointer, [offset])
        return pointer

    def load(self, base: Any, index: Any) -> Any:
        """A number of an array."""
        return self.builder.load(self.builder.gep(base, [index]))

    def vector(self, pointer: Any) -> Any:
        """A vector from wherever it lies."""
        return self.builder.load(self.builder.bitcast(pointer, self.isa.vector.as_pointer()), align=1)

    def splat(self, number: Any) -> Any:
        """A number in all lanes."""
        undefined = ir.Constant(self.isa.vector, ir.Undefined)
        lanes = ir.Constant(self.isa.vector, [0] * self.isa.lanes)
        return self.builder.shuffle_vector(self.builder.insert_element(undefined, number, I32(0)), undefined, lanes)

    def spread(self, last: int) -> Any:
        """One of the epilogue's last numbers in all lanes."""
        return self.splat(self.load(self.numbers.data, self.builder.sub(self.numbers.nitems, I64(last))))

    # -- sums ------------------------------------------------------------------------------------------
    def sums(self, reach: Any, first: Any, weights: Any, counts: Sequence[Any], initial: list[Any]) -> list[Any]:
        """Sums of every row and vector, from as many groups of each size; steps and their weights follow each other."""
        more = [ir.Constant(self.isa.vector, [0] * self.isa.lanes)] * (self.chains - 1)
        step, sums = I64(0), [value for total in initial for value in (total, *more)] * len(self.rows)
        reach = self.builder.gep(reach, [first])
        for size, count in zip(self.isa.groups, counts, strict=True):
            step, sums = self.loop(size, count, reach, weights, step, sums)
        chains = [sums[k : k + self.chains] for k in range(0, len(sums), self.chains)]
        return [parts[0] if len(parts) == 1 else self.builder.add(*parts) for parts in chains]

    def loop(
        self, size: int, count: Any, reach: Any, weights: Any, step: Any, sums: list[Any]
    ) -> tuple[Any, list[Any]]:
        """`count` groups of a size, from this step and these sums on; what they are then."""
        builder, before = self.builder, self.builder.block
        body, after = (builder.append_basic_block(f"tile.{name}{size}") for name in ("group", "after"))
        end = builder.add(step, builder.mul(count, I64(size)))
        builder.cbranch(builder.icmp_signed(">", count, I64(0)), body, after)
        builder.position_at_end(body)
        now, carried = builder.phi(I64), [builder.phi(self.isa.vector) for _ in sums]
        made, advanced = self.group(size, reach, weights, now, carried), builder.add(now, I64(size))
        builder.cbranch(builder.icmp_signed("<", advanced, end), body, after)
        builder.position_at_end(after)
        left = [builder.phi(self.isa.vector) for _ in sums]
        for phi, value, other in zip((now, *carried), (step, *sums), (advanced, *made), strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(other, body)
        for phi, value, other in zip(left, sums, made, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(other, body)
        return end, left

    def group(self, size: int, reach: Any, weights: Any, step: Any, sums: list[Any]) -> list[Any]:
        """A group of steps added to the sums."""
        builder, bytes_ = self.builder, 4 * self.isa.lanes
        steps = [builder.add(step, I64(k)) for k in range(size)]
        panels = [self.at(weights, builder.mul(now, I64(bytes_ * self.vectors))) for now in steps]
        far = [self.load(reach, now) for now in steps]

        def weight(panel: Any) -> list[Any]:
            return [self.vector(self.at(panel, I64(bytes_ * v))) for v in range(self.vectors)]

        def code(row: int, behind: Any) -> Any:
            pointer = builder.bitcast(self.at(self.rows[row], behind), I32.as_pointer())
            return self.splat(builder.load(pointer, align=1))

        operands = [
            Step(lambda p=panel: weight(p), lambda r, f=behind: code(r, f))
            for panel, behind in zip(panels, far, strict=True)
        ]
        chains = [sums[k : k + self.chains] for k in range(0, len(sums), self.chains)]
        return [total for parts in self.isa.add(builder, chains, operands) for total in parts]

    # -- codes -----------------------------------------------------------------------------------------
    def each(self, k: int) -> list[Any]:
        """The k-th of the epilogue's numbers of every output, by vector."""
        builder = self.builder
        outputs = builder.udiv(builder.sub(self.numbers.nitems, I64(ALL)), I64(EACH))
        at = builder.add(builder.mul(I64(k), outputs), self.column)
        offsets = [builder.add(at, I64(self.isa.lanes * v)) for v in range(self.vectors)]
        return [self.vector(builder.gep(self.numbers.data, [offset])) for offset in offsets]

    def scaled(self) -> Any:
        """Whether anything is multiplied."""
        flag = self.load(self.numbers.data, self.builder.sub(self.numbers.nitems, I64(1)))
        return self.builder.icmp_signed("!=", flag, I32(0))

    def initial(self) -> list[Any]:
        """What sums begin with, by vector: what is added to them, where they are not multiplied first."""
        zero, scaled = ir.Constant(self.isa.vector, [0] * self.isa.lanes), self.scaled()
        return [self.builder.select(scaled, zero, added) for added in self.each(0)]

    def requantised(self, sums: list[Any]) -> list[Any]:
        """`(sum * multiplier + added) >> shift`, the first two only where the numbers say so: see `initial`."""
        builder, before = self.builder, self.builder.block
        scale, after = (builder.append_basic_block(f"tile.{name}") for name in ("scale", "scaled"))
        builder.cbranch(self.scaled(), scale, after)
        builder.position_at_end(scale)
        factors, added = (self.each(k) * len(self.rows) for k in (1, 0))
        products = [
            builder.add(builder.mul(total, factor), more)
            for total, factor, more in zip(sums, factors, added, strict=True)
        ]
        builder.branch(after)
        builder.position_at_end(after)
        values = [builder.phi(self.isa.vector) for _ in sums]
        for phi, total, product in zip(values, sums, products, strict=True):
            phi.add_incoming(total, before)
            phi.add_incoming(product, scale)
        return [builder.ashr(value, by) for value, by in zip(values, self.each(2) * len(self.rows), strict=True)]


def numbers(
    added: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, ends: tuple[int, int], scaled: bool
) -> np.ndarray:
    """The numbers of the epilogue, as tiles take them."""
    return np.concatenate([added, multiplier, shift, [*ends, int(scaled)]]).astype(np.int32)


def pack(isa: Isa, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights int `[N, K]` as flat panels `[K / step][outputs][step]`, and the width of each panel in vectors."""
    padded, widths = panels(isa, weight)
    return np.concatenate([panel(part) for part in padded]), widths


def panels(isa: Isa, weight: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights `[N, K]` as those of each panel `[outputs, K / step, step]`, and the width of each panel in vectors."""
    n, k = weight.shape
    vectors = -(-n // isa.lanes)
    padded = np.zeros((vectors * isa.lanes, -(-k // isa.step) * isa.step), isa.weight)
    padded[:n, :k] = weight
    widths = np.array([len(part) for part in np.array_split(np.arange(vectors), -(-vectors // isa.widest))], np.int64)
    cuts = isa.lanes * np.cumsum(widths)[:-1]
    return [part.reshape(len(part), -1, isa.step) for part in np.split(padded, cuts)], widths


def panel(weight: np.ndarray) -> np.ndarray:
    """Weights of a panel `[outputs, steps, step]`, flat, step by step."""
    return np.ascontiguousarray(weight.transpose(1, 0, 2)).reshape(-1)
