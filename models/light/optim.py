"""Optimisers that keep non-negative parameters non-negative; no momentum, no weight decay.

NNSGD   p <- p - lr_out |p| tanh(lr_in g)       sign preserving: a parameter shrinks or grows by a factor
CSGD    p <- max(0, p - lr g)                   gradient descent, clipped at zero

Under NNSGD a parameter that is exactly zero stays there, so a weight keeps the rail that the transformation gave it.
Under CSGD both rails of one weight may grow. Source: Kirtas, Passalis, Pleros and Tefas, arXiv 2310.01084.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from bittrue.sim.errors import BittrueError


class NNSGD(Optimizer):
    """`p <- p - lr_out |p| tanh(lr_in g)`; lr_in > 0, and 0 < lr_out <= 1, for a larger one could turn a sign."""

    def __init__(self, params: Iterable[Tensor], lr_in: float, lr_out: float) -> None:
        if not 0 < lr_out <= 1:
            raise BittrueError(
                f"NNSGD: lr_out is {lr_out}; it lies above 0 and up to 1, as a larger step turns the sign of a weight"
            )
        if not lr_in > 0:
            raise BittrueError(f"NNSGD: lr_in is {lr_in}; give a positive number")
        super().__init__(params, {"lr_in": lr_in, "lr_out": lr_out})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient."""
        loss = _closed(closure)
        for group in self.param_groups:
            for p in _with_gradient(group):
                # the product |p| tanh(.) never rounds above |p|, so the difference never passes zero
                p.sub_(p.abs().mul_(torch.tanh(group["lr_in"] * p.grad)).mul_(group["lr_out"]))
        return loss


class CSGD(Optimizer):
    """`p <- max(0, p - lr g)`; lr > 0."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        if not lr > 0:
            raise BittrueError(f"CSGD: lr is {lr}; give a positive number")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient."""
        loss = _closed(closure)
        for group in self.param_groups:
            for p in _with_gradient(group):
                p.sub_(p.grad, alpha=group["lr"]).clamp_(min=0)
        return loss


def _closed(closure: Callable[[], Tensor] | None) -> Tensor | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _with_gradient(group: dict) -> list[Tensor]:
    return [p for p in group["params"] if p.grad is not None]
