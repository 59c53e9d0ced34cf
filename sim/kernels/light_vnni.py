"""Tiles of a photonic array on CPUs with AVX512-VNNI: `vpdpbusd`, then the converter, without leaving the registers.

A register tile is 8 rows x 32 outputs. Its accumulators start at the converter's constant (pedestal, offset, rounding),
take the products of one tile of the array, and are shifted. The converter's clipping is free: `vpackssdw` and
`vpackuswb` narrow 32 to 16 to 8 bits and saturate on the way. What was clipped is counted on the 16-bit words, where
both ends are still beyond the code's range. Where only the sum over the tiles is wanted, `vpackusdw` clips at 0 and
words are added, `TILES` of them at most, which 16 bits hold.

The packing instructions work on lanes of 128 bits. `arrange` orders the outputs of weights and constants such that
the packed codes come out in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bittrue.sim.kernels.epilogue import finish
from bittrue.sim.kernels.jit import jit

ROWS = 8
OUTPUTS = 32  # of a register tile: two vectors of int32, one of words
BITS = 8  # of the widest ADC code
TILES = 0xFFFF // 0xFF  # codes that a word adds up
BLOCK = 64  # rows


_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_INTS, _WORDS, _BYTES = ir.VectorType(_I32, 16), ir.VectorType(_I16, 32), ir.VectorType(_I8, 64)
_HALF, _HALF_LANES, _MASK = (ir.VectorType(kind, OUTPUTS) for kind in (_I8, _I32, ir.IntType(1)))


def arrange(values: np.ndarray) -> np.ndarray:
    """`[..., N]` padded with zeros to whole register tiles, in the order in which the instructions pack.

    Of every 8 outputs the first four go to the first vector, the others to the second.
    """
    *front, outputs = values.shape
    padded = np.zeros((*front, -(-outputs // OUTPUTS) * OUTPUTS), values.dtype)
    padded[..., :outputs] = values
    return padded.reshape(*front, -1, 4, 2, 4).swapaxes(-3, -2).reshape(padded.shape)


def pack(weight: np.ndarray, rows: int) -> np.ndarray:
    """Weights int `[N, C]` in tiles of `rows` inputs as flat int8 panels `[N / 32][tiles][rows / 4][32][4]`."""
    outputs, inputs = weight.shape
    depth, tiles = -(-rows // 4) * 4, -(-inputs // rows)
    padded = np.zeros((outputs, tiles * rows), np.int8)
    padded[:, :inputs] = weight
    deep = np.zeros((outputs, tiles, depth), np.int8)
    deep[..., :rows] = padded.reshape(outputs, tiles, rows)
    panels = arrange(deep.reshape(outputs, -1).T).T.reshape(-1, OUTPUTS, tiles, depth // 4, 4)
    return np.ascontiguousarray(panels.transpose(0, 2, 3, 1, 4)).reshape(-1)


class _Writer:
    """Writes LLVM IR for `rows` rows and 32 outputs."""

    def __init__(self, context: Any, builder: ir.IRBuilder, rows: int) -> None:
        self.context, self.builder, self.rows = context, builder, rows
        self.byte = _I8.as_pointer()

    def array(self, kind: Any, value: Any) -> tuple[Any, list[Any]]:
        """An array's data as bytes, and its strides."""
        made = self.context.make_array(kind)(self.context, self.builder, value)
        return self.builder.bitcast(made.data, self.byte), cgutils.unpack_tuple(self.builder, made.strides)

    def at(self, base: Any, *terms: tuple[Any, Any]) -> Any:
        """`base` plus the products of the terms, in bytes."""
        for index, size in terms:
            base = self.builder.gep(base, [self.builder.mul(index, size)])
        return base

    def load(self, pointer: Any, kind: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=1)

    def spread(self, value: Any, kind: Any) -> Any:
        """A scalar in every lane of a vector."""
        undefined, lanes = ir.Constant(kind, ir.Undefined), ir.VectorType(_I32, kind.count)
        one = self.builder.insert_element(undefined, value, _I32(0))
        return self.builder.shuffle_vector(one, undefined, ir.Constant(lanes, [0] * kind.count))

    def call(self, name: str, result: Any, *values: Any) -> Any:
        kind = ir.FunctionType(result, [value.type for value in values])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), values)

    def loop(self, first: Any, end: Any, initial: list[Any], body: Any) -> list[Any]:
        """`values = body(k, values)` for k from `first` below `end`, at least once."""
        before, loop = self.builder.block, self.builder.append_basic_block("loop")
        done = self.builder.append_basic_block("loop.done")
        self.builder.branch(loop)
        self.builder.position_at_end(loop)
        index = self.builder.phi(_I64)
        index.add_incoming(first, before)
        values = [self.builder.phi(value.type) for value in initial]
        for value, start in zip(values, initial, strict=True):
            value.add_incoming(start, before)
        following = body(index, values)
        advanced = self.builder.add(index, _I64(1))
        end_of_body = self.builder.block
        index.add_incoming(advanced, end_of_body)
        for value, result in zip(values, following, strict=True):
            value.add_incoming(result, end_of_body)
        self.builder.cbranch(self.builder.icmp_signed("<", advanced, end), loop, done)
        self.builder.position_at_end(done)
        return following

    def counts(self, rows: list[Any], weights: Any, constants: Any, steps: Any) -> list[Any]:
        """Two vectors of int32 a row: the constants plus the products of `4 * steps` inputs."""
        starts = [self.load(self.at(constants, (_I64(v), _I64(64))), _INTS) for v in range(2)]

        def body(step: Any, sums: list[Any]) -> list[Any]:
            here, four = self.at(weights, (step, _I64(4 * OUTPUTS))), self.builder.mul(step, _I64(4))
            both = [self.load(self.at(here, (_I64(v), _I64(64))), _INTS) for v in range(2)]
            result = []
            for r, row in enumerate(rows):
                codes = self.spread(self.load(self.builder.gep(row, [four]), _I32), _INTS)
                result += [
                    self.call("llvm.x86.avx512.vpdpbusd.512", _INTS, sums[2 * r + v], codes, both[v]) for v in range(2)
                ]
            return result

        return self.loop(_I64(0), steps, starts * self.rows, body)

    def words(self, counts: list[Any], shift: Any, instruction: str) -> list[Any]:
        """A vector of words a row: the counts shifted and packed."""
        shifts = self.spread(shift, _INTS)
        shifted = [self.builder.ashr(count, shifts) for count in counts]
        name = f"llvm.x86.avx512.{instruction}.512"
        return [self.call(name, _WORDS, *shifted[2 * r : 2 * r + 2]) for r in range(self.rows)]

    def least(self, value: Any, limit: Any) -> Any:
        """The smaller of two vectors of unsigned integers."""
        return self.builder.select(self.builder.icmp_unsigned("<", value, limit), value, limit)


