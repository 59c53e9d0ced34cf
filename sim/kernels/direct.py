"""Convolution without its windows: register tiles that read their rows where they lie in a padded image.

A row of a window is `runs` of contiguous codes, one for every kernel row (one for every tap where taps are apart), so a
tile needs no copy of it: `where[r]` is the byte in the image at which row r begins, and `reach[s]` how far behind it
the four bytes of step s lie. A run that is no multiple of four bytes long is read beyond its end, where its weights are
zero. The images of a block are copied once into a buffer with a border of padding codes; on the way signed codes become
unsigned bytes (`vnni`) or all become words (`avx2`), as the tiles want them (`sim.kernels.tiles`).

A linear layer is the same with images of one pixel.
"""

from __future__ import annotations

import numpy as np

from bittrue.sim.contract import Format
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.tiles import AVX2, Isa, pack, tile
from bittrue.sim.kernels.window import Reading

#: Bytes of the padded images of a block, and of its sums.
IMAGES, SUMS = 1 << 17, 1 << 15

_sums1, _sums2, _sums3 = (tile(vectors, stored=False) for vectors in (1, 2, 3))
_codes1, _codes2, _codes3 = (tile(vectors, stored=True) for vectors in (1, 2, 3))


@jit
def pad(x, flip, corner, image):
    """Codes `x [n, H, W, C]`, xor `flip`, into the middle of `image [n, PH, PW, C]`; what is around stays."""
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
def _sums(flat, where, begin, rows, reach, weight, widths, shape, acc, numbers):
    """Sums of `rows` rows from `begin` on into `acc`, which has room for whole tiles.

    shape   rows of a tile, and outputs of a vector
    """
    steps, start, column = reach.size, 0, 0
    for p in range(widths.size):
        wide = widths[p]
        for r in range(0, rows, shape[0]):
            if wide == 3:
                _sums3(flat, where, begin + r, reach, weight, start, steps, acc, r, column, numbers)
            elif wide == 2:
                _sums2(flat, where, begin + r, reach, weight, start, steps, acc, r, column, numbers)
            else:
                _sums1(flat, where, begin + r, reach, weight, start, steps, acc, r, column, numbers)
        start += 4 * steps * shape[1] * wide
        column += shape[1] * wide


@jit
def _codes(flat, where, rows, reach, weight, widths, shape, out, to, numbers):
    """Codes of `rows` rows, whole tiles, into `out` from `to` on."""
    steps, start, column = reach.size, 0, 0
    for p in range(widths.size):
        wide = widths[p]
        for r in range(0, rows, shape[0]):
            if wide == 3:
                _codes3(flat, where, r, reach, weight, start, steps, out, to + r, column, numbers)
            elif wide == 2:
                _codes2(flat, where, r, reach, weight, start, steps, out, to + r, column, numbers)
            else:
                _codes1(flat, where, r, reach, weight, start, steps, out, to + r, column, numbers)
        start += 4 * steps * shape[1] * wide
        column += shape[1] * wide


@jit
def _run(x, flip, corner, image, flat, where, windows, reach, weight, widths, shape, acc, numbers, whole,
         vectors, limits, scaled, count, table, out):  # fmt: skip
    """`where` are the rows of a block of images, `windows` of them an image; see the module."""
    saturated, images = 0, image.shape[0]
    for first in range(0, x.shape[0], images):
        here = min(images, x.shape[0] - first)
        pad(x[first : first + here], flip, corner, image[:here])
        total, done = here * windows, 0
        if whole:
            done = total // shape[0] * shape[0]
            _codes(flat, where, done, reach, weight, widths, shape, out, first * windows, numbers)
        for begin in range(done, total, acc.shape[0]):
            rows = min(acc.shape[0], total - begin)
            _sums(flat, where, begin, rows, reach, weight, widths, shape, acc, numbers)
            to = first * windows + begin
            saturated += finish(acc, vectors, limits, scaled, count, table, out[to : to + rows])
    return saturated


