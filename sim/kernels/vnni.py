"""The matrix micro-kernel for CPUs with AVX512-VNNI: `vpdpbusd` on a register tile of 8 rows x 16, 32 or 48 outputs.

`vpdpbusd` multiplies four unsigned by four signed bytes and adds the products to an int32 lane, without
saturating. Signed codes x become unsigned as `x xor 0x80 = x + 128`, so every sum is `128 * sum(weight)` too
large, which the caller takes off with the bias of the accumulator. Weights are packed once as
`[K / 4][outputs][4]` panels padded with zeros, so every K and N works.

Codes of 9 to 16 bits are two planes of bytes, and their product is `256 * (high bytes) + (low bytes)`: twice the work,
still well ahead of floating point. Int32 lanes wrap modulo 2^32 on the way, which the last sum, known to fit, undoes.

The whole tile is written as LLVM IR: its 24 accumulators stay in registers, 3 loads of weights and 8
broadcasts of codes feed 24 instructions, and the two multiplier ports never wait.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bittrue.sim.contract import Format
from bittrue.sim.kernels.epilogue import Epilogue, bytes_of, finish
from bittrue.sim.kernels.isa import VNNI
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.tiles import pack

TILE_ROWS = 8
LANES = 16
PANEL = 3  # vectors of outputs in the widest tile
BLOCK_BYTES = 16 << 10  # sums of a block: with its codes and a panel of weights they stay in the first-level cache


def _tile(vectors: int) -> Any:
    """The intrinsic `tile(a, row, weight, start, steps, acc, column)` for `16 * vectors` outputs.

    a       uint8 [rows, 4 * steps], contiguous: eight rows from `row` are read
    weight  int8, flat: the panel begins at `start`
    acc     int32 [rows, N]: eight rows and `16 * vectors` columns from `column` are written
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        a, row, weight, start, steps, acc, column = arguments
        kinds = signature.args

        def array(index: int, value: Any) -> Any:
            return context.make_array(kinds[index])(context, builder, value)

        i32, i64, byte = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
        vector = ir.VectorType(i32, LANES)
        a, weight, acc = array(0, a), array(2, weight), array(5, acc)
        width = cgutils.unpack_tuple(builder, a.strides)[0]
        acc_stride = cgutils.unpack_tuple(builder, acc.strides)[0]

        a_base = builder.gep(builder.bitcast(a.data, byte), [builder.mul(row, width)])
        a_rows = [builder.gep(a_base, [builder.mul(width, i64(r))]) for r in range(TILE_ROWS)]
        w_base = builder.gep(builder.bitcast(weight.data, byte), [start])
        dot = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )

        before = builder.block
        loop = builder.append_basic_block("vnni.loop")
        done = builder.append_basic_block("vnni.done")
        zero = ir.Constant(vector, [0] * LANES)
        builder.branch(loop)  # steps is at least 1
        builder.position_at_end(loop)
        step = builder.phi(i64)
        step.add_incoming(i64(0), before)
        sums = [builder.phi(vector) for _ in range(TILE_ROWS * vectors)]
        for total in sums:
            total.add_incoming(zero, before)
        w_step = builder.gep(w_base, [builder.mul(step, i64(4 * LANES * vectors))])
        weights = []
        for v in range(vectors):
            pointer = builder.bitcast(builder.gep(w_step, [i64(4 * LANES * v)]), vector.as_pointer())
            weights.append(builder.load(pointer, align=1))
        a_step = builder.mul(step, i64(4))
        undefined, lanes = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0] * LANES)
        following = []
        for r in range(TILE_ROWS):
            pointer = builder.bitcast(builder.gep(a_rows[r], [a_step]), i32.as_pointer())
            four = builder.insert_element(undefined, builder.load(pointer, align=1), i32(0))
            codes = builder.shuffle_vector(four, undefined, lanes)
            following += [builder.call(dot, [sums[r * vectors + v], codes, weights[v]]) for v in range(vectors)]
        advanced = builder.add(step, i64(1))
        for total, value in zip(sums, following, strict=True):
            total.add_incoming(value, loop)
        step.add_incoming(advanced, loop)
        builder.cbranch(builder.icmp_signed("<", advanced, steps), loop, done)

        builder.position_at_end(done)
        out = builder.gep(builder.bitcast(acc.data, byte), [builder.mul(row, acc_stride)])
        out = builder.gep(out, [builder.mul(column, i64(4))])
        for r in range(TILE_ROWS):
            out_row = builder.gep(out, [builder.mul(acc_stride, i64(r))])
            for v in range(vectors):
                pointer = builder.bitcast(builder.gep(out_row, [i64(4 * LANES * v)]), vector.as_pointer())
                builder.store(following[r * vectors + v], pointer, align=1)
        return context.get_dummy_value()

    def typed(typingctx, a, row, weight, start, steps, acc, column):  # noqa: ARG001 - numba calls it so
        index = types.int64
        return types.void(a, index, weight, index, index, acc, index), generate

    return intrinsic(typed)


