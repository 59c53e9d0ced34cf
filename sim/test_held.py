"""Held inputs: bounds and ranges, sets in the course of a run, counters, written weights, files."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operation import Operation, TensorType, discover, same
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.program import BLOCK, Node, Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import set_of, written

SEEDS = range(12)


def network(seed: int, fmt: Format = INT8) -> Program:
    """A matrix product, an affine, and a second matrix product, with requantisers of every kind."""
    rng = np.random.default_rng(seed)
    tokens, k, n, m = (int(rng.integers(1, high)) for high in (4, 9, 8, 6))
    build = Builder({"x": TensorType((tokens, k), fmt)})

    def requantize(channels: int, magnitude: int) -> Requantize:
        return Requantize.example(rng, channels, magnitude)

    build.add("first", Linear(build.types["x"], rng.integers(-128, 128, (n, k)), requantize(n, 9000 * k)), "x")
    build.add("scale", Affine(build.types["first"], rng.integers(-128, 128, n), requantize(n, 9000)), "first")
    build.add("last", Linear(build.types["scale"], rng.integers(-128, 128, (m, n)), requantize(m, 9000 * n)), "scale")
    return build.program("last", note="random")


def drawn(program: Program, rng: np.random.Generator, corner: str = "") -> dict[str, np.ndarray]:
    """A set within the bounds, at random, or every value at its lowest or highest."""
    return {
        name: np.full(held.shape, getattr(held, corner))
        if corner
        else rng.integers(held.low, held.high + 1, held.shape)
        for name, held in program.written.items()
    }


def codes(program: Program, count: int, rng: np.random.Generator) -> np.ndarray:
    (kind,) = program.inputs.values()
    return rng.integers(kind.format.low, kind.format.high + 1, (count, *kind.shape)).astype(kind.format.dtype)


def alone(kind: type[Operation], seed: int) -> Program:
    """A random operation of a kind by itself."""
    op = kind.example(np.random.default_rng(seed))
    op = replace(op, right=op.left) if kind is Multiply else op
    return Program({"x": op.inputs[0]}, (Node("last", op, ("x",) * len(op.inputs)),), "last")


#: Every operation that has a requantiser which can be written, and the array, whose cells are.
KINDS = [kind for kind in discover().values() if "requantize" in kind.__dataclass_fields__ and not kind.regroups]
CASES = [pytest.param(network, seed, id=f"network-{seed}") for seed in SEEDS]
CASES += [
    pytest.param(partial(alone, kind), seed, id=f"{kind.__name__}-{seed}")
    for kind in (*KINDS, PhotonicMac)
    for seed in range(4)
]


@pytest.mark.parametrize(("network", "seed"), CASES)
class TestRandomPrograms:
    def test_without_a_set_it_is_what_it_was(self, network, seed):
        program = network(seed)
        x = codes(program, 20, np.random.default_rng(seed))
        held = written(program)
        assert {name.rpartition(".")[0] for name in held.written} == {node.name for node in program.nodes}
        np.testing.assert_array_equal(held(x), program(x))
        assert all(same(held.bind(held.initial)[node.name], node.operation) for node in program.nodes)

    def test_several_sets_in_one_run(self, network, seed):
        """Fast run, trace and reference change sets at the sample, also within a block of samples."""
        rng = np.random.default_rng(seed)
        program = written(network(seed))
        x = codes(program, BLOCK + 20, rng)
        sets = [(3, drawn(program, rng)), (7, drawn(program, rng)), (BLOCK + 1, drawn(program, rng))]
        expected = program.bind(program.initial)(x)
        for at, values in sets:
            expected[at:] = program.bind(values)(x[at:], first=at)
        np.testing.assert_array_equal(program(x, held=sets), expected)
        np.testing.assert_array_equal(program.reference(x, held=sets), expected)
        trace = program.trace(x, held=sets)
        np.testing.assert_array_equal(trace.tensors["last"], expected)
        np.testing.assert_array_equal(program(x[5:], first=5, held=sets), expected[5:])
        np.testing.assert_array_equal(program(x[:4], held=sets), expected[:4])
        np.testing.assert_array_equal(program(x, held=sets[0][1]), program.bind(sets[0][1])(x))

    def test_saved_and_loaded(self, network, seed, tmp_path):
        program = written(network(seed))
        again = Program.load(program.save(tmp_path / "p.npz"))
        assert again.sha256 == program.sha256
        assert all(a.same_as(b) for a, b in zip(again.held.values(), program.held.values(), strict=True))
        assert list(again.held) == list(program.held)

    @pytest.mark.parametrize("corner", ["low", "high"])
    def test_a_set_at_the_bounds(self, network, seed, corner):
        rng = np.random.default_rng(seed)
        program = written(network(seed))
        values, x = drawn(program, rng, corner), codes(program, 12, rng)
        np.testing.assert_array_equal(program(x, held=values), program.reference(x, held=values))


def extremes(op) -> tuple[Range, ...]:
    """What an operation's sums reach over its bounds, tried corner by corner: the sum, scaled, rounded, shifted."""
    r, fmt = op.requantize, op.values if isinstance(op, SpikingLinear) else op.inputs[0].format
    seen: list[list[int]] = [[], [], [], []]
    for weight in (op.weight.low, op.weight.high):
        for x in (fmt.low, fmt.high, 0):
            terms = 1 if isinstance(op, Affine) else op.inputs[0].channels
            total = weight * x * terms
            seen[0].append(total)
            for bias_acc in (r.bias_acc.low, r.bias_acc.high):
                for multiplier in (r.multiplier.low, r.multiplier.high):
                    scaled = (total + bias_acc) * multiplier
                    seen[1].append(scaled)
                    for shift in range(r.shift.low, r.shift.high + 1):
                        rounded = scaled + ((1 << shift) >> 1)
                        seen[2].append(rounded)
                        seen[3] += [(rounded >> shift) + bias for bias in (r.bias.low, r.bias.high)]
    return tuple(Range(min(values), max(values)) for values in seen)


