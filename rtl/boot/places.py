"""Where the codes of a boot go: a word for every sample, and the arithmetic from it to table, row and slot.

Samples whose codes go to the same tables, one behind the other, are a section: the kernels of a layer. In one, code t
of sample s goes to

    row = R[s] + Q[t] + (A[s] + B[t] >= W)        slot = H[s] + (A[s] + B[t]) mod W

where W divides the slots: a row of weights is W inputs by slots / W outputs, and the codes of a kernel lie a step apart
in a filter's inputs, which may carry into the next row. So a word a sample is enough. Where the samples are a
permutation of the kernels `f C + c`, R, H and A are sums of a part for f and one for c, and what is kept is the packed
number (f, c) in the bits that it needs; the parts are wires where they are bits of it, else small tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bittrue.rtl.dataflow.folding import divisors
from bittrue.rtl.parts.held import Table
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held

#: Kernels up to which they have one number, and a table for it.
ALONE = 64


@dataclass(frozen=True, eq=False)
class Section:
    """Samples `first` and on, as many as there are `words`.

    tables  by code, the number of its table; -1: it goes nowhere
    words   int64 `[samples, fields]`, what is kept of each sample, each field of `bits`
    parts   for each field what its values add to R, H and A, int64 `[values, 3]`; None: the fields are these
    steps   by code Q and B, int64 `[codes, 2]`;  wrap  W
    """

    first: int
    tables: tuple[int, ...]
    words: np.ndarray
    bits: tuple[int, ...]
    parts: tuple[np.ndarray, ...] | None
    steps: np.ndarray
    wrap: int

    def __len__(self) -> int:
        return len(self.words)

    @property
    def places(self) -> np.ndarray:
        """Table, row and slot of every code, int64 `[samples, codes, 3]`; what the hardware works out."""
        if self.parts is None:
            origin = self.words
        else:
            origin = sum((part[field] for part, field in zip(self.parts, self.words.T, strict=True)), 0)
        low = origin[:, None, 2] + self.steps[None, :, 1]
        over = low >= self.wrap
        row = origin[:, None, 0] + self.steps[None, :, 0] + over
        slot = origin[:, None, 1] + low - self.wrap * over
        return np.stack(np.broadcast_arrays(np.array(self.tables)[None, :], row, slot), axis=-1)


def locate(tables: Sequence[Table], held: Sequence[Held], places: np.ndarray) -> np.ndarray:
    """Table, row and slot of every code of a boot, int64 `[samples, codes, 3]`; of what goes nowhere all are -1.

    tables  of the accelerator, in the order in which a set is written
    held    the held inputs that places count through, one behind the other
    """
    found = np.full((sum(part.size for part in held) + 1, 3), -1, np.int64)
    first = 0
    for part in held:
        seen = 0
        for number, table in enumerate(tables):
            if table.held.name != part.name:
                continue
            rows, slots = np.indices(table.index.shape).reshape(2, -1)
            entries = first + table.index.reshape(-1)
            if len(np.unique(entries)) < len(entries) or (found[entries] >= 0).any():
                raise BittrueError(
                    f"boot: {part.name!r} lies in several places of the accelerator, and a boot writes each once; "
                    "hold it in an operation that has it once, or make it constant"
                )
            found[entries] = np.stack([np.full(len(rows), number), rows, slots], axis=-1)
            seen += len(entries)
        if seen < part.size:
            raise BittrueError(f"boot: the accelerator has no memory for {part.name!r}; make it constant")
        first += part.size
    return found[places]


def sections(tables: Sequence[Table], places: np.ndarray, located: np.ndarray) -> list[Section]:
    """The sections of a boot.

    places   the link's, int64 `[samples, codes]`;  located  what `locate` makes of them
    """
    kinds = located[:, :, 0]
    starts = [0, *(np.flatnonzero((kinds[1:] != kinds[:-1]).any(axis=1)) + 1).tolist(), len(kinds)]
    found = []
    for start, stop in zip(starts, starts[1:], strict=False):
        found.append(_section(tables, places[start:stop], located[start:stop], start))
    return found


def _section(tables: Sequence[Table], places: np.ndarray, located: np.ndarray, first: int) -> Section:
    kinds = tuple(int(kind) for kind in located[0, :, 0])
    live = [code for code, kind in enumerate(kinds) if kind >= 0]
    if not live:
        return Section(first, kinds, np.zeros((len(places), 0), np.int64), (), (), np.zeros((len(kinds), 2), int), 1)
    slots = np.gcd.reduce([tables[kinds[code]].slots for code in live])
    for wrap in sorted(divisors(int(slots)), reverse=True):
        steps = _steps(located, live, wrap)
        if steps is not None:
            break
    else:
        raise BittrueError(
            f"boot: the codes of the samples from {first} on go to places that follow no pattern (those of a sample a "
            "step apart, the steps the same for all samples of a layer); order the places by kernels"
        )
    row, slot = located[:, live[0], 1], located[:, live[0], 2]
    origin = np.stack([row, slot - slot % wrap, slot % wrap], axis=-1)
    words, bits, parts = _packed(origin, places[:, live[0]])
    return Section(first, kinds, words, bits, parts, steps, wrap)


def _steps(located: np.ndarray, live: Sequence[int], wrap: int) -> np.ndarray | None:
    """Q and B of every code for a W, or None where there are none."""
    row, slot = located[:, :, 1], located[:, :, 2]
    steps = np.zeros((located.shape[1], 2), np.int64)
    origin = live[0]
    for code in live:
        if (slot[:, code] // wrap != slot[:, origin] // wrap).any():
            return None
        step = (slot[:, code] - slot[:, origin]) % wrap
        over = slot[:, origin] % wrap + step >= wrap
        move = row[:, code] - row[:, origin] - over
        if (step != step[0]).any() or (move != move[0]).any():
            return None
        steps[code] = move[0], step[0]
    return steps


def _packed(
    origin: np.ndarray, entries: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...], tuple[np.ndarray, ...] | None]:
    """What is kept of the samples of a section, its bits, and the parts of its fields.

    origin   R, H and A of every sample;  entries  where its first code goes, by which kernels are numbered
    """
    count = len(origin)
    number = np.empty(count, np.int64)
    number[np.argsort(entries, kind="stable")] = np.arange(count)
    kernels = np.empty_like(origin)
    kernels[number] = origin
    for inner in sorted(divisors(count), key=lambda n: (n + count // n, n)):
        grid = kernels.reshape(count // inner, inner, 3)
        outer, within = grid[:, 0], grid[0] - grid[0, 0]
        if inner + count // inner > count and count > ALONE:
            break
        if within.min() >= 0 and np.array_equal(grid, outer[:, None] + within[None]):
            words = np.stack(np.divmod(number, inner), axis=-1)
            return words, tuple((n - 1).bit_length() for n in (count // inner, inner)), (outer, within)
    return origin, tuple(int(most).bit_length() for most in origin.max(axis=0)), None
