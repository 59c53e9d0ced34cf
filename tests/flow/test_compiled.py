"""The compiled batch loop: values, cycles, stalls, and every planted error caught."""

import multiprocessing
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bittrue.flow.run import verilate
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.registered import BENCH, behind_register
from bittrue.flow.run.result import RtlRun
from bittrue.flow.run.verilate import cached
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from tests.helpers.programs import stimulus as stimulus_of
from tests.helpers.programs import two_inputs
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

STALLS = {"stall_seed": 3, "idle": 0.3, "backpressure": 0.4}


@pytest.fixture(scope="module")
def design() -> CompiledRtl:
    return CompiledRtl(pipeline(), [INPUT], [OUTPUT])


@pytest.fixture(scope="module")
def adder() -> CompiledRtl:
    return CompiledRtl(SUM2, SUM_INPUTS, [SUM_OUTPUT])


@pytest.fixture(scope="module")
def emitted() -> tuple[CompiledRtl, list[np.ndarray], list[np.ndarray]]:
    """A design as it is emitted, with two inputs; frames for it, and what it has to give."""
    program = two_inputs()
    design, x = plan(program), stimulus_of(program, 5, 2)
    rtl = CompiledRtl(emit(design), design.inputs, design.outputs, optimize="-O0")
    return rtl, x, program.run(*x)


def test_values_latency_interval(design):
    x = codes(TENSOR, 500, seed=1)
    run = design.run(x).check(pipeline_golden(x))
    assert run.mismatches(pipeline_golden(x)) == 0
    assert run.first_divergence(pipeline_golden(x)) is None
    assert (run.latency, run.interval) == (LATENCY, INTERVAL)
    assert (run.intervals == INTERVAL).all()
    assert (run.first_input_cycle, run.first_output_cycle) == (0, LATENCY)
    assert run.frame_end_cycles[-1] == LATENCY + 499 * INTERVAL + OUTPUT.beats - 1
    assert run.images_per_second > 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("idle", "backpressure"), [(0.0, 0.5), (0.5, 0.0), (0.5, 0.5), (0.95, 0.1), (0.1, 0.95)])
def test_stalls(design, idle, backpressure, seed):
    x = codes(TENSOR, 100, seed)
    run = design.run(x, stall_seed=seed, idle=idle, backpressure=backpressure).check(pipeline_golden(x))
    assert run.interval is None or run.interval > INTERVAL


