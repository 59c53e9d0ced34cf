"""What modules and functions of torch are in the normalised graph: a handler for each kind, with what it takes.

A handler gives False where it leaves a node to the general rules of `normalise`.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from bittrue.models.graph import floats
from bittrue.models.graph.kinds import handles

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


# -- products ------------------------------------------------------------------------------------------
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
    weight = _constant(to, node, given["weight"], 2)
    owner = to.followed.places[node].path if module is not None else None
    return to.add(node, floats.Linear, [given["input"]], weight=weight, bias=_bias(given["bias"], weight), owner=owner)


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
    weight = _constant(to, node, given["weight"], 3 if flat else 4)
    weight = weight.unsqueeze(2) if flat else weight
    stride, dilation = _pair(given["stride"], flat, 1), _pair(given["dilation"], flat, 1)
    kernel = weight.shape[2], weight.shape[3]
    if isinstance(given["padding"], str):
        whole = [d * (k - 1) if given["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        padding = (whole[0] // 2, whole[0] - whole[0] // 2, whole[1] // 2, whole[1] - whole[1] // 2)
    else:
        high, wide = _pair(given["padding"], flat, 0)
        padding = (high, high, wide, wide)
    return to.add(
        node, floats.Conv, [given["input"]], weight=weight, bias=_bias(given["bias"], weight), stride=stride,
        padding=padding, dilation=dilation, groups=int(given["groups"]),
        owner=to.followed.places[node].path if module is not None else None,
    )  # fmt: skip


@handles(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    functional.batch_norm,
    says="with the statistics that it learned; folded into its neighbours wherever that is exact",
)
def _norm(to: Normaliser, node: fx.Node) -> bool:
    module = to.followed.module(node)
    if module is not None:
        given = to.arguments(node, "input")
        given |= {k: getattr(module, k) for k in ("running_mean", "running_var", "weight", "bias", "eps")}
        tracked = module.num_batches_tracked is not None and int(module.num_batches_tracked) > 0
    else:
        given = to.arguments(
            node, "input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5"
        )
        tracked = False
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
    learned = (mean.clone(), var.clone(), float(given["eps"])) if tracked else None
    return to.add(
        node, floats.Affine, [given["input"]], weight=gain, bias=(bias - mean * gain).detach(), along=0, learned=learned
    )


# -- pools and means -----------------------------------------------------------------------------------
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
    given = _options(to, node, names)
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
    given = _options(to, node, names)
    flat = len(to.shape(node)) == 2
    kernel = _pair(given["kernel_size"], flat, 1)
    if not given["count_include_pad"] and any(_pair(given["padding"], flat, 0)) and not given["divisor_override"]:
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
    return to.put(node, floats.View, [made], to.shape(node) or (1,), order=torch.arange(max(1, _size(kept))))


def _pool(to: Normaliser, node: fx.Node, given: dict[str, Any], divisor: int | None) -> bool:
    """A pool from torch's arguments: what `ceil_mode` adds is padding behind."""
    flat = len(to.shape(node)) == 2
    kernel = _pair(given["kernel_size"], flat, 1)
    stride = _pair(given["kernel_size"] if given["stride"] in (None, []) else given["stride"], flat, 1)
    dilation, before = _pair(given.get("dilation", 1), flat, 1), _pair(given["padding"], flat, 0)
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


# -- several tensors -----------------------------------------------------------------------------------
@handles(
    operator.add,
    operator.iadd,
    torch.add,
    "add",
    "add_",
    says="of two tensors of one shape; by a constant it is part of a function",
)
def _add(to: Normaliser, node: fx.Node) -> bool:
    return _sum(to, node, 1)


@handles(
    operator.sub,
    operator.isub,
    torch.sub,
    "sub",
    "sub_",
    says="of two tensors of one shape; by a constant it is part of a function",
)
def _sub(to: Normaliser, node: fx.Node) -> bool:
    return _sum(to, node, -1)