class Direct:
    """A window and the matrix product that reads its rows, exact.

    reading   of the window (`sim.kernels.window`); weight int `[N, kh * kw * C]`
    epilogue  made with the `offset` of these weights
    """

    @staticmethod
    def suits(isa: Isa, weight: np.ndarray, fmt: Format) -> bool:
        """Whether codes and weights have the types of the tiles, and every sum fits 32 bits."""
        held, most = np.iinfo(isa.weight), 255 if isa.flips else max(-fmt.low, fmt.high)
        narrow = fmt.bits <= 8 if isa.flips else max(-fmt.low, fmt.high + 1) <= 1 << 15
        fits = held.min < weight.min(initial=0) + isa.flips and weight.max(initial=0) <= held.max
        return bool(weight.size and narrow and fits and int(np.abs(weight).sum(1).max(initial=0)) * most < 1 << 31)

    @staticmethod
    def offset(isa: Isa, weight: np.ndarray, fmt: Format) -> np.ndarray | int:
        """What every sum is too large, by output: what made its codes unsigned."""
        return 128 * weight.sum(1) if isa.flips and fmt.signed else 0

    def __init__(self, isa: Isa, reading: Reading, weight: np.ndarray, fmt: Format, epilogue: Epilogue) -> None:
        self.isa = isa
        (height, width, channels), (rows, columns) = reading.image, reading.kernel
        (sy, sx), (dy, dx), (top, left) = reading.stride, reading.dilation, reading.corner
        self.corner = (-top, -left)
        down, across = reading.windows
        self.height = max(height - top, (down - 1) * sy + (rows - 1) * dy + 1)
        self.width = max(width - left, (across - 1) * sx + (columns - 1) * dx + 1)
        self.channels, self.epilogue, self.rows = channels, epilogue, down * across
        self.flip = isa.image(128 if isa.flips and fmt.signed else 0)
        self.border = isa.image((reading.fill & 0xFF) ^ int(self.flip) if isa.flips else reading.fill)
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
        codes, pair = self.isa.step, self.isa.together(1)
        steps = -(-run // codes)
        padded = np.zeros((*weight.shape[:2], codes * steps), np.int64)
        padded[:, :, :run] = weight
        dy, dx = dilation
        row = self.width * self.channels
        apart = 1 if run == columns * self.channels else columns
        begins = [i * dy * row + j * dx * self.channels for i in range(rows) for j in range(apart)]
        reach = (np.array(begins)[:, None] + codes * np.arange(steps)).reshape(-1)
        odd = len(reach) % pair  # the last of a pair is a step whose weights are zero
        self.reach = np.append(reach, reach[:odd]) * np.dtype(self.isa.image).itemsize
        flat = np.pad(padded.reshape(len(weight), -1), ((0, 0), (0, codes * odd)))
        self.packed, self.widths = pack(self.isa, flat)

    def _places(self, windows: tuple[int, int], stride: tuple[int, int]) -> None:
        """Where the windows of a block of images begin; of rows that fill its last tile, where the first does."""
        size = self.height * self.width * self.channels
        item = np.dtype(self.isa.image).itemsize
        self.images = max(1, min(max(64, 1024 // self.rows), IMAGES // (item * size)))
        y, x = (np.arange(n) * s for n, s in zip(windows, stride, strict=True))
        one = ((y[:, None] * self.width + x) * self.channels).reshape(-1)
        every = (np.arange(self.images)[:, None] * size + one).reshape(-1)
        rows = self.isa.rows
        self.where = np.concatenate([every * item, np.zeros(rows, np.int64)])
        self.columns = int(self.widths.sum()) * self.isa.lanes
        self.block = max(rows, min(SUMS // (4 * self.columns), len(every)) // rows * rows)

    def room(self, images: int) -> int:
        """Codes of a buffer for a block of so many images, and of what is read beyond them: by the rows that fill the
        last tile, which lie in images to come, and by the last run, up to the end of its last step."""
        more = -(-self.isa.rows // self.rows)
        return (images + more) * self.height * self.width * self.channels + 2 * self.isa.step

    def run(self, x: np.ndarray, out: np.ndarray, count: bool = True, table: np.ndarray | None = None) -> int:
        """Fill `out [n * OH * OW, N]` from images `x [n, H, W, C]` and count the saturated codes."""
        images = max(1, min(self.images, len(x)))
        one = self.height * self.width * self.channels
        flat = np.full(self.room(images), self.border)
        image = flat[: images * one].reshape(images, self.height, self.width, self.channels)
        acc = np.empty((self.block, self.columns), np.int32)
        lookup = NO_TABLE if table is None else bytes_of(table)
        codes = np.ascontiguousarray(x)
        codes = codes.view(np.uint8) if self.isa.flips else codes
        shape = (self.isa.rows, self.isa.lanes)
        order = (self.where, self.rows, self.reach, self.packed, self.widths, shape, acc, self.numbers)
        last = (self.whole and not count and table is None, *self.epilogue.arguments(count, lookup), bytes_of(out))
        return int(_run(codes, self.flip, self.corner, image, flat, *order, *last))


class Avx2:
    """The back end `avx2` of `MatrixKernel`: codes and weights of 16 bits, sums of 32."""

    offset = 0

    @staticmethod
    def suits(weight: np.ndarray, fmt: Format) -> bool:
        return Direct.suits(AVX2, weight, fmt)

    def __init__(self, weight: np.ndarray, fmt: Format) -> None:
        self.weight, self.format = weight, fmt
        self.made: Direct | None = None

    def run(self, rows: np.ndarray, out: np.ndarray, epilogue: Epilogue, count: bool, table: np.ndarray) -> int:
        """Fill `out [rows, N]` and count the saturated codes."""
        inputs = self.weight.shape[1]
        if self.made is None:
            self.made = Direct(AVX2, alone(inputs, self.format), self.weight, self.format, epilogue)
        pixels = rows.reshape(len(rows), 1, 1, inputs)
        return self.made.run(pixels, out, count, table if table.shape[1] else None)


def alone(inputs: int, fmt: Format) -> Reading:
    """Rows as images of one pixel."""
    pixel = (1, 1, inputs)
    return Reading(pixel, pixel, (1, 1), (1, 1), (1, 1), (0, 0), 0, fmt.dtype)
