"""Channels of one size: factors that are moved from the weights of a product into those of the next.

Between two products `y = W2 relu(W1 x + b1)`, a positive factor of each channel can be taken off the first and put onto
the second without any change of what they compute. It is chosen so that no channel is much smaller than the others,
whose codes would then be few: with a_i the largest magnitude of channel i and w_i that of the weights that read it,

    s_i = sqrt(a_i / w_i), over their geometric mean, in 1/64..64;   W1[i] / s_i,  b1[i] / s_i,  W2[.., i] * s_i

Where the second product reads every channel alone, its weights have shifts of their own and s_i = a_i. A function that
each channel has its own of is the same in either place: its table holds f(s x), or f(x) / s.
Source: cross-layer equalisation (Nagel et al., Data-Free Quantization, 2019), here with observed activations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bittrue.models.data.batches import Batch
from bittrue.models.graph.floats import Conv, Function, Graph, Linear, Node, Pool

LIMIT = 64.0
SAMPLES = 128


def equalise(graph: Graph, x: Batch) -> int:
    """Equalise every pair of products, or of a product and functions of each channel, in place, by what samples show;
    gives the number of pairs."""
    pairs = [(node, reader) for node in graph.nodes if (reader := _reader(graph, node)) is not None]
    for first, second in pairs:
        values = [graph.run(x[:SAMPLES], {first})[first] for _ in graph.modes()]
        axis = _channels(first) + 1
        others = [k for k in range(values[0].ndim) if k != axis]
        largest = torch.stack([value.abs().amax(others) for value in values]).amax(0)
        alone = isinstance(second, Function) or (isinstance(second, Conv) and second.groups > 1)
        if isinstance(second, Function):
            reads = torch.ones_like(largest)
        else:
            weight = second.weight.abs()
            reads = weight.flatten(1).amax(1) if alone else weight.transpose(0, 1).flatten(1).amax(1)
        live = (largest > 0) & (reads > 0)
        if not live.any():
            continue
        factor = largest if alone else torch.sqrt(largest / reads)
        factor = factor / torch.exp(factor[live].log().mean())
        factor = torch.where(live, factor, 1.0).clamp(1 / LIMIT, LIMIT)
        if isinstance(first, Function):
            first.call = partial(_divided, first.call, _along(first, factor))
            first.units = first.units[0], first.units[1] * factor
        else:
            shape = [-1] + [1] * (first.weight.ndim - 1)
            first.weight, first.bias, first.owner = first.weight / factor.view(shape), first.bias / factor, None
        if isinstance(second, Function):
            second.call = partial(_multiplied, second.call, _along(second, factor))
            second.units = second.units[0] * factor, second.units[1]
        else:
            across = [-1] + [1] * (second.weight.ndim - 1) if alone else [1, -1, *[1] * (second.weight.ndim - 2)]
            second.weight, second.owner = second.weight * factor.view(across), None
    return len(pairs)


def _divided(call: Callable[[Tensor], Tensor], factor: Tensor, x: Tensor) -> Tensor:
    return call(x) / factor


def _multiplied(call: Callable[[Tensor], Tensor], factor: Tensor, x: Tensor) -> Tensor:
    return call(x * factor)


def _along(node: Function, factor: Tensor) -> Tensor:
    """A factor of each channel, as samples have it."""
    return factor.view([-1 if axis == node.along else 1 for axis in range(len(node.shape))])


def _channels(node: Linear | Conv | Function) -> int | None:
    """The axis of a sample along which the results of a product, or functions, are channels."""
    return node.along if isinstance(node, Function) else node.axis


def _reader(graph: Graph, node: Node) -> Linear | Conv | Function | None:
    """What alone reads a product or a function of each channel, at once or through pools, with the same channels: a
    product or a function of each; None: there is none."""
    if not _takes(graph, node):
        return None
    reader: Node = node
    while graph.alone(reader):
        (reader,) = graph.readers(reader)
        if isinstance(reader, Linear | Conv | Function):
            axis = 0 if isinstance(reader, Conv) else _channels(reader)
            channels = node.shape[_channels(node)]
            depthwise = isinstance(reader, Conv) and reader.groups == channels == len(reader.weight)
            whole = not isinstance(reader, Conv) or reader.groups == 1
            kept = axis == _channels(node) and (whole or depthwise) and _takes(graph, reader)
            return reader if kept else None
        if not isinstance(reader, Pool):
            return None
    return None


def _takes(graph: Graph, node: Node) -> bool:
    """Whether a node may have factors of its channels: a product whose weights no other node has, or functions."""
    if isinstance(node, Function):
        return node.along is not None and node.limits is None
    if not isinstance(node, Linear | Conv):
        return False
    others = (other for other in graph.nodes if other is not node and isinstance(other, Linear | Conv))
    return node.owner is None or all(other.owner != node.owner for other in others)