def _sum(to: Normaliser, node: fx.Node, sign: int) -> bool:
    given = to.arguments(node, "input, other, alpha=1")
    operands = [given["input"], given["other"]]
    if not all(isinstance(operand, fx.Node) for operand in operands):
        return False
    if to.values[operands[0]].root is to.values[operands[1]].root and to.same_place(node):
        return True
    shapes = [to.shape(operand) for operand in operands]
    if shapes[0] != shapes[1]:
        to.refuse(node, f"the tensors that it adds have the shapes {shapes[0]} and {shapes[1]}; bring them to one")
    factor = sign * float(given["alpha"])
    left, right = map(to.settle, operands)
    if factor != 1:
        right = floats.Affine(
            f"{to.name(node)}_factor",
            to.followed.places[node],
            [right],
            shapes[1],
            torch.tensor([factor]),
            torch.zeros(1),
        )
        to.nodes.append(right)
    return to.put(node, floats.Add, [left, right], to.shape(node))


@handles(torch.cat, torch.concat, torch.concatenate, says="along an axis of the samples, of any number of tensors")
def _cat(to: Normaliser, node: fx.Node) -> bool:
    given = to.arguments(node, "tensors, dim=0")
    tensors = list(given["tensors"])
    if not all(isinstance(tensor, fx.Node) for tensor in tensors):
        to.refuse(node, "one of its tensors is a constant; only tensors that depend on the samples can be put together")
    along = given["dim"] % (len(to.shape(node)) + 1) - 1
    if along < 0:
        to.refuse(node, "it puts samples one after the other; every sample goes through a circuit alone")
    return to.add(node, floats.Cat, tensors, along=along)


@handles(
    nn.Softmax,
    nn.LogSoftmax,
    functional.softmax,
    functional.log_softmax,
    torch.softmax,
    torch.log_softmax,
    "softmax",
    "log_softmax",
    says="at the end only, where it is left out: the largest result is the same",
)
def _softmax(to: Normaliser, node: fx.Node) -> bool:
    (operand,) = to.reads(node)
    if node is not to.followed.result or len(to.shape(node)) != 1:
        to.refuse(node, "it is only known at the end, over the classes, where the decision needs none of it")
    value = to.values[operand]
    if value.call is not None:
        to.settle(operand)
        value = to.values[operand]
    to.tail = lambda x: to.followed.call(node, {operand: x})
    to.values[node] = value
    return True


@handles(
    *(operator.mul, operator.imul, torch.mul, "mul", "mul_"),
    says="of two tensors of one shape (gates); by a constant it is part of a function",
)
def _mul(to: Normaliser, node: fx.Node) -> bool:
    operands = to.reads(node)
    if len({id(to.values[operand].root) for operand in operands}) == 1 and to.same_place(node):
        return True
    if len(operands) < 2:
        return False
    shapes = [to.shape(operand) for operand in operands]
    if shapes[0] != shapes[1]:
        to.refuse(
            node, f"the tensors that it multiplies have the shapes {shapes[0]} and {shapes[1]}; bring them to one"
        )
    return to.add(node, floats.Multiply, operands)


@handles(functional.dropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, says="in evaluation mode, where it does nothing")
def _dropout(to: Normaliser, node: fx.Node) -> bool:
    if (
        to.followed.module(node) is None
        and to.arguments(node, "input, p=0.5, training=True, inplace=False")["training"]
    ):
        to.refuse(node, "it drops values in evaluation mode as well; give it training=self.training")
    return False


# -- what several handlers share -----------------------------------------------------------------------
def _options(to: Normaliser, node: fx.Node, names: str) -> dict[str, Any]:
    """The options of a module, or of a function that has them as arguments, with the tensor that it reads."""
    module = to.followed.module(node)
    if module is None:
        return to.arguments(node, f"input, {names}")
    own = [name.strip().partition("=")[0] for name in names.split(",")]
    return to.arguments(node, "input") | {name: getattr(module, name, None) for name in own}


def _constant(to: Normaliser, node: fx.Node, weight: Any, axes: int) -> Tensor:
    if not isinstance(weight, Tensor) or weight.ndim != axes:
        to.refuse(node, "its weights are no constant of the model; a product of two tensors is not supported")
    if not weight.isfinite().all():
        to.refuse(node, "one of its weights is not finite; train it again, with a smaller learning rate")
    return weight.detach()


def _bias(bias: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias.detach()


def _pair(value: Any, flat: bool, alone: int) -> tuple[int, int]:
    """A size along both axes of an image; of a sequence (`flat`) along the second, and `alone` along the first."""
    parts = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    if flat:
        return alone, parts[-1]
    return (parts[0], parts[-1])


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
