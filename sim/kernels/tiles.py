"""Register tiles of a matrix product, as LLVM IR: rows wherever they lie, sums or codes out.

A step multiplies four bytes of every row, broadcast, with a vector of weights: `vpdpbusd` four unsigned bytes with four
signed ones (AVX512-VNNI), `vpmaddwd` two words with two (AVX2); neither saturates. Sums stay in registers until all
steps are made, and where codes are wanted they are requantised there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@dataclass(frozen=True)
class Isa:
    """What a tile is made for.

    lanes    outputs of a vector
    rows     of a tile
    widest   vectors of outputs of the widest tile
    step     codes of a row in a step, of `image` type
    weight   type of a weight
    flips    whether signed codes are made unsigned
    needs    features of the CPU
    """

    lanes: int
    rows: int
    widest: int
    step: int
    image: type
    weight: type
    flips: bool
    needs: tuple[str, ...]

    def available(self) -> bool:
        """Whether this CPU, as LLVM sees it, has what it needs."""
        try:
            features = llvmlite.binding.get_host_cpu_features()
        except RuntimeError:
            return False
        return all(features.get(name) for name in self.needs)

    def together(self, vectors: int) -> int:
        """Steps that are made together, each with sums of its own: enough to hide the latency of `vpdpbusd`."""
        return 2 if self.flips and vectors == 1 else 1

    def dot(self, builder: ir.IRBuilder, vector: ir.VectorType) -> Callable[[Any, Any, Any], Any]:
        """`sum + codes . weights`, lane by lane."""
        if self.flips:
            kind = ir.FunctionType(vector, [vector] * 3)
            call = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
            return lambda total, codes, weights: builder.call(call, [total, codes, weights])
        words = ir.VectorType(ir.IntType(16), 2 * self.lanes)
        kind = ir.FunctionType(vector, [words] * 2)
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.wd")
        turn = lambda v: builder.bitcast(v, words)  # noqa: E731
        return lambda total, codes, weights: builder.add(total, builder.call(call, [turn(codes), turn(weights)]))


VNNI = Isa(16, 8, 3, 4, np.uint8, np.int8, True, ("avx512vnni", "avx512f", "avx512bw"))
AVX2 = Isa(8, 4, 2, 2, np.int16, np.int16, False, ("avx2",))


def isa_of(image: types.Array) -> Isa:
    """What tiles on an image of this type are made for."""
    return VNNI if image.dtype == types.uint8 else AVX2


def tile(vectors: int, stored: bool) -> Any:
    """The intrinsic `tile(image, where, row, reach, weight, start, steps, out, to, column, epilogue, limits)` for
    as many vectors of outputs. What it is made for follows from the type of the image (`isa_of`).

    image    uint8 or int16, flat
    where    int64: the tile's rows begin at byte `where[row]` and those after it
    reach    int64 [steps]: bytes from there to those of a step
    weight   flat: the panel begins at byte `start`
    out      the tile's rows from `to` on and as many columns from `column` are written: sums int32 [rows, N], or
             where it is `stored` codes uint8, requantised in registers
    numbers  of the epilogue, int32: what is added, multiplier, half, shift, bias [N each]; floor, low, high
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        isa = isa_of(kinds[0])
        rows, lanes_, together = isa.rows, isa.lanes, isa.together(vectors)
        image, where, reach, weight, out = (
            context.make_array(kinds[k])(context, builder, arguments[k]) for k in (0, 1, 3, 4, 7)
        )
        row, start, steps, to, column = (arguments[k] for k in (2, 5, 6, 8, 9))
        numbers = context.make_array(kinds[10])(context, builder, arguments[10])
        i32, i64, byte = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
        vector = ir.VectorType(i32, lanes_)
        width = cgutils.unpack_tuple(builder, out.strides)[0]
        dot = isa.dot(builder, vector)
        base = builder.bitcast(image.data, byte)
        begins = [builder.load(builder.gep(where.data, [builder.add(row, i64(r))])) for r in range(rows)]
        a_rows = [builder.gep(base, [begin]) for begin in begins]
        w_base = builder.gep(builder.bitcast(weight.data, byte), [start])

        before = builder.block
        loop, done = builder.append_basic_block("direct.loop"), builder.append_basic_block("direct.done")
        zero = ir.Constant(vector, [0] * lanes_)
        builder.branch(loop)  # steps is at least 1
        builder.position_at_end(loop)
        step = builder.phi(i64)
        step.add_incoming(i64(0), before)
        sums = [builder.phi(vector) for _ in range(together * rows * vectors)]
        for total in sums:
            total.add_incoming(zero, before)
        undefined, lanes = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0] * lanes_)
        following = []
        for part in range(together):
            now = builder.add(step, i64(part))
            w_step = builder.gep(w_base, [builder.mul(now, i64(4 * lanes_ * vectors))])
            weights = [
                builder.load(builder.bitcast(builder.gep(w_step, [i64(4 * lanes_ * v)]), vector.as_pointer()), align=1)
                for v in range(vectors)
            ]
            far = builder.load(builder.gep(reach.data, [now]))
            for r in range(rows):
                pointer = builder.bitcast(builder.gep(a_rows[r], [far]), i32.as_pointer())
                four = builder.insert_element(undefined, builder.load(pointer, align=1), i32(0))
                codes = builder.shuffle_vector(four, undefined, lanes)
                own = sums[(part * rows + r) * vectors : (part * rows + r + 1) * vectors]
                following += [dot(s, codes, w) for s, w in zip(own, weights, strict=True)]
        advanced = builder.add(step, i64(together))
        for total, value in zip(sums, following, strict=True):
            total.add_incoming(value, loop)
        step.add_incoming(advanced, loop)
        builder.cbranch(builder.icmp_signed("<", advanced, steps), loop, done)

        builder.position_at_end(done)
        if together > 1:
            following = [builder.add(a, b) for a, b in zip(following[:rows], following[rows:], strict=True)]
        size = 1 if stored else 4
        first = builder.gep(builder.bitcast(out.data, byte), [builder.mul(to, width)])
        first = builder.gep(first, [builder.mul(column, i64(size))])
        outputs = builder.udiv(builder.sub(numbers.nitems, i64(3)), i64(5))

        def number(k: int, v: int) -> Any:
            at = builder.add(builder.mul(i64(k), outputs), builder.add(column, i64(lanes_ * v)))
            return builder.load(builder.bitcast(builder.gep(numbers.data, [at]), vector.as_pointer()), align=1)

        def limit(k: int) -> Any:
            at = builder.add(builder.mul(i64(5), outputs), i64(k))
            one = builder.insert_element(undefined, builder.load(builder.gep(numbers.data, [at])), i32(0))
            return builder.shuffle_vector(one, undefined, lanes)

        for v in range(vectors):
            if stored:
                added, multiplier, half, shift, bias = (number(k, v) for k in range(5))
                least, low, high = (limit(k) for k in range(3))
            for r in range(rows):
                value = following[r * vectors + v]
                kind = vector
                if stored:
                    value = builder.add(builder.mul(builder.add(value, added), multiplier), half)
                    value = builder.add(builder.ashr(value, shift), bias)
                    for bound, order in ((least, ">"), (high, "<"), (low, ">")):
                        value = builder.select(builder.icmp_signed(order, value, bound), value, bound)
                    kind = ir.VectorType(ir.IntType(8), lanes_)
                    value = builder.trunc(value, kind)
                place = builder.gep(first, [builder.add(builder.mul(width, i64(r)), i64(size * lanes_ * v))])
                builder.store(value, builder.bitcast(place, kind.as_pointer()), align=1)
        return context.get_dummy_value()

    def typed(typingctx, image, where, row, reach, weight, start, steps, out, to, column, numbers):  # noqa: ARG001
        index = types.int64
        return types.void(image, where, index, reach, weight, index, index, out, index, index, numbers), generate

    return intrinsic(typed)


def pack(isa: Isa, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights int `[N, K]` as flat panels `[K / step][outputs][step]`, and the width of each panel in vectors."""
    n, k = weight.shape
    vectors = -(-n // isa.lanes)
    padded = np.zeros((vectors * isa.lanes, -(-k // isa.step) * isa.step), isa.weight)
    padded[:n, :k] = weight
    widths = np.array([len(part) for part in np.array_split(np.arange(vectors), -(-vectors // isa.widest))], np.int64)
    panels, row = [], 0
    for width in widths:
        part = padded[row : row + isa.lanes * width].reshape(isa.lanes * width, -1, isa.step)
        panels.append(part.transpose(1, 0, 2).reshape(-1))
        row += isa.lanes * width
    return np.concatenate(panels), widths
