"""Requantisation against exact rationals, one value at a time."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.mean import Mean
from bittrue.sim.requantize import Requantize


def rational(acc: int, r: Requantize, c: int) -> int:
    """The equation read from the docstring, in exact rationals."""
    scaled = Fraction((acc + int(r.bias_acc[c])) * int(r.multiplier[c]), 1 << int(r.shift[c]))
    y = (scaled if not r.shift[c] else floor(scaled + Fraction(1, 2))) + int(r.bias[c])
    return int(max(y, r.format.low if r.floor is None else r.floor))


@given(
    st.integers(-(1 << 25), 1 << 25),
    st.integers(0, 30),
    st.integers(1, 1000),
    st.integers(-5000, 5000),
    st.integers(-200, 200),
    st.sampled_from([None, 0, -3, 5]),
)
def test_equals_the_rational_equation(acc, shift, multiplier, bias_acc, bias, low):
    r = Requantize(1, [shift], [bias], [bias_acc], [multiplier], floor=low)
    assert int(np.clip(r.wide(np.array([acc])), -128, 127)[0]) == min(max(rational(acc, r, 0), -128), 127)


@pytest.mark.parametrize("floor_at", [None, 0])
def test_ranges_are_exact(floor_at):
    """The ranges of every intermediate, against all accumulators of a small interval."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(1, 4))
        r = Requantize.example(rng, n, 60)
        r = Requantize(n, r.shift, r.bias, r.bias_acc, r.multiplier, r.format, floor_at)
        acc = np.arange(-60, 41)[:, None]
        low, high = np.full(n, -60), np.full(n, 40)
        scaled, rounded, out = r.ranges(low, high, "x")
        every = (acc + r.bias_acc) * r.multiplier
        half = (1 << r.shift) >> 1
        assert scaled == Range.of(every, every)
        assert rounded == Range.of(every + half, every + half)
        shifted = ((every + half) >> r.shift) + r.bias
        assert out == Range.of(shifted, shifted)


def test_floor_is_no_saturation():
    """A ReLU that clamps is the function itself; only codes beyond the format's end count."""
    kind = TensorType((1, 3), Format(8))
    relu = Mean(kind, Requantize(3, [0], [100], floor=0))
    x = np.array([[[-128, 20, 60]]], np.int8)
    y, saturated = relu.run(x)
    assert y.tolist() == [[0, 120, 127]]
    assert saturated == relu.saturated(x) == 1


def test_saturation_is_counted_at_both_ends():
    op = Mean(TensorType((2, 2), Format(8)), Requantize(2, [0]))
    x = np.array([[[100, -100], [100, -100]], [[63, -64], [64, -64]]], np.int8)
    y, saturated = op.run(x)
    assert y.tolist() == [[127, -128], [127, -128]]
    assert saturated == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shift": [48]}, "shifts are 0 to 47"),
        ({"shift": [-1]}, "shifts are 0 to 47"),
        ({"shift": [1, 2, 3]}, "shift has shape"),
        ({"shift": [1], "multiplier": [0]}, "multipliers are at least 1"),
        ({"shift": [1], "floor": 200}, "floor 200 lies outside s8"),
        ({"shift": [1.5]}, "parameters are integers"),
    ],
)
def test_wrong_parameters_are_refused(arguments, sentence):
    with pytest.raises(BittrueError, match=sentence):
        Requantize(2, **{k: np.array(v) if isinstance(v, list) else v for k, v in arguments.items()})


def test_what_grows_beyond_the_width_is_refused():
    with pytest.raises(BittrueError, match="mean: the result needs"):
        Mean(TensorType((4, 1), Format(8)), Requantize(1, [0], multiplier=[1 << 40]))
