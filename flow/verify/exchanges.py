"""The sets of weights with which a verification holds back ends to the golden simulator."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from bittrue.flow.run.result import RtlRun
from bittrue.flow.run.sets import Write, met
from bittrue.rtl.bus.access import Access
from bittrue.rtl.design import Design
from bittrue.sim.held import Set
from bittrue.sim.program import Program


class Exchanges:
    """What is written in the course of a run: two sets, one of the program's own numbers in another order, so that
    its codes stay alive, and one drawn from the whole of the bounds.

    The first holds from a third of the frames on, the second from two thirds on; in RTL the frame waits for its set.
    """

    def __init__(self, program: Program, seed: int) -> None:
        self.program, self.seed = program, seed

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

    @staticmethod
    def _from(frames: int) -> tuple[int, int]:
        return frames // 3, (2 * frames) // 3