def _intrinsic(rows: int, sums: bool) -> Any:
    """An intrinsic for `rows` rows from `row`, 32 outputs from `column`, and tiles `first` to `end` of the array.

    `codes(a, row, weight, panel, half, column, first, end, steps, last, shift, highest, out, lanes)`
    writes ADC codes to `out` uint8 [n, tiles, N], of which `lanes` outputs are there, and returns how many it clipped;
    `sums`, with the same arguments, writes their sums to `out` uint16 [n, columns] and returns 0.

    a       uint8 [n, tiles * 4 * steps], contiguous along a row; weight: int8, its panel begins at `panel`
    half    int32 [tiles, columns]: the converter's constants, arranged
    steps   quarters of the depth of a tile, `last` of the last one
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        a, row, weight, panel, half, column, first, end, steps, last, shift, highest, out, lanes = arguments
        kinds, w = signature.args, _Writer(context, builder, rows)
        a, (width, _) = w.array(kinds[0], a)
        weight, _ = w.array(kinds[2], weight)
        (half, (half_stride, _)), tiles = w.array(kinds[4], half), _shape(context, builder, kinds[4], half)[0]
        out, (out_stride, *out_strides) = w.array(kinds[12], out)
        a_rows = [w.at(a, (builder.add(row, _I64(r)), width)) for r in range(rows)]
        out_rows = [w.at(out, (builder.add(row, _I64(r)), out_stride)) for r in range(rows)]
        weight, half = builder.gep(weight, [panel]), w.at(half, (column, _I64(4)))
        depth, final = builder.mul(steps, _I64(4)), builder.sub(tiles, _I64(1))

        def counts(tile: Any) -> list[Any]:
            here = [w.at(base, (tile, depth)) for base in a_rows]
            weights = w.at(weight, (tile, builder.mul(steps, _I64(4 * OUTPUTS))))
            number = builder.select(builder.icmp_signed("==", tile, final), last, steps)
            return w.counts(here, weights, w.at(half, (tile, half_stride)), number)

        if sums:
            most = w.spread(builder.trunc(highest, _I16), _WORDS)

            def add(tile: Any, totals: list[Any]) -> list[Any]:
                words = w.words(counts(tile), shift, "packusdw")
                return [builder.add(total, w.least(word, most)) for total, word in zip(totals, words, strict=True)]

            totals = w.loop(first, end, [ir.Constant(_WORDS, [0] * 32)] * rows, add)
            for base, total in zip(out_rows, totals, strict=True):
                pointer = w.at(base, (column, _I64(2)))
                builder.store(total, builder.bitcast(pointer, _WORDS.as_pointer()), align=1)
            return _I64(0)

        most, bytes_most = w.spread(builder.trunc(highest, _I16), _WORDS), w.spread(builder.trunc(highest, _I8), _BYTES)
        ones = builder.lshr(_I32(0xFFFFFFFF), builder.trunc(builder.sub(_I64(OUTPUTS), lanes), _I32))
        mask = builder.bitcast(ones, _MASK)

        def convert(tile: Any, clipped: list[Any]) -> list[Any]:
            words, total = w.words(counts(tile), shift, "packssdw"), clipped[0]
            for word in words:
                beyond = builder.bitcast(builder.icmp_unsigned(">", word, most), _I32)
                total = builder.add(total, builder.zext(w.call("llvm.ctpop.i32", _I32, beyond), _I64))
            for r in range(0, rows, 2):
                pair = (words[r], words[min(r + 1, rows - 1)])
                codes = w.least(w.call("llvm.x86.avx512.packuswb.512", _BYTES, *pair), bytes_most)
                for k, base in enumerate(out_rows[r : r + 2]):  # every other 8 bytes are the second row's
                    taken = ir.Constant(_HALF_LANES, [16 * (j // 8) + 8 * k + j % 8 for j in range(OUTPUTS)])
                    half_codes = builder.shuffle_vector(codes, codes, taken)
                    pointer = builder.gep(w.at(base, (tile, out_strides[0])), [column])
                    pointer = builder.bitcast(pointer, _HALF.as_pointer())
                    w.call("llvm.masked.store.v32i8.p0v32i8", ir.VoidType(), half_codes, pointer, _I32(1), mask)
            return [total]

        return w.loop(first, end, [_I64(0)], convert)[0]

    def typed(typingctx, a, row, weight, panel, half, column, first, end, steps, last, shift, highest, out, lanes):  # noqa: ARG001
        index = types.int64
        arguments = (a, index, weight, index, half, *(index,) * 5, types.int32, types.int32, out, index)
        return types.int64(*arguments), generate

    return intrinsic(typed)


def _shape(context: Any, builder: ir.IRBuilder, kind: Any, value: Any) -> list[Any]:
    return cgutils.unpack_tuple(builder, context.make_array(kind)(context, builder, value).shape)


_codes8, _codes1, _sums8, _sums1 = (_intrinsic(rows, sums) for sums in (False, True) for rows in (ROWS, 1))


@jit
def load(x, inputs, a):
    """Rows of codes as rows of tiles, each padded to a multiple of four codes; `a` is zero beyond."""
    depth = -(-inputs // 4) * 4
    for r in range(x.shape[0]):
        if depth == inputs:
            for k in range(x.shape[1]):
                a[r, k] = x[r, k]
        else:
            for k in range(x.shape[1]):
                a[r, k // inputs * depth + k % inputs] = x[r, k]


@jit
def codes(x, inputs, weight, half, steps, last, shift, highest, out):
    """ADC codes `out` uint8 `[n, tiles, N]` of x uint8 `[n, C]`; how many were clipped.

    A tile has `inputs` rows, in `steps` quarters, the last one in `last`; weight from `pack`, half int32
    `[tiles, columns]`, the pedestal less the offset and the rounding constant, from `arrange`.
    """
    tiles, columns = half.shape
    panel, outputs = weight.size * OUTPUTS // columns, out.shape[2]
    block = min(BLOCK, x.shape[0])
    a = np.zeros((block, tiles * 4 * steps), np.uint8)
    clipped = 0
    for start in range(0, x.shape[0], BLOCK):
        rows = min(BLOCK, x.shape[0] - start)
        part = out[start : start + rows]
        load(x[start : start + rows], inputs, a)
        whole = rows - rows % ROWS
        for r in range(0, whole, ROWS):
            for c in range(0, columns, OUTPUTS):
                w, lanes = c // OUTPUTS * panel, min(OUTPUTS, outputs - c)
                clipped += _codes8(a, r, weight, w, half, c, 0, tiles, steps, last, shift, highest, part, lanes)
        for r in range(whole, rows):
            for c in range(0, columns, OUTPUTS):
                w, lanes = c // OUTPUTS * panel, min(OUTPUTS, outputs - c)
                clipped += _codes1(a, r, weight, w, half, c, 0, tiles, steps, last, shift, highest, part, lanes)
    return clipped


@jit
def sums(x, inputs, weight, half, steps, last, shift, highest, step, vectors, limits, scaled, table, out):
    """The epilogue's results `out [n, N]` for `(sum of the ADC codes over the tiles) << step`; others as in `codes`."""
    kind = vectors[0].dtype.type
    tiles, columns = half.shape
    panel, outputs = weight.size * OUTPUTS // columns, out.shape[1]
    block = min(BLOCK, x.shape[0])
    a = np.zeros((block, tiles * 4 * steps), np.uint8)
    words = np.empty((block, columns), np.uint16)
    total = np.empty((block, outputs), vectors[0].dtype)
    for start in range(0, x.shape[0], BLOCK):
        rows = min(BLOCK, x.shape[0] - start)
        load(x[start : start + rows], inputs, a)
        whole = rows - rows % ROWS
        total[:] = 0
        for first in range(0, tiles, TILES):
            end = min(first + TILES, tiles)
            for c in range(0, columns, OUTPUTS):
                w = c // OUTPUTS * panel
                for r in range(0, whole, ROWS):
                    _sums8(a, r, weight, w, half, c, first, end, steps, last, shift, highest, words, OUTPUTS)
                for r in range(whole, rows):
                    _sums1(a, r, weight, w, half, c, first, end, steps, last, shift, highest, words, OUTPUTS)
            for r in range(rows):
                for c in range(outputs):
                    total[r, c] = kind(total[r, c] + kind(kind(words[r, c]) << step))
        finish(total, vectors, limits, scaled, False, table, out[start : start + rows])


def suits(half: np.ndarray, highest: int) -> bool:
    """Whether counts and codes of 8-bit inputs and weights fit these kernels: int32 constants, 8-bit ADC codes."""
    return half.dtype == np.int32 and highest < 1 << BITS


def arguments(weight: np.ndarray, half: np.ndarray, inputs: int, shift: int, highest: int) -> tuple:
    """What `codes` and `sums` take between x and the rest, for weights int `[N, C]` and constants `[tiles, N]`."""
    rest = weight.shape[1] - (len(half) - 1) * inputs
    steps, last = -(-inputs // 4), -(-rest // 4)
    return inputs, pack(weight, inputs), arrange(half), steps, last, np.int32(shift), np.int32(highest)
