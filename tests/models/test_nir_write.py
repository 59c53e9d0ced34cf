"""Programs to NIR graphs: the same program comes back, FS networks laid out in space, and what NIR cannot express."""

import json
from dataclasses import replace

import nir
import numpy as np
import pytest

from bittrue.flow.cli import main as cli
from bittrue.models.formats.nir import graph as nir_graph
from bittrue.models.formats.nir import read as nir_read
from bittrue.models.formats.nir import write as nir_write
from bittrue.models.formats.nir.graph import float_reference
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType, same
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.nir_graphs import DT, STEPS, small
from tests.helpers.programs import stimulus


# -- to NIR -------------------------------------------------------------------------------------------------
def test_lif_program_comes_back_the_same(tmp_path):
    program = nir_read.program(small(), STEPS, DT)
    path = nir_write.save(nir_write.graph(program, DT), tmp_path / "net.nir")
    again = nir_read.read_program(path, STEPS, DT)
    x = stimulus(program, 300, 5)
    np.testing.assert_array_equal(again(*x), program(*x))
    neurons = [[n.operation for n in p.nodes if isinstance(n.operation, Lif)] for p in (program, again)]
    for ours, theirs in zip(*neurons, strict=True):
        assert same(replace(ours, input=theirs.input), theirs)


def test_leakless_program_equals_the_float_simulation_of_its_graph():
    """What NIR can express exactly: nothing decays, so nothing is rounded."""
    rng = np.random.default_rng(0)
    build = Builder({"x": TensorType((10, 7), Format(1, signed=False))})
    now = "x"
    for k, (inputs, outputs) in enumerate([(7, 6), (6, 4)]):
        fmt = Format.covering(-128 * inputs, 128 * inputs, signed=True)
        weight = rng.integers(-60, 128, (outputs, inputs))
        bias = rng.integers(-20, 20, outputs)
        product = Linear(build.types[now], weight, Requantize(outputs, 0, bias, format=fmt))
        now = build.add(f"linear{k}", product, now)
        now = build.add(f"neuron{k}", Lif(build.types[now], rng.integers(50, 200, outputs), [-7], [1]), now)
    program = build.program(now)
    (x,) = stimulus(program, 300, 0)
    expected = program(x)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(float_reference(nir_write.graph(program), x, DT), expected)


def fs_network(*, steps: int = 6, fraction: int = 0, clip: tuple[int, int] | None = None) -> Program:
    """Encoded codes, two layers of FS-neurons, a read-out: successive approximation, or odd parameters."""
    rng = np.random.default_rng(3)
    build = Builder({"x": TensorType((8,), INT8)})
    train = build.add("encode", Encode(build.types["x"]), "x")
    decode = build.nodes[-1].operation.decode
    powers = np.int64(1) << np.arange(steps - 1, -1, -1)
    for k, (inputs, outputs) in enumerate([(8, 10), (10, 7)]):
        weight = rng.integers(-128, 128, (outputs, inputs))
        shift = rng.integers(8 - 3 * k, 10 - 3 * k, outputs)
        requantize = Requantize(outputs, shift, rng.integers(-3, 9, outputs), format=Format(12))
        value = build.add(f"layer{k}", SpikingLinear(build.types[train], weight, decode, requantize), train)
        parameters = (powers, powers) if not fraction else (powers + rng.integers(-2, 3, steps), powers - 1)
        neuron = FsNeuron(build.types[value], *parameters, *(clip or (None, None)))
        train, decode = build.add(f"neuron{k}", neuron, value), powers
    weight = rng.integers(-128, 128, (3, 7))
    last = SpikingLinear(build.types[train], weight, decode, Requantize(3, [6, 7, 5], [1, 0, -2]))
    return build.program(build.add("out", last, train))