_tile1, _tile2, _tile3 = (_tile(vectors) for vectors in (1, 2, 3))


@jit
def panels(a, rows, weight, start, widths, acc):
    """`acc[r, n] = sum_k a[r, k] * weight[n, k]`, unsigned by signed; the panels of the weight begin at `start`.

    a uint8 `[rows padded to 8, K padded to 4]`, contiguous along K; acc and widths as in `products`.
    """
    steps, column = a.shape[1] // 4, 0
    for p in range(widths.size):
        vectors = widths[p]
        for r in range(0, rows, 8):
            if vectors == 3:
                _tile3(a, r, weight, start, steps, acc, column)
            elif vectors == 2:
                _tile2(a, r, weight, start, steps, acc, column)
            else:
                _tile1(a, r, weight, start, steps, acc, column)
        start += steps * 64 * vectors
        column += 16 * vectors


@jit
def products(x, flip, weight, widths, a, acc):
    """`acc[r, n] = sum_k (x[r, k] xor flip) * weight[n, k]` for one block of rows.

    x uint8 `[rows, K]`; weight and widths from `tiles.pack`; `a` uint8 scratch `[rows padded to 8, K padded to 4]`,
    zero beyond K; acc int32 `[rows padded to 8, N padded to 16]`, of which rows beyond those of x hold rubbish.
    """
    rows, inputs = x.shape
    for r in range(rows):
        for k in range(inputs):
            a[r, k] = x[r, k] ^ flip
    panels(a, rows, weight, 0, widths, acc)


@jit
def _blocks(x, flip, weight, widths, a, acc, vectors, limits, scaled, count, table, out):
    saturated = 0
    for start in range(0, x.shape[0], a.shape[0]):
        stop = min(start + a.shape[0], x.shape[0])
        products(x[start:stop], flip, weight, widths, a, acc)
        saturated += finish(acc, vectors, limits, scaled, count, table, out[start:stop])
    return saturated


@jit
def _wide_blocks(x, flip, weight, widths, a, acc, low, excess, vectors, limits, scaled, count, table, out):
    kind = acc.dtype.type
    saturated = 0
    for start in range(0, x.shape[0], a.shape[0]):
        stop = min(start + a.shape[0], x.shape[0])
        products(x[start:stop, 1::2], flip, weight, widths, a, acc)
        products(x[start:stop, 0::2], np.uint8(0), weight, widths, a, low)
        for r in range(stop - start):
            for n in range(excess.size):
                acc[r, n] = kind(kind(acc[r, n] * kind(256)) + kind(low[r, n] - excess[n]))
        saturated += finish(acc, vectors, limits, scaled, count, table, out[start:stop])
    return saturated


class Vnni:
    """The back end `vnni`: 8-bit weights, and codes of up to 16 bits.

    Codes of 8 bits: sums below 2^31 with the codes shifted to unsigned. Wider codes: sums below 2^31.
    """

    @staticmethod
    def suits(weight: np.ndarray, fmt: Format) -> bool:
        if fmt.bits > 16 or weight.min(initial=0) < -128 or weight.max(initial=0) > 127:
            return False
        if fmt.bits > 8 and sys.byteorder != "little":
            return False
        largest = 255 if fmt.bits <= 8 else max(abs(fmt.low), fmt.high)
        return int(np.abs(weight).sum(1).max(initial=0)) * largest < 1 << 31

    def __init__(self, weight: np.ndarray, fmt: Format) -> None:
        self.packed, self.widths = pack(VNNI, weight)
        self.flip = np.uint8(128 if fmt.signed else 0)
        excess = 128 * weight.sum(1) if fmt.signed else np.zeros(len(weight), np.int64)
        self.wide = fmt.bits > 8
        # Of wide codes the excess is taken off before the epilogue, where lanes wrap: the sum with it may not fit.
        self.offset = 0 if self.wide else excess
        self.excess = (256 * excess).astype(np.int32)
        self.columns = int(self.widths.sum()) * LANES
        self.depth = -(-weight.shape[1] // 4) * 4
        self.rows = min(256, max(16, BLOCK_BYTES // (4 * self.columns) // TILE_ROWS * TILE_ROWS))

    def run(self, rows: np.ndarray, out: np.ndarray, epilogue: Epilogue, count: bool, table: np.ndarray) -> int:
        """Fill `out [rows, N]` and count the saturated codes."""
        block = max(TILE_ROWS, min(self.rows, -(-len(rows) // TILE_ROWS) * TILE_ROWS))
        a, acc = np.zeros((block, self.depth), np.uint8), np.empty((block, self.columns), np.int32)
        x = np.ascontiguousarray(rows).view(np.uint8)
        if self.wide:
            last = (np.empty_like(acc), self.excess, *epilogue.arguments(count, table), bytes_of(out))
            return _wide_blocks(x, self.flip, self.packed, self.widths, a, acc, *last)
        return _blocks(x, self.flip, self.packed, self.widths, a, acc, *epilogue.arguments(count, table), bytes_of(out))
