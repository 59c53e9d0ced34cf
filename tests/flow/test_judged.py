"""What a verification writes down of a run, with runs made by hand: rows, events, cycles; and the errors of a run."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.result import BROKEN, CYCLE_LIMIT, DEADLOCK, DONE, EVENTS, RtlRun, check_batch, collect
from bittrue.flow.verify import backends, events, verify
from bittrue.flow.verify.backends import BACKENDS, MANY, Build, Run, Stalls
from bittrue.flow.verify.events import Events
from bittrue.flow.verify.exchanges import Exchanges
from bittrue.flow.verify.junit import JUnit
from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.written import written
from tests.helpers.programs import several
from tests.helpers.sets import codes, network

COMPILED = BACKENDS["compiled"]
NO_STALLS = Stalls()


def session(program, x, build=None):
    """A verification that is about to begin."""
    given = (build or Build(program), x, program.run(*x), Path("nowhere"), lambda *_: None, verify.Verification([]))
    return verify._Session(*given, JUnit(Path("nowhere")), Exchanges(program, 3))


def ran(results, ends=(), first=0, ones=None, seconds=1.0):
    """A run of the RTL whose outputs have one beat a frame, in these cycles."""
    ports = tuple(f"m_axis_{k}" for k in range(len(results)))
    beats = tuple(np.reshape(np.array(one, np.int64), (-1, 1)) for one in ends)
    rtl = RtlRun("compiled", ports, tuple(results), beats, first, 99, seconds, ones=ones or {})
    return Run(tuple(results), seconds, rtl)


class TestEvents:
    """What the golden simulator makes of the very frames that ran, all at once."""

    def made(self, program, x, held=None):
        tensors = program.trace(*x, held=held).tensors
        return {n.name: int(tensors[n.name].sum()) for n in program.nodes if n.operation.output.events}

    @pytest.mark.parametrize("kinds", [["linear", "spiking"], ["noisy", "spiking"]])
    @pytest.mark.parametrize("frames", [2, 4, 9])
    def test_of_frames_again_and_of_those_that_are_others(self, kinds, frames, monkeypatch):
        monkeypatch.setattr(events, "BLOCK", 3)
        program = network(2, kinds=kinds)
        x = codes(program, 4, np.random.default_rng(5))
        assert program.counts_frames == ("noisy" in kinds)
        again = [v[np.arange(frames) % 4] for v in x]
        wanted = self.made(program, again)
        assert list(wanted) == ["spiking1_bits"]
        found = Events(program, x).beside({"spiking1_bits": 7}, again, [])
        assert found == {"spiking1_bits": {"golden": wanted["spiking1_bits"], "rtl": 7}}
        assert Events(program, x).beside({}, again, []) == {}

    @pytest.mark.parametrize("frames", [4, 5])
    def test_with_the_sets_that_frames_met(self, frames, monkeypatch):
        monkeypatch.setattr(events, "BLOCK", 3)
        program = written(network(1, kinds=["linear", "spiking"]))
        x = codes(program, frames, np.random.default_rng(5))
        one = session(program, x)
        held = one.sets.held(frames)
        wanted = self.made(program, x, held)
        assert wanted != self.made(program, x)
        (name,) = wanted
        assert one.events.beside({name: 1}, x, held) == {name: {"golden": wanted[name], "rtl": 1}}


class TestRow:
    program = several(tokens=2, channels=2, outputs=2, seed=3)  # four results
    x = codes(program, 5, np.random.default_rng(1))

    @pytest.mark.parametrize(
        ("stalls", "said"),
        [
            (NO_STALLS, (False, 0.0, 0.0, None)),
            (Stalls(0.0, 0.0, 4), (False, 0.0, 0.0, None)),
            (Stalls(0.25, 0.0, 4), (True, 0.25, 0.0, 4)),
            (Stalls(0.0, 0.5, 0), (True, 0.0, 0.5, 0)),
        ],
    )
    def test_figures(self, stalls, said):
        one = session(self.program, self.x)
        row = one._row(COMPILED, 5, one.expected, [2, 0, 0, 1], ["e"], ran(one.expected, seconds=0.3), stalls)
        assert (row["stalls"], row["idle"], row["backpressure"], row["seed"]) == said
        assert row["values"] == sum(np.prod(codes.shape) for codes in one.expected)
        assert (row["images"], row["mismatches"], row["errors"]) == (5, 3, ["e"])
        assert row["images_per_second"] == 16.667
        assert row["results"] == dict(zip(self.program.results, [2, 0, 0, 1], strict=True))
        assert all(row[name] is None for name in ("interval", "latency", "divergence", "estimated_interval"))

    def test_a_run_without_time_has_no_speed(self):
        one = session(self.program, self.x)
        row = one._row(COMPILED, 5, one.expected, [0] * 4, [], ran(one.expected, seconds=0.0), NO_STALLS)
        assert (row["images_per_second"], row["seed"]) == (None, None)


@pytest.mark.parametrize("name", ["golden", "reference", "gxx"])
def test_seconds_are_those_of_the_run(name, monkeypatch):
    clock = iter([100.0, 102.5])
    program = network(0, kinds=["linear"])
    x = codes(program, 2, np.random.default_rng(1))
    build = Build(program)
    build.__dict__["host"] = SimpleNamespace(run=lambda *x, held: program.run(*x, held=held))
    monkeypatch.setattr(backends, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    made = BACKENDS[name].run(build, x)
    assert made.seconds == 2.5
    assert np.array_equal(made.results[0], program(*x))


@pytest.mark.parametrize("name", ["golden", "reference"])
@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_codes_that_a_simulator_makes_otherwise_are_counted(name, wrong):
    """Without sets there is one comparison, and with sets another one is added to it."""
    for program in (network(0, kinds=["linear"]), written(network(0, kinds=["linear"]))):
        one = session(program, codes(program, 4, np.random.default_rng(1)))

        def run(_, x, sets=None, program=program, **__):
            results = program.run(*x, held=sets and sets.held(len(x[0])))
            if wrong:
                results[0].reshape(-1)[:wrong] ^= 1
            return Run(results, 0.5)

        one.check(SimpleNamespace(name=name, kind="sim", run=run), 3, NO_STALLS)
        differ = wrong * (1 + bool(program.written))
        values = program.run(*one.x)[0][:3].size
        said = [failure.get("message") for failure in one.junit.root.iter("failure")]
        assert said == [f"golden: {differ} of {values} values differ from the reference"] * bool(wrong)
        if name == "reference":
            assert (one.result.golden["mismatches"], one.result.golden["images"]) == (differ, 3)


def test_what_takes_long_says_that_it_begins(monkeypatch):
    """Nothing of one thing, before it is done; many frames are worth a longer compilation."""
    told, levels = [], []
    monkeypatch.setattr(CompiledRtl, "of", lambda *_, optimize, **__: levels.append(optimize) or len(told))
    build = Build(network(0, kinds=["linear"]))
    assert COMPILED.made(build, lambda *words: told.append(words), 9) == 1
    assert COMPILED.made(build, None, MANY - 1) == COMPILED.made(build, None, MANY) == 1
    assert levels == [None, None, "-O2"]
    assert told == [("building the compiled RTL", 0, 1)]


@pytest.mark.parametrize("name", ["compiled", "netlist", "icarus", "verilator", "gxx"])
def test_every_back_end_says_at_first_that_nothing_is_done_yet(name, monkeypatch):
    program, told = network(0, kinds=["linear"]), []
    x = codes(program, 2, np.random.default_rng(1))
    made = SimpleNamespace(results=program.run(*x), seconds=0.5)
    build = Build(program)
    build.__dict__ |= {
        "verilog": "",
        "netlist": "",
        "host": SimpleNamespace(run_in_parts=lambda *_, **__: made.results),
    }
    monkeypatch.setattr(CompiledRtl, "of", lambda *_, **__: SimpleNamespace(run=lambda *_, **__: made))
    monkeypatch.setattr(cosim, "of", lambda *_, **__: made)
    found = BACKENDS[name].run(build, x, progress=lambda *words: told.append(words))
    assert found.results == made.results
    assert [words[1:] for words in told] == [(0, 1)]
    assert told[0][0]


def test_what_a_simulator_wrote_stands_beside_its_own_run(tmp_path):
    """In the JUnit file, with and without stalls, which have a folder each."""
    program = network(0, kinds=["linear"])
    one = replace(session(program, codes(program, 2, np.random.default_rng(1))), folder=tmp_path, junit=JUnit(tmp_path))

    def run(_build, _x, stalls, folder, **_):
        folder.mkdir()
        case = f'<testcase name="written {"with" if stalls else "without"} stalls"/>'
        (folder / "results.xml").write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
        return ran(one.expected)

    backend = SimpleNamespace(name="icarus", kind="rtl", run=run)
    for stalls in (NO_STALLS, Stalls(0.5, 0.5, 1)):
        found = one._run(backend, 2, stalls)
        one._enter(one._row(backend, 2, one.expected, [0], [], found, stalls), 0.0)
    cases = {suite.get("name"): [case.get("name") for case in suite] for suite in one.junit.root}
    assert cases == {
        "rtl.icarus": ["icarus", "written without stalls"],
        "rtl.icarus-stalls": ["icarus-stalls", "written with stalls"],
    }
    assert all(suite.get("tests") == "2" and suite.get("failures") == "0" for suite in one.junit.root)


def test_kernels_that_refuse_are_wrong_and_those_that_cannot_be_built_are_told():
    """All codes are wrong then, for the reason that the kernel gives; what else went wrong is raised."""
    program = network(0, kinds=["linear"])
    one = session(program, codes(program, 3, np.random.default_rng(1)))

    def kernels(words):
        def run(*_, **__):
            raise BittrueError(words)

        return SimpleNamespace(name="gxx", kind="hls", run=run)

    one.check(kernels("HLS kernel: a set is short"), 2, NO_STALLS)
    (row,) = one.result.rows
    values = one.expected[0][:2].size
    assert (row["mismatches"], row["values"], row["errors"]) == (values, values, ["HLS kernel: a set is short"])
    assert row["divergence"] is None
    with pytest.raises(BittrueError, match="there is no compiler"):
        one.check(kernels("there is no compiler"), 2, NO_STALLS)


class TestCycles:
    """Against the schedule of the design, which says the cycle in which every frame ends."""

    program = network(0, kinds=["linear"])
    x = codes(program, 4, np.random.default_rng(1))
    build = Build(program)

    def cycles(self, frames, late=(), first=11):
        one = session(self.program, self.x, self.build)
        ends = np.array(self.build.design.expect(*one._take(frames)[0]).output_ends) + first
        for frame in late:
            ends[0, frame] += 1
        return one._cycles(ran(one._take(frames)[1], ends, first), frames), ends

    def test_few_frames_are_held_to_the_schedule_one_by_one(self):
        found, ends = self.cycles(3)
        assert "schedule" not in found
        assert found["estimated_interval"] == found["interval"] == self.build.design.interval
        assert found["estimated_latency"] == self.build.design.latency
        assert ends.shape == (1, 3)

    @pytest.mark.parametrize("late", [(0,), (2,), (1, 2)])
    def test_the_first_frame_that_is_late_is_told(self, late):
        found, ends = self.cycles(3, late)
        at = ends[0, late[0]] - 11
        said = f"frame {late[0]} ends in cycle {at} after the first input, the schedule says {at - 1}"
        assert found["schedule"] == f"{said} ({len(late)} of 3 frames differ)"

    def test_more_frames_show_the_steady_state(self):
        found, _ = self.cycles(9, late=(0,))
        assert "schedule" not in found
        assert found["interval"] == found["estimated_interval"] == self.build.design.interval


PORT = StreamPort("m_axis", TensorType((2, 3), Format(5)), 3)
SENT = StreamPort("s_axis", TensorType((2, 3), Format(5)), 1)


def errors(**changed):
    """The sentences of a run of two frames, of which something is not right."""
    frames = np.arange(12, dtype=np.int8).reshape(2, 2, 3)
    sources = check_batch([SENT], [frames])
    given = {
        "words": [PORT.pack(frames)],
        "beat_cycles": [np.array([[5, 6], [8, 9]])],
        "accepted": [12],
        "framing_errors": [0],
        "first_input_cycle": 1,
        "cycles": 20,
        "seconds": 0.5,
        "state": DONE,
        "events": [],
        "event_count": 0,
        "watchdog": 44,
        "waves": None,
    }
    return collect("compiled", [PORT], [SENT], sources, **(given | changed)).errors


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({}, ()),
        ({"state": DEADLOCK}, ("deadlock, no handshake for 44 cycles: s_axis accepted 12 of 12 beats, m_axis prod",)),
        ({"state": CYCLE_LIMIT, "accepted": [11]}, ("stopped by max_cycles after 20 cycles: s_axis accepted 11",)),
        ({"state": BROKEN, "beat_cycles": [np.array([[5, 0], [-1, -1]])]}, ("the simulation ended early: ",)),
        ({"accepted": [11]}, ("all outputs came before all inputs were taken: s_axis accepted 11 of 12 beats, m_axi",)),
        ({"unwritten": 1}, ("the frames ended before 1 words of the sets were written; give more frames",)),
        ({"framing_errors": [2]}, (f"{SENT.framing_errors} counts 2 framing errors, 0 were made",)),
        ({"framing_errors": [2], "state": DEADLOCK}, ("deadlock",)),
        ({"events": [(1, 7, 3, 0)], "event_count": 1}, ("m_axis: the last beat of frame 1 came without TLAST in",)),
        ({"events": [(6, 7, 3, 0)], "event_count": 1}, ("m_axis: TVALID is not low in reset",)),
        ({"events": [(5, 7, 4, 0)] * 2, "event_count": 5}, ("m_axis: a beat more", "m_axis", "3 more protocol errors")),
        ({"events": [(9, 7, 0, 0)] * 2, "event_count": 3}, ("m_axis: unknown", "m_axis", "1 more protocol errors")),
    ],
)
def test_what_went_wrong_is_told(changed, sentences):
    found = errors(**changed)
    assert len(found) == len(sentences)
    for sentence, begin in zip(found, sentences, strict=True):
        assert sentence.startswith(begin)


@pytest.mark.parametrize("kind", EVENTS)
def test_every_protocol_error_says_where(kind):
    (said,) = errors(events=[(kind, 7, 3, 0)], event_count=1)
    assert said.startswith("m_axis: ")
    assert said.endswith(" in cycle 7") == (kind != 6)
    if "frame {frame}" in EVENTS[kind]:
        assert "frame 1" in said
    if "beat {beat}" in EVENTS[kind]:
        assert "beat 1" in said


def test_inputs_have_as_many_frames():
    ports = [SENT, StreamPort("s_axis_b", SENT.tensor, 1)]
    frames = np.zeros((3, 2, 3), np.int8)
    assert [len(source.words) for source in check_batch(ports, [frames, frames])] == [3, 3]
    for x, words in (([frames, frames[:2]], "different batch sizes: 3, 2"), ([frames], "the RTL has 2 inputs")):
        with pytest.raises(BittrueError, match=words):
            check_batch(ports, x)
    with pytest.raises(BittrueError, match="an empty batch; give at least one frame"):
        check_batch(ports[:1], [frames[:0]])


def test_beats_that_came_are_counted_from_cycle_0_on():
    (said,) = errors(state=BROKEN, beat_cycles=[np.array([[0, 1], [-1, -1]])])
    assert said.endswith("s_axis accepted 12 of 12 beats, m_axis produced 2 of 4")
