"""cocotb under Icarus and Verilator: the numbers of the compiled loop, planted errors, JUnit, waveforms."""

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.hls.project import write
from bittrue.sim.builder import Builder
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.affine import Affine
from bittrue.sim.requantize import Requantize
from tests.helpers.lengths import long_but
from tests.helpers.streams import (
    BUGS,
    CAUGHT,
    FAULTY,
    INPUT,
    INTERVAL,
    LATENCY,
    OUTPUT,
    STALL_ONLY,
    SUM2,
    SUM_INPUTS,
    SUM_OUTPUT,
    TENSOR,
    WIDE,
    codes,
    pipeline,
    pipeline_golden,
    plant,
    stimulus,
    sum_golden,
)

needs_icarus = pytest.mark.needs("iverilog")
SIMULATORS = [pytest.param("icarus", marks=needs_icarus), "verilator"]
STALLS = {"seed": 3, "idle": 0.3, "backpressure": 0.4}


def verdict(folder: Path) -> str | None:
    """The failure message in the JUnit file, or None if its one test passed."""
    cases = list(ElementTree.parse(folder / "results.xml").iter("testcase"))
    assert len(cases) == 1
    failure = cases[0].find("failure")
    return None if failure is None else failure.attrib.get("message", "") + (failure.text or "")


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_same_numbers_as_compiled(simulator, tmp_path):
    x = codes(TENSOR, 20, seed=1)
    golden = pipeline_golden(x)
    run = cosim.run(pipeline(), [INPUT], [OUTPUT], x, golden, simulator, folder=tmp_path).check(golden)
    compiled = CompiledRtl(pipeline(), [INPUT], [OUTPUT]).run(x)
    assert run.simulator == simulator
    assert (run.latency, run.interval) == (LATENCY, INTERVAL) == (compiled.latency, compiled.interval)
    start, reference = run.beat_cycles - run.first_input_cycle, compiled.beat_cycles - compiled.first_input_cycle
    assert np.array_equal(start, reference)
    assert verdict(tmp_path) is None


@pytest.mark.parametrize("simulator", [pytest.param("icarus", marks=[needs_icarus, pytest.mark.long]), "verilator"])
def test_stalls_are_repeatable(simulator):
    x = codes(TENSOR, 20, seed=1)
    first, again = (
        cosim.run(pipeline(), [INPUT], [OUTPUT], x, simulator=simulator, **STALLS).check(pipeline_golden(x))
        for _ in range(2)
    )
    assert np.array_equal(first.beat_cycles, again.beat_cycles)
    assert first.interval is None


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_two_inputs(simulator):
    a, b = codes(WIDE, 20, seed=1), codes(WIDE, 20, seed=2)
    run = cosim.run(SUM2, SUM_INPUTS, [SUM_OUTPUT], [a, b], simulator=simulator, **STALLS)
    run.check(sum_golden(a, b))


#: The sink's ready never follows valid.
SEEN = [bug for bug in BUGS if bug != "waits"]


@pytest.mark.parametrize("bug", long_but(SEEN, "withdraws", "early_last", "off_by_one", "deadlock"))
@needs_icarus
def test_planted_error_is_caught(bug, tmp_path):
    check_caught(bug, "icarus", tmp_path)


def test_planted_error_is_caught_by_verilator(tmp_path):
    check_caught("changes", "verilator", tmp_path)


def check_caught(bug: str, simulator: str, folder: Path) -> None:
    x = stimulus(bug)
    golden = pipeline_golden(x)
    stalls = STALLS if bug in STALL_ONLY else {}
    plant(folder, bug)
    run = cosim.run(FAULTY, [INPUT], [OUTPUT], x, golden, simulator, folder=folder, watchdog=2000, **stalls)
    with pytest.raises(BittrueError, match=CAUGHT[bug]):
        run.check(golden)
    assert verdict(folder)


