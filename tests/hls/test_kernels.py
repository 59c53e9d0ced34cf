"""Every operation's C++ kernel, compiled by g++ from the sources that a vendor's tool gets: equal to the reference."""

import json
import os
import shutil
import subprocess
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bittrue.hls import depth, host, project
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation, TensorType, discover
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.lengths import long_but
from tests.helpers.programs import AWKWARD, awkward, resmlp, several, spiking, stimulus, two_inputs

OPERATIONS = discover()
pytestmark = pytest.mark.needs("g++")


def alone(name: str, seed: int) -> tuple[Program, np.random.Generator]:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    op = OPERATIONS[name].example(rng)
    inputs = {f"x{k}": t for k, t in enumerate(op.inputs)}
    return Program(inputs, (Node("y", op, tuple(inputs)),), "y"), rng


def batches(program: Program, rng: np.random.Generator) -> list[np.ndarray]:
    """Full-range random samples, then all low and all high."""
    result = []
    for kind in program.inputs.values():
        codes = rng.integers(kind.format.low, kind.format.high + 1, (30, *kind.shape))
        codes[-2], codes[-1] = kind.format.low, kind.format.high
        result.append(codes.astype(kind.format.dtype))
    return result


SEEDS = range(4)
#: Geometries at the limits of the widths, which the random examples do not reach.
LIMITS = {
    "widest": Linear(  # 48 bits of accumulator, multipliers that need more than 64 bits with it, shift 40
        TensorType((2, 3), Format(16)),
        np.array([[127, -128, 64], [-128, -128, -128]]),
        Requantize(2, 40, [3, -3], [1 << 22, -(1 << 22)], [6 << 20, (6 << 20) - 1], Format(5)),
    ),
    "wide-codes": Linear(  # 40-bit codes in and out, one of them unsigned, no shift
        TensorType((1, 2), Format(40)), np.array([[3, -4]]), Requantize(1, 0, format=Format(43, signed=False))
    ),
    "large-shift": Linear(  # 2^(shift-1) is far above the sum
        TensorType((2, 2), Format(1)), np.array([[1, 1], [-1, 1]]), Requantize(2, [46, 1], [1, -2], [-5, 3])
    ),
    "one-bit": Linear(
        TensorType((2, 9), Format(1, signed=False)), np.ones((1, 9), int), Requantize(1, 2, format=Format(1)), Format(2)
    ),
}


@pytest.fixture(scope="module")
def every_kernel(tmp_path_factory):
    """Every operation with every seed in one program, each with inputs of its own, so that one compilation does."""
    cases = LIMITS | {f"{name}-{seed}": alone(name, seed)[0]["y"] for name in OPERATIONS for seed in SEEDS}
    build = Builder({f"{key} {k}": kind for key, op in cases.items() for k, kind in enumerate(op.inputs)})
    for key, op in cases.items():
        build.add(key, op, *(f"{key} {k}" for k in range(len(op.inputs))))
    program = build.program(next(iter(cases)))
    x = batches(program, np.random.default_rng(7))
    traced = host.build(project.write(program, tmp_path_factory.mktemp("kernels"))).trace(*x)
    return program, dict(zip(program.inputs, x, strict=True)), traced


@pytest.mark.parametrize("key", [*LIMITS, *(f"{name}-{seed}" for name in OPERATIONS for seed in SEEDS)])
def test_kernel_equals_reference(every_kernel, key):
    program, x, traced = every_kernel
    op = program[key]
    expected = op.reference(*(x[f"{key} {k}"] for k in range(len(op.inputs))))
    np.testing.assert_array_equal(traced[key], expected)
    assert traced[key].dtype == expected.dtype


#: Spike trains with and without tokens, with and without multipliers.
SPIKING = [
    pytest.param(partial(spiking, halving=True), id="spiking"),
    pytest.param(partial(spiking, shape=(3, 4), halving=False), id="spiking-tokens"),
]


@pytest.mark.parametrize(
    "make",
    [
        resmlp,
        two_inputs,
        several,
        *SPIKING,
        *(pytest.param(partial(awkward, n), id=n, marks=[pytest.mark.long] * (n != "marks")) for n in AWKWARD),
    ],
)
def test_whole_program_with_every_tensor(make, tmp_path):
    program = make()
    project.write(program, tmp_path)
    kernel = host.build(tmp_path)
    x = stimulus(program, 12, seed=3)
    truth = program.trace(*x).tensors
    for name, codes in zip(program.results, kernel.run(*x), strict=True):
        np.testing.assert_array_equal(codes, truth[name], err_msg=name)
        assert codes.dtype == truth[name].dtype
    traced = kernel.trace(*x)
    assert list(traced) == list(truth)
    for name, codes in truth.items():
        np.testing.assert_array_equal(traced[name], codes, err_msg=name)


