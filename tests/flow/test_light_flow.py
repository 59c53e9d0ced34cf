"""The photonic flow with its controller: every back end equal; what is broken is found at its layer; the recipe."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow import stages
from bittrue.flow.engine import recipe, steps
from bittrue.flow.report import report
from bittrue.flow.systems.light.controller import designs, geometry
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.flow.verify.verify import verify
from bittrue.rtl.light.design import PhotonicDesign
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program
from tests.helpers.lengths import long_but
from tests.helpers.photonic_programs import images, photonic_network

#: A network and an array so small that every simulator is through in seconds.
QUICK = [
    "network.hidden=[10,6]",
    "train.epochs=2",
    "finetune.epochs=1",
    "beside={full_scale: none, relu_epochs: 0}",
    "array.rows=16",
    "array.columns=4",
    "rtl.interval=2048",
    "verify={reference: 2, compiled: 20, gxx: 0, icarus: 0, verilator: 0, seed: 3}",
    "controller={lanes: 4, settling: 3, images: 3, icarus: 1, verilator: 5}",
    "synth.targets=[]",
]
ARRAY = Geometry(4, 4, 2)
NO_STALLS = Stalls()
needs_compiler = pytest.mark.needs("verilator", "g++")


# -- the flow ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole flow; its recipe, folder and outcomes by step."""
    made, out = recipe.load("photonic-mlp-digits", QUICK), tmp_path_factory.mktemp("flow")
    outcomes = steps.run(stages.steps(made), made, out)
    return made, out, {outcome.step: outcome for outcome in outcomes}


@needs_compiler
class TestFlow:
    def test_every_execution_of_the_controller_is_equal(self, done):
        _, _, outcomes = done
        assert outcomes["report"].result["problems"] == []
        result = outcomes["controller"].result
        rows = {(row["simulator"], row["stalls"]): row for row in result["rows"]}
        assert rows["compiled", False]["images"] == 450
        assert rows["compiled", True]["images"] == 256
        assert {name for name, _ in rows} == {"compiled", "icarus", "verilator"} - {
            row["simulator"] for row in result["skipped"]
        }
        for row in rows.values():
            assert row["mismatches"] == 0
            assert row["errors"] == []
            assert row["values"] == 10 * row["images"]
            assert row["interval"] == row["estimated_interval"]
            assert row["latency"] == row["estimated_latency"]
            assert row["design"] == "controller"
        assert rows["compiled", False]["interval"] > result["measurements"] * 16

    def test_registers_were_read_and_the_illegal_write_flagged(self, done):
        _, _, outcomes = done
        row = next(row for row in outcomes["controller"].result["rows"] if row["simulator"] == "verilator")
        seen = [(a["phase"], a["register"], a["wrote"], a["response"], a["read"]) for a in row["registers"]]
        assert ("before", "GEOMETRY", None, 0, 16 | 4 << 16) in seen
        assert ("before", "PROGRAM", 1, 2, None) in seen
        assert ("before", "ERRORS", None, 0, 2) in seen
        assert ("after", "FRAMES", None, 0, 5) in seen
        assert ("after", "ERRORS", None, 0, 0) in seen
        assert any(a["phase"] == "during" and a["register"] == "STATUS" for a in row["registers"])

    def test_both_texts_are_kept_with_their_registers(self, done):
        _, out, _ = done
        for name, streamed in (("controller", True), ("controller_memory", False)):
            text = (out / "controller" / f"{name}.v").read_text()
            top = re.search(r"module bittrue_top ?\(([^;]*)\);", text)[1]
            assert "s_axis_tdata" in top
            assert "s_axi_awaddr" in top
            assert ("s_axis_weights_tdata" in top) == streamed
            assert "<name>SETTLING</name>" in (out / "controller" / f"{name}.svd").read_text()

    def test_the_report_shows_it_with_the_energy_of_the_batch(self, done):
        made, out, outcomes = done
        content = json.loads((out / "report" / "report.json").read_text())
        loads = [row["images_per_load"] for row in content["controller"]["energy"]]
        assert loads == [1, made.controller.images]
        assert "The controller" in (out / "report" / "report.html").read_text()
        assert report.problems(content) == []

    @pytest.mark.long
    def test_the_pipeline_is_not_trained_again_for_the_controller(self, done):
        _, out, _ = done
        made = recipe.load(
            "photonic-mlp-digits", [*QUICK, "controller.settling=5", "controller.icarus=0", "controller.verilator=0"]
        )
        ran = {outcome.step for outcome in steps.run(stages.steps(made), made, out, until="controller") if outcome.ran}
        assert ran == {"rtl", "controller"}


