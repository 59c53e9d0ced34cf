"""NIR files to programs and back: exporters' files, exact networks spike for spike, hardware, and what is refused."""

from dataclasses import replace

import h5py
import nir
import numpy as np
import pytest
import torch
from programs import stimulus

from flow import cli, nir_graph, nir_read, nir_write
from flow.compiled import CompiledRtl
from flow.nir_graph import float_reference
from hls import host, project
from rtl.plan import plan
from rtl.verilog import emit
from sim.contract import INT8, Format
from sim.encode import Encode
from sim.errors import BittrueError
from sim.fs_neuron import FsNeuron
from sim.lif import Lif
from sim.linear import Linear
from sim.mean import Mean
from sim.operation import TensorType, same
from sim.program import Builder, Node, Program
from sim.requantize import Requantize
from sim.spiking_linear import SpikingLinear

DT = 1e-4
STEPS = 6
#: Bits below a weight's step with which six steps of a decay by quarters are exact.
EXACT = 2 * STEPS + 2
#: What snnTorch prints and warns about when it exports is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


# -- networks of snnTorch -----------------------------------------------------------------------------------
def snn():
    return pytest.importorskip("snntorch", reason="snntorch is not installed")


def leaky(*shape: int, beta: float = 0.75, threshold: float = 1.0, **options):
    """A layer with the reset of NIR: to zero, at once. One parameter a neuron, or the exporter fails."""
    kind = snn().Leaky
    options = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False} | options
    return kind(beta=torch.full(shape, beta), threshold=torch.full(shape, threshold), **options)


def dyadic(model: torch.nn.Module, seed: int, places: int = 6) -> torch.nn.Module:
    """Weights and biases that are multiples of 2^-places and fit 8 bits."""
    rng = np.random.default_rng(seed)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            weight = np.round(np.clip(rng.normal(0.15, 0.5, layer.weight.shape) * 2**places, -127, 127)) / 2**places
            weight.reshape(len(weight), -1)[:, 0] = 127 / 2**places  # pins the step of every channel
            layer.weight.data = torch.tensor(weight, dtype=torch.float32)
            if layer.bias is not None:
                bias = np.round(rng.normal(0, 0.2, layer.bias.shape) * 2**places) / 2**places
                layer.bias.data = torch.tensor(bias, dtype=torch.float32)
    return model


def exported(model: torch.nn.Module, shape: tuple[int, ...], path) -> nir.NIRGraph:
    """The network through snnTorch's exporter, a file, and our reader."""
    pytest.importorskip("nirtorch", reason="nirtorch is not installed")
    from snntorch.export_nir import export_to_nir

    nir.write(path, export_to_nir(model, torch.rand(1, *shape), ignore_dims=[0]))
    return nir_graph.read(path)


@torch.no_grad()
def simulated(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    """snnTorch's own simulation of spikes `[n, T, ...]`: the last layer's spikes `[n, T, N]`."""
    for layer in model:
        if hasattr(layer, "reset_mem"):
            layer.reset_mem()
    steps = [model(torch.tensor(x[:, t], dtype=torch.float32)) for t in range(x.shape[1])]
    return np.stack([(z[0] if isinstance(z, tuple) else z).numpy() for z in steps], axis=1)


def sequence(name: str) -> tuple[torch.nn.Module, tuple[int, ...]]:
    nn = torch.nn
    if name == "mlp":
        layers = nn.Linear(12, 10), leaky(10), nn.Linear(10, 5, bias=False), leaky(5, beta=0.5, output=True)
        return nn.Sequential(*layers), (12,)
    if name == "conv":
        layers = (
            nn.Conv2d(1, 3, 3, stride=2, padding=1),
            leaky(3, 3, 3),
            nn.Conv2d(3, 2, 2, bias=False),
            leaky(2, 2, 2),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(2, 4),
            leaky(4, output=True, threshold=0.75),
        )
        return nn.Sequential(*layers), (1, 6, 6)
    synaptic = snn().Synaptic(
        alpha=torch.full((6,), 0.5),
        beta=torch.full((6,), 0.75),
        threshold=torch.ones(6),
        init_hidden=True,
        output=True,
        reset_mechanism="zero",
        reset_delay=False,
    )
    return nn.Sequential(nn.Linear(9, 6), synaptic), (9,)


NETWORKS = ["mlp", "conv", "synaptic"]


@pytest.mark.needs("snntorch", "nirtorch")
@pytest.mark.parametrize("name", NETWORKS)
def test_exact_network_equals_snntorch_spike_for_spike(name, tmp_path):
    model, shape = sequence(name)
    graph = exported(dyadic(model, 1), shape, tmp_path / "net.nir")
    program = nir_read.program(graph, STEPS, DT, guard=EXACT)
    rng = np.random.default_rng(2)
    x = (rng.random((200, STEPS, *shape)) < 0.3).astype(np.uint8)
    truth = simulated(model, x)
    assert 0.02 < truth.mean() < 0.9
    np.testing.assert_array_equal(float_reference(graph, x, DT).reshape(truth.shape), truth)
    np.testing.assert_array_equal(program(x.reshape(200, STEPS, -1)).reshape(truth.shape), truth)


@pytest.mark.needs("snntorch", "nirtorch")
def test_random_network_agrees_with_snntorch(tmp_path):
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(40, 30), leaky(30, beta=0.9), nn.Linear(30, 8), leaky(8, beta=0.83, output=True))
    model[0].weight.data *= 3
    model[2].weight.data *= 4
    graph = exported(model, (40,), tmp_path / "net.nir")
    program = nir_read.program(graph, 25, DT)
    x = np.random.default_rng(0).integers(0, 2, (200, 25, 40))
    np.testing.assert_allclose(float_reference(graph, x, DT).mean(), simulated(model, x).mean(), atol=2e-3)
    layers = nir_read.agreement(program, graph, x, dt=DT)
    assert list(layers) == ["1", "3"]
    for seen in layers.values():
        assert seen["rate"] > 0.05
        assert seen["equal"] > 0.98


