"""The normalised float graph of a network: what it computes in a few kinds of nodes, each with its float execution.

Tensors are `[n, *shape]` with the axes that they have in torch. Windows have two axes; a network on sequences
`[n, channels, length]` has windows of height 1. Padding is (top, bottom, left, right).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from bittrue.models.data.batches import Batch
from bittrue.models.graph.follow import Place
from bittrue.models.layers.groups import Regrouping, bundled, unbundled

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


@dataclass(eq=False)
class Node:
    """A tensor and what makes it of others.

    name       its name in the program
    place      where it stands in the model
    operands   the nodes that it reads
    shape      of a sample
    """

    name: str
    place: Place
    operands: list[Node]
    shape: tuple[int, ...]

    def evaluate(self, *x: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(eq=False)
class Input(Node):
    """The samples."""


@dataclass(eq=False)
class Product(Node):
    """Base of what has weights: `relu` is a lower clamp at 0 behind it, `owner` the module whose weights they are."""

    weight: Tensor
    bias: Tensor
    relu: bool = False
    owner: str | None = None

    def product(self, x: Tensor) -> Tensor:
        """The result before the clamp."""
        raise NotImplementedError

    def evaluate(self, *x: Tensor) -> Tensor:
        y = self.product(x[0])
        return y.relu() if self.relu else y

    @property
    def axis(self) -> int | None:
        """The axis of a sample along which the outputs are channels; None: there are none, all are alike."""
        raise NotImplementedError


@dataclass(eq=False)
class Linear(Product):
    """`[..., K]` to `[..., N]`, weight `[N, K]`."""

    def product(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    @property
    def axis(self) -> int:
        return len(self.shape) - 1


@dataclass(eq=False)
class Conv(Product):
    """`[C, H, W]` to `[N, OH, OW]`, or `[C, L]` to `[N, OL]`; weight `[N, C / groups, kh, kw]`, padded with zeros."""

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    mask: Tensor | None = None  # 1 where a weight is, 0 where there is none, as the weight

    def product(self, x: Tensor) -> Tensor:
        top, bottom, left, right = self.padding
        planes = functional.pad(_planes(x), (left, right, top, bottom))
        y = functional.conv2d(planes, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return y.reshape(len(x), *self.shape)

    @property
    def axis(self) -> int:
        return 0

    @property
    def kernel(self) -> Pair:
        return self.weight.shape[2], self.weight.shape[3]


@dataclass(eq=False)
class Transposed(Product):
    """A transposed convolution, `[C, H, W]` to `[N, OH, OW]` or `[C, L]` to `[N, OL]`: pixel h and tap k meet at
    `h stride + k dilation - padding`; weight `[N, C / groups, kh, kw]`. `padding` is (top, left)."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def product(self, x: Tensor) -> Tensor:
        outputs, inside, *kernel = self.weight.shape
        weight = self.weight.view(self.groups, outputs // self.groups, inside, *kernel).transpose(1, 2).flatten(0, 1)
        planes = _planes(x)
        y = functional.conv_transpose2d(planes, weight, None, self.stride, 0, 0, self.groups, self.dilation)
        (top, left), (high, wide) = self.padding, self.size
        y = functional.pad(y, (-left, left + wide - y.shape[3], -top, top + high - y.shape[2]))
        return (y + self.bias.view(-1, 1, 1)).reshape(len(x), *self.shape)

    @property
    def axis(self) -> int:
        return 0

    @property
    def kernel(self) -> Pair:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def size(self) -> Pair:
        """Rows and columns of the result."""
        return self.shape[1:] if len(self.shape) == 3 else (1, self.shape[1])  # type: ignore[return-value]


@dataclass(eq=False)
class Upsample(Node):
    """Every pixel of `[C, H, W]` or `[C, L]` repeated, `factors` times along rows and columns."""

    factors: Pair

    def evaluate(self, *x: Tensor) -> Tensor:
        down, across = self.factors
        return _planes(x[0]).repeat_interleave(down, 2).repeat_interleave(across, 3).reshape(len(x[0]), *self.shape)


@dataclass(eq=False)
class Affine(Product):
    """`weight x + bias`, one of each for every index along `along`; `along` None: one for all."""

    along: int | None = None
    #: What a normalisation learned: mean, variance, what is added to it, the share of what it began with (0 and 1).
    learned: tuple[Tensor, Tensor, float, float] | None = None

    def product(self, x: Tensor) -> Tensor:
        shape = [1] * len(self.shape)
        if self.along is not None:
            shape[self.along] = -1
        return x * self.weight.view(shape) + self.bias.view(shape)

    @property
    def axis(self) -> int | None:
        return self.along


@dataclass(eq=False)
class Function(Node):
    """A function of each value; another one for every index along `along`, where that is given.

    `limits` are those of a clamp `min(max(x, low), high)`, which may be infinite; None for any other function.
    `units` are what one of a channel's argument and of its result are worth where channels were made alike.
    """

    call: Callable[[Tensor], Tensor]
    along: int | None = None
    limits: tuple[float, float] | None = None
    units: tuple[Tensor | float, Tensor | float] = (1.0, 1.0)

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.call(x[0])

    def at(self, values: Tensor) -> Tensor:
        """The functions `[C, points]` at values `[points]`; C is 1 where all channels share one."""
        shape = [1] * len(self.shape)
        if self.along is not None:
            shape[self.along] = self.shape[self.along]
        points = values.view(-1, *[1] * len(self.shape)).expand(-1, *shape).contiguous()
        return self.call(points).reshape(len(values), -1).T


@dataclass(eq=False)
class Pool(Node):
    """Windows over `[C, H, W]` or `[C, L]`, channel by channel: their maximum, or with `divisor` their sum over it."""

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    divisor: int | None = None

    def evaluate(self, *x: Tensor) -> Tensor:
        top, bottom, left, right = self.padding
        fill = 0.0 if self.divisor else -torch.inf
        planes = functional.pad(_planes(x[0]), (left, right, top, bottom), value=fill)
        if self.divisor:
            y = functional.avg_pool2d(planes, self.kernel, self.stride, divisor_override=self.divisor)
        else:
            y = functional.max_pool2d(planes, self.kernel, self.stride, 0, self.dilation)
        return y.reshape(len(x[0]), *self.shape)


@dataclass(eq=False)
class Pad(Node):
    """Zeros around `[C, H, W]` or `[C, L]`; a pass makes them part of the windows that read them."""

    padding: Padding

    def evaluate(self, *x: Tensor) -> Tensor:
        top, bottom, left, right = self.padding
        return functional.pad(_planes(x[0]), (left, right, top, bottom)).reshape(len(x[0]), *self.shape)


@dataclass(eq=False)
class Mean(Node):
    """Mean over axes of a sample, which are then gone."""

    axes: tuple[int, ...]

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].mean([axis + 1 for axis in self.axes]).reshape(len(x[0]), *self.shape) if self.axes else x[0]


