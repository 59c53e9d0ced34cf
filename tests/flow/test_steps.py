"""The framework of a staged flow: skipping, resuming, forcing, and which change makes which step run again."""

import re
import shutil
from types import SimpleNamespace

import pytest

from bittrue.flow import stages
from bittrue.flow.engine import steps
from bittrue.flow.engine.recipe import load
from bittrue.flow.engine.steps import Step
from bittrue.flow.run.sources import SIMULATORS
from bittrue.sim.errors import BittrueError
from tests.helpers.flows import QUICK


@pytest.fixture
def quick():
    return load("lerp-psa-digits", QUICK)


class Chain:
    """Three steps that note when they run; each writes a file made from the one before."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fail_in: str | None = None

    def step(self, name: str, needs: tuple[str, ...] = (), sections: tuple[str, ...] = ()) -> Step:
        def run(recipe, work):
            self.ran.append(name)
            seen = "".join((work.upstream[n] / "out.txt").read_text() for n in needs)
            (work.folder / "out.txt").write_text(f"{seen}{name}{recipe.part(*sections)}")
            if self.fail_in == name:
                raise KeyboardInterrupt
            return {"length": len(seen)}

        return Step(name, run, needs, sections)

    def steps(self) -> list[Step]:
        return [self.step("a", (), ("verify",)), self.step("b", ("a",)), self.step("c", ("b",), ("synth",))]


class TestSteps:
    def test_second_run_does_nothing(self, quick, tmp_path):
        chain = Chain()
        steps.run(chain.steps(), quick, tmp_path)
        again = steps.run(chain.steps(), quick, tmp_path)
        assert chain.ran == ["a", "b", "c"]
        assert [outcome.ran for outcome in again] == [False] * 3
        assert again[1].result == {"length": len((tmp_path / "a" / "out.txt").read_text())}

    def test_what_is_due_and_how_long_it_takes_is_known_before(self, tmp_path, monkeypatch):
        """Before the first run from what was measured for the recipe, later from this folder's last time."""
        here = {"class": "AVX2", "cores": 2}
        known = {"machine": here, "seconds": {"a": 7.0, "b": 9.0}}
        monkeypatch.setattr(steps.durations, "measured", lambda name: known if name == "lerp-psa-digits" else None)
        chain, told = Chain(), []

        class Ear(steps.Silent):
            def expect(self, steps):
                assert chain.ran == []
                told.append([(one.step, one.due, one.seconds, one.machine) for one in steps])

        def run(*changes: str, **options: str) -> list:
            chain.ran.clear()
            steps.run(chain.steps(), load("lerp-psa-digits", [*QUICK, *changes]), tmp_path, listener=Ear(), **options)
            return told[-1]

        assert run() == [("a", True, 7.0, here), ("b", True, 9.0, here), ("c", True, None, None)]
        last = [steps.stamp(tmp_path / name)["seconds"] for name in "abc"]
        assert [one[1:3] for one in run()] == [(False, taken) for taken in last]
        assert [one[1] for one in run("synth.frequency_mhz=50")] == [False, False, True]
        assert chain.ran == ["c"]
        assert [one[1] for one in run("verify.seed=5")] == [True, True, True]
        assert chain.ran == ["a", "b", "c"]
        assert [one[1] for one in run("verify.seed=5", start="b")] == [False, True, True]
        assert [one[0] for one in run(until="b")] == ["a", "b"]
        (tmp_path / "b" / "out.txt").write_text("altered")
        assert [one[1] for one in run()] == [False, True, True]

    def test_seconds_are_measured_to_the_thousandth(self, quick, tmp_path, monkeypatch):
        clock = iter([10.0, 11.234567, 20.0, 20.0004, 30.0, 93.0])
        monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
        found = steps.run(Chain().steps(), quick, tmp_path)
        assert [outcome.seconds for outcome in found] == [1.235, 0.0, 63.0]
        assert [steps.stamp(tmp_path / name)["seconds"] for name in "abc"] == [1.235, 0.0, 63.0]

    def test_only_what_depends_on_a_change_runs(self, quick, tmp_path):
        chain = Chain()
        steps.run(chain.steps(), quick, tmp_path)
        chain.ran.clear()
        outcomes = steps.run(chain.steps(), load("lerp-psa-digits", [*QUICK, "synth.frequency_mhz=50"]), tmp_path)
        assert chain.ran == ["c"]
        assert outcomes[2].why == "the recipe's synth changed"
        steps.run(chain.steps(), load("lerp-psa-digits", [*QUICK, "verify.seed=5"]), tmp_path)
        assert chain.ran == ["c", "a", "b", "c"]

    @pytest.mark.parametrize("name", ["a", "b", "c"])
    def test_interrupted_step_leaves_nothing_and_the_next_run_resumes(self, name, quick, tmp_path):
        chain = Chain()
        chain.fail_in = name
        with pytest.raises(KeyboardInterrupt):
            steps.run(chain.steps(), quick, tmp_path)
        assert not (tmp_path / name).exists()
        assert not (tmp_path / f".{name}.partial").exists()
        chain.fail_in = None
        done = chain.ran[:-1]
        chain.ran.clear()
        steps.run(chain.steps(), quick, tmp_path)
        assert done + chain.ran == ["a", "b", "c"]

    def test_interrupted_rerun_keeps_the_old_artefact(self, quick, tmp_path):
        chain = Chain()
        steps.run(chain.steps(), quick, tmp_path)
        before = (tmp_path / "b" / "out.txt").read_text()
        chain.fail_in = "b"
        with pytest.raises(KeyboardInterrupt):
            steps.run(chain.steps(), quick, tmp_path, start="b")
        assert (tmp_path / "b" / "out.txt").read_text() == before

    def test_a_step_may_take_its_checkpoints_away_itself(self, quick, tmp_path):
        def run(_recipe, work):
            shutil.rmtree(work.scratch)
            return {}

        (outcome,) = steps.run([Step("a", run)], quick, tmp_path)
        assert outcome.ran
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a"]

    def test_checkpoint_survives_an_interruption_of_the_same_inputs_only(self, tmp_path):
        seen = []

        def run(_recipe, work):
            seen.append((work.scratch / "checkpoint").exists())
            (work.scratch / "checkpoint").write_text("half way")
            if len(seen) < 3:
                raise KeyboardInterrupt
            return {}

        for overrides in ([], [], ["verify.seed=9"], ["verify.seed=9"]):
            with pytest.raises(KeyboardInterrupt) if len(seen) < 2 else _nothing():
                steps.run([Step("s", run, (), ("verify",))], load("lerp-psa-digits", overrides), tmp_path)
        assert seen == [False, True, False]
        assert not list(tmp_path.glob(".s.scratch-*"))

    def test_altered_or_deleted_artefact_is_made_again(self, quick, tmp_path):
        chain = Chain()
        steps.run(chain.steps(), quick, tmp_path)
        (tmp_path / "b" / "out.txt").write_text("altered")
        chain.ran.clear()
        assert steps.run(chain.steps(), quick, tmp_path)[1].why == "its files were altered"
        assert chain.ran == ["b"]  # it came out as before, so nothing after it has changed
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "c" / "step.json").write_text("{")
        chain.ran.clear()
        steps.run(chain.steps(), quick, tmp_path)
        assert chain.ran == ["a", "c"]
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a", "b", "c"]

    def test_changed_sources_and_forcing(self, quick, tmp_path, monkeypatch):
        chain = Chain()
        steps.run(chain.steps(), quick, tmp_path)
        chain.ran.clear()
        steps.run(chain.steps(), quick, tmp_path, start="b")
        assert chain.ran == ["b", "c"]
        monkeypatch.setattr(steps, "source_hash", lambda _: "another")
        chain.ran.clear()
        outcomes = steps.run(chain.steps(), quick, tmp_path, until="a")
        assert (chain.ran, outcomes[0].why) == (["a"], "bittrue's sources changed")

    def test_bad_step_names(self, quick, tmp_path):
        with pytest.raises(BittrueError, match="no step is named 'd'; the steps are a, b, c"):
            steps.run(Chain().steps(), quick, tmp_path, until="d")
        with pytest.raises(BittrueError, match="'c' to start from comes after 'a'"):
            steps.run(Chain().steps(), quick, tmp_path, until="a", start="c")

    def test_two_flows_in_one_folder_are_refused(self, quick, tmp_path):
        def run(_recipe, _work):
            with pytest.raises(BittrueError, match="another bittrue is working in"):
                steps.run(Chain().steps(), quick, tmp_path)
            return {}

        steps.run([Step("s", run)], quick, tmp_path)

    def test_source_hash_sees_every_source(self, monkeypatch, tmp_path):
        monkeypatch.setattr(steps, "ROOT", tmp_path)
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "a.py").write_text("1")
        before = steps.source_hash(("pack",))
        (tmp_path / "pack" / "test_a.py").write_text("a test changes no result")
        assert steps.source_hash(("pack",)) == before
        (tmp_path / "pack" / "b.hpp").write_text("2")
        assert steps.source_hash(("pack",)) != before


