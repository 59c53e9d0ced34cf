"""NIR files, graphs and options that are refused, each with the node, the reason and the remedy."""

from dataclasses import replace

import h5py
import nir
import numpy as np
import pytest

from bittrue.models.formats.nir import graph as nir_graph
from bittrue.models.formats.nir import read as nir_read
from bittrue.sim.errors import BittrueError
from tests.helpers.nir_graphs import DT, STEPS, chain, lif, small, weights


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