@needs_compiler
@pytest.mark.long
def test_a_wrong_weight_fails_the_flow_and_names_its_place(done, monkeypatch, tmp_path):
    made, out, _ = done
    shutil.copytree(out, tmp_path / "flow")
    rails = Jobs.rails

    def spoiled(self):
        for k, (plus, minus) in enumerate(rails(self)):
            yield plus ^ 64 * (k == 5), minus

    monkeypatch.setattr(Jobs, "rails", spoiled)
    outcomes = steps.run(stages.steps(made), made, tmp_path / "flow", start="controller")
    problems = outcomes[-1].result["problems"]
    assert len(problems) >= 2
    assert all(problem.startswith("controller/") for problem in problems)
    place = r"first divergence: layers_0_array \(photonicmac\), image \d+, \[\d+, \d+\]: "
    place += r"expected \d+, got \d+ in cycle \d+; open "
    assert re.search(r"controller/compiled: \d+ of 4500 values differ; " + place, problems[0])
    assert str(tmp_path / "flow" / "controller" / "memory" / "divergence.vcd") in problems[0]


# -- the first divergence ------------------------------------------------------------------------------
def diverges(program, text, x, tmp_path, stalls=NO_STALLS):
    build = Build(program, design=PhotonicDesign(program, ARRAY), verilog=text)
    found = verify(build, [x], {"compiled": None}, stalls, tmp_path)
    assert found.rows
    return next((row["divergence"] for row in found.rows if row["divergence"]), None)


@needs_compiler
class TestDivergence:
    @pytest.mark.long
    @pytest.mark.parametrize(
        ("noise", "last", "layer"), long_but([(False, True, "mac1"), (True, False, "mac0")], (True, False, "mac0"))
    )
    def test_a_flipped_weight_is_found_at_its_layer(self, noise, last, layer, tmp_path):
        program = photonic_network(noise=noise)
        text = PhotonicDesign(program, ARRAY).verilog()
        words = re.findall(r" weights\[\d+\] = 12'h\w+;", text)
        word = words[-1 if last else 0]
        start, value = word.rstrip(";").split("12'h")
        broken = text.replace(word, f"{start}12'h{int(value, 16) ^ 4:03x};")
        assert broken != text
        found = diverges(program, broken, images(program, 30), tmp_path)
        assert (found["operation"], found["kind"]) == (layer, "photonicmac")
        golden = program.trace(images(program, 30)[: found["frame"] + 1]).tensors[layer]
        assert golden[(found["frame"], *found["index"])] == found["expected"] != found["got"]
        assert (tmp_path / "divergence.vcd").exists()
        assert found["waves"] == str(tmp_path / "divergence.vcd")

    @pytest.mark.long
    def test_a_wrong_table_is_found_at_the_activation(self, tmp_path):
        program = photonic_network()
        nodes = list(program.nodes)
        (at,) = [k for k, node in enumerate(nodes) if node.name == "act0"]
        knots = nodes[at].operation.knots.copy()
        knots[:, 20:30] ^= 1
        nodes[at] = replace(nodes[at], operation=replace(nodes[at].operation, knots=knots))
        wrong = PhotonicDesign(replace(program, nodes=tuple(nodes)), ARRAY).verilog()
        found = diverges(program, wrong, images(program, 20), tmp_path, Stalls(0.2, 0.3, 4))
        assert found["operation"] == "act0"
        golden = program.trace(images(program, 20)).tensors["act0"]
        assert golden[(found["frame"], *found["index"])] == found["expected"] == found["got"] ^ 1

    @pytest.mark.long
    def test_a_wrong_result_behind_right_codes_is_the_sums(self, tmp_path):
        program = photonic_network()
        nodes = list(program.nodes)
        total = nodes[-1].operation
        shifted = replace(total.requantize, bias=total.requantize.bias + 1)
        nodes[-1] = replace(nodes[-1], operation=replace(total, requantize=shifted))
        wrong = PhotonicDesign(replace(program, nodes=tuple(nodes)), ARRAY).verilog()
        found = diverges(program, wrong, images(program, 5), tmp_path)
        assert (found["operation"], found["kind"], found["frame"]) == (nodes[-1].name, "tilesum", 0)

    def test_where_the_waveform_would_be_too_long_the_results_tell(self, tmp_path):
        """Noise follows the image, so a waveform has to begin at image 0; it would have more images than it may."""
        program = photonic_network(noise=True)
        nodes, x = list(program.nodes), images(program, 22)
        (at,) = [k for k, node in enumerate(nodes) if node.name == "act0"]
        for code in range(64):
            knots = nodes[at].operation.knots.copy()
            knots[:, code] ^= 1
            other = list(nodes)
            other[at] = replace(nodes[at], operation=replace(nodes[at].operation, knots=knots))
            wrong = replace(program, nodes=tuple(other))
            differs = (wrong(x) != program(x)).any(axis=1)
            if differs.any() and differs.argmax() >= 8:
                break
        else:
            pytest.fail("no table differs late enough")
        found = diverges(program, PhotonicDesign(wrong, ARRAY).verilog(), x, tmp_path)
        assert (found["operation"], found["frame"]) == (program.result, int(differs.argmax()))
        assert found["waves"] is None

    def test_a_right_system_has_none(self, tmp_path):
        program = photonic_network()
        assert diverges(program, PhotonicDesign(program, ARRAY).verilog(), images(program, 5), tmp_path) is None


