"""The recurrence over beats against the handshake cycle by cycle: random networks of random stages, to the cycle."""

from __future__ import annotations

import numpy as np
import pytest

from bittrue.rtl.dataflow import recurrence
from bittrue.rtl.dataflow.schedule import simulate
from bittrue.rtl.dataflow.timing import UNLIMITED, Blocks, Phase, Phases, Timing, enough_credits
from tests.helpers.cycles import blocks_by_cycles, by_cycles
from tests.helpers.lengths import long_but

FRAMES = 5


class Drawn:
    """A network that grows stage by stage; `rate[n]` is its output beats for one beat of the input, as a fraction."""

    def __init__(self, seed: int, general: bool):
        self.rng = np.random.default_rng(seed)
        self.general = general
        self.stages: list[Timing] = []
        self.reads: list[tuple[int, ...]] = []
        self.work: dict[int, np.ndarray] = {}
        self.open: dict[int, int] = {}

    def one_of(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def upto(self, most: int, least: int = 1) -> int:
        return int(self.rng.integers(least, most + 1))

    def enter(self, timing: Timing, *sources: int) -> int:
        self.stages.append(timing)
        self.reads.append(sources)
        return len(self.stages) - 1

    def outlet(self, spacing: int = 1, each: int = 1) -> dict[str, int]:
        """Depth and credits: mostly those that never stall, sometimes too few."""
        depth = self.upto(9)
        few = self.rng.random() < 0.3
        credits = self.upto(4 * each, each) if few else enough_credits(depth, spacing, each)
        return {"depth": depth, "credits": credits}

    def stage(self, source: int, beats: int) -> tuple[int, int]:
        """A stage of one operand behind `source`, which gives `beats` a frame; its number and its beats a frame."""
        divisors = [n for n in range(1, beats + 1) if beats % n == 0]
        size = self.one_of(*divisors)
        kind = self.one_of("direct", "sums", "buffered", "gather", "fifo", "work", *(["phases"] * 3 * self.general))
        if kind == "direct":
            return self.enter(Blocks(**self.outlet()), source), beats
        if kind == "fifo":
            entries = self.one_of(1, 2, 3, self.upto(40), UNLIMITED)
            return self.enter(Blocks(blocks=entries, depth=3, credits=self.one_of(4, 4, 1)), source), beats
        if kind == "sums":
            out = self.upto(size)
            return self.enter(Blocks(size, out, **self.outlet()), source), beats // size * out
        if kind == "phases":
            return self.phases(source, beats, size)
        steps, out, gather = self.upto(5), self.upto(4), 1
        if kind == "gather":
            gather = self.one_of(*[n for n in range(1, beats // size + 1) if beats // size % n == 0])
        most = out * steps + self.upto(9, 0) if kind == "work" else 0
        each = self.upto(min(steps, 3)) if kind == "buffered" else 1
        timing = Blocks(size, out, steps, self.upto(3), gather=gather, work=most, each=each, **self.outlet(steps, each))
        n = self.enter(timing, source)
        if kind == "work" and self.rng.random() < 0.8:
            self.work[n] = self.rng.integers(out * steps, most + 1, beats // size * FRAMES)
        return n, beats // size // gather * out * each

    def phases(self, source: int, beats: int, size: int) -> tuple[int, int]:
        """Rounds of `size` beats in any phases: what has come is freed at some time, never before."""
        phases, needed, freed, held = [], 0, 0, 1
        emitted = 0
        while needed < size or freed < size or not emitted:
            more = self.upto(size - needed, 0)
            needed += more
            held = max(held, needed - freed)
            less = self.one_of(0, self.upto(needed - freed, 0))
            freed += less
            emits = self.one_of(1, 1, 1, 2, 0)
            times = self.upto(3) if not more and not less else 1
            emitted += emits * times
            phases.append(Phase((more,), (less,), self.upto(4), emits, times))
        room = held + self.upto(size, 0) - (self.rng.random() < 0.05)
        room = max(room, 1)
        timing = Phases(tuple(phases), (room,), **self.outlet(each=max(p.emits for p in phases)))
        return self.enter(timing, source), beats // size * emitted

    def join(self, sources: list[int]) -> int:
        return self.enter(Blocks(operands=len(sources), **self.outlet()), *sources)

    def outputs(self) -> list[tuple[int, int]]:
        """Of a new network, the stage of every output and its beats a frame: often some within it beside the last."""
        last = self.network()
        others = [n for n in self.open if n != last[0]]
        choice = np.random.default_rng([len(self.stages), self.beats])
        chosen = choice.permutation(others)[: int(choice.integers(0, 4))].tolist()
        return [*((n, self.open[n]) for n in chosen), last]

    def network(self) -> tuple[int, int]:
        """The last stage and its beats a frame; `open` gets those of stages on the way that may be outputs as well."""
        at, beats = self.enter(Blocks(**self.outlet()), -1), self.one_of(4, 6, 12)
        self.beats = beats
        for _ in range(self.upto(4)):
            self.open[at] = beats
            if self.rng.random() < 0.5:
                at, beats = self.stage(at, beats)
                continue
            branches, before = [], len(self.stages)
            for _ in range(self.upto(4, 2)):
                branch, count = at, beats
                for _ in range(self.upto(3, 0)):
                    branch, count = self.stage(branch, count)
                    self.open[branch] = count
                branches.append((branch, count))
            if self.rng.random() < 0.05:  # rates that do not match: a deadlock
                at, beats = self.join([branch for branch, _ in branches]), branches[0][1]
                continue
            most = np.lcm.reduce([count for _, count in branches])
            if most > 400:
                del self.stages[before:], self.reads[before:]
                self.open = {n: beats for n, beats in self.open.items() if n < before}
                self.work = {n: cycles for n, cycles in self.work.items() if n < before}
                continue
            branches = [
                branch if count == most else self.enter(Blocks(1, int(most // count), 1, 2, **self.outlet()), branch)
                for branch, count in branches
            ]
            at, beats = self.join(branches), int(most)
        return self.enter(Blocks(**self.outlet()), at), beats


def same(drawn: Drawn, outputs: list[tuple[int, int]], reference) -> bool:
    """Compares; whether the network ran to its end."""
    found = simulate(drawn.stages, drawn.reads, [drawn.beats], outputs, FRAMES, work=drawn.work)
    truth = reference(drawn.stages, drawn.reads, [drawn.beats], outputs, FRAMES, drawn.work)
    assert found.first.tolist() == truth.first
    assert found.latency == (None if -1 in truth.first else max(truth.first))
    assert found.output_ends.tolist() == truth.ends
    assert found.ends.tolist() == [max(ends) for ends in zip(*truth.ends, strict=True)]
    assert (found.interval is not None) == found.complete == truth.complete
    return truth.complete


@pytest.mark.parametrize("group", long_but(range(10), 0, 1))
class TestRandomNetworks:
    def test_of_blocks(self, group):
        complete = several = 0
        for seed in range(30):
            drawn = Drawn(1000 * group + seed, general=False)
            outputs = drawn.outputs()
            ran = same(drawn, outputs, by_cycles)
            assert same(drawn, outputs, blocks_by_cycles) == ran
            complete += ran
            several += len(outputs) > 1
        assert 10 <= complete < 30
        assert 10 <= several < 30

    def test_of_phases(self, group):
        complete = 0
        for seed in range(30):
            drawn = Drawn(1000 * group + seed + 500_000, general=True)
            complete += same(drawn, drawn.outputs(), by_cycles)
        assert 5 <= complete < 30


def test_a_timing_has_by_default_the_credits_that_its_depth_takes():
    """Three beats, one a cycle; with a credit less each waits for the one before it, with more none is earlier."""
    ways = (Blocks, lambda **more: Phases((Phase((1,), (1,)),), (0,), **more))
    for made in ways:
        ends = {}
        for more in ({}, *({"credits": n} for n in (1, 2, 3, 9))):
            timing = made(**more)
            found = simulate([timing], [(-1,)], [3], [(0, 3)], 1)
            ends.setdefault(timing.credits, set()).add(int(found.output_ends.max()))
        assert made().credits == 2
        assert ends[2] == ends[3] == ends[9]
        assert min(ends[1]) > max(ends[2])


@pytest.mark.parametrize("places", [1, 2, 8])
def test_how_large_rings_are_at_first_changes_no_cycle(places, monkeypatch):
    """Those of what was taken and of what was freed grow in any order, and keep what they hold."""
    drawn = [Drawn(seed + 700_000, general=True) for seed in range(40)]
    runs = [(d.outputs(), d) for d in drawn]
    roomy = [simulate(d.stages, d.reads, [d.beats], outputs, FRAMES, work=d.work) for outputs, d in runs]
    grown, larger = set(), recurrence._Rings._larger

    def watched(self, memories, which, *operand):
        grown.add(which)
        return larger(self, memories, which, *operand)

    monkeypatch.setattr(recurrence, "SMALL", places)
    monkeypatch.setattr(recurrence._Rings, "_larger", watched)
    for (outputs, d), wanted in zip(runs, roomy, strict=True):
        found = simulate(d.stages, d.reads, [d.beats], outputs, FRAMES, work=d.work)
        assert found.complete == wanted.complete
        np.testing.assert_array_equal(found.output_ends, wanted.output_ends)
        np.testing.assert_array_equal(found.first, wanted.first)
    assert grown == {0, 1}
