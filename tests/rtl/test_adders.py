"""Constant matrices as shared adders: the graph computes the matrix, in exact integers, and no more than it must."""

import itertools
import re

import numpy as np
import pytest

from bittrue.rtl.dataflow.adders import pipe, solver, stage
from bittrue.rtl.dataflow.adders.graph import Adder, Graph, Output, signed_digits
from bittrue.rtl.dataflow.adders.pipe import EVERY, AdderPipe, shape_of_value
from bittrue.rtl.dataflow.adders.solver import count_terms, least_levels, solve
from bittrue.rtl.dataflow.choice import hindered, preferred
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stage import Structure
from bittrue.rtl.dataflow.stages.linear import AdderLinearStage
from bittrue.rtl.verilog import emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import written
from tests.helpers.exact import exact, exact_compiled
from tests.helpers.formal import planted
from tests.helpers.lengths import long_but
from tests.helpers.programs import stimulus

S8, U8 = Format(8), Format(8, signed=False)
SOLVER = "rtl.dataflow.adders.solver:_Solver"


def test_signed_digits_are_canonical():
    for value in (*range(-700, 700), 2**40 - 1, -(2**40) + 3):
        digits = signed_digits(value)
        assert sum(sign << shift for shift, sign in digits) == value
        assert all(abs(sign) == 1 for _, sign in digits)
        assert all(b - a > 1 for (a, _), (b, _) in zip(digits, digits[1:], strict=False))
        assert int(count_terms(np.array([[value]]))[0]) == len(digits)


@pytest.mark.parametrize("order", [*itertools.permutations((0, 2, 4, 6))])
def test_a_digit_stands_in_one_place_of_a_pair(order):
    """Of 1 + 4 + 16 + 64 two pairs of neighbours are made, in whatever order the digits came to be there."""
    one, none = np.ones(1, int), np.zeros(1, int)
    made = solver._Solver(np.array([[85]]), none, one, none, S8, None)
    made.rows[0][0] = dict.fromkeys(order, 1)
    lower = [shift for _, shift in made.places((0, 0, 2, False))]
    assert sorted([*lower, *(shift + 2 for shift in lower)]) == [0, 2, 4, 6]


def case(seed: int) -> tuple:
    """A matrix with rows that are alike, opposite, shifted or empty; constants, scales; a format of codes."""
    rng = np.random.default_rng(seed)
    fmt = [S8, U8, Format(1, signed=False), Format(3), Format(2, signed=False)][seed % 5]
    rows, columns = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    low, high = [(-128, 128), (-4, 4), (0, 9), (-9, 1), (-2000, 2000)][int(rng.integers(5))]
    weight = rng.integers(low, high, (rows, columns)) * (rng.random((rows, columns)) < rng.choice([0.4, 1.0]))
    for n in range(1, rows):
        weight[n] = [weight[n], weight[n - 1], -weight[n - 1], weight[n - 1] << 2, 0 * weight[n]][
            int(rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1]))
        ]
    constant, after = (rng.integers(-300, 300, rows) * (rng.random(rows) < 0.6) for _ in range(2))
    scale = np.ones(rows, int) if rng.random() < 0.6 else rng.integers(1, 200, rows)
    return weight, constant, fmt, scale, after


@pytest.mark.parametrize("seed", long_but(range(60), *range(30)))
def test_adders_compute_the_matrix(seed):
    """Every entry, from results for unit vectors and from what the values are worth; results for random codes."""
    weight, constant, fmt, scale, after = case(seed)
    levels = [None, 2, 9][seed % 3]
    graph = solve(weight, constant, fmt, levels, scale, after)
    wanted = np.column_stack([weight * scale[:, None], constant * scale + after])
    np.testing.assert_array_equal(graph.matrix, wanted)
    units = np.vstack([np.zeros(weight.shape[1], int), np.eye(weight.shape[1], dtype=int)])
    at = graph.evaluate(units)
    np.testing.assert_array_equal(np.column_stack([(at[1:] - at[0]).T, at[0]]), wanted)
    x = np.random.default_rng(seed).integers(fmt.low, fmt.high + 1, (50, weight.shape[1]))
    np.testing.assert_array_equal(graph.evaluate(x), (x @ weight.T + constant) * scale + after)
    assert all(max(adder.a, adder.b) < k for k, adder in enumerate(graph.adders, graph.first))


