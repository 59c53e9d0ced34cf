"""Convolution without its windows: register tiles that read their rows where they lie in a padded image.

A row of a window is `runs` of contiguous bytes, one for every kernel row (one for every tap where taps are apart), so a
tile needs no copy of it: `where[r]` is the byte in the image at which row r begins, and `reach[s]` how far behind it
the four bytes of step s lie. A run that is no multiple of four bytes long is read beyond its end, where its weights are
zero. The images of a block are copied once into a buffer with a border of padding codes, all codes made unsigned.

`vpdpbusd` as in `vnni`, on tiles of 8 rows x 16, 32 or 48 outputs; where 16, even and odd steps have sums of their own,
so that at least 16 of them hide the latency of the instruction at every width. More rows would be more addresses than
there are registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bittrue.sim.contract import Format
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.vnni import LANES, Vnni, pack

#: Rows of a tile, and steps that are made together where it has one vector of outputs.
ROWS, PAIR = 8, 2
#: Bytes of the padded images of a block, and of its sums.
IMAGES, SUMS = 1 << 17, 1 << 15


def _tile(vectors: int, stored: bool) -> Any:
    """The intrinsic `tile(image, where, row, reach, weight, start, steps, out, to, column, epilogue, limits)` for
    `16 * vectors` outputs.

    image    uint8, flat
    where    int64: the tile's rows begin at `where[row]` and those after it
    reach    int64 [steps]: bytes from there to those of a step
    weight   int8, flat: the panel begins at `start`
    out      the tile's rows from `to` on and `16 * vectors` columns from `column` are written: sums int32 [rows, N], or
             where it is `stored` codes uint8, requantised in registers
    numbers  of the epilogue, int32: what is added, multiplier, half, shift, bias [N each]; floor, low, high
    """
    rows, together = ROWS, PAIR if vectors == 1 else 1

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        image, where, reach, weight, out = (
            context.make_array(kinds[k])(context, builder, arguments[k]) for k in (0, 1, 3, 4, 7)
        )
        row, start, steps, to, column = (arguments[k] for k in (2, 5, 6, 8, 9))
        numbers = context.make_array(kinds[10])(context, builder, arguments[10])
        i32, i64, byte = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
        vector = ir.VectorType(i32, LANES)
        width = cgutils.unpack_tuple(builder, out.strides)[0]
        dot = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )
        base = builder.bitcast(image.data, byte)
        begins = [builder.load(builder.gep(where.data, [builder.add(row, i64(r))])) for r in range(rows)]
        a_rows = [builder.gep(base, [begin]) for begin in begins]
        w_base = builder.gep(builder.bitcast(weight.data, byte), [start])

        before = builder.block
        loop, done = builder.append_basic_block("direct.loop"), builder.append_basic_block("direct.done")
        zero = ir.Constant(vector, [0] * LANES)
        builder.branch(loop)  # steps is at least 1
        builder.position_at_end(loop)
        step = builder.phi(i64)
        step.add_incoming(i64(0), before)
        sums = [builder.phi(vector) for _ in range(together * rows * vectors)]
        for total in sums:
            total.add_incoming(zero, before)
        undefined, lanes = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0] * LANES)
        following = []
        for part in range(together):
            now = builder.add(step, i64(part))
            w_step = builder.gep(w_base, [builder.mul(now, i64(4 * LANES * vectors))])
            weights = [
                builder.load(builder.bitcast(builder.gep(w_step, [i64(4 * LANES * v)]), vector.as_pointer()), align=1)
                for v in range(vectors)
            ]
            far = builder.load(builder.gep(reach.data, [now]))
            for r in range(rows):
                pointer = builder.bitcast(builder.gep(a_rows[r], [far]), i32.as_pointer())
                four = builder.insert_element(undefined, builder.load(pointer, align=1), i32(0))
                codes = builder.shuffle_vector(four, undefined, lanes)
                own = sums[(part * rows + r) * vectors : (part * rows + r + 1) * vectors]
                following += [builder.call(dot, [s, codes, w]) for s, w in zip(own, weights, strict=True)]
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
            at = builder.add(builder.mul(i64(k), outputs), builder.add(column, i64(LANES * v)))
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
                    kind = ir.VectorType(ir.IntType(8), LANES)
                    value = builder.trunc(value, kind)
                place = builder.gep(first, [builder.add(builder.mul(width, i64(r)), i64(size * LANES * v))])
                builder.store(value, builder.bitcast(place, kind.as_pointer()), align=1)
        return context.get_dummy_value()

    def typed(typingctx, image, where, row, reach, weight, start, steps, out, to, column, numbers):  # noqa: ARG001
        index = types.int64
        return types.void(image, where, index, reach, weight, index, index, out, index, index, numbers), generate

    return intrinsic(typed)


_sums1, _sums2, _sums3 = (_tile(vectors, stored=False) for vectors in (1, 2, 3))
_codes1, _codes2, _codes3 = (_tile(vectors, stored=True) for vectors in (1, 2, 3))


@jit
def pad(x, flip, corner, image):
    """Codes `x [n, H, W, C]` with their sign turned into the middle of `image [n, PH, PW, C]`; what is around stays."""
    top, left = corner
    source, target = x.reshape(-1), image.reshape(-1)
    height, row = min(x.shape[1], image.shape[1] - top), x.shape[2] * x.shape[3]
    width = min(row, (image.shape[2] - left) * x.shape[3])
    for n in range(x.shape[0]):
        for y in range(height):
            from_ = source[(n * x.shape[1] + y) * row :][:width]
            to = ((n * image.shape[1] + y + top) * image.shape[2] + left) * x.shape[3]
            into = target[to : to + width]
            for k in range(width):
                into[k] = from_[k] ^ flip


@jit
def _tiles(flat, where, begin, rows, reach, weight, widths, acc, numbers):
    """Sums of `rows` rows from `begin` on into `acc`, which has room for whole tiles."""
    steps, start, column = reach.size, 0, 0
    for p in range(widths.size):
        wide = widths[p]
        if wide == 3:
            for r in range(0, rows, 8):
                _sums3(flat, where, begin + r, reach, weight, start, steps, acc, r, column, numbers)
        elif wide == 2:
            for r in range(0, rows, 8):
                _sums2(flat, where, begin + r, reach, weight, start, steps, acc, r, column, numbers)
        else:
            for r in range(0, rows, 8):
                _sums1(flat, where, begin + r, reach, weight, start, steps, acc, r, column, numbers)
        start += steps * 64 * wide
        column += 16 * wide


@jit
def _stored(flat, where, rows, reach, weight, widths, out, to, numbers):
    """Codes of `rows` rows, a multiple of 8, into `out` from `to` on."""
    steps, start, column = reach.size, 0, 0
    for p in range(widths.size):
        wide = widths[p]
        if wide == 3:
            for r in range(0, rows, 8):
                _codes3(flat, where, r, reach, weight, start, steps, out, to + r, column, numbers)
        elif wide == 2:
            for r in range(0, rows, 8):
                _codes2(flat, where, r, reach, weight, start, steps, out, to + r, column, numbers)
        else:
            for r in range(0, rows, 8):
                _codes1(flat, where, r, reach, weight, start, steps, out, to + r, column, numbers)
        start += steps * 64 * wide
        column += 16 * wide


@jit
def _run(x, flip, corner, image, flat, where, windows, reach, weight, widths, acc, numbers, whole,
         vectors, limits, scaled, count, table, out):  # fmt: skip
    """`where` are the rows of a block of images, `windows` of them an image; see the module."""
    saturated, images = 0, image.shape[0]
    for first in range(0, x.shape[0], images):
        here = min(images, x.shape[0] - first)
        pad(x[first : first + here], flip, corner, image[:here])
        total, done = here * windows, 0
        if whole:
            done = total // 8 * 8
            _stored(flat, where, done, reach, weight, widths, out, first * windows, numbers)
        for begin in range(done, total, acc.shape[0]):
            rows = min(acc.shape[0], total - begin)
            _tiles(flat, where, begin, rows, reach, weight, widths, acc, numbers)
            to = first * windows + begin
            saturated += finish(acc, vectors, limits, scaled, count, table, out[to : to + rows])
    return saturated


class Direct:
    """A window and the matrix product that reads its rows: 8-bit weights and codes, as `Vnni` suits them.

    reading  of the window (`sim.kernels.window`); weight int `[N, kh * kw * C]`
    """

    @staticmethod
    def suits(weight: np.ndarray, fmt: Format) -> bool:
        return fmt.bits <= 8 and Vnni.suits(weight, fmt)

    def __init__(self, reading: Any, weight: np.ndarray, fmt: Format, epilogue: Epilogue) -> None:
        (height, width, channels), (rows, columns) = reading.image, reading.kernel
        (sy, sx), (dy, dx), (top, left) = reading.stride, reading.dilation, reading.corner
        self.corner = (-top, -left)
        down, across = reading.windows
        self.height = max(height - top, (down - 1) * sy + (rows - 1) * dy + 1)
        self.width = max(width - left, (across - 1) * sx + (columns - 1) * dx + 1)
        self.channels, self.epilogue, self.rows = channels, epilogue, down * across
        self.flip = np.uint8(128 if fmt.signed else 0)
        self.border = np.uint8((reading.fill & 0xFF) ^ int(self.flip))
        run = columns * channels if dx == 1 else channels
        self._order(weight.reshape(len(weight), -1, run), rows, columns, (dy, dx), run)
        self._places((down, across), (sy, sx))
        added, multiplier, half, shift, bias = (v.astype(np.int32) for v in epilogue.vectors)
        if not epilogue.scaled:  # where nothing is multiplied, what is added lies in `half`
            added, multiplier = np.zeros_like(added), np.ones_like(multiplier)
        limits = np.array(epilogue.limits, np.int64).clip(-(1 << 31), (1 << 31) - 1)
        self.numbers = np.concatenate([added, multiplier, half, shift, bias, limits.astype(np.int32)])
        #: Whether codes can be made in registers: 32-bit arithmetic, bytes, and no output beside those of tiles.
        narrow = epilogue.vectors[0].dtype == np.int32 and epilogue.format.dtype.itemsize == 1
        self.whole = bool(narrow and len(weight) == self.columns)

    def _order(self, weight: np.ndarray, rows: int, columns: int, dilation: tuple[int, int], run: int) -> None:
        """Where the four bytes of every step lie, and the weights in that order."""
        steps = -(-run // 4)
        padded = np.zeros((*weight.shape[:2], 4 * steps), np.int64)
        padded[:, :, :run] = weight
        dy, dx = dilation
        row = self.width * self.channels
        apart = 1 if run == columns * self.channels else columns
        begins = [i * dy * row + j * dx * self.channels for i in range(rows) for j in range(apart)]
        reach = (np.array(begins)[:, None] + 4 * np.arange(steps)).reshape(-1)
        odd = len(reach) % PAIR  # the last of a pair is a step whose weights are zero
        self.reach = np.append(reach, reach[:odd])
        self.packed, self.widths = pack(np.pad(padded.reshape(len(weight), -1), ((0, 0), (0, 4 * odd))))

    def _places(self, windows: tuple[int, int], stride: tuple[int, int]) -> None:
        """Where the windows of a block of images begin; of rows that fill its last tile, where the first does."""
        size = self.height * self.width * self.channels
        self.images = max(1, min(64, IMAGES // size))
        y, x = (np.arange(n) * s for n, s in zip(windows, stride, strict=True))
        one = ((y[:, None] * self.width + x) * self.channels).reshape(-1)
        every = (np.arange(self.images)[:, None] * size + one).reshape(-1)
        self.where = np.concatenate([every, np.zeros(ROWS, np.int64)])
        columns = int(self.widths.sum()) * LANES
        self.block = max(ROWS, min(SUMS // (4 * columns), len(every)) // ROWS * ROWS)
        self.columns = columns

    def run(self, x: np.ndarray, out: np.ndarray, count: bool = True, table: np.ndarray | None = None) -> int:
        """Fill `out [n * OH * OW, N]` from images `x [n, H, W, C]` and count the saturated codes."""
        images = max(1, min(self.images, len(x)))
        one = self.height * self.width * self.channels
        flat = np.full(
            (images + 1) * one + 64, self.border
        )  # the last tile and the last run are read beyond their ends
        image = flat[: images * one].reshape(images, self.height, self.width, self.channels)
        acc = np.empty((self.block, self.columns), np.int32)
        lookup = NO_TABLE if table is None else bytes_of(table)
        epilogue = self.epilogue.arguments(count, lookup)
        codes = np.ascontiguousarray(x).view(np.uint8)
        fixed = (self.where, self.rows, self.reach, self.packed, self.widths, acc, self.numbers)
        fixed += (self.whole and not count and table is None,)
        return int(_run(codes, self.flip, self.corner, image, flat, *fixed, *epilogue, bytes_of(out)))
