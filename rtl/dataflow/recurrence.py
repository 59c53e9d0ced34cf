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

The compiled part counts no references and so cannot allocate: where a ring of times is full, it stops, the ring is made
larger, and it goes on from where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bittrue.sim.kernels.jit import jit

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
# What is to be visited: no stage before the first, and how many; and the operand whose ring is full, if one is.
_FIRST_DUE, _COUNT_DUE, _FULL_TAKES, _FULL_FREES = range(4)
# How the compiled part ends.
_DEADLOCK, _COMPLETE, _MISSED, _FULL = range(4)
#: First size of the rings of times taken and freed, which grow as needed.
_SMALL = 64


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
        self,
        frames: int,
        goal: np.ndarray | None = None,
        told: Mapping[int, np.ndarray] | None = None,
        early: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """The cycle of the first beat and of the last beat of every frame, by output, and whether all came.

        With a `goal` (such ends) the run stops at the first frame that ends in another cycle, or later if it may be
        `early`. `told` gives the cycles
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
        rings = _Rings(operands)
        total = len(table)
        due = np.array([0, total, -1, -1])
        first = np.full(len(self.beats), -1, np.int64)
        ends = np.zeros((len(self.beats), frames), np.int64)
        fixed = (self.count, table, self.operand_at, operands, self.reader_at, self.readers, self.phases, self.widest)
        state = (np.zeros(self.rings, np.int64), np.empty(self.rings, np.int64), due, np.ones(total, np.bool_))
        output = (
            self.beats,
            np.zeros((len(self.beats), 0), np.int64) if goal is None else np.atleast_2d(goal),
            early,
            np.concatenate(cycles) if cycles else _NOTHING,
            np.zeros(len(self.beats), np.int64),
            first,
            ends,
        )
        while (status := _run(*fixed, *state, *rings.memories, *output)) == _FULL:
            rings.grow(int(due[_FULL_TAKES]), int(due[_FULL_FREES]))
            due[[_FULL_TAKES, _FULL_FREES]] = -1
        return first, ends, status == _COMPLETE


class _Rings:
    """Memory for two rings an operand: when each of its beats was taken, and when how many had been freed."""

    def __init__(self, operands: np.ndarray):
        self.operands = operands
        starts = _SMALL * np.arange(len(operands))
        for start, mask in ((_TAKES, _TAKES_MASK), (_FREES, _FREES_MASK)):
            operands[:, start], operands[:, mask] = starts, _SMALL - 1
        self.takes, self.frees, self.freed = (np.empty(2 * _SMALL * len(operands), np.int64) for _ in range(3))
        self.used = [_SMALL * len(operands)] * 2

    @property
    def memories(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.takes, self.frees, self.freed

    def grow(self, takes: int, frees: int) -> None:
        """Four times the room for the beats that this operand took or freed, -1 for none."""
        if takes >= 0:
            o = self.operands[takes]
            (self.takes,) = self._larger((self.takes,), 0, o, _TAKES, _TAKES_MASK, o[_NEEDED], o[_TAKEN])
        if frees >= 0:
            o = self.operands[frees]
            memories = self.frees, self.freed
            self.frees, self.freed = self._larger(memories, 1, o, _FREES, _FREES_MASK, o[_HEAD], o[_TAIL])

    def _larger(self, memories, which: int, operand, start: int, mask: int, low: int, high: int) -> list[np.ndarray]:
        places, size = np.arange(low, high), 4 * (operand[mask] + 1)
        used, result = self.used[which], []
        for memory in memories:
            if used + size > len(memory):
                larger = np.empty(2 * (used + size), np.int64)
                larger[:used] = memory[:used]
            else:
                larger = memory
            larger[used + (places & (size - 1))] = memory[operand[start] + (places & operand[mask])]
            result.append(larger)
        operand[start], operand[mask] = used, size - 1
        self.used[which] += size
        return result


def _compiled(function):
    """Compiled without reference counts, which would take most of the time."""
    return jit(function, _nrt=False, error_model="numpy")


def _inlined(function):
    """The same, pasted into its callers: every array is seven arguments of a call."""
    return jit(function, _nrt=False, error_model="numpy", inline="always")


@_inlined
def _offered(table, issues, p, j):
    """When beat j of stage p is offered to a reader that has had j beats, -1 while that is not known."""
    if table[p, _GONE] != j or table[p, _ISSUED] <= j:
        return -1
    return max(issues[table[p, _RING] + (j & table[p, _MASK])] + table[p, _DEPTH], table[p, _LEFT] + 1)


@_inlined
def _wake(due, woken, n):
    """Something that stage n waits for may be known."""
    if not woken[n]:
        woken[n] = True
        due[_COUNT_DUE] += 1


@_inlined
def _take(table, leaves, reader_at, readers, due, woken, p, now):
    """A reader takes the beat that stage p offers; after the last of its readers the next one may be known."""
    table[p, _LATEST] = max(table[p, _LATEST], now)
    table[p, _SEEN] += 1
    if table[p, _SEEN] == table[p, _READERS]:
        leaves[table[p, _RING] + (table[p, _GONE] & table[p, _MASK])] = table[p, _LATEST]
        table[p, _LEFT] = table[p, _LATEST]
        table[p, _LATEST] = -1
        table[p, _SEEN] = 0
        table[p, _GONE] += 1
        _wake(due, woken, p)
        if table[p, _ISSUED] > table[p, _GONE] and table[p, _READERS] > 1:
            for at in range(reader_at[p], reader_at[p + 1]):
                _wake(due, woken, readers[at])


@_inlined
def _direct(table, operands, begin, stop, phases, issues, leaves, reader_at, readers, due, woken, n):
    """All phases of a direct stage whose time is known."""
    q, done, end, i = table[n, _PHASE], table[n, _DONE], table[n, _END], table[n, _ISSUED]
    gone, credits = table[n, _GONE], table[n, _CREDITS]  # which do not change during the visit
    ring, mask = table[n, _RING], table[n, _MASK]
    while i - gone < credits:
        now = max(end + 1, leaves[ring + ((i - credits) & mask)] + 1) if i >= credits else end + 1
        known = True
        for o in range(begin, stop):
            if phases[q, _COUNTS + o - begin]:
                offered = _offered(table, issues, operands[o, _SOURCE], operands[o, _TAKEN])
                now = max(now, offered)
                if offered < 0:
                    known = False
                    break
        if not known:
            break
        for o in range(begin, stop):
            if phases[q, _COUNTS + o - begin]:
                operands[o, _TAKEN] += 1
                _take(table, leaves, reader_at, readers, due, woken, operands[o, _SOURCE], now)
        end = now
        if phases[q, _EMITS]:
            issues[ring + (i & mask)] = now
            i += 1
        done += 1
        if done == phases[q, _TIMES]:
            done = 0
            q = q + 1 if q < table[n, _LAST_PHASE] else table[n, _FIRST_PHASE]
    table[n, _PHASE], table[n, _DONE], table[n, _END], table[n, _ISSUED] = q, done, end, i


@_inlined
def _fill(table, operands, o, issues, leaves, reader_at, readers, due, woken, takes, frees, freed):
    """All beats of a buffered stage's operand whose taking is known; whether there were any."""
    p, room, i, last = operands[o, _SOURCE], operands[o, _ROOM], operands[o, _TAKEN], operands[o, _TAKE]
    start, mask, most = operands[o, _TAKES], operands[o, _TAKES_MASK], operands[o, _NEEDED] + operands[o, _TAKES_MASK]
    first = i
    while True:
        now = _offered(table, issues, p, i)
        if now < 0:
            break
        if i >= room:
            at, tail, frees_mask = operands[o, _HEAD], operands[o, _TAIL], operands[o, _FREES_MASK]
            while at < tail and freed[operands[o, _FREES] + (at & frees_mask)] <= i - room:
                at += 1
            operands[o, _HEAD] = at
            if at == tail:
                break
            now = max(now, frees[operands[o, _FREES] + (at & frees_mask)] + 1)
        now = max(now, last + 1)
        if i > most:
            due[_FULL_TAKES] = o
            break
        takes[start + (i & mask)] = last = now
        i += 1
        _take(table, leaves, reader_at, readers, due, woken, p, now)
    operands[o, _TAKEN], operands[o, _TAKE] = i, last
    return i > first


