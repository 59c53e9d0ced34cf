"""The handshake cycle by cycle, as slow and as plain as it gets: what the recurrence over beats is compared with.

`by_cycles` knows stages of any phases; `blocks_by_cycles` knows blocks alone and works in blocks, not in phases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bittrue.rtl.dataflow.timing import Blocks, Timing

#: Cycles without any movement, beyond every depth, after which a pipeline is deadlocked.
PATIENCE = 16


@dataclass(frozen=True)
class Cycles:
    """By output: cycle of the first beat (-1), of the end of every frame (0 where it never comes); whether all came."""

    first: list[int]
    ends: list[list[int]]
    complete: bool


class _Outputs:
    """Counts the beats of every output, which are always ready."""

    def __init__(self, outputs: Sequence[tuple[int, int]], frames: int):
        self.beats, self.frames = [beats for _, beats in outputs], frames
        self.got, self.first = [0] * len(outputs), [-1] * len(outputs)
        self.ends = [[0] * frames for _ in outputs]

    def beat(self, output: int, now: int) -> None:
        if self.got[output] >= self.frames * self.beats[output]:
            return
        self.first[output] = now if self.first[output] < 0 else self.first[output]
        self.got[output] += 1
        frame, rest = divmod(self.got[output], self.beats[output])
        if not rest:
            self.ends[output][frame - 1] = now

    @property
    def complete(self) -> bool:
        return all(got >= self.frames * beats for got, beats in zip(self.got, self.beats, strict=True))

    @property
    def cycles(self) -> Cycles:
        return Cycles(self.first, self.ends, self.complete)


@dataclass
class _State:
    """What a stage is at, at the start of a cycle."""

    timing: Timing
    sources: Sequence[int]
    readers: list[tuple[int, int]] = field(default_factory=list)
    flying: deque[int] = field(default_factory=deque)  # when each issued beat is offered
    done: set[tuple[int, int]] = field(default_factory=set)  # readers that have the beat at the head
    free: int = 0
    taken: list[int] = field(default_factory=list)
    needed: list[int] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)
    phase: int = 0
    worked: int = 0  # cycles of the phase at hand
    told: deque[int] = field(default_factory=deque)

    def __post_init__(self):
        self.free = self.timing.credits
        self.sequence = [p for p in self.timing.phases for _ in range(p.times)]
        self.taken, self.needed, self.freed = ([0] * self.timing.operands for _ in range(3))

    def offers(self, now: int) -> bool:
        return bool(self.flying) and self.flying[0] <= now

    @property
    def at(self):
        return self.sequence[self.phase]

    def step(self):
        self.phase = (self.phase + 1) % len(self.sequence)


def by_cycles(
    stages: Sequence[Timing],
    reads: Sequence[Sequence[int]],
    inputs: Sequence[int],
    outputs: Sequence[tuple[int, int]],
    frames: int,
    work: Mapping[int, np.ndarray] | None = None,
) -> Cycles:
    """The arguments are those of `bittrue.rtl.dataflow.schedule.simulate`."""
    states = [_State(t, r) for t, r in zip(stages, reads, strict=True)]
    for n, cycles in (work or {}).items():
        states[n].told.extend(int(c) for c in stages[n].told(cycles))
    for n, state in enumerate(states):
        for k, p in enumerate(state.sources):
            if p >= 0:
                states[p].readers.append((n, k))
    sinks = [(len(states) + k, 0) for k in range(len(outputs))]
    for sink, (n, _) in zip(sinks, outputs, strict=True):
        states[n].readers.append(sink)
    seen = _Outputs(outputs, frames)
    now = quiet = 0
    given = [0] * len(inputs)
    while not seen.complete and quiet < max(s.timing.depth for s in states) + PATIENCE:
        # Who takes a beat in this cycle, from what is so at its start.
        takes = set(sinks)
        works = []
        for n, s in enumerate(states):

            def offered(k: int, n: int = n, s: _State = s, now: int = now) -> bool:
                p = s.sources[k]
                if p < 0:
                    return given[~p] < frames * inputs[~p]
                return states[p].offers(now) and (n, k) not in states[p].done

            operands = range(s.timing.operands)
            if s.timing.direct:
                wanted = [k for k in operands if s.at.needed[k]]
                works.append(s.free > 0 and all(offered(k) for k in wanted))
                takes |= {(n, k) for k in wanted if works[-1]}
            else:
                takes |= {(n, k) for k in operands if s.taken[k] - s.freed[k] < s.timing.rooms[k] and offered(k)}
                come = s.worked or all(s.taken[k] >= s.needed[k] + s.at.needed[k] for k in operands)
                last = s.worked + 1 >= (s.told[0] if s.at.told and s.told else s.at.cycles)
                works.append(come and (s.free >= s.at.emits or not last))
        for n, k in takes:
            if n < len(states) and states[n].sources[k] < 0:
                given[~states[n].sources[k]] += 1
        moved = any(works)
        for n, s in enumerate(states):
            popped = False
            if s.offers(now):
                for k, sink in enumerate(sinks):
                    if sink in s.readers and sink not in s.done:
                        seen.beat(k, now)
                s.done |= {reader for reader in s.readers if reader in takes}
                if len(s.done) == len(s.readers):
                    s.done, popped, moved = set(), True, True
                    s.flying.popleft()
            if works[n]:
                phase = s.at
                s.worked += 1
                if s.timing.direct or s.worked >= (s.told[0] if phase.told and s.told else phase.cycles):
                    if phase.told and s.told:
                        s.told.popleft()
                    s.worked = 0
                    for k in range(s.timing.operands):
                        s.needed[k] += phase.needed[k]
                        s.freed[k] += phase.freed[k]
                    s.free -= phase.emits
                    s.flying.extend([now + s.timing.depth] * phase.emits)
                    s.step()
            if not s.timing.direct:
                for k in range(s.timing.operands):
                    if (n, k) in takes:
                        s.taken[k] += 1
                        moved = True
            s.free += popped
        quiet = 0 if moved else quiet + 1
        now += 1
    return seen.cycles


def blocks_by_cycles(
    stages: Sequence[Blocks],
    reads: Sequence[Sequence[int]],
    inputs: Sequence[int],
    outputs: Sequence[tuple[int, int]],
    frames: int,
    work: Mapping[int, np.ndarray] | None = None,
) -> Cycles:
    """The same for blocks alone, counted in blocks."""
    count = len(stages)
    told = {n: [int(c) for c in np.asarray(v).reshape(-1)] for n, v in (work or {}).items()}
    total = [t.work or t.beats_out * t.steps for t in stages]
    takers: list[list[tuple[int, int]]] = [[] for _ in stages]
    for n, sources in enumerate(reads):
        for k, p in enumerate(sources):
            if p >= 0:
                takers[p].append((n, k))
    for k, (n, _) in enumerate(outputs):
        takers[n].append((-1, k))
    flying: list[deque[int]] = [deque() for _ in stages]
    done: list[set[tuple[int, int]]] = [set() for _ in stages]
    free = [t.credits for t in stages]
    fill, held, step, word, block = ([0] * count for _ in range(5))
    seen = _Outputs(outputs, frames)
    now = quiet = 0
    given = [0] * len(inputs)

    def offered(n: int, k: int, p: int) -> bool:
        return given[~p] < frames * inputs[~p] if p < 0 else offers[p] and (n, k) not in done[p]

    def cycles(n: int) -> int:
        known = told.get(n, [])
        return known[block[n]] if block[n] < len(known) else total[n]

    while not seen.complete and quiet < max(t.depth for t in stages) + PATIENCE:
        offers = [bool(f) and f[0] <= now for f in flying]
        take = []
        for n, t in enumerate(stages):
            room = held[n] < t.blocks if t.blocks else free[n] > 0
            take.append(room and all(offered(n, k, p) for k, p in enumerate(reads[n])))
        for n, sources in enumerate(reads):
            for p in sources:
                if p < 0 and take[n]:
                    given[~p] += 1
        moved = False
        for n, t in enumerate(stages):
            pop = issue = False
            if offers[n]:
                for m, k in takers[n]:
                    if m < 0 and (m, k) not in done[n]:
                        seen.beat(k, now)
                done[n] |= {(m, k) for m, k in takers[n] if m < 0 or take[m]}
                pop = len(done[n]) == len(takers[n])
                if pop:
                    done[n] = set()
                    flying[n].popleft()
            if t.blocks:
                output_word = block[n] % t.gather == t.gather - 1 and word[n] >= cycles(n) - t.beats_out * t.steps
                final = output_word and step[n] == t.steps - 1
                if held[n] and (free[n] >= t.each or not final):
                    moved, issue = True, final
                    step[n] = (0 if final else step[n] + 1) if output_word else step[n]
                    word[n] += 1
                    if word[n] == cycles(n):
                        word[n] = 0
                        held[n] -= 1
                        block[n] += 1
                if take[n]:
                    fill[n] += 1
                    if fill[n] == t.beats_in:
                        fill[n] = 0
                        held[n] += 1
            elif take[n]:
                issue = fill[n] >= t.beats_in - t.beats_out
                fill[n] = (fill[n] + 1) % t.beats_in
            free[n] += pop - issue * t.each
            flying[n].extend([now + t.depth] * (issue * t.each))
            moved = moved or pop or take[n]
        quiet = 0 if moved else quiet + 1
        now += 1
    return seen.cycles