@dataclass(eq=False)
class Add(Node):
    """Sum of two tensors of one shape, or of which one has axes of length 1 that are repeated."""

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] + x[1]


@dataclass(eq=False)
class Multiply(Node):
    """Product of two tensors of one shape, or of which one has axes of length 1 that are repeated."""

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] * x[1]


@dataclass(eq=False)
class Expand(Node):
    """Axes of length 1 repeated."""

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].expand(-1, *self.shape)


@dataclass(eq=False)
class ArgMax(Node):
    """The number of the largest along an axis of a sample, which is then gone or has length 1."""

    along: int

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].argmax(self.along + 1).float().reshape(len(x[0]), *self.shape)


@dataclass(eq=False)
class Cat(Node):
    """Tensors one after the other along an axis of a sample."""

    along: int

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.cat(x, self.along + 1)


@dataclass(eq=False)
class View(Node):
    """Values of a tensor, each once, all or a part: `order[i]` is the flat index of value i in what is read."""

    order: Tensor

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].reshape(len(x[0]), -1)[:, self.order].reshape(len(x[0]), *self.shape)


@dataclass(eq=False)
class Bundle(Node):
    """The samples of a group as one, `[C, ...]` each: the sum of what the matrices of their slots, `weight` `[N, C',
    C]`, make of them."""

    regrouping: Regrouping
    weight: Tensor
    trained: bool

    def product(self, x: Tensor) -> Tensor:
        return bundled(x, self.weight, self.regrouping.size)

    evaluate = product


