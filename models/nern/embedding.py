"""Coordinates of kernels as sines and cosines, so that a small network can tell them apart.

For an index q and the levels i = 0 .. L - 1

    gamma(q)[2 i], gamma(q)[2 i + 1] = sin(pi b^i q), cos(pi b^i q)

basic, concat   gamma(l), gamma(f), gamma(c) behind each other: 6 L values
basic, sum      their sum: 2 L values, the same for all orders of l, f and c
ffn             sin(2 pi B p), cos(2 pi B p) in turn, p = (l, f, c), B of 3 L rows normal with deviation `gauss_scale`,
                the same in every run: 6 L values

A basic embedding is a table for each index, which is what the first layer of a generator makes use of.
Source: Ashkenazi et al. 2022 (arXiv:2212.13554), section 3; Fourier features by Tancik et al. 2020 (arXiv:2006.10739).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.nern.settings import Embeddings
from bittrue.models.nern.target import Layer, coordinates
from bittrue.sim.errors import BittrueError

#: Embeddings no further apart than this, in every value, are the same.
SAME = 1e-4


class Embedding(nn.Module):
    """`forward` takes coordinates int `[n, 3]` and gives float32 `[n, size]`.

    separable   whether it is made of a table for each index
    """

    def __init__(self, settings: Embeddings) -> None:
        super().__init__()
        self.settings, levels = settings, settings.enc_levels
        self.separable = settings.type == "basic"
        self.index_size = 2 * levels
        self.size = self.index_size if settings.fusion_mode == "sum" else 3 * self.index_size
        if self.separable:
            self.register_buffer("powers", settings.base ** torch.arange(levels), persistent=False)
        else:
            drawn = torch.randn((3 * levels, 3), generator=torch.Generator().manual_seed(0))
            self.register_buffer("matrix", drawn * torch.tensor(settings.gauss_scale), persistent=False)
        if not torch.isfinite(self.powers if self.separable else self.matrix).all():
            raise BittrueError(
                f"embedding: base {settings.base:g} to the power of {levels - 1} is beyond a float; take fewer levels "
                "or a smaller base"
            )

    def table(self, rows: int) -> Tensor:
        """gamma of the indices 0 .. rows - 1, `[rows, 2 L]`: the embedding of each index of a basic one."""
        angles = torch.arange(rows, device=self.powers.device)[:, None] * self.powers * math.pi
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)

    def forward(self, coordinates: Tensor) -> Tensor:
        if not self.separable:
            angles = (coordinates.float() * 2 * math.pi) @ self.matrix.T
            return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        rows = self.table(int(coordinates.max()) + 1 if len(coordinates) else 0)[coordinates.long()]
        return rows.sum(1) if self.settings.fusion_mode == "sum" else rows.flatten(1)


def check_distinct(embedding: Embedding, layers: Sequence[Layer]) -> None:
    """Refuse an embedding that cannot tell two coordinates of these layers apart, and name them.

    Tables are compared index by index; a sum is the same for l, f and c in another order. Of Fourier features every
    difference d of two coordinates is tried: B d must not be whole numbers.
    """
    settings = embedding.settings
    if settings.collisions == "accept":
        return
    every = coordinates(layers)
    pair: tuple[np.ndarray, np.ndarray] | None = None
    remedy = "take a larger gauss_scale"
    if not embedding.separable:
        pair = _whole_apart(embedding.matrix.double().numpy(), every)
    else:
        for axis, name in enumerate(("layer", "filter", "channel")):
            if same := _equal(int(every[:, axis].max()) + 1, embedding.powers.double().numpy()):
                raise BittrueError(
                    f"embedding: base {settings.base:g} with {settings.enc_levels} levels gives the same for {name} "
                    f"{same[0]} and {name} {same[1]}; take another base or more levels"
                )
        if settings.fusion_mode == "sum":
            pair, remedy = _reordered(every), "take fusion_mode concat"
    if pair is not None:
        first, second = (tuple(map(int, one)) for one in pair)
        raise BittrueError(
            f"embedding: it gives the same for the kernels (layer, filter, channel) = {first} and {second}; {remedy}, "
            "or nern.embeddings.collisions: accept"
        )


def _equal(indices: int, powers: np.ndarray) -> tuple[int, int] | None:
    """Two indices of the same sines and cosines, in float64: what sets them apart shall not be roundings."""
    angles = np.arange(indices)[:, None] * powers * math.pi
    rows = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    for first in range(indices - 1):
        same = np.flatnonzero(np.abs(rows[first + 1 :] - rows[first]).max(axis=1) < SAME)
        if len(same):
            return first, first + 1 + int(same[0])
    return None


def _reordered(every: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Two coordinates of the same three numbers."""
    _, first, back = np.unique(np.sort(every, axis=1), axis=0, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[back.ravel()] != np.arange(len(every)))
    return (every[first[back.ravel()[again[0]]]], every[again[0]]) if len(again) else None


def _whole_apart(matrix: np.ndarray, every: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Two coordinates whose difference d has whole numbers B d, for a sine and a cosine of 2 pi B d within `SAME`."""
    high = every.max(axis=0)
    plane = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in high[1:]), indexing="ij"), -1).reshape(-1, 2)
    near = SAME / (2 * math.pi)
    for layer in range(high[0] + 1):
        left = plane[plane[:, 0] * (2 * high[2] + 1) + plane[:, 1] > 0] if layer == 0 else plane
        for row in matrix:
            angles = left @ row[1:] + layer * row[0]
            left = left[np.abs(angles - np.rint(angles)) < near]
            if not len(left):
                break
        for f, c in left:
            if found := _pair(every, (layer, f, c)):
                return found
    return None


def _pair(every: np.ndarray, apart: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Two coordinates that are so far apart."""
    moved, high = every + np.array(apart), every.max(axis=0) + 1
    inside = np.flatnonzero(((moved >= 0) & (moved < high)).all(axis=1))
    numbers = [np.ravel_multi_index(tuple(of.T), tuple(high)) for of in (every, moved[inside])]
    there = np.flatnonzero(np.isin(numbers[1], numbers[0]))
    return (every[inside[there[0]]], moved[inside[there[0]]]) if len(there) else None
