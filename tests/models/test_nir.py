"""NIR files to programs: an exporter's files, exact networks spike for spike, every node, hardware."""

import nir
import numpy as np
import pytest
import torch

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.hls import host, project
from bittrue.models.formats.nir import graph as nir_graph
from bittrue.models.formats.nir import read as nir_read
from bittrue.models.formats.nir.graph import float_reference
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from tests.helpers.nir_graphs import DT, EXACT, STEPS, chain, lif, small, weights
from tests.helpers.programs import stimulus
from tests.helpers.promises import require

#: What snnTorch prints and warns about when it exports is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


# -- networks of snnTorch -----------------------------------------------------------------------------------
def snn():
    require("snntorch")
    import snntorch

    return snntorch


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
    require("nirtorch")
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
    rtl = CompiledRtl(emit(planned), planned.inputs, planned.outputs)
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


# -- fraction bits of decays ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("keep", "bits"),
    [
        ([1.0, 0.5], 1),
        ([1.0, 1.0], 0),
        ([0.0, 0.75], 2),
        ([1.0, 0.9], 9),  # the leak of 0 asks for nothing, 0.1 for log2(50 / 0.1)
        ([0.9, 1.0], 9),
        ([1.0, 0.99, 0.9], 13),
    ],
)
def test_a_channel_without_leak_beside_leaky_ones_asks_for_no_bits(keep, bits):
    assert nir_read.decay_bits(np.array(keep), 2) == bits


def test_leaks_that_are_just_large_enough():
    smallest = 50 / 2**nir_read.MAX_SHIFT
    assert nir_read.decay_bits(np.array([1.0, 1 - 1.01 * smallest]), 1) == nir_read.MAX_SHIFT
    with pytest.raises(BittrueError, match=rf"is too small for {nir_read.MAX_SHIFT} fraction bits"):
        nir_read.decay_bits(np.array([1.0, 1 - 0.99 * smallest]), 1)