@_inlined
def _work(table, operands, begin, stop, phases, widest, told, issues, leaves, due, takes, frees, freed, n):
    """All phases of a buffered stage whose time is known; whether there were any."""
    q, done, end, i = table[n, _PHASE], table[n, _DONE], table[n, _END], table[n, _ISSUED]
    gone, credits = table[n, _GONE], table[n, _CREDITS]  # which do not change during the visit
    ring, mask = table[n, _RING], table[n, _MASK]
    moved = False
    while True:
        now = end + 1
        known = True
        for o in range(begin, stop):
            more = phases[q, _COUNTS + o - begin]
            if more:
                needed = operands[o, _NEEDED] + more
                if operands[o, _TAKEN] < needed:
                    known = False
                    break
                now = max(now, takes[operands[o, _TAKES] + ((needed - 1) & operands[o, _TAKES_MASK])] + 1)
        if not known:
            break
        is_told = phases[q, _IS_TOLD] and table[n, _TOLD] < table[n, _TOLD_END]
        now += (told[table[n, _TOLD]] if is_told else phases[q, _CYCLES]) - 1
        if phases[q, _EMITS]:
            if i - gone >= credits:
                break
            if i >= credits:
                now = max(now, leaves[ring + ((i - credits) & mask)] + 1)
        for o in range(begin, stop):
            if phases[q, _COUNTS + widest + o - begin] and operands[o, _ROOM] < UNLIMITED:
                if operands[o, _TAIL] - operands[o, _HEAD] > operands[o, _FREES_MASK]:
                    due[_FULL_FREES] = o
        if due[_FULL_FREES] >= 0:
            break
        for o in range(begin, stop):
            operands[o, _NEEDED] += phases[q, _COUNTS + o - begin]
            count = phases[q, _COUNTS + widest + o - begin]
            if count and operands[o, _ROOM] < UNLIMITED:
                operands[o, _FREED] += count
                at = operands[o, _FREES] + (operands[o, _TAIL] & operands[o, _FREES_MASK])
                frees[at], freed[at] = now, operands[o, _FREED]
                operands[o, _TAIL] += 1
        end = now
        if phases[q, _EMITS]:
            issues[ring + (i & mask)] = now
            i += 1
        if phases[q, _IS_TOLD]:
            table[n, _TOLD] += 1
        done += 1
        if done == phases[q, _TIMES]:
            done = 0
            q = q + 1 if q < table[n, _LAST_PHASE] else table[n, _FIRST_PHASE]
        moved = True
    table[n, _PHASE], table[n, _DONE], table[n, _END], table[n, _ISSUED] = q, done, end, i
    return moved


