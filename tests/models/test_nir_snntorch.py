"""What snnTorch's options are here, what is left of a difference, and the comparison with a torch model on request."""

import json
import re

import nir
import numpy as np
import pytest
import torch

from bittrue.flow.cli import main as cli
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.hls import host, project
from bittrue.models.formats.nir import compare
from bittrue.models.formats.nir import graph as nir_graph
from bittrue.models.formats.nir import read as nir_read
from bittrue.models.formats.nir.graph import RESETS, float_reference
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program
from tests.helpers.nir_graphs import DT, chain, lif
from tests.helpers.promises import require

#: What snnTorch prints and warns about when it exports is not ours.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.needs("snntorch", "nirtorch")]

STEPS = 20
#: The user's file: a default network of snnTorch, one beta and one threshold a neuron as the exporter wants them.
SOURCE = """
import snntorch as snn
import torch



def leaky(size, **options):
    return snn.Leaky(beta=torch.full((size,), 0.9), threshold=torch.ones(size), init_hidden=True, **options)


def make(**options):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(10, 8), leaky(8, **options), torch.nn.Linear(8, 3), leaky(3, output=True, **options)
    )
    for layer in (net[0], net[2]):
        layer.weight.data = torch.randn(layer.weight.shape) * 0.55 + 0.25
    return net


net = make()
other = torch.nn.Linear(10, 4)
number = 5
"""


@pytest.fixture
def user(tmp_path):
    (tmp_path / "my_net.py").write_text(SOURCE)
    return tmp_path / "my_net.py"


@pytest.fixture
def x():
    return (np.random.default_rng(0).random((50, STEPS, 10)) < 0.5).astype(np.uint8)


def exported(model: torch.nn.Module, path) -> nir.NIRGraph:
    """As the documents say: `ignore_dims=[0]` keeps the batch out of the shapes."""
    require("nirtorch")
    from snntorch.export_nir import export_to_nir

    nir.write(path, export_to_nir(model, torch.rand(1, 10), ignore_dims=[0]))
    return nir_graph.read(path)


def made(user, **options) -> torch.nn.Module:
    names: dict = {}
    exec(user.read_text(), names)
    return names["make"](**options)


@pytest.mark.parametrize(
    ("options", "reset"),
    [
        ({}, "snntorch"),
        ({"reset_mechanism": "zero"}, "value"),
        ({"reset_mechanism": "zero", "reset_delay": False}, "value"),
    ],
)
def test_each_option_of_snntorch_has_its_reset(options, reset, user, x, tmp_path):
    """With the right one the float simulation is snnTorch's, spike for spike; with another one in many it is not."""
    model = made(user, **options)
    graph, truth = exported(model, tmp_path / "net.nir"), compare.simulate(model, x)
    wrong = {name: int((float_reference(graph, x, DT, name) != truth).sum()) for name in RESETS}
    assert wrong.pop(reset) == 0
    assert min(wrong.values()) > 100
    assert 0.1 < truth.mean() < 0.9


def test_a_subtraction_at_once_differs_above_twice_the_threshold(x):
    """There snnTorch subtracts once more before it compares; below, the spikes are those of `subtract`."""
    leaky = pytest.importorskip("snntorch").Leaky
    for limit, equal in ((1.0, True), (3.0, False)):
        neuron = leaky(beta=0.5, threshold=1.0, init_hidden=True, reset_delay=False)
        current = torch.tensor(x[:, :, :1] * limit, dtype=torch.float32)
        truth = torch.stack([neuron(current[:, t]) for t in range(STEPS)], 1).detach().numpy()
        membrane = nir_graph.Membrane(*(np.array([v]) for v in (0.5, 1.0, 0.0, 1.0, 1.0)), subtract=True)
        assert np.array_equal(membrane(current.numpy().astype(float)), truth) is equal


