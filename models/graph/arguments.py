"""What handlers read out of the arguments of torch's modules and functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


def options(to: Normaliser, node: fx.Node, names: str) -> dict[str, Any]:
    """The options of a module, or of a function that has them as arguments, with the tensor that it reads."""
    module = to.followed.module(node)
    if module is None:
        return to.arguments(node, f"input, {names}")
    own = [name.strip().partition("=")[0] for name in names.split(",")]
    return to.arguments(node, "input") | {name: getattr(module, name, None) for name in own}


def constant(to: Normaliser, node: fx.Node, weight: Any, axes: int) -> Tensor:
    if not isinstance(weight, Tensor) or weight.ndim != axes:
        to.refuse(node, "its weights are no constant of the model; a product of two tensors is not supported")
    if not weight.isfinite().all():
        to.refuse(node, "one of its weights is not finite; train it again, with a smaller learning rate")
    return weight.detach()


def bias(bias: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias.detach()


def pair(value: Any, flat: bool, alone: int) -> tuple[int, int]:
    """A size along both axes of an image; of a sequence (`flat`) along the second, and `alone` along the first."""
    parts = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    if flat:
        return alone, parts[-1]
    return (parts[0], parts[-1])


def size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
