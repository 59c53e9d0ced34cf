"""Quantisation-aware training on the integers themselves: what is trained is what the hardware computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bittrue.models.data.sets import Data
from bittrue.models.layers.integer import CodeStep
from bittrue.models.training.loop import History, Judge, Progress, cosine, optimize
from bittrue.models.training.settings import Qat


def fit(
    model: nn.Module,
    data: Data,
    settings: Qat = Qat(),  # noqa: B008  (frozen)
    *,
    before: Callable[[np.random.Generator], None] | None = None,
    judge: Judge | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> History:
    """Train a network of integer layers in place: cross entropy of its logits times their `scale`, of several results
    the sum of those with their `scales`.

    It is left as the best epoch on the validation split had it, or as it was quantised where none did better.

    Scales stay as they were set unless `settings.learn_scales`; fixed ones, as the input's, always do. See
    `models.training.loop.optimize`.
    """
    every = [m for m in model.modules() if isinstance(m, CodeStep)]
    steps = [step.log for step in every if not step.fixed]
    scales = {id(step.log) for step in every}
    for log in steps:
        log.requires_grad_(settings.learn_scales)
    groups = [{"params": [p for p in model.parameters() if id(p) not in scales], "lr": settings.lr}]
    if settings.learn_scales:
        groups.append({"params": steps, "lr": settings.scale_lr})

    def loss(codes: Any, labels: Any) -> Tensor:
        if not isinstance(codes, tuple):
            return cross_entropy(codes * model.scale, labels)
        return sum(cross_entropy(y * scale, at) for y, scale, at in zip(codes, model.scales, labels, strict=True))

    return optimize(
        model,
        data,
        settings,
        torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True),
        epochs=settings.epochs,
        stage="qat",
        loss=loss,
        before=before,
        judge=judge,
        schedule=cosine,
        checkpoint=checkpoint,
        progress=progress,
        device=device,
    )
