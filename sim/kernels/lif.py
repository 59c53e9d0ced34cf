"""Fast exact execution of integrate-and-fire neurons: all channels of a time step together."""

from __future__ import annotations

import numpy as np

from bittrue.sim.kernels.jit import jit


@jit
def _integrate(x, threshold, reset, keep, shift, guard, subtract, delayed, fires, out):
    samples, steps, channels = x.shape
    half = (np.int64(1) << shift) >> 1
    m = np.empty(channels, np.int64)
    for n in range(samples):
        m[:] = 0
        for t in range(steps):
            for c in range(channels):
                v = ((m[c] * keep[c] + half) >> shift) + (np.int64(x[n, t, c]) << guard)
                if delayed:
                    if t > 0 and m[c] > threshold[c]:
                        v -= reset[c]
                    m[c] = v
                    out[n, t, c] = v > threshold[c]
                elif fires:
                    z = v > threshold[c]
                    after = v - reset[c] if subtract else reset[c]
                    m[c] = after if z else v
                    out[n, t, c] = z
                else:
                    m[c] = v
                    out[n, t, c] = v


def integrate(
    x: np.ndarray,
    threshold: np.ndarray | None,
    reset: np.ndarray | None,
    keep: np.ndarray,
    shift: int,
    guard: int,
    subtract: bool,
    delayed: bool,
    out: np.ndarray,
) -> None:
    """The equation of `Lif` on codes `[n, T, C]`, into `out`: spikes, or membranes where threshold is None."""
    fires = threshold is not None
    threshold, reset = (threshold, reset) if fires else (keep, keep)
    _integrate(x, threshold, reset, keep, np.int64(shift), np.int64(guard), subtract, delayed, fires, out)
