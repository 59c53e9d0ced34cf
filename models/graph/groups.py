"""Modules that bring samples together, and apart again, as `handlers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from bittrue.models.graph import floats
from bittrue.models.graph.kinds import handles
from bittrue.models.layers.groups import Bundled, Unbundled

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


@handles(Bundled)
def _bundled(to: Normaliser, node: fx.Node) -> bool:
    module, operand = to.followed.module(node), to.arguments(node, "input")["input"]
    weight = module.matrices().detach().clone()
    for slot, matrix in enumerate(weight):
        if not matrix.isfinite().all():
            to.refuse(node, f"the key of slot {slot} is not finite; train it again, or take an earlier epoch")
        if not matrix.any():
            to.refuse(node, f"the key of slot {slot} is zero, so that its sample is lost; draw it anew")
    if to.regrouping.slots == 1 and not module.trained and _is_identity(weight[0]):
        to.values[node] = to.values[operand]
        return True
    options = {"regrouping": to.regrouping, "weight": weight, "trained": module.trained}
    return to.put(node, floats.Bundle, [to.settle(operand)], to.shape(node), **options)


@handles(Unbundled)
def _unbundled(to: Normaliser, node: fx.Node) -> bool:
    operand = to.arguments(node, "input")["input"]
    if to.regrouping.slots == 1:
        to.values[node] = to.values[operand]
        return True
    return to.put(node, floats.Unbundle, [to.settle(operand)], to.shape(node), regrouping=to.regrouping)


def _is_identity(matrix: torch.Tensor) -> bool:
    return matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix)))
