"""Proof that the tests can fail: each test breaks one thing and shows that the check of the suite sees it.

The checks are those of the suite (`tests.helpers.exact`, `tests.helpers.stages`, `sim.conformance`) and of `flow`, not
weaker copies. Each is first shown to pass on what is not broken.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bittrue.sim.contract
import bittrue.sim.operations.lerp
import bittrue.sim.requantize
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.hls import host, project
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stage import Stage
from bittrue.rtl.verilog import emit
from bittrue.sim import conformance
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels import epilogue as kernels_epilogue
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from tests.helpers.exact import exact, exact_compiled
from tests.helpers.lengths import long_but
from tests.helpers.programs import resmlp, stimulus
from tests.helpers.stages import OPERATIONS

PROGRAM = resmlp(tokens=2, features=3, channels=4, hidden=6, seed=21)
FRAMES = 300
PROGRAMS = [PROGRAM, resmlp(tokens=4, channels=3, hidden=4, seed=22)]
MATRICES = [node.name for node in PROGRAM.nodes if isinstance(node.operation, Linear)]
REQUANTISED = [node.name for node in PROGRAM.nodes if isinstance(node.operation, Linear | Affine | Mean)]


@pytest.fixture
def planned() -> Plan:
    """A fresh plan, whose stages a test may spoil."""
    return plan(PROGRAM)


def stage(planned: Plan, node: str) -> Stage:
    return next(element.stage for element in planned.network.elements if element.node == node)


def half_down(a, shift):
    """`round_shift` with a rounding constant one too small: ties go the other way."""
    a, shift = np.asarray(a, np.int64), np.asarray(shift, np.int64)
    half = (np.int64(1) << shift) >> np.int64(1)
    return (a + np.maximum(half - 1, 0)) >> shift


# -- what is not broken passes ------------------------------------------------------------------------------
class TestUnbroken:
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_pipeline(self, program):
        exact(plan(program), 0)

    def test_verilog(self, planned):
        exact_compiled(planned, emit(planned), stimulus(PROGRAM, FRAMES, 0))

    def test_kernels(self, tmp_path):
        kernels_equal(project.write(PROGRAM, tmp_path))

    def test_golden(self):
        for name in OPERATIONS:
            golden_equal(name)


# -- one weight bit in the memory of the RTL ----------------------------------------------------------------
@pytest.mark.parametrize("name", long_but(MATRICES, MATRICES[0], MATRICES[-1]))
def test_weight_bit_in_a_stage(planned, name):
    (cells,) = stage(planned, name).cells
    cells.rows = cells.rows.copy()
    cells.rows[0, 0, 0] ^= 1
    with pytest.raises(AssertionError):
        exact(planned, 0)


def flip(verilog: str, memory: int, word: int, bit: int) -> str:
    """The Verilog with one bit of one word of the k-th weight memory inverted."""
    body = [m for m in re.finditer(r"initial begin\n(?:\s*weight_rom\[\d+\] = .*;\n)+", verilog)][memory]
    entry = re.search(rf"weight_rom\[{word}\] = (\d+)'([hd])([0-9a-f]+);", body[0])
    bits, base = int(entry[1]), {"h": 16, "d": 10}[entry[2]]
    assert bit < bits
    value = int(entry[3], base) ^ 1 << bit
    changed = f"weight_rom[{word}] = {bits}'h{value:x};"
    at = body.start() + entry.start()
    return verilog[:at] + changed + verilog[at + len(entry[0]) :]


@pytest.mark.long
def test_weight_bit_in_the_verilog(planned):
    changed = flip(emit(planned), memory=2, word=1, bit=0)
    with pytest.raises(BittrueError, match="codes differ, the first at"):
        exact_compiled(planned, changed, stimulus(PROGRAM, FRAMES, 0))


# -- one expected value -------------------------------------------------------------------------------------
def test_one_expected_value(planned):
    x = stimulus(PROGRAM, FRAMES, 0)
    expected = PROGRAM(*x)
    run = CompiledRtl(emit(planned), planned.inputs, planned.outputs).run(*x)
    for frame in (0, FRAMES // 2, FRAMES - 1):
        altered = expected.copy()
        altered[frame, 1] ^= 1
        with pytest.raises(BittrueError, match=f"1 of {expected.size} codes differ, the first at .*{frame}"):
            run.check(altered)
        assert run.mismatches(altered) == 1


# -- a rounding constant ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", long_but(REQUANTISED, *REQUANTISED[::4]))
def test_rounding_constant_missing_in_a_stage(planned, name):
    pipe = stage(planned, name).requantize
    half = (np.int64(1) << pipe.requantize.shift) >> 1
    pipe.numbers["before"] = pipe.numbers["before"] - half
    with pytest.raises(AssertionError):
        exact(planned, 0)


@pytest.mark.long
def test_rounding_constant_off_by_one_in_the_rtl(planned):
    pipe = stage(planned, "block0.channel.linear1").requantize
    pipe.numbers["before"] = pipe.numbers["before"] - 1
    with pytest.raises(BittrueError, match="codes differ, the first at"):
        exact_compiled(planned, emit(planned), stimulus(PROGRAM, FRAMES, 0))


def kernels_equal(folder: Path) -> None:
    """Every tensor of the kernels is the golden simulator's."""
    x = stimulus(PROGRAM, FRAMES, 0)
    kernel, golden = host.build(folder), PROGRAM.trace(*x).tensors
    for name, codes in kernel.trace(*x).items():
        np.testing.assert_array_equal(codes, golden[name], err_msg=name)