@pytest.mark.parametrize("scale", [1, 2, 3, 8])
def test_small_scales(scale):
    graph = solve(np.array([[3, 1]]), np.array([5]), S8, None, np.array([scale]), np.array([7]))
    np.testing.assert_array_equal(graph.matrix, [[3 * scale, scale, 5 * scale + 7]])


def test_the_least_levels():
    one = np.ones((1, 4), int)
    assert [least_levels(one[:, :k], np.zeros(1, int)) for k in (1, 2, 3, 4)] == [0, 1, 2, 2]
    assert [least_levels(one[:, :k], np.ones(1, int)) for k in (1, 2, 3, 4)] == [1, 2, 2, 3]
    assert least_levels(np.zeros((2, 3), int), np.zeros(2, int)) == 0


@pytest.mark.parametrize("seed", long_but(range(40), *range(20)))
def test_no_more_levels_than_allowed(seed):
    weight, constant, fmt, _, _ = case(seed)
    least = least_levels(weight, constant)
    for levels in (None, least + 1, least + 3):
        graph = solve(weight, constant, fmt, levels)
        zero = graph.inputs + graph.constants.index(0)
        subtracted = any(zero in (adder.a, adder.b) for adder in graph.adders)  # from 0, which is a term more
        assert graph.depth <= max(least, levels or 0) + subtracted


@pytest.mark.parametrize(
    ("weight", "adders"),
    [
        ([[1, 1], [2, 2], [4, 4]], 1),  # one sum, shifted
        ([[1, 1], [-1, -1]], 2),  # and its opposite
        ([[5, 3], [5, 3], [10, 6]], 3),
        ([[45]], 2),  # 5 (1 + 8), and not three adders of four digits
        ([[7, 0], [0, 7]], 2),
        ([[1, 2, 4], [1, 2, 8]], 3),  # the first two are added once
        ([[0, 0], [1, 0], [0, 16]], 0),
    ],
)
def test_what_stands_twice_is_added_once(weight, adders):
    graph = solve(np.array(weight), np.zeros(len(weight), int), S8)
    assert len(graph.adders) == adders


def test_a_large_matrix_takes_few_adders():
    """The first layer of the comparison with peers, without its biases: da4ml 0.6.0 takes 1,163 adders of 13,919 bits,
    in 7 levels."""
    rng = np.random.default_rng(0)
    rng.integers(0, 256, (10_000, 16))
    weight = np.clip(np.round(rng.normal(0, 40, (64, 16))), -128, 127).astype(int)
    graph = solve(weight, np.zeros(64, int), U8, 7)
    built = AdderPipe(graph, U8).structure()
    assert graph.depth <= 7
    assert (built.adders, built.adder_bits) <= (1163, 13_919)
    assert built.adder_bits < 13_919


def test_ranges_are_those_that_every_input_reaches():
    """Value by value, all codes: and no bit is wider than that."""
    weight, constant, fmt = np.array([[3, -5], [-7, 11], [1, 1], [0, 6]]), np.array([0, 4, -9, 8]), Format(3)
    graph = solve(weight, constant, fmt)
    x = np.stack(np.meshgrid(fmt.codes(), fmt.codes(), indexing="ij"), -1).reshape(-1, 2)
    reached = np.column_stack([x, np.ones(len(x), int)]) @ graph.coefficients.T
    assert [(r.low, r.high) for r in graph.ranges(fmt)] == list(zip(reached.min(0), reached.max(0), strict=True))
    shapes = [shape_of_value(Range(*ends)) for ends in ((0, 5), (0, 0), (-1, 5), (-8, -1), (3, 8))]
    assert [(s.width, s.signed) for s in shapes] == [(3, False), (1, False), (4, True), (4, True), (4, False)]


