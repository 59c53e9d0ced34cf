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

from bittrue.rtl.dataflow.beats import (
    COMPLETE,
    CREDITS,
    END,
    FIRST_PHASE,
    FREES,
    FREES_MASK,
    FULL,
    FULL_FREES,
    FULL_TAKES,
    HEAD,
    ISSUED,
    LATEST,
    LEFT,
    NEEDED,
    PHASE,
    READERS,
    RING,
    ROOM,
    SOURCE,
    TAIL,
    TAKE,
    TAKEN,
    TAKES,
    TAKES_MASK,
    TOLD,
    TOLD_END,
    run,
)

if TYPE_CHECKING:
    from bittrue.rtl.dataflow.timing import Timing

NOTHING = np.zeros(0, np.int64)
#: First size of the rings of times taken and freed, which grow as needed.
SMALL = 64


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
        for n, (t, read) in enumerate(zip(stages, reads, strict=True)):
            if t.operands != len(read):
                raise ValueError(f"stage {n} has {t.operands} operands and reads {len(read)}")
        # Behind the stages come the outputs, and then the inputs, as stages that have issued all they will.
        count, first_input = len(stages), len(stages) + len(outputs)
        sources = [tuple(p if p >= 0 else first_input + ~p for p in r) for r in reads]
        sources += [(stage,) for stage, _ in outputs] + [()] * len(inputs)
        self.beats = np.array([beats for _, beats in outputs], np.int64)
        self.supply = np.array(inputs, np.int64)
        self.operand_at = np.cumsum([0, *map(len, sources)])
        self.operands = np.zeros((self.operand_at[-1], 12), np.int64)
        self.operands[:, SOURCE] = [p for operands in sources for p in operands]
        self.operands[:, ROOM] = [room for t in stages for room in t.rooms] + [0] * len(outputs)
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
            if t.at_once > (1 if t.direct else t.credits):
                raise ValueError(f"stage {n} has no room for {t.at_once} beats at once")
            size = 1 << (t.credits - 1).bit_length()
            first = len(phases)
            blank = (0,) * (widest - t.operands)
            phases += [(p.cycles, p.emits, p.times, p.told, *p.needed, *blank, *p.freed, *blank) for p in t.phases]
            table[n, :8] = t.depth, t.credits, len(readers[n]), rings, size - 1, t.direct, first, len(phases) - 1
            rings += size
        for n in range(first_input, len(sources)):
            table[n, [CREDITS, READERS, RING]] = 1, len(readers[n]), rings
            rings += 1
        table[:, PHASE] = table[:, FIRST_PHASE]
        table[:, [END, LATEST, LEFT]] = -1
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
        operands[:, TAKE] = -1
        table[len(table) - len(self.supply) :, ISSUED] = frames * self.supply
        cycles = [np.asarray(v, np.int64).reshape(-1) for v in (told or {}).values()]
        place = 0
        for n, values in zip(told or {}, cycles, strict=True):
            table[n, TOLD], table[n, TOLD_END] = place, place + len(values)
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
            np.concatenate(cycles) if cycles else NOTHING,
            np.zeros(len(self.beats), np.int64),
            first,
            ends,
        )
        while (status := run(*fixed, *state, *rings.memories, *output)) == FULL:
            rings.grow(int(due[FULL_TAKES]), int(due[FULL_FREES]))
            due[[FULL_TAKES, FULL_FREES]] = -1
        return first, ends, status == COMPLETE


class _Rings:
    """Memory for two rings an operand: when each of its beats was taken, and when how many had been freed."""

    def __init__(self, operands: np.ndarray):
        self.operands = operands
        starts = SMALL * np.arange(len(operands))
        for start, mask in ((TAKES, TAKES_MASK), (FREES, FREES_MASK)):
            operands[:, start], operands[:, mask] = starts, SMALL - 1
        self.takes, self.frees, self.freed = (np.empty(2 * SMALL * len(operands), np.int64) for _ in range(3))
        self.used = [SMALL * len(operands)] * 2

    @property
    def memories(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.takes, self.frees, self.freed

    def grow(self, takes: int, frees: int) -> None:
        """Four times the room for the beats that this operand took or freed, -1 for none."""
        if takes >= 0:
            o = self.operands[takes]
            (self.takes,) = self._larger((self.takes,), 0, o, TAKES, TAKES_MASK, o[NEEDED], o[TAKEN])
        if frees >= 0:
            o = self.operands[frees]
            memories = self.frees, self.freed
            self.frees, self.freed = self._larger(memories, 1, o, FREES, FREES_MASK, o[HEAD], o[TAIL])

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
