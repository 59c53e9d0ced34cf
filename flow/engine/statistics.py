"""What is said of a training's result: how sure a share is, of a test set and over seeds, and which epoch was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any


def wilson(share: float, images: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share (0..1) that was measured on so many images: lowest and highest.

    With z the quantile of the normal distribution and n the images, it is
    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). It says how far another test set of the same
    size may be from this one, and nothing of another training. (scipy has it, but comes with training only.)
    """
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2 / images
    middle, half = share + z2 / 2, math.sqrt(z2 * share * (1 - share) + z2 * z2 / 4)
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample; None of a single value, which has none."""
    return fmean(values), stdev(values) if len(values) > 1 else None


def share(accuracy: float, images: int) -> str:
    """An accuracy with its confidence interval, in words."""
    low, high = wilson(accuracy, images)
    return f"{100 * accuracy:.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f})"


def chosen(result: Mapping[str, Any]) -> str:
    """Which epoch of a training was kept, in words, from its `history` and `kept`."""
    if result["kept"]:
        return f"epoch {result['kept']} of {len(result['history'])}, the best on validation images"
    return f"as before, since none of {len(result['history'])} epochs did better on validation images"
