"""Weighted sums over the taps of a window, channel by channel, by tiles of vectors.

A tile takes a vector of channels of some windows at once, interleaves their taps so that an instruction that multiplies
and adds neighbours adds the taps of one channel, and requantises the sums in registers. The type of the image says how
(`KINDS`): bytes for AVX512-VNNI, which have to be unsigned (`sim.kernels.byte_tile`), signed bytes for AVX2, and words
for both (`sim.kernels.word_tile`).

Bytes are read where they are: windows are sorted by the taps that lie in the image, each kind has steps of its own, and
what the others add is a number. Other images are copied into padded ones of words, in which every window has all taps;
so are those whose channels are no multiple of a vector's, and those of batches too small for tiles of every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bittrue.sim.contract import Range
from bittrue.sim.kernels import byte_tile, word_tile
from bittrue.sim.kernels.byte_tile import LANE, ByteTile
from bittrue.sim.kernels.epilogue import Epilogue, bytes_of
from bittrue.sim.kernels.isa import I8, I16, I64, VNNI, WORDS, Isa
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.padded import Channels, fill
from bittrue.sim.kernels.window import Reading
from bittrue.sim.kernels.word_tile import WordTile

#: Windows of a tile.
ROWS = 4
#: Bytes of images from where they are read to where they are asked for.
AHEAD = 8192
#: Most kinds of windows that are kept apart.
APART = 16


@dataclass(frozen=True)
class Kind:
    """A kind of tiles: the CPU, the types of codes and weights, the lanes of 16 channels that a panel may have, most
    first, taps of a step, the order of channels, and the weights of a tap of a panel."""

    isa: Isa
    image: type
    weight: type
    lanes: tuple[int, ...]
    taps: int
    arranged: Callable[[np.ndarray, int], np.ndarray]
    each: int

    @property
    def turns(self) -> bool:
        """Whether codes have to be unsigned."""
        return self.image is np.uint8

    def suits(self, reading: Reading, weight: np.ndarray, epilogue: Epilogue, codes: Range) -> bool:
        """Whether codes and weights have these types, channels are whole panels (or there is one of a lane), and every
        sum fits."""
        held, most = np.iinfo(self.weight), 255 if self.turns else max(-codes.low, codes.high)
        if self.image in (np.uint8, np.int8):
            fits = reading.dtype.itemsize == 1 and (self.turns or codes.high <= 127)
        else:
            fits = max(-codes.low, codes.high + 1) <= 1 << 15
        whole = self.lanes[-1] == 1 or weight.shape[1] % (LANE * self.lanes[-1]) == 0
        within = weight.size > 0 and held.min < weight.min() + self.turns and weight.max() <= held.max
        sums = int(np.abs(weight).sum(0).max(initial=0)) * most < 1 << 31
        return bool(epilogue.narrow and fits and whole and within and sums)


#: Kinds of tiles, fastest first.
KINDS = {
    "vnni bytes": Kind(VNNI, np.uint8, np.int8, (4, 2, 1), byte_tile.TAPS, byte_tile.arranged, byte_tile.LANES * LANE),
    "vnni words": Kind(VNNI, np.uint16, np.int16, (2,), word_tile.TAPS, word_tile.arranged, 2 * LANE),
    "avx2 bytes": Kind(WORDS, np.int8, np.int16, (1,), word_tile.TAPS, word_tile.arranged, LANE),
    "avx2 words": Kind(WORDS, np.int16, np.int16, (1,), word_tile.TAPS, word_tile.arranged, LANE),
}


def tile(lanes: int) -> Any:
    """The intrinsic `tile(image, turn, where, row, reach, weight, first, steps, out, to, place, column, numbers, ends)`
    for 16 channels a lane.

    image    flat, of the type of a kind; codes xor `turn`, uint8, are what is multiplied
    where    int64: the tile's windows begin at code `where[row]` and those after it
    reach    int64: from `first` on codes from there to each tap of so many `steps`
    weight   flat: those of these taps, in the order of the sums, the taps of each channel of a step side by side
    out      uint8 [rows, C]: row `to + place[row]` and those of the places after it, codes from `column` on
    numbers  int32, flat: multiplier, added, shift of the panel's channels in the order of the sums
    ends     int16: low and high
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        kind = next(kind for kind in KINDS.values() if str(kinds[0].dtype) == np.dtype(kind.image).name)
        if lanes not in kind.lanes:  # a branch that is never taken
            return context.get_dummy_value()
        arrays = {k: context.make_array(kinds[k])(context, builder, arguments[k]) for k in (0, 2, 4, 5, 8, 10, 12, 13)}
        image, where, reach, weight, out, place, numbers, ends = arrays.values()
        turn, row, first, steps, to, column = (arguments[k] for k in (1, 3, 6, 7, 9, 11))
        load = lambda base, index: builder.load(builder.gep(base, [index]))  # noqa: E731
        begins = [load(where.data, builder.add(row, I64(r))) for r in range(ROWS)]
        bases = [builder.gep(image.data, [builder.add(begin, column)]) for begin in begins]
        made: Any = (
            ByteTile(builder, lanes, bases, turn)
            if kind.turns
            else WordTile(builder, lanes, bases, I8 if kind.image is np.int8 else I16)
        )
        panel = builder.gep(weight.data, [builder.mul(first, I64(kind.each))])
        sums = made.sums(builder.gep(reach.data, [first]), panel, steps)
        width = cgutils.unpack_tuple(builder, out.strides)[0]
        base = builder.bitcast(out.data, I8.as_pointer())
        rows = [builder.add(to, load(place.data, builder.add(row, I64(r)))) for r in range(ROWS)]
        places = [builder.gep(base, [builder.add(builder.mul(width, r), column)]) for r in rows]
        made.store(sums, numbers.data, [load(ends.data, I64(k)) for k in (0, 1)], places)
        return context.get_dummy_value()

    def typed(typingctx, image, turn, where, row, reach, weight, first, steps, out, to, place, column, numbers, ends):  # noqa: ARG001
        at = types.int64
        kinds = (image, types.uint8, where, at, reach, weight, at, at, out, at, place, at, numbers, ends)
        return types.void(*kinds), generate

    return intrinsic(typed)


