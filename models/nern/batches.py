"""Which kernels have a gradient in a step: all are generated, but only these are learned from.

all                                 every kernel
sequential_layer, random_layer      those of one layer: the next one, the second first as published; or any
random_batch                        `weights_batch_size` of them, without replacement
random_batch_without_replacement    the next so many of a random order, which is drawn anew when all were there
random_weighted_batch               in 4 of 5 steps as random_batch, else drawn with replacement by the kernels' lengths
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bittrue.models.nern.settings import Nern
from bittrue.models.nern.target import Target

#: The share of steps in which random_weighted_batch does not weigh.
PLAIN = 0.8


class Batches:
    """Draws from torch's generator; `state` and `load` are for checkpoints."""

    def __init__(self, settings: Nern, target: Target) -> None:
        self.method, self.starts, self.kernels = settings.weights_batch_method, target.starts, target.kernels
        self.size = min(settings.weights_batch_size or self.kernels, self.kernels)
        self.norms = target.norms()
        self.layer, self.at, self.order = 0, 0, torch.arange(0)

    def next(self) -> Tensor | None:
        """Numbers int64 of the kernels of the next step; None is all."""
        if self.method == "all":
            return None
        if self.method in ("sequential_layer", "random_layer"):
            layers = len(self.starts) - 1
            if self.method == "sequential_layer":
                self.layer = (self.layer + 1) % layers
            else:
                self.layer = int(torch.randint(layers, ()))
            return torch.arange(self.starts[self.layer], self.starts[self.layer + 1])
        if self.method == "random_batch_without_replacement":
            if self.at >= len(self.order):
                self.order, self.at = torch.randperm(self.kernels), 0
            self.at += self.size
            return self.order[self.at - self.size : self.at]
        if self.method == "random_weighted_batch" and float(torch.rand(())) >= PLAIN and self.norms.any():
            # drawn by the inverse of the distribution: torch's own drawing takes no more than 2^24 kinds
            edges = self.norms.double().cumsum(0)
            drawn = torch.searchsorted(edges, torch.rand(self.size, dtype=torch.float64) * edges[-1], right=True)
            return drawn.clamp_max(self.kernels - 1)
        return torch.randperm(self.kernels)[: self.size]

    def state(self) -> dict[str, Any]:
        return {"layer": self.layer, "at": self.at, "order": self.order}

    def load(self, state: dict[str, Any]) -> None:
        self.layer, self.at, self.order = int(state["layer"]), int(state["at"]), state["order"]
