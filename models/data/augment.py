"""Training images as they might as well have been: mirrored, and moved a little."""

from __future__ import annotations

import numpy as np


def augmented(images: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """Images uint8 `[n, height, width, channels]`, each changed in its own way; the shape stays.

    how      shift: moved by whole pixels, up to an eighth of the size in each direction, with pixels of 0 moving in;
             flip: left and right exchanged, with probability 1/2; flip-shift: both; flip-reflect: both, but that the
             image as if in a mirror moves in; none: as they are
    rng      what the changes are drawn from
    """
    n, height, width, _ = images.shape
    rows, columns = np.arange(height), np.broadcast_to(np.arange(width), (n, width))
    if how.startswith("flip"):
        columns = np.where(rng.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    rows = np.broadcast_to(rows, (n, height))
    if how in ("shift", "flip-shift", "flip-reflect"):
        down, right = height // 8, width // 8
        mode = "reflect" if how == "flip-reflect" else "constant"
        images = np.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), mode)
        rows = rows + rng.integers(0, 2 * down, (n, 1), endpoint=True)
        columns = columns + rng.integers(0, 2 * right, (n, 1), endpoint=True)
    return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