@pytest.mark.needs("snntorch", "nirtorch")
def test_recurrent_layer_of_snntorch_is_named(tmp_path):
    layer = snn().RLeaky(beta=0.5, init_hidden=True, output=True, linear_features=5)
    graph = exported(torch.nn.Sequential(torch.nn.Linear(8, 5), layer), (8,), tmp_path / "net.nir")
    with pytest.raises(BittrueError, match=r"NIR node '1\.(lif|w_rec)' \(.*\) lies in a recurrent connection"):
        nir_read.program(graph, STEPS, DT)


# -- graphs made by hand ------------------------------------------------------------------------------------
def chain(*nodes: nir.NIRNode, shape: tuple[int, ...], size: int) -> nir.NIRGraph:
    """Input, the nodes n0, n1, ... and Output in a row."""
    named = {f"n{k}": node for k, node in enumerate(nodes)}
    ends = {"input": nir.Input(input_type=np.array(shape)), "output": nir.Output(output_type=np.array([size]))}
    names = ["input", *named, "output"]
    edges = list(zip(names[:-1], names[1:], strict=True))
    return nir.NIRGraph(nodes=named | ends, edges=edges, type_check=False)


def lif(size: int, tau: float = 4 * DT, **options) -> nir.LIF:
    one = np.ones(size)
    fields = {"tau": tau * one, "r": 4 * one, "v_leak": 0 * one, "v_threshold": one, "v_reset": 0 * one}
    return nir.LIF(**fields | options)


