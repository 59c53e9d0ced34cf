"""What the pictures of generated kernels are drawn from: a few kernels, tours, how far codes are from the original.

Of every generated layer: some kernels along its tour, those of the original and those that a boot makes, in real
values; the cosines of neighbours along the tour and in plain order; the tour itself, where it is short enough to be
drawn; and a histogram of the differences, in steps of its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from bittrue.models.nern.generator import Generator
    from bittrue.models.nern.target import Target

#: Kernels of a layer that are drawn, at equal distances along its tour.
SHOWN = 10
#: Kernels of a layer up to which its tour is drawn.
DRAWN = 256
#: Steps of a histogram on either side of 0; what is beyond is counted at the end.
REACH = 12


def collect(target: Target, generator: Generator, codes: Sequence[Tensor], units: Tensor) -> list[dict[str, Any]]:
    """A row a layer; `codes` are those of its kernels, `units` their steps."""
    rows = []
    weights, orders = [weight.detach().cpu().numpy() for weight in target.weights()], generator.orders()
    for layer, weight, code, unit, order in zip(target.layers, weights, codes, units.tolist(), orders, strict=True):
        real = weight.reshape(layer.kernels, -1).astype(float)
        made = code.detach().cpu().numpy().reshape(layer.kernels, -1) * unit
        tour = np.asarray(order)
        some = tour[np.linspace(0, layer.kernels - 1, min(SHOWN, layer.kernels)).astype(int)]
        steps = np.clip(np.rint((made - real) / unit), -REACH, REACH).astype(int)
        rows.append(
            {
                "path": layer.path,
                "filters": layer.filters,
                "channels": layer.channels,
                "side": layer.side,
                "original": np.round(real[some], 4).tolist(),
                "generated": np.round(made[some], 4).tolist(),
                "along": round(neighbours(real[tour]), 4),
                "plain": round(neighbours(real), 4),
                "tour": tour.tolist() if layer.kernels <= DRAWN else None,
                "errors": np.bincount(steps.reshape(-1) + REACH, minlength=2 * REACH + 1).tolist(),
                "rms": round(float(np.sqrt(np.mean((made - real) ** 2))), 6),
            }
        )
    return rows


def neighbours(kernels: np.ndarray) -> float:
    """The mean cosine of kernels `[K, k^2]` that follow each other; 1 where there is one."""
    lengths = np.maximum(np.linalg.norm(kernels, axis=1), 1e-12)
    cosines = (kernels[1:] * kernels[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
    return float(cosines.mean()) if len(cosines) else 1.0