def test_text_is_deterministic(tmp_path):
    program = resmlp()
    for folder in ("a", "b"):
        project.write(program, tmp_path / folder)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert {Path("run_hls.tcl")} < set(files)
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_operation_without_kernel_is_named(tmp_path):
    class Unknown(OPERATIONS["Add"]):
        pass

    Operation.registry.pop("Unknown")
    program, _ = alone("Add", 0)
    op = program["y"]
    orphan = Unknown(op.left, op.right, op.format)
    Unknown.__module__ = "bittrue.sim.operations.unknown"
    with pytest.raises(BittrueError, match=r"(?i)unknown"):
        project.write(Program(program.inputs, (Node("y", orphan, ("x0", "x1")),), "y"), tmp_path / "p")
    assert not shutil.os.path.exists(tmp_path / "p" / "top.cpp")


def test_interval_sets_the_products_a_cycle_and_no_result(tmp_path):
    program = resmlp()
    largest = max(kind.size for kind in program.types.values())
    for interval, folder in ((0, "fast"), (4 * largest, "slow")):
        project.write(program, tmp_path / folder, interval=interval)
    texts = [(tmp_path / folder / "parameters.h").read_text() for folder in ("fast", "slow")]
    assert texts[0] != texts[1]
    assert texts[1].count("parallel = 1;") == len(program.nodes)
    x = stimulus(program, 8, seed=1)
    np.testing.assert_array_equal(host.build(tmp_path / "slow").predict(*x), program.reference(*x))


# -- streams ------------------------------------------------------------------------------------------------
@pytest.mark.long
@pytest.mark.parametrize("make", [*long_but([resmlp, several, two_inputs], two_inputs), *SPIKING])
def test_depths_cannot_deadlock(make, tmp_path):
    folder = project.write(make(), tmp_path)
    depths = json.loads((folder / "project.json").read_text())["streams"]
    depth.check(depth.record(folder), depths)


def test_a_stream_too_shallow_is_found(tmp_path):
    """The residual's stream is made shallower one by one: at some depth the network deadlocks, below it as well."""
    folder = project.write(resmlp(), tmp_path)
    depths = json.loads((folder / "project.json").read_text())["streams"]
    processes = depth.record(folder)
    name = next(name for name, codes in depths.items() if codes > 2)

    def runs(shallow: int) -> bool:
        try:
            depth.check(processes, depths | {name: shallow})
        except BittrueError:
            return False
        return True

    verdicts = [runs(shallow) for shallow in range(depths[name], 0, -1)]
    with pytest.raises(BittrueError, match=f"deadlock, .* writes full {name}"):
        depth.check(processes, depths | {name: 1})
    assert verdicts[0]
    assert not verdicts[-1]
    assert verdicts == sorted(verdicts, reverse=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("add.hpp", "i < P::output_size", "i < P::output_size - 1", "read while empty"),
        ("mean.hpp", "if (t == P::tokens - 1)", "if (true)", "never read"),
        ("contract.hpp", "beat.last = i == SIZE - 1;", "beat.last = 0;", "TLAST"),
    ],
)
def test_a_kernel_that_miscounts_is_an_error(file, old, new, message, tmp_path):
    program = resmlp()
    folder = project.write(program, tmp_path)
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(BittrueError, match=message):
        host.build(folder).predict(*stimulus(program, 2, seed=0))


def test_one_weight_bit_is_noticed(tmp_path):
    program = resmlp()
    first = program.nodes[0].operation
    weight = first.weight.copy()
    weight[0, 0] ^= 1
    altered = Program(
        program.inputs,
        (Node(program.nodes[0].name, replace(first, weight=weight), program.nodes[0].operands), *program.nodes[1:]),
        program.results,
    )
    x = stimulus(program, 20, seed=2)
    kernel = host.build(project.write(altered, tmp_path))
    name = program.nodes[0].name
    assert not np.array_equal(kernel.trace(*x)[name], program.trace(*x).tensors[name])


#: Of programs that halve or multiply: file, what becomes what, the tensor that it spoils.
SPIKING_FAULTS = [
    (True, "encode.hpp", "rest[c] = word << 1", "rest[c] = word >> 1", "encode"),
    (True, "fs_neuron.hpp", "v > typename", "v >= typename", "block.fire"),
    (False, "fs_neuron.hpp", "x > highest ? highest", "x > highest ? membrane_t(x)", "block.fire"),
    (True, "spiking_linear.hpp", "spikes[i + s] != 0", "spikes[i + s] == 0", "embed"),
    (True, "spiking_linear.hpp", "P::decode[t] < 0", "false", "embed"),
    (False, "spiking_linear.hpp", "t == 0 ? accumulator_t(0) : acc[n]", "acc[n]", "block.layer"),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("halving", "file", "old", "new", "tensor"),
    long_but(SPIKING_FAULTS, *SPIKING_FAULTS[1::2]),
)
def test_one_fault_in_a_spiking_kernel_is_noticed(halving, file, old, new, tensor, tmp_path):
    program = spiking(shape=(2, 4), halving=halving)
    folder = project.write(program, tmp_path)
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    x = stimulus(program, 40, seed=4)
    assert not np.array_equal(host.build(folder).trace(*x)[tensor], program.trace(*x).tensors[tensor])


