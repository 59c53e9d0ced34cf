"""Scale and offset of each channel: exhaustive over every 8-bit code and many weights."""

import numpy as np
import pytest

from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.requantize import Requantize


@pytest.mark.parametrize("shift", [0, 1, 4, 7, 16])
def test_every_code_and_every_weight(shift):
    """256 channels hold the 256 weights; each code passes through all of them."""
    weight = np.arange(-128, 128)
    op = Affine(TensorType((256,), Format(8)), weight, Requantize(256, [shift], [-1]))
    x = np.repeat(np.arange(-128, 128, dtype=np.int8)[:, None], 256, axis=1)
    product = x.astype(int) * weight
    expected = np.clip((product + (1 << shift >> 1) >> shift) - 1, -128, 127)
    y, saturated = op.run(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(op.reference(x), expected)
    np.testing.assert_array_equal(op.table().T, expected)
    assert saturated == op.saturated(x)


def test_by_hand():
    op = Affine(TensorType((2, 2), Format(8)), [3, -64], Requantize(2, [1, 6], [0, 5]))
    assert op(np.array([[[5, 10], [-7, -128]]], np.int8)).tolist() == [[[8, -5], [-10, 127]]]


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        ([1, 2, 3], "do not fit input"),
        ([200, 0], "weights 0..200 do not fit s8"),
        ([0.5, 1], "parameters are integers"),
    ],
)
def test_wrong_weights_are_refused(weight, sentence):
    with pytest.raises(BittrueError, match=sentence):
        Affine(TensorType((2,), Format(8)), weight, Requantize(2, [0]))