def test_stalls_are_repeatable_and_depend_on_the_seed(design):
    x = codes(TENSOR, 50, seed=2)
    first, again, other = (design.run(x, **STALLS | {"stall_seed": s}).beat_cycles for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_stall_probability(design):
    """With a sink that is closed 3 cycles of 4, a beat takes 4 cycles on average."""
    x = codes(TENSOR, 2000, seed=2)
    run = design.run(x, stall_seed=1, backpressure=0.75)
    assert 3.8 < (run.frame_end_cycles[-1] - run.first_output_cycle) / run.beat_cycles.size < 4.2


def test_two_inputs_wide_ports(adder):
    a, b = codes(WIDE, 300, seed=1), codes(WIDE, 300, seed=2)
    for stalls in ({}, STALLS):
        run = adder.run(a, b, **stalls).check(sum_golden(a, b))
    assert adder.run(a, b).latency == 1
    assert adder.run(a, b).interval == SUM_OUTPUT.beats
    with pytest.raises(BittrueError, match="codes differ"):
        run.check(sum_golden(a, a))


@pytest.mark.long
@pytest.mark.parametrize("level", ["-O0", "-O1"])
def test_verilators_header_is_compiled_once_and_taken(level, tmp_path):
    """g++ takes a precompiled header only for flags that are its own, and else reads the text without a word."""
    flags = ["-DVM_TRACE=0", level]
    header = verilate._headers(flags)
    (tmp_path / "empty.cpp").write_text("")
    words = [verilate.toolchain().gxx, *verilate.COMMON_FLAGS, *flags, "-include", header, *verilate._includes(), "-H"]
    done = subprocess.run([*words, "-c", "empty.cpp"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stderr.splitlines()[0] == f"! {header}.gch"


@pytest.mark.parametrize(("size", "files"), [(1_000, 1), (100_000, verilate.JOBS)])
def test_a_small_design_is_one_file_and_a_large_one_several_of_a_size(size, files, monkeypatch, tmp_path):
    """Headers are most of what a small one takes; what runs once at the start has a file of its own."""
    monkeypatch.setattr(verilate, "_headers", lambda _: tmp_path / "headers.h")
    monkeypatch.setattr(verilate, "command", lambda *_: None)
    sizes = {f"V{k}{'__Slow' * (k > 6)}.cpp": size * (1 + k % 3) for k in range(10)}
    for name, count in sizes.items():
        (tmp_path / name).write_text(" " * count)
    made = verilate.compile_generated([tmp_path / name for name in sizes], [], "-O1", tmp_path)
    *fast, slow = (re.findall(r'#include "(.+)"\n', place.with_suffix(".cpp").read_text()) for place in made)
    assert slow == [name for name in sizes if "__Slow" in name]
    assert sorted([*slow, *(name for names in fast for name in names)]) == sorted(sizes)
    assert len(fast) == files
    each = [sum(sizes[name] for name in names) for names in fast]
    assert max(each) - min(each) <= size


def test_two_designs_in_one_process(design, adder):
    x, a = codes(TENSOR, 20, seed=1), codes(WIDE, 20, seed=1)
    first = design.run(x).outputs
    adder.run(a, a).check(sum_golden(a, a))
    assert np.array_equal(design.run(x).outputs, first)


def test_progress(design):
    seen = []
    design.run(codes(TENSOR, 2000, seed=1), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2000, 2000)
    assert seen == sorted(seen)
    assert len(seen) > 1


@pytest.fixture(scope="module")
def faulty() -> CompiledRtl:
    return CompiledRtl(FAULTY, [INPUT], [OUTPUT], optimize="-O0")


@pytest.fixture
def planted(faulty, tmp_path, monkeypatch):
    """The simulator with an error, or with none."""
    monkeypatch.chdir(tmp_path)

    def choose(bug: str | None) -> CompiledRtl:
        plant(tmp_path, bug)
        return faulty

    return choose


def test_nothing_planted_is_right(planted):
    x = stimulus("off_by_one")
    planted(None).run(x, **STALLS).check(pipeline_golden(x))


@pytest.mark.parametrize("bug", BUGS)
def test_planted_error_is_caught(planted, bug):
    design, x = planted(bug), stimulus(bug)
    golden = pipeline_golden(x)
    with pytest.raises(BittrueError, match=CAUGHT[bug]):
        design.run(x, **STALLS, watchdog=2000).check(golden)
    if bug in STALL_ONLY:
        design.run(x).check(golden)
    else:
        with pytest.raises(BittrueError, match=CAUGHT[bug]):
            design.run(x, watchdog=2000).check(golden)


def test_altered_expected_value_is_caught(design):
    x = codes(TENSOR, 30, seed=1)
    golden = pipeline_golden(x)
    golden[11, 2, 1] ^= 1
    run = design.run(x)
    assert run.mismatches(golden) == 1
    found = run.first_divergence(golden)
    assert (found.frame, found.flat, found.index) == (11, 9, (2, 1))
    assert (found.expected, found.got) == (golden[11, 2, 1], golden[11, 2, 1] ^ 1)
    assert found.cycle == LATENCY + 11 * INTERVAL + 4


def test_inputs_left_over():
    """An output frame shorter than the input's: all outputs come before all inputs are taken."""
    half = StreamPort("m_axis", TensorType((3, 2), Format(8)), 2)
    run = CompiledRtl(pipeline(), [INPUT], [half]).run(codes(TENSOR, 200, seed=1))
    assert any("all outputs came before all inputs were taken: s_axis accepted" in e for e in run.errors)


@pytest.mark.parametrize("task", ["$finish", '$fatal(1, "stop")'])
def test_design_that_ends_the_simulation(task):
    verilog = pipeline().replace("if (gap != 0) gap", f"if (frame_out == 3) {task}; if (gap != 0) gap")
    assert verilog != pipeline()
    run = CompiledRtl(verilog, [INPUT], [OUTPUT], optimize="-O0").run(codes(TENSOR, 9, seed=1))
    assert "the simulation ended early: s_axis accepted" in run.errors[-1]


def test_wrong_padding_is_caught():
    narrow = StreamPort("m_axis", TensorType((3, 4), Format(5)), 2)
    run = CompiledRtl(pipeline(), [INPUT], [narrow]).run(np.full((1, 3, 4), 15, np.int8))
    assert "frame 0, beat 0, lane 0 holds 0x10, whose bits above 5 do not extend a code of s5" in run.errors[0]


def test_max_cycles(design):
    run = design.run(codes(TENSOR, 100, seed=1), max_cycles=50)
    assert run.cycles == 50
    assert "stopped by max_cycles after 50 cycles: s_axis accepted" in run.errors[0]
    assert run.interval is None


# -- results ---------------------------------------------------------------------------------------------
def result(ends: list[int]) -> RtlRun:
    cycles = np.array(ends, np.int64).reshape(-1, 1)
    return RtlRun("compiled", ("m_axis",), (np.zeros((len(ends), 2), np.int8),), (cycles,), 3, 100, 1.0)


@pytest.mark.parametrize(
    ("ends", "interval"),
    [
        ([5], None),
        ([5, 9], None),
        ([5, 9, 13], 4),
        ([5, 9, 14], None),
        ([5, 7, 11, 15, 19], 4),
        ([5, 6, 7, 11, 15, 19], 4),
        ([5, 9, 13, 17, 22], None),
        ([5, 9, 13, -1], None),
    ],
)
def test_interval(ends, interval):
    assert result(ends).interval == interval
    assert result(ends).latency == 2


def test_missing_values_are_mismatches():
    run = result([5, 9, -1, -1])
    assert run.mismatches(np.zeros((4, 2))) == 4
    assert str(run.first_divergence(np.zeros((4, 2)))) == "frame 2, output[0]: expected 0, never produced"
    with pytest.raises(BittrueError, match="only 2 of 4 output beats"):
        run.check()
    with pytest.raises(BittrueError, match=re.escape("shape (4, 3), the RTL's (4, 2)")):
        run.mismatches(np.zeros((4, 3)))


# -- bad input -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "1 inputs .s_axis., got 0"),
        ((np.zeros((0, 3, 4), np.int8),), {}, "empty batch"),
        ((np.zeros((1, 3, 5), np.int8),), {}, "port s_axis: expected shape"),
        ((np.zeros((1, 3, 4)),), {}, "codes are integers"),
        ((np.zeros((1, 3, 4), np.int8),), {"idle": 1.0}, "idle is a probability"),
        ((np.zeros((1, 3, 4), np.int8),), {"backpressure": -0.1}, "backpressure is a probability"),
        ((np.zeros((1, 3, 4), np.int8),), {"max_cycles": 0}, "at least 1"),
        ((np.zeros((1, 3, 4), np.int8),), {"waves": "w.vcd"}, "trace=True"),
    ],
)
def test_bad_arguments(design, arguments, options, message):
    with pytest.raises(BittrueError, match=message):
        design.run(*arguments, **options)


def test_batches_of_different_size(adder):
    with pytest.raises(BittrueError, match="different batch sizes: 2, 3"):
        adder.run(np.zeros((2, 2, 6), np.int16), np.zeros((3, 2, 6), np.int16))


@pytest.mark.parametrize(
    ("verilog", "message"),
    [
        (pipeline().replace("reg [2:0] gap;", "reg [2:0 gap;"), "Verilator refuses the Verilog: .*syntax error"),
        (pipeline().replace("bittrue_top", "other"), "Verilator refuses the Verilog"),
        (pipeline().replace("m_axis_tlast", "m_axis_tuser"), "module bittrue_top has no port m_axis_tlast; it has"),
        (pipeline(lanes=3), "port s_axis_tdata is 24 bits wide, 16 were expected"),
        (pipeline().replace("15:0] m_axis_tdata", "23:0] m_axis_tdata"), "m_axis_tdata is 24 bits wide, 16 were"),
    ],
)
def test_wrong_verilog_leaves_nothing(verilog, message, tmp_path):
    with pytest.raises(BittrueError, match=message):
        CompiledRtl(verilog, [INPUT], [OUTPUT], cache=tmp_path)
    assert [p for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


# -- cache and waveforms ---------------------------------------------------------------------------------
def test_second_build_comes_from_the_cache(design):
    again = CompiledRtl(pipeline(), [INPUT], [OUTPUT])
    assert again.library == design.library
    assert again.build_seconds < 0.5


def test_another_build_has_a_place_of_its_own(design, faulty):
    assert faulty.library != design.library


def test_a_function_does_not_hold_a_whole_large_design(tmp_path):
    names = [f"r{k}" for k in range(1500)]
    lines = ["module bittrue_top(input aclk, input [31:0] d, output [31:0] q);", f"assign q = {names[-1]};"]
    lines += [f"reg [31:0] {name};" for name in names]
    chain = enumerate(zip(["d", *names], names, strict=False))
    lines += [f"always @(posedge aclk) {name} <= {before} + {k};" for k, (before, name) in chain]
    sources = verilate.generate("\n".join([*lines, "endmodule\n"]), "Vlarge", [], tmp_path)
    bodies = "".join(source.read_text() for source in sources if "Slow" not in source.name).split("\n}\n")
    statements = [body.count(";") for body in bodies]
    assert sum(statements) > len(names)
    assert max(statements) < 1100


def test_another_cpu_has_builds_of_its_own(monkeypatch):
    """A cache may be shared by machines, and code for one CPU does not run on every other."""
    here, tools = verilate.key("design"), verilate.toolchain()
    assert verilate.key("design") == here
    monkeypatch.setattr(verilate, "toolchain", lambda: replace(tools, cpu="another"))
    assert verilate.key("design") != here


def _make_slowly(arguments: tuple[Path, Path]) -> str:
    folder, log = arguments

    def make(place: Path) -> None:
        (log / f"{multiprocessing.current_process().pid}-{time.time_ns()}").touch()
        time.sleep(0.3)
        (place / "done").write_text("all of it")

    return (cached(folder, "thing", make) / "done").read_text()


def test_cache_is_made_once_by_many_processes(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        texts = pool.map(_make_slowly, [(tmp_path / "cache", log)] * 6)
    assert texts == ["all of it"] * 6
    assert len(list(log.iterdir())) == 1


@pytest.mark.parametrize("stalls", [{}, STALLS], ids=["free", "stalled"])
def test_a_reset_behind_a_register_changes_no_cycle(stalls, emitted, tmp_path):
    """What a run has without it is in its waveform, which begins at the design itself."""
    rtl, x, golden = emitted
    assert behind_register(rtl.verilog) is not None
    run, plain = rtl.run(*x, **stalls).check(golden), rtl.vcd(tmp_path / "run.vcd", *x, **stalls).check(golden)
    assert BENCH not in plain.waves.read_text()
    assert np.array_equal(run.beat_cycles, plain.beat_cycles)
    assert (run.cycles, run.first_input_cycle) == (plain.cycles, plain.first_input_cycle)


def test_a_reset_goes_behind_a_register_where_each_port_has_a_line_of_its_own(emitted):
    verilog = str(emitted[0].verilog)
    assert behind_register(verilog.replace("  input aclk;\n", "  input aclk ;\n")) is None
    assert behind_register(verilog.replace("aresetn", "reset_n")) is None
    assert behind_register(pipeline()) is None


def test_waveform(design, tmp_path):
    x = codes(TENSOR, 10, seed=1)
    run = design.vcd(tmp_path / "waves" / "run.vcd", x, frames=4, **STALLS)
    run.check(pipeline_golden(x[:4]))
    assert np.array_equal(run.beat_cycles, design.run(x[:4], **STALLS).beat_cycles)
    text = run.waves.read_text()
    assert "m_axis_tdata" in text
    assert f"\n#{10 * (run.cycles + 8) - 5}\n" in text
