"""The numeric contract: formats, exact ranges, and the one rounding, saturation and wrap every back end uses.

    round_shift(a, s) = (a + 2^(s-1)) >> s    for s >= 1,   a for s = 0      (half toward +infinity)
    saturate(a, f)    = min(max(a, f.low), f.high)
    wrap(a, f)        = the code of f congruent to a modulo 2^f.bits

Codes are two's complement integers. Arrays of codes are stored in the smallest numpy dtype that holds the
format; every intermediate of the reference models is int64, which `MAX_BITS` keeps from overflowing.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bittrue.sim.errors import BittrueError

#: Widest accumulator or intermediate any operation may have: the accumulator of a DSP48 slice.
MAX_BITS = 48


@dataclass(frozen=True)
class Format:
    """An integer number format: `bits` wide, two's complement when `signed`.

    >>> str(Format(8)), Format(8).low, Format(8).high, Format(4, signed=False).high
    ('s8', -128, 127, 15)
    """

    bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or not 1 <= self.bits <= MAX_BITS:
            raise BittrueError(f"a format has 1 to {MAX_BITS} bits, not {self.bits!r}")

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def levels(self) -> int:
        return 1 << self.bits

    @cached_property
    def dtype(self) -> np.dtype:
        """The smallest numpy integer that holds every code."""
        for bits in (8, 16, 32):
            if self.bits <= bits:
                return np.dtype(f"{'i' if self.signed else 'u'}{bits // 8}")
        return np.dtype(np.int64)

    def holds(self, values: np.ndarray | int) -> bool:
        values = np.asarray(values)
        if values.size == 0:
            return True
        positive = values.dtype.kind == "u" and self.low == 0  # then there is no need to look for the lowest
        return bool((positive or values.min() >= self.low) and values.max() <= self.high)

    def codes(self) -> np.ndarray:
        """Every code of the format, ascending, int64 `[levels]` (formats up to 16 bits)."""
        if self.bits > 16:
            raise BittrueError(f"format {self} has too many codes to list")
        return np.arange(self.low, self.high + 1, dtype=np.int64)

    @classmethod
    def covering(cls, *values: np.ndarray | int, signed: bool | None = None) -> Format:
        """The narrowest format that holds all the values; unsigned when none is negative, unless told."""
        low = min(int(np.min(v)) for v in values)
        high = max(int(np.max(v)) for v in values)
        if signed is None:
            signed = low < 0
        if signed:
            return cls(max(low if low >= 0 else ~low, high if high >= 0 else ~high).bit_length() + 1)
        return cls(max(1, high.bit_length()), signed=False)

    @classmethod
    def parse(cls, text: str) -> Format:
        """Read what `str()` writes: `s8`, `u4`."""
        match = re.fullmatch(r"([su])(\d+)", text)
        if not match:
            raise BittrueError(f"{text!r} is no format: write s8 for signed 8 bits, u4 for unsigned 4")
        return cls(int(match[2]), match[1] == "s")

    def __str__(self) -> str:
        return f"{'s' if self.signed else 'u'}{self.bits}"


INT8 = Format(8)


@dataclass(frozen=True)
class Range:
    """A closed interval of integers, exact: what a value can be, whatever the input."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise BittrueError(f"range {self.low}..{self.high} is empty")

    @classmethod
    def of(cls, low: np.ndarray | int, high: np.ndarray | int) -> Range:
        return cls(int(np.min(low)), int(np.max(high)))

    def __or__(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))

    @property
    def format(self) -> Format:
        """The narrowest signed format that holds the range."""
        return Format.covering(self.low, self.high, signed=True)

    @property
    def bits(self) -> int:
        low = self.low if self.low >= 0 else ~self.low
        high = self.high if self.high >= 0 else ~self.high
        return max(low, high).bit_length() + 1

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


def whole(values: Any, name: str) -> np.ndarray:
    """The values as int64, every one unchanged: numbers that are not whole, or need more than 64 bits, are refused.

    A float array is none of integers, whatever it holds; truth values count as 0 and 1.
    """
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iub":
        raise BittrueError(
            f"{name}: integers are wanted, but the array is {array.dtype}; round it and give it an integer type first"
        )
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise BittrueError(f"{name}: {array.max()} needs more than 63 bits and a sign; give smaller values")
    return array.astype(np.int64, copy=False)


def axes(shape: Any, name: str) -> tuple[int, ...]:
    """A shape as a tuple of whole numbers; others are refused, not cut."""
    try:
        return tuple(operator.index(n) for n in shape)
    except TypeError as error:
        raise BittrueError(f"{name}: the axes of a shape are whole numbers, not {shape!r}") from error


def round_shift(a: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """`(a + 2^(s-1)) >> s` for s >= 1 and `a` for s = 0: divide by 2^s, round half toward +infinity."""
    a, shift = whole(a, "round_shift: a"), whole(shift, "round_shift: shift")
    half = (np.int64(1) << shift) >> np.int64(1)
    return (a + half) >> shift


def saturate(a: np.ndarray | int, fmt: Format) -> np.ndarray:
    """Clip to the format's range; the result has the format's dtype."""
    return np.clip(whole(a, "saturate: a"), fmt.low, fmt.high).astype(fmt.dtype)


def wrap(a: np.ndarray | int, fmt: Format) -> np.ndarray:
    """Keep the low `bits` bits; the result has the format's dtype."""
    low_bits = whole(a, "wrap: a") & np.int64(fmt.levels - 1)
    if fmt.signed:
        low_bits = np.where(low_bits > fmt.high, low_bits - fmt.levels, low_bits)
    return low_bits.astype(fmt.dtype)


def product_sum_range(
    weight: np.ndarray | tuple[np.ndarray, np.ndarray], fmt: Format | Range, axis: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Exact low and high of `sum(weight * x, axis)` over every x in the format (which holds 0), int64 arrays.

    `weight` is an array, or the lowest and the highest that each weight can be.
    Raises when the range needs more than `MAX_BITS` bits, naming the operation.
    """
    least, most = (np.asarray(v) for v in (weight if isinstance(weight, tuple) else (weight, weight)))
    largest = np.maximum(np.abs(least.astype(np.float64)), np.abs(most.astype(np.float64)))
    rough = largest.sum(axis) * max(abs(fmt.low), fmt.high)
    check_bits(float(rough.max(initial=0.0)), name)
    up, down = np.maximum(most.astype(np.int64), 0), np.minimum(least.astype(np.int64), 0)
    low, high = np.minimum(up * fmt.low, down * fmt.high), np.maximum(up * fmt.high, down * fmt.low)
    return low.sum(axis), high.sum(axis)


def check_bits(magnitude: float, name: str) -> None:
    """Refuse an intermediate whose magnitude does not fit `MAX_BITS` bits."""
    if not magnitude <= float(1 << (MAX_BITS - 1)) - 1:  # nor is it no number
        bits = int(np.ceil(np.log2(magnitude + 1))) + 1 if np.isfinite(magnitude) else "more"
        raise BittrueError(
            f"{name}: the result needs {bits} bits and at most {MAX_BITS} are supported; "
            "use narrower weights, a narrower input, a smaller multiplier or fewer terms"
        )
