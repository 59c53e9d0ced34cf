"""Tables of knots: exact rationals over every 8-bit code, the edges, and wider inputs."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp


def exact(op: Lerp, code: int, channel: int) -> int:
    """Straight line between two knots, rounded half up, in exact rationals."""
    knots = op.knots[channel if len(op.knots) > 1 else 0].tolist()
    position = Fraction(code - op.input.format.low, 1 << op.fraction_bits)
    m = min(floor(position), len(knots) - 2)
    return knots[m] + floor((position - m) * (knots[m + 1] - knots[m]) + Fraction(1, 2))


@pytest.mark.parametrize("fmt", ["s8", "u8", "s5", "u3"])
@pytest.mark.parametrize("log", range(9))
def test_every_code_of_every_channel(fmt, log):
    fmt = Format.parse(fmt)
    log = min(log, fmt.bits)
    rng = np.random.default_rng(log)
    op = Lerp(TensorType((5,), fmt), rng.integers(-128, 128, (5, (1 << log) + 1)))
    x = np.repeat(fmt.codes()[:, None], 5, axis=1).astype(fmt.dtype)
    expected = [[exact(op, int(code), c) for c in range(5)] for code in fmt.codes()]
    assert op(x).tolist() == expected
    assert op.reference(x).tolist() == expected
    assert op.table().T.tolist() == expected
    assert op.run(x)[1] == op.saturated(x) == 0


def test_wide_codes_without_a_table():
    op = Lerp(TensorType((2,), Format(12)), np.random.default_rng(0).integers(-128, 128, (2, 65)))
    assert op.table() is None
    x = np.arange(-2048, 2048, dtype=np.int16)[:, None].repeat(2, 1)
    assert op(x).tolist() == [[exact(op, int(code), c) for c in range(2)] for code in x[:, 0]]


class TestPublishedTables:
    """64 knots, 8-bit codes: y = y0 + (((y1 - y0) * l + 2) >> 2), with the last knot held."""

    lut = np.random.default_rng(3).integers(-128, 128, (4, 64))
    op = Lerp.hold(TensorType((4,), INT8), lut)

    def test_inside(self):
        for x in range(-128, 124):
            m, rest = (x + 128) >> 2, (x + 128) & 3
            y0, y1 = self.lut[:, m], self.lut[:, m + 1]
            y = self.op(np.full((1, 4), x, np.int8))[0]
            assert y.tolist() == (y0 + (((y1 - y0) * rest + 2) >> 2)).tolist()

    def test_the_last_four_codes_hold_the_last_knot(self):
        for x in range(124, 128):
            assert self.op(np.full((1, 4), x, np.int8))[0].tolist() == self.lut[:, 63].tolist()

    def test_known_values(self):
        """Steep, falling and flat segments, by hand."""
        lut = np.zeros((1, 64), np.int64)
        lut[0, :4] = [-128, 127, 126, 126]
        op = Lerp.hold(TensorType((1,), INT8), lut)
        y = op(np.arange(-128, -112, dtype=np.int8)[:, None])[:, 0]
        assert y.tolist() == [-128, -64, 0, 63, 127, 127, 127, 126, 126, 126, 126, 126, 126, 95, 63, 32]


def test_identity_is_the_identity():
    knots = np.minimum(np.arange(-128, 129, 4), 127)[None]
    op = Lerp(TensorType((3,), INT8), knots)
    x = np.arange(-128, 124, dtype=np.int8)[:, None].repeat(3, 1)
    np.testing.assert_array_equal(op(x), x)


def test_a_shared_row_serves_every_channel():
    rng = np.random.default_rng(0)
    knots = rng.integers(-128, 128, (1, 17))
    shared = Lerp(TensorType((6,), INT8), knots)
    each = Lerp(TensorType((6,), INT8), knots.repeat(6, 0))
    x = rng.integers(-128, 128, (99, 6)).astype(np.int8)
    np.testing.assert_array_equal(shared(x), each(x))


@pytest.mark.parametrize(
    ("knots", "fmt", "sentence"),
    [
        (np.zeros((3, 9)), "s8", "do not fit input"),
        (np.zeros(9), "s8", "do not fit input"),
        (np.zeros((2, 64)), "s8", r"64 knots; expected 2\^M \+ 1"),
        (np.zeros((2, 1)), "s8", "1 knots"),
        (np.zeros((2, 513)), "s8", "513 knots"),
        (np.full((2, 9), 128), "s8", "knots 128..128 do not fit s8"),
        (np.zeros((2, 9)), "s17", "wider than 16 bits"),
    ],
)
def test_wrong_tables_are_refused(knots, fmt, sentence):
    with pytest.raises(BittrueError, match=sentence):
        Lerp(TensorType((2,), Format.parse(fmt)), knots)
