"""Zeros around an image or a sequence, as part of the windows that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn
from torch.nn import functional

from bittrue.models.graph import floats
from bittrue.models.graph.kinds import handles

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


@handles(
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, functional.pad),
    says="zeros, in front of convolutions and of average pools, whose own padding they become; any number on each side",
)
def _pad(to: Normaliser, node: fx.Node) -> bool:
    module = to.followed.module(node)
    if module is not None:
        given = to.arguments(node, "input") | {"pad": module.padding, "value": module.value, "mode": "constant"}
    else:
        given = to.arguments(node, "input, pad, mode='constant', value=None")
    shape = to.shape(given["input"])
    if given["mode"] != "constant" or given["value"] not in (None, 0):
        to.refuse(node, "it pads with other than zeros; pad with zeros")
    sides = [int(n) for n in given["pad"]]
    spatial = 2 * (len(shape) - 1)
    if len(shape) not in (2, 3) or any(sides[spatial:]):
        to.refuse(node, "it pads other axes than those of an image or a sequence; put tensors together by torch.cat")
    if any(n < 0 for n in sides):
        to.refuse(node, "it cuts off places (a number below 0); take a part by a slice")
    left, right, top, bottom = (sides[:spatial] + [0] * 4)[:4]
    return to.add(node, floats.Pad, [given["input"]], padding=(top, bottom, left, right))
