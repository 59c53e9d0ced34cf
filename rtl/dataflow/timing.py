"""When a stage reads, works and gives out, as phases: all the planner, the schedule and the tests know about it.

A stage goes through a list of phases, again and again. A phase waits until so many more beats of every operand have
come, works some cycles, may issue one output beat in its last cycle, and forgets input beats at its end. So a stage
states for every output beat how many input beats must have come (`needed`) and how many may be forgotten after it
(`freed`). Two kinds of stage differ in where their input waits:

*direct*    nowhere (room 0): a phase takes its beats in the very cycle in which it works, all operands at once
*buffered*  in a memory with room for so many beats of each operand, which fills while earlier phases work

`Blocks` writes down the phases of the stages that turn blocks of input into blocks of output; `Phases` is any list:
a window of rows that slides, a concatenation, an upsampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.rtl.dataflow import beats, recurrence

#: Room that never fills.
UNLIMITED = beats.UNLIMITED


@dataclass(frozen=True)
class Phase:
    """A piece of a stage's work, done `times` times in a row.

    needed  by operand: further input beats that must have come before the work begins
    freed   by operand: input beats that are forgotten at its end
    cycles  that the work takes, at least 1
    emits   output beats that are issued in the last cycle (which then waits for as many credits), one behind the other
    told    whether the cycles depend on the data; `cycles` is the most
    """

    needed: tuple[int, ...] = (1,)
    freed: tuple[int, ...] = (1,)
    cycles: int = 1
    emits: int = 1
    times: int = 1
    told: bool = False


class Timing:
    """How a stage moves beats.

    phases    of a round, which is repeated for ever
    operands  how many it has
    rooms     by operand: input beats it can hold; 0 for direct stages
    depth     cycles from the issue of a beat to its being offered at the output
    credits   entries of the output FIFO
    frame     rounds of a frame
    period    cycles between rounds in steady state, unstalled; the most there can be, when it depends on the data
    latency   cycles from the first input beat to the first output beat, input always valid (the most there can be)
    interval  cycles between frames in steady state, unstalled
    """

    phases: tuple[Phase, ...]
    rooms: tuple[int, ...]
    depth: int
    credits: int
    frame: int
    period: int
    latency: int
    operands: int

    @property
    def interval(self) -> int:
        return self.frame * self.period

    @property
    def supply(self) -> tuple[int, ...]:
        """By operand: the input beats of a frame."""
        return tuple(self.frame * sum(p.times * p.needed[k] for p in self.phases) for k in range(self.operands))

    @property
    def direct(self) -> bool:
        """Whether input beats are taken in the cycle in which they are worked on."""
        return not any(self.rooms)

    @property
    def dynamic(self) -> bool:
        """Whether the cycles depend on the data."""
        return any(phase.told for phase in self.phases)

    @property
    def at_once(self) -> int:
        """Most output beats that are issued in a cycle."""
        return max(phase.emits for phase in self.phases)

    def told(self, work: np.ndarray) -> np.ndarray:
        """The cycles of every phase that is told them, in order, from what the stage's `work` counted."""
        return work


@dataclass(frozen=True)
class Blocks(Timing):
    """Blocks of input beats become blocks of output beats.

    beats_in   input beats of a block (of every operand)
    beats_out  output beats of a block (of the last of `gather` blocks)
    steps      cycles spent on each output beat (buffered stages)
    each       output beats that are given out in place of each, one behind the other; at most `steps`
    blocks     input blocks held; 0 for a direct stage, which issues during the last `beats_out` of `beats_in` beats
    gather     input blocks that make one block of output
    work       most cycles spent on a block, when that depends on the data; 0: always beats_out * steps
    operands   operands read in step
    frame      blocks of a frame
    """

    beats_in: int = 1
    beats_out: int = 1
    steps: int = 1
    blocks: int = 0
    depth: int = 1
    credits: int = 2
    frame: int = 1
    gather: int = 1
    work: int = 0
    operands: int = 1
    each: int = 1

    @cached_property
    def rooms(self) -> tuple[int, ...]:
        return (self.blocks * self.beats_in,) * self.operands

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        one, none, every = ((n,) * self.operands for n in (1, 0, self.beats_in))
        if not self.blocks:
            silent = self.beats_in - self.beats_out
            return _some(Phase(one, one, emits=0, times=silent), Phase(one, one, times=self.beats_out))
        work, told = self.work or self.beats_out * self.steps, bool(self.work)
        first = work - (self.beats_out - 1) * self.steps
        early = Phase(every, every, work, emits=0, times=self.gather - 1, told=told)
        if self.beats_out == 1:
            return _some(early, Phase(every, every, first, self.each, told=told))
        middle = Phase(none, none, self.steps, self.each, times=self.beats_out - 2)
        last = Phase(none, every, self.steps, self.each)
        return _some(early, Phase(every, none, first, self.each, told=told), middle, last)

    def told(self, work: np.ndarray) -> np.ndarray:
        """What is told is the cycles of blocks; the last of `gather` spends `steps` on every beat after its first."""
        cycles = np.array(work, np.int64).reshape(-1)
        cycles[self.gather - 1 :: self.gather] -= (self.beats_out - 1) * self.steps
        return cycles

    @cached_property
    def period(self) -> int:
        """Cycles between blocks of input."""
        return max(self.beats_in, self.work or self.beats_out * self.steps)

    @cached_property
    def latency(self) -> int:
        if self.blocks:
            before_output = max(0, self.work - self.beats_out * self.steps)
            return (self.gather - 1) * self.period + self.beats_in + before_output + self.steps - 1 + self.depth
        return self.beats_in - self.beats_out + self.depth


@dataclass(frozen=True)
class Phases(Timing):
    """Any list of phases; period and latency are what the schedule of this stage alone shows."""

    phases: tuple[Phase, ...]
    rooms: tuple[int, ...]
    depth: int = 1
    credits: int = 2
    frame: int = 1

    @property
    def operands(self) -> int:
        return len(self.rooms)

    @cached_property
    def _alone(self) -> tuple[int, int]:
        beats = sum(phase.times * phase.emits for phase in self.phases)
        inputs = [count // self.frame for count in self.supply]
        reads = [~k for k in range(self.operands)]
        first, ends, _ = recurrence.Recurrence([self], [reads], inputs, [(0, beats)]).run(6)
        return int(ends[0, -1] - ends[0, -2]), int(first[0])

    @cached_property
    def period(self) -> int:
        return self._alone[0]

    @cached_property
    def latency(self) -> int:
        return self._alone[1]


def _some(*phases: Phase) -> tuple[Phase, ...]:
    return tuple(phase for phase in phases if phase.times)


def enough_credits(depth: int, spacing: int = 1, each: int = 1) -> int:
    """The smallest output FIFO that never makes a stage wait when its reader is ready.

    A credit taken at issue comes back one cycle after its beat left, `depth` + 1 cycles later, that of the last of
    `each` beats `each` - 1 cycles after that.
    """
    return each * (-(-(depth + each) // spacing) + (spacing > 1))