def weights(outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    weight = np.random.default_rng(seed).integers(-100, 127, (outputs, inputs)) / 64
    weight[:, 0] = 127 / 64
    return weight


def small() -> nir.NIRGraph:
    """Every kind of neuron: LIF with leak potential, current-based, IF with a reset, a threshold, an integrator."""
    one = np.ones(6)
    return chain(
        nir.Affine(weight=weights(6, 5), bias=np.linspace(-0.5, 0.5, 6)),
        lif(6, v_leak=0.25 * one, v_threshold=np.linspace(0.5, 1.5, 6)),
        nir.Linear(weight=weights(6, 6, 1)),
        nir.CubaLIF(tau_syn=2 * DT * one, tau_mem=4 * DT * one, r=2 * one, v_leak=0.125 * one, v_threshold=one),
        nir.Scale(scale=np.linspace(0.25, 1.5, 6)),
        nir.IF(r=one, v_threshold=one, v_reset=-0.5 * one),
        nir.Affine(weight=weights(4, 6, 2), bias=np.zeros(4)),
        nir.Threshold(threshold=np.full(4, 0.75)),
        nir.Linear(weight=weights(3, 4, 3)),
        nir.LI(tau=np.full(3, 2 * DT), r=np.ones(3), v_leak=np.zeros(3)),
        shape=(5,),
        size=3,
    )


def test_discretisation_is_the_documented_one():
    """Each neuron against its equation, written down once more; parameters that no exporter would choose."""
    rng = np.random.default_rng(0)
    tau, r, leak, threshold, reset = rng.uniform(0.5, 2, (5, 3)) * np.array([[5e-3], [2], [0.1], [0.5], [-0.2]])
    dt, current = 1e-3, rng.normal(0.6, 1, (20, 30, 3))
    fields = {"r": r, "v_threshold": threshold, "v_reset": reset}
    syn, w_in = np.array([2e-3, 3e-3, 4e-3]), np.array([1.0, 3.0, 2.0])
    cases = {
        "lif": nir.LIF(tau=tau, v_leak=leak, **fields),
        "if": nir.IF(**fields),
        "cuba": nir.CubaLIF(tau_syn=syn, tau_mem=tau, v_leak=leak, w_in=w_in, **fields),
        "li": nir.LI(tau=tau, r=r, v_leak=leak),
        "i": nir.I(r=r),
    }
    for name, node in cases.items():
        v, i, expected = np.zeros((20, 3)), np.zeros((20, 3)), []
        for t in range(30):
            x = current[:, t]
            if name == "cuba":
                x = i = i + dt * (w_in * x - i) / syn
            v = v + (r * x if name in ("if", "i") else dt * (leak - v + r * x) / tau)
            z = v > threshold
            expected.append(v if name in ("li", "i") else z)
            v = v if name in ("li", "i") else np.where(z, reset, v)
        got = float_reference(chain(node, shape=(3,), size=3), current, dt)
        np.testing.assert_allclose(got, np.stack(expected, axis=1), atol=1e-5, err_msg=name)


def test_every_neuron_agrees_with_the_float_simulation():
    graph = small()
    program = nir_read.program(graph, 12, DT, guard=8)
    kinds = [type(node.operation).__name__ for node in program.nodes]
    assert kinds.count("Lif") == 6
    assert kinds.count("Affine") == 2  # the Scale, and the leak potential after the synapse
    x = np.random.default_rng(1).integers(0, 2, (500, 12, 5))
    layers = nir_read.agreement(program, graph, x, dt=DT)
    assert list(layers) == ["n1", "n3", "n5", "n7"]
    assert all(seen["equal"] > 0.97 and 0.03 < seen["rate"] < 0.97 for seen in layers.values()), layers


def test_analogue_input_and_read_out():
    """Codes of 8 bits, each worth 1/256, an integrator at the end whose codes have the unit that meta says."""
    graph = chain(
        nir.Linear(weight=weights(4, 5)),
        lif(4),
        nir.Linear(weight=weights(2, 4, 1)),
        nir.LI(tau=np.full(2, 4 * DT), r=np.full(2, 4.0), v_leak=np.zeros(2)),
        shape=(5,),
        size=2,
    )
    options = {"input_format": Format(8, signed=False), "input_scale": 1 / 256, "guard": EXACT}
    program = nir_read.program(graph, STEPS, DT, **options)
    x = np.random.default_rng(0).integers(0, 256, (100, STEPS, 5))
    expected = float_reference(graph, x / 256, DT)
    np.testing.assert_array_equal(program(x) * np.array(program.meta["nir"]["output_unit"]), expected)
    assert len(np.unique(expected)) > 50


def test_threshold_between_two_codes_loses_nothing():
    graph = chain(nir.Threshold(threshold=np.array([2.5, 2.0, -0.5])), shape=(3,), size=3)
    program = nir_read.program(graph, 1, DT, input_format=Format(4), guard=0)
    x = np.repeat(np.arange(-8, 8), 3).reshape(16, 1, 3)
    np.testing.assert_array_equal(program(x), float_reference(graph, x, DT))


def test_reset_by_subtraction():
    graph = chain(nir.Linear(weight=weights(6, 5)), lif(6), shape=(5,), size=6)
    x = np.random.default_rng(0).integers(0, 2, (300, STEPS, 5))
    results = {}
    for reset in nir_graph.RESETS:
        program = nir_read.program(graph, STEPS, DT, reset=reset, guard=EXACT)
        results[reset] = program(x)
        np.testing.assert_array_equal(results[reset], float_reference(graph, x, DT, reset))
    assert results["value"].sum() < results["subtract"].sum()


# -- linear nodes against torch -----------------------------------------------------------------------------
def linear_nodes():
    """Name, node, input shape, and the same function in torch."""
    rng = np.random.default_rng(0)
    functional = torch.nn.functional
    for case in range(12):
        groups = 2 if case % 3 == 0 else 1
        weight, bias = rng.normal(size=(4, 2 // groups, 2, 3)), rng.normal(size=4)
        options = {key: tuple(rng.integers(1, 3, 2).tolist()) for key in ("stride", "padding", "dilation")}
        options["groups"] = groups
        node = nir.Conv2d(input_shape=None, weight=weight, bias=bias, **options)
        parameters = torch.tensor(weight), torch.tensor(bias)
        yield f"conv2d-{case}", node, (2, 5, 6), lambda x, p=parameters, o=options: torch.conv2d(x, *p, **o)
    weight, bias = rng.normal(size=(4, 2, 4)), rng.normal(size=4)
    options = {"padding": "same", "dilation": 2, "stride": 1, "groups": 1}
    parameters = torch.tensor(weight), torch.tensor(bias)
    node = nir.Conv1d(input_shape=None, weight=weight, bias=bias, **options)
    yield "conv1d-same", node, (2, 9), lambda x, p=parameters, o=options: functional.conv1d(x, *p, **o)
    pool = {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 1)}
    arrays = {key: np.array(value) for key, value in pool.items()}
    yield "average", nir.AvgPool2d(**arrays), (2, 5, 6), lambda x: functional.avg_pool2d(x, **pool)
    yield "sum", nir.SumPool2d(**arrays), (2, 5, 6), lambda x: functional.avg_pool2d(x, **pool) * 6
    yield "flatten", nir.Flatten(None, 1, 2), (2, 3, 4), lambda x: x.flatten(2, 3)


@pytest.mark.parametrize(("node", "shape", "truth"), [pytest.param(*case, id=name) for name, *case in linear_nodes()])
def test_linear_nodes_equal_torch(node, shape, truth):
    x = np.random.default_rng(1).normal(size=(3, *shape))
    expected = truth(torch.tensor(x)).numpy()
    size = int(np.prod(expected.shape[1:]))
    # The neuron makes it a network in which something is computed.
    layer = nir_graph.network(chain(node, nir.Threshold(np.zeros(1)), shape=shape, size=size), DT).layers[0]
    assert layer.shape == expected.shape[1:]
    np.testing.assert_allclose(layer.linear(x.reshape(3, -1)).reshape(expected.shape), expected, atol=1e-12)


# -- hardware -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("interval", [None, 120])
def test_compiled_rtl_equals_golden(interval):
    program = nir_read.program(small(), STEPS, DT)
    x = stimulus(program, 200, 1)
    planned = plan(program, interval=interval)
    expected = program(*x)
    np.testing.assert_array_equal(expected, program.reference(*x))
    rtl = CompiledRtl(emit(planned), planned.inputs, planned.output, optimize="-O1")
    plain = rtl.run(*x, watchdog=20_000).check(expected)
    assert (plain.latency, plain.interval) == (planned.estimated_latency, planned.estimated_interval)
    rtl.run(*x, stall_seed=1, idle=0.3, backpressure=0.3, watchdog=20_000).check(expected)


@pytest.mark.needs("g++")
def test_hls_equals_golden(tmp_path):
    program = nir_read.program(small(), STEPS, DT)
    x = stimulus(program, 50, 1)
    traced = host.build(project.write(program, tmp_path)).trace(*x)
    for name, codes in program.trace(*x).tensors.items():
        np.testing.assert_array_equal(traced[name], codes, err_msg=name)


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
    build = Builder(x=TensorType((10, 7), Format(1, signed=False)))
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
    build = Builder(x=TensorType((8,), INT8))
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


# -- bad input ----------------------------------------------------------------------------------------------
def refused(graph: nir.NIRGraph, message: str, **options) -> None:
    with pytest.raises(BittrueError, match=message):
        nir_read.program(graph, **{"steps": STEPS, "dt": DT} | options)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "net.nir"
    nir.write(path, small())
    return path


def test_damaged_and_foreign_files_are_refused(written, tmp_path):
    nir_graph.read(written)
    whole = written.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"weights", np.arange(9).tobytes()):
        written.write_bytes(content)
        with pytest.raises(BittrueError, match=r"net\.nir: cannot be read"):
            nir_graph.read(written)
    with pytest.raises(BittrueError, match="cannot be read"):
        nir_graph.read(tmp_path / "absent.nir")
    with h5py.File(written, "w") as file:
        file["node/nodes/a/type"] = "LIF"
        file["node/type"], file["node/edges"] = "NIRGraph", np.zeros((0, 2), "S1")
    with pytest.raises(BittrueError, match="its nodes cannot be made"):
        nir_graph.read(written)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (nir.Delay(delay=np.ones(3)), r"'n0' is a Delay, which is not supported: supported are Affine"),
        (chain(lif(3), shape=(3,), size=3), r"'n0' is a NIRGraph, .* recurrent layers"),
    ],
)
def test_unsupported_nodes_are_named(node, message, tmp_path):
    graph = chain(node, shape=(3,), size=3)
    refused(graph, message)
    nir.write(tmp_path / "net.nir", graph)
    with pytest.raises(BittrueError, match=message):
        nir_graph.read(tmp_path / "net.nir")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([nir.Linear(weight=np.ones((3, 4)))], r"'n0' \(Linear\) expects an input of shape \[4\]"),
        ([lif(4)], r"'n0' \(LIF\): v_threshold has shape \[4\], but \[5\] arrives"),
        ([nir.Scale(scale=np.ones(3))], r"'n0' \(Scale\) expects an input of shape \[3\]"),
        ([nir.Affine(weight=np.ones((3, 5)), bias=np.ones(2)), lif(3)], r"3 outputs, but a bias of shape \[2\]"),
        ([nir.Linear(weight=np.full((3, 5), np.nan)), lif(3)], "'n0' .* not finite"),
        ([lif(5, tau=DT / 2)], r"tau = 5e-05 is below the time step dt = 0.0001"),
        ([lif(5, tau=np.inf)], "tau is not finite; export a neuron without leak as an IF"),
        ([lif(5, tau=1e9 * DT)], "'n0': the leak .* too small"),
        ([nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))], r"\[channels, size, size\]"),
        ([nir.Linear(weight=np.ones((3, 5))), lif(3)], "declares shape"),
        ([nir.Flatten(None, 0, -1)], "no operation, only changes of shape"),
        ([lif(5, v_threshold=np.full(5, 1e30))], "the threshold of 'n0': the result needs"),
    ],
)
def test_shapes_and_parameters_that_do_not_fit(nodes, message):
    size = 99 if message == "declares shape" else 3 if len(nodes) == 2 or "Linear" in message else 5
    refused(chain(*nodes, shape=(5,), size=size), message)


