"""The command line: what it prints, its exit status, and that a mistake costs one sentence and no half-written file."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from bittrue.flow.cli import main as cli
from bittrue.flow.engine.steps import Outcome
from bittrue.flow.run import verilate
from bittrue.flow.verify import verify
from bittrue.flow.verify.backends import BACKENDS, Run
from bittrue.hls import project
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.bundled import grouped
from tests.helpers.flows import batch, program

COMMANDS = [
    "flow",
    "train",
    "quantize",
    "simulate",
    "rtl",
    "hls",
    "verify",
    "synth",
    "report",
    "doctor",
    "systems",
    "import-headers",
    "fit",
    "import-nir",
    "export-nir",
    "raster",
    "energy",
    "sweep",
]


@pytest.fixture
def bittrue(capsys):
    """Run a command: (status, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def saved(tmp_path):
    """A program and a batch on disk."""
    p = program()
    np.save(tmp_path / "x.npy", batch(p, 5))
    return p, p.save(tmp_path / "program.npz"), tmp_path / "x.npy"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command, bittrue):
    status, out, _ = bittrue(command, "--help")
    assert status == 0
    assert f"bittrue {command}" in out
    assert "Example" in out


def test_help_lists_every_command(bittrue):
    status, out, _ = bittrue("--help")
    assert status == 0
    assert all(command in out for command in COMMANDS)