@pytest.mark.parametrize("odd", [0, 1])
def test_fs_network_is_laid_out_exactly(odd, tmp_path):
    """Every spike of every step, and the result up to the rounding that is left to the reader."""
    program = fs_network(fraction=odd)
    graph = nir_graph.read(nir_write.save(nir_write.graph(program, round_outside=True), tmp_path / "fs.nir"))
    (x,) = stimulus(program, 2000, 1)
    network = nir_graph.network(graph, DT)
    values = network.reference(x[:, None, :])
    tensors = program.trace(x).tensors
    for name in ("neuron0", "neuron1"):
        for step in range(6):
            np.testing.assert_array_equal(values[f"{name}.spike{step}"][:, 0], tensors[name][:, step])
        assert 0.05 < tensors[name].mean() < 0.95
    y = values[network.output][:, 0]
    np.testing.assert_array_equal(np.clip(np.floor(y + 0.5), -128, 127), program(x))


def program_of(operation, *, name: str = "odd") -> Program:
    return Program({"x": operation.inputs[0]}, (Node(name, operation, ("x",)),), name)


CANNOT = {
    "rounding": (fs_network(), {}, r"'out' \(SpikingLinear\) .* rounds or clips .* left to the reader"),
    "clip": (fs_network(clip=(0, 40)), {"round_outside": True}, r"'neuron0' \(FsNeuron\) .* clips its input"),
    "mean": (
        program_of(Mean(TensorType((3, 4), INT8), Requantize(4, 1))),
        {},
        "expected channels; NIR's linear layers take vectors",
    ),
    "subtract": (
        program_of(Lif(TensorType((3, 4), INT8), [9], [9], [1], subtract=True)),
        {},
        r"'odd' \(Lif\) .* reset by subtraction",
    ),
    "mixed": (
        program_of(Lif(TensorType((3, 2), INT8), [9], [0], [1, 2], 1)),
        {},
        r"'odd' \(Lif\) .* some of its channels leak",
    ),
    "slash": (program_of(Lif(TensorType((3, 2), INT8), [9], [0], [1]), name="a/b"), {}, "holds a '/'"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_nir_cannot_express_is_named(name):
    program, options, message = CANNOT[name]
    with pytest.raises(BittrueError, match=message):
        nir_write.graph(program, **options)


# -- the command --------------------------------------------------------------------------------------------
def command(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "net.nir"
    nir.write(path, small())
    return path


def test_commands_there_and_back(written, tmp_path, capsys):
    status, out, _ = command(capsys, "import-nir", written, "--steps", 5, "--out", tmp_path / "program.npz")
    assert status == 0
    assert "as in float" in out
    _, told, _ = command(capsys, "import-nir", written, "--steps", 5, "--out", tmp_path / "program.npz", "--json")
    found = json.loads(told)
    assert set(found) == {"program", "input", "output", "agreement", "reset", "model"}
    assert all(0.9 <= layer["equal"] <= 1 for layer in found["agreement"].values())
    program = Program.load(tmp_path / "program.npz")
    assert program.inputs["input"] == TensorType((5, 5), Format(1, signed=False))
    status, _, _ = command(capsys, "export-nir", tmp_path / "program.npz", "--out", tmp_path / "again.nir")
    assert status == 0
    again = nir_read.read_program(tmp_path / "again.nir", 5, DT)
    (x,) = stimulus(program, 100, 0)
    np.testing.assert_array_equal(again(x), program(x))


def test_commands_report_errors(written, tmp_path, capsys):
    status, _, err = command(capsys, "import-nir", written, "--steps", 0, "--out", tmp_path / "p.npz")
    assert status == 1
    assert "at least one time step" in err
    assert not (tmp_path / "p.npz").exists()
    fs_network().save(tmp_path / "fs.npz")
    status, _, err = command(capsys, "export-nir", tmp_path / "fs.npz", "--out", tmp_path / "fs.nir")
    assert status == 1
    assert "'out' (SpikingLinear)" in " ".join(err.split())
    assert not (tmp_path / "fs.nir").exists()
    for name in ("import-nir", "export-nir"):
        status, out, _ = command(capsys, name, "--help")
        assert status == 0
        assert "Example" in out
