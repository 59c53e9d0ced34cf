"""What modules and functions of torch are in the normalised graph: products and normalisations; pools and joins have
modules of their own.

A handler gives False where it leaves a node to the general rules of `normalise`.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from bittrue.models.graph import floats
from bittrue.models.graph.arguments import bias, constant, pair
from bittrue.models.graph.kinds import handles

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


@handles(
    nn.Linear,
    functional.linear,
    torch.matmul,
    operator.matmul,
    "matmul",
    says="over the last axis; `matmul` by a constant matrix",
)
def _linear(to: Normaliser, node: fx.Node) -> bool:
    module = to.followed.module(node)
    if module is not None:
        given = to.arguments(node, "input") | {"weight": module.weight, "bias": module.bias}
    elif node.target is functional.linear:
        given = to.arguments(node, "input, weight, bias=None")
    else:
        given = to.arguments(node, "input, other")
        given |= {"weight": given["other"], "bias": None}
        if isinstance(given["weight"], Tensor) and given["weight"].ndim == 2:
            given["weight"] = given["weight"].T
    weight = constant(to, node, given["weight"], 2)
    owner = to.followed.places[node].path if module is not None else None
    return to.add(node, floats.Linear, [given["input"]], weight=weight, bias=bias(given["bias"], weight), owner=owner)


@handles(
    nn.Conv1d,
    nn.Conv2d,
    functional.conv1d,
    functional.conv2d,
    says="any kernel, stride, dilation and padding with zeros; groups (depthwise as such, others as one product)",
)
def _conv(to: Normaliser, node: fx.Node) -> bool:
    module = to.followed.module(node)
    if module is not None:
        given = to.arguments(node, "input")
        given |= {k: getattr(module, k) for k in ("weight", "bias", "stride", "padding", "dilation", "groups")}
        if module.padding_mode != "zeros":
            to.refuse(node, f"padding_mode={module.padding_mode!r} is not supported; pad with zeros")
    else:
        given = to.arguments(node, "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1")
    flat = len(to.shape(node)) == 2
    weight = constant(to, node, given["weight"], 3 if flat else 4)
    weight = weight.unsqueeze(2) if flat else weight
    stride, dilation = pair(given["stride"], flat, 1), pair(given["dilation"], flat, 1)
    kernel = weight.shape[2], weight.shape[3]
    if isinstance(given["padding"], str):
        whole = [d * (k - 1) if given["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        padding = (whole[0] // 2, whole[0] - whole[0] // 2, whole[1] // 2, whole[1] - whole[1] // 2)
    else:
        high, wide = pair(given["padding"], flat, 0)
        padding = (high, high, wide, wide)
    return to.add(
        node, floats.Conv, [given["input"]], weight=weight, bias=bias(given["bias"], weight), stride=stride,
        padding=padding, dilation=dilation, groups=int(given["groups"]),
        owner=to.followed.places[node].path if module is not None else None,
    )  # fmt: skip


@handles(
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    says="any kernel, stride, dilation, padding, output_padding and groups; as a convolution with an output for each "
    "phase, so that no zero is multiplied",
)
def _transposed(to: Normaliser, node: fx.Node) -> bool:
    module = to.followed.module(node)
    if module is not None:
        given = to.arguments(node, "input, output_size=None")
        given |= {k: getattr(module, k) for k in ("weight", "bias", "stride", "padding", "dilation", "groups")}
    else:
        given = to.arguments(
            node, "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1"
        )
    flat = len(to.shape(node)) == 2
    weight = constant(to, node, given["weight"], 3 if flat else 4)
    weight, groups = weight.unsqueeze(2) if flat else weight, int(given["groups"])
    weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # [N, C / groups, kh, kw]
    return to.add(
        node, floats.Transposed, [given["input"]], weight=weight, bias=bias(given["bias"], weight),
        stride=pair(given["stride"], flat, 1), padding=pair(given["padding"], flat, 0),
        dilation=pair(given["dilation"], flat, 1), groups=groups,
        owner=to.followed.places[node].path if module is not None else None,
    )  # fmt: skip


@handles(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    functional.batch_norm,
    says="with the statistics that it learned; folded into its neighbours wherever that is exact",
)
def _norm(to: Normaliser, node: fx.Node) -> bool:
    return normalisation(to, node, 0)


def normalisation(to: Normaliser, node: fx.Node, along: int) -> bool:
    """A batch normalisation in evaluation mode, of a module or function, whose channels are an axis of the samples."""
    module = to.followed.module(node)
    if module is not None:
        given = to.arguments(node, "input")
        given |= {k: getattr(module, k) for k in ("running_mean", "running_var", "weight", "bias", "eps")}
        seen = int(module.num_batches_tracked or 0)
        begun = 0.0 if module.momentum is None else (1 - module.momentum) ** seen  # the share of the initial 0 and 1
    else:
        given = to.arguments(
            node, "input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5"
        )
        seen, begun = 0, 1.0
    mean, var = given["running_mean"], given["running_var"]
    if mean is None or var is None or given.get("training"):
        to.refuse(
            node, "it normalises by the statistics of a batch, and a circuit sees one sample; let it track its own"
        )
    ones = torch.ones_like(mean)
    weight = ones if given["weight"] is None else given["weight"]
    bias = torch.zeros_like(mean) if given["bias"] is None else given["bias"]
    for name, values in {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias}.items():
        bad = (~values.isfinite() | ((values < 0) if name == "running_var" else False)).nonzero()
        if len(bad):
            k = int(bad[0])
            to.refuse(node, f"{name} of channel {k} is {float(values[k])}; train it again, or set what is right")
    gain = (weight / torch.sqrt(var + given["eps"])).detach()
    learned = (mean.clone(), var.clone(), float(given["eps"]), begun) if seen else None
    offset = (bias - mean * gain).detach()
    return to.add(node, floats.Affine, [given["input"]], weight=gain, bias=offset, along=along, learned=learned)