@pytest.mark.parametrize("kind", [Linear, Affine, SpikingLinear])
@pytest.mark.parametrize("shift", [(0, 3), (4, 4), (7, 12)])
def test_the_range_of_the_bounds_is_reached_and_not_left(kind, shift):
    """Every bound of every width is attained by some set and some input: widths are as narrow as they can be."""
    fmt = Format(5)
    for signed in (True, False):
        source = TensorType((2, 3), SPIKE if kind is SpikingLinear else Format(6, signed))
        n = 3 if kind is Affine else 4
        requantize = Requantize(
            n,
            Held("shift", (n,), *shift),
            Held("bias", (n,), -9, 20),
            Held("bias_acc", (n,), -1000, 77),
            Held("multiplier", (n,), 1, 9),
        )
        shape = (3,) if kind is Affine else (n, 3)
        decode = [np.array([8, -3]) if signed else np.array([2, 1])] if kind is SpikingLinear else []
        op = kind(source, Held("w", shape, -3, 15), *decode, requantize, fmt)
        sums, scaled, rounded, shifted = extremes(op)
        assert Range.of(*op.sums) == sums
        assert op.ranges[0] == scaled
        assert op.ranges[1].low >= rounded.low - (1 << shift[1])
        assert (op.ranges[1].high, op.ranges[2]) == (rounded.high, shifted)