@needs_icarus
def test_unknown_bits_are_caught():
    """A valid that the reset forgets is X under Icarus, and 0 by luck elsewhere."""
    verilog = pipeline().replace("            valid <= 0;\n", "")
    assert verilog != pipeline()
    run = cosim.run(verilog, [INPUT], [OUTPUT], codes(TENSOR, 2, seed=1), watchdog=2000)
    assert any("unknown bits" in error for error in run.errors)


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_waveform(simulator, tmp_path):
    x = codes(TENSOR, 2, seed=1)
    run = cosim.run(pipeline(), [INPUT], [OUTPUT], x, simulator=simulator, folder=tmp_path, waves=True)
    run.check(pipeline_golden(x))
    assert run.waves.parent == tmp_path
    assert run.waves.stat().st_size > 500


@needs_icarus
@pytest.mark.parametrize(
    ("verilog", "message"),
    [
        (pipeline().replace("reg [2:0] gap;", "reg [2:0 gap;"), "Icarus refuses the Verilog: .*syntax error"),
        (pipeline().replace("m_axis_tlast", "m_axis_tuser"), "module bittrue_top has no port m_axis_tlast"),
        (pipeline(lanes=3), "port s_axis_tdata is 24 bits wide, 16 were expected"),
        (pipeline().replace("15:0] m_axis_tdata", "23:0] m_axis_tdata"), "m_axis_tdata is 24 bits wide, 16 were"),
    ],
)
def test_wrong_verilog(verilog, message):
    with pytest.raises(BittrueError, match=message):
        cosim.run(verilog, [INPUT], [OUTPUT], codes(TENSOR, 2, seed=1))


@needs_icarus
def test_design_that_ends_the_simulation():
    verilog = pipeline().replace("if (gap != 0) gap", "if (frame_out == 3) $finish; if (gap != 0) gap")
    assert verilog != pipeline()
    run = cosim.run(verilog, [INPUT], [OUTPUT], codes(TENSOR, 9, seed=1))
    assert "the simulation ended early: s_axis accepted" in run.errors[-1]
    assert "of 54 beats, m_axis produced 18 of 54" in run.errors[-1]


@needs_icarus
def test_simulator_that_crashes(monkeypatch):
    monkeypatch.setenv("SIM_CMD_PREFIX", "false")
    with pytest.raises(BittrueError, match="icarus ended without a result; the end of its log: "):
        cosim.run(pipeline(), [INPUT], [OUTPUT], codes(TENSOR, 2, seed=1))


@needs_icarus
def test_kernel_beside_the_rtl(tmp_path):
    """The HLS kernel of the same function agrees frame by frame, and tells where a wrong RTL leaves it."""
    build = Builder({"x": TENSOR})
    ones = np.ones(TENSOR.channels, np.int64)
    build.add("plus", Affine(TENSOR, ones, Requantize(TENSOR.channels, 0, 1)), "x")
    write(build.program("plus"), tmp_path)
    x = np.minimum(stimulus("off_by_one")[:9], 100)  # the kernel saturates where the pipeline wraps
    plant(tmp_path, None)
    cosim.run(FAULTY, [INPUT], [OUTPUT], x, folder=tmp_path, kernel=tmp_path).check()
    x[x == 100] = 99
    x[7, 1, 2] = 100
    plant(tmp_path, "off_by_one")
    run = cosim.run(FAULTY, [INPUT], [OUTPUT], x, folder=tmp_path, kernel=tmp_path)
    assert len(run.errors) == 1
    assert "m_axis: the HLS kernel beside the RTL gives another word (frame 7, beat 3)" in run.errors[0]


def test_bad_arguments(tmp_path):
    x = codes(TENSOR, 2, seed=1)
    with pytest.raises(BittrueError, match="no simulator is named 'vcs'; use one of icarus, verilator"):
        cosim.run(pipeline(), [INPUT], [OUTPUT], x, simulator="vcs")
    with pytest.raises(BittrueError, match="waveforms need a folder"):
        cosim.run(pipeline(), [INPUT], [OUTPUT], x, waves=True)
    with pytest.raises(BittrueError, match="idle is a probability"):
        cosim.run(pipeline(), [INPUT], [OUTPUT], x, idle=1.0, folder=tmp_path)


def test_absent_simulator(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(BittrueError, match="icarus is not installed; run `apt-get install iverilog`"):
        cosim.run(pipeline(), [INPUT], [OUTPUT], codes(TENSOR, 2, seed=1), simulator="icarus")
