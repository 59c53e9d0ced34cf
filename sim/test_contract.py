"""The numeric contract against exact rationals and apytypes; exhaustive at small widths."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from apytypes import APyFixed, OverflowMode, QuantizationMode
from hypothesis import given
from hypothesis import strategies as st

from bittrue.sim import contract, requantize
from bittrue.sim.contract import (
    MAX_BITS,
    Format,
    Range,
    check_bits,
    product_sum_range,
    round_shift,
    saturate,
    wrap,
)
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize

formats = st.builds(Format, st.integers(1, MAX_BITS), st.booleans())
wide = st.integers(-(1 << 47), (1 << 47) - 1)


def nearest_up(a: int, shift: int) -> int:
    """a / 2^shift to the nearest whole number, a half upwards, in exact rationals."""
    return floor(Fraction(a, 1 << shift) + Fraction(1, 2))


class TestRoundShift:
    @pytest.mark.parametrize("shift", range(12))
    def test_every_11_bit_value(self, shift):
        a = np.arange(-1024, 1024)
        assert round_shift(a, shift).tolist() == [nearest_up(int(v), shift) for v in a]

    @pytest.mark.parametrize("shift", range(1, 9))
    def test_apytypes_rounds_the_same(self, shift):
        """RND is round half towards plus infinity; a shift is a move of the binary point."""
        for a in range(-512, 512):
            fixed = APyFixed.from_float(a / 2**shift, int_bits=20, frac_bits=shift)
            rounded = fixed.cast(int_bits=20, frac_bits=0, quantization=QuantizationMode.RND)
            assert int(round_shift(a, shift)) == int(float(rounded))

    @given(wide, st.integers(0, 47))
    def test_any_width(self, a, shift):
        assert int(round_shift(a, shift)) == nearest_up(a, shift)

    def test_the_published_form_is_the_same(self):
        a = np.arange(-(1 << 17), 1 << 17)
        for s in range(1, 17):
            np.testing.assert_array_equal(round_shift(a, s), ((a >> (s - 1)) >> 1) + ((a >> (s - 1)) & 1))

    def test_one_shift_a_channel(self):
        assert round_shift(np.array([[3, 3, -3]]), np.array([0, 1, 1])).tolist() == [[3, 2, -1]]


class TestSaturateAndWrap:
    @pytest.mark.parametrize("signed", [True, False])
    @pytest.mark.parametrize("bits", range(1, 9))
    def test_every_value_against_apytypes(self, bits, signed):
        fmt = Format(bits, signed)
        for a in range(-300, 301):
            fixed = APyFixed.from_float(a, int_bits=12, frac_bits=0)
            for ours, mode in ((saturate, OverflowMode.SAT), (wrap, OverflowMode.WRAP)):
                if signed:
                    theirs = int(float(fixed.cast(int_bits=bits, frac_bits=0, overflow=mode)))
                elif mode == OverflowMode.SAT:  # APyFixed is signed: one bit more, and no negative result
                    theirs = max(0, int(float(fixed.cast(int_bits=bits + 1, frac_bits=0, overflow=mode))))
                else:
                    theirs = int(float(fixed.cast(int_bits=bits, frac_bits=0, overflow=mode))) % (1 << bits)
                assert int(ours(a, fmt)) == theirs

    @given(wide, formats)
    def test_any_width(self, a, fmt):
        assert int(saturate(a, fmt)) == min(max(a, fmt.low), fmt.high)
        wrapped = int(wrap(a, fmt))
        assert (wrapped - a) % fmt.levels == 0
        assert fmt.low <= wrapped <= fmt.high

    @given(formats)
    def test_codes_are_stored_in_the_formats_dtype(self, fmt):
        values = np.array([fmt.low, fmt.high], dtype=np.int64)
        for kept in (saturate(values, fmt), wrap(values, fmt)):
            assert kept.dtype == fmt.dtype
            assert kept.tolist() == values.tolist()


class TestFormat:
    @given(formats)
    def test_text_is_read_back(self, fmt):
        assert Format.parse(str(fmt)) == fmt
        assert fmt.high - fmt.low + 1 == fmt.levels

    @given(wide, wide)
    def test_covering_is_the_narrowest(self, a, b):
        fmt = Format.covering(a, b)
        assert fmt.holds(a)
        assert fmt.holds(b)
        assert fmt.signed == (min(a, b) < 0)
        assert fmt.bits == 1 or not all(Format(fmt.bits - 1, fmt.signed).holds(v) for v in (a, b))
        span = Range(min(a, b), max(a, b))
        assert span.bits == span.format.bits

    @pytest.mark.parametrize("bits", [0, -1, MAX_BITS + 1, 8.0, "8"])
    def test_impossible_widths_are_refused(self, bits):
        with pytest.raises(BittrueError, match="a format has 1 to 48 bits"):
            Format(bits)

    @pytest.mark.parametrize("text", ["", "8", "i8", "s", "s8 ", "us8"])
    def test_other_text_is_refused(self, text):
        with pytest.raises(BittrueError, match="is no format"):
            Format.parse(text)

    def test_too_many_codes_are_refused(self):
        with pytest.raises(BittrueError, match="too many codes"):
            Format(17).codes()
        with pytest.raises(BittrueError, match="is empty"):
            Range(1, 0)


class TestRanges:
    @given(st.integers(0, 2**32), st.integers(1, 4), st.booleans())
    def test_product_sums_reach_exactly_their_range(self, seed, bits, signed):
        """By brute force over every input of three codes."""
        weight = np.random.default_rng(seed).integers(-9, 10, (2, 3))
        fmt = Format(min(bits, 3), signed)
        codes = fmt.codes()
        every = np.stack(np.meshgrid(codes, codes, codes), -1).reshape(-1, 3)
        sums = every @ weight.T
        low, high = product_sum_range(weight, fmt, 1, "test")
        assert low.tolist() == sums.min(0).tolist()
        assert high.tolist() == sums.max(0).tolist()

    def test_what_cannot_be_bounded_is_refused_by_name(self):
        check_bits(float((1 << 47) - 1), "layer7")
        with pytest.raises(BittrueError, match="layer7: the result needs 49 bits and at most 48 are supported"):
            check_bits(float(1 << 47), "layer7")
        weight = np.full((1, 1 << 10), 1 << 30)
        with pytest.raises(BittrueError, match="^linear: the result needs"):
            Linear(TensorType((1 << 10,), Format(16)), weight, Requantize(1, np.zeros(1)), Format(32))


@pytest.mark.parametrize(
    "mutant",
    [
        lambda a, s: np.asarray(a, np.int64) >> s,
        lambda a, s: (np.asarray(a, np.int64) + ((np.int64(1) << s) >> 1) - 1) >> s,
        lambda a, s: (np.asarray(a, np.int64) + (np.int64(1) << s)) >> s,
        lambda a, s: np.rint(np.asarray(a) / 2.0**s).astype(np.int64),
    ],
    ids=["truncates", "half down", "twice the constant", "half to even"],
)
def test_a_changed_rounding_is_caught(monkeypatch, mutant):
    """Another rounding in the golden's one function: the comparison of fast with reference must see it."""
    rng = np.random.default_rng(0)
    op = Linear(
        TensorType((8,), Format(8)), rng.integers(-128, 128, (4, 8)), Requantize(4, np.full(4, 4), format=Format(16))
    )
    x = rng.integers(-128, 128, (500, 8)).astype(np.int8)
    np.testing.assert_array_equal(op.run(x)[0], op.reference(x))
    monkeypatch.setattr(contract, "round_shift", mutant)
    monkeypatch.setattr(requantize, "round_shift", mutant)
    assert (op.run(x)[0] != op.reference(x)).any()
    assert any(int(mutant(a, 3)) != nearest_up(a, 3) for a in range(-64, 64)), "and so must the contract's own test"
