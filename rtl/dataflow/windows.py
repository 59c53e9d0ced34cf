"""When a window stage may begin each window, and what it may forget after it: plain arithmetic on places of beats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.rtl.dataflow.folding import divisors
from bittrue.rtl.dataflow.recurrence import Recurrence
from bittrue.rtl.dataflow.timing import Phase, Phases
from bittrue.sim.operations.window import Window


def lane_choices(operation: Window) -> list[int]:
    """Codes that a beat may have: some channels of a tap, a tap, a part of a row of taps, whole rows of them."""
    rows, columns = operation.kernel
    taps = sorted({*divisors(columns), *(columns * n for n in divisors(rows))})
    channels = operation.input.channels
    return [*divisors(channels)[:-1], *(channels * n for n in taps)]


@dataclass(frozen=True, eq=False)
class Order:
    """The windows of a frame in order, with `lanes` codes a beat of what comes out.

    A pixel is C / lanes beats, or lanes / C taps are a beat (`lane_choices`), and then what comes in is a pixel a beat.

    The input is kept in a ring of `room` words, a power of two. It holds what a window sees, from the first pixel that
    this or a later one needs to the last, and what comes while windows are given out.

    narrow  codes of a beat that comes in, where those are parts of a word, a power of two of them
    repeat  how often each window is given out, before the next
    """

    operation: Window
    lanes: int
    narrow: int | None = None
    repeat: int = 1

    @property
    def lanes_in(self) -> int:
        """Codes of a word: of a tap, those of a beat that goes out."""
        return min(self.lanes, self.operation.input.channels)

    @property
    def supplied(self) -> int:
        """Codes of a beat that comes in."""
        return self.narrow or self.lanes_in

    @property
    def parts(self) -> int:
        """Beats of a word."""
        return self.lanes_in // self.supplied

    @property
    def most(self) -> int:
        """Beats that the ring holds."""
        return self.room * self.parts

    @property
    def pixel(self) -> int:
        """Words of a pixel."""
        return self.operation.input.channels // self.lanes_in

    @property
    def brought(self) -> int:
        """Beats of a pixel that comes in."""
        return self.pixel * self.parts

    @property
    def taps(self) -> tuple[int, int]:
        """Rows and columns of taps that are a beat."""
        together, columns = self.lanes // self.lanes_in, self.operation.kernel[1]
        return max(1, together // columns), min(together, columns)

    @property
    def steps(self) -> tuple[int, int]:
        """Groups of taps of a window down and across."""
        (rows, columns), (down, across) = self.operation.kernel, self.taps
        return rows // down, columns // across

    @property
    def offsets(self) -> list[int]:
        """How far behind the first tap of a beat each of them lies, in words."""
        (dy, dx), (down, across) = self.operation.dilation, self.taps
        width = self.operation.input.shape[1]
        return [(i * dy * width + j * dx) * self.pixel for i in range(down) for j in range(across)]

    @property
    def beats(self) -> int:
        """Beats of a window."""
        return self.operation.taps * self.operation.input.channels // self.lanes

    @property
    def supply(self) -> int:
        """Beats of a frame that comes in."""
        return self.operation.input.size // self.supplied

    @property
    def interval(self) -> int:
        """Cycles between frames, when the ring has room enough."""
        return max(self.supply, int(np.prod(self.operation.windows)) * self.beats * self.repeat)

    @cached_property
    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last pixel of the image that each window sees, `[OH * OW]`."""
        op, ends = self.operation, []
        for axis in (0, 1):
            seen, places = op.seen(axis), op.places(axis)
            first = places[np.arange(len(places)), seen.argmax(1)]
            last = places[np.arange(len(places)), -1 - seen[:, ::-1].argmax(1)]
            ends.append((first, last))
        (top, bottom), (left, right) = ends
        width = op.input.shape[1]
        return (top[:, None] * width + left).reshape(-1), (bottom[:, None] * width + right).reshape(-1)

    @cached_property
    def needed(self) -> np.ndarray:
        """Beats of the frame that must have come before each window, ascending; before the last one all."""
        counts = np.maximum.accumulate((self._seen[1] + 1) * self.brought)
        counts[-1] = self.supply
        return counts

    @cached_property
    def freed(self) -> np.ndarray:
        """Beats of the frame that nobody needs after each window, ascending; after the last one all."""
        firsts = self._seen[0] * self.brought
        later = np.minimum.accumulate(firsts[::-1])[::-1]
        return np.minimum(np.append(later[1:], self.supply), self.needed)

    @cached_property
    def room(self) -> int:
        """Words of the ring: the least with which frames follow each other as fast as there is work or input.

        What a window sees has to fit, and what comes meanwhile, which the stage's own schedule tells. A stage that
        gives every window out again and again has as much work as those before and behind it: what comes to it then
        comes evenly, and has nothing to make up for a wait with.
        """
        most = int((self.needed - np.append(0, self.freed[:-1])).max())
        room = 1 << (-(-most // self.parts)).bit_length()
        while room * self.parts < most + self.supply and self._slow(room):
            room *= 2
        return room

    def _slow(self, room: int) -> bool:
        """Whether frames follow each other later than they might, where the ring has so much room."""
        alone = Phases(self.phases(), (room * self.parts,), credits=2)
        if self.repeat == 1 or alone.interval > self.interval:
            return alone.interval > self.interval
        ends = np.arange(1, self.supply + 1) * self.interval // self.supply
        even = Phases(tuple(Phase(cycles=int(n)) for n in np.diff(ends, prepend=0)), (2,), credits=2)
        beats = int(np.prod(self.operation.windows)) * self.beats * self.repeat
        _, frames, _ = Recurrence([even, alone], [[~0], [0]], [self.supply], [(1, beats)]).run(4)
        return int(frames[0, -1] - frames[0, -2]) > self.interval

    def phases(self, cycles: int = 1, emits: int = 1) -> tuple[Phase, ...]:
        """What a window waits for before its first beat, and what it forgets after its last.

        cycles  that make one beat of what is given out
        emits   beats that are given out then, one behind the other
        """
        found: list[Phase] = []
        beats = self.beats * self.repeat // cycles
        for need, free in zip(np.diff(self.needed, prepend=0), np.diff(self.freed, prepend=0), strict=True):
            first, last = (int(need),), (int(free),)
            if beats == 1:
                found.append(Phase(first, last, cycles, emits))
                continue
            found.append(Phase(first, (0,), cycles, emits))
            if beats > 2:
                found.append(Phase((0,), (0,), cycles, emits, beats - 2))
            found.append(Phase((0,), last, cycles, emits))
        return tuple(found)

    def table(self, counts: np.ndarray, ahead: int = 0) -> np.ndarray:
        """How much a count grows with each window, `[OH, OW]`, or with the one so many `ahead`."""
        return np.roll(np.diff(counts, prepend=0), -ahead).reshape(self.operation.windows)

    @cached_property
    def jumps(self) -> tuple[int, ...]:
        """What is added to the place in the ring for the next word of a pixel, group of taps of a row, row of them,
        time that a window is given out, window of a row, row of windows, frame."""
        op, pixel = self.operation, self.pixel
        (height, width, _), (down, across) = op.input.shape, op.windows
        (rows, columns), (sy, sx) = self.steps, op.stride
        dy, dx = (spread * taps for spread, taps in zip(op.dilation, self.taps, strict=True))
        tap = dx * pixel - (pixel - 1)
        row = (dy * width - (columns - 1) * dx) * pixel - (pixel - 1)
        end = ((rows - 1) * dy * width + (columns - 1) * dx) * pixel + pixel - 1
        line = (sy * width - (across - 1) * sx) * pixel - end
        frame = (height * width - (down - 1) * sy * width - (across - 1) * sx) * pixel - end
        return tuple(jump % self.room for jump in (1, tap, row, -end, sx * pixel - end, line, frame))

    @property
    def origin(self) -> int:
        """The place in the ring of the first word, which may be one that is not read."""
        op = self.operation
        return -(op.padding[0] * op.input.shape[1] + op.padding[2]) * self.pixel % self.room
