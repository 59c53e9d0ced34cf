"""Fast exact executions on counts of light: noise, and conversion to ADC codes."""

from __future__ import annotations

import numpy as np

from sim.contract import Format
from sim.kernels_jit import jit
from sim.noise import MEAN, Noise


@jit
def _byte_sum(word):
    return np.int64((word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24 & 255)) - MEAN


@jit
def _blocks(high, low, keys):
    """Both arrays of words encrypted where they are."""
    for key in keys:
        for c in range(high.size):
            x, y = high[c], low[c]
            x = np.uint32(np.uint32(np.uint32(x >> np.uint32(8)) | np.uint32(x << np.uint32(24))) + y) ^ key
            low[c] = np.uint32(np.uint32(y << np.uint32(3)) | np.uint32(y >> np.uint32(29))) ^ x
            high[c] = x


@jit
def _noise(u, keys, factors, first, tile, tokens, tiles):
    relative, shot, thermal, shift = factors
    half = (1 << shift) >> 1
    outputs = u.shape[1]
    high, low = np.empty(outputs + 1, np.uint32), np.empty(outputs + 1, np.uint32)
    for r in range(u.shape[0]):
        base = ((r % tokens) * tiles + tile) * (outputs + 1)
        for c in range(outputs + 1):
            high[c], low[c] = np.uint32(first + r // tokens), np.uint32(base + c)
        _blocks(high, low, keys)
        common = relative * _byte_sum(high[outputs])
        for c in range(outputs):
            count = u[r, c]
            n = count * common + shot * np.int64(np.sqrt(np.float64(count))) * _byte_sum(high[c])
            u[r, c] = max(count + ((n + thermal * _byte_sum(low[c]) + half) >> shift), 0)


@jit
def _convert(u, offset, shift, highest):
    half = (1 << shift) >> 1
    clipped = 0
    for r in range(u.shape[0]):
        for c in range(u.shape[1]):
            code = (u[r, c] - offset[c] + half) >> shift
            clipped += (code < 0) | (code > highest)
            u[r, c] = min(max(code, 0), highest)
    return clipped


def add_noise(u: np.ndarray, noise: Noise, tile: int, tokens: int, tiles: int) -> None:
    """Noise on the counts int64 `[images * tokens, N]` of a tile, in place."""
    factors = tuple(np.int64(v) for v in (noise.relative, noise.shot, noise.thermal, noise.shift))
    _noise(u, noise.keys, factors, noise.first, tile, tokens, tiles)


def convert(u: np.ndarray, offset: np.ndarray, shift: int, fmt: Format) -> int:
    """Counts int64 `[rows, N]` to ADC codes, in place; how many were clipped."""
    return int(_convert(u, offset, np.int64(shift), np.int64(fmt.high)))