# -- the recipe ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("controller.lanes=6", "lanes are a power of two"),
        ("controller.settling=0", "controller.settling = 0 is not usable"),
        ("controller.image=3", "did you mean 'controller.images'"),
        ("controller.synth=[ecp5-86k]", "did you mean 'ecp5-85k'"),
        ("controller.icarus=-1", "controller.icarus = -1 is not usable"),
    ],
)
def test_a_recipe_says_what_is_wrong(override, says):
    with pytest.raises(BittrueError, match=says):
        recipe.load("photonic-mlp-digits", [override])


@pytest.mark.parametrize(
    ("array", "lanes"),
    [
        ("{rows: 64, columns: 64}", 8),
        ("{rows: 20, columns: 64}", 4),
        ("{rows: 64, columns: 4}", 4),
        ("{rows: 7, columns: 8}", 1),
    ],
)
def test_lanes_suit_the_array(done, array, lanes):
    _, out, _ = done
    program = Program.load(out / "lower" / "program.npz")
    made = recipe.load("photonic-mlp-digits", [f"array={array}"])
    assert geometry(made, program).lanes == lanes


def test_the_controller_alone_has_no_twin_and_streams_its_weights(done):
    made, out, _ = done
    program = Program.load(out / "lower" / "program.npz")
    assert designs(made, program) == []
    part = made.controller.model_copy(update={"synth": ("ecp5-85k",)})
    ((alone, targets),) = designs(made.model_copy(update={"controller": part}), program)
    assert (alone.name, targets) == ("controller", ("ecp5-85k",))
    text = alone.verilog()
    assert "fe_adc_data" in text
    assert "s_axis_weights_tdata" in text
    assert "twin" not in text


def test_only_photonic_flows_have_the_step_and_its_sources_exist():
    made = {step.name: step for step in stages.steps(recipe.load("photonic-mlp-digits"))}
    assert list(made)[-4:] == ["verify", "controller", "synth", "report"]
    assert "controller" in made["report"].needs
    assert all((steps.ROOT / path).exists() for step in made.values() for path in step.code)
    assert "controller" not in [step.name for step in stages.steps(recipe.load("relu-digits"))]


def test_expected_outputs_are_not_constant(done):
    _, out, _ = done
    assert len(np.unique(np.load(out / "lower" / "expected.npy"), axis=0)) > 100
