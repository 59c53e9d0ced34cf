"""From a float graph with its scales to integer layers, in the layout of the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.graph import floats, functions
from bittrue.models.graph.floats import Graph, Node
from bittrue.models.graph.layout import Layout
from bittrue.models.graph.observe import Observed, averages, groups, is_clamp, reach
from bittrue.models.layers import tensors, windows
from bittrue.models.layers.integer import CodeStep, IntegerAdd, IntegerLayer
from bittrue.sim.errors import BittrueError

SMALLEST = 1e-9


@dataclass(frozen=True)
class Choices:
    """What a conversion was asked for.

    bits        width of the weights by path of the module; "" stands for all others
    activation  width of every tensor
    mode        how sums are brought to codes: `shift` or `multiplier`
    ranges      `mse`, or a percentile
    """

    bits: Mapping[str, int]
    activation: int
    mode: tensors.Mode
    ranges: str | float

    def weight_bits(self, path: str) -> int:
        return self.bits.get(path, self.bits[""])


@dataclass(frozen=True, eq=False)
class Made:
    """A tensor of the integer network: its name, and where its values are."""

    name: str
    layout: Layout


@dataclass(frozen=True, eq=False)
class Realised:
    """The layers in order, each with the names of what it reads, and which float node it is."""

    layers: list[tuple[IntegerLayer, tuple[str, ...], Node]]
    layouts: dict[Node, Layout]
    result: Made
    input: Layout
    entry: CodeStep
    step: nn.Module


class Realiser:
    """Makes the layers of a graph for one layout of its input."""

    def __init__(
        self, what: str, graph: Graph, seen: Observed, choices: Choices, input_reach: float, start: Layout
    ) -> None:
        self.what, self.graph, self.seen, self.choices = what, graph, seen, choices
        self.layers: list[tuple[IntegerLayer, tuple[str, ...], Node]] = []
        self.made: dict[Node, Made] = {graph.input: Made("x", start)}
        self.shared: dict[str, list[tuple[nn.Parameter, nn.Parameter]]] = {}
        self.groups = groups(graph)
        self.high = (1 << (choices.activation - 1)) - 1
        self.input_reach = input_reach
        self.steps: dict[Node, nn.Module] = {}
        self._settle_steps()

    def _settle_steps(self) -> None:
        """A code step for every group: of what is largest in it. Averages by shifts get theirs when they are made."""
        members: dict[Node, list[Node]] = {}
        for node in self.graph.nodes:
            members.setdefault(self.groups.of(node), []).append(node)
        for first, nodes in members.items():
            if self.choices.mode == "shift" and any(averages(node) for node in nodes):
                continue
            largest = max(self._reach(node) for node in nodes)
            step = CodeStep(max(largest / self.high, SMALLEST), fixed=self.graph.input in nodes)
            self.steps[first] = step
        for node in self.graph.nodes:
            if isinstance(node, floats.Product) and self.choices.mode == "shift":
                self._guard(node)

    def _guard(self, node: floats.Product) -> None:
        """Enlarge the step of a result where a weight, for which no shift is left, would not fit its codes."""
        source, target = (self.steps.get(self.groups.of(n)) for n in (node.operands[0], node))
        high = (1 << (self.choices.weight_bits(node.place.path) - 1)) - 1
        if source is None or target is None or target.fixed:
            return
        least = float(node.weight.abs().max() * source.value) / high
        if float(target.value) < least:
            target.set(least)

    def _reach(self, node: Node) -> float:
        if node is self.graph.input:
            return self.input_reach
        if node is self.graph.result:
            return self.seen.largest(node)  # what is decided by keeps its whole range
        return reach(self.seen.magnitudes[node], self.high, self.choices.ranges)

    def step(self, node: Node) -> nn.Module:
        return self.steps[self.groups.of(node)]

    def realise(self) -> Realised:
        for node in self.graph.nodes:
            if node is self.graph.input:
                continue
            try:
                self.made[node] = _KINDS[type(node)](self, node)
            except BittrueError as error:
                raise BittrueError(f"{self.what}: {node.place}: {error}") from error
        if not self.layers:
            raise BittrueError(f"{self.what}: it computes nothing; its result is what goes in")
        width = self.choices.activation
        if len(self.graph.result.shape) == 1 and not self.made[self.graph.result].layout.plain:
            raise BittrueError(
                f"{self.what}: {self.graph.result.place}: its results are values of an image in torch's order, channel "
                "by channel, and a circuit has them pixel by pixel; end with a linear layer, or without flattening"
            )
        start = self.made[self.graph.input].layout
        result = self.made[self.graph.result]
        if len(self.graph.result.shape) == 1 and len(result.layout.shape) > 1:
            label = self.label("result")
            layer = windows.TensorReshape(self.graph.result.shape, self.step(self.graph.result), width, label)
            result = self.put(self.graph.result, layer, (result.name,), result.layout.shaped(*self.graph.result.shape))
        layouts = {node: made.layout for node, made in self.made.items()}
        return Realised(self.layers, layouts, result, start, self.step(self.graph.input), self.step(self.graph.result))

    # -- what all kinds share --------------------------------------------------------------------------
    def put(self, node: Node, layer: IntegerLayer, operands: tuple[str, ...], layout: Layout) -> Made:
        layer.path = node.place.path
        self.layers.append((layer, operands, node))
        return Made(layer.label, layout)

    def label(self, name: str) -> str:
        """A name that no tensor of the program has yet."""
        taken, found, number = {"x", *(layer.label for layer, _, _ in self.layers)}, name, 1
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        return found

    def shaped(self, node: Node, made: Made, shape: tuple[int, ...]) -> Made:
        """The tensor that `node` reads, with other axes in the program."""
        if made.layout.shape == shape:
            return made
        label = self.label(f"{node.name}_flat" if len(shape) == 1 else f"{node.name}_shape")
        layer = windows.TensorReshape(shape, self.step(node.operands[0]), self.choices.activation, label)
        return self.put(node, layer, (made.name,), made.layout.shaped(*shape))

    def innermost(self, node: Node, axis: int, operand: int = 0) -> tuple[Made, np.ndarray, np.ndarray]:
        """What `node` reads with an axis of torch's sample innermost, and its `Layout.channels`."""
        read = node.operands[operand]
        made, shape = self.made[read], read.shape
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
        made, channel, rows = self.innermost(node, 0)
        if not np.array_equal(rows, np.arange(len(rows))):
            raise BittrueError("its pixels do not lie in raster order in a circuit; permute less before it")
        size = shape[1:] if len(shape) == 3 else (1, shape[1])
        return self.shaped(node, made, (*size, shape[0])), channel

    def options(self, node: floats.Product) -> dict:
        bits = self.choices.weight_bits(node.place.path)
        mode, width = self.choices.mode, self.choices.activation
        return {"weight_bits": bits, "input_bits": width, "relu": node.relu, "mode": mode}

    def parameters(self, node: floats.Product, weight: Tensor, bias: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
        """Real weights and bias; calls of one module share them where they are the same."""
        alike = self.shared.setdefault(node.owner, []) if node.owner is not None else []
        for known in alike:
            if torch.equal(known[0], weight) and torch.equal(known[1], bias):
                return known
        alike.append((nn.Parameter(weight.clone().contiguous()), nn.Parameter(bias.clone().contiguous())))
        return alike[-1]


def _linear(to: Realiser, node: floats.Linear) -> Made:
    axis = len(node.shape) - 1
    made, channel, rows = to.innermost(node, axis)
    if len(rows) == 1:
        made = to.shaped(node, made, (len(channel),))
    weight, bias = to.parameters(node, node.weight[:, torch.from_numpy(channel)], node.bias)
    steps = to.step(node.operands[0]), to.step(node)
    layer = tensors.TensorLinear(weight, bias, *steps, to.choices.activation, to.label(node.name), **to.options(node))
    outputs = len(node.weight)
    layout = Layout.joined(node.shape, axis, np.arange(outputs), rows, (*made.layout.shape[:-1], outputs))
    return to.put(node, layer, (made.name,), layout)


def _affine(to: Realiser, node: floats.Affine) -> Made:
    if node.along is None:
        made = to.made[node.operands[0]]
        count, layout = made.layout.shape[-1], made.layout
        weight, bias = (v.expand(count) for v in (node.weight, node.bias))
    else:
        made, channel, _ = to.innermost(node, node.along)
        count, layout = node.shape[node.along], made.layout
        weight, bias = (v.expand(count)[torch.from_numpy(channel)] for v in (node.weight, node.bias))
    weight, bias = to.parameters(node, weight[:, None], bias)
    steps = to.step(node.operands[0]), to.step(node)
    layer = tensors.TensorAffine(weight, bias, *steps, to.choices.activation, to.label(node.name), **to.options(node))
    return to.put(node, layer, (made.name,), layout)


def _function(to: Realiser, node: floats.Function) -> Made:
    width, label = to.choices.activation, to.label(node.name)
    if is_clamp(node):
        made = to.made[node.operands[0]]
        layer = tensors.TensorClamp(node.limits, to.step(node), width, label)
        low, high = layer.codes()
        fused = isinstance(node.operands[0], floats.Product) and node.operands[0].relu
        if high == layer.high and low == (0 if fused else layer.low):
            return made  # it ends where codes end
        return to.put(node, layer, (made.name,), made.layout)
    if node.along is None:
        made, channel = to.made[node.operands[0]], slice(None)
    else:
        made, channel, _ = to.innermost(node, node.along)
    layer = tensors.TensorFunction(
        _tabled(node, channel), to.step(node.operands[0]), to.step(node), width, label, width
    )
    layer.integers()  # refuses what is not finite
    return to.put(node, layer, (made.name,), made.layout)


def _tabled(node: floats.Function, channel: np.ndarray | slice) -> Callable[[Tensor], Tensor]:
    """The functions of a node at values, in the program's order of channels."""
    return lambda values: functions.table(node.call, node.shape, node.along, values)[channel]


def _add(to: Realiser, node: floats.Add) -> Made:
    left, right = (to.made[operand] for operand in node.operands)
    if not left.layout.same(right.layout):
        raise BittrueError("the tensors that it adds lie in different order in a circuit; permute both alike before it")
    right = to.shaped(node, right, left.layout.shape)
    layer = IntegerAdd(to.step(node), to.choices.activation)
    layer.label = to.label(node.name)
    return to.put(node, layer, (left.name, right.name), left.layout)


def _view(to: Realiser, node: floats.View) -> Made:
    made = to.made[node.operands[0]]
    return Made(made.name, made.layout.viewed(node.order.numpy()))


def _conv(to: Realiser, node: floats.Conv) -> Made:
    made, channel = to.image(node)
    reading = windows.Reading(node.kernel, node.stride, node.dilation, node.padding)
    inputs, outputs = node.operands[0].shape[0], len(node.weight)
    steps = to.step(node.operands[0]), to.step(node)
    arguments = to.choices.activation, to.label(node.name)
    size = node.shape[1:] if len(node.shape) == 3 else (1, node.shape[1])
    taps = node.weight.permute(0, 2, 3, 1)  # [N, kh, kw, C / groups]
    if node.groups == inputs == outputs:
        weight, bias = to.parameters(node, taps.flatten(1)[channel], node.bias[channel])
        layer = windows.TensorDepthwise(reading, weight, bias, *steps, *arguments, **to.options(node))
        given = channel
    else:
        whole, within = torch.zeros(2, outputs, *node.kernel, inputs)
        each = inputs // node.groups
        for group in range(node.groups):
            rows = slice(group * outputs // node.groups, (group + 1) * outputs // node.groups)
            whole[rows, :, :, group * each : (group + 1) * each] = taps[rows]
            within[rows, :, :, group * each : (group + 1) * each] = 1
        weight, bias = to.parameters(node, whole[..., channel].flatten(1), node.bias)
        layer = windows.TensorConv(reading, weight, bias, *steps, *arguments, **to.options(node))
        if node.groups > 1:
            layer.keep = within[..., channel].flatten(1)
        given = np.arange(outputs)
    layout = Layout.joined(node.shape, 0, given, np.arange(size[0] * size[1]), (*size, outputs))
    return to.put(node, layer, (made.name,), layout)


def _pool(to: Realiser, node: floats.Pool) -> Made:
    made, channel = to.image(node)
    width, label = to.choices.activation, to.label(node.name)
    size = node.shape[1:] if len(node.shape) == 3 else (1, node.shape[1])
    layout = Layout.joined(node.shape, 0, channel, np.arange(size[0] * size[1]), (*size, node.shape[0]))
    if node.divisor:
        reading = windows.Reading(node.kernel, node.stride, node.dilation, node.padding)
        return _averaged(to, node, made, reading, reading.taps, node.divisor, layout)
    low = -(1 << (width - 1))
    reading = windows.Reading(node.kernel, node.stride, node.dilation, node.padding, low if any(node.padding) else 0)
    return to.put(node, windows.TensorMaximum(reading, to.step(node), width, label), (made.name,), layout)


def _mean(to: Realiser, node: floats.Mean) -> Made:
    read = node.operands[0]
    if not node.axes:
        return to.made[read]
    found = to.made[read].layout.reduced(read.shape, node.axes)
    if found is None:
        raise BittrueError("the axes that it averages over do not lie together in a circuit; permute less before it")
    outside, count, inside, order = found
    made = to.shaped(node, to.made[read], (count, inside) if outside == 1 else (outside, count, inside))
    layout = Layout((inside,) if outside == 1 else (outside, inside), order)
    return _averaged(to, node, made, None, count, count, layout)


def _averaged(
    to: Realiser, node: Node, made: Made, reading: windows.Reading | None, count: int, divisor: int, layout: Layout
) -> Made:
    source, group = to.step(node.operands[0]), to.groups.of(node)
    width, label = to.choices.activation, to.label(node.name)
    if to.choices.mode == "multiplier":
        layer = windows.TensorMean(reading, count, divisor, source, to.steps[group], width, label)
    else:
        members = [n for n in to.graph.nodes if to.groups.of(n) is group]
        largest = max(to._reach(member) for member in members)
        codes = max(largest, SMALLEST) * divisor / (float(source.value) * to.high)
        shift = int(np.clip(np.ceil(np.log2(codes)), 0, (count - 1).bit_length()))
        layer = windows.TensorMean(reading, count, divisor, source, None, width, label, shift=shift)
        to.steps[group] = layer.target
    return to.put(node, layer, (made.name,), layout)


def _cat(to: Realiser, node: floats.Cat) -> Made:
    parts = [to.innermost(node, node.along, k) for k in range(len(node.operands))]
    lead = parts[0][0].layout.shape[:-1]
    channel, before, names = [], 0, []
    for (made, own, rows), operand in zip(parts, node.operands, strict=True):
        if not np.array_equal(rows, parts[0][2]):
            raise BittrueError("the tensors that it puts together lie in different order; permute all alike before it")
        names.append(to.shaped(node, made, (*lead, made.layout.shape[-1])).name)
        channel.append(own + before)
        before += operand.shape[node.along]
    layer = windows.TensorConcat(to.step(node), to.choices.activation, to.label(node.name))
    layout = Layout.joined(node.shape, node.along, np.concatenate(channel), parts[0][2], (*lead, before))
    return to.put(node, layer, tuple(names), layout)


_KINDS: dict[type[Node], Callable[[Realiser, Node], Made]] = {
    floats.Linear: _linear,
    floats.Affine: _affine,
    floats.Function: _function,
    floats.Add: _add,
    floats.View: _view,
    floats.Conv: _conv,
    floats.Pool: _pool,
    floats.Mean: _mean,
    floats.Cat: _cat,
}


def realise(what: str, graph: Graph, seen: Observed, choices: Choices, input_reach: float) -> Realised:
    """The integer layers of a graph, for the layout of its input that needs the fewest of them."""
    shape = graph.input.shape
    starts = [Layout.permuted(shape, (*range(1, len(shape)), 0)), Layout.permuted(shape, tuple(range(len(shape))))]
    starts.append(starts[1].shaped(int(np.prod(shape))))
    best: Realised | None = None
    refused: BittrueError | None = None
    for start in starts if len(shape) > 1 else starts[:1]:
        try:
            found = Realiser(what, graph, seen, choices, input_reach, start).realise()
        except BittrueError as error:
            refused = refused or error
            continue
        if best is None or len(found.layers) < len(best.layers):
            best = found
    if best is None:
        raise refused or BittrueError(f"{what}: no layout of its input is known")
    return best