class _nothing:
    def __enter__(self):
        pass

    def __exit__(self, *exception):
        return False


def test_every_source_that_a_step_uses_exists(quick):
    for step in stages.steps(quick):
        for name in step.code:
            assert (steps.ROOT / name).exists(), f"{step.name}: {name}"
        assert set(step.sections) <= set(type(quick).model_fields), step.name


def test_a_simulation_is_done_again_when_any_source_of_it_changes():
    """All of flow/run that the back ends import, cocotb's side of it, and the C++ that is compiled with a design."""

    def imported(file):
        found = re.findall(r"bittrue\.flow\.run(?:\.(\w+))? import(?: (\w+))?", file.read_text())
        return {f"{module or name}.py" for module, name in found}

    run = steps.ROOT / "flow/run"
    found, left = set(), {"testbench.py"} | imported(steps.ROOT / "flow/verify/backends.py")
    while left:
        found.add(name := left.pop())
        left |= imported(run / name) - found
    found |= {file.name for file in run.iterdir() if file.suffix in (".cpp", ".h")}
    assert {f"flow/run/{name}" for name in found} == {name for name in SIMULATORS if name.startswith("flow/run/")}


def test_the_placers_seed_is_the_recipes(tmp_path, monkeypatch):
    """It reaches place and route, and the row says it."""
    from bittrue.flow.synth import designs
    from bittrue.rtl.dataflow.design import PipelineDesign
    from bittrue.rtl.dataflow.plan import plan
    from tests.helpers.flows import program

    seen = []

    class Result:
        def to_dict(self):
            return {"lut": 1}

    def synthesize(text, target, folder, frequency, seed, **_):
        folder.mkdir(parents=True)
        seen.append((text, target, frequency, seed))
        return Result()

    made = PipelineDesign(plan(program()))
    monkeypatch.setattr(designs, "synthesize", synthesize)
    monkeypatch.setattr(stages, "read_design", lambda *_: (made, "text"))
    program().save(tmp_path / "program.npz")
    (tmp_path / "work").mkdir()
    places = {"folder": tmp_path / "work", "scratch": tmp_path / "scratch"}
    before = dict.fromkeys(("lower", "rtl"), tmp_path)
    work = steps.Workspace(
        **places, upstream=before, results={"rtl": {"beside": {}}}, seconds={}, progress=lambda *_: None
    )
    (row,) = stages.synth(load("lerp-psa-digits", ["synth.seed=3"]), work)["targets"]
    assert (seen, row["seed"], row["design"]) == ([("text", "ecp5-85k", 100.0, 3)], 3, "pipeline")


@pytest.mark.parametrize(("left", "words"), [(None, "No such file"), (b"{}", ""), (b"\x00", "")])
def test_a_design_that_cannot_be_read_is_to_be_made_again(left, words, tmp_path):
    if left is not None:
        (tmp_path / f"{stages.TOP}.json").write_bytes(left)
    with pytest.raises(BittrueError, match=rf"design .*{stages.TOP}\.json: .*{words}.*; make it again"):
        stages.read_design(None, tmp_path)


@pytest.mark.parametrize("registers", [True, False])
def test_a_design_has_a_description_of_its_registers_where_it_has_any(registers, tmp_path):
    described = SimpleNamespace(svd=lambda: "<device/>") if registers else None
    made = SimpleNamespace(verilog=lambda: "module a;\nendmodule\n", to_json=lambda: {"kind": "mine"}, map=described)
    stages.write_design(made, tmp_path, name="a")
    assert {path.name for path in tmp_path.iterdir()} - {"a.vlt"} == {"a.v", "a.json", *(["a.svd"] * registers)}
