"""The matrix stage against numpy's exact integers and a sum written out by hand."""

import numpy as np
import pytest

from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize


def test_by_hand():
    op = Linear(TensorType((2,), Format(8)), [[1, 2], [-3, 4]], Requantize(2, [1, 2], [10, -10]))
    x = np.array([[5, 6], [-128, 127]], np.int8)
    # 17 -> 9 + 10; 9 -> 2 - 10; 126 -> 63 + 10; 892 -> 223 - 10, saturated
    assert op(x).tolist() == [[19, -8], [73, 127]]
    assert op.run(x)[1] == 1


def test_every_pair_of_small_codes():
    """All inputs of two 4-bit codes, all shifts of the sum's width."""
    codes = Format(4).codes()
    x = np.stack(np.meshgrid(codes, codes), -1).reshape(-1, 2)
    for shift in range(9):
        op = Linear(TensorType((2,), Format(4)), [[7, -8], [3, 5]], Requantize(2, [shift]), Format(4))
        expected = [
            [
                min(max((sum(a * b for a, b in zip(w, v, strict=True)) + (1 << shift >> 1)) >> shift, -128), 127)
                for w in op.weight.tolist()
            ]
            for v in x.tolist()
        ]
        assert op(x).tolist() == expected


def test_accumulator_is_reached_and_never_passed():
    rng = np.random.default_rng(0)
    op = Linear(TensorType((5,), Format(8)), rng.integers(-128, 128, (3, 5)), Requantize(3, [0], format=Format(32)))
    low, high = op.sums
    for n in range(3):
        worst = np.where(op.weight[n] > 0, 127, -128).astype(np.int8)
        best = np.where(op.weight[n] > 0, -128, 127).astype(np.int8)
        assert int(op(worst[None])[0, n]) == high[n]
        assert int(op(best[None])[0, n]) == low[n]
    assert Range.of(low, high).bits <= op.accumulator.bits


def test_tokens_do_not_mix():
    rng = np.random.default_rng(0)
    kind = TensorType((6, 5), Format(8))
    op = Linear(kind, rng.integers(-128, 128, (3, 5)), Requantize(3, [7]))
    one = Linear(TensorType((5,), Format(8)), op.weight, op.requantize)
    x = rng.integers(-128, 128, (4, 6, 5)).astype(np.int8)
    np.testing.assert_array_equal(op(x).reshape(-1, 3), one(x.reshape(-1, 5)))
    assert op.macs == 6 * 15


@pytest.mark.parametrize(
    ("weight", "channels", "sentence"),
    [
        (np.ones((3, 4)), 3, r"weight \(3, 4\) does not fit input"),
        (np.ones(5), 1, "does not fit input"),
        (np.full((3, 5), 128), 3, "weights 128..128 do not fit s8"),
        (np.full((3, 5), 0.5), 3, "parameters are integers"),
        (np.ones((3, 5)), 2, "3 outputs, but the requantiser has 2"),
    ],
)
def test_wrong_weights_are_refused(weight, channels, sentence):
    with pytest.raises(BittrueError, match=sentence):
        Linear(TensorType((5,), Format(8)), weight, Requantize(channels, [0]))


def test_weights_cannot_be_changed_later():
    weight = np.ones((1, 2), np.int64)
    op = Linear(TensorType((2,), Format(8)), weight, Requantize(1, [0]))
    weight[0, 0] = 99
    assert op.weight.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="read-only"):
        op.weight[0, 0] = 3
