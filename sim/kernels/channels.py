"""Windows whose channels stay apart, without the windows: depthwise convolution, and pools of averages and of maxima.

Taps are read where they lie in a padded image. Where codes, weights and sums have the right size a tile takes a
vector of channels of some windows at once: two taps are interleaved, channel by channel, and `vpmaddwd` (AVX2) or
`vpdpwssd` (AVX512-VNNI) multiplies them with their weights and adds; sums are requantised in registers. Interleaving
puts channels out of order, which packing the sums puts right again. The type of the image says which CPU a tile is for:
int16 or, of the same codes, uint16. Everything else goes channel by channel in plain loops, exact for every format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bittrue.sim.contract import Range
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.isa import I8, I16, I32, I64, VNNI, WORDS, call, limit
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.padded import Padded, pad
from bittrue.sim.kernels.window import Reading

#: Windows of a tile, and rows of sums of a block in plain loops.
ROWS, BLOCK = 4, 32


@intrinsic
def _tile(typingctx, image, where, row, reach, weight, start, out, to, column, numbers, ends):  # noqa: ARG001
    """One vector of channels of `ROWS` windows.

    image    int16 or uint16, flat; where int64: windows begin at code `where[row]` and those after it
    reach    int64: codes from there to each tap, an even number of them
    weight   int16, flat: from `start` on those of each pair of taps, interleaved
    out      uint8 [rows, C]: rows from `to` on, codes from `column` on
    numbers  int32, flat: multiplier, added, shift, each of the vector's channels as they are interleaved, from
             `column * 3` on; ends int16: low and high
    """
    index = types.int64

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        lanes = WORDS.lanes if kinds[0].dtype == types.int16 else VNNI.lanes
        sums, words, codes = (ir.VectorType(kind, n * lanes) for kind, n in ((I32, 1), (I16, 2), (I8, 2)))
        arrays = {k: context.make_array(kinds[k])(context, builder, arguments[k]) for k in (0, 1, 3, 4, 6, 9, 10)}
        image, where, reach, weight, out, numbers, ends = arrays.values()
        row, start, to, column = (arguments[k] for k in (2, 5, 7, 8))

        def vector(base: Any, offset: Any, kind: ir.VectorType) -> Any:
            return builder.load(builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()), align=1)

        def half(a: Any, b: Any, upper: int) -> Any:
            """Words of two taps in turn: of each eight the lower four or the upper four."""
            order = [
                p + 4 * upper + k + which for p in range(0, 2 * lanes, 8) for k in range(4) for which in (0, 2 * lanes)
            ]
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 2 * lanes), order))

        def add(total: Any, pair: Any, by: Any) -> Any:
            if lanes == WORDS.lanes:
                return builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", sums, (words, pair), (words, by)))
            return call(builder, "llvm.x86.avx512.vpdpwssd.512", sums, (sums, total), (sums, pair), (sums, by))

        bases = [
            builder.add(builder.load(builder.gep(where.data, [builder.add(row, I64(r))])), column) for r in range(ROWS)
        ]
        before, loop = builder.block, builder.append_basic_block("channels.loop")
        done = builder.append_basic_block("channels.done")
        builder.branch(loop)  # there is at least one tap
        builder.position_at_end(loop)
        tap = builder.phi(I64)
        totals = [builder.phi(sums) for _ in range(2 * ROWS)]
        at = builder.add(start, builder.mul(tap, I64(2 * lanes)))
        by = [vector(weight.data, builder.add(at, I64(2 * lanes * k)), words) for k in (0, 1)]
        far = [builder.load(builder.gep(reach.data, [builder.add(tap, I64(k))])) for k in (0, 1)]
        made = []
        for r, base in enumerate(bases):
            a, b = (vector(image.data, builder.add(base, behind), words) for behind in far)
            made += [add(totals[2 * r + k], half(a, b, k), by[k]) for k in (0, 1)]
        following = builder.add(tap, I64(2))
        for phi, first, then in (
            (tap, I64(0), following),
            *((t, ir.Constant(sums, None), m) for t, m in zip(totals, made, strict=True)),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(then, loop)
        builder.cbranch(builder.icmp_signed("<", following, reach.nitems), loop, done)
        builder.position_at_end(done)

        number = [
            vector(numbers.data, builder.add(builder.mul(column, I64(3)), I64(lanes * k)), sums) for k in range(6)
        ]
        undefined, zeros = ir.Constant(words, ir.Undefined), ir.Constant(ir.VectorType(I32, 2 * lanes), [0] * 2 * lanes)
        low, high = (
            builder.shuffle_vector(
                builder.insert_element(undefined, builder.load(builder.gep(ends.data, [I64(k)])), I32(0)),
                undefined,
                zeros,
            )
            for k in (0, 1)
        )
        width = cgutils.unpack_tuple(builder, out.strides)[0]
        pack = "llvm.x86.avx2.packssdw" if lanes == WORDS.lanes else "llvm.x86.avx512.packssdw.512"
        for r in range(ROWS):
            values = [
                builder.ashr(builder.add(builder.mul(made[2 * r + k], number[k]), number[2 + k]), number[4 + k])
                for k in (0, 1)
            ]
            packed = limit(builder, call(builder, pack, words, (sums, values[0]), (sums, values[1])), low, high)
            place = builder.add(builder.mul(width, builder.add(to, I64(r))), column)
            pointer = builder.gep(builder.bitcast(out.data, I8.as_pointer()), [place])
            builder.store(builder.trunc(packed, codes), builder.bitcast(pointer, codes.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(image, where, index, reach, weight, index, out, index, index, numbers, ends), generate


@intrinsic
def _most(typingctx, image, where, row, reach, out, to, column, ends):  # noqa: ARG001
    """The largest of the taps of `ROWS` windows, sixteen channels or 64; arguments as those of `_tile`, but image and
    `out` are bytes of one type, and `ends` is an array of that many channels."""
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

        firsts, before = taps(I64(0)), builder.block
        loop, done = (builder.append_basic_block(f"most.{name}") for name in ("loop", "done"))
        builder.branch(loop)  # there is at least one tap; the first is compared with itself
        builder.position_at_end(loop)
        tap, found = builder.phi(I64), [builder.phi(codes) for _ in range(ROWS)]
        made = [builder.select(order(">", a, b), a, b) for a, b in zip(taps(tap), found, strict=True)]
        following = builder.add(tap, I64(1))
        for phi, first, then in zip((tap, *found), (I64(0), *firsts), (following, *made), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, loop)
        builder.cbranch(builder.icmp_signed("<", following, reach.nitems), loop, done)
        builder.position_at_end(done)
        width = cgutils.unpack_tuple(builder, out.strides)[0]
        for r, value in enumerate(made):
            place = builder.add(builder.mul(width, builder.add(to, I64(r))), column)
            pointer = builder.gep(builder.bitcast(out.data, I8.as_pointer()), [place])
            builder.store(value, builder.bitcast(pointer, codes.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(image, where, index, reach, out, index, index, ends), generate


@jit
def widen(x, corner, image):
    """Codes `x [n, H, W, C]` into the middle of `image [n, PH, PW, D]`, D at least C."""
    top, left = corner
    height, width = min(x.shape[1], image.shape[1] - top), min(x.shape[2], image.shape[2] - left)
    channels, wide = x.shape[3], image.shape[3]
    source, target = x.reshape(-1), image.reshape(-1)
    for n in range(x.shape[0]):
        for y in range(height):
            from_ = (n * x.shape[1] + y) * x.shape[2] * channels
            to = ((n * image.shape[1] + y + top) * image.shape[2] + left) * wide
            for _ in range(width):
                for c in range(channels):
                    target[to + c] = source[from_ + c]
                from_ += channels
                to += wide


@jit
def _fill(x, corner, image):
    if x.shape[3] == image.shape[3]:
        pad(x, x.dtype.type(0), corner, image)
    else:
        widen(x, corner, image)


@jit
def _tiles(x, corner, image, flat, where, windows, reach, weight, width, numbers, ends, out):
    """Codes of every window; the last tile of a block makes rows again, which are at least as many as a tile's."""
    images, channels = image.shape[0], out.shape[1]
    for first in range(0, x.shape[0], images):
        here = min(images, x.shape[0] - first)
        _fill(x[first : first + here], corner, image[:here])
        total, start = here * windows, 0
        for column in range(0, channels, width):
            for r in range(0, total, ROWS):
                row = min(r, total - ROWS)
                to = first * windows + row
                _tile(flat, where, row, reach, weight, start, out, to, column, numbers, ends)
            start += width * reach.size