_tile1, _tile2, _tile4 = (tile(lanes) for lanes in (1, 2, 4))


@intrinsic
def _ask(typingctx, image, at):  # noqa: ARG001
    """Ask for the cache line of the code `at` of a flat image; what lies beyond its end is never read."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), *[ir.IntType(32)] * 3])
        asked = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(asked, [pointer, *(ir.Constant(ir.IntType(32), v) for v in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(image, types.int64), generate


@jit
def _run(x, flip, corner, image, flat, copied, images, windows, where, place, kinds, reach, weight, firsts, lanes,
         numbers, ends, out):  # fmt: skip
    """Codes of every window; the last tile of a kind makes rows again, which are at least as many as a tile's.

    kinds   of each its first window in `where` and `place`, how many an image has, and its steps
    firsts  of each kind and panel the first of its taps in `reach`
    lanes   of each panel
    """
    for first in range(0, x.shape[0], images):
        here, to = min(images, x.shape[0] - first), first * windows
        given, turn = flat, np.uint8(0)
        if copied:
            fill(x[first : first + here], flip, corner, image[:here])
        else:
            given, turn = x[first : first + here].reshape(-1).view(flat.dtype), flip
        for k in range(kinds.shape[0]):
            begin, total, steps = kinds[k, 0], kinds[k, 1] * here, kinds[k, 2]
            each = given.size * ROWS // (here * windows)  # what of the images a tile is worth
            for r in range(0, total, ROWS):  # all panels of the same windows: their pixels are read from afar once
                row, column = begin + min(r, total - ROWS), 0
                if not copied:
                    for ahead in range(where[row] + AHEAD, where[row] + AHEAD + each, 64):
                        _ask(given, ahead)
                for p in range(lanes.size):
                    at, own = firsts[k, p], numbers[k, p]
                    if lanes[p] == 4:
                        _tile4(given, turn, where, row, reach, weight, at, steps, out, to, place, column, own, ends)
                    elif lanes[p] == 2:
                        _tile2(given, turn, where, row, reach, weight, at, steps, out, to, place, column, own, ends)
                    else:
                        _tile1(given, turn, where, row, reach, weight, at, steps, out, to, place, column, own, ends)
                    column += LANE * lanes[p]


class _Windows:
    """The windows of a block of images by kind, and the steps of each kind, as `_run` takes them.

    weight   int `[T, wide]`; panels are as many `lanes` wide, for tiles of this `kind`
    folded   the epilogue's numbers `[3, wide]` for what sums lack
    """

    def __init__(
        self, kind: Kind, weight: np.ndarray, lanes: np.ndarray, folded: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.kind, self.weight, self.lanes, self.folded = kind, weight, lanes, folded
        self.kinds: list[tuple[int, int, int]] = []
        self.where: list[np.ndarray] = []
        self.place: list[np.ndarray] = []
        self.reach: list[np.ndarray] = []
        self.made: list[np.ndarray] = []
        self.numbers: list[np.ndarray] = []

    def add(self, taps: np.ndarray, reach: np.ndarray, where: np.ndarray, place: np.ndarray, more: np.ndarray) -> None:
        """A kind: its taps, and how far each is; its windows `[images, windows]`, and their places; what sums lack."""
        steps = -(-len(taps) // self.kind.taps)
        self.kinds.append((sum(v.size for v in self.where), where.shape[1], steps))
        self.where.append(where)
        self.place.append(place)
        beyond = self.kind.taps * steps - len(taps)  # that have no weight
        weight = np.pad(self.weight[taps], ((0, beyond), (0, 0))).reshape(steps, self.kind.taps, -1)
        for part, numbers, lanes in zip(self.parts(weight), self.parts(self.folded(more)), self.lanes, strict=True):
            self.reach.append(np.append(reach, np.repeat(reach[:1], beyond)))
            # [step, tap, vector, lane, j] to [step, vector, lane, j, tap]
            self.made.append(np.moveaxis(self.kind.arranged(part, lanes), 1, -1).reshape(-1))
            self.numbers.append(self.kind.arranged(numbers, lanes).reshape(-1))

    def parts(self, channels: np.ndarray) -> list[np.ndarray]:
        """Those of every panel, of numbers by channel in the last axis."""
        return np.split(channels, LANE * np.cumsum(self.lanes)[:-1], axis=-1)

    def arguments(self) -> tuple:
        """`where` to `numbers`."""
        where, place = (np.concatenate([v.reshape(-1) for v in made]) for made in (self.where, self.place))
        firsts = np.cumsum([0, *(len(v) for v in self.reach[:-1])]).reshape(len(self.kinds), -1)
        weight, numbers = np.concatenate(self.made).astype(self.kind.weight), np.array(self.numbers, np.int32)
        kinds, numbers = np.array(self.kinds, np.int64), numbers.reshape(*firsts.shape, -1)
        return where, place, kinds, np.concatenate(self.reach), weight, firsts, self.lanes, numbers


class Tiles:
    """The weighted sums of a window by tiles of a kind.

    reading, weight int `[T, C]`, epilogue and codes as `sim.kernels.channels.Weighted` has them
    """

    def __init__(self, kind: Kind, reading: Reading, weight: np.ndarray, epilogue: Epilogue, codes: Range) -> None:
        channels = weight.shape[1]
        bytes_ = kind.image in (np.uint8, np.int8)
        self.flip = np.uint8(128 if kind.turns and codes.low < 0 else 0)
        self.wide = -(-channels // LANE) * LANE
        border = np.uint8((reading.fill & 0xFF) ^ int(self.flip)).view(kind.image) if bytes_ else None
        self.taps = Channels(reading, kind.image, self.wide, border)
        lanes, most = self.wide // LANE, kind.lanes[0]
        panels = np.array([most] * (lanes // most) + [n for n in (2, 1) if lanes % most & n], np.int64)
        beyond = ((0, 0), (0, self.wide - channels))
        padded = np.pad(weight, beyond).astype(np.int64)

        def folded(more: np.ndarray) -> np.ndarray:
            added, multiplier, shift = epilogue.folded(more[:channels])
            return np.pad(np.stack([np.broadcast_to(v, channels) for v in (multiplier, added, shift)]), beyond)

        copied = _Windows(kind, padded, panels, folded)
        images, each = self.taps.images, self.taps.padded.rows
        place = np.arange(images)[:, None] * each + np.arange(each)
        turned = int(self.flip) * padded
        copied.add(
            np.arange(len(weight)), self.taps.reach, self.taps.where.reshape(images, each), place, -turned.sum(0)
        )
        self.copied, self.ends = copied.arguments(), np.array(epilogue.ends, np.int16)
        self.bare: tuple | None = None
        self.images = max(ROWS, self.taps.images)  # of a block: so many have a tile of every kind of windows
        seen_ = seen(reading)
        if bytes_ and self.wide == channels and 0 < len(seen_) <= APART:
            bare = _Windows(kind, padded, panels, folded)
            image, size = np.arange(self.images)[:, None], int(np.prod(reading.image))
            for taps, reach, where, place in seen_:
                lacking = reading.fill * np.delete(padded, taps, axis=0).sum(0) - turned[taps].sum(0)
                bare.add(taps, reach, image * size + where, image * each + place, lacking)
            self.bare = bare.arguments()

    def enough(self, images: int) -> bool:
        """Whether every block of so many images has the rows of a tile."""
        return self.taps.least(images) >= ROWS

    def run(self, x: np.ndarray, out: np.ndarray) -> None:
        """Fill `out [n * OH * OW, wide]` from images `x [n, H, W, C]`."""
        bare = self.bare if (len(x) % self.images or self.images) >= ROWS else None
        codes, corner, image, flat, _, windows, _ = self.taps.arguments(x, bare is None)
        if image.itemsize == 1:
            codes, image = codes.view(np.uint8), image.view(np.uint8)
        images, order = (len(image), self.copied) if bare is None else (self.images, bare)
        flip = self.flip.astype(codes.dtype)
        _run(codes, flip, corner, image, flat, bare is None, images, windows, *order, self.ends, bytes_of(out))


def seen(reading: Reading) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The windows of an image by the taps of which they see the image: those taps, how far each is from the first of
    them, where that lies in the image, and the places of the windows; codes of images that nothing is around."""
    _, width, channels = reading.image

    def along(axis: int) -> dict[tuple[int, ...], list[int]]:
        found: dict[tuple[int, ...], list[int]] = {}
        for w, inside in enumerate(reading.seen(axis)):
            found.setdefault(tuple(np.flatnonzero(inside).tolist()), []).append(w)
        return found

    result = []
    for rows, down in along(0).items():
        for columns, across in along(1).items():
            if not rows or not columns:  # nothing but padding
                return []
            i, j = np.array(rows), np.array(columns)
            taps = (i[:, None] * reading.kernel[1] + j).reshape(-1)
            apart = (i - i[0])[:, None] * reading.dilation[0] * width + (j - j[0]) * reading.dilation[1]
            y, x = reading.places(0)[down, i[0]], reading.places(1)[across, j[0]]
            where = (y[:, None] * width + x).reshape(-1) * channels
            place = (np.array(down)[:, None] * reading.windows[1] + np.array(across)).reshape(-1)
            result.append((taps, apart.reshape(-1) * channels, where, place))
    return result
