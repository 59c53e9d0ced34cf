"""Long runs of the compiled RTL go side by side, and are as one."""

import time
from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow.engine import machine
from bittrue.flow.run import shares
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.verify.backends import BACKENDS, Build, Stalls
from bittrue.flow.verify.verify import verify
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError
from tests.helpers.programs import spiking, stimulus, two_inputs

PROGRAM = two_inputs()
X = stimulus(PROGRAM, 61, 2)


@pytest.fixture(scope="module")
def rtl():
    planned = plan(PROGRAM)
    return CompiledRtl(emit(planned), planned.inputs, planned.outputs)


@pytest.fixture
def three(monkeypatch):
    """A machine of three cores, on which twenty frames are many."""
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(shares, "LEAST", 20)


@pytest.mark.parametrize(("frames", "count"), [(61, 3), (9, 9), (7, 1), (2000, 2)])
def test_every_frame_is_in_one_share(frames, count):
    places = shares.divided(frames, count)
    assert [k for place in places for k in range(frames)[place]] == list(range(frames))
    sizes = [place.stop - place.start for place in places]
    assert len(places) == count
    assert max(sizes) - min(sizes) <= 1


def test_shares_are_as_one_stream(rtl):
    one, three = rtl.run(*X).check(PROGRAM.run(*X)), shares.run(rtl, X, 3).check(PROGRAM.run(*X))
    assert (three.streams, one.streams) == (3, 1)
    assert (three.latency, three.interval) == (one.latency, one.interval)
    alone = [rtl.run(*(v[place] for v in X)) for place in shares.divided(61, 3)]
    assert [run.cycles for run in three.shares] == [run.cycles for run in alone]
    starts = np.cumsum([0, *(run.cycles for run in alone)])
    ends = [run.frame_end_cycles + start for run, start in zip(alone, starts, strict=False)]
    assert three.frame_end_cycles.tolist() == np.concatenate(ends).tolist()
    assert three.cycles == starts[-1]


def test_a_wrong_code_is_told_of_its_frame(rtl):
    wanted = [codes.copy() for codes in PROGRAM.run(*X)]
    wanted[0].reshape(61, -1)[45, 0] ^= 1
    found = shares.run(rtl, X, 3).first_divergence(wanted)
    assert (found.output, found.frame, found.flat) == (0, 45, 0)


def test_errors_say_where_their_stream_begins(rtl):
    run = shares.run(rtl, X, 3, max_cycles=30)
    assert [error.split(":")[0] for error in run.errors] == [
        f"frames {a}, a stream of their own" for a in ("0 to 19", "20 to 39", "40 to 60")
    ]
    assert not run.complete
    with pytest.raises(BittrueError, match="frames 20 to 39, a stream of their own: stopped by max_cycles"):
        run.check()


def test_what_differs_between_shares_is_no_figure_of_all(rtl):
    first, other, places = rtl.run(*(v[:20] for v in X)), rtl.run(*(v[20:40] for v in X)), shares.divided(40, 2)
    same = shares.joined([first, other], places, 1.0)
    assert (same.interval, same.latency) == (first.interval, first.latency)
    late = replace(other, handshakes=tuple(cycles + 1 for cycles in other.handshakes))
    found = shares.joined([first, late], places, 1.0)
    assert (found.interval, found.latency) == (first.interval, None)
    slow = replace(other, handshakes=tuple(cycles + np.arange(20)[:, None] for cycles in other.handshakes))
    found = shares.joined([first, slow], places, 1.0)
    assert (found.interval, found.latency) == (None, first.latency)


def test_progress_is_of_all_shares(rtl, monkeypatch):
    monkeypatch.setattr(shares, "PAUSE", 1e-3)
    seen = []
    shares.run(rtl, [np.concatenate([v] * 400) for v in X], 2, progress=lambda done, of: seen.append((done, of)))
    assert seen == sorted(seen)
    assert {of for _, of in seen} == {61 * 400}


class Long:
    """A simulator that takes seconds, or fails on the frames of its first stream; `ended` counts those stopped."""

    def __init__(self, fails=False):
        self.fails, self.ended = fails, 0

    def run(self, x, progress):
        if self.fails and x[0] == 0:
            raise BittrueError("no such thing")
        for done in range(5000):
            try:
                progress(done, len(x))
            except KeyboardInterrupt:
                self.ended += 1
                raise
            time.sleep(1e-3)


def test_an_interruption_ends_every_stream(monkeypatch):
    monkeypatch.setattr(shares, "PAUSE", 1e-3)

    def interrupt(*_):
        raise KeyboardInterrupt

    long = Long()
    with pytest.raises(KeyboardInterrupt):
        shares.run(long, [np.arange(6)], 3, progress=interrupt)
    assert long.ended == 3


def test_a_stream_that_fails_ends_the_others(monkeypatch):
    monkeypatch.setattr(shares, "PAUSE", 1e-3)
    long = Long(fails=True)
    with pytest.raises(BittrueError, match="no such thing"):
        shares.run(long, [np.arange(6)], 3)
    assert long.ended == 2


@pytest.mark.usefixtures("three")
def test_many_frames_of_a_steady_design_go_side_by_side():
    compiled, build = BACKENDS["compiled"], Build(PROGRAM)
    assert compiled.run(build, X).rtl.streams == 3
    assert compiled.run(build, [v[:59] for v in X]).rtl.streams == 2
    assert compiled.run(build, [v[:39] for v in X]).rtl.streams == 1
    assert compiled.run(build, X, Stalls(0.1, 0.1, 1)).rtl.streams == 1
    rows = verify(PROGRAM, X, {"compiled": None}).rows
    assert [(row["stalls"], row["streams"], row["mismatches"], row["images"]) for row in rows] == [
        (False, 3, 0, 61),
        (True, 1, 0, 61),
    ]
    assert rows[0]["interval"] == rows[0]["estimated_interval"] is not None


@pytest.mark.usefixtures("three")
def test_frames_that_depend_on_those_before_are_one_stream():
    program = spiking(shape=(3, 4), halving=True, steps=5, seed=12)
    build = Build(program, interval=400, options={"architecture": "events"})
    assert not build.design.steady
    assert BACKENDS["compiled"].run(build, stimulus(program, 60, 1)).rtl.streams == 1