# -- what the vendor's tool reads -----------------------------------------------------------------------------
def run_test_bench(folder: Path) -> subprocess.CompletedProcess:
    """The generated test bench, compiled with the host's streams in place of the vendor's."""
    include = [f"-I{folder / 'host'}", f"-I{folder}", f"-I{host.find_headers()}"]
    sources = [str(folder / "tb.cpp"), str(folder / "top.cpp")]
    command = ["g++", "-std=c++14", "-O1", "-w", "-DBITTRUE_HOST", *include, *sources, "-o", str(folder / "tb")]
    subprocess.run(command, check=True)
    run = [str(folder / "tb"), str(folder / "vectors")]
    return subprocess.run(run, capture_output=True, text=True, check=False)


def test_test_bench_passes_and_an_altered_expected_value_fails(tmp_path):
    folder = project.write(several(), tmp_path)
    done = run_test_bench(folder)
    assert done.returncode == 0, done.stdout
    assert done.stdout == f"{project.FRAMES} frames, 0 mismatches\n"
    expected = folder / "vectors" / "m_axis_mean.txt"
    first, rest = expected.read_text().split(" ", 1)
    expected.write_text(f"{int(first) ^ 1} {rest}")
    done = subprocess.run([folder / "tb", folder / "vectors"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"m_axis_mean, frame 0, code 0: expected {int(first) ^ 1}, got {first}\n" in done.stdout
    assert done.stdout.endswith("frames, 1 mismatches\n")
    expected.write_text(first)
    done = subprocess.run([folder / "tb", folder / "vectors"], capture_output=True, text=True, check=False)
    assert done.returncode == 2


@pytest.mark.needs("tkinter")
def test_script_runs_the_steps_it_is_asked_for(tmp_path):
    """The Tcl script in a plain interpreter, with the vendor's commands recorded instead of run."""
    import tkinter  # for its Tcl interpreter

    folder = project.write(two_inputs(), tmp_path)

    def calls(arguments: str) -> list[tuple[str, ...]]:
        tcl, made = tkinter.Tcl(), []
        commands = "open_project set_top add_files open_solution set_part create_clock csim_design csynth_design"
        for name in f"{commands} cosim_design export_design exit".split():
            tcl.createcommand(name, lambda *rest, name=name: made.append((name, *rest)))
        tcl.setvar("argv", arguments)
        tcl.eval(f"source {{{folder / 'run_hls.tcl'}}}")
        return made

    made = calls("-f run_hls.tcl part=xc7a100t-csg324-1 clock=8 steps=csynth,csim")
    assert ("set_part", "xc7a100t-csg324-1") in made
    assert ("create_clock", "-period", "8", "-name", "default") in made
    names = [call[0] for call in made]
    assert names[-3:] == ["csim_design", "csynth_design", "exit"]
    for call in made:
        if call[0] == "add_files":
            assert Path(call[-3]).is_file()
    names = [call[0] for call in calls("-f run_hls.tcl")]
    assert names[-5:] == ["csim_design", "csynth_design", "cosim_design", "export_design", "exit"]
    with pytest.raises(tkinter.TclError, match="unknown step 'synth'"):
        calls("-f run_hls.tcl steps=synth")


# -- bad input ------------------------------------------------------------------------------------------------
def test_absent_compiler_is_named_with_its_remedy(tmp_path, monkeypatch):
    folder = project.write(two_inputs(), tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BittrueError, match=r"no-such-compiler is not installed; install g\+\+"):
        host.build(folder)


def test_folder_without_project_and_source_that_does_not_compile(tmp_path):
    with pytest.raises(BittrueError, match="no complete HLS project"):
        host.build(tmp_path)
    folder = project.write(two_inputs(), tmp_path / "p")
    os.remove(folder / "top.cpp")
    with pytest.raises(BittrueError, match=r"no complete HLS project .*top\.cpp"):
        host.build(folder)
    (folder / "top.cpp").write_text("void nothing() { undeclared(); }\n")
    with pytest.raises(BittrueError, match="does not compile: .*error"):
        host.build(folder)


def test_wrong_inputs_are_refused(tmp_path):
    program = two_inputs()
    kernel = host.build(project.write(program, tmp_path))
    x = stimulus(program, 4, seed=0)
    with pytest.raises(BittrueError, match="has 2 inputs"):
        kernel.predict(x[0])
    with pytest.raises(BittrueError, match="expected shape"):
        kernel.predict(x[0][..., None], x[1])
    with pytest.raises(BittrueError, match="codes are integers"):
        kernel.predict(x[0].astype(float), x[1])
    with pytest.raises(BittrueError, match="different batch sizes"):
        kernel.predict(x[0][:2], x[1])
    assert kernel.predict(*(v[:0] for v in x)).shape == (0, *program.output.shape)
