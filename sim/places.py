"""Where the codes of a boot go, as a word a sample: what a link's places are by arithmetic.

Samples whose codes go to the same held inputs, one behind the other, are a section: the kernels of a layer. In one,
code t of sample s goes to the flat entry

    base + (word[s] // inner) outer + (word[s] mod inner) within + step[t]

Where the samples are a permutation of kernels `f C + c`, the word is that number, `inner` is C, and it needs
ceil(log2) bits of their count. Where they are not, the word is the entry of the first code itself; and where the codes
of a sample lie apart by other steps than those of the next, every code has a place of its own.

(RTL has memories of rows and slots instead of flat entries, and another arithmetic: `rtl.boot.places`.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.system import Link, System


@dataclass(frozen=True, eq=False)
class Part:
    """The codes of a section that go to one held input.

    held     its number among the link's
    live     bool `[codes]`: which of a sample's codes these are
    words    int64 `[samples]`; None where there is no arithmetic, and then `places`, int64 `[samples, codes]`, -1:
             not there
    steps    int64 `[codes]`, 0 for those that are not live
    """

    held: int
    live: np.ndarray
    words: np.ndarray | None = None
    base: int = 0
    inner: int = 1
    outer: int = 1
    within: int = 0
    steps: np.ndarray | None = None
    listed: np.ndarray | None = None

    @property
    def places(self) -> np.ndarray:
        """The flat entry of the held input that each code goes to, int64 `[samples, codes]`; -1: not there."""
        if self.listed is not None:
            return self.listed
        origin = self.base + self.words // self.inner * self.outer + self.words % self.inner * self.within
        return np.where(self.live, origin[:, None] + self.steps, -1)

    @property
    def bits(self) -> int:
        """What is kept of all samples."""
        if self.words is None:
            return self.listed.size * max(1, int(self.listed.max() + 1).bit_length())  # type: ignore[union-attr]
        return len(self.words) * int(self.words.max()).bit_length()


@dataclass(frozen=True, eq=False)
class Section:
    """Samples `first` to `first + count`, and where their codes go: at most a part for each held input."""

    first: int
    count: int
    parts: tuple[Part, ...]

    @property
    def live(self) -> np.ndarray:
        """bool `[samples, codes]`: which codes go anywhere."""
        return np.any([part.places >= 0 for part in self.parts], axis=0)


def sections(system: System, link: Link) -> list[Section]:
    """The sections of a link with places, in order; together all of its samples."""
    assert link.places is not None
    ends = np.cumsum([part.size for part in system.held(link)])
    kinds = np.where(link.places < 0, -1, np.searchsorted(ends, link.places, side="right"))
    firsts = np.concatenate([[0], ends[:-1]])
    starts = [0, *(np.flatnonzero((kinds[1:] != kinds[:-1]).any(axis=1)) + 1).tolist(), len(kinds)]
    found = []
    for start, stop in zip(starts, starts[1:], strict=False):
        own, parts = link.places[start:stop], []
        for held in sorted({int(kind) for kind in kinds[start] if kind >= 0}):
            live = kinds[start] == held
            parts.append(_part(held, live, np.where(live, own - firsts[held], -1)))
        found.append(Section(start, stop - start, tuple(parts)))
    return found


def _part(held: int, live: np.ndarray, places: np.ndarray) -> Part:
    origin = places[:, int(live.argmax())]
    steps = np.where(live, places[0] - origin[0], 0)
    if not np.array_equal(np.where(live, origin[:, None] + steps, -1), places):
        return Part(held, live, listed=places)
    ordered = np.sort(origin)
    numbers = np.argsort(np.argsort(origin, kind="stable"), kind="stable")
    count, index = len(ordered), np.arange(len(ordered))
    for inner in range(1, count + 1):
        if count % inner:
            continue
        within = int(ordered[1] - ordered[0]) if inner > 1 else 0
        outer = int(ordered[inner] - ordered[0]) if inner < count else 0
        made = ordered[0] + index // inner * outer + index % inner * within
        if np.array_equal(made, ordered):
            return Part(held, live, numbers, int(ordered[0]), inner, outer, within, steps)
    return Part(held, live, origin, steps=steps)
