"""Windows whose channels stay apart, without the windows: depthwise convolution, and pools of averages and of maxima.

Taps are read where they lie in a padded image. Where codes, weights and sums have the right size tiles of vectors make
the sums (`sim.kernels.channel_tiles`); everything else goes channel by channel in plain
loops, exact for every format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bittrue.sim.contract import Range
from bittrue.sim.kernels.channel_tiles import Kind, Tiles
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.isa import I8, I64, looped
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.padded import Channels, fill
from bittrue.sim.kernels.window import Reading

#: Windows of a tile of `_most`, and rows of sums of a block in plain loops.
ROWS, BLOCK = 4, 32


@intrinsic
def _most(typingctx, image, where, row, reach, out, to, column, ends):  # noqa: ARG001
    """The largest of the taps of `ROWS` windows, sixteen channels or 64; arguments as those of
    `sim.kernels.channel_tiles`, but image and `out` are bytes of one type, and the type of `ends` says which."""
    index = types.int64

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        arrays = {k: context.make_array(kinds[k])(context, builder, arguments[k]) for k in (0, 1, 3, 4)}
        image, where, reach, out = arrays.values()
        row, to, column = (arguments[k] for k in (2, 5, 6))
        codes = ir.VectorType(I8, 64 if kinds[7].dtype == types.int64 else 16)
        order = builder.icmp_signed if kinds[0].dtype == types.int8 else builder.icmp_unsigned
        begins = [builder.load(builder.gep(where.data, [builder.add(row, I64(r))])) for r in range(ROWS)]
        bases = [builder.add(begin, column) for begin in begins]

        def taps(tap: Any) -> list[Any]:
            far = builder.load(builder.gep(reach.data, [tap]))
            pointers = [builder.gep(image.data, [builder.add(base, far)]) for base in bases]
            return [builder.load(builder.bitcast(p, codes.as_pointer()), align=1) for p in pointers]

        def larger(tap: Any, found: list[Any]) -> list[Any]:
            return [builder.select(order(">", a, b), a, b) for a, b in zip(taps(tap), found, strict=True)]

        made = looped(builder, reach.nitems, taps(I64(0)), larger)  # the first is compared with itself
        width = cgutils.unpack_tuple(builder, out.strides)[0]
        for r, value in enumerate(made):
            place = builder.add(builder.mul(width, builder.add(to, I64(r))), column)
            pointer = builder.gep(builder.bitcast(out.data, I8.as_pointer()), [place])
            builder.store(value, builder.bitcast(pointer, codes.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(image, where, index, reach, out, index, index, ends), generate


@jit
def _weighted(x, corner, image, flat, where, windows, reach, weight, vectors, limits, scaled, count, table, out):
    """The same, and saturated codes, in plain loops over weights `[T, C]` in the type of the sums."""
    kind = weight.dtype.type
    images, channels, saturated = image.shape[0], out.shape[1], 0
    acc = np.empty((BLOCK, channels), weight.dtype)
    for first in range(0, x.shape[0], images):
        here = min(images, x.shape[0] - first)
        fill(x[first : first + here], x.dtype.type(0), corner, image[:here])
        for begin in range(0, here * windows, BLOCK):
            rows = min(BLOCK, here * windows - begin)
            for r in range(rows):
                row, base = acc[r], where[begin + r]
                for c in range(channels):
                    row[c] = kind(0)
                for t in range(reach.size):
                    tap, by = flat[base + reach[t] :][:channels], weight[t]
                    for c in range(channels):
                        row[c] = kind(row[c] + kind(kind(tap[c]) * by[c]))
            to = first * windows + begin
            saturated += finish(acc[:rows], vectors, limits, scaled, count, table, out[to : to + rows])
    return saturated


@jit
def _largest(x, corner, image, memory, where, windows, reach, images, bare, wide, narrow, out):
    """The largest of each channel's taps, so many images a block: by tiles where codes are bytes, channels whole
    vectors, and rows enough; `bare` images are read where they are."""
    channels = out.shape[1]
    for first in range(0, x.shape[0], images):
        here = min(images, x.shape[0] - first)
        flat = x[first : first + here].reshape(-1) if bare else memory
        if not bare:
            fill(x[first : first + here], x.dtype.type(0), corner, image[:here])
        total = here * windows
        if total >= ROWS and out.itemsize == 1 and channels % 16 == 0:
            whole = channels // 64 * 64
            for r in range(0, total, ROWS):
                row = min(r, total - ROWS)
                to = first * windows + row
                for column in range(0, whole, 64):
                    _most(flat, where, row, reach, out, to, column, wide)
                for column in range(whole, channels, 16):
                    _most(flat, where, row, reach, out, to, column, narrow)
            continue
        for r in range(total):
            row, base = out[first * windows + r], where[r]
            for c in range(channels):
                row[c] = flat[base + reach[0] + c]
            for t in range(1, reach.size):
                tap = flat[base + reach[t] :][:channels]
                for c in range(channels):
                    row[c] = max(row[c], tap[c])


class Largest:
    """The largest code of each channel in a window."""

    def __init__(self, reading: Reading) -> None:
        channels = reading.image[2]
        self.wide = -(-channels // 16) * 16 if reading.dtype.itemsize == 1 else channels
        self.taps = Channels(reading, reading.dtype, self.wide)

    def run(self, x: np.ndarray, out: np.ndarray) -> None:
        """Fill `out [n * OH * OW, C]` from images `x [n, H, W, C]`."""
        made = out if self.wide == out.shape[1] else np.empty((len(out), self.wide), out.dtype)
        x = np.ascontiguousarray(x)
        padded = self.taps.padded
        bare = x.shape[1:] == (padded.height, padded.width, padded.channels)
        given = *self.taps.arguments(x, not bare), self.taps.images
        _largest(*given, bare, np.empty(0, np.int64), np.empty(0, np.int16), made)
        if made is not out:
            out[...] = made[:, : out.shape[1]]


class Weighted:
    """`requantize(sum_t weight[t, c] * tap_t[c])`, exact; weight int `[T, C]`.

    codes   that are in the image and around it
    kinds   of tiles that the CPU has, fastest first; of none there are plain loops
    """

    def __init__(
        self, reading: Reading, weight: np.ndarray, epilogue: Epilogue, codes: Range, kinds: Iterable[Kind]
    ) -> None:
        self.epilogue, self.weight = epilogue, weight.astype(epilogue.vectors[0].dtype)
        self.plain = Channels(reading, reading.dtype)
        kind = next((kind for kind in kinds if kind.suits(reading, weight, epilogue, codes)), None)
        self.tiles = None if kind is None else Tiles(kind, reading, weight, epilogue, codes)

    def run(self, x: np.ndarray, out: np.ndarray, count: bool = True, table: np.ndarray | None = None) -> int:
        """Fill `out [n * OH * OW, C]` from images `x [n, H, W, C]` and count the saturated codes."""
        tiles = self.tiles
        if tiles is not None and not count and table is None and len(x) and tiles.enough(len(x)):
            made = out if tiles.wide == out.shape[1] else np.empty((len(out), tiles.wide), out.dtype)
            tiles.run(x, made)
            if made is not out:
                out[...] = made[:, : out.shape[1]]
            return 0
        lookup = NO_TABLE if table is None else bytes_of(table)
        arguments = self.epilogue.arguments(count, lookup)
        return int(_weighted(*self.plain.arguments(x), self.weight, *arguments, bytes_of(out)))
