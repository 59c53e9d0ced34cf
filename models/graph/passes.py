"""Passes over the float graph: what goes into its neighbours (normalisations, constant factors, clamps, padding)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bittrue.models.graph.floats import (
    Affine,
    Conv,
    Function,
    Graph,
    Linear,
    Mean,
    Node,
    Pad,
    Pool,
    Product,
    Transposed,
    View,
)
from bittrue.models.graph.phases import expand


def simplify(graph: Graph) -> Graph:
    """Fold and fuse in place until nothing is left to do; what the graph computes stays the same."""
    while any(
        step(graph, node)
        for node in list(graph.nodes)
        for step in (_into_producer, _into_reader, _into_function, _behind_mean, _relu, _views, _pads)
    ):
        pass
    expand(graph)
    graph.prune()
    return graph


def _into_producer(graph: Graph, node: Node) -> bool:
    """An affine behind a product that nobody else reads: `g (W x + b) + o = (g W) x + (g b + o)`."""
    if not isinstance(node, Affine):
        return False
    producer = node.operands[0]
    if not isinstance(producer, Product) or producer.relu or not graph.alone(producer):
        return False
    if isinstance(producer, Affine) and producer.along is None:
        producer.along = node.along
    elif node.along not in (None, producer.axis):
        return False
    gain = node.weight.view(-1, *[1] * (producer.weight.ndim - 1))
    producer.weight, producer.bias = producer.weight * gain, producer.bias * node.weight + node.bias
    producer.relu, producer.owner = node.relu, None
    producer.name = node.name if isinstance(producer, Affine) else producer.name
    graph.replace(node, producer)
    return True


def _into_reader(graph: Graph, node: Node) -> bool:
    """An affine that nothing but products reads: `W (g x + o) + b = (W g) x + (b + W o)`.

    A convolution that pads must not get an offset: padding is 0 behind the affine, so it would be none before it. Of a
    transposed one not every result sees as many pixels.
    """
    if not isinstance(node, Affine) or node.relu or node in graph.results:
        return False
    readers = graph.readers(node)
    if not all(_takes(reader, node) for reader in readers):
        return False
    for reader in readers:
        axis = _inputs(reader, node)
        gain, offset = (_spread(reader, v.expand(node.shape[axis])) for v in (node.weight, node.bias))
        reader.bias = reader.bias + (reader.weight * offset).flatten(1).sum(1)
        reader.weight, reader.owner = reader.weight * gain, None
    graph.replace(node, node.operands[0])
    return True


def _takes(reader: Node, node: Affine) -> bool:
    """Whether a product that reads an affine can have its factors and offsets in its own."""
    if not isinstance(reader, Linear | Conv | Transposed):
        return False
    padded = isinstance(reader, Transposed) or (isinstance(reader, Conv) and any(reader.padding))
    return node.along in (None, _inputs(reader, node)) and not (padded and bool(node.bias.any()))


def _inputs(reader: Node, node: Node) -> int:
    """The axis of a sample of `node` along which the inputs of a product that reads it are channels."""
    return len(node.shape) - 1 if isinstance(reader, Linear) else 0


def _spread(reader: Linear | Conv | Transposed, values: Tensor) -> Tensor:
    """A value of each channel that a product reads, as its weights have them."""
    if isinstance(reader, Linear):
        return values
    outputs, inside = reader.weight.shape[:2]
    group = torch.arange(outputs)[:, None] // (outputs // reader.groups)
    return values[group * inside + torch.arange(inside)][:, :, None, None]


def _into_function(graph: Graph, node: Node) -> bool:
    """An affine that only functions read that have a table for each channel anyway, or which is alike in all."""
    if not isinstance(node, Affine) or node in graph.results:
        return False
    readers = graph.readers(node)
    if not all(isinstance(one, Function) and one.limits is None and node.along in (None, one.along) for one in readers):
        return False
    for reader in readers:
        reader.call = partial(_one_after, node.evaluate, reader.call)
    graph.replace(node, node.operands[0])
    return True


def _one_after(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return second(first(x))


def _behind_mean(graph: Graph, node: Node) -> bool:
    """A mean of an affine that nobody else reads, over other axes than that of its channels, is the affine of a mean.

    There are fewer means, and the affine is beside what reads them.
    """
    affine = node.operands[0] if isinstance(node, Mean) else None
    if not isinstance(affine, Affine) or affine.relu or affine.along in node.axes or not graph.alone(affine):
        return False
    if affine.along is not None:
        affine.along -= sum(axis < affine.along for axis in node.axes)
    affine.shape = node.shape
    graph.replace(affine, affine.operands[0])
    graph.results = [affine if result is node else result for result in graph.results]
    for reader in graph.readers(node):
        reader.operands = [affine if operand is node else operand for operand in reader.operands]
    affine.operands = [node]
    graph.nodes.insert(graph.nodes.index(node) + 1, affine)
    return True


def _relu(graph: Graph, node: Node) -> bool:
    """A function `max(x, 0)`, or one that is also limited above, behind a product that nobody else reads."""
    if not isinstance(node, Function) or node.limits is None or node.limits[0] != 0:
        return False
    producer = node.operands[0]
    if not isinstance(producer, Product) or producer.relu or not graph.alone(producer):
        return False
    producer.relu = True
    if node.limits[1] == torch.inf:
        graph.replace(node, producer)
    return True


def _views(graph: Graph, node: Node) -> bool:
    """A view of a view is one, and one that changes nothing is none."""
    if not isinstance(node, View):
        return False
    if node.shape == node.operands[0].shape and torch.equal(node.order, torch.arange(len(node.order))):
        graph.replace(node, node.operands[0])
        return True
    if not isinstance(node.operands[0], View):
        return False
    first = node.operands[0]
    parts = [len(view.order) < math.prod(view.operands[0].shape) for view in (first, node)]
    if all(parts):
        return False  # each takes its part along an axis of its own
    node.order, node.operands = first.order[node.order], list(first.operands)
    return True


def _pads(graph: Graph, node: Node) -> bool:
    """Zeros around an image that nothing but windows read which count them as such."""
    if not isinstance(node, Pad) or node in graph.results:
        return False
    readers = graph.readers(node)
    if not all(isinstance(reader, Conv) or (isinstance(reader, Pool) and reader.divisor) for reader in readers):
        return False
    for reader in readers:
        reader.padding = tuple(own + more for own, more in zip(reader.padding, node.padding, strict=True))
    graph.replace(node, node.operands[0])
    return True