@pytest.mark.parametrize("seed", range(8))
def test_the_light_of_held_cells_is_reached_and_not_left(seed):
    """Whatever cells of the bounds are set: the counts lie within the range, and at the highest cells reach its end."""
    rng = np.random.default_rng(seed)
    op = alone(PhotonicMac, seed)["last"]
    op = replace(op, noise=None)
    n, c = op.plus.shape
    (a, b), (d, e) = np.sort(rng.integers(0, op.cells.high + 1, (2, 2)))
    sides = {"plus": Held("p", (n, c), int(a), int(b)), "minus": Held("m", (n, c), int(d), int(e))}
    offset = Held("o", op.offset.shape, -int(rng.integers(9)), int(rng.integers(99)))
    for rails in (sides, {"plus": sides["plus"]}, {"minus": sides["minus"]}):
        held = replace(op, **rails, offset=offset)
        low, high = held.ends
        for _ in range(30):
            x = rng.choice([0, op.input.format.high], (1, *op.input.shape))
            values = {h.name: rng.choice([h.low, h.high], h.shape) for h in held.held.values()}
            counts = held.bind(values).counts(x)
            assert (low <= counts).all()
            assert (counts <= high).all()
        if len(rails) == 2:
            dark, full = np.zeros((1, *op.input.shape), np.int64), np.full((1, *op.input.shape), op.input.format.high)
            lows, highs = (
                {h.name: np.full(h.shape, getattr(h, end)) for h in held.held.values()} for end in ("low", "high")
            )
            least = [held.bind(lows).counts(x).reshape(-1, *low.shape)[0] for x in (dark, full)]
            most = [held.bind(highs).counts(x).reshape(-1, *low.shape)[0] for x in (dark, full)]
            np.testing.assert_array_equal(np.minimum(*least), low)
            np.testing.assert_array_equal(np.maximum(*most), high)
        assert held.light == Range(0, int(high.max()))
        half = (1 << op.shift) >> 1
        after = Range(int(low.min()) - offset.high, int(high.max()) - offset.low + half)
        assert held.accumulator == Range(int(low.min()), int(high.max())) | after


def test_the_bounds_of_a_constant_are_itself():
    """Ranges of held inputs whose bounds hold one value are those of that constant."""
    rng = np.random.default_rng(1)
    for low, high in ((-7, -7), (0, 0), (90, 90)):
        source = TensorType((2, 5), INT8)
        requantize = Requantize(3, np.array(4), np.array(5))
        constant = Linear(source, np.full((3, 5), low), requantize)
        held = Linear(source, Held("w", (3, 5), low, high), requantize)
        assert (held.ranges, held.accumulator) == (constant.ranges, constant.accumulator)
    spikes = SpikingLinear.example(rng)
    n, c = spikes.weight.shape
    wide = SpikingLinear(spikes.input, Held("w", (n, c), -8, 7), spikes.decode, Requantize(n, np.array(3)))
    total = max(-spikes.values.low, spikes.values.high) * c * 8
    assert wide.accumulator.high <= total + 4
    assert wide.bind({"w": np.full((n, c), -8)}).sums[0].min() == wide.sums[0].min()


