"""The self-timed run of stages as a recurrence over beats, with maximum and plus: exact, and no loop over cycles.

Every beat has the times at which it is issued (I), offered (O), taken by each reader (T) and gone (P), and all of them
are maxima of earlier times plus constants. For beat j of a stage with depth d and c credits, read by readers r:

    O(j) = max(I(j) + d, P(j-1) + 1)                        in order, and behind the beat before
    P(j) = max over r of T_r(j)                             gone when every reader has it
    T(j) = max(O(j), T(j-1) + 1, R(j - room) + 1)           taken into a memory when beat j - room has been freed
    E    = max(E before + 1, T(needed) + 1) + cycles - 1    the end of a phase; its input must have come
    I(j) = max(E, P(j-c) + 1)                               and its beat needs a credit; R is I or E of the phase

A direct stage has no memory: its phase takes its beats in the cycle E. Every cycle of such dependences goes through a
beat further on, so that the solution is unique; stages are worked through in any order, each as far as what it depends
on is known. When no stage gets any further, the pipeline is deadlocked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from bittrue.rtl.dataflow.timing import Timing

#: Room that never fills.
UNLIMITED = 1 << 40
_NOTHING = np.zeros(0, np.int64)

# Columns of the table of stages: constants, then the state of the run.
_DEPTH, _CREDITS, _READERS, _RING, _MASK, _DIRECT, _FIRST_PHASE, _LAST_PHASE = range(8)
_PHASE, _DONE, _END, _ISSUED, _GONE, _SEEN, _LATEST, _LEFT, _TOLD, _TOLD_END = range(8, 18)
# Columns of the table of operands, likewise; a ring holds the times of beats taken, another those of beats freed.
_SOURCE, _ROOM = range(2)
_TAKEN, _NEEDED, _TAKE, _TAKES, _TAKES_MASK, _FREES, _FREES_MASK, _HEAD, _TAIL, _FREED = range(2, 12)
# Columns of the table of phases; the operands' `needed` and then their `freed` follow.
_CYCLES, _EMITS, _TIMES, _IS_TOLD, _COUNTS = range(5)
#: First size of those rings, which grow as needed.
_SMALL = 16


class Recurrence:
    """Stages as tables; `run` gives the times of their output.

    stages    the `Timing` of each
    reads     by stage: the stage that each operand reads, or ~k for input k
    inputs    beats of a frame of every input, which is always valid
    outputs   (stage, beats of a frame) of every output, which is always ready
    """

    def __init__(
        self,
        stages: Sequence[Timing],
        reads: Sequence[Sequence[int]],
        inputs: Sequence[int],
        outputs: Sequence[tuple[int, int]],
    ):
        self.stages = stages
        # Behind the stages come the outputs, and then the inputs, as stages that have issued all they will.
        count, first_input = len(stages), len(stages) + len(outputs)
        sources = [tuple(p if p >= 0 else first_input + ~p for p in r) for r in reads]
        sources += [(stage,) for stage, _ in outputs] + [()] * len(inputs)
        self.beats = np.array([beats for _, beats in outputs], np.int64)
        self.supply = np.array(inputs, np.int64)
        self.operand_at = np.cumsum([0, *map(len, sources)])
        self.operands = np.zeros((self.operand_at[-1], 12), np.int64)
        self.operands[:, _SOURCE] = [p for operands in sources for p in operands]
        self.operands[:, _ROOM] = [room for t in stages for room in t.rooms] + [0] * len(outputs)
        readers: list[list[int]] = [[] for _ in sources]
        for n, operands in enumerate(sources):
            for p in operands:
                readers[p].append(n)
        self.reader_at = np.cumsum([0, *map(len, readers)])
        self.readers = np.array([n for of in readers for n in of], np.int64)

        table = np.zeros((len(sources), 18), np.int64)
        phases: list[tuple[int, ...]] = []
        widest = max(map(len, sources))
        rings = 0
        for n, t in enumerate(stages):
            if t.operands != len(sources[n]):
                raise ValueError(f"stage {n} has {t.operands} operands and reads {len(sources[n])}")
            size = 1 << (t.credits - 1).bit_length()
            first = len(phases)
            blank = (0,) * (widest - t.operands)
            phases += [(p.cycles, p.emits, p.times, p.told, *p.needed, *blank, *p.freed, *blank) for p in t.phases]
            table[n, :8] = t.depth, t.credits, len(readers[n]), rings, size - 1, t.direct, first, len(phases) - 1
            rings += size
        for n in range(first_input, len(sources)):
            table[n, [_CREDITS, _READERS, _RING]] = 1, len(readers[n]), rings
            rings += 1
        table[:, _PHASE] = table[:, _FIRST_PHASE]
        table[:, [_END, _LATEST, _LEFT]] = -1
        self.count, self.table, self.rings, self.widest = count, table, rings, widest
        self.phases = np.array(phases, np.int64)

    def run(
        self, frames: int, goal: np.ndarray | None = None, told: Mapping[int, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """The cycle of the first beat and of the last beat of every frame, by output, and whether all came.

        With a `goal` (such ends) the run stops at the first frame that ends in another cycle. `told` gives the cycles
        of the phases that depend on the data, by stage; without, or after the last of them, each takes the most.
        """
        table, operands = self.table.copy(), self.operands.copy()
        operands[:, _TAKE] = -1
        table[len(table) - len(self.supply) :, _ISSUED] = frames * self.supply
        cycles = [np.asarray(v, np.int64).reshape(-1) for v in (told or {}).values()]
        place = 0
        for n, values in zip(told or {}, cycles, strict=True):
            table[n, _TOLD], table[n, _TOLD_END] = place, place + len(values)
            place += len(values)
        first = np.full(len(self.beats), -1, np.int64)
        ends = np.zeros((len(self.beats), frames), np.int64)
        complete = _run(
            self.count,
            table,
            self.operand_at,
            operands,
            self.reader_at,
            self.readers,
            self.phases,
            self.widest,
            self.rings,
            self.beats,
            np.zeros((len(self.beats), 0), np.int64) if goal is None else np.atleast_2d(goal),
            np.concatenate(cycles) if cycles else _NOTHING,
            first,
            ends,
        )
        return first, ends, complete


@njit(cache=True, inline="always")
def _offered(table, issues, p, j):
    """When beat j of stage p is offered to a reader that has had j beats, -1 while that is not known."""
    if table[p, _GONE] != j or table[p, _ISSUED] <= j:
        return -1
    return max(issues[table[p, _RING] + (j & table[p, _MASK])] + table[p, _DEPTH], table[p, _LEFT] + 1)


@njit(cache=True, inline="always")
def _credit(table, leaves, n):
    """The first cycle with a credit for the next beat of stage n, -1 while that is not known."""
    i, credits = table[n, _ISSUED], table[n, _CREDITS]
    if i < credits:
        return 0
    if table[n, _GONE] <= i - credits:
        return -1
    return leaves[table[n, _RING] + ((i - credits) & table[n, _MASK])] + 1


@njit(cache=True, inline="always")
def _wake(queue, queued, fill, n):
    """Enter a stage into the queue, once; `fill` is its head and length."""
    if not queued[n]:
        queued[n] = True
        queue[(fill[0] + fill[1]) % len(queue)] = n
        fill[1] += 1


@njit(cache=True, inline="always")
def _take(table, leaves, reader_at, readers, queue, queued, fill, p, now):
    """A reader takes the beat that stage p offers; after the last of its readers the next one may be known."""
    table[p, _LATEST] = max(table[p, _LATEST], now)
    table[p, _SEEN] += 1
    if table[p, _SEEN] == table[p, _READERS]:
        leaves[table[p, _RING] + (table[p, _GONE] & table[p, _MASK])] = table[p, _LATEST]
        table[p, _LEFT] = table[p, _LATEST]
        table[p, _LATEST] = -1
        table[p, _SEEN] = 0
        table[p, _GONE] += 1
        _wake(queue, queued, fill, p)
        if table[p, _ISSUED] > table[p, _GONE] and table[p, _READERS] > 1:
            for at in range(reader_at[p], reader_at[p + 1]):
                _wake(queue, queued, fill, readers[at])


@njit(cache=True, inline="always")
def _step(table, issues, phases, n, now):
    """The phase at hand of stage n ends now."""
    q = table[n, _PHASE]
    table[n, _END] = now
    if phases[q, _EMITS]:
        issues[table[n, _RING] + (table[n, _ISSUED] & table[n, _MASK])] = now
        table[n, _ISSUED] += 1
    if phases[q, _IS_TOLD]:
        table[n, _TOLD] += 1
    table[n, _DONE] += 1
    if table[n, _DONE] == phases[q, _TIMES]:
        table[n, _DONE] = 0
        table[n, _PHASE] = q + 1 if q < table[n, _LAST_PHASE] else table[n, _FIRST_PHASE]


@njit(cache=True)
def _direct(table, operands, begin, stop, phases, issues, leaves, reader_at, readers, queue, queued, fill, n):
    """All phases of a direct stage whose time is known."""
    while True:
        q, now = table[n, _PHASE], _credit(table, leaves, n)
        known = now >= 0
        now = max(now, table[n, _END] + 1)
        for o in range(begin, stop):
            if known and phases[q, _COUNTS + o - begin]:
                offered = _offered(table, issues, operands[o, _SOURCE], operands[o, _TAKEN])
                known = offered >= 0
                now = max(now, offered)
        if not known:
            return
        for o in range(begin, stop):
            if phases[q, _COUNTS + o - begin]:
                operands[o, _TAKEN] += 1
                _take(table, leaves, reader_at, readers, queue, queued, fill, operands[o, _SOURCE], now)
        _step(table, issues, phases, n, now)


@njit(cache=True)
def _larger(memory, used, start, size, low, high):
    """The memory with the ring at `start`, which holds places low..high-1, copied to `used` in twice the size."""
    if used + 2 * size > len(memory):
        grown = np.empty(2 * (used + 2 * size), np.int64)
        grown[:used] = memory[:used]
        memory = grown
    for i in range(low, high):
        memory[used + (i & (2 * size - 1))] = memory[start + (i & (size - 1))]
    return memory


@njit(cache=True)
def _fill(table, operands, o, issues, leaves, reader_at, readers, queue, queued, fill, takes, takes_used, frees, freed):
    """All beats of a buffered stage's operand whose taking is known; whether there were any, and the memory."""
    moved, p, room = False, operands[o, _SOURCE], operands[o, _ROOM]
    while True:
        i = operands[o, _TAKEN]
        now = _offered(table, issues, p, i)
        if now < 0:
            break
        if i >= room:
            mask, at, tail = operands[o, _FREES_MASK], operands[o, _HEAD], operands[o, _TAIL]
            while at < tail and freed[operands[o, _FREES] + (at & mask)] <= i - room:
                at += 1
            operands[o, _HEAD] = at
            if at == tail:
                break
            now = max(now, frees[operands[o, _FREES] + (at & mask)] + 1)
        now = max(now, operands[o, _TAKE] + 1)
        size = operands[o, _TAKES_MASK] + 1
        if i - operands[o, _NEEDED] == size:
            takes = _larger(takes, takes_used[0], operands[o, _TAKES], size, operands[o, _NEEDED], i)
            operands[o, _TAKES], operands[o, _TAKES_MASK] = takes_used[0], 2 * size - 1
            takes_used[0] += 2 * size
        takes[operands[o, _TAKES] + (i & operands[o, _TAKES_MASK])] = now
        operands[o, _TAKE] = now
        operands[o, _TAKEN] += 1
        _take(table, leaves, reader_at, readers, queue, queued, fill, p, now)
        moved = True
    return moved, takes


