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


def test_a_graph_whose_type_has_lost_its_name_is_refused(written):
    """The package cannot read it either; what else is damaged in such a file nobody knows."""
    with h5py.File(written, "a") as file:
        file.move("node/type", "node/typo")
    with pytest.raises(BittrueError, match="it holds None, and no NIRGraph"):
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


@pytest.mark.parametrize(("bias", "held"), [(2.0**30, True), (2.0**56, False), (1e300, False)])
def test_a_bias_far_above_its_weights(bias, held):
    """The file says of how many bits the weights' fractions are: 64 bits hold a bias in that unit, or they do not."""
    graph = chain(
        nir.Affine(weight=weights(3, 3), bias=np.array([bias, 0.0, -1.0]), metadata={"bittrue_fraction": 6}),
        nir.Threshold(threshold=np.ones(3)),
        shape=(3,),
        size=3,
    )
    if held:
        nir_read.program(graph, STEPS, DT)
    else:
        refused(graph, "the bias of .* is too large beside its weights")


# -- values of other kinds ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        *(
            ("n1/metadata/bittrue_guard", v, r"'n1' .*metadata bittrue_guard is")
            for v in (-1, 33, "text", [1, 2], 10**6, 1.5)
        ),
        *(
            ("n1/metadata/bittrue_shift", v, r"'n1' .*metadata bittrue_shift is")
            for v in (-1, 21, "text", 1e300, np.nan)
        ),
        *(
            ("n0/metadata/bittrue_fraction", v, r"'n0' .*metadata bittrue_fraction is")
            for v in (1e300, "text", [], -49)
        ),
        ("n0/metadata/bittrue_fraction", -40, "fraction is -40, but its weights are no multiples of"),
        ("n1/metadata/bittrue_shift", 0, "shift is 0, but its decay is no multiple"),
        ("input/shape", "text", r"'input' \(Input\): shape is 'text', and not whole numbers"),
        ("input/shape", -np.inf, r"'input' \(Input\): shape is"),
        ("input/shape", 0, r"'input' \(Input\): shape is \[?0\]?, and 1 to"),
        ("input/shape", [1 << 12] * 3, "at most 16777216 values"),
        ("output/shape", [1] * 9, r"'output' \(Output\): its shape"),
        ("n1/v_threshold", "text", "nodes cannot be made|v_threshold is"),
        ("n0/bias", "text", r"'n0' \(Affine\): bias is 'text', and not numbers"),
        ("n0/bias", [], "bias is"),
        ("n0/type", [1, 2], "the type of node 'n0' is .*and not text"),
        ("n0/type", "Robot", "'n0' is a Robot, which is not supported"),
    ],
)
def test_fields_of_other_kinds(place, value, message, written):
    with h5py.File(written, "a") as file:
        at = f"node/nodes/{place}"
        if at in file:
            del file[at]
        file[at] = value
    with pytest.raises(BittrueError, match=message):
        nir_read.program(nir_graph.read(written), STEPS, DT)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stride", "x", "stride is 'x', and not 2 whole numbers"),
        ("stride", -1, "stride is -1, and 1 to"),
        ("stride", (1, 2, 3), "and not 2 whole numbers"),
        ("dilation", 0, "dilation is"),
        ("padding", -1, "padding is"),
        ("padding", "some", "padding is 'some'; 'same', 'valid' or whole numbers"),
        ("groups", [], "groups is"),
        ("groups", 0, "groups is 0, and 1 to"),
        ("bias", "text", "bias is 'text', and not numbers"),
        ("weight", np.array(["a"]), "weight is"),
    ],
)
def test_fields_of_a_convolution(key, value, message):
    node = nir.Conv2d(None, np.ones((2, 1, 2, 2)), (1, 1), (0, 0), (1, 1), 1, np.zeros(2))
    setattr(node, key, value)
    refused(chain(node, shape=(1, 3, 3), size=8), rf"'n0' \(Conv2d\)[: ].*{message}")


