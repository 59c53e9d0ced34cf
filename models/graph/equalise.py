"""Channels of one size: factors that are moved from the weights of a product into those of the next.

Between two products `y = W2 relu(W1 x + b1)`, a positive factor of each channel can be taken off the first and put onto
the second without any change of what they compute. It is chosen so that no channel is much smaller than the others,
whose codes would then be few: with a_i the largest magnitude of channel i and w_i that of the weights that read it,

    s_i = sqrt(a_i / w_i), over their geometric mean, in 1/64..64;   W1[i] / s_i,  b1[i] / s_i,  W2[.., i] * s_i

Where the second product reads every channel alone, its weights have shifts of their own and s_i = a_i.
Source: cross-layer equalisation (Nagel et al., Data-Free Quantization, 2019), here with observed activations.
"""

from __future__ import annotations

import torch

from bittrue.models.data.batches import Batch
from bittrue.models.graph.floats import Conv, Graph, Linear, Node, Pool

LIMIT = 64.0
SAMPLES = 128


def equalise(graph: Graph, x: Batch) -> int:
    """Equalise every pair of products in place, by what samples show; gives the number of pairs."""
    pairs = [(node, reader) for node in graph.nodes if (reader := _reader(graph, node)) is not None]
    for first, second in pairs:
        value = graph.run(x[:SAMPLES], {first})[first]
        axis = first.axis + 1
        largest = value.abs().amax([k for k in range(value.ndim) if k != axis])
        weight = second.weight.abs()
        alone = isinstance(second, Conv) and second.groups > 1
        reads = weight.flatten(1).amax(1) if alone else weight.transpose(0, 1).flatten(1).amax(1)
        live = (largest > 0) & (reads > 0)
        if not live.any():
            continue
        factor = largest if alone else torch.sqrt(largest / reads)
        factor = factor / torch.exp(factor[live].log().mean())
        factor = torch.where(live, factor, 1.0).clamp(1 / LIMIT, LIMIT)
        shape = [-1] + [1] * (first.weight.ndim - 1)
        first.weight, first.bias, first.owner = first.weight / factor.view(shape), first.bias / factor, None
        across = shape if alone else [1, -1, *[1] * (second.weight.ndim - 2)]
        second.weight, second.owner = second.weight * factor.view(across), None
    return len(pairs)


def _reader(graph: Graph, node: Node) -> Linear | Conv | None:
    """The product that alone reads a product, at once or through pools, with the same channels; None: there is none."""
    if not isinstance(node, Linear | Conv) or _shared(graph, node):
        return None
    reader: Node = node
    while graph.alone(reader):
        (reader,) = graph.readers(reader)
        if isinstance(reader, Linear | Conv):
            kept = isinstance(reader, Conv) if isinstance(node, Conv) else type(reader) is type(node)
            depthwise = isinstance(reader, Conv) and reader.groups == len(node.weight) == len(reader.weight)
            whole = not isinstance(reader, Conv) or reader.groups == 1
            return reader if kept and (whole or depthwise) and not _shared(graph, reader) else None
        if not isinstance(reader, Pool):
            return None
    return None


def _shared(graph: Graph, node: Linear | Conv) -> bool:
    """Whether another node has the weights of the same module."""
    others = (other for other in graph.nodes if other is not node and isinstance(other, Linear | Conv))
    return node.owner is not None and any(other.owner == node.owner for other in others)