@njit(cache=True)
def _work(table, operands, begin, stop, phases, widest, told, issues, leaves, takes, frees, freed, frees_used, n):
    """All phases of a buffered stage whose time is known; whether there were any, and the memories."""
    moved = False
    while True:
        q, now = table[n, _PHASE], table[n, _END] + 1
        known = True
        for o in range(begin, stop):
            more = phases[q, _COUNTS + o - begin]
            if known and more:
                needed = operands[o, _NEEDED] + more
                known = operands[o, _TAKEN] >= needed
                if known:
                    now = max(now, takes[operands[o, _TAKES] + ((needed - 1) & operands[o, _TAKES_MASK])] + 1)
        if not known:
            return moved, frees, freed
        is_told = phases[q, _IS_TOLD] and table[n, _TOLD] < table[n, _TOLD_END]
        now += (told[table[n, _TOLD]] if is_told else phases[q, _CYCLES]) - 1
        if phases[q, _EMITS]:
            credit = _credit(table, leaves, n)
            if credit < 0:
                return moved, frees, freed
            now = max(now, credit)
        for o in range(begin, stop):
            operands[o, _NEEDED] += phases[q, _COUNTS + o - begin]
            count = phases[q, _COUNTS + widest + o - begin]
            if count and operands[o, _ROOM] < UNLIMITED:
                head, tail, size = operands[o, _HEAD], operands[o, _TAIL], operands[o, _FREES_MASK] + 1
                if tail - head == size:
                    used = frees_used[0]
                    frees = _larger(frees, used, operands[o, _FREES], size, head, tail)
                    freed = _larger(freed, used, operands[o, _FREES], size, head, tail)
                    operands[o, _FREES], operands[o, _FREES_MASK] = used, 2 * size - 1
                    frees_used[0] += 2 * size
                operands[o, _FREED] += count
                frees[operands[o, _FREES] + (tail & operands[o, _FREES_MASK])] = now
                freed[operands[o, _FREES] + (tail & operands[o, _FREES_MASK])] = operands[o, _FREED]
                operands[o, _TAIL] += 1
        _step(table, issues, phases, n, now)
        moved = True


