"""The sets of weights with which a verification holds back ends to the golden simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from bittrue.flow.run.result import RtlRun
from bittrue.flow.run.sets import Write, met
from bittrue.rtl.bus.access import Access
from bittrue.rtl.design import Design
from bittrue.sim.groups import Grouping
from bittrue.sim.held import Set
from bittrue.sim.program import Program


class Exchanges:
    """What is written in the course of a run: two sets, one of the program's own numbers in another order, so that
    its codes stay alive, and one drawn from the whole of the bounds.

    The first holds from a third of the frames on, the second from two thirds on; in RTL the frame waits for its set.
    """

    #: Whether it is written over and over, so that all images run and not some.
    all_images = False
    #: Frames from which on a run meets everything that is written.
    fewest = 0

    def __init__(self, program: Program, seed: int) -> None:
        self.program, self.seed = program, seed

    @staticmethod
    def of(program: Program, seed: int) -> Exchanges:
        """Those that suit a program."""
        return Sizes(program, seed) if program.grouping is not None else Exchanges(program, seed)

    def __bool__(self) -> bool:
        return bool(self.program.written)

    @cached_property
    def contents(self) -> list[Set]:
        """The initial set and those that are written."""
        rng = np.random.default_rng(self.seed)
        mixed, drawn = {}, {}
        for name, held in self.program.written.items():
            mixed[name] = rng.permutation(held.initial.reshape(-1)).reshape(held.shape)  # type: ignore[union-attr]
            drawn[name] = rng.integers(held.low, held.high + 1, held.shape)
        return [self.program.initial, mixed, drawn]

    def held(self, frames: int) -> list[tuple[int, Set]]:
        """For simulators and kernels."""
        first, second = self._from(frames)
        return list({first: self.contents[1], second: self.contents[2]}.items())

    def writes(self, design: Design, frames: int) -> list[Write]:
        """For RTL with a stream of weights."""
        if design.weights is None:
            return []
        first, second = self._from(frames)
        words = [design.pack_set(values) for values in self.contents[1:]]
        return [Write(words[0], 0, first), Write(words[1], first, second)]

    def accesses(self, design: Design, frames: int) -> tuple[Access, ...]:
        """For RTL whose weights are written over AXI4-Lite: one set, half way."""
        if design.weights is not None or design.map is None:
            return ()
        return design.write_set(self.contents[-1], frames // 2, 1)

    def met(self, design: Design, run: RtlRun, start: int = 0, frames: int | None = None) -> list[tuple[int, Set]]:
        """What the frames of a run met, and from which one on.

        Of a `replay` it is told with which frame `start`, of how many `frames`, it began.
        """
        if design.weights is None:
            half = (len(run.results[0]) if frames is None else frames) // 2
            return list({0: self.contents[0], max(0, half - start): self.contents[-1]}.items())
        return met(self.contents, np.maximum(run.meets, 0))

    def replay(self, design: Design, run: RtlRun, start: int, frame: int) -> dict[str, Any]:
        """What is written so that the frames from `start` to `frame`, run alone, meet the sets that they met in a run.

        From frame 0 on it is what was written there; else the sets before are there when the first frame begins, and
        each of the others when its own does.
        """
        frames = len(run.results[0])
        if design.weights is None:
            if design.map is None or frame < frames // 2:
                return {}
            return {"accesses": design.write_set(self.contents[-1], max(0, frames // 2 - start), 1)}
        meets = np.maximum(run.meets[: frame + 1], 0)
        writes = self.writes(design, frames)[: int(meets.max())]
        if start:
            begins = [max(0, int((meets > k).argmax()) - start) for k in range(len(writes))]
            writes = [Write(w.words, at, at) for w, at in zip(writes, begins, strict=True)]
        return {"writes": writes}

    def number(self, held: list[tuple[int, Set]], frame: int, design: Design | None = None) -> int:
        """Which of the sets that are written in a run this frame met: 0 is the initial one."""
        values = [values for at, values in held if at <= frame][-1]
        known = self.contents if design is None or design.weights is not None else [self.contents[0], self.contents[-1]]
        return next(k for k, content in enumerate(known) if content is values)

    def starts(self, frame: int, run: RtlRun) -> tuple[int, ...]:  # noqa: ARG002
        """Where a run that shows what happened in a frame may begin, the latest first: there, or with a few before,
        that it may need."""
        return frame, max(0, frame - 3), 0

    def stop(self, frame: int, run: RtlRun) -> int:  # noqa: ARG002
        """Where such a run may end."""
        return frame + 1

    @staticmethod
    def _from(frames: int) -> tuple[int, int]:
        return frames // 3, (2 * frames) // 3


class Sizes(Exchanges):
    """How many images go in a group, drawn anew for every group: in RTL it is written once the group before has begun.

    The groups of a run are whole: the last ones are as small as what is left. The first ones have every size once, in
    an order that is drawn too, so that a short run meets all of them.
    """

    all_images = True

    def __bool__(self) -> bool:
        return self.grouping.held is not None

    @property
    def grouping(self) -> Grouping:
        assert self.program.grouping is not None
        return self.program.grouping

    @property
    def fewest(self) -> int:  # type: ignore[override]
        return sum(self.grouping.modes)

    def sizes(self, frames: int) -> list[int]:
        """n of every group, the first as it is at first, if there are so many frames."""
        if frames not in self._drawn:
            rng, sizes, left = np.random.default_rng(self.seed), [], frames
            modes, first = self.grouping.modes, self.grouping.size
            once = [first, *rng.permutation([n for n in modes if n != first]).tolist()][::-1]
            while left:
                wanted = once.pop() if once else int(rng.choice(modes))
                sizes.append(max(n for n in modes if n <= min(wanted, left)))
                left -= sizes[-1]
            self._drawn[frames] = sizes
        return self._drawn[frames]

    @cached_property
    def _drawn(self) -> dict[int, list[int]]:
        return {}

    def _set(self, n: int) -> Set:
        return {self.grouping.held.name: np.array(n)}  # type: ignore[union-attr]

    def _changes(self, frames: int) -> list[tuple[int, int, int]]:
        """Where n changes: first frame of the group before, of the group, and n."""
        found, at, before, now = [], 0, 0, self.grouping.size
        for n in self.sizes(frames):
            if n != now:
                found.append((before, at, n))
            before, at, now = at, at + n, n
        return found

    def held(self, frames: int) -> list[tuple[int, Set]]:
        return [(at, self._set(n)) for _, at, n in self._changes(frames)]

    def writes(self, design: Design, frames: int) -> list[Write]:
        if design.weights is None:
            return []
        return [Write(design.pack_set(self._set(n)), before + (at > 0), at) for before, at, n in self._changes(frames)]

    def accesses(self, design: Design, frames: int) -> tuple[Access, ...]:
        if design.weights is not None or design.map is None:
            return ()
        return tuple(
            one
            for k, (_, at, n) in enumerate(self._changes(frames))
            for one in design.write_set(self._set(n), at, k + 1)
        )

    def met(self, design: Design, run: RtlRun, start: int = 0, frames: int | None = None) -> list[tuple[int, Set]]:  # noqa: ARG002
        """As they were to be: a frame waits for its set, and each began a group."""
        frames = len(run.results[0]) if frames is None else frames
        changes = [(at - start, self._set(n)) for _, at, n in self._changes(frames)]
        before = [values for at, values in changes if at <= 0]
        now = before[-1] if before else self._set(self.grouping.size)
        return [(0, now), *((at, values) for at, values in changes if at > 0)]

    def replay(self, design: Design, run: RtlRun, start: int, frame: int) -> dict[str, Any]:
        frames = len(run.results[0])
        now = self.grouping.size
        writes, accesses = [], []
        for before, at, n in self._changes(frames):
            if at <= start:
                now = n
            elif at <= frame:
                writes.append((max(0, before - start) + 1, at - start, n))
        if now != self.grouping.size:
            writes.insert(0, (0, 0, now))
        if design.weights is not None:
            return {"writes": [Write(design.pack_set(self._set(n)), after, by) for after, by, n in writes]}
        for k, (_, at, n) in enumerate(writes):
            accesses += design.write_set(self._set(n), at, k + 1)
        return {"accesses": tuple(accesses)} if accesses else {}

    def starts(self, frame: int, run: RtlRun) -> tuple[int, ...]:
        """The first frame of its group, and of the one before."""
        firsts = np.cumsum([0, *self.sizes(len(run.results[0]))])
        k = int(np.searchsorted(firsts, frame, side="right")) - 1
        return int(firsts[k]), int(firsts[max(0, k - 1)]), 0

    def stop(self, frame: int, run: RtlRun) -> int:
        firsts = np.cumsum([0, *self.sizes(len(run.results[0]))])
        return int(firsts[int(np.searchsorted(firsts, frame, side="right"))])

    def number(self, held: list[tuple[int, Set]], frame: int, design: Design | None = None) -> int:  # noqa: ARG002
        """n of the frame's group."""
        return int([values for at, values in held if at <= frame][-1][self.grouping.held.name])  # type: ignore[union-attr]