def test_kernels_of_pooling():
    for kernel, message in (([], "kernel_size is"), (10**6, "larger than its kernel"), (0, "and 1 to")):
        node = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
        node.kernel_size = np.array(kernel)
        refused(chain(node, shape=(1, 2, 2), size=1), message)


@pytest.mark.parametrize(
    ("first", "last", "shape"),
    [
        (0, -1, (4,)),
        (0, 2, (4,)),
        (1, 2, (1, 4)),
        (-2, -1, (1, 4)),
        (3, 3, None),
        (0, 3, None),
        (-4, 2, None),
        (2, 1, None),
    ],
)
def test_flatten_knows_its_axes(first, last, shape):
    graph = chain(nir.Flatten(None, first, last), nir.Threshold(np.zeros(1)), shape=(1, 2, 2), size=4)
    if shape is None:
        return refused(graph, rf"with axes {first} to {last} .from 0")
    return np.testing.assert_array_equal(nir_graph.network(graph, DT).layers[0].shape, shape)


@pytest.mark.parametrize("tiny", [1e-300, 1e-307, 1e-310, 5e-324])
def test_weights_that_are_next_to_nothing(tiny):
    """They are rounded to 0, and the others are what they were."""
    weight = weights(3, 5)
    weight[1] = tiny
    graph = chain(nir.Affine(weight=weight, bias=np.full(3, 0.25)), lif(3), shape=(5,), size=3)
    program = nir_read.program(graph, STEPS, DT, guard=14)
    x = np.random.default_rng(0).integers(0, 2, (200, STEPS, 5))
    np.testing.assert_array_equal(program(x), nir_graph.float_reference(graph, x, DT))
    assert 0.1 < program(x).mean() < 0.9


def test_numbers_that_are_infinite_on_the_way():
    graph = chain(nir.Scale(np.full(3, 1e300)), nir.Scale(np.full(3, 1e300)), lif(3), shape=(3,), size=3)
    refused(graph, "the weights of 'n1' are too large")
    far = lif(3, v_threshold=np.full(3, 1e300))
    refused(chain(nir.Scale(np.full(3, 1e-200)), far, shape=(3,), size=3), "the threshold of 'n1': the result needs")


def test_files_with_more_than_is_there(written):
    """Links elsewhere, sizes that are not stored, nesting without end: none of them is followed."""
    cases = {
        "a link": lambda file: file.__setitem__("node/x", h5py.ExternalLink("/etc/passwd", "/")),
        "so much is not there": lambda file: file.create_dataset("node/x", (1 << 27,), "f8", chunks=(64,)),
        "more than can be read": lambda file: file.create_dataset("node/x", (10**5, 10**9), "f8", chunks=(1, 1024)),
        "nested more than 8 deep": lambda file: file.create_group("node/" + "/".join("abcdefghij")),
        "and not numbers or text": lambda file: file.create_dataset("node/x", data=np.zeros(2, [("a", "i4")])),
    }
    whole = written.read_bytes()
    for message, change in cases.items():
        written.write_bytes(whole)
        with h5py.File(written, "a") as file:
            change(file)
        with pytest.raises(BittrueError, match=message):
            nir_graph.read(written)


def test_a_heap_of_texts_on_which_the_library_never_ends(written):
    content = bytearray(written.read_bytes())
    heap = content.index(b"GCOL")
    at = heap + 16
    while int.from_bytes(content[at : at + 2], "little"):  # the free block behind the texts
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    content[at + 8 : at + 16] = bytes(8)
    written.write_bytes(content)
    with pytest.raises(BittrueError, match="its heap of texts is damaged"):
        nir_graph.read(written)


def test_agreement_below_what_is_asked_for():
    layers = {"a": {"equal": 0.99, "rate": 0.1}, "b": {"equal": 0.875, "rate": 0.1}}
    nir_read.check_agreement(layers, 0.875)
    with pytest.raises(BittrueError, match=r"'b': 87\.50 % of its spikes .* at least 88 % are asked for"):
        nir_read.check_agreement(layers, 0.88)
    with pytest.raises(BittrueError, match="'c': nan"):
        nir_read.check_agreement({"c": {"equal": float("nan"), "rate": 0}}, 0.0)