@njit(cache=True)
def _run(count, table, operand_at, operands, reader_at, readers, phases, widest, rings, beats, goal, told, first, ends):
    total, frames = len(table), ends.shape[1]
    issues, leaves = np.zeros(rings, np.int64), np.empty(rings, np.int64)
    takes = np.empty(4 * _SMALL * len(operands), np.int64)
    frees, freed = np.empty_like(takes), np.empty_like(takes)
    takes_used = np.full(1, _SMALL * len(operands))
    frees_used = takes_used.copy()
    for o in range(len(operands)):
        operands[o, _TAKES] = operands[o, _FREES] = o * _SMALL
        operands[o, _TAKES_MASK] = operands[o, _FREES_MASK] = _SMALL - 1
    outputs = len(ends)
    got, running = np.zeros(outputs, np.int64), outputs
    queue, queued, fill = np.arange(total), np.ones(total, np.bool_), np.array([0, total])
    while fill[1]:
        n = queue[fill[0]]
        fill[0] = (fill[0] + 1) % total
        fill[1] -= 1
        queued[n] = False
        begin, stop = operand_at[n], operand_at[n + 1]
        if n < count:
            issued = table[n, _ISSUED]
            if table[n, _DIRECT]:
                _direct(
                    table, operands, begin, stop, phases, issues, leaves, reader_at, readers, queue, queued, fill, n
                )
            else:
                moved = True
                while moved:
                    moved = False
                    for o in range(begin, stop):
                        filled, takes = _fill(
                            table,
                            operands,
                            o,
                            issues,
                            leaves,
                            reader_at,
                            readers,
                            queue,
                            queued,
                            fill,
                            takes,
                            takes_used,
                            frees,
                            freed,
                        )
                        moved = moved or filled
                    worked, frees, freed = _work(
                        table,
                        operands,
                        begin,
                        stop,
                        phases,
                        widest,
                        told,
                        issues,
                        leaves,
                        takes,
                        frees,
                        freed,
                        frees_used,
                        n,
                    )
                    moved = moved or worked
            if table[n, _ISSUED] > issued:
                for at in range(reader_at[n], reader_at[n + 1]):
                    _wake(queue, queued, fill, readers[at])
            continue
        if n >= count + outputs:
            continue
        # An output, always ready.
        out, p = n - count, operands[begin, _SOURCE]
        while True:
            now = _offered(table, issues, p, operands[begin, _TAKEN])
            if now < 0:
                break
            operands[begin, _TAKEN] += 1
            _take(table, leaves, reader_at, readers, queue, queued, fill, p, now)
            if got[out] == frames * beats[out]:
                continue
            if got[out] == 0:
                first[out] = now
            got[out] += 1
            if got[out] % beats[out] == 0:
                frame = got[out] // beats[out] - 1
                ends[out, frame] = now
                if goal.shape[1] > 0 and goal[out, frame] != now:
                    return False
                if frame == frames - 1:
                    running -= 1
                    if running == 0:
                        return True
    return False