FAULTS = {
    "a sign lost": (f"{SOLVER}.add", "Adder(a, b, shift, minus_a, minus_b)", "Adder(a, b, shift, minus_a, False)"),
    "a shift too far": (f"{SOLVER}.add", "Adder(a, b, shift,", "Adder(a, b, shift + 1,"),
    "a constant forgotten": (f"{SOLVER}.literal", "if odd else []", "if odd > 1 else []"),
    "a sign kept that was turned": (f"{SOLVER}.add_up", "1 if turned else first[2]", "first[2]"),
    "a term dropped twice": (f"{SOLVER}.places", "(a == b and s in taken)", "False"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_graph_that_is_not_the_matrix_is_never_given(fault):
    solver._solved.cache_clear()
    found = 0
    with planted(*FAULTS[fault]):
        for seed in range(60):
            weight, constant, fmt, scale, after = case(seed)
            try:
                solve(weight, constant, fmt, None, scale, after)
            except (AssertionError, KeyError, ValueError) as error:
                found += not isinstance(error, AssertionError) or "fault of the solver" in str(error)
    solver._solved.cache_clear()
    assert found


def test_registers_after_every_three_adders():
    """A chain of seven adders: values wait in registers, and adders are counted by the bits that they add."""
    chain = [Adder(0, 1, 0)]
    chain += [Adder(k, 1, 0) for k in range(2, 8)]
    pipe = AdderPipe(Graph(2, (), tuple(chain), (Output(8),)), Format(4, signed=False))
    assert (EVERY, pipe.cycles) == (3, 3)
    assert pipe.made == [0, 0, 0, 0, 0, 1, 1, 1, 2]
    # x1 is read two cycles later, the third and the sixth sum in the next one: 0..60 and 0..105
    assert pipe.structure() == Structure(adder_bits=5 + 6 + 6 + 7 + 7 + 7 + 7, adders=7, registers=2 * 4 + 6 + 7)
    assert AdderPipe(pipe.graph, U8, 3).cycles == 4


def test_operands_side_by_side_are_no_adder():
    bit = Format(1, signed=False)
    graph = Graph(2, (), (Adder(0, 1, 1), Adder(0, 1, 1, minus_b=True), Adder(0, 1, 1, minus_a=True)), (Output(2),))
    assert [AdderPipe(graph, bit).sum_bits(k) for k in (2, 3, 4)] == [0, 1, 3]
    assert AdderPipe(Graph(2, (), (Adder(0, 1, 2),), (Output(2),)), Format(2)).sum_bits(2) == 3  # a sign goes on


# -- whole networks ----------------------------------------------------------------------------------------
def mlp(*widths: int, tokens: int = 1) -> Program:
    """Layers of random INT8 weights and biases, the hidden ones ReLU."""
    rng = np.random.default_rng(sum(widths))
    build, name = Builder({"x": TensorType((tokens, widths[0]), U8)}), "x"
    for k, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        last, bias = k == len(widths) - 2, rng.integers(-900, 900, outputs)
        made = Requantize(outputs, 6 + k, bias_acc=bias, format=S8 if last else U8, floor=None if last else 0)
        weight = np.clip(np.round(rng.normal(0, 30, (outputs, inputs))), -128, 127).astype(int)
        name = build.add(f"layer{k}", Linear(build.types[name], weight, made), name)
    return build.program(name)


def architectures(planned: Plan) -> dict[str, str]:
    return {name: folding.architecture for name, folding in planned.folding.items()}


@pytest.fixture(scope="module")
def small() -> Plan:
    return plan(mlp(16, 8, 5), interval=1)


def test_a_frame_a_cycle(small):
    """Compiled, with and without stalls; not a multiplier, not a block RAM, and one beat a frame at both ports."""
    assert architectures(small) == {"layer0": "adders", "layer1": "adders"}
    assert (small.estimated_interval, small.estimated_latency) == (1, 8)  # inlet 1, adders 3 and 2, a FIFO 1 each
    assert [(port.lanes, port.beats) for port in (*small.inputs, *small.outputs)] == [(16, 1), (5, 1)]
    area = small.estimate
    assert (area.dsp, area.bram) == (0, 0)
    assert area.lut > 1.2 * sum(e.stage.structure().adder_bits for e in small.network.elements) > 0
    exact_compiled(small, emit(small), stimulus(small.program, 400, 1))


@pytest.mark.parametrize(
    "fault",
    [
        ("rtl.dataflow.adders.pipe:_added", "upper - b if adder.minus_b", "upper + b if adder.minus_b"),
        ("rtl.dataflow.adders.pipe:_added", "upper.as_signed() if signed else upper", "upper"),
        ("rtl.dataflow.adders.pipe:AdderPipe.build", "return kept[cycle - self.made[value]]", "return kept[0]"),
        ("rtl.dataflow.adders.pipe:shape_of_value", "Format.covering(kept.low, kept", "Format.covering(0, kept"),
        ("rtl.dataflow.adders.stage:constants", "r.bias_acc + after", "r.bias_acc"),
    ],
)
def test_a_fault_is_seen(small, fault):
    with planted(*fault), pytest.raises(AssertionError):
        exact(plan(small.program, interval=1), 1)


def test_everything_between_matrices_keeps_up():
    """A residual branch, a table, scales: all lanes at once, with no memory but tables in LUTs."""
    rng = np.random.default_rng(5)
    build = Builder({"x": TensorType((6,), S8)})
    kind = build.types["x"]
    build.add("in", Linear(kind, rng.integers(-99, 99, (6, 6)), Requantize(6, 8, rng.integers(-9, 9, 6))), "x")
    build.add("table", Lerp(kind, rng.integers(-128, 128, (6, 17))), "in")
    build.add(
        "scale", Affine(kind, rng.integers(-99, 99, 6), Requantize(6, 13, multiplier=rng.integers(1, 99, 6))), "x"
    )
    build.add("sum", Add(kind, kind), "table", "scale")
    build.add("out", Linear(kind, rng.integers(-99, 99, (3, 6)), Requantize(3, 0, format=Format(20))), "sum")
    planned = plan(build.program("out"), interval=1)
    assert architectures(planned) == dict.fromkeys(("in", "scale", "out"), "adders")
    exact(planned, 3)


@pytest.mark.parametrize("fmt", [Format(12), Format(4)])
def test_nothing_to_add_is_a_register(fmt):
    """Wires, zeros, and a floor above them."""
    build = Builder({"x": TensorType((2, 3), S8)})
    weight = np.array([[1, 0, 0], [0, 0, 0], [0, 8, 0]])
    build.add(
        "y", Linear(build.types["x"], weight, Requantize(3, 0, format=fmt, floor=None if fmt.bits > 8 else 2)), "x"
    )
    planned = plan(build.program("y"), interval=2)
    assert architectures(planned) == {"y": "adders"}
    assert planned.estimated_latency == 3  # inlet, register, FIFO
    exact(planned, 4)


def test_a_vector_a_cycle_where_a_frame_has_several():
    planned = plan(mlp(4, 3, 2, tokens=5), interval=5)
    assert architectures(planned) == {"layer0": "adders", "layer1": "adders"}
    exact(planned, 2)
    for element in planned.network.elements[1:]:
        effort, built = element.stage.effort(), element.stage.structure()
        assert effort.additions.total() == 5 * built.adders > 0
        assert sum(bits * times for bits, times in effort.additions.items()) == 5 * built.adder_bits
        assert not effort.multiplications
        assert not effort.memory
    again = Plan.from_json(planned.program, planned.to_json())
    assert again.folding == planned.folding
    with pytest.raises(BittrueError, match="layer0: 5 vectors take at least 5 cycles a frame, so an interval of 4"):
        plan(planned.program, interval=4, architecture="adders")
    assert plan(planned.program, device="ecp5-25k", architecture="adders").estimated_interval == 5


class TestThePlannerChooses:
    def test_where_a_vector_has_one_cycle(self):
        p = mlp(8, 4, 2)
        assert set(architectures(plan(p, interval=1)).values()) == {"adders"}
        for other in (plan(p, interval=2), plan(p), plan(p, device="ecp5-85k"), plan(p, 1, architecture="parallel")):
            assert set(architectures(other).values()) == {"parallel"}
        mixed = plan(p, interval=4, architecture={"layer0": "adders"})
        assert architectures(mixed) == {"layer0": "adders", "layer1": "parallel"}
        assert plan(p, 1, architecture="parallel").estimate.dsp == 4 * 8 + 2 * 4
        assert plan(p, device="ecp5-25k", architecture="adders").estimated_interval == 1
        one = Builder({"x": TensorType((3, 1), S8)})
        one.add("y", Linear(one.types["x"], np.array([[3]]), Requantize(1, 0, format=Format(16))), "x")
        assert architectures(plan(one.program("y"))) == {"y": "parallel"}  # a single weight, and its own multiplier

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("written", "layer0: not adders: 'layer0.weight' is written while it runs"),
            ("large", r"layer0: not adders: its weights have \d\d signed digits to be added, over 20"),
            (9, "layer0: not adders: its sums with what is added to them have 5[0-9] bits, over 48"),
            (1, "layer0: not adders: its sums with what is added to them have 49 bits, over 48"),
        ],
    )
    def test_what_cannot_be_adders_is_named_and_is_not_chosen(self, change, message, monkeypatch):
        p = mlp(8, 4)
        if change == "written":
            p = written(p)
        elif change == "large":
            monkeypatch.setattr(stage, "LARGEST", 20)
        else:
            build = Builder(p.inputs)
            whole = Requantize(4, 46, change, (1 << 45) - 9, format=S8)  # 2^47 less 9 is added, where it is 1
            build.add("layer0", Linear(build.types["x"], p["layer0"].weight, whole), "x")
            p = build.program("layer0")
        with pytest.raises(BittrueError, match=message):
            plan(p, interval=1, architecture={"layer0": "adders"})
        assert architectures(plan(p, interval=1)) == {"layer0": "parallel"}
        (told,) = hindered(p, 1).items()
        assert re.fullmatch(f"{message}.*", ": ".join(told))
        assert not preferred(p, 1)
        assert not hindered(p, 2)
        with pytest.raises(BittrueError, match="layer0: adders: .*; take another architecture"):
            _ = Plan(p, {"layer0": Folding(8, 4, "adders")}, {"x": 8}).network

    def test_what_just_can_be_adders(self, monkeypatch):
        p = mlp(8, 4)
        monkeypatch.setattr(stage, "LARGEST", int(count_terms(p["layer0"].weight).sum()))
        assert architectures(plan(p, interval=1)) == {"layer0": "adders"}
        build = Builder(p.inputs)
        whole = Requantize(4, 46, bias=[1, 0, -2, 1], format=S8)  # 3 x 2^45 is added, which has 48 bits with its sign
        build.add("layer0", Linear(build.types["x"], p["layer0"].weight, whole), "x")
        wide = plan(build.program("layer0"), interval=1)
        assert architectures(wide) == {"layer0": "adders"}
        exact(wide, 5)

    def test_half_a_vector_is_refused(self):
        with pytest.raises(
            BittrueError, match="8 lanes, simd = 8, pe = 2, but a whole vector goes in and out: 8 lanes"
        ):
            _ = Plan(mlp(8, 4), {"layer0": Folding(8, 2, "adders")}, {"x": 8}).network


