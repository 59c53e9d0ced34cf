"""Training of the original network, with neighbouring kernels drawn towards each other where that is wanted.

    loss = cross entropy - factor C             Cosine: C the sum of cosines of kernels beside each other
    loss = cross entropy + factor D             L2: D the sum of their distances

A smooth original needs no permutations: it is the published alternative to them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bittrue.models.data.sets import Data
from bittrue.models.nern.losses import cosine_smoothness, l2_smoothness
from bittrue.models.nern.settings import Original
from bittrue.models.nern.target import generated
from bittrue.models.training.loop import History, Progress, cosine, optimize


def fit(
    model: nn.Module,
    data: Data,
    settings: Original,
    *,
    side: int = 3,
    keep: tuple[str, ...] = (),
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> History:
    """Train in place by AdamW with a cosine schedule, keep the best epoch on the validation split.

    What is made smooth are the convolutions that will be generated, as kernels of `side` and but for those to `keep`.
    """
    layers = generated(model, side, keep)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        value = cross_entropy(logits, labels)
        if settings.smoothness == "none" or not torch.is_grad_enabled():  # validation is judged by its own loss
            return value
        weights = [model.get_submodule(layer.path).weight for layer in layers]
        if settings.smoothness == "L2":
            return value + settings.smoothness_factor * l2_smoothness(weights)
        return value - settings.smoothness_factor * cosine_smoothness(weights)

    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    return optimize(
        model, data, settings, optimizer, epochs=settings.epochs, stage="original", loss=loss, schedule=cosine,
        checkpoint=checkpoint, progress=progress, device=device,
    )  # fmt: skip