class OneSize(Sizes):
    """All groups of one size, written before the first frame goes in."""

    fewest = 0

    def __init__(self, program: Program, size: int) -> None:
        super().__init__(program, 0)
        self.size = size

    def sizes(self, frames: int) -> list[int]:
        return [self.size] * (frames // self.size)


def unwritten(program: Program) -> Exchanges:
    """What stands for the sets of a run in which nothing is written."""
    return Exchanges(program, 0) if program.grouping is None else OneSize(program, program.grouping.size)


def whole(program: Program, frames: int, size: int | None = None) -> int:
    """So many frames, or the few more that complete the last group of this size; by default as groups are at first."""
    n = 1 if program.grouping is None else size or program.grouping.size
    return -(-frames // n) * n


def told(sizes: Sequence[int]) -> dict[str, Any]:
    """For a row, of the groups of a run: how many images they have, and how often that changes between them."""
    return {"together": sorted(set(sizes)), "changes": int(np.count_nonzero(np.diff(sizes)))}


def together(row: Mapping[str, Any]) -> str:
    """The same in words; nothing where images go by themselves."""
    if not row.get("together"):
        return ""
    sizes = ", ".join(map(str, row["together"]))
    return f"{sizes}: {row['changes']:,} changes, seed {row['seed']}" if row.get("changes") else sizes