def test_convolutions_that_are_too_large_are_refused():
    weight = np.ones((8, 4, 3, 3))
    node = nir.Conv2d(input_shape=None, weight=weight, bias=np.zeros(8), stride=1, padding="same", dilation=1, groups=1)
    refused(chain(node, shape=(4, 64, 64), size=8 * 4096), "'n0' .* exceeds .* small maps only")
    refused(chain(node, shape=(4, 2, 2), size=8), "declares shape")
    refused(chain(replace(node, padding=0), shape=(4, 2, 2), size=8), r"its kernel \[3, 3\] is larger than the map")
    refused(chain(node, shape=(3, 8, 8), size=8), r"expects an input of shape \[4, \.\.\.\]")


def test_graphs_that_are_no_chain_are_refused():
    graph = chain(nir.Linear(weight=weights(5, 5)), lif(5), nir.Linear(weight=weights(5, 5)), shape=(5,), size=5)
    refused(replace_edges(graph, [("input", "n2")]), r"'n2' reads .*, not 'n1' alone; only chains")
    refused(replace_edges(graph, [("n2", "n1")]), r"'n[012]' .* recurrent connection")
    refused(replace_edges(graph, [("n9", "n1")]), "names 'n9', which is no node")
    refused(replace_edges(graph, [], without="input"), r"'n0' \(Linear\) has no input")
    two = replace_edges(graph, [])
    two.nodes["more"] = nir.Input(input_type=np.array([5]))
    refused(two, "it has 2 Input nodes")


def replace_edges(graph: nir.NIRGraph, more: list[tuple[str, str]], without: str = "") -> nir.NIRGraph:
    edges = [edge for edge in graph.edges if edge[0] != without] + more
    return nir.NIRGraph(nodes=dict(graph.nodes), edges=edges, type_check=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least one time step; 0 were asked for"),
        ({"dt": 0.0}, "the time step dt is 0"),
        ({"dt": float("nan")}, "the time step dt is nan"),
        ({"reset": "none"}, "reset 'none' is unknown; it is one of value, subtract"),
        ({"input_scale": 0.0}, "worth of one input code is positive"),
        ({"guard": 40}, "'n1': lif: .* guard 0 to 32, got .* guard 40"),
    ],
)
def test_bad_options_are_refused(options, message):
    refused(small(), message, **options)


def test_subtraction_contradicts_a_reset_value():
    refused(small(), r"'n5' \(IF\): v_reset is not 0", reset="subtract")


# -- the command --------------------------------------------------------------------------------------------
def command(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_commands_there_and_back(written, tmp_path, capsys):
    status, out, _ = command(capsys, "import-nir", written, "--steps", 5, "--out", tmp_path / "program.npz")
    assert status == 0
    assert "as in float" in out
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
