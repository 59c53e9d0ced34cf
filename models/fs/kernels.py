"""The float32 FS-neuron without torch, one pass over many values: what a fit and the tests measure with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.models.fs.sets import NeuronSet
from bittrue.sim.kernels.jit import jit

#: Points of the uniform grid on which the error of a set is measured.
GRID_POINTS = 100_000


@jit
def _float_neuron(x, h, d, threshold, low, high, out, words):
    # Sums and comparisons only, in the order of the definition: float32 as torch computes it, nothing to contract.
    outside = 0
    steps = threshold.size
    for i in range(x.size):
        outside += (x[i] < low) | (x[i] > high)
        v = min(max(x[i], low), high)
        y = np.float32(0)
        word = np.int64(0)
        for t in range(steps):
            if v > threshold[t]:
                y = y + d[t]
                v = v - h[t]
                word |= np.int64(1) << (steps - 1 - t)
        out[i] = y
        words[i] = word
    return outside


@dataclass(frozen=True, eq=False)
class Response:
    """What a neuron made of its inputs: values float32, spike words int64 (step t is bit K - 1 - t), inputs clipped."""

    values: np.ndarray
    words: np.ndarray
    clipped: int
    steps: int

    @property
    def spikes(self) -> np.ndarray:
        """Spikes uint8 `[..., K]`, time last."""
        return ((self.words[..., None] >> np.arange(self.steps - 1, -1, -1)) & 1).astype(np.uint8)


def respond(neuron_set: NeuronSet, x: np.ndarray) -> Response:
    """The float32 neuron at x (any shape, taken as float32), clipped to the set's valid range and counted."""
    x = np.asarray(x, np.float32)
    flat = np.ascontiguousarray(x).reshape(-1)
    out, words = np.empty(flat.size, np.float32), np.empty(flat.size, np.int64)
    low, high = np.float32(neuron_set.low), np.float32(neuron_set.high)
    clipped = _float_neuron(flat, neuron_set.h, neuron_set.d, neuron_set.T, low, high, out, words)
    return Response(out.reshape(x.shape), words.reshape(x.shape), int(clipped), neuron_set.steps)


def grid(low: float, high: float, points: int = GRID_POINTS) -> np.ndarray:
    """The uniform grid from low to high, both included, float32."""
    return np.linspace(low, high, points).astype(np.float32)


def mean_squared_error(neuron_set: NeuronSet, y: np.ndarray, x: np.ndarray, weight: np.ndarray | None = None) -> float:
    """`mean(weight (y - neuron(x))^2) / mean(weight)`: neuron in float32, difference and mean in float64."""
    error = np.asarray(y, np.float64) - respond(neuron_set, x).values.astype(np.float64)
    return float(np.average(error**2, weights=weight))
