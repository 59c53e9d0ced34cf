"""The spikes counted in the compiled RTL are those of the golden simulator, layer by layer, and a wrong one is seen."""

import numpy as np
import pytest

from bittrue.flow.run import monitors
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.verify import verify
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.program import Program
from tests.helpers.lengths import long_but
from tests.helpers.programs import resmlp, spiking, stimulus
from tests.helpers.spiking import silent

pytestmark = pytest.mark.needs("verilator", "g++")
FRAMES = 40


def golden_ones(program: Program, x: list[np.ndarray]) -> dict[str, int]:
    tensors = program.trace(*x).tensors
    return {
        node.name: int(np.count_nonzero(tensors[node.name]))
        for node in program.nodes
        if program.types[node.name].format == SPIKE
    }


@pytest.mark.parametrize("architecture", long_but(["parallel", "events"], "events"))
@pytest.mark.parametrize("shape", [pytest.param((6,), marks=pytest.mark.long), (3, 4)])
def test_counts_equal_the_golden_ones(architecture, shape):
    program = spiking(shape=shape, halving=True, seed=3)
    planned = plan(program, interval=1000, architecture=architecture)
    design = PipelineDesign(planned)
    rtl = CompiledRtl.of(design, monitors=monitors.of(design))
    x = stimulus(program, FRAMES, 5)
    expected = golden_ones(program, x)
    assert list(expected) == ["encode", "block.fire", "fire"]
    assert min(expected.values()) > 0
    for stalls in ({}, {"stall_seed": 3, "idle": 0.4, "backpressure": 0.4}):
        run = rtl.run(*x, **stalls).check(program(*x))
        assert run.ones == expected
    assert rtl.run(*(v[:1] for v in x)).ones == golden_ones(program, [v[:1] for v in x])  # counters start anew


def test_wide_beats_are_counted_lane_by_lane():
    program = spiking(shape=(2, 4), halving=False, seed=7)
    planned = plan(program, interval=2 * 8)
    design = PipelineDesign(planned)
    watched = monitors.of(design)
    assert max(monitor.lanes for monitor in watched) > 1
    rtl = CompiledRtl.of(design, monitors=watched)
    x = stimulus(program, FRAMES, 6)
    assert rtl.run(*x).check(program(*x)).ones == golden_ones(program, x)


def test_a_program_without_spikes_pays_nothing():
    assert monitors.of(PipelineDesign(plan(resmlp(seed=1)))) == ()
    assert monitors.verilog(()) == ""


class TestVerify:
    def run(self, build: Build, tmp_path, images: int = FRAMES) -> verify.Verification:
        x = stimulus(build.program, images, 9)
        return verify.verify(build, x, {"compiled": None}, Stalls(0.3, 0.3, 0), tmp_path)

    def test_the_rows_hold_both_counts(self, tmp_path):
        program = silent(64)
        found = self.run(Build(program), tmp_path)
        assert found.problems == []
        expected = golden_ones(program, stimulus(program, FRAMES, 9))
        assert [row["stalls"] for row in found.rows] == [False, True]
        for row in found.rows:
            assert row["events"] == {"fire": {"golden": expected["fire"], "rtl": expected["fire"]}}

    def test_frames_that_ran_again_are_counted_again(self, tmp_path):
        """A few images are repeated until the cycles are settled; the counts are of all frames that ran."""
        found = self.run(Build(silent(64)), tmp_path, images=2)
        assert found.problems == []
        one = golden_ones(silent(64), stimulus(silent(64), 2, 9))["fire"]
        assert found.rows[0]["events"]["fire"]["golden"] > 2 * one

    def test_a_spike_that_no_output_shows_is_a_problem(self, tmp_path):
        """The Verilog is of neurons with another threshold: every output is right, the spikes are not."""
        right, wrong = silent(64), silent(65)
        x = stimulus(right, FRAMES, 9)
        assert np.array_equal(right(*x), wrong(*x))
        found = self.run(Build(right, verilog=emit(plan(wrong))), tmp_path)
        assert all(row["mismatches"] == 0 and not row["errors"] for row in found.rows)
        said = (
            f"{golden_ones(wrong, x)['fire']} events left fire, in the golden simulator {golden_ones(right, x)['fire']}"
        )
        assert [problem.partition(": ")[2] for problem in found.problems] == [said, said]
        assert "events left fire" in (tmp_path / "junit.xml").read_text()
