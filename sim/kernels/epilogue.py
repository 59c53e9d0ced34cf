"""What follows every exact sum: requantise, saturate, and look up the function that reads the result.

Numba widens int32 arithmetic to int64, so each step is narrowed again by name: LLVM then keeps 16 lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from bittrue.sim.contract import Range
from bittrue.sim.kernels.jit import jit
from bittrue.sim.requantize import Requantize

NO_TABLE = np.zeros((1, 0), np.uint8)


@intrinsic
def shift_right(typingctx, value, shift):  # noqa: ARG001 - numba calls it so
    """`value >> shift` in the integer type of both, which Numba's own operator would widen."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.ashr(*arguments)

    return value(value, shift), generate


@jit
def finish(acc, vectors, limits, scaled, count, table, out):
    """Rows of sums to rows of codes; `limits` holds floor, low and high; returns how many saturated, if `count`.

    Without a table `out` takes the codes, with one it takes `table[c, code - low]`.
    """
    bias_acc, multiplier, half, shift, bias = vectors
    kind = bias.dtype.type
    floor, low, high = limits
    channels = bias.size
    index = np.empty(channels, bias.dtype)
    levels, flat = table.shape[1], table.reshape(-1)
    whole = channels // 4 * 4 if out.itemsize == 1 else 0
    offset = np.empty(channels, bias.dtype)
    for c in range(channels):
        offset[c] = c * levels
    words = np.empty(whole // 4, np.uint32)
    four = words.view(np.uint8)
    saturated = 0
    for r in range(out.shape[0]):
        if scaled:
            for c in range(channels):
                v = kind(kind(kind(kind(acc[r, c]) + bias_acc[c]) * multiplier[c]) + half[c])
                v = max(kind(shift_right(v, shift[c]) + bias[c]), floor)
                index[c] = v
        else:
            for c in range(channels):
                v = kind(kind(acc[r, c]) + half[c])
                v = max(kind(shift_right(v, shift[c]) + bias[c]), floor)
                index[c] = v
        if count:
            beyond = kind(0)
            for c in range(channels):
                beyond = kind(beyond + kind((index[c] > high) | (index[c] < low)))
            saturated += beyond
        if levels:
            row = out[r]
            for c in range(channels):
                index[c] = kind(kind(min(max(index[c], low), high) - low) + offset[c])
            for c in range(0, whole, 4):  # four bytes a store; unsigned: no test for an index from the end
                word = np.uint32(flat[np.uint32(index[c])])
                word |= np.uint32(flat[np.uint32(index[c + 1])]) << np.uint32(8)
                word |= np.uint32(flat[np.uint32(index[c + 2])]) << np.uint32(16)
                word |= np.uint32(flat[np.uint32(index[c + 3])]) << np.uint32(24)
                words[c >> 2] = word
            for c in range(whole):
                row[c] = four[c]
            for c in range(whole, channels):
                row[c] = flat[np.uint32(index[c])]
        else:
            for c in range(channels):
                out[r, c] = min(max(index[c], low), high)
    return saturated


class Epilogue:
    """A requantiser's vectors in the narrowest integer that holds its format and all intermediates within `widest`.

    `offset` (per channel) is taken off every accumulator first: the exact cost of an unsigned encoding.
    """

    def __init__(self, requantize: Requantize, widest: Range, offset: np.ndarray | int = 0) -> None:
        self.format = requantize.format
        ends = Range(self.format.low, self.format.high)
        kind = np.int32 if (widest | ends).bits <= 31 else np.int64
        half = (np.int64(1) << requantize.shift) >> np.int64(1)
        bias_acc = requantize.bias_acc - offset
        self.scaled = not requantize.pure_shift
        if not self.scaled:  # one addition less: the bias of the accumulator joins the rounding constant
            half = half + bias_acc
        lowest = min(self.format.low, widest.low)
        floor = lowest if requantize.floor is None else requantize.floor
        named = (bias_acc, requantize.multiplier, half, requantize.shift, requantize.bias)
        self.vectors = tuple(np.ascontiguousarray(v.astype(kind)) for v in named)
        self.limits = (kind(floor), kind(self.format.low), kind(self.format.high))

    @property
    def narrow(self) -> bool:
        """Whether tiles can make the codes in registers: all arithmetic has 32 bits, codes are bytes."""
        bias, shift = (self.vectors[k].astype(np.int64) for k in (4, 3))
        words = self.vectors[0].dtype == np.int32 and self.format.dtype.itemsize == 1
        return words and bool((np.abs(bias) << shift).max(initial=0) <= 1 << 30)

    @property
    def ends(self) -> tuple[int, int]:
        """The least code and the largest."""
        floor, low, high = (int(v) for v in self.limits)
        return min(max(floor, low), high), high

    def folded(self, more: np.ndarray | int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`added`, multiplier and shift, int32 `[C]`: `(sum * multiplier + added) >> shift`, modulo 2^32, is a code
        before it is limited to `ends`; `more` is what sums lack."""
        bias_acc, multiplier, half, shift, bias = (v.astype(np.int64) for v in self.vectors)
        if not self.scaled:  # what is added to sums lies in `half`
            bias_acc, multiplier = np.zeros_like(half), np.ones_like(half)
        added = (bias_acc + more) * multiplier + half + (bias << shift)
        return added.view(np.uint64).astype(np.uint32).view(np.int32), *(
            v.astype(np.int32) for v in (multiplier, shift)
        )

    def arguments(self, count: bool, table: np.ndarray) -> tuple:
        """What `finish` takes between the sums and the codes."""
        return self.vectors, self.limits, self.scaled, count, table

    def __call__(self, acc: np.ndarray, out: np.ndarray, count: bool = True, table: np.ndarray = NO_TABLE) -> int:
        """Requantise `acc [rows, >= C]` into `out [rows, C]`; returns the saturated codes if they are counted."""
        return finish(acc, *self.arguments(count, table), bytes_of(out))


def bytes_of(codes: np.ndarray) -> np.ndarray:
    """8-bit codes seen as uint8, so that one compiled function serves both signs; others as they are."""
    return codes.view(np.uint8) if codes.dtype == np.int8 else codes
