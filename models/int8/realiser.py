"""What makes the integer layers of a float graph: scales, names, layouts. What each kind becomes is in `realise`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.graph import floats
from bittrue.models.graph.floats import Graph, Node
from bittrue.models.graph.layout import Layout
from bittrue.models.graph.observe import Observed, follows, groups, reach
from bittrue.models.layers import tensors, windows
from bittrue.models.layers.integer import CodeStep, IntegerLayer
from bittrue.sim.errors import BittrueError

SMALLEST = 1e-9


def named(node: Node) -> str:
    """What a layer with weights is called where widths are given and told: the path of its module, else its name."""
    return node.place.path or node.name


@dataclass(frozen=True)
class Choices:
    """What a conversion was asked for.

    bits        width of the weights by path of the module, or by `named`; "" stands for all others
    activation  width of every tensor
    mode        how sums are brought to codes: `shift` or `multiplier`
    ranges      `mse`, or a percentile
    segments    of a table; None: it has an entry for every code
    """

    bits: Mapping[str, int]
    activation: int
    mode: tensors.Mode
    ranges: str | float
    segments: int | None = None

    def weight_bits(self, node: Node) -> int:
        return self.bits.get(named(node), self.bits[""])


@dataclass(frozen=True, eq=False)
class Made:
    """A tensor of the integer network: its name, and where its values are."""

    name: str
    layout: Layout


@dataclass(frozen=True, eq=False)
class Realised:
    """The layers in order, each with the names of what it reads, and which float node it is.

    inputs    the inputs by name, and `entries` their code steps
    results   the results, and `steps` their code steps
    """

    layers: list[tuple[IntegerLayer, tuple[str, ...], Node]]
    layouts: dict[Node, Layout]
    inputs: list[Made]
    entries: list[nn.Module]
    results: list[Made]
    steps: list[nn.Module]


class Realiser:
    """Makes the layers of a graph for one layout of each input."""

    def __init__(
        self, what: str, graph: Graph, seen: Observed, choices: Choices, reaches: Sequence[float],
        starts: Sequence[Layout],
    ) -> None:  # fmt: skip
        self.what, self.graph, self.seen, self.choices = what, graph, seen, choices
        self.layers: list[tuple[IntegerLayer, tuple[str, ...], Node]] = []
        self.made: dict[Node, Made] = {
            node: Made(node.name, start) for node, start in zip(graph.inputs, starts, strict=True)
        }
        self.rasters: dict[Node, Made] = {}
        self.shared: dict[str, list[tuple[nn.Parameter, nn.Parameter]]] = {}
        self.groups = groups(graph)
        self.high = (1 << (choices.activation - 1)) - 1
        self.reaches: dict[Node, float] = dict(zip(graph.inputs, reaches, strict=True))
        self.steps: dict[Node, nn.Module] = {}
        self._settle_steps()

    def _settle_steps(self) -> None:
        """A code step for every group: of what is largest in it. What `follows` gets its own when it is made."""
        members: dict[Node, list[Node]] = {}
        for node in self.graph.nodes:
            members.setdefault(self.groups.of(node), []).append(node)
        for first, nodes in members.items():
            if self.choices.mode == "shift" and any(follows(node) for node in nodes):
                continue
            largest = max(self._reach(node) for node in nodes)
            fixed, decided = any(entry in nodes for entry in self.graph.inputs), isinstance(first, floats.ArgMax)
            value = 1.0 if decided else max(largest / self.high, SMALLEST)
            self.steps[first] = CodeStep(value, fixed=fixed or decided)
        for node in self.graph.nodes:
            if isinstance(node, floats.Weighted) and self.choices.mode == "shift":
                self._guard(node)

    def _guard(self, node: floats.Weighted) -> None:
        """Enlarge the step of a result where a weight, for which no shift is left, would not fit its codes."""
        source, target = (self.steps.get(self.groups.of(n)) for n in (node.operands[0], node))
        high = (1 << (self.choices.weight_bits(node) - 1)) - 1
        if source is None or target is None or target.fixed:
            return
        least = float(node.weight.abs().max() * source.value) / high
        if float(target.value) < least:
            target.set(least)

    def _reach(self, node: Node) -> float:
        if node in self.reaches:
            return self.reaches[node]
        if node in self.graph.results:
            return self.seen.largest(node)  # what is decided by keeps its whole range
        return reach(self.seen.magnitudes[node], self.high, self.choices.ranges)

    def step(self, node: Node) -> nn.Module:
        return self.steps[self.groups.of(node)]

    def realise(self, kinds: Kinds) -> Realised:
        """All layers; `kinds` says what each kind of node becomes."""
        for node in self.graph.nodes:
            if node in self.reaches:
                continue
            try:
                self.made[node] = kinds[type(node)](self, node)
            except BittrueError as error:
                raise BittrueError(f"{self.what}: {node.place}: {error}") from error
        if not self.layers:
            raise BittrueError(f"{self.what}: it computes nothing; its result is what goes in")
        layouts = {node: made.layout for node, made in self.made.items()}
        inputs, results = self.graph.inputs, []
        for node in self.graph.results:
            results.append(self._result(node, {made.name for made in (*results, *(self.made[k] for k in inputs))}))
        entries, steps = (list(map(self.step, nodes)) for nodes in (inputs, self.graph.results))
        return Realised(self.layers, layouts, [self.made[node] for node in inputs], entries, results, steps)

    def _result(self, node: Node, others: set[str]) -> Made:
        """A result as the program gives it: in order, and by a name that neither an input nor another result has."""
        made, shape = self.raster(node), node.shape
        if len(shape) == 1 and not made.layout.plain:
            raise BittrueError(
                f"{self.what}: {node.place}: its results are values of an image in torch's order, channel by channel, "
                "and a circuit has them pixel by pixel; end with a linear layer, or without flattening"
            )
        layout = made.layout.shaped(*shape) if len(shape) == 1 else made.layout
        if made.name in others or layout.shape != made.layout.shape:
            layer = windows.TensorReshape(layout.shape, self.step(node), self.choices.activation, self.label("result"))
            made = self.put(node, layer, (made.name,), layout)
        return made

    # -- what all kinds share --------------------------------------------------------------------------
    def put(self, node: Node, layer: IntegerLayer, operands: tuple[str, ...], layout: Layout) -> Made:
        layer.path = named(node)
        self.layers.append((layer, operands, node))
        return Made(layer.label, layout)

    def label(self, name: str) -> str:
        """A name that no tensor of the program has yet."""
        taken, found, number = {"x", *(layer.label for layer, _, _ in self.layers)}, name, 1
        taken.update(entry.name for entry in self.graph.inputs)
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        return found

    def shaped(self, node: Node, made: Made, shape: tuple[int, ...], operand: int | None = 0) -> Made:
        """A tensor that `node` reads, or its own without operand, with other axes in the program."""
        if made.layout.shape == shape:
            return made
        label = self.label(f"{node.name}_flat" if len(shape) == 1 else f"{node.name}_shape")
        read = node if operand is None else node.operands[operand]
        layer = windows.TensorReshape(shape, self.step(read), self.choices.activation, label)
        return self.put(node, layer, (made.name,), made.layout.shaped(*shape))

    def raster(self, read: Node) -> Made:
        """A tensor, with its pixels in raster order where it is an image of which some lie beside each other."""
        made, shape = self.made[read], read.shape
        factors = made.layout.phases(shape)
        if factors is None:
            return made
        if read not in self.rasters:
            channels, high, wide = shape
            parts = high // factors[0], wide // factors[1], channels * factors[0] * factors[1]
            channel, _ = made.layout.channels(shape, 0)  # type: ignore[misc]  (else it had no phases)
            made = self.shaped(read, made, parts, None)
            layer = windows.TensorUpsample(
                factors, True, self.step(read), self.choices.activation, self.label(f"{read.name}_image")
            )
            layout = Layout.joined(shape, 0, channel, np.arange(high * wide), (high, wide, channels))
            self.rasters[read] = self.put(read, layer, (made.name,), layout)
        return self.rasters[read]

    def innermost(
        self, node: Node, axis: int, operand: int = 0, made: Made | None = None
    ) -> tuple[Made, np.ndarray, np.ndarray]:
        """What `node` reads, or the tensor of it that is given, with an axis of torch's sample innermost, and its
        `Layout.channels`."""
        read = node.operands[operand]
        made, shape = made or self.made[read], read.shape
        found = made.layout.channels(shape, axis)
        if found is None:
            turned = made.layout.transposed(shape[axis])
            found = turned.channels(shape, axis)
            if found is None:
                raise BittrueError(
                    f"axis {axis + 1} of samples {list(shape)} would have to be innermost and is spread in a circuit; "
                    "permute less before it"
                )
            made = self.shaped(node, made, (shape[axis], len(turned.order) // shape[axis]))
            label = self.label(f"{node.name}_transpose")
            layer = tensors.TensorTranspose(self.step(read), self.choices.activation, label)
            made = self.put(node, layer, (made.name,), turned)
        if made.layout.shape[-1] != shape[axis]:
            rows = len(made.layout.order) // shape[axis]
            made = self.shaped(node, made, (shape[axis],) if rows == 1 else (rows, shape[axis]))
        return made, *found

    def image(self, node: Node) -> tuple[Made, np.ndarray]:
        """What `node` reads as an image `[H, W, C]`, and which of torch's channels each of the program's is."""
        shape = node.operands[0].shape
        made, channel, rows = self.innermost(node, 0, made=self.raster(node.operands[0]))
        if not np.array_equal(rows, np.arange(len(rows))):
            raise BittrueError("its pixels do not lie in raster order in a circuit; permute less before it")
        size = shape[1:] if len(shape) == 3 else (1, shape[1])
        return self.shaped(node, made, (*size, shape[0])), channel

    def alike(self, node: Node, does: str) -> tuple[Made, Made]:
        """The two tensors that `node` reads, with the same axes in the program; what has fewer values is repeated."""
        for k, operand in enumerate(node.operands):
            if operand.shape != node.shape:
                other = self.raster(node.operands[1 - k])
                found = self.repeated(node, k, other.layout, does)
                return (found, other) if k == 0 else (other, found)
        left, right = (self.made[operand] for operand in node.operands)
        if not left.layout.same(right.layout):
            left, right = map(self.raster, node.operands)
        if not left.layout.same(right.layout):
            raise BittrueError(
                f"the tensors that it {does} lie in different order in a circuit; permute both alike first"
            )
        return left, self.shaped(node, right, left.layout.shape, 1)

    def repeated(self, node: Node, operand: int, layout: Layout, does: str) -> Made:
        """What `node` reads, which has axes of length 1 where the node has more, repeated to a layout of its result."""
        read = node.operands[operand]
        made = self.made[read]
        found = made.layout.repeated(read.shape, layout, node.shape)
        if found is None:
            raise BittrueError(
                f"the tensors that it {does} lie in different order in a circuit; permute both alike first"
            )
        image, factors = found
        made = self.shaped(node, made, image, operand)
        target, width = self.step(read), self.choices.activation
        layer = windows.TensorUpsample(factors, False, target, width, self.label(f"{node.name}_repeated"))
        shape = image[0] * factors[0], image[1] * factors[1], image[2]
        made = self.put(node, layer, (made.name,), Layout(shape, layout.order))
        return self.shaped(node, made, layout.shape, operand)

    def shift(self, node: Node, step: float) -> int:
        """The shift of sums of this step that lets the codes of a group hold what is largest in it."""
        group = self.groups.of(node)
        largest = max(self._reach(member) for member in self.graph.nodes if self.groups.of(member) is group)
        return int(np.clip(np.ceil(np.log2(max(largest, SMALLEST) / (step * self.high))), 0, 2 * tensors.MAX_SHIFT))

    def options(self, node: floats.Weighted) -> dict:
        bits, relu = self.choices.weight_bits(node), isinstance(node, floats.Product) and node.relu
        mode, width = self.choices.mode, self.choices.activation
        return {"weight_bits": bits, "input_bits": width, "relu": relu, "mode": mode}

    def parameters(self, node: floats.Product, weight: Tensor, bias: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
        """Real weights and bias; calls of one module share them where they are the same."""
        alike = self.shared.setdefault(node.owner, []) if node.owner is not None else []
        for known in alike:
            if torch.equal(known[0], weight) and torch.equal(known[1], bias):
                return known
        alike.append((nn.Parameter(weight.clone().contiguous()), nn.Parameter(bias.clone().contiguous())))
        return alike[-1]


#: What each kind of node becomes.
Kinds = Mapping[type[Node], Callable[[Realiser, Node], Made]]
