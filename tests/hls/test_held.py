"""Held inputs of the HLS kernels: arguments of the top, several sets in one run."""

import itertools
import re
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bittrue.hls import host, project
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.mean import Mean
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import written
from tests.helpers.lengths import long_but
from tests.helpers.sets import KINDS, codes, drawn, golden, network

pytestmark = pytest.mark.needs("g++")


@pytest.mark.parametrize(
    ("seed", "kinds"),
    [*long_but([(0, ()), (1, ()), (2, ())], (0, ())), *long_but(enumerate(KINDS), *[*enumerate(KINDS)][1:4])],
)
def test_several_sets_in_one_run(seed, kinds, tmp_path, monkeypatch):
    """Kernels equal the golden simulator, tensor by tensor, with sets at random and at the bounds."""
    rng = np.random.default_rng([seed, 5])
    program = written(network(seed, kinds=kinds))
    kernel = host.build(project.write(program, tmp_path))
    x = codes(program, 30, rng)
    sets = [(at, drawn(program, rng, corner)) for at, corner in ((4, ""), (9, "low"), (15, "high"), (22, "both"))]
    np.testing.assert_array_equal(kernel.predict(*x), program(*x))
    np.testing.assert_array_equal(kernel.predict(*x, held=sets), program(*x, held=sets))
    np.testing.assert_array_equal(kernel.predict(*x, held=sets[0][1]), program(*x, held=sets[0][1]))
    for seconds, wanted in ((0.0, [4, 20, 30]), (0.4, [4, 14, 30]), (3.0, [4, *range(5, 31)])):  # that a part takes
        clock, told = itertools.count(0, seconds), []
        monkeypatch.setattr(host, "time", SimpleNamespace(perf_counter=lambda clock=clock: next(clock)))
        (in_parts,) = kernel.run_in_parts(*x, held=sets, progress=lambda *counts, told=told: told.append(counts))
        np.testing.assert_array_equal(in_parts, program(*x, held=sets))
        assert told == [(done, 30) for done in wanted]
    (none,) = kernel.run_in_parts(*(v[:0] for v in x), progress=lambda *_: None)
    assert none.shape == program(*x)[:0].shape
    traced, expected = kernel.trace(*x, held=sets), program.trace(*x, held=sets).tensors
    for name, tensor in expected.items():
        np.testing.assert_array_equal(traced[name], tensor, err_msg=name)
    assert not np.array_equal(golden(program, x, [0] * 30, []), program(*x, held=sets))
    with pytest.raises(BittrueError, match="the set lacks"):
        kernel.predict(*x, held={})


def test_the_arguments_of_the_top(tmp_path):
    """A held array is an argument with the width of its bounds; no constant of it is left in the sources."""
    program = written(network(3, kinds=["linear", "affine"]), ["linear0"])
    folder = project.write(program, tmp_path)
    header, parameters = (folder / "top.hpp").read_text(), (folder / "parameters.h").read_text()
    for name, held in program.written.items():
        extent = "".join(rf"\[{n}\]" for n in held.shape)
        argument = "held_" + name.replace(".", "_")
        assert re.search(rf"const bittrue::rom<{held.format.bits}, \w+>::type {argument}{extent}", header)
        assert f"INTERFACE ap_memory port={argument}" in (folder / "top.cpp").read_text()
    assert "weight[" not in parameters.split("Affine:")[0]
    assert "weight[" in parameters.split("Affine:")[1]


def test_the_test_bench_has_the_first_set(tmp_path):
    """What csim and cosim run: it passes, and fails when the file of a held input is altered or gone."""
    program = written(network(3, kinds=["linear"]))
    folder = project.write(program, tmp_path)
    flags = ["-std=c++14", "-fwrapv", "-DBITTRUE_HOST", "-w", f"-I{folder / 'host'}", f"-I{folder}"]
    flags += [f"-I{host.find_headers()}", str(folder / "tb.cpp"), str(folder / "top.cpp")]
    subprocess.run([host.find_compiler(), *flags, "-o", str(folder / "tb")], check=True)

    def status() -> int:
        return subprocess.run([folder / "tb", folder / "vectors"], capture_output=True, check=False).returncode

    assert status() == 0
    name = next(name for name in program.written if name.endswith("weight"))
    path = folder / "vectors" / f"held_{name.replace('.', '_')}.txt"
    path.write_text(" ".join(str(-1 - v) for v in program.initial[name].reshape(-1)) + "\n")
    assert status() == 1
    path.unlink()
    assert status() == 2


@pytest.mark.parametrize("rail", long_but(["plus", "minus", "offset"], "offset"))
def test_one_array_of_a_photonic_layer(rail, tmp_path):
    """A rail or the offsets alone; the other arrays are constants of the kernel."""
    rng = np.random.default_rng(3)
    program = written(network(1, kinds=["photonic"]), ["photonic0_array"])
    mac = program["photonic0_array"]
    constant = mac.bind({name: held.initial for name, held in mac.held.items() if rail not in name})
    nodes = [replace(node, operation=constant if node.operation is mac else node.operation) for node in program.nodes]
    program = Program(program.inputs, nodes, "photonic0")
    assert [name.rpartition(".")[2] for name in program.written] == [rail]
    kernel = host.build(project.write(program, tmp_path))
    x = codes(program, 16, rng)
    sets = [(at, drawn(program, rng, corner)) for at, corner in ((4, ""), (9, "low"), (12, "high"))]
    np.testing.assert_array_equal(kernel.predict(*x, held=sets), program(*x, held=sets))
    assert not np.array_equal(program(*x), program(*x, held=sets))


def test_a_kernel_that_takes_none(tmp_path, monkeypatch):
    kind = TensorType((4, 3), INT8)
    mean = Mean(kind, Requantize(3, Held("s", (3,), 1, 4)))
    monkeypatch.setattr(project, "HOLDING", ())
    with pytest.raises(BittrueError, match=r"'y': the HLS kernel of Mean takes no held inputs \(s\)"):
        project.write(Program({"x": kind}, (Node("y", mean, ("x",)),), "y"), tmp_path)
