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


@dataclass(frozen=True)
class Flow:
    """What the schedule of a few frames showed; cycles count from the first input beat.

    latency     cycle of the first output beat
    interval    cycles between the ends of the last two frames; None when the pipeline deadlocks
    ends        cycle of the last beat of every frame
    """

    latency: int | None
    interval: int | None
    ends: np.ndarray


def simulate(
    stages: Sequence[Timing],
    reads: Sequence[Sequence[int]],
    inputs: Sequence[int],
    output: int,
    beats: int,
    frames: int,
    goal: np.ndarray | None = None,
    work: Mapping[int, np.ndarray] | None = None,
    early: bool = False,
) -> Flow:
    """Run `frames` frames through the stages, the inputs always valid and the output always ready.

    `reads[n]` lists the stage that each operand of stage n reads, or ~k for program input k; `inputs` are the beats of
    a frame of these. `output` is the stage that gives the program's output, `beats` its beats per frame. With a `goal`
    (the ends of every frame) the run stops at the first frame that ends in another cycle, or later if frames may be
    `early`. `work` gives the cycles of
    every piece of work, in order, of stages for which they depend on the data (see `Timing.told`); by default each
    takes the most.
    """
    told = {n: stages[n].told(cycles) for n, cycles in (work or {}).items()}
    first, ends, complete = Recurrence(stages, reads, inputs, [(output, beats)]).run(frames, goal, told, early)
    return Flow(
        latency=None if first[0] < 0 else int(first[0]),
        interval=int(ends[0, -1] - ends[0, -2]) if complete and frames > 1 else None,
        ends=ends[0],
    )
