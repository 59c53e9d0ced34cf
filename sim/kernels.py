"""Fast exact executions in Numba: what `Operation.run` calls. Each returns codes and a saturation count.

A matrix product goes through one of several back ends behind one epilogue; all are exact:

    sgemm   float32 BLAS on row blocks while every sum stays below 2^24, float64 below 2^53
    numba   plain integer loops, any width

Element-wise functions of 8-bit codes go through 256-entry tables built from the reference model.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sim.contract import Format, Range
from sim.requantize import Requantize

ROWS = 1024  # rows per block: the accumulator block stays in cache


@njit(cache=True)
def _epilogue(acc, bias_acc, multiplier, half, shift, bias, floor, low, high, out):
    saturated = 0
    for r in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            v = (((bias_acc.dtype.type(acc[r, c]) + bias_acc[c]) * multiplier[c] + half[c]) >> shift[c]) + bias[c]
            v = max(v, floor)
            saturated += (v > high) | (v < low)
            out[r, c] = min(max(v, low), high)
    return saturated


@njit(cache=True)
def _affine(x, weight, bias_acc, multiplier, half, shift, bias, floor, low, high, out):
    saturated = 0
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            v = (((x[r, c] * weight[c] + bias_acc[c]) * multiplier[c] + half[c]) >> shift[c]) + bias[c]
            v = max(v, floor)
            saturated += (v > high) | (v < low)
            out[r, c] = min(max(v, low), high)
    return saturated


@njit(cache=True)
def _table(x, table, low, out):
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[r, c] = table[c, np.int64(x[r, c]) - low]


@njit(cache=True)
def _add(a, b, low, high, out):
    saturated = 0
    for k in range(a.size):
        v = np.int64(a[k]) + np.int64(b[k])
        saturated += (v > high) | (v < low)
        out[k] = min(max(v, low), high)
    return saturated


@njit(cache=True)
def _dot(x, weight, acc):
    for r in range(x.shape[0]):
        for n in range(weight.shape[0]):
            total = np.int64(0)
            for k in range(x.shape[1]):
                total += np.int64(x[r, k]) * weight[n, k]
            acc[r, n] = total


class Epilogue:
    """A requantiser's vectors in the narrowest integer that is exact for accumulators within `widest`."""

    def __init__(self, requantize: Requantize, widest: Range) -> None:
        self.format = requantize.format
        self.kind = np.int32 if widest.bits <= 31 else np.int64
        half = (np.int64(1) << requantize.shift) >> np.int64(1)
        named = (requantize.bias_acc, requantize.multiplier, half, requantize.shift, requantize.bias)
        fmt = self.format
        floor = fmt.low - 1 if requantize.floor is None else requantize.floor
        floor = min(floor, widest.low) if requantize.floor is None else floor
        self.arguments = (*(v.astype(self.kind) for v in named), *map(self.kind, (floor, fmt.low, fmt.high)))

    def __call__(self, acc: np.ndarray, out: np.ndarray) -> int:
        return _epilogue(acc, *self.arguments, out)


class MatrixKernel:
    """`requantize(x @ weight.T)` for rows of codes; weights are packed once, the back end chosen once."""

    def __init__(
        self,
        weight: np.ndarray,
        weight_format: Format,
        input_format: Format,
        sums: tuple[np.ndarray, np.ndarray],
        requantize: Requantize,
    ) -> None:
        self.epilogue = Epilogue(requantize, Range.of(*sums) | _widest(requantize, *sums))
        largest = np.abs(weight).sum(1).max(initial=0) * max(abs(input_format.low), input_format.high)
        self.real = np.float32 if largest < 1 << 24 else np.float64 if largest < 1 << 53 else None
        self.weight = weight
        self.packed = None if self.real is None else np.ascontiguousarray(weight.T.astype(self.real))

    def accumulate(self, rows: np.ndarray) -> np.ndarray:
        """The exact sums of a block of rows, in whatever dtype holds them."""
        if self.packed is not None:
            return rows.astype(self.real) @ self.packed
        acc = np.empty((len(rows), len(self.weight)), np.int64)
        _dot(rows, self.weight, acc)
        return acc

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, int]:
        out = np.empty((len(rows), len(self.weight)), self.epilogue.format.dtype)
        saturated = 0
        for start in range(0, len(rows), ROWS):
            block = slice(start, start + ROWS)
            saturated += self.epilogue(self.accumulate(rows[block]), out[block])
        return out, saturated


def _widest(requantize: Requantize, low: np.ndarray, high: np.ndarray) -> Range:
    scaled, rounded, shifted = requantize.ranges(low, high, "matrix kernel")
    return scaled | rounded | shifted


def affine_rows(rows: np.ndarray, weight: np.ndarray, requantize: Requantize, widest: Range) -> tuple[np.ndarray, int]:
    """`requantize(weight[c] * x[r, c])`."""
    epilogue = Epilogue(requantize, widest)
    out = np.empty(rows.shape, requantize.format.dtype)
    return out, _affine(rows, weight.astype(epilogue.kind), *epilogue.arguments, out)


def mean_tokens(x: np.ndarray, requantize: Requantize, widest: Range) -> tuple[np.ndarray, int]:
    """`requantize(sum over axis 1)` of `[n, T, C]`."""
    epilogue = Epilogue(requantize, widest)
    out = np.empty((len(x), x.shape[2]), requantize.format.dtype)
    return out, epilogue(x.sum(axis=1, dtype=epilogue.kind), out)


def table_rows(rows: np.ndarray, table: np.ndarray, fmt: Format) -> np.ndarray:
    """`table[c, x[r, c] - fmt.low]`."""
    out = np.empty(rows.shape, table.dtype)
    _table(rows, table, np.int64(fmt.low), out)
    return out


def add_codes(a: np.ndarray, b: np.ndarray, fmt: Format) -> tuple[np.ndarray, int]:
    """`saturate(a + b)`."""
    out = np.empty(a.shape, fmt.dtype)
    saturated = _add(a.reshape(-1), b.reshape(-1), np.int64(fmt.low), np.int64(fmt.high), out.reshape(-1))
    return out, saturated