@pytest.mark.long
def test_rounding_constant_in_the_kernels(tmp_path):
    folder = project.write(PROGRAM, tmp_path)
    substitute(
        folder / "contract.hpp", "const wide_t sum = value + half;", "const wide_t sum = value + half - (half > 0);"
    )
    with pytest.raises(AssertionError):
        kernels_equal(folder)


def substitute(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def golden_equal(name: str) -> None:
    """The conformance test of `sim/` on one operation: fast execution and reference are equal."""
    for seed in range(25):
        conformance.run_equals_reference(*conformance.make(name, seed))


@pytest.mark.parametrize("name", ["Affine", "Linear", "Mean"])
class TestRoundingConstantInTheGolden:
    def test_reference(self, monkeypatch, name):
        monkeypatch.setattr(bittrue.sim.requantize, "round_shift", half_down)
        with pytest.raises(AssertionError):
            golden_equal(name)

    def test_fast(self, monkeypatch, name):
        epilogue = kernels_epilogue.Epilogue.__init__

        def spoiled(self, *arguments, **options):
            epilogue(self, *arguments, **options)
            bias_acc, multiplier, half, shift, bias = self.vectors
            self.vectors = bias_acc, multiplier, half - (shift > 0).astype(half.dtype), shift, bias

        monkeypatch.setattr(kernels_epilogue.Epilogue, "__init__", spoiled)
        with pytest.raises(AssertionError):
            golden_equal(name)


def test_rounding_of_tables_in_the_golden(planned, monkeypatch):
    """The fast table comes from the reference, so that only another realisation can tell: here the RTL."""
    monkeypatch.setattr(bittrue.sim.operations.lerp, "round_shift", lambda a, shift: a >> shift)
    with pytest.raises(AssertionError):
        exact(planned, 0)


@pytest.mark.parametrize("shift", range(0, 48, 5))
def test_rounding_of_the_contract(shift):
    """`round_shift` against whole-number arithmetic of Python; the spoiled one differs."""
    rng = np.random.default_rng(shift)
    scale = 1 << shift
    a = np.concatenate([rng.integers(-scale, scale, 100), np.arange(-9, 10) * scale // 2])
    expected = [(2 * int(v) + scale) // (2 * scale) for v in a]
    assert bittrue.sim.contract.round_shift(a, shift).tolist() == expected
    assert (half_down(a, shift).tolist() == expected) == (shift == 0)


# -- a FIFO one entry too shallow ---------------------------------------------------------------------------


@pytest.mark.parametrize(("program", "edge"), [(p, e) for p in PROGRAMS for e in plan(p).fifos])
def test_fifo_one_entry_too_shallow(program, edge):
    planned = plan(program)
    shallow = replace(planned, fifos={**planned.fifos, edge: planned.fifos[edge] - 1})
    with pytest.raises(AssertionError):
        exact(planned, 0, built=shallow)


def test_fifos_left_out_deadlock():
    planned = plan(PROGRAMS[1])
    without = replace(planned, fifos={})
    with pytest.raises(BittrueError, match="deadlock, no handshake for"):
        exact_compiled(without, emit(without), stimulus(PROGRAMS[1], FRAMES, 0))


# -- frames --------------------------------------------------------------------------------------------------
@pytest.mark.long
def test_verilog_that_drops_last(planned):
    verilog, count = re.subn(r"assign m_axis_tlast = .*;", "assign m_axis_tlast = 1'h0;", emit(planned))
    assert count == 1
    with pytest.raises(BittrueError, match="the last beat of frame 0 came without TLAST"):
        exact_compiled(planned, verilog, stimulus(PROGRAM, 20, 0))
