"""Constant matrices as shared adders: the graph computes the matrix, in exact integers, and no more than it must."""

import numpy as np
import pytest

from bittrue.rtl.dataflow.adders import solver
from bittrue.rtl.dataflow.adders.graph import Adder, Graph, Output, signed_digits
from bittrue.rtl.dataflow.adders.pipe import EVERY, AdderPipe, shape_of_value
from bittrue.rtl.dataflow.adders.solver import count_terms, least_levels, solve
from bittrue.rtl.dataflow.stage import Structure
from bittrue.sim.contract import Format, Range
from tests.helpers.formal import planted

S8, U8 = Format(8), Format(8, signed=False)
SOLVER = "rtl.dataflow.adders.solver:_Solver"


def test_signed_digits_are_canonical():
    for value in (*range(-700, 700), 2**40 - 1, -(2**40) + 3):
        digits = signed_digits(value)
        assert sum(sign << shift for shift, sign in digits) == value
        assert all(abs(sign) == 1 for _, sign in digits)
        assert all(b - a > 1 for (a, _), (b, _) in zip(digits, digits[1:], strict=False))
        assert int(count_terms(np.array([[value]]))[0]) == len(digits)


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


@pytest.mark.parametrize("seed", range(60))
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


@pytest.mark.parametrize("seed", range(40))
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