@dataclass(eq=False)
class Unbundle(Node):
    """`[N C, ...]` of a group apart: of each of its samples the mean `[C, ...]` over its slots."""

    regrouping: Regrouping

    def evaluate(self, *x: Tensor) -> Tensor:
        return unbundled(x[0], self.regrouping.slots, self.regrouping.size)


#: What has weights that become codes.
Weighted = Product | Bundle


def _planes(x: Tensor) -> Tensor:
    return x.unsqueeze(2) if x.ndim == 3 else x


@dataclass
class Graph:
    """Nodes in an order in which each operand exists; `tails` is what the model does with each result, left out.

    Where its samples go in groups, `regrouping` says how.
    """

    inputs: list[Input]
    nodes: list[Node]
    results: list[Node]
    tails: list[Callable[[Tensor], Tensor] | None] = field(default_factory=list)
    regrouping: Regrouping | None = None

    def modes(self) -> Iterator[int]:
        """Every number of samples that there can be in a group, which holds until the next; of a network whose samples
        stay by themselves 1."""
        for n in (1,) if self.regrouping is None else self.regrouping.modes:
            if self.regrouping is not None:
                self.regrouping.set(n)
            yield n

    def whole(self, x: Batch) -> Batch:
        """So many of the samples as fill groups."""
        return x if self.regrouping is None else x[: len(x) // self.regrouping.size * self.regrouping.size]

    def readers(self, node: Node) -> list[Node]:
        """Who reads a node, once for every time it is read."""
        return [reader for reader in self.nodes for operand in reader.operands if operand is node]

    def alone(self, node: Node) -> bool:
        """Whether a node has exactly one reader and is no result."""
        return node not in self.results and len(self.readers(node)) == 1

    def replace(self, old: Node, new: Node) -> None:
        """Let everybody who reads `old` read `new`; `old` is gone if nobody else keeps it."""
        for node in self.nodes:
            if node is not new:
                node.operands = [new if operand is old else operand for operand in node.operands]
        self.results = [new if result is old else result for result in self.results]
        self.nodes.remove(old)

    def prune(self) -> None:
        """Leave out what no result depends on."""
        needed, pending = set(), [*self.results]
        while pending:
            node = pending.pop()
            if id(node) not in needed:
                needed.add(id(node))
                pending += node.operands
        self.nodes = [node for node in self.nodes if id(node) in needed]

    @torch.no_grad()
    def run(self, x: Batch | Tensor, keep: Iterable[Node] | None = None) -> dict[Node, Tensor]:
        """The tensors of some nodes, of all without `keep`, for samples of the inputs, those that fill groups."""
        given = dict(zip(self.inputs, self.whole(Batch.of(x) if isinstance(x, Tensor) else x).parts, strict=True))
        kept = set(self.nodes if keep is None else keep)
        last = {operand: index for index, node in enumerate(self.nodes) for operand in node.operands}
        live: dict[Node, Tensor] = {}
        for index, node in enumerate(self.nodes):
            live[node] = given[node] if node in given else node.evaluate(*(live[operand] for operand in node.operands))
            for operand in node.operands:
                if last[operand] == index and operand not in kept:
                    live.pop(operand, None)
        return {node: value for node, value in live.items() if node in kept}
