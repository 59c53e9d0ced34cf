"""Pools, means and what makes images larger, as `handlers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional

from bittrue.models.graph import floats
from bittrue.models.graph.arguments import options, pair, size
from bittrue.models.graph.kinds import handles

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


@handles(
    nn.MaxPool1d,
    nn.MaxPool2d,
    functional.max_pool1d,
    functional.max_pool2d,
    torch.max_pool1d,
    torch.max_pool2d,
    says="any kernel, stride, dilation, padding, and ceil_mode",
)
def _max_pool(to: Normaliser, node: fx.Node) -> bool:
    names = "kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False"
    given = options(to, node, names)
    if given["return_indices"]:
        to.refuse(node, "the places of the maxima (return_indices) are not supported; leave them out")
    return _pool(to, node, given, None)


@handles(
    nn.AvgPool1d,
    nn.AvgPool2d,
    functional.avg_pool1d,
    functional.avg_pool2d,
    says="any kernel and stride; padding where it is counted (count_include_pad)",
)
def _avg_pool(to: Normaliser, node: fx.Node) -> bool:
    names = "kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None"
    given = options(to, node, names)
    flat = len(to.shape(node)) == 2
    kernel = pair(given["kernel_size"], flat, 1)
    if not given["count_include_pad"] and any(pair(given["padding"], flat, 0)) and not given["divisor_override"]:
        to.refuse(node, "windows that count no padding divide by different numbers; set count_include_pad=True")
    return _pool(to, node, given, given["divisor_override"] or kernel[0] * kernel[1])


@handles(
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    functional.adaptive_avg_pool1d,
    functional.adaptive_avg_pool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    functional.adaptive_max_pool1d,
    functional.adaptive_max_pool2d,
    says="to one value, or to a size that divides that of its input",
)
def _adaptive(to: Normaliser, node: fx.Node) -> bool:
    module = to.followed.module(node)
    given = to.arguments(node, "input" if module is not None else "input, output_size, return_indices=False")
    shape, out = to.shape(given["input"]), to.shape(node)
    flat = len(out) == 2
    before, after = ((1, shape[1]), (1, out[1])) if flat else (shape[1:], out[1:])
    if any(b % a for b, a in zip(before, after, strict=True)):
        to.refuse(node, f"{list(out[1:])} does not divide {list(shape[1:])}, so that its windows differ in size")
    kernel = before[0] // after[0], before[1] // after[1]
    named = type(module).__name__ if module is not None else node.target.__name__
    average = "avg" in named.lower()
    if average and set(after) == {1}:
        middle = floats.Mean(
            to.name(node), to.followed.places[node], [to.settle(given["input"])], shape[:1], tuple(range(1, len(shape)))
        )
        to.nodes.append(middle)
        return to.put(node, floats.View, [middle], out, order=torch.arange(shape[0]))
    divisor = kernel[0] * kernel[1] if average else None
    return to.add(node, floats.Pool, [given["input"]], kernel=kernel, stride=kernel, divisor=divisor)


@handles(torch.mean, "mean", says="over axes other than the samples'")
def _mean(to: Normaliser, node: fx.Node) -> bool:
    given = to.arguments(node, "input, dim=None, keepdim=False, dtype=None")
    shape = to.shape(given["input"])
    dims = given["dim"]
    if dims is None:
        to.refuse(node, "it mixes samples; give the axes of a sample (dim=)")
    dims = [dims] if isinstance(dims, int) else list(dims)
    axes = tuple(sorted((dim % (len(shape) + 1)) - 1 for dim in dims))
    if axes and axes[0] < 0:
        to.refuse(node, "it mixes samples; every sample goes through a circuit alone")
    kept = tuple(n for axis, n in enumerate(shape) if axis not in axes)
    made = floats.Mean(to.name(node), to.followed.places[node], [to.settle(given["input"])], kept or (1,), axes)
    to.nodes.append(made)
    return to.put(node, floats.View, [made], to.shape(node) or (1,), order=torch.arange(max(1, size(kept))))


def _pool(to: Normaliser, node: fx.Node, given: dict[str, Any], divisor: int | None) -> bool:
    """A pool from torch's arguments: what `ceil_mode` adds is padding behind."""
    flat = len(to.shape(node)) == 2
    kernel = pair(given["kernel_size"], flat, 1)
    stride = pair(given["kernel_size"] if given["stride"] in (None, []) else given["stride"], flat, 1)
    dilation, before = pair(given.get("dilation", 1), flat, 1), pair(given["padding"], flat, 0)
    shape = to.shape(given["input"])
    size = (1, shape[1]) if flat else shape[1:]
    out = (1, to.shape(node)[1]) if flat else to.shape(node)[1:]
    behind = [
        max(b, (o - 1) * s + d * (k - 1) + 1 - n - b)
        for n, b, k, s, d, o in zip(size, before, kernel, stride, dilation, out, strict=True)
    ]
    if divisor is not None and tuple(behind) != before:
        to.refuse(
            node, "its last windows reach beyond the padding (ceil_mode) and divide by another number; leave it out"
        )
    padding = (before[0], behind[0], before[1], behind[1])
    return to.add(
        node, floats.Pool, [given["input"]], kernel=kernel, stride=stride, padding=padding, dilation=dilation,
        divisor=divisor,
    )  # fmt: skip


@handles(
    nn.Upsample,
    nn.UpsamplingNearest2d,
    functional.interpolate,
    torch.repeat_interleave,
    "repeat_interleave",
    says="every pixel repeated (mode='nearest'), whole numbers of times",
)
def _upsample(to: Normaliser, node: fx.Node) -> bool:
    module = to.followed.module(node)
    if node.target in (torch.repeat_interleave, "repeat_interleave"):
        given = to.arguments(node, "input, repeats, dim=None, output_size=None")
        if given["dim"] is None or len(to.shape(node)) not in (2, 3) or given["dim"] % (len(to.shape(node)) + 1) < 2:
            return False
        if not isinstance(given["repeats"], int):
            to.refuse(node, "every pixel is repeated as often as every other; give one number of repeats")
    else:
        names = "size=None, scale_factor=None, mode='nearest', align_corners=None"
        given = options(
            to, node, names + ("" if module is not None else ", recompute_scale_factor=None, antialias=False")
        )
        if given["mode"] not in ("nearest", "nearest-exact"):
            to.refuse(node, f"mode={given['mode']!r} weighs pixels by their distance; use mode='nearest'")
    before, after = to.shape(given["input"]), to.shape(node)
    if before == after:
        return False
    if len(after) not in (2, 3):
        to.refuse(node, "only images and sequences are made larger; give samples [channels, rows, columns]")
    if any(b % a for a, b in zip(before[1:], after[1:], strict=True)):
        to.refuse(node, f"{list(after[1:])} is no whole multiple of {list(before[1:])}; take whole factors")
    factors = [b // a for a, b in zip(before[1:], after[1:], strict=True)]
    return to.add(
        node, floats.Upsample, [given["input"]], factors=tuple(factors if len(factors) == 2 else [1, *factors])
    )
