"""Fast exact executions on spike trains: the neuron step by step, decoding, spike words to spikes."""

from __future__ import annotations

import numpy as np

from bittrue.sim.contract import Range
from bittrue.sim.kernels.jit import jit

#: Neurons worked on together: their membranes stay in the nearest cache, and enough spikes of a step lie side by side
#: for the memory to stream them.
LANES = 2048


@jit
def _fire(x, threshold, reset, limits, out, block):
    # Unsigned flat indices: a signed one may count from the end, which the compiler checks lane by lane.
    kind, count_of = threshold.dtype.type, np.uintp
    low, high = limits[0], limits[1]
    values, spikes = x.reshape(-1), out.reshape(-1)
    steps, channels = count_of(threshold.size), count_of(x.shape[1])
    outside = 0
    v = np.empty(block, threshold.dtype)
    for r in range(count_of(x.shape[0])):
        for first in range(count_of(0), channels, count_of(block)):
            count = min(count_of(block), count_of(channels - first))
            source = count_of(r * channels + first)
            clipped = kind(0)  # of a block, so it fits
            for c in range(count):
                value = kind(values[source + c])
                within = min(max(value, low), high)
                clipped = kind(clipped + (within != value))
                v[c] = within
            outside += clipped
            for t in range(steps):
                limit, drop = threshold[t], reset[t]
                target = count_of((r * steps + t) * channels + first)
                for c in range(count):
                    z = v[c] > limit
                    v[c] = kind(v[c] - (drop if z else kind(0)))
                    spikes[target + c] = z
    return outside


@jit
def _decode_steps(spikes, worth, out):
    kind = worth.dtype.type
    row = np.empty(spikes.shape[2], worth.dtype)
    for r in range(spikes.shape[0]):
        for c in range(spikes.shape[2]):
            row[c] = kind(0)
        for t in range(spikes.shape[1]):
            d = worth[t]
            for c in range(spikes.shape[2]):
                row[c] = kind(row[c] + kind(spikes[r, t, c]) * d)
        for c in range(spikes.shape[2]):
            out[r, c] = row[c]


@jit
def _take(x, low, table, out):
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[r, c] = table[np.uint32(np.int32(x[r, c]) - low)]


@jit
def _unpack(words, steps, out):
    kind = words.dtype.type
    for r in range(words.shape[0]):
        for t in range(steps):
            bit = kind(1 << (steps - 1 - t))  # a mask, not a shift, so that the lanes stay as narrow as the words
            for c in range(words.shape[1]):
                out[r, t, c] = (words[r, c] & bit) != 0


def _kind(*ranges: Range) -> type[np.signedinteger]:
    """The narrowest of int16, int32 and int64 that holds all the ranges: more lanes to a vector."""
    bits = max(r.bits for r in ranges)
    return np.int16 if bits <= 16 else np.int32 if bits <= 32 else np.int64


def fire(
    rows: np.ndarray, threshold: np.ndarray, reset: np.ndarray, limits: tuple[int, int], membrane: Range
) -> tuple[np.ndarray, int]:
    """The FS-neuron on codes `[rows, C]`, step by step: spikes uint8 `[rows, K, C]`, and values outside the limits."""
    info = np.iinfo(rows.dtype)
    kind = _kind(membrane, Range.of(reset, reset), Range(int(info.min), int(info.max)))
    # A threshold below every membrane always fires; one above never does: clipping it to the type changes neither.
    if int(threshold.min()) <= np.iinfo(kind).min:
        kind = np.int64
    within = np.minimum(threshold, np.iinfo(kind).max)
    out = np.empty((rows.shape[0], len(threshold), rows.shape[1]), np.uint8)
    rows = np.ascontiguousarray(rows)
    return out, int(_fire(rows, within.astype(kind), reset.astype(kind), np.array(limits, kind), out, LANES))


def decode_steps(spikes: np.ndarray, worth: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`sum_t worth[t] * spikes[r, t, c]` for spikes `[rows, K, C]`; the result `[rows, C]` fits `dtype`."""
    low, high = int(np.minimum(worth, 0).sum()), int(np.maximum(worth, 0).sum())
    out = np.empty((spikes.shape[0], spikes.shape[2]), dtype)
    _decode_steps(spikes, worth.astype(_kind(Range(low, high), Range(-1, 255))), out)
    return out


def decode_words(words: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """What spike words are worth: step t is bit K - 1 - t. Int64, as `words`."""
    places = np.arange(len(worth) - 1, -1, -1)
    return ((words[:, None] >> places) & 1) @ worth


def take(rows: np.ndarray, low: int, table: np.ndarray) -> np.ndarray:
    """`table[x - low]` for codes `[rows, C]`."""
    out = np.empty(rows.shape, table.dtype)
    _take(rows, np.int32(low), table, out)
    return out


def unpack_words(words: np.ndarray, steps: int) -> np.ndarray:
    """Spike words `[rows, C]` of any integer dtype to spikes uint8 `[rows, K, C]`: step t is bit K - 1 - t."""
    out = np.empty((words.shape[0], steps, words.shape[1]), np.uint8)
    _unpack(words, steps, out)
    return out
