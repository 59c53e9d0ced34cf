"""One pass over memory each way, in Numba, for the element-wise layers of training on a CPU.

Arrays are contiguous float32 (accumulators may be float64), viewed from torch without a copy. Each forward has
its backward beside it. The index of a table is recomputed in the backward, which costs less than storing it.
Comparisons are written as conditionals so that they vectorise, and so that NaN maps to index 0 and never to
an address outside the table.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bittrue.sim.kernels.jit import jit


def rows(x: Tensor) -> np.ndarray:
    """A contiguous CPU tensor `[..., C]` as a numpy array `[rows, C]`, without a copy."""
    return x.detach().view(-1, x.shape[-1]).numpy()


@jit
def lerp_forward(x, g, start, per_unit, y):
    """`t = (x - start) * per_unit`, `i = clamp(floor(t), 0, G-2)`, `y = g[c,i] + (t-i) * (g[c,i+1] - g[c,i])`.

    x, y `[rows, C]`; g `[C, G]`. Beyond the grid the outermost segment is continued.
    """
    last = np.float32(g.shape[1] - 2)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            t = (x[r, c] - start) * per_unit
            m = np.floor(t)
            m = m if m > np.float32(0) else np.float32(0)
            m = m if m < last else last
            i = int(m)
            left = g[c, i]
            y[r, c] = left + (t - m) * (g[c, i + 1] - left)


@jit
def lerp_backward(x, g, start, per_unit, dy, dx, dg):
    """Adds to dg `[C, G]` (float32, zeroed by the caller) and writes dx."""
    last = np.float32(g.shape[1] - 2)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            t = (x[r, c] - start) * per_unit
            m = np.floor(t)
            m = m if m > np.float32(0) else np.float32(0)
            m = m if m < last else last
            i = int(m)
            d = dy[r, c]
            right = (t - m) * d
            dx[r, c] = d * (g[c, i + 1] - g[c, i]) * per_unit
            dg[c, i] += d - right
            dg[c, i + 1] += right


@jit
def requantize_forward(acc, factor, bias, low, high, y, inside):
    """`v = floor(acc * factor[c] + 0.5) + bias[c]`, `y = clamp(v, low, high)`, `inside` = v was not clamped.

    acc, y, inside `[rows, C]`; factor `2^-e` and bias `[C]`.
    """
    half = factor.dtype.type(0.5)
    for r in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            v = np.floor(acc[r, c] * factor[c] + half) + bias[c]
            inside[r, c] = (v >= low) & (v <= high)
            v = v if v > low else low
            y[r, c] = v if v < high else high


@jit
def requantize_backward(dy, inside, factor, dacc, dbias):
    """`dacc = dy * inside * factor[c]`; adds `sum_r dy * inside` to dbias."""
    for r in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            d = dy[r, c] if inside[r, c] else np.float32(0)
            dacc[r, c] = d * factor[c]
            dbias[c] += d


@jit
def table_forward(x, table, low, y):
    """`y = table[c, x - low]`: x codes `[rows, C]`, table `[C, levels]`."""
    last = np.float32(table.shape[1] - 1)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            k = x[r, c] - low
            k = k if k > np.float32(0) else np.float32(0)
            k = k if k < last else last
            y[r, c] = table[c, int(k)]


@jit
def table_backward(x, knots, low, fraction_bits, dy, dx, dknots):
    """Gradient of the interpolation: dx is the slope of the segment; adds to dknots `[C, segments + 1]`."""
    step = 1 << fraction_bits
    per_step = np.float32(1) / np.float32(step)
    last = np.float32((knots.shape[1] - 1) * step - 1)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            k = x[r, c] - low
            k = k if k > np.float32(0) else np.float32(0)
            k = k if k < last else last
            code = int(k)
            m = code >> fraction_bits
            d = dy[r, c]
            right = d * (np.float32(code & (step - 1)) * per_step)
            dx[r, c] = d * (knots[c, m + 1] - knots[c, m]) * per_step
            dknots[c, m] += d - right
            dknots[c, m + 1] += right
