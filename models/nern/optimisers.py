"""Optimisers and schedules of a generator, under their published names.

adamw, sgd (with Nesterov's momentum), adadelta are torch's. ranger is torch's RAdam with decoupled weight decay
(p -= lr wd p; momentum alone while its variance cannot be told), epsilon 1e-5, in Lookahead: every `EVERY` steps slow
weights go half of the way to the fast ones, which begin there anew. With `ranger_use_gc` each gradient of a matrix is
taken without the means of its rows. Sources: Liu et al. 2019 (arXiv:1908.03265), Zhang et al. 2019 (arXiv:1907.08610),
Yong et al. 2020 (arXiv:2004.01461). What torch lacks is these two dozen lines, for which no package is worth while.

cosine          from lr to min_lr over all steps
exponential     lr times gamma every `step_interval` steps, down to min_lr; gamma 0: so that it ends there
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bittrue.models.nern.settings import Optim

#: Lookahead: steps of the fast weights, and how far the slow ones follow.
EVERY, SHARE = 6, 0.5
#: Changes of an exponential schedule whose `step_interval` is 0.
CHANGES = 100


class Ranger(torch.optim.RAdam):
    """RAdam in Lookahead; the slow weights are part of its state."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, centred: bool, **options: Any) -> None:
        super().__init__(parameters, lr=lr, eps=1e-5, decoupled_weight_decay=True, foreach=False, **options)
        self.centred = centred

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        own = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in own:
            if "slow" not in self.state[p]:
                # RAdam sets its own state up where there is none, so all of it is made here
                zeros = torch.zeros_like(p, memory_format=torch.preserve_format)
                self.state[p] |= {"step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
                self.state[p]["slow"] = p.detach().clone()
            if self.centred and p.grad.dim() > 1:
                p.grad.sub_(p.grad.mean(dim=tuple(range(1, p.grad.dim())), keepdim=True))
        loss = super().step(closure)
        for p in own:
            state = self.state[p]
            if int(state["step"]) % EVERY == 0:
                p.copy_(state["slow"].lerp_(p, SHARE))
        return loss


def optimiser(parameters: Sequence[nn.Parameter], settings: Optim) -> torch.optim.Optimizer:
    """The optimiser of these settings."""
    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer_type == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=decay, nesterov=momentum > 0)
    if settings.optimizer_type == "adadelta":
        return torch.optim.Adadelta(parameters, lr, weight_decay=decay)
    if settings.optimizer_type == "ranger":
        return Ranger(parameters, lr, settings.ranger_use_gc, betas=settings.betas, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr, betas=settings.betas, weight_decay=decay)


def rate(settings: Optim, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0, of so many: that after as many steps of the published schedule."""
    lr, least = settings.lr, settings.min_lr
    if settings.lr_scheduler_type == "cosine":
        return least + (lr - least) * 0.5 * (1 + math.cos(math.pi * step / steps))
    interval = settings.step_interval or max(1, steps // CHANGES)
    gamma = settings.gamma or (least / lr) ** (interval / steps)
    changes = -(-step // interval)  # the published schedule changes behind steps 0, interval, 2 interval ..
    if gamma < 1 and least > 0:  # and no more once it is at min_lr
        changes = min(changes, math.ceil(math.log(least / lr) / math.log(gamma)))
    return lr * gamma**changes


def clip(parameters: Iterable[nn.Parameter], settings: Optim) -> None:
    """Shorten the gradient of each parameter, and cut its entries, where the settings say so."""
    for parameter in parameters:
        if settings.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_([parameter], settings.max_gradient_norm)
        if settings.max_gradient is not None:
            nn.utils.clip_grad_value_([parameter], settings.max_gradient)
