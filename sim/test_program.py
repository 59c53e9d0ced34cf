"""Programs: single assignment, running, tracing, and what is said about wrong inputs."""

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import BLOCK, Node, Program
from bittrue.sim.requantize import Requantize


def test_lists_are_taken_for_what_never_changes():
    """A program that was made with lists is that made with tuples, and nothing of it can be changed behind its back."""
    kind = TensorType((2, 3), INT8)
    inputs, nodes, results, operands = {"x": kind}, [], ["y"], ["x"]
    nodes.append(Node("y", Transpose(kind), operands))
    made, again = Program(inputs, nodes, results), Program({"x": kind}, tuple(nodes), "y")
    assert made.sha256 == again.sha256
    nodes.clear(), results.clear(), operands.clear()
    assert (made.results, [node.name for node in made.nodes], made.nodes[0].operands) == (("y",), ["y"], ("x",))
    alone = Program({"image": kind}, (Node("y", Transpose(kind), "image"),), "y")
    assert alone.nodes[0].operands == ("image",)
    inputs.clear()
    assert list(made.inputs) == ["x"]


def mixer(rng: np.random.Generator, tokens: int, features: int, channels: int, hidden: int, classes: int) -> Program:
    """Embed, one residual block with token and channel mixing, pooling, classifier."""

    def linear(kind, outputs, **more):
        shift = rng.integers(6, 9, outputs) + kind.channels.bit_length() // 2
        weight = rng.integers(-128, 128, (outputs, kind.channels))
        return Linear(kind, weight, Requantize(outputs, shift, rng.integers(-9, 9, outputs), **more))

    def affine(kind):
        n = kind.channels
        return Affine(kind, rng.integers(-128, 128, n), Requantize(n, rng.integers(5, 8, n)))

    build = Builder({"x": TensorType((tokens, features), INT8)})
    kinds = build.types
    x = build.add("embed", linear(kinds["x"], channels), "x")
    u = build.add("affine", affine(kinds[x]), x)
    u = build.add("swap", Transpose(kinds[u]), u)
    u = build.add("tokens", linear(kinds[u], tokens), u)
    u = build.add("back", Transpose(kinds[u]), u)
    y = build.add("first", Add(kinds[u], kinds[x]), u, x)
    z = build.add("curve", Lerp(kinds[y], rng.integers(-128, 128, (channels, 33))), y)
    z = build.add("up", linear(kinds[z], hidden), z)
    z = build.add("knee", Lerp(kinds[z], rng.integers(-128, 128, (hidden, 17))), z)
    z = build.add("down", linear(kinds[z], channels, floor=0), z)
    y = build.add("second", Add(kinds[z], kinds[y]), z, y)
    y = build.add("pool", Mean(kinds[y], Requantize(channels, [tokens.bit_length() - 1])), y)
    return build.program(build.add("classify", linear(kinds[y], classes), y), note="random")


@pytest.fixture
def program():
    return mixer(np.random.default_rng(1), 4, 6, 10, 12, 3)


def images(program: Program, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (n, *program.inputs["x"].shape)).astype(np.int8)


@pytest.mark.parametrize("backend", ["", "sgemm", "numba"])
@pytest.mark.parametrize("sizes", [(4, 6, 10, 12, 3), (1, 1, 1, 1, 1), (16, 20, 24, 48, 10), (7, 3, 17, 5, 2)])
def test_run_trace_and_reference_are_equal(sizes, backend, monkeypatch):
    monkeypatch.setenv("BITTRUE_BACKEND", backend)
    program = mixer(np.random.default_rng(sizes), *sizes)
    x = images(program, 50)
    trace = program.trace(x)
    reference = {"x": x}
    for node in program.nodes:
        operands = [reference[name] for name in node.operands]
        reference[node.name] = node.operation.reference(*operands)
        np.testing.assert_array_equal(trace.tensors[node.name], reference[node.name], err_msg=node.name)
        assert trace.saturation[node.name] == node.operation.saturated(*operands)
    np.testing.assert_array_equal(program(x), trace.tensors[program.result])
    np.testing.assert_array_equal(program(x), program.reference(x))
    assert list(trace.tensors) == list(program.types)


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_any_batch_size(program, n):
    x = images(program, n)
    y = program(x)
    assert y.shape == (n, 3)
    assert y.dtype == np.int8
    np.testing.assert_array_equal(y, program.reference(x))
    assert program.trace(x).tensors["first"].shape == (n, 4, 10)