class TestRefused:
    def test_sets(self):
        program = written(network(3))
        whole = program.initial
        with pytest.raises(BittrueError, match=r"set lacks 'first\.weight'.*a value for every"):
            program.bind({name: v for name, v in whole.items() if name != "first.weight"})
        with pytest.raises(BittrueError, match=r"no held input 'first\.wait' can be written; those are first\.weight"):
            program.bind(whole | {"first.wait": whole["first.weight"]})
        with pytest.raises(BittrueError, match=r"no held input 'a' can be written"):
            program.bind(whole | dict.fromkeys("bcadefgh", whole["first.weight"]))
        with pytest.raises(BittrueError, match=r"'first\.weight': values .*128 lie outside its bounds -128\.\.127"):
            program.bind(whole | {"first.weight": np.full_like(whole["first.weight"], 128)})
        with pytest.raises(BittrueError, match=r"'first\.weight': expected shape"):
            program.bind(whole | {"first.weight": whole["first.weight"][1:]})
        with pytest.raises(BittrueError, match="integers, but the array is float64"):
            program.bind(whole | {"first.weight": whole["first.weight"] * 1.0})
        with pytest.raises(BittrueError, match=r"samples \[4, 2\]; these must ascend"):
            program(codes(program, 9, np.random.default_rng(0)), held=[(4, whole), (2, whole)])
        constant = network(3)
        with pytest.raises(BittrueError, match="no held input that is written, so it takes no set"):
            constant(codes(constant, 2, np.random.default_rng(0)), held=[(0, {})])

    def test_arrays_that_are_constants(self):
        """What hardware has as a constant: refused where it is made, with the array's name."""
        kind = TensorType((2, 3), INT8)
        held, row = Held("h", (3,), 0, 4), np.arange(3)
        for message, make in (
            ("lerp: knots", lambda: Lerp(kind, held)),
            ("lif: threshold", lambda: Lif(kind, held, row, row, 5)),
            ("lif: reset", lambda: Lif(kind, row, held, row, 5)),
            ("lif: keep", lambda: Lif(kind, row, row, held, 5)),
            ("fs_neuron: threshold", lambda: FsNeuron(kind, held, row)),
            ("fs_neuron: reset", lambda: FsNeuron(kind, row, held)),
            (
                "spiking_linear: decode",
                lambda: SpikingLinear(TensorType((3, 2), SPIKE), np.ones((4, 2)), held, Requantize(4, np.array(1))),
            ),
        ):
            with pytest.raises(BittrueError, match=f"^{message} is a constant, so the held input 'h' cannot.*give its"):
                make()

    def test_cells_and_offsets(self):
        kind, cells = TensorType((4,), Format(3, signed=False)), Format(4, signed=False)
        open_, shut = np.ones((2, 4), np.int64), np.zeros((2, 4), np.int64)
        with pytest.raises(BittrueError, match=r"photonic_mac: cells 0\.\.16 do not fit u4"):
            PhotonicMac(kind, Held("p", (2, 4), 0, 16), shut, 4, 6, 2, np.zeros(1), cells)
        with pytest.raises(BittrueError, match=r"photonic_mac: cells -1\.\.15 do not fit u4"):
            PhotonicMac(kind, open_, Held("m", (2, 4), -1, 15), 4, 6, 2, np.zeros(1), cells)
        with pytest.raises(BittrueError, match=r"photonic_mac: offset \(2,\), expected \(2, 2\)"):
            PhotonicMac(kind, open_, shut, 2, 6, 2, Held("o", (2,), 0, 4), cells)
        for shape in ((1, 1), (2, 2)):  # a number that is held is no array of one a tile
            make = lambda shape=shape: PhotonicMac(kind, open_, shut, 2, 6, 2, Held("o", shape, 0, 4), cells)  # noqa: E731
            if shape == (2, 2):
                assert list(make().held) == ["o"]
            else:
                with pytest.raises(BittrueError, match=r"offset \(1, 1\), expected \(2, 2\)"):
                    make()

    def test_an_operation_alone_does_not_know_what_it_holds(self):
        program = written(network(3))
        with pytest.raises(BittrueError, match=r"Linear reads held inputs \(first\.weight"):
            program["first"](codes(program, 1, np.random.default_rng(0)))

    def test_bounds(self):
        source, requantize = TensorType((3,), INT8), Requantize(2, np.array(3))
        with pytest.raises(BittrueError, match=r"weights -128\.\.128 do not fit s8"):
            Linear(source, Held("w", (2, 3), -128, 128), requantize)
        with pytest.raises(BittrueError, match=r"shifts are 0 to 47, got 0\.\.48"):
            Requantize(2, Held("s", (2,), 0, 48))
        with pytest.raises(BittrueError, match=r"multipliers are at least 1, got 0"):
            Requantize(2, np.array(1), multiplier=Held("m", (2,), 0, 4))
        with pytest.raises(BittrueError, match=r"'s' has shape \(3,\), expected \(2,\)"):
            Requantize(2, Held("s", (3,), 0, 4))
        with pytest.raises(BittrueError, match=r"linear: the result needs \d+ bits"):
            Linear(source, Held("w", (2, 3), -8, 7), Requantize(2, np.array(0), bias_acc=Held("b", (2,), 0, 1 << 47)))
        with pytest.raises(BittrueError, match=r"bounds 4\.\.3 hold no value"):
            Held("w", (1,), 4, 3)

    def test_two_of_one_name(self):
        source, requantize = TensorType((3,), INT8), Requantize(3, np.array(3))
        nodes = [
            Node("a", Linear(source, Held("w", (3, 3), -8, 7), requantize), ("x",)),
            Node("b", Linear(source, Held("w", (3, 3), -8, 6), requantize), ("a",)),
        ]
        with pytest.raises(BittrueError, match=r"'b': two held inputs are named 'w'"):
            Program({"x": source}, nodes, "b")

    def test_programs_that_are_written(self):
        program, other = network(3), network(3)
        with pytest.raises(
            BittrueError, match=r"weights of 'third' cannot be written; those of first, scale, last can"
        ):
            written(program, ["third"])
        changed = program["last"].requantize
        floor = 1 if changed.floor is None else None
        r = Requantize(changed.channels, changed.shift, changed.bias, format=changed.format, floor=floor)
        nodes = [*other.nodes[:2], Node("last", Linear(program["last"].input, program["last"].weight, r), ("scale",))]
        with pytest.raises(BittrueError, match=r"last\.requantize\.floor differs"):
            set_of(written(program), Program(other.inputs, nodes, "last"))
        with pytest.raises(BittrueError, match="other inputs or other results"):
            set_of(written(program), network(4))


