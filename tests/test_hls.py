"""Every operation's C++ kernel, compiled by g++ from the sources that a vendor's tool gets: equal to the reference."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from programs import resmlp, stimulus, two_inputs

from hls import host, project
from sim.errors import BittrueError
from sim.operation import Operation, discover
from sim.program import Node, Program

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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OPERATIONS)
def test_kernel_equals_reference(name, seed, tmp_path):
    program, rng = alone(name, seed)
    project.write(program, tmp_path)
    x = batches(program, rng)
    np.testing.assert_array_equal(host.build(tmp_path).predict(*x), program.reference(*x))


@pytest.mark.parametrize("make", [resmlp, two_inputs])
def test_whole_program_with_every_tensor(make, tmp_path):
    program = make()
    project.write(program, tmp_path)
    kernel = host.build(tmp_path)
    x = stimulus(program, 12, seed=3)
    np.testing.assert_array_equal(kernel.predict(*x), program.reference(*x))
    truth = program.trace(*x).tensors
    traced = kernel.trace(*x)
    traced = getattr(traced, "tensors", traced)
    assert {node.name for node in program.nodes} <= set(traced)
    for node in program.nodes:
        np.testing.assert_array_equal(traced[node.name], truth[node.name], err_msg=node.name)


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
    Unknown.__module__ = "sim.unknown"
    with pytest.raises(BittrueError, match=r"(?i)unknown"):
        project.write(Program(program.inputs, (Node("y", orphan, ("x0", "x1")),), "y"), tmp_path / "p")
    assert not shutil.os.path.exists(tmp_path / "p" / "top.cpp")