def test_samples_do_not_mix(program):
    x = images(program, 9)
    np.testing.assert_array_equal(np.concatenate([program(x[k : k + 1]) for k in range(9)]), program(x))


def test_inputs_are_left_as_they_are(program):
    x = images(program, 3)
    kept = x.copy()
    program(x)
    program.trace(x)
    np.testing.assert_array_equal(x, kept)


def test_any_integer_dtype_and_layout(program):
    x = images(program, 5)
    expected = program(x)
    for other in (
        x.astype(np.int64),
        x.astype(">i4"),
        np.asfortranarray(x),
        x.astype(np.int16)[::-1][::-1],
        x.tolist(),
    ):
        np.testing.assert_array_equal(program(other), expected)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda x: x[0], r"input 'x': expected shape \(n, 4, 6\), got \(4, 6\)"),
        (lambda x: x[:, :3], r"input 'x': expected shape \(n, 4, 6\), got \(2, 3, 6\)"),
        (lambda x: x.transpose(0, 2, 1), "input 'x': expected shape"),
        (lambda x: x / 2, "input 'x': codes are integers, but the array is float64; quantise it first"),
        (lambda x: x > 0, "codes are integers, but the array is bool"),
        (lambda x: x.astype(int) * 0 + 128, r"input 'x': values 128..128 do not fit s8 \(-128..127\)"),
        (lambda x: x.astype(np.uint8) * 0 + np.uint8(200), "values 200..200 do not fit s8"),
        (lambda _: np.array(["a"]), "codes are integers"),
    ],
)
@pytest.mark.parametrize("verb", ["__call__", "trace", "reference"])
def test_wrong_inputs_are_refused(program, wrong, sentence, verb):
    with pytest.raises(BittrueError, match=sentence):
        getattr(program, verb)(wrong(images(program, 2)))


def test_number_and_batch_of_inputs():
    kind = TensorType((3,), INT8)
    program = Program({"a": kind, "b": kind}, (Node("y", Add(kind, kind), ("a", "b")),), "y")
    x = np.ones((4, 3), np.int8)
    assert (program(x, x) == 2).all()
    with pytest.raises(BittrueError, match=r"the program has 2 inputs \(a, b\), got 1"):
        program(x)
    with pytest.raises(BittrueError, match="different batch sizes: 4, 3"):
        program(x, x[:3])


class TestSingleAssignment:
    kind = TensorType((3,), INT8)
    add = Add(kind, kind)

    def refuse(self, sentence, nodes, result="y", inputs=None):
        inputs = {"x": self.kind} if inputs is None else inputs
        with pytest.raises(BittrueError, match=sentence):
            Program(inputs, tuple(nodes), result)

    def test_two_of_a_name(self):
        node = Node("y", self.add, ("x", "x"))
        self.refuse("two tensors are named 'y'", [node, node])
        self.refuse("two tensors are named 'x'", [Node("x", self.add, ("x", "x"))])

    def test_operand_that_does_not_exist_yet(self):
        self.refuse("'y' reads 'z', which no earlier operation makes", [Node("y", self.add, ("x", "z"))])
        self.refuse("'y' reads 'y', which no earlier", [Node("y", self.add, ("x", "y"))])

    def test_wrong_number_of_operands(self):
        self.refuse("'y' takes 2 operands, got 1", [Node("y", self.add, ("x",))])

    def test_wrong_type(self):
        wide = TensorType((3,), Format(9))
        self.refuse(r"'y' expects s9\[3\] but 'x' is s8\[3\]", [Node("y", Add(self.kind, wide), ("x", "x"))])

    def test_result(self):
        node = Node("y", self.add, ("x", "x"))
        self.refuse("its result 'z' is not made", [node], "z")
        self.refuse("its result 'x' is not made", [node], "x")
        self.refuse("its result 'z' is not made", [node], ("y", "z"))
        self.refuse("'y' is named twice as a result", [node], ("y", "y"))
        self.refuse("at least one result", [node], ())

    def test_nothing(self):
        self.refuse("at least one input and one operation", [])
        self.refuse("at least one input and one operation", [Node("y", self.add, ("x", "x"))], inputs={})


def test_looking_up_an_operation(program):
    assert isinstance(program["curve"], Lerp)
    with pytest.raises(BittrueError, match="no operation is named 'nose'; it has embed, affine"):
        program["nose"]