def test_one_of_two_programs_becomes_the_other():
    """Bounds that hold both; only what was asked for is written."""
    a = network(5)
    rng = np.random.default_rng(9)
    nodes = []
    for node in a.nodes:
        op, r = node.operation, node.operation.requantize
        moved = Requantize(
            r.channels,
            np.clip(r.shift + 2, 0, 47),
            r.bias * 3 + 1,
            r.bias_acc * 5,
            r.multiplier,
            r.format,
            r.floor,
        )
        kept = node.name == "scale"
        weight = rng.integers(-128, 128, op.weight.shape)
        nodes.append(node if kept else Node(node.name, type(op)(op.input, weight, moved), node.operands))
    b = Program(a.inputs, nodes, a.results)
    program = written(a, ["first", "last"], others=[b])
    assert not any(name.startswith("scale") for name in program.held)
    x = codes(a, 30, rng)
    np.testing.assert_array_equal(program(x, held=[(11, set_of(program, b))]), np.concatenate([a(x[:11]), b(x[11:])]))
    assert same(program.initial["first.weight"], a["first"].weight)
    with pytest.raises(BittrueError, match="lie outside its bounds"):
        set_of(written(a, ["first", "last"]), b)


class TestCounter:
    def test_the_index_of_the_image_is_a_held_input(self):
        """Noise is a counter: nobody writes it, and binding it to an index gives what the image of that index gets."""
        for seed in range(40):
            op = PhotonicMac.example(np.random.default_rng(seed))
            program = Program({"x": op.input}, (Node("y", op, ("x",)),), "y")
            assert program.counts_frames == (op.noise is not None) == bool(program.held)
            assert not program.written
            if op.noise is None:
                continue
            x = codes(program, 9, np.random.default_rng(seed))
            np.testing.assert_array_equal(program(x)[4:], program(x[4:], first=4))
            bound = op.bind({"image": np.int64(4)})
            np.testing.assert_array_equal(bound.run(x[4:])[0], op.run(x)[0][4:])
            np.testing.assert_array_equal(bound.reference(x[4:]), op.reference(x)[4:])
            return
        raise AssertionError("no example had noise")

    def test_a_set_does_not_move_it(self):
        """Nor does a set that is there from the start: an image has its own noise, whichever cells it meets."""
        op = next(op for op in (PhotonicMac.example(np.random.default_rng(k)) for k in range(40)) if op.noise)
        program = Program({"x": op.input}, (Node("y", op, ("x",)),), "y")
        held, x = written(program), codes(program, 9, np.random.default_rng(1))
        assert held.written
        assert same(held.bind(held.initial)["y"], op)
        for first in (0, 5):
            wanted = program.reference(x, first=first)
            assert not np.array_equal(wanted, program.reference(x, first=first + 1))
            np.testing.assert_array_equal(held(x, first=first), wanted)
            np.testing.assert_array_equal(held(x, first=first, held=held.initial), wanted)


def test_constants_of_another_shape_are_no_set():
    kind = TensorType((2, 3), INT8)
    mine, other = (
        Program({"x": kind}, (Node("y", Linear(kind, weight, Requantize(n, np.array(5))), ("x",)),), "y")
        for n, weight in ((4, Held("w", (4, 3), -16, 15, np.zeros((4, 3), int))), (5, np.zeros((5, 3), int)))
    )
    with pytest.raises(BittrueError, match=r"written weights: y\.weight has another shape in the other program"):
        set_of(mine, other)
