"""Convolution without its windows: register tiles that read their rows where they lie in a padded image.

A row of a window is `runs` of contiguous codes, one for every kernel row (one for every tap where taps are apart), so a
tile needs no copy of it: `where[r]` is the byte in the image at which row r begins, and `reach[s]` how far behind it
the four bytes of step s lie. A run that is no multiple of four bytes long is read beyond its end, where its weights are
zero. The images of a block are copied once into a buffer with a border of padding codes; on the way signed codes become
unsigned bytes (`vnni`) or all become words (`avx2`, where they are not known to be small and positive), as the tiles
want them (`sim.kernels.tiles`).

Windows that begin above the image or end below it have kernel rows that see only padding. Where that padding is zero
they are made without those rows: windows are sorted by the kernel rows that they see, each kind with steps of its own.

A linear layer is the same with images of one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.kernels import groups
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.isa import BYTES, WORDS, Isa
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.padded import Padded, pad
from bittrue.sim.kernels.tiles import numbers, panel, panels, tile
from bittrue.sim.kernels.window import Reading

#: Bytes of the sums of a block.
SUMS = 1 << 15
#: Most kinds of windows that are kept apart.
KINDS = 4

_sums1, _sums2, _sums3 = (tile(vectors, stored=False) for vectors in (1, 2, 3))
_codes1, _codes2, _codes3 = (tile(vectors, stored=True) for vectors in (1, 2, 3))


@jit
def _sums(flat, where, begin, rows, reach, weight, table, widths, shape, acc, numbers):
    """Sums of `rows` rows from `begin` on into `acc`, which has room for whole tiles.

    shape   rows of a tile, outputs of a vector, entries of a panel in the table
    """
    entry, column = 0, 0
    for p in range(widths.size):
        wide = widths[p]
        for r in range(0, rows, shape[0]):
            at = begin + r
            if wide == 3:
                _sums3(flat, where, at, reach, weight, table, entry, acc, r, where, column, numbers)
            elif wide == 2:
                _sums2(flat, where, at, reach, weight, table, entry, acc, r, where, column, numbers)
            else:
                _sums1(flat, where, at, reach, weight, table, entry, acc, r, where, column, numbers)
        entry += shape[2]
        column += shape[1] * wide


@jit
def _codes(flat, sorted_, place, kinds, images, reach, weight, table, widths, shape, out, to, numbers):
    """Codes of all windows of so many images into `out` from `to` on; the last tile of a kind makes rows again."""
    for k in range(kinds.shape[0]):
        entry, first, total = kinds[k, 0], kinds[k, 1], kinds[k, 2] * images
        column, own = 0, numbers[k]
        for p in range(widths.size):
            wide = widths[p]
            for r in range(0, total, shape[0]):
                at = first + min(r, total - shape[0])
                if wide == 3:
                    _codes3(flat, sorted_, at, reach, weight, table, entry, out, to, place, column, own)
                elif wide == 2:
                    _codes2(flat, sorted_, at, reach, weight, table, entry, out, to, place, column, own)
                else:
                    _codes1(flat, sorted_, at, reach, weight, table, entry, out, to, place, column, own)
            entry += shape[2]
            column += shape[1] * wide


@jit
def _run(x, flip, corner, image, flat, where, sorted_, place, kinds, windows, reach, weight, table, widths, shape, acc,
         numbers, least, bare, vectors, limits, scaled, count, lookup, out):  # fmt: skip
    """`where` are the rows of a block of images, `windows` of them an image; `least` images or more have a tile of
    every kind of windows, 0 where codes are not to be made in registers; `bare` are the numbers for images that are
    read as they are given, none where they have to be copied; see the module."""
    saturated, images = 0, image.shape[0]
    for first in range(0, x.shape[0], images):
        here, to = min(images, x.shape[0] - first), first * windows
        if 0 < least <= here and bare.size:
            given = x[first : first + here].reshape(-1).view(flat.dtype)
            _codes(given, sorted_, place, kinds, here, reach, weight, table, widths, shape, out, to, bare)
            continue
        pad(x[first : first + here], flip, corner, image[:here])
        if 0 < least <= here:
            _codes(flat, sorted_, place, kinds, here, reach, weight, table, widths, shape, out, to, numbers)
            continue
        total = here * windows
        for begin in range(0, total, acc.shape[0]):
            rows = min(acc.shape[0], total - begin)
            _sums(flat, where, begin, rows, reach, weight, table, widths, shape, acc, numbers[0])
            saturated += finish(acc, vectors, limits, scaled, count, lookup, out[to + begin : to + begin + rows])
    return saturated


class Direct:
    """A window and the matrix product that reads its rows, exact.

    reading   of the window (`sim.kernels.window`); weight int `[N, kh * kw * C]`
    epilogue  made with the `offset` of these weights
    codes     that are in the image and around it, where less is known to occur than the format has
    """

    @staticmethod
    def suits(isa: Isa, weight: np.ndarray, fmt: Format, codes: Range | None = None) -> bool:
        """Whether codes and weights have the types of the tiles, and every sum fits 32 bits."""
        codes = Range(fmt.low, fmt.high) if codes is None else codes
        held, most = np.iinfo(isa.weight), 255 if isa.flips else max(-codes.low, codes.high)
        narrow = fmt.bits <= 8 if isa is not WORDS else max(-codes.low, codes.high + 1) <= 1 << 15
        fits = held.min < weight.min(initial=0) + (isa is not WORDS) and weight.max(initial=0) <= held.max
        fits = fits and int(np.abs(weight).sum(1).max(initial=0)) * most < 1 << 31
        return bool(weight.size and narrow and fits and (isa is not BYTES or groups.exact(weight, codes)))

    @staticmethod
    def offset(isa: Isa, weight: np.ndarray, fmt: Format) -> np.ndarray | int:
        """What every sum is too large, by output: what made its codes unsigned."""
        return 128 * weight.sum(1) if isa.flips and fmt.signed else 0

    def __init__(
        self,
        isa: Isa,
        reading: Reading,
        weight: np.ndarray,
        fmt: Format,
        epilogue: Epilogue,
        codes: Range | None = None,
    ) -> None:
        codes = Range(fmt.low, fmt.high) if codes is None else codes
        self.isa, self.largest = isa, codes.high
        channels, (rows, columns) = reading.image[2], reading.kernel
        self.padded, self.epilogue = Padded(reading), epilogue
        self.rows = self.padded.rows
        down, across = reading.windows
        self.flip = np.uint8(128 if isa.flips and fmt.signed else 0)
        self.border = np.array(reading.fill).astype(isa.image) if isa is WORDS else np.uint8(reading.fill & 0xFF)
        self.border = self.border if isa is WORDS else (self.border ^ self.flip).view(isa.image)
        inside = map(np.flatnonzero, reading.seen(0))  # the kernel rows that see the image, of every row of windows
        seen = [(int(tap[0]), int(tap[-1]) + 1) for tap in inside]
        kinds = sorted(set(seen)) if len(set(seen)) <= KINDS else [(0, rows)]
        run = columns * channels if reading.dilation[1] == 1 else channels
        self._order(weight.reshape(len(weight), -1, run), rows, run, kinds)
        self._places(seen if len(kinds) > 1 else kinds * down, kinds, across)
        self._requantise(weight.reshape(len(weight), rows, -1), kinds)
        #: The numbers of the epilogue for images that need no copy: of bytes, none negative, with nothing around them.
        whole = reading.image == (self.padded.height, self.padded.width, channels) and run % isa.step == 0
        self.bare = self.numbers[:0]
        if whole and isa is not WORDS and codes.low >= 0:
            self.bare = self._numbers(weight.reshape(len(weight), rows, -1), kinds, int(self.flip))

    def _order(self, weight: np.ndarray, rows: int, run: int, kinds: Sequence[tuple[int, int]]) -> None:
        """Where the four bytes of every step lie, the weights in that order, and the table of panels (see `tile`):
        those of all kernel rows, then those of each kind of windows."""
        isa = self.isa
        steps = -(-run // isa.step)
        padded = np.zeros((*weight.shape[:2], isa.step * steps), np.int64)
        padded[:, :, :run] = weight
        runs = weight.shape[1] // rows
        begins = self.padded.taps.reshape(rows, -1)[:, :runs].reshape(-1)
        reach = (begins[:, None] + isa.step * np.arange(steps)).reshape(-1) * np.dtype(isa.image).itemsize
        parts, self.widths = panels(isa, padded.reshape(len(weight), -1))
        steps *= runs  # of a kernel row
        made, places, table, lengths = [], [], [], [0, 0]
        for first, last in [(0, rows), *kinds]:
            for part in parts:
                chosen = np.arange(first * steps, last * steps)
                if isa is BYTES:
                    order, counts = groups.choose(part[:, chosen], self.largest, isa.groups)
                    chosen = chosen[order]
                else:
                    left, counts = len(chosen), []
                    for size in isa.groups:
                        counts.append(left // size)
                        left %= size
                table.append([*lengths, *counts])
                places.append(reach[chosen])
                made.append(panel(part[:, chosen]))
                lengths = [lengths[0] + len(chosen), lengths[1] + made[-1].nbytes]
        self.reach, self.packed = np.concatenate(places), np.concatenate(made)
        self.table = np.array(table, np.int64).reshape(-1)

    def _places(
        self,
        seen: Sequence[tuple[int, int]],
        kinds: Sequence[tuple[int, int]],
        across: int,
    ) -> None:
        """Where the windows of a block of images begin: in their order, those that fill its last tile where the first
        does; and sorted by their kind, with the places of their codes."""
        item, tall = np.dtype(self.isa.image).itemsize, self.isa.rows
        self.images = self.padded.together(item)
        image, every = np.arange(self.images)[:, None], self.padded.every(self.images) * item
        self.where = np.concatenate([every, np.zeros(tall, np.int64)])
        sorted_, place, table, entries = [], [], [], self.table.size // (len(kinds) + 1)
        for k, kind in enumerate(kinds):
            rows = np.flatnonzero([s == kind for s in seen])
            here = (rows[:, None] * across + np.arange(across)).reshape(-1)
            table.append([(k + 1) * entries, sum(len(v) for v in place), len(here)])
            place.append((image * self.rows + here).reshape(-1))
            sorted_.append(every[place[-1]])
        self.sorted, self.place, self.kinds = np.concatenate(sorted_), np.concatenate(place), np.array(table, np.int64)
        self.columns = int(self.widths.sum()) * self.isa.lanes
        self.block = max(tall, min(SUMS // (4 * self.columns), len(every)) // tall * tall)

    def _numbers(self, weight: np.ndarray, kinds: Sequence[tuple[int, int]], more: int = 0) -> np.ndarray:
        """The numbers of the epilogue for each kind of windows; codes may lack `more` of what sums take off."""
        border = int(self.border.view(np.uint8)) if self.isa is not WORDS else int(self.border)
        made = []
        for first, last in kinds:
            beside = border * (weight[:, :first].sum((1, 2)) + weight[:, last:].sum((1, 2)))
            beside += more * weight.sum((1, 2))
            made.append(numbers(*self.epilogue.folded(beside), self.epilogue.ends, self.epilogue.scaled))
        return np.array(made)

    def _requantise(self, weight: np.ndarray, kinds: Sequence[tuple[int, int]]) -> None:
        """The numbers of the epilogue, and how many images may be made in registers: where there is no output beside
        those of tiles."""
        self.numbers = self._numbers(weight, kinds)
        fits = self.epilogue.narrow and len(weight) == self.columns
        self.least = int(max(-(-self.isa.rows // kind[2]) for kind in self.kinds)) if fits else 0

    def room(self, images: int) -> int:
        """Codes of a buffer for a block of so many images, and of what is read beyond them: by the rows that fill the
        last tile, which lie in images to come, and by the last run, up to the end of its last step."""
        more = -(-self.isa.rows // self.rows)
        return (images + more) * self.padded.size + 2 * self.isa.step

    def run(self, x: np.ndarray, out: np.ndarray, count: bool = True, table: np.ndarray | None = None) -> int:
        """Fill `out [n * OH * OW, N]` from images `x [n, H, W, C]` and count the saturated codes."""
        images = max(1, min(self.images, len(x)))
        shape = (self.padded.height, self.padded.width, self.padded.channels)
        flat = np.full(self.room(images), self.border)
        image = flat[: images * self.padded.size].reshape(images, *shape)
        acc = np.empty((self.block, self.columns), np.int32)
        lookup = NO_TABLE if table is None else bytes_of(table)
        codes = np.ascontiguousarray(x)
        codes = codes if self.isa is WORDS else codes.view(np.uint8)
        image = image if self.isa is WORDS else image.view(np.uint8)
        shape = (self.isa.rows, self.isa.lanes, len(self.isa.groups) + 2)
        order = (self.where, self.sorted, self.place, self.kinds, self.rows, self.reach, self.packed, self.table)
        least = 0 if count or table is not None else self.least
        last = (least, self.bare, *self.epilogue.arguments(count, lookup), bytes_of(out))
        return int(
            _run(
                codes, self.flip, self.padded.corner, image, flat, *order, self.widths, shape, acc, self.numbers, *last
            )
        )


class Avx2:
    """The back end `avx2` of `MatrixKernel`: codes and weights of 16 bits, sums of 32."""

    offset = 0

    @staticmethod
    def suits(weight: np.ndarray, fmt: Format) -> bool:
        return Direct.suits(WORDS, weight, fmt)

    def __init__(self, weight: np.ndarray, fmt: Format) -> None:
        self.weight, self.format = weight, fmt
        self.made: Direct | None = None

    def run(self, rows: np.ndarray, out: np.ndarray, epilogue: Epilogue, count: bool, table: np.ndarray) -> int:
        """Fill `out [rows, N]` and count the saturated codes."""
        inputs = self.weight.shape[1]
        if self.made is None:
            isa = BYTES if Direct.suits(BYTES, self.weight, self.format) else WORDS
            self.made = Direct(isa, alone(inputs, self.format), self.weight, self.format, epilogue)
        pixels = rows.reshape(len(rows), 1, 1, inputs)
        return self.made.run(pixels, out, count, table if table.shape[1] else None)


def alone(inputs: int, fmt: Format) -> Reading:
    """Rows as images of one pixel."""
    pixel = (1, 1, inputs)
    return Reading(pixel, pixel, (1, 1), (1, 1), (1, 1), (0, 0), 0, fmt.dtype)