def test_summary_adds_up(program):
    rows = program.summary()
    assert [row["name"] for row in rows] == [node.name for node in program.nodes]
    assert sum(row["macs"] for row in rows) == program.macs == 4 * 60 + 40 + 10 * 16 + 4 * 240 + 30
    assert sum(row["weights"] for row in rows) == program.weights
    assert rows[6]["table_bits"] == 10 * 33 * 8


def test_a_result_that_is_read_again_is_kept():
    """The program's result may be read by later operations; it must survive them."""
    kind = TensorType((3,), INT8)
    add = Add(kind, kind)
    program = Program({"x": kind}, (Node("y", add, ("x", "x")), Node("z", add, ("y", "y"))), "y")
    assert program(np.full((2, 3), 5, np.int8)).tolist() == [[10] * 3] * 2


class TestSeveralResults:
    """A sum, its double and its quadruple, as results in another order than they are made in."""

    kind = TensorType((3,), INT8)
    add = Add(kind, kind)
    nodes = (Node("a", add, ("x", "x")), Node("b", add, ("a", "a")), Node("c", add, ("b", "b")))
    program = Program({"x": kind}, nodes, ("c", "a"))
    x = np.arange(-3, 3, dtype=np.int8).reshape(2, 3)
    expected = (8 * x, 2 * x)

    def test_a_run_gives_all_of_them_in_order(self):
        for made in (self.program(self.x), self.program.run(self.x), self.program.reference(self.x)):
            assert isinstance(made, tuple)
            for codes, expected in zip(made, self.expected, strict=True):
                np.testing.assert_array_equal(codes, expected)
        (alone,) = Program(self.program.inputs, self.nodes, "a").run(self.x)
        np.testing.assert_array_equal(alone, 2 * self.x)

    def test_types_and_names(self):
        assert list(self.program.outputs.items()) == [("c", self.kind), ("a", self.kind)]
        for ask in ("result", "output"):
            with pytest.raises(BittrueError, match=r"has 2 results \(c, a\), one is needed"):
                getattr(self.program, ask)

    def test_a_fused_pair_gives_out_its_first_when_that_is_a_result(self, program):
        """A product whose only reader is a table is fused with it, but not where its own codes are wanted."""
        fused = [node for node in program.nodes if isinstance(node.operation, Lerp)][0]
        wanted = Program(program.inputs, program.nodes, (program.result, *fused.operands))
        x = images(program, 5)
        made, before = wanted(x)
        np.testing.assert_array_equal(made, program(x))
        np.testing.assert_array_equal(before, program.trace(x).tensors[fused.operands[0]])

    def test_the_file_and_the_hash_hold_their_order(self, tmp_path):
        again = Program.load(self.program.save(tmp_path / "p.npz"))
        assert again.results == ("c", "a")
        assert again.sha256 == self.program.sha256
        hashes = {Program(self.program.inputs, self.nodes, r).sha256 for r in (("c", "a"), ("a", "c"), "a", "c")}
        assert len(hashes) == 4
        for codes, expected in zip(again(self.x), self.expected, strict=True):
            np.testing.assert_array_equal(codes, expected)


def test_hash_follows_every_number_and_no_note(program):
    again = mixer(np.random.default_rng(1), 4, 6, 10, 12, 3)
    assert again.sha256 == program.sha256
    assert Program(program.inputs, program.nodes, program.results, {"other": 1}).sha256 == program.sha256
    for k, node in enumerate(program.nodes):
        if not isinstance(node.operation, Linear):
            continue
        op = node.operation
        weight = op.weight.copy()
        weight[-1, -1] ^= 1
        changed = Linear(op.input, weight, op.requantize)
        nodes = (*program.nodes[:k], Node(node.name, changed, node.operands), *program.nodes[k + 1 :])
        assert Program(program.inputs, nodes, program.results).sha256 != program.sha256


@pytest.mark.parametrize("name", ["self", "inputs", "result", "file", "class", "a b/c", "é", ""])
def test_any_text_names_a_tensor(name, tmp_path):
    kind = TensorType((3, 2), INT8)
    build = Builder({name: kind})
    program = build.program(build.add(f"{name}2", Transpose(kind), name), **{name: "said"} if name else {})
    back = Program.load(program.save(tmp_path / "program.npz"))
    x = np.arange(12, dtype=np.int8).reshape(2, 3, 2)
    assert back.sha256 == program.sha256
    assert back.meta == program.meta
    assert np.array_equal(back(x), x.swapaxes(1, 2))
    assert list(back.trace(x).tensors) == [name, f"{name}2"]
