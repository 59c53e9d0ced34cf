"""The range of every operation's widest intermediate: reached at both ends, passed by no input, no wider.

What the intermediates are is written here once more, in plain integers, from the equations of the docstrings.
"""

import numpy as np
import pytest

from bittrue.sim.conformance import run_equals_reference
from bittrue.sim.contract import INT8, Format, Range
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.requantize import Requantize
from tests.helpers.small import SMALL, every_input

SEEDS = range(12)


def requantised(acc: np.ndarray, r) -> list[np.ndarray]:
    """The sum, scaled, and with its rounding constant."""
    scaled = (acc + r.bias_acc) * r.multiplier
    return [acc, scaled, scaled + ((1 << r.shift) >> 1)]


def interpolated(op, x):
    width = op.input.format.levels // op.segments
    place, rest = (x - op.input.format.low) // width, (x - op.input.format.low) % width
    step = [[op.knots[c][m + 1] - op.knots[c][m] for c, m in enumerate(row)] for row in place.reshape(-1, 2)]
    product = np.array(step) * rest.reshape(-1, 2)
    return [np.zeros(1, int), product, product + width // 2]


def potentials(op, x):
    v = np.clip(x, op.lowest, op.highest)
    seen = [v]
    for threshold, reset in zip(op.threshold, op.reset, strict=True):
        v = np.where(v > threshold, v - reset, v)
        seen.append(v)
    return seen


def membranes(op, x):
    m, half, seen = np.zeros((len(x), 2), int), (1 << op.shift) // 2, []
    for t in range(op.steps):
        product = op.keep * m
        v = ((product + half) >> op.shift) + x[:, t] * 2**op.guard
        m = v
        if op.threshold is not None:
            m = np.where(v > op.threshold, v - op.reset if op.subtract else op.reset, v)
        seen += [product, product + half, v, m]
    return seen


def lights(op, x):
    seen = []
    for k, part in op.parts():
        light = x[:, part] @ op.plus[:, part].T + (op.input.format.high - x[:, part]) @ op.minus[:, part].T
        seen += [light, light - op.offset[k], light - op.offset[k] + (1 << op.shift) // 2]
    return seen


def decoded(op, x):
    values = sum(x[:, t] * worth for t, worth in enumerate(op.decode))
    return requantised(values @ op.weight.T, op.requantize)


SEEN = {
    "Add": lambda op, a, b: [a + b],  # noqa: ARG005
    "Affine": lambda op, x: requantised(x * op.weight, op.requantize),
    "Clamp": lambda op, x: [x],  # noqa: ARG005
    "Depthwise": lambda op, x: requantised((x * op.weight).sum(1), op.requantize),
    "Encode": lambda op, x: [x],  # noqa: ARG005
    "FsNeuron": potentials,
    "Lerp": interpolated,
    "Lif": membranes,
    "Linear": lambda op, x: requantised(x @ op.weight.T, op.requantize),
    "Maximum": lambda op, x: [x],  # noqa: ARG005
    "Mean": lambda op, x: requantised(x.sum(1), op.requantize),
    "Multiply": lambda op, a, b: requantised(a * b, op.requantize),
    "PhotonicMac": lights,
    "SpikingLinear": decoded,
    "TileSum": lambda op, x: requantised(x.sum(1) * 2**op.shift, op.requantize),
    "Transpose": lambda op, x: [x],  # noqa: ARG005
}
#: With thresholds a step's two cases are joined: a bound, which is passed by none, and need not be reached.
BOUNDS = {"Lif": lambda op: op.threshold is not None}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SMALL)
def test_accumulator_is_reached_and_never_passed(name, seed):
    op = SMALL[name](np.random.default_rng([seed, len(name)]))
    seen = SEEN[name](op, *(x.astype(int) for x in every_input(op)))
    found = Range(min(int(v.min()) for v in seen), max(int(v.max()) for v in seen))
    if BOUNDS.get(name, lambda _: False)(op):
        assert op.accumulator | found == op.accumulator
    else:
        assert found == op.accumulator


@pytest.mark.parametrize("slope", [-3, 0, 3])
def test_a_curve_that_only_rises_or_falls_reaches_0_at_its_knots(slope):
    op = Lerp(TensorType((1, 2), Format(4)), slope * np.array([[0, 1, 2, 3, 4], [0, 2, 3, 4, 5]]))
    seen = SEEN["Lerp"](op, *(x.astype(int) for x in every_input(op)))
    assert op.accumulator == Range(min(int(v.min()) for v in seen), max(int(v.max()) for v in seen))


#: Stored parameters by the equations: what a kind has beyond its matrix, by its sizes.
STORED = {
    "Affine": lambda _: 2 + 2,  # a weight and a bias a channel
    "Depthwise": lambda _: 3 * 2 + 2,
    "FsNeuron": lambda op: len(op.threshold) + len(op.reset),
    "Lerp": lambda op: sum(len(row) for row in op.knots),
    "Lif": lambda op: 2 * (1 + 2 * (op.threshold is not None)),  # a decay, a threshold, a reset a channel
    "Linear": lambda _: 2 * 2 + 2,
    "Multiply": lambda _: 1,
    "PhotonicMac": lambda _: 2 * 2 * 3,  # two rails
    "SpikingLinear": lambda _: 2 * 2 + 2 + 2,  # and the worth of each of two steps
    "TileSum": lambda _: 2,
}


@pytest.mark.parametrize("name", SMALL)
def test_stored_parameters_are_counted(name):
    for seed in SEEDS:
        op = SMALL[name](np.random.default_rng([seed, len(name)]))
        assert op.weights == STORED.get(name, lambda _: 0)(op)


@pytest.mark.parametrize(("bits", "out"), [(30, 8), (31, 8), (32, 8), (31, 32), (30, 31), (47, 8), (8, 33), (47, 48)])
@pytest.mark.parametrize("signed", [True, False])
def test_sums_of_wide_codes_are_exact(bits, out, signed):
    """At the borders of the 32 bits in which narrow codes are added."""
    fmt, result = Format(bits, signed), Format(out, signed)
    op = Add(TensorType((1, 4), fmt), TensorType((1, 4), fmt), result)
    corners = np.array([fmt.low, fmt.low + 1, fmt.high - 1, fmt.high])
    for other in corners:
        x = corners.reshape(1, 1, 4).astype(fmt.dtype), np.full((1, 1, 4), other).astype(fmt.dtype)
        wanted = [min(max(int(a) + int(other), result.low), result.high) for a in corners]
        codes, saturated = op.run(*x)
        assert codes.reshape(-1).tolist() == wanted
        assert saturated == sum(int(a) + int(other) != y for a, y in zip(corners, wanted, strict=True))


CODES = TensorType((2, 3), INT8)
WIDE = TensorType((2, 3), Format(33))
#: Requantised sums: of small codes, and of a kind whose sums alone need more than 32 bits.
SUMS = {
    "Affine": (lambda r: Affine(CODES, np.array([3, -2, 5]), r), lambda r: Affine(WIDE, np.array([3, -2, 5]), r)),
    "Depthwise": (
        lambda r: Depthwise(CODES, np.array([[3, -2, 5], [1, 1, 1]]), r),
        lambda r: Depthwise(WIDE, np.array([[3, -2, 5], [1, 1, 1]]), r),
    ),
    "Linear": (
        lambda r: Linear(CODES, np.array([[3, -2, 5]] * 3), r),
        lambda r: Linear(WIDE, np.array([[3, -2, 5]] * 3), r),
    ),
    "Mean": (lambda r: Mean(CODES, r), lambda r: Mean(WIDE, r)),
    "Multiply": (lambda r: Multiply(CODES, CODES, r), lambda r: Multiply(CODES, WIDE, r)),
    "SpikingLinear": (
        lambda r: SpikingLinear(TensorType((2, 3), SPIKE), np.array([[3, -2, 5]] * 3), np.array([2, 1]), r),
        lambda r: SpikingLinear(TensorType((2, 3), SPIKE), np.array([[3, -2, 5]] * 3), np.array([1 << 33, 1]), r),
    ),
    "TileSum": (lambda r: TileSum(CODES, 2, r), lambda r: TileSum(CODES, 26, r)),
}
#: What alone needs more than 32 bits, with results of 8 that are alive.
REQUANTISERS = {
    "sum": dict(shift=28),
    "offset of the sum": dict(shift=36, bias_acc=np.array([1 << 40, -(1 << 40), 1 << 36])),
    "scaled sum": dict(shift=32, multiplier=np.array([1 << 30, 1 << 31, 1 << 29])),
    "result": dict(shift=1, bias=np.array([1 << 34, -(1 << 35), 0])),
    "rounding constant": dict(shift=40),
}


@pytest.mark.parametrize("what", REQUANTISERS)
@pytest.mark.parametrize("name", SUMS)
def test_every_intermediate_fits_the_integers_that_compute_it(name, what):
    op = SUMS[name][what == "sum"](Requantize(3, **REQUANTISERS[what]))
    assert (op.accumulator | op.ranges[2]).bits > 32
    run_equals_reference(op, np.random.default_rng(0))