@jit
def _weighted(x, corner, image, flat, where, windows, reach, weight, vectors, limits, scaled, count, table, out):
    """The same, and saturated codes, in plain loops over weights `[T, C]` in the type of the sums."""
    kind = weight.dtype.type
    images, channels, saturated = image.shape[0], out.shape[1], 0
    acc = np.empty((BLOCK, channels), weight.dtype)
    for first in range(0, x.shape[0], images):
        here = min(images, x.shape[0] - first)
        _fill(x[first : first + here], corner, image[:here])
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
def _largest(x, corner, image, memory, where, windows, reach, bare, wide, narrow, out):
    """The largest of each channel's taps: by tiles where codes are bytes, channels whole vectors, and rows enough;
    `bare` images are read where they are."""
    images, channels = image.shape[0], out.shape[1]
    for first in range(0, x.shape[0], images):
        here = min(images, x.shape[0] - first)
        flat = x[first : first + here].reshape(-1) if bare else memory
        if not bare:
            _fill(x[first : first + here], corner, image[:here])
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


class Channels:
    """What is common to them: padded images, where windows begin, and the taps of each.

    channels   of the images that are read, where they are made wider
    """

    def __init__(self, reading: Reading, dtype: np.dtype | type, channels: int = 0) -> None:
        self.padded, self.dtype, self.border = Padded(reading, channels), np.dtype(dtype), reading.fill
        self.images = self.padded.together(self.dtype.itemsize)
        self.where, self.reach = self.padded.every(self.images), self.padded.taps

    def room(self, images: int) -> int:
        """Codes of a buffer for a block of so many images."""
        return images * self.padded.size

    def arguments(self, x: np.ndarray) -> tuple:
        """What the loops take first: codes, and a buffer for a block of their images, from a cache line on."""
        images = max(1, min(self.images, len(x)))
        item, size = self.dtype.itemsize, self.room(images)
        memory = np.empty(size + 64 // item, self.dtype)
        flat = memory[-memory.ctypes.data % 64 // item :][:size]
        flat[...] = np.array(self.border).astype(self.dtype)
        image = flat.reshape(images, self.padded.height, self.padded.width, self.padded.channels)
        return np.ascontiguousarray(x), self.padded.corner, image, flat, self.where, self.padded.rows, self.reach


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
        _largest(*self.taps.arguments(x), bare, np.empty(0, np.int64), np.empty(0, np.int16), made)
        if made is not out:
            out[...] = made[:, : out.shape[1]]


class Weighted:
    """`requantize(sum_t weight[t, c] * tap_t[c])`, exact; weight int `[T, C]`.

    codes   that are in the image and around it
    tiles   the kinds of vectors that the CPU has, fastest first; of none there are plain loops
    """

    def __init__(self, reading: Reading, weight: np.ndarray, epilogue: Epilogue, codes: Range, tiles: Any) -> None:
        self.epilogue = epilogue
        kind = epilogue.vectors[0].dtype
        self.weight = weight.astype(kind)
        self.plain = Channels(reading, reading.dtype)
        self.tiles: Channels | None = None
        channels = weight.shape[1]
        widths = [2 * isa.lanes for isa in tiles]
        self.width = next((width for width in widths if channels % width == 0), min(widths, default=0))
        self.wide = -(-channels // self.width) * self.width if self.width else channels
        fits = (
            epilogue.narrow
            and max(-codes.low, codes.high + 1) <= 1 << 15
            and int(np.abs(weight).max(initial=0)) < 1 << 15
        )
        most = max(-codes.low, codes.high) * int(np.abs(weight).sum(0).max(initial=0))
        if self.width and fits and most < 1 << 31:
            self.tiles = Channels(reading, np.int16 if self.width == 2 * WORDS.lanes else np.uint16, self.wide)
            self._arrange(np.pad(weight, ((0, 0), (0, self.wide - channels))))

    def _arrange(self, weight: np.ndarray) -> None:
        """Weights, and the numbers of the epilogue, in the order in which taps and channels are interleaved."""
        (taps, channels), lanes = weight.shape, self.width // 2
        tiles: Any = self.tiles
        tiles.reach = np.append(tiles.reach, tiles.reach[: taps % 2])  # an even number; the last has no weight
        even = np.zeros((taps + taps % 2, channels), np.int16)
        even[:taps] = weight
        order = [p + 4 * upper + k for upper in (0, 1) for p in range(0, 2 * lanes, 8) for k in range(4)]
        blocks = even.reshape(-1, 2, channels // self.width, self.width)[..., order]  # pair, which, block, channel
        self.packed = np.ascontiguousarray(blocks.transpose(2, 0, 3, 1)).reshape(-1)
        added, multiplier, shift = self.epilogue.folded()
        given = np.stack([np.broadcast_to(v, self.weight.shape[1]) for v in (multiplier, added, shift)])
        numbers = np.pad(given, ((0, 0), (0, channels - given.shape[1])))
        self.numbers = np.ascontiguousarray(numbers.reshape(3, -1, self.width)[..., order].transpose(1, 0, 2)).reshape(
            -1
        )
        self.ends = np.array(self.epilogue.ends, np.int16)

    def run(self, x: np.ndarray, out: np.ndarray, count: bool = True, table: np.ndarray | None = None) -> int:
        """Fill `out [n * OH * OW, C]` from images `x [n, H, W, C]` and count the saturated codes."""
        tiles = self.tiles
        if tiles is not None and not count and table is None and len(x) and self._enough(len(x)):
            made = out if self.wide == out.shape[1] else np.empty((len(out), self.wide), out.dtype)
            _tiles(*tiles.arguments(x), self.packed, self.width, self.numbers, self.ends, bytes_of(made))
            if made is not out:
                out[...] = made[:, : out.shape[1]]
            return 0
        lookup = NO_TABLE if table is None else bytes_of(table)
        arguments = self.epilogue.arguments(count, lookup)
        return int(_weighted(*self.plain.arguments(x), self.weight, *arguments, bytes_of(out)))

    def _enough(self, images: int) -> bool:
        """Whether every block of so many images has the rows of a tile."""
        tiles: Any = self.tiles
        return min(images, tiles.images, images % tiles.images or tiles.images) * tiles.padded.rows >= ROWS
