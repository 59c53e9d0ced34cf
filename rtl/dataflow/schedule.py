"""The handshake of a whole pipeline, cycle by cycle, without its data: exact latency, interval and occupancy.

Each stage is its `Timing`; each edge names who reads whom. One cycle here is one cycle of the hardware, so that the
planner sizes FIFOs and states latencies in milliseconds instead of simulating RTL, and the tests hold the RTL to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from bittrue.rtl.dataflow.stage import Timing

#: Cycles after which a schedule is given up.
LIMIT = 1 << 28
_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Flow:
    """What the schedule of a few frames showed; cycles count from the first input beat.

    latency     cycle of the first output beat
    interval    cycles between the ends of the last two frames; None when the pipeline deadlocks
    ends        cycle of the last beat of every frame
    busiest     largest number of blocks each stage held at once (the FIFO's occupancy)
    """

    latency: int | None
    interval: int | None
    ends: np.ndarray
    busiest: np.ndarray


@njit(cache=True)
def _run(timing, reads, branch, takers, readers, out, out_branch, out_beats, frames, limit, goal, work, work_at):
    count = timing.shape[0]
    beats_in, beats_out, steps = timing[:, 0], timing[:, 1], timing[:, 2]
    blocks, depth, credits = timing[:, 3], timing[:, 4], timing[:, 5]
    gather, block, turn = timing[:, 6], np.zeros(count, np.int64), np.zeros(count, np.int64)
    total = timing[:, 7].copy()  # cycles that the block at hand takes
    for n in range(count):
        if work_at[n] >= 0:
            total[n] = work[work_at[n]]
    most = credits.max()
    ring = np.zeros((count, most), np.int64)  # when each beat in flight is offered
    head, flying = np.zeros(count, np.int64), np.zeros(count, np.int64)
    free = credits.copy()
    done = np.zeros((count, 8), np.bool_)
    fill, held = np.zeros(count, np.int64), np.zeros(count, np.int64)
    step, word = np.zeros(count, np.int64), np.zeros(count, np.int64)
    busiest = np.zeros(count, np.int64)
    take = np.zeros(count, np.bool_)
    ends = np.zeros(frames, np.int64)
    got, first, since = 0, -1, 0
    for now in range(limit):
        offered_last = flying[out] > 0 and ring[out, head[out]] <= now and not done[out, out_branch]
        # Who takes a beat in this cycle: every operand offered, and room or a credit.
        for n in range(count):
            room = held[n] < blocks[n] if blocks[n] > 0 else free[n] > 0
            for k in range(2):
                p = reads[n, k]
                if p >= 0:
                    offered = flying[p] > 0 and ring[p, head[p]] <= now
                    room = room and offered and not done[p, branch[n, k]]
            take[n] = room
        # Who passes its beat on: every reader has it, or takes it now.
        moved = False
        for p in range(count):
            pop = False
            if flying[p] > 0 and ring[p, head[p]] <= now:
                pop = True
                for r in range(readers[p]):
                    n = takers[p, r]
                    if n < 0 or take[n]:
                        done[p, r] = True
                    pop = pop and done[p, r]
                if pop:
                    for r in range(readers[p]):
                        done[p, r] = False
                    head[p] = (head[p] + 1) % credits[p]
                    flying[p] -= 1
                    moved = True
            # The stage's own work, with the credits it had at the start of the cycle.
            issue = False
            if blocks[p] > 0:
                output = turn[p] == gather[p] - 1 and word[p] >= total[p] - beats_out[p] * steps[p]
                final = output and step[p] == steps[p] - 1
                if held[p] > 0 and (free[p] > 0 or not final):
                    moved = True
                    issue = final
                    if output:
                        step[p] = 0 if final else step[p] + 1
                    word[p] += 1
                    if word[p] == total[p]:
                        word[p] = 0
                        held[p] -= 1
                        block[p] += 1
                        turn[p] = 0 if turn[p] == gather[p] - 1 else turn[p] + 1
                        if work_at[p] >= 0:
                            at = work_at[p] + block[p]
                            total[p] = work[at] if at < work.size and block[p] < work_at[count + p] else timing[p, 7]
            elif take[p]:
                moved = True
                issue = fill[p] >= beats_in[p] - beats_out[p]
                fill[p] = 0 if fill[p] == beats_in[p] - 1 else fill[p] + 1
            if blocks[p] > 0 and take[p]:
                moved = True
                fill[p] += 1
                if fill[p] == beats_in[p]:
                    fill[p] = 0
                    held[p] += 1
                    busiest[p] = max(busiest[p], held[p])
            if pop:
                free[p] += 1
            if issue:
                # Counted after `pop`, so the ring never holds more than the credits.
                free[p] -= 1
                ring[p, (head[p] + flying[p]) % credits[p]] = now + depth[p]
                flying[p] += 1
        if offered_last:
            if first < 0:
                first = now
            got += 1
            if got % out_beats == 0:
                ends[got // out_beats - 1] = now
                missed = goal.size > 0 and goal[got // out_beats - 1] != now
                if got == frames * out_beats or missed:
                    return first, got, ends, busiest
        since = 0 if moved else since + 1
        if since > 4 * depth.max() + 16:
            break
    return first, got, ends, busiest


def simulate(
    stages: list[Timing],
    reads: list[tuple[tuple[int, int], ...]],
    output: tuple[int, int],
    out_beats: int,
    frames: int,
    goal: np.ndarray | None = None,
    work: Mapping[int, np.ndarray] | None = None,
) -> Flow:
    """Run `frames` frames through the stages, the inputs always valid and the output always ready.

    `reads[n]` lists (stage, branch) of each operand of stage n; an empty tuple reads a program input. `output` is the
    stage and branch that feed the program's output, `out_beats` its beats per frame. With a `goal` (the ends of every
    frame) the run stops at the first frame that ends in another cycle. `work` gives the cycles of every block, in
    order, of stages for which they depend on the data; by default each takes the most.
    """
    timing = np.array(
        [
            (t.beats_in, t.beats_out, t.steps, t.blocks, t.depth, t.credits, t.gather, t.work or t.beats_out * t.steps)
            for t in stages
        ],
        np.int64,
    )
    told = [np.asarray(v, np.int64).reshape(-1) for v in (work or {}).values()]
    work_at = np.full(2 * len(stages), -1, np.int64)  # where each stage's blocks begin, and then how many there are
    place = 0
    for n, cycles in zip(work or {}, told, strict=True):
        work_at[n], work_at[len(stages) + n] = place, len(cycles)
        place += len(cycles)
    source = np.full((len(stages), 2), -1, np.int64)
    branch = np.zeros((len(stages), 2), np.int64)
    takers = np.full((len(stages), 8), -1, np.int64)  # who takes each branch; -1 is the program's output
    readers = np.zeros(len(stages), np.int64)
    readers[output[0]] = output[1] + 1
    for n, operands in enumerate(reads):
        for k, (stage, index) in enumerate(operands):
            source[n, k], branch[n, k], takers[stage, index] = stage, index, n
            readers[stage] = max(readers[stage], index + 1)
    first, got, ends, busiest = _run(
        timing,
        source,
        branch,
        takers,
        readers,
        *output,
        out_beats,
        frames,
        LIMIT,
        _NOTHING if goal is None else goal,
        np.concatenate(told) if told else _NOTHING,
        work_at,
    )
    complete = got == frames * out_beats
    return Flow(
        latency=None if first < 0 else int(first),
        interval=int(ends[-1] - ends[-2]) if complete and frames > 1 else None,
        ends=ends,
        busiest=busiest,
    )