def test_the_rest_is_the_rounding_of_weights_and_decays(user, x, tmp_path):
    """Some per cent with weights of 8 bits, fewer with 16, and next to none with decays of 20; the membrane's bits do
    not matter."""
    model = made(user)
    graph, truth = exported(model, tmp_path / "net.nir"), compare.simulate(model, x)
    shares = {}
    for case in ((8, 10, 4), (8, 10, 12), (16, 10, 4), (16, 20, 4)):
        weight_bits, keep_bits, guard = case
        options = {"weight_bits": weight_bits, "keep_bits": keep_bits, "guard": guard}
        program = nir_read.program(graph, STEPS, DT, reset="snntorch", **options)
        shares[case] = float((program(x) != truth).mean())
    assert shares[16, 20, 4] < 0.001 < shares[16, 10, 4] < shares[8, 10, 4] < 0.06
    assert abs(shares[8, 10, 4] - shares[8, 10, 12]) < 0.01


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_an_exact_default_network_equals_snntorch_spike_for_spike(kind, x, tmp_path):
    """Weights of 8 bits and decays by quarters: nothing is rounded, in golden, RTL and HLS."""
    snn = pytest.importorskip("snntorch")
    rng = np.random.default_rng(1)
    options = {"beta": torch.full((6,), 0.75), "threshold": torch.ones(6), "init_hidden": True, "output": True}
    if kind == "Synaptic":
        options["alpha"] = torch.full((6,), 0.5)
    steps = 6
    model = torch.nn.Sequential(torch.nn.Linear(10, 6, bias=False), getattr(snn, kind)(**options))
    weight = rng.integers(-40, 100, (6, 10)) / 128
    weight[:, 0] = 127 / 128
    model[0].weight.data = torch.tensor(weight, dtype=torch.float32)
    graph, short = exported(model, tmp_path / "net.nir"), x[:, :steps]
    program = nir_read.program(graph, steps, DT, reset="snntorch", guard=14)
    truth = compare.simulate(model, short)
    assert 0.1 < truth.mean() < 0.95
    np.testing.assert_array_equal(program(short), truth)
    np.testing.assert_array_equal(program.reference(short), truth)
    planned = plan(program)
    rtl = CompiledRtl(emit(planned), planned.inputs, planned.outputs)
    rtl.run(short, stall_seed=1, idle=0.3, backpressure=0.3, watchdog=20_000).check(truth)
    if kind == "Leaky":
        np.testing.assert_array_equal(host.build(project.write(program, tmp_path / "hls")).predict(short), truth)


def test_what_the_delayed_reset_cannot_be():
    below = chain(lif(3, v_threshold=np.array([1, -1, 1.0])), shape=(3,), size=3)
    with pytest.raises(BittrueError, match=r"'n0' \(LIF\): v_threshold is negative"):
        nir_read.program(below, STEPS, DT, reset="snntorch")
    elsewhere = chain(lif(3, v_reset=np.full(3, 0.5)), shape=(3,), size=3)
    with pytest.raises(BittrueError, match="v_reset is not 0, so a reset by subtraction"):
        nir_read.program(elsewhere, STEPS, DT, reset="snntorch")
    with pytest.raises(BittrueError, match="weights of 17 bits were asked for; they have 2 to 16"):
        nir_read.program(chain(lif(3), shape=(3,), size=3), STEPS, DT, weight_bits=17)
    with pytest.raises(BittrueError, match="decays of 21 fraction bits were asked for; they have 1 to 20"):
        nir_read.program(chain(lif(3), shape=(3,), size=3), STEPS, DT, keep_bits=21)


# -- the command -------------------------------------------------------------------------------------------
def run(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), " ".join(captured.out.split()), " ".join(captured.err.split())


def test_the_command_says_what_it_assumes_and_compares(user, tmp_path, capsys):
    exported(made(user), tmp_path / "net.nir")
    words = [
        "import-nir",
        tmp_path / "net.nir",
        "--steps",
        STEPS,
        "--out",
        tmp_path / "p.npz",
        "--model",
        f"{user}:net",
    ]

    status, out, err = run(capsys, *words)  # NIR's reset, which this network does not have
    assert status == 1
    assert "assumed, since no NIR file says it: a spike sets the membrane to v_reset, at once (--reset value)" in out
    assert "as in the torch model" in out
    assert "at least 90.00 % are asked for (--agreement); try --reset subtract or snntorch" in err

    status, out, _ = run(capsys, *words, "--reset", "snntorch", "--json")
    assert status == 0
    told = json.loads(out)
    assert told["reset"] == "snntorch"
    assert 0.9 < told["model"]["equal"] < 1
    assert Program.load(tmp_path / "p.npz").meta["nir"]["discretisation"].endswith("after the decay")

    status, _, err = run(capsys, *words, "--reset", "snntorch", "--agreement", "0.9999")
    assert status == 1
    assert "at least 99.99 % are asked for" in err


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_net.py", "name a Python file and what it calls the model, for example my_net.py:net"),
        ("absent.py:net", "name a Python file and what it calls the model"),
        ("my_net.py:nothing", "AttributeError in .*my_net.py .module .* has no attribute 'nothing'"),
        ("my_net.py:number", "TypeError in .*my_net.py"),
        ("my_net.py:other", "gives 4 values a time step, and the program 3; is the file an export of this model"),
    ],
)
def test_models_that_cannot_be_compared(name, sentence, user, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exported(made(user), tmp_path / "net.nir")
    status, _, err = run(capsys, "import-nir", "net.nir", "--steps", 4, "--out", "p.npz", "--model", name)
    assert status == 1
    assert re.search(sentence, err)
