"""The handshake of a whole pipeline without its data: exact latency, interval and ends of frames.

Each stage is its `Timing`; each edge names who reads whom. A cycle here is a cycle of the hardware, so that the
planner sizes FIFOs and states latencies in milliseconds instead of simulating RTL, and the tests hold the RTL to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bittrue.rtl.dataflow.recurrence import Recurrence
from bittrue.rtl.dataflow.timing import Timing


@dataclass(frozen=True, eq=False)
class Flow:
    """What the schedule of a few frames showed; cycles count from the first input beat.

    first        int64 `[outputs]`, cycle of the first beat of every output, -1 where none came
    output_ends  int64 `[outputs, frames]`, cycle of the last beat of every frame on every output, 0 where it never came
    complete     whether all frames came: whether the pipeline does not deadlock
    size         frames of the last group, where they go in groups
    """

    first: np.ndarray
    output_ends: np.ndarray
    complete: bool
    size: int = 1

    @property
    def latency(self) -> int | None:
        """Cycle of the first beat of the output that begins last; None if one of them never begins."""
        return None if (self.first < 0).any() else int(self.first.max())

    @property
    def ends(self) -> np.ndarray:
        """Cycle in which every frame ends: when the last of its outputs has given its last beat."""
        return self.output_ends.max(axis=0)

    @property
    def interval(self) -> int | None:
        """Cycles between the ends of the last two frames on the slowest output; None when the pipeline deadlocks.
        Where frames go in groups, between those of the last two groups."""
        if not self.complete or self.output_ends.shape[1] <= self.size:
            return None
        return int((self.output_ends[:, -1] - self.output_ends[:, -1 - self.size]).max())

    @property
    def due(self) -> np.ndarray:
        """When every output has to end every frame, int64 `[outputs, frames]`: the first when it does, a later one when
        the frame ends. Outputs that come early may be ahead of this only until all stages are full."""
        due = np.broadcast_to(self.ends, self.output_ends.shape).copy()
        due[:, 0] = self.output_ends[:, 0]
        return due

    def keeps(self, other: Flow) -> bool:
        """Whether every frame ends in the same cycle, and every output begins and ends its first frame in the same."""
        return np.array_equal(self.first, other.first) and np.array_equal(self.due, other.due)


def simulate(
    stages: Sequence[Timing],
    reads: Sequence[Sequence[int]],
    inputs: Sequence[int],
    outputs: Sequence[tuple[int, int]],
    frames: int,
    goal: np.ndarray | None = None,
    work: Mapping[int, np.ndarray] | None = None,
    early: bool = False,
) -> Flow:
    """Run `frames` frames through the stages, the inputs always valid and the outputs always ready.

    `reads[n]` lists the stage that each operand of stage n reads, or ~k for program input k; `inputs` are the beats of
    a frame of these; `outputs` are, for every output, the stage that gives it and its beats of a frame. With a `goal`
    (`Flow.output_ends`) the run stops at the first frame that ends in another cycle on an output, or later if frames
    may be `early`. `work` gives the cycles of every piece of work, in order, of stages for which they depend on the
    data (see `Timing.told`); by default each takes the most.
    """
    told = {n: stages[n].told(cycles) for n, cycles in (work or {}).items()}
    return Flow(*Recurrence(stages, reads, inputs, outputs).run(frames, goal, told, early))