class TestSimulate:
    def test_outputs_and_trace(self, saved, bittrue, tmp_path):
        p, path, x = saved
        out, trace = tmp_path / "y.npy", tmp_path / "t.npz"
        status, text, _ = bittrue("simulate", path, x, "--out", out, "--trace", trace, "--json")
        assert status == 0
        expected = p.trace(np.load(x))
        np.testing.assert_array_equal(np.load(out), expected.tensors["classify"])
        with np.load(trace) as tensors:
            assert set(tensors.files) == set(p.types)
            for name in tensors.files:
                np.testing.assert_array_equal(tensors[name], expected.tensors[name])
        assert json.loads(text)["saturation"] == expected.saturation

    @pytest.mark.parametrize(
        ("array", "sentence"),
        [
            (np.zeros((5, 4, 7), np.int8), "expected shape (n, 4, 6), got (5, 4, 7)"),
            (np.zeros((5, 4, 6), np.float32), "codes are integers, but the array is float32"),
            (np.full((5, 4, 6), 200, np.int16), "values 200..200 do not fit s8"),
        ],
    )
    def test_bad_array(self, array, sentence, saved, bittrue, tmp_path):
        np.save(tmp_path / "bad.npy", array)
        status, out, err = bittrue("simulate", saved[1], tmp_path / "bad.npy", "--out", tmp_path / "y.npy")
        assert status == 1
        assert out == ""
        assert sentence in flat(err)
        assert "Traceback" not in err
        assert not (tmp_path / "y.npy").exists()

    def test_pickled_array_is_refused_unopened(self, saved, bittrue, tmp_path):
        np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        status, _, err = bittrue("simulate", saved[1], tmp_path / "bad.npy", "--out", tmp_path / "y.npy")
        assert status == 1
        assert "not a numpy file of numbers" in flat(err)

    @pytest.mark.parametrize("change", ["cut", "byte", "pickle", "absent", "folder"])
    def test_bad_program(self, change, saved, bittrue, tmp_path):
        _, path, x = saved
        content = bytearray(path.read_bytes())
        bad = tmp_path / "bad.npz"
        if change == "cut":
            bad.write_bytes(content[: len(content) // 2])
        elif change == "byte":
            content[len(content) // 2] ^= 1
            bad.write_bytes(content)
        elif change == "pickle":
            bad.write_bytes(b"\x80\x04K\x01.")
        elif change == "folder":
            bad.mkdir()
        status, _, err = bittrue("simulate", bad, x, "--out", tmp_path / "y.npy")
        assert status == 1
        assert err.startswith("error: program ")
        assert "bad.npz" in flat(err)
        assert not (tmp_path / "y.npy").exists()

    def test_place_that_cannot_be_written(self, saved, bittrue, tmp_path):
        (tmp_path / "file").write_text("")
        status, _, err = bittrue("simulate", saved[1], saved[2], "--out", tmp_path / "file" / "y.npy")
        assert status == 1
        assert "cannot be written" in flat(err)


def test_rtl_writes_the_same_bytes_twice(saved, bittrue, tmp_path):
    for name in ("a.v", "b.v"):
        status, text, _ = bittrue("rtl", saved[1], "--out", tmp_path / name, "--interval", 48, "--json")
        assert status == 0
    assert (tmp_path / "a.v").read_bytes() == (tmp_path / "b.v").read_bytes()
    assert "module bittrue_top(" in (tmp_path / "a.v").read_text()
    assert '-file "*a.v"' in (tmp_path / "a.vlt").read_text()
    assert json.loads(text)["estimated_interval"] <= 48


def test_rtl_on_paper(saved, bittrue, tmp_path):
    """Without a file only the plan, with a clock frames a second; of every number of frames that go together."""
    before = sorted(tmp_path.iterdir())
    status, out, _ = bittrue("rtl", saved[1], "--interval", 48, "--clock", 96)
    made = plan(saved[0], interval=48)
    assert status == 0
    assert f"interval {made.estimated_interval}, latency" in flat(out)
    assert f"{96e6 / made.estimated_interval:,.1f} frames a second at 96 MHz" in flat(out)
    assert "lines in" not in out
    groups = grouped(1, slots=2)
    file = groups.save(tmp_path / "groups.npz")
    status, out, _ = bittrue("rtl", file, "--interval", 2000, "--clock", 100)
    for n, (latency, cycles) in plan(groups, interval=2000).modes.items():
        said = f"{n} at a time: a group every {cycles:,} cycles, latency {latency:,}; {n * 1e8 / cycles:,.1f} frames a"
        assert said in flat(out)
    status, out, _ = bittrue("rtl", file, "--interval", 2000)
    assert "at a time: a group" in flat(out)
    assert "frames a second" not in out
    status, out, _ = bittrue("rtl", saved[1], "--interval", 48)
    assert "frames a second" not in out
    assert sorted(tmp_path.iterdir()) == sorted([*before, file])


def test_rtl_that_cannot_be_planned_writes_nothing(saved, bittrue, tmp_path):
    for options, sentence in ((("--interval", 1), "cannot be reached"), (("--device", "ecp5-58k"), "no device")):
        status, _, err = bittrue("rtl", saved[1], "--out", tmp_path / "a.v", *options)
        assert status == 1
        assert sentence in flat(err)
        assert not (tmp_path / "a.v").exists()


def test_rtl_says_what_is_against_a_vector_a_cycle(bittrue, tmp_path):
    kind = TensorType((4,), INT8)
    layer = Linear(kind, np.arange(-6, 6).reshape(3, 4), Requantize(3, 2))
    file = Program({"x": kind}, (Node("y", layer, ("x",)),), "y").save(tmp_path / "p.npz")
    words = "rtl", file, "--out", tmp_path / "a.v", "--interval", 1
    status, out, _ = bittrue(*words)
    assert status == 0
    assert "0 DSP, 0 BRAM" in flat(out)
    assert "not adders" not in out
    for options, said in (((), True), (("--architecture", "parallel"), False)):
        status, out, _ = bittrue(*words, "--weights", "written", *options)
        assert status == 0
        assert ("y: not adders: 'y.weight' is written while it runs" in flat(out)) == said
        assert "12 DSP" in flat(out)
    _, out, _ = bittrue(*words, "--weights", "written", "--json")
    assert list(json.loads(out)["hindered"]) == ["y"]


def test_plans_of_commands_take_what_a_block_ram_is_worth(bittrue, tmp_path):
    """256 bits of weights a cycle, 32 rows deep: blocks, or LUTs where a block is worth as many of them."""
    kind = TensorType((32,), INT8)
    weight = np.random.default_rng(1).integers(-128, 128, (32, 32))
    layer = Node("y", Linear(kind, weight, Requantize(32, 9)), ("x",))
    file = Program({"x": kind}, (layer,), "y").save(tmp_path / "p.npz")
    found = []
    for options in ((), ("--block-luts", 96)):
        status, out, _ = bittrue("rtl", file, "--out", tmp_path / "a.v", "--interval", 32, "--json", *options)
        assert status == 0
        found.append(json.loads(out)["estimated"]["bram"])
    assert found == [7, 0]
    words = "--verilog", tmp_path / "a.v", "--interval", 32, "--backends", "compiled", "--images", 4, "--json"
    status, out, err = bittrue("verify", file, *words, "--block-luts", 96, "--out", tmp_path / "v")
    assert status == 0, err


def test_hls_writes_a_project(saved, bittrue, tmp_path):
    status, out, _ = bittrue("hls", saved[1], "--out", tmp_path / "project", "--inputs", saved[2])
    assert status == 0
    assert "run_hls.tcl" in flat(out)
    project.write(saved[0], tmp_path / "same", [np.load(saved[2])])
    names = sorted(p.relative_to(tmp_path / "same") for p in (tmp_path / "same").rglob("*") if p.is_file())
    assert Path("top.cpp") in names
    for name in names:
        assert (tmp_path / "project" / name).read_bytes() == (tmp_path / "same" / name).read_bytes(), name


class TestVerify:
    def test_equal(self, saved, bittrue, tmp_path):
        words = ("--inputs", saved[2], "--backends", "compiled,gxx", "--out", tmp_path / "v", "--json")
        status, out, _ = bittrue("verify", saved[1], *words)
        assert status == 0
        found = json.loads(out)
        assert found["problems"] == []
        assert [row["simulator"] for row in found["rows"]] == ["compiled", "compiled", "gxx"]
        assert (tmp_path / "v" / "junit.xml").exists()

    @pytest.mark.parametrize(("asked", "run"), [(None, 64), (3, 3), (70, 70)])
    def test_random_samples_are_as_many_as_asked_for(self, asked, run, saved, bittrue, tmp_path):
        words = ("--backends", "gxx", "--out", tmp_path / "v", "--json", *(("--images", asked) if asked else ()))
        status, out, _ = bittrue("verify", saved[1], *words)
        assert status == 0
        assert [row["images"] for row in json.loads(out)["rows"]] == [run]

    def test_mismatch_is_status_1_with_the_place(self, saved, bittrue, tmp_path):
        from tests.helpers.flows import with_weight_flipped

        other = with_weight_flipped(saved[0], "embed").save(tmp_path / "other.npz")
        bittrue("rtl", other, "--out", tmp_path / "other.v")
        words = ("--verilog", tmp_path / "other.v", "--backends", "compiled", "--out", tmp_path / "v")
        status, out, err = bittrue("verify", saved[1], *words)
        assert status == 1
        assert "differs" in out
        assert "first divergence: embed (linear)" in flat(err)
        assert "divergence.vcd" in flat(err)

    @pytest.mark.parametrize(
        ("tools", "unverified"),
        [((), {"rtl", "hls"}), (("g++",), set()), (("iverilog", "vvp"), {"hls"})],
        ids=["no tool", "g++ alone", "iverilog alone"],
    )
    def test_what_no_tool_verified_is_no_success(self, tools, unverified, saved, bittrue, tmp_path, monkeypatch):
        """A kind of hardware of which no back end could run is a problem; one of which some could not is a note."""
        places = {tool: shutil.which(tool) for tool in tools}
        if None in places.values():
            pytest.skip(f"{' and '.join(tools)} are needed beside nothing else")
        missing = {name for name in verify.DEFAULT if BACKENDS[name].kind != "sim"}
        if tools:  # what runs is tried elsewhere: here it is only there
            monkeypatch.setattr(verify._Session, "check", checked)
            missing = {"g++": {"icarus"}, "iverilog": {"compiled", "gxx", "verilator"}}[tools[0]]
        (tmp_path / "bin").mkdir()
        for tool, place in places.items():
            (tmp_path / "bin" / tool).symlink_to(place)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.delenv("CXX", raising=False)
        verilate.toolchain.cache_clear()
        words = ("--inputs", saved[2], "--out", tmp_path / "v")
        status, out, err = bittrue("verify", saved[1], *words)
        assert status == bool(unverified)
        assert ("the RTL was not verified: " in flat(err)) == ("rtl" in unverified)
        assert ("the HLS kernels were not verified: " in flat(err)) == ("hls" in unverified)
        suites = {suite.get("name"): suite for suite in ET.parse(tmp_path / "v" / "junit.xml").iter("testsuite")}
        for name in missing:
            kind = BACKENDS[name].kind
            assert f"{kind} {name}" in flat(out)
            assert suites[f"{kind}.{name}"].get("skipped") == "1"
            assert "install" in suites[f"{kind}.{name}"].find("testcase/skipped").get("message")
        assert out.count("skipped") == len(missing)
        status, out, _ = bittrue("verify", saved[1], *words, "--json")
        assert status == bool(unverified)
        skipped = {row["simulator"]: row["backend"] for row in json.loads(out)["skipped"]}
        assert skipped == {name: BACKENDS[name].kind for name in missing}

    def test_unknown_back_end(self, saved, bittrue, tmp_path):
        status, _, err = bittrue("verify", saved[1], "--backends", "vcs", "--out", tmp_path / "v")
        assert status == 1
        assert "no back end is named 'vcs'" in flat(err)


def test_unknown_target_is_refused_before_any_work(saved, bittrue, tmp_path):
    status, _, err = bittrue("synth", saved[1], "--target", "ecp5-58k", "--out", tmp_path / "s")
    assert status == 1
    assert "no target 'ecp5-58k'; known are" in flat(err)
    assert not (tmp_path / "s").exists()


class TestFlow:
    def test_bad_recipe_and_key(self, bittrue, tmp_path):
        status, _, err = bittrue("flow", "lerp-psa-digit", "--out", tmp_path / "f")
        assert status == 1
        assert "did you mean 'lerp-psa-digits'?" in flat(err)
        status, _, err = bittrue("flow", "lerp-psa-digits", "train.epohs=3", "--out", tmp_path / "f")
        assert status == 1
        assert "did you mean 'train.epochs'?" in flat(err)
        assert not (tmp_path / "f").exists()

    def test_bad_data_folder_leaves_no_artefact(self, bittrue, tmp_path):
        words = ("dataset.name=mnist", f"dataset.folder={tmp_path / 'nowhere'}", "--out", tmp_path / "f")
        status, _, err = bittrue("flow", "lerp-psa-digits", *words)
        assert status == 1
        assert "nowhere does not exist" in flat(err)
        assert not (tmp_path / "f" / "train").exists()

    def test_the_status_of_a_flow_that_ends_early_is_that_of_its_steps(self, bittrue, monkeypatch, tmp_path):
        results = ({"accuracy": 1.0}, {"problems": ["the RTL was not verified: no tool"]})
        ran = [Outcome(name, tmp_path, True, "", 0.0, r) for name, r in zip(("train", "verify"), results, strict=True)]
        for outcomes, status in ((ran, 1), (ran[:1], 0)):
            monkeypatch.setattr(cli, "_flow", lambda *_, of=outcomes: (tmp_path, of))
            found, _, err = bittrue("flow", "lerp-psa-digits", "--until", outcomes[-1].step)
            assert found == status
            assert ("not verified: no tool" in flat(err)) == bool(status)

    def test_unknown_step(self, bittrue, tmp_path):
        status, _, err = bittrue("flow", "lerp-psa-digits", "--until", "bake", "--out", tmp_path / "f")
        assert status == 1
        assert "no step is named 'bake'; the steps are train, quantize" in flat(err)

    def test_train_and_quantize_alone(self, bittrue, tmp_path):
        words = (
            "train.epochs=1",
            "qat.epochs=0",
            "network.embed=8",
            "network.blocks=1",
            "--out",
            tmp_path / "f",
            "--json",
        )
        status, out, _ = bittrue("train", "lerp-psa-digits", *words)
        assert status == 0
        assert 0 < json.loads(out)["accuracy"] < 1
        status, out, err = bittrue("quantize", "lerp-psa-digits", *words)
        assert status == 0
        assert "up to date" in err
        assert Program.load(json.loads(out)["program"]).output.shape == (10,)


def test_import_headers_of_an_empty_folder(bittrue, tmp_path):
    status, _, err = bittrue("import-headers", tmp_path, "--out", tmp_path / "p.npz")
    assert status == 1
    assert "quant_params.h" in flat(err)
    assert not (tmp_path / "p.npz").exists()


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        cli.main(["--debug", "report", str(tmp_path)])


def test_interruption_is_told(bittrue, monkeypatch, saved, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Program, "load", interrupt)
    status, _, err = bittrue("simulate", saved[1], saved[2], "--out", tmp_path / "y.npy")
    assert status == 130
    assert "run the same command again to continue" in flat(err)


def checked(session, backend, images, stalls) -> None:  # noqa: ARG001
    """A back end that ran, without its run."""
    if backend.kind != "sim":
        run = Run(session.expected, 1.0)
        session._enter(session._row(backend, images, session.expected, [0], [], run, verify.NO_STALLS), 0.0)


def flat(text: str) -> str:
    """Text without the line breaks that a narrow terminal makes."""
    return " ".join(text.split())


class TestScenario:
    def test_options_are_keys_of_the_training(self, bittrue, monkeypatch, tmp_path):
        seen = []
        monkeypatch.setattr(cli, "_flow", lambda *given: seen.append(given) or (_ for _ in ()).throw(BittrueError("x")))
        words = ("flow", "photonic-mlp-digits", "train.seed=3", "--scenario", "scratch", "--optimizer", "csgd")
        assert bittrue(*words, "--out", tmp_path)[0] == 1
        assert seen[0][1] == ["train.seed=3", "train.scenario=scratch", "train.optimizer=csgd"]

    @pytest.mark.parametrize(("option", "value"), [("--scenario", "post"), ("--optimizer", "nnsgd")])
    def test_other_systems_have_none(self, bittrue, tmp_path, option, value):
        status, _, error = bittrue("flow", "lerp-psa-digits", option, value, "--out", tmp_path / "f")
        assert status == 1
        assert f"{option}: recipe 'lerp-psa-digits' is of the system 'lerp-psa'" in " ".join(error.split())
        assert not (tmp_path / "f").exists()

    def test_an_unknown_scenario_is_refused(self, bittrue, tmp_path):
        status, _, error = bittrue("flow", "photonic-mlp-digits", "--scenario", "posts", "--out", tmp_path / "f")
        assert status == 1
        assert "did you mean 'post'?" in " ".join(error.split())

    def test_help_shows_them(self, bittrue, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        out = bittrue("flow", "--help")[1]
        assert "--scenario" in out
        assert "--optimizer" in out
