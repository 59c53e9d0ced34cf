"""Where the values of a tensor are in the program, whose channels are innermost, and where in torch.

A layout is the program's shape and, for every code in its order, the flat index of its value in a sample of torch's
tensor. Renaming axes in torch (views, permutations) then changes nothing but that index; an operation that needs
channels innermost asks whether they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Layout:
    """`order[i]` is the flat index in torch of the program's i-th code; `shape` is the program's."""

    shape: tuple[int, ...]
    order: np.ndarray

    @classmethod
    def permuted(cls, shape: tuple[int, ...], axes: tuple[int, ...]) -> Layout:
        """That of a tensor `shape` of torch whose axes the program has in this order."""
        index = np.arange(_size(shape)).reshape(shape).transpose(axes)
        return cls(index.shape, index.reshape(-1))

    @property
    def plain(self) -> bool:
        """Whether the program has the values in torch's order."""
        return bool(np.array_equal(self.order, np.arange(len(self.order))))

    def same(self, other: Layout) -> bool:
        """Whether both have all values in one order."""
        return np.array_equal(self.order, other.order)

    def shaped(self, *shape: int) -> Layout:
        """The same codes with other axes in the program."""
        return Layout(tuple(shape), self.order)

    def viewed(self, order: np.ndarray) -> Layout:
        """Of a tensor of torch whose value i is the value `order[i]` of this one."""
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return Layout(self.shape, inverse[self.order])

    def part(self, order: np.ndarray) -> tuple[int, int, int, Layout] | None:
        """Of a tensor of torch whose value i is the value `order[i]` of this one, some of whose values are left out:
        the width of the program's rows, the columns that are kept of every row, from and to, and their layout."""
        place = np.full(len(self.order), -1)
        place[order] = np.arange(len(order))
        kept = place[self.order]
        for width in (self.shape[-1], *(n for n in range(1, len(kept) + 1) if len(kept) % n == 0)):
            rows = kept.reshape(-1, width) >= 0
            columns = np.flatnonzero(rows[0])
            if (rows == rows[:1]).all() and len(columns) and columns[-1] - columns[0] + 1 == len(columns):
                lead = self.shape[:-1] if width == self.shape[-1] else () if len(rows) == 1 else (len(rows),)
                return width, int(columns[0]), int(columns[-1]) + 1, Layout((*lead, len(columns)), kept[kept >= 0])
        return None

    def repeated(self, shape: tuple[int, ...], whole: Layout, of: tuple[int, ...]) -> tuple | None:
        """How a sample of torch `shape`, some of whose axes have length 1, is brought to `whole`, the layout of a
        sample `of`: the image (h, w, c) that the program's codes are read as, and the factors by which its pixels are
        then repeated. None: another order would be needed."""
        index = np.array(np.unravel_index(whole.order, of))
        index[[k for k, (a, b) in enumerate(zip(shape, of, strict=True)) if a != b]] = 0
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        wanted = place[np.ravel_multi_index(tuple(index), shape)]
        run = _until(wanted != wanted[0])  # times that the first code comes at once
        block = _until(wanted[run::run] == wanted[0]) + 1  # codes until it comes again
        if run == 1:
            image = 1, len(place) // block, block
        else:
            image = len(place) // block, block, 1
        if not len(place) or np.prod(image) != len(place):
            return None
        times = _until((wanted[:: block * run] != wanted[0])[1:]) + 1  # times that such a block comes at once
        factors = (1, times) if run == 1 else (times, run)
        codes = np.arange(len(place)).reshape(image)
        found = codes.repeat(factors[0], 0).repeat(factors[1], 1).reshape(-1)
        return (image, factors) if np.array_equal(found, wanted) else None

    def phases(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Of a sample `[C, H, W]` of torch: the factors (fy, fx) with which the program has its pixels as
        `[H / fy, W / fx, fy, fx]`, each with all channels. None: it has them in raster order, or in another."""
        found = self.channels(shape, 0) if len(shape) == 3 else None
        if found is None or np.array_equal(found[1], np.arange(len(found[1]))):
            return None
        high, wide = shape[1:]
        raster = np.arange(high * wide).reshape(high, wide)
        for down in (n for n in range(1, high + 1) if high % n == 0):
            for across in (n for n in range(1, wide + 1) if wide % n == 0):
                parts = raster.reshape(high // down, down, wide // across, across).transpose(0, 2, 1, 3)
                if np.array_equal(parts.reshape(-1), found[1]):
                    return down, across
        return None

    def transposed(self, rows: int) -> Layout:
        """Of the transpose of the program's tensor `[rows, columns]`."""
        index = self.order.reshape(rows, -1).T
        return Layout(index.shape, index.reshape(-1))

    def channels(self, shape: tuple[int, ...], axis: int) -> tuple[np.ndarray, np.ndarray] | None:
        """How `axis` of torch's sample `shape` lies innermost: which index each channel of the program is, and which of
        the remaining places (flat, in torch's order of the other axes) each of its rows is. None: it does not."""
        count = shape[axis]
        place = np.array(np.unravel_index(self.order, shape)).reshape(len(shape), -1, count)
        channel, others = place[axis], np.delete(place, axis, 0)
        if (channel != channel[:1]).any() or (others != others[:, :, :1]).any():
            return None
        sizes = tuple(np.delete(shape, axis))
        rows = np.ravel_multi_index(tuple(others[:, :, 0]), sizes) if sizes else np.zeros(1, np.int64)
        return channel[0], rows

    @classmethod
    def joined(
        cls, shape: tuple[int, ...], axis: int, channel: np.ndarray, rows: np.ndarray, program: tuple[int, ...]
    ) -> Layout:
        """The layout whose `channels` are these, of torch's sample `shape`."""
        sizes = tuple(np.delete(shape, axis))
        others = np.unravel_index(rows, sizes) if sizes else ()
        index = [np.broadcast_to(o[:, None], (len(rows), len(channel))) for o in others]
        index.insert(axis, np.broadcast_to(channel[None, :], (len(rows), len(channel))))
        return cls(program, np.ravel_multi_index(tuple(index), shape).reshape(-1))

    def reduced(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int, np.ndarray] | None:
        """How axes of torch's sample lie together: sizes (outside, they, inside), and the order of what remains."""
        place = np.array(np.unravel_index(self.order, shape))
        kept = [axis for axis in range(len(shape)) if axis not in axes]
        rest = (
            np.ravel_multi_index(tuple(place[kept]), [shape[k] for k in kept])
            if kept
            else np.zeros(place.shape[1], int)
        )
        count = _size([shape[axis] for axis in axes])
        remaining = len(rest) // count
        for inside in (n for n in range(remaining, 0, -1) if remaining % n == 0):
            parts = rest.reshape(-1, count, inside)
            if (parts == parts[:, :1]).all():
                return parts.shape[0], count, inside, parts[:, 0].reshape(-1)
        return None


def _until(found: np.ndarray) -> int:
    """How many come before the first that is found."""
    return int(found.argmax()) if found.any() else len(found)


def _size(shape: tuple[int, ...] | list[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))
