"""Programs that belong together: the result of one is what another holds, as with a generator that writes weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Set
from bittrue.sim.program import Program


@dataclass(frozen=True)
class Link:
    """The result of the program `source` is written to the held input `held` of the program `target`."""

    source: str
    target: str
    held: str


@dataclass(frozen=True, eq=False)
class System:
    """Programs by name, and links between them. A program stands behind those that write to it.

    Every sample that a source works off writes its targets once. Held inputs without a link keep what they hold at
    first. It is built by no back end yet: `rtl` and `hls` build its programs one by one.
    """

    programs: Mapping[str, Program]
    links: Sequence[Link]

    def __post_init__(self) -> None:
        order = list(self.programs)
        taken: set[tuple[str, str]] = set()
        for link in self.links:
            for name in (link.source, link.target):
                if name not in self.programs:
                    raise BittrueError(f"system: no program is named {name!r}; it has {', '.join(order)}")
            if order.index(link.source) >= order.index(link.target):
                raise BittrueError(f"system: {link.source!r} writes to {link.target!r}, so it must stand before it")
            written = self.programs[link.target].written
            if link.held not in written:
                raise BittrueError(
                    f"system: {link.target!r} has no held input {link.held!r} to be written; "
                    f"it has {', '.join(written) or 'none'}"
                )
            if (link.target, link.held) in taken:
                raise BittrueError(f"system: {link.held!r} of {link.target!r} is written by two programs")
            taken.add((link.target, link.held))
            held, made = written[link.held], self.programs[link.source].output
            if made.shape != held.shape:
                raise BittrueError(
                    f"system: {link.source!r} makes {made}, but {link.held!r} of {link.target!r} has shape {held.shape}"
                )
            if made.format.low < held.low or made.format.high > held.high:
                raise BittrueError(
                    f"system: {link.source!r} makes codes {made.format.low}..{made.format.high}, but {link.held!r} of "
                    f"{link.target!r} takes {held.low}..{held.high}; widen its bounds"
                )

    def __call__(
        self, inputs: Mapping[str, Sequence[np.ndarray]], at: Mapping[str, Sequence[int]] | None = None
    ) -> dict[str, np.ndarray]:
        """Run every program on its batches and return what each makes, by name.

        inputs  by program, one batch `[n, *shape]` for each of its inputs
        at      by source, the samples of its targets (their index) from which on each of its results holds, ascending;
                without it a source has one sample, whose result holds from the first one on
        """
        at = at or {}
        if set(inputs) != set(self.programs):
            raise BittrueError(f"system: give inputs of {', '.join(self.programs)}; given were {', '.join(inputs)}")
        results: dict[str, np.ndarray] = {}
        for name, program in self.programs.items():
            held = self._sets(name, at, results)
            results[name] = program(*inputs[name], held=held)
        return results

    def _sets(
        self, target: str, at: Mapping[str, Sequence[int]], results: Mapping[str, np.ndarray]
    ) -> list[tuple[int, Set]] | None:
        """What a program holds, and from which sample on."""
        writes: dict[int, dict[str, np.ndarray]] = {}
        for link in self.links:
            if link.target != target:
                continue
            made, frames = results[link.source], list(at.get(link.source, (0,)))
            if len(made) != len(frames):
                raise BittrueError(
                    f"system: {link.source!r} made {len(made)} results for {len(frames)} places in the run of its "
                    "targets; say in `at` from which sample on each holds"
                )
            for frame, values in zip(frames, made, strict=True):
                writes.setdefault(frame, {})[link.held] = values
        current, sets = self.programs[target].initial, []
        for frame in sorted(writes):
            current = current | writes[frame]
            sets.append((frame, current))
        return sets or None