@_compiled
def _run(
    count, table, operand_at, operands, reader_at, readers, phases, widest,  # fixed
    issues, leaves, due, woken,  # state
    takes, frees, freed,  # rings
    beats, goal, early, told, got, first, ends,  # output
):  # fmt: skip
    outputs, frames = ends.shape
    while due[_COUNT_DUE]:
        n = due[_FIRST_DUE]
        while not woken[n]:
            n = n + 1 if n + 1 < len(woken) else 0
        due[_FIRST_DUE] = n + 1 if n + 1 < len(woken) else 0
        due[_COUNT_DUE] -= 1
        woken[n] = False
        begin, stop = operand_at[n], operand_at[n + 1]
        if n < count:
            issued = table[n, _ISSUED]
            if table[n, _DIRECT]:
                _direct(table, operands, begin, stop, phases, issues, leaves, reader_at, readers, due, woken, n)
            else:
                moved = True
                while moved and due[_FULL_TAKES] < 0 and due[_FULL_FREES] < 0:
                    moved = False
                    for o in range(begin, stop):
                        if _fill(
                            table, operands, o, issues, leaves, reader_at, readers, due, woken, takes, frees, freed
                        ):
                            moved = True
                    if _work(
                        table,
                        operands,
                        begin,
                        stop,
                        phases,
                        widest,
                        told,
                        issues,
                        leaves,
                        due,
                        takes,
                        frees,
                        freed,
                        n,
                    ):
                        moved = True
            if table[n, _ISSUED] > issued:
                for at in range(reader_at[n], reader_at[n + 1]):
                    _wake(due, woken, readers[at])
            if due[_FULL_TAKES] >= 0 or due[_FULL_FREES] >= 0:
                _wake(due, woken, n)
                return _FULL
        elif n < count + outputs:
            # An output, always ready.
            out, p = n - count, operands[begin, _SOURCE]
            while True:
                now = _offered(table, issues, p, operands[begin, _TAKEN])
                if now < 0:
                    break
                operands[begin, _TAKEN] += 1
                _take(table, leaves, reader_at, readers, due, woken, p, now)
                if got[out] < frames * beats[out]:
                    if got[out] == 0:
                        first[out] = now
                    got[out] += 1
                    if got[out] % beats[out] == 0:
                        frame = got[out] // beats[out] - 1
                        ends[out, frame] = now
                        if goal.shape[1] > 0 and (now > goal[out, frame] or (now < goal[out, frame] and not early)):
                            return _MISSED
            missing = 0
            for k in range(outputs):
                missing += frames * beats[k] - got[k]
            if missing == 0:
                return _COMPLETE
    return _DEADLOCK
