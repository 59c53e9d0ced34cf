"""Small things that are told: rows of a report, rates, why a step runs, sets of a run, a compiler that does not run."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import bittrue
from bittrue.flow import stages
from bittrue.flow.cli import systems
from bittrue.flow.engine import recipe, steps, training
from bittrue.flow.report import report
from bittrue.flow.run import cosim, verilate
from bittrue.flow.run.result import RtlRun
from bittrue.flow.verify import backends, diverge, verify
from bittrue.flow.verify.backends import Stalls
from bittrue.flow.verify.exchanges import Exchanges
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.design import Design, Probe, StreamTap
from bittrue.rtl.light.design import PhotonicDesign
from bittrue.rtl.light.jobs import Geometry
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import written
from tests.helpers.photonic_programs import photonic_network
from tests.helpers.programs import resmlp

PROGRAM = resmlp(tokens=2, channels=2, features=2, hidden=2)


def test_rows_of_operations():
    names = [node.name for node in PROGRAM.nodes]
    ranges = {name: (-k - 1, 2 * k + 5) for k, name in enumerate(names)}
    saturation = {name: 3 * k for k, name in enumerate(names)}
    rows = report.operations(PROGRAM, {"ranges": ranges, "saturation": saturation, "images": 7})
    assert [row["name"] for row in rows] == names
    for k, (row, node) in enumerate(zip(rows, PROGRAM.nodes, strict=True)):
        kind = node.operation.output
        assert (row["low"], row["high"], row["saturated"]) == (-k - 1, 2 * k + 5, 3 * k)
        assert (row["format_low"], row["format_high"]) == (kind.format.low, kind.format.high)
        assert (row["format"], row["values"]) == (str(kind.format), 7 * int(np.prod(kind.shape)))


def test_rows_of_functions_have_the_ends_of_what_goes_in_and_comes_out():
    kind = TensorType((1, 2), Format(5, signed=False))
    build = Builder({"x": kind})
    build.add("curve", Lerp(kind, np.arange(10).reshape(2, 5), Format(7)), "x")
    (row,) = report.functions(build.program("curve", functions={"curve": {"x_scale": 0.5}}))
    assert (row["operation"], row["knots"]) == ("curve", np.arange(10).reshape(2, 5).tolist())
    assert (row["input_low"], row["input_high"], row["low"], row["high"]) == (0, 31, -64, 63)
    assert (row["x_scale"], row["y_scale"]) == (0.5, None)


@pytest.mark.parametrize(
    ("seconds", "ends", "rate"), [(2.0, [4, 9, 12], 1.5), (0.5, [4, -1, -1], 2.0), (0.0, [4], 0.0)]
)
def test_images_in_a_second_are_those_that_came_out(seconds, ends, rate):
    beats = np.array(ends, np.int64).reshape(-1, 1)
    run = RtlRun("compiled", ("m",), (np.zeros((len(ends), 1), np.int8),), (beats,), 0, 20, seconds)
    assert run.images_per_second == rate


def test_a_frame_ends_when_its_last_output_does_and_never_where_one_does_not():
    beats = tuple(np.array([[1, end] for end in ends], np.int64) for ends in ([5, 7, -1], [6, -1, 9]))
    run = RtlRun("compiled", ("m", "n"), (np.zeros((3, 1), np.int8),) * 2, beats, 0, 20, 1.0)
    assert run.frame_end_cycles.tolist() == [6, -1, -1]
    assert run.images_per_second == 1


def test_the_end_of_a_log_is_told_without_frames_and_empty_lines(tmp_path):
    lines = ["early"] + [f"line   {k}\t." for k in range(8)]
    (tmp_path / "log").write_text("\n \n".join(["**** a frame ****", *lines, "****", ""]))
    assert cosim._tail(tmp_path / "log") == " | ".join(f"line {k} ." for k in range(8))
    assert cosim._tail(tmp_path / "none") == "(empty)"


@pytest.mark.parametrize(
    ("name", "images", "ran"),
    [
        ("compiled", 400, [(400, False), (256, True)]),  # with stalls no more than show what stalls can do
        ("compiled", 90, [(90, False), (90, True)]),
        ("icarus", 400, [(11, False), (400, True)]),  # without, what fills the pipeline: 50 // 10 + 6
    ],
)
def test_images_that_a_verification_runs(name, images, ran):
    seen = []
    run = SimpleNamespace(results=(np.zeros((400, 1)),), errors=(), rtl=SimpleNamespace(mismatches=lambda _: 0))
    session = SimpleNamespace(
        sets=SimpleNamespace(all_images=False, fewest=0),
        build=SimpleNamespace(
            design=SimpleNamespace(latency=50, interval=10, steady=True), program=SimpleNamespace(grouping=None)
        ),
        result=verify.Verification([]),
        _run=lambda _, count, stalls: seen.append((count, bool(stalls))) or run,
        _cycles=lambda *_: {},
        _judge=lambda *_: None,
        _take=lambda _: ([], ()),
    )
    verify._Session._rtl(session, SimpleNamespace(name=name), images, Stalls(0.3, 0.3, 1))
    assert seen == ran


def test_everything_that_changed_is_named_in_order(tmp_path, monkeypatch):
    before = {"z": 1, "recipe": 1, "k": 1, "gone": 1}
    many = {f"part {k}": k for k in "hgfedcba"}
    monkeypatch.setattr(steps, "stamp", lambda _: {"inputs": before, "files": {}})
    monkeypatch.setattr(steps, "_files", lambda _: {})
    assert steps._stale(tmp_path, {"z": 2, "recipe": 3, "k": 1, "new": 1}) == "gone and new and recipe and z changed"
    assert steps._stale(tmp_path, before | many) == " and ".join(sorted(many)) + " changed"
    assert steps._stale(tmp_path, dict(before)) is None
    monkeypatch.setattr(steps, "_files", lambda _: {"x": 1})
    assert steps._stale(tmp_path, dict(before)) == "its files were altered"


def test_what_is_expected_of_a_flow_is_a_row_a_step(tmp_path):
    named = recipe.load("lerp-psa-digits")
    chain = stages.steps(named)
    rows = steps.expected(chain, named, tmp_path)
    assert type(rows) is list
    assert [row.step for row in rows] == [step.name for step in chain]
    assert all(row.due for row in rows)


def test_sets_of_a_run_hold_from_its_thirds_on():
    program = written(PROGRAM)
    sets = Exchanges(program, 3)
    held = sets.held(9)
    assert type(held) is list
    assert [first for first, _ in held] == [3, 6]
    assert held[0][1] is sets.contents[1]
    assert held[1][1] is sets.contents[2]
    for name, initial in program.initial.items():
        assert sorted(sets.contents[1][name].flat) == sorted(initial.flat)
    lite = PipelineDesign(plan(program, weight_bus="lite"))
    assert sets.accesses(lite, 9) == lite.write_set(sets.contents[2], 4, 1)
    assert sets.writes(lite, 9) == []
    stream = PipelineDesign(plan(program))
    assert sets.accesses(stream, 9) == ()
    assert [(w.after, w.by) for w in sets.writes(stream, 9)] == [(0, 3), (3, 6)]


@pytest.mark.parametrize(("frame", "number"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2)])
def test_a_divergence_of_the_kernels_names_the_set_that_held(frame, number, monkeypatch):
    """Of nine frames three meet the initial set, three the first that is written, three the second."""
    program, first = written(PROGRAM), PROGRAM.nodes[0]
    right, wrong = (np.full((9, *first.operation.output.shape), k, np.int8) for k in (0, 1))
    found = []

    def trace(*_, first: int, held):
        found.append((first, held))
        return {PROGRAM.nodes[0].name: wrong}

    monkeypatch.setattr(type(program), "trace", lambda *_, **__: SimpleNamespace(tensors={first.name: right}))
    build = SimpleNamespace(program=program, host=SimpleNamespace(trace=trace))
    differ = np.zeros((9, 2), bool)
    differ[frame] = True
    x = [np.zeros((9, 2), np.int8)]
    sets = Exchanges(program, 3)
    one = diverge.in_kernels(build, x, [differ], sets)
    assert (one.operation, one.frame, one.held) == (first.name, frame, number)
    assert found == [(frame, sets.held(9))]
    assert diverge.in_kernels(build, x, [differ]).held is None


@pytest.mark.needs("verilator")
def test_a_compiler_that_does_not_run_is_told(tmp_path, monkeypatch):
    (tmp_path / "g++").write_text("#!/bin/sh\necho 13.2\nexit 3\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    with pytest.raises(BittrueError, match=r"the RTL cannot be compiled: g\+\+ does not run"):
        verilate.toolchain.__wrapped__()
    (tmp_path / "g++").write_text("#!/bin/sh\necho 13.2\n")
    assert verilate.toolchain.__wrapped__().gxx_version == "13.2"
    assert verilate.toolchain.__wrapped__().gxx == Path(tmp_path / "g++")


def test_the_step_of_the_report_writes_what_it_collected(tmp_path, monkeypatch):
    wrote = []
    PROGRAM.save(tmp_path / "program.npz")
    monkeypatch.setattr(report, "collect", lambda *given: {"program": given[1].sha256, "results": given[2]})
    monkeypatch.setattr(report, "write", lambda content, folder: wrote.append((content, folder)))
    monkeypatch.setattr(report, "problems", lambda content: [content["program"]])
    work = SimpleNamespace(upstream={"lower": tmp_path}, results={"a": 1}, seconds={}, folder=tmp_path / "report")
    assert stages.report(None, work) == {"problems": [PROGRAM.sha256]}
    assert wrote == [({"program": PROGRAM.sha256, "results": {"a": 1}}, tmp_path / "report")]


def test_a_lowered_network_leaves_its_program_inputs_labels_and_expected_logits(tmp_path, monkeypatch):
    loop = pytest.importorskip("bittrue.models.training.loop", reason="torch is not installed")
    images, labels = np.zeros((3, 2), np.uint8), np.array([1, 0, 1])
    monkeypatch.setattr(loop, "predict", lambda *_: np.array([[1.0, 2.0]] * 3))
    data = SimpleNamespace(test=SimpleNamespace(images=images, labels=labels), classes=("a", "b"))
    integer = SimpleNamespace(encode=lambda x: x + 5)
    training.write_lowered(SimpleNamespace(folder=tmp_path), PROGRAM, integer, data)
    assert json.loads((tmp_path / "program.json").read_text()) == json.loads(json.dumps(PROGRAM.summary()))
    assert bittrue.load(tmp_path / "program.npz").sha256 == PROGRAM.sha256
    kept = {name: np.load(tmp_path / f"{name}.npy").tolist() for name in ("inputs", "labels", "expected")}
    assert kept == {"inputs": [[5, 5]] * 3, "labels": [1, 0, 1], "expected": [[1, 2]] * 3}


def test_what_a_machine_lacks_is_told_of_what_is_asked_for(monkeypatch):
    lacking = {"gxx": "g++ is not installed"}
    monkeypatch.setattr(backends, "find", lambda name: SimpleNamespace(missing=lambda: lacking.get(name)))
    assert backends.installed({"gxx": 3, "compiled": None, "icarus": 0}) == {"gxx": False, "compiled": True}


def test_systems_that_cannot_be_used_are_told_one_by_one(monkeypatch, capsys):
    broken = {"a": "the system of a [1.0] cannot be used: no", "b": "the system of b cannot be used: never"}
    for known in (broken, {}):
        monkeypatch.setattr(systems.registry, "found", lambda known=known: SimpleNamespace(broken=known))
        systems.told()
        assert capsys.readouterr().err.splitlines() == [f"note: {sentence}" for sentence in known.values()]


def test_places_of_beats_are_those_of_the_tensor_one_after_the_other():
    """Of a frame all, once, in order; a beat that is not offered, or not taken, is none."""
    tap, seen = StreamTap([Probe("y", Format(4), 2, ("top", "p"))], {"y": 6}), []
    for cycle in range(24):
        valid, ready, word = cycle % 2, cycle // 2 % 2, f"{cycle % 8:04b}{cycle % 7:04b}"
        told = {"valid": str(valid), "ready": str(ready), "payload": word}
        seen += tap.see(cycle, lambda key, told=told: told[key.rpartition("__")[2]])
    assert tap.signals.keys() == {f"0 o__{name}" for name in ("payload", "valid", "ready")}
    assert [one.cycle for one in seen] == list(range(3, 24, 4))
    assert [(one.frame, one.places.tolist()) for one in seen] == [
        (frame, places) for frame in (0, 1) for places in ([0, 1], [2, 3], [4, 5])
    ]
    assert [one.codes.tolist() for one in seen] == [[one.cycle % 7, one.cycle % 8] for one in seen]


class Bare(Design):
    """The least that a design is."""

    verilog = expect = to_json = from_json = None


def test_a_design_says_nothing_of_what_it_has_not():
    bare = Bare()
    assert (bare.estimate, bare.parts, bare.probes, bare.accesses(3)) == (None, (), (), ())
    assert list(bare.instances) == []


def test_a_controller_is_named_with_the_twin_that_it_holds():
    made = {twin: PhotonicDesign(photonic_network(), Geometry(4, 4, 2), twin=twin) for twin in (True, False)}
    assert "twin" in made[True].title
    assert "twin" not in made[False].title


@pytest.mark.parametrize("inputs", [2, 256])
def test_a_design_waits_for_longer_than_a_frame_takes(inputs):
    """A quiet stream is no deadlock while a frame is on its way, however slow the design is."""
    kind = TensorType((inputs,), Format(8))
    build = Builder({"x": kind})
    build.add("y", Linear(kind, np.ones((80, inputs), int), Requantize(80, 8)), "x")
    design = PipelineDesign(plan(build.program("y"), folding={"y": Folding(1, 1)}, interval=80 * inputs))
    assert design.interval >= 80 * inputs
    assert design.patience > design.interval + design.latency