def test_sharing_costs_no_cycle():
    """32 inputs, 7 levels and a clamp are three cycles, whatever could be shared in more levels."""
    weight = np.clip(np.round(np.random.default_rng(1).normal(0, 40, (5, 32))), -128, 127).astype(int)
    op = Linear(TensorType((32,), U8), weight, Requantize(5, 9))
    assert solve(weight, np.zeros(5, int), U8, 12).depth > 8
    assert AdderLinearStage(op, lanes=32, simd=32, pe=5).timing.depth == 4


def test_a_clamp_counts_as_an_adder():
    """Of 8 terms, 3 levels, the sum is there in the first cycle; a saturation behind them takes another."""
    p = Linear(TensorType((8,), S8), np.ones((1, 8), int), Requantize(1, 0, format=Format(11)))
    narrow = Linear(p.input, p.weight, Requantize(1, 0, format=S8))
    made = [AdderLinearStage(op, lanes=8, simd=8, pe=1) for op in (p, narrow)]
    assert [one.pipe.cycles for one in made] == [1, 2]
    assert pipe.EVERY == 3


def test_graphs_and_shifts_are_the_whole_of_a_layer(small):
    """Adder by adder in numpy, then shift and clamp: the golden simulator's codes."""
    x = stimulus(small.program, 100, 7)
    codes = x[0].reshape(len(x[0]), -1)
    for element in small.network.elements[1:]:
        op, graph = element.stage.operation, element.stage.pipe.graph
        total = graph.evaluate(codes) >> op.requantize.shift
        codes = np.clip(total, op.requantize.low, op.requantize.format.high)
    np.testing.assert_array_equal(codes.reshape(len(x[0]), 1, -1), small.program(*x))
