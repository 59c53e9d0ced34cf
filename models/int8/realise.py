"""From a float graph with its scales to integer layers: what each kind of node becomes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.graph import floats, functions
from bittrue.models.graph.floats import Graph, Node
from bittrue.models.graph.layout import Layout
from bittrue.models.graph.observe import Observed, is_clamp
from bittrue.models.int8.realiser import Choices, Kinds, Made, Realised, Realiser
from bittrue.models.layers import groups, tensors, windows
from bittrue.models.layers.integer import IntegerAdd
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.window import Window

#: Inputs whose layouts are chosen each for itself.
MANY = 2


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
    call, steps, segments = _tabled(node, channel), (to.step(node.operands[0]), to.step(node)), to.choices.segments
    if segments is not None:
        layer = tensors.TensorTable(call, *steps, min(segments, 1 << width), width, label)
    else:
        layer = tensors.TensorFunction(call, *steps, width, label, width)
        layer.integers()  # refuses what is not finite
    layer.units = tuple(unit if isinstance(unit, float) else unit[channel].tolist() for unit in node.units)
    return to.put(node, layer, (made.name,), made.layout)


def _tabled(node: floats.Function, channel: np.ndarray | slice) -> Callable[[Tensor], Tensor]:
    """The functions of a node at values, in the program's order of channels."""
    return lambda values: functions.table(node.call, node.shape, node.along, values)[channel]


def _add(to: Realiser, node: floats.Add) -> Made:
    left, right = to.alike(node, "adds")
    layer = IntegerAdd(to.step(node), to.choices.activation)
    layer.label = to.label(node.name)
    return to.put(node, layer, (left.name, right.name), left.layout)


def _view(to: Realiser, node: floats.View) -> Made:
    made, order = to.made[node.operands[0]], node.order.numpy()
    if len(order) == len(made.layout.order):
        return Made(made.name, made.layout.viewed(order))
    found = made.layout.part(order)
    if found is None:
        made = to.raster(node.operands[0])
        found = made.layout.part(order)
    if found is None:
        raise BittrueError("what it takes does not lie together in a circuit; take parts along one axis at a time")
    width, start, stop, layout = found
    if width != made.layout.shape[-1]:
        rows = len(made.layout.order) // width
        made = to.shaped(node, made, (width,) if rows == 1 else (rows, width))
    layer = windows.TensorSlice(start, stop, to.step(node), to.choices.activation, to.label(node.name))
    return to.put(node, layer, (made.name,), layout)


def _reading(to: Realiser, node: floats.Conv | floats.Pool, made: Made, fill: int = 0) -> windows.Reading:
    """The windows of an image; those that a circuit does not do, as beside the image, are refused here, with the
    place."""
    geometry = node.kernel, node.stride, node.dilation, node.padding
    Window(TensorType(made.layout.shape, Format(to.choices.activation)), *geometry, fill)
    return windows.Reading(*geometry, fill)


def _conv(to: Realiser, node: floats.Conv) -> Made:
    made, channel = to.image(node)
    reading = _reading(to, node, made)
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
        given = torch.ones_like(taps) if node.mask is None else node.mask.permute(0, 2, 3, 1)
        each = inputs // node.groups
        for group in range(node.groups):
            rows = slice(group * outputs // node.groups, (group + 1) * outputs // node.groups)
            whole[rows, :, :, group * each : (group + 1) * each] = taps[rows]
            within[rows, :, :, group * each : (group + 1) * each] = given[rows]
        weight, bias = to.parameters(node, whole[..., channel].flatten(1), node.bias)
        layer = windows.TensorConv(reading, weight, bias, *steps, *arguments, **to.options(node))
        if not within.all():
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
        reading = _reading(to, node, made)
        return _averaged(to, node, made, reading, reading.taps, node.divisor, layout)
    low = -(1 << (width - 1))
    reading = _reading(to, node, made, low if any(node.padding) else 0)
    return to.put(node, windows.TensorMaximum(reading, to.step(node), width, label), (made.name,), layout)


def _upsample(to: Realiser, node: floats.Upsample) -> Made:
    made, channel = to.image(node)
    layer = windows.TensorUpsample(node.factors, False, to.step(node), to.choices.activation, to.label(node.name))
    size = node.shape[1:] if len(node.shape) == 3 else (1, node.shape[1])
    layout = Layout.joined(node.shape, 0, channel, np.arange(size[0] * size[1]), (*size, node.shape[0]))
    return to.put(node, layer, (made.name,), layout)


def _pad(_: Realiser, node: floats.Pad) -> Made:
    raise BittrueError(
        f"it puts zeros around an image ({', '.join(map(str, node.padding))} above, below, left, right) that is read "
        "by other than convolutions and average pools, or is the result; give the padding to what reads it"
    )


def _expand(to: Realiser, node: floats.Expand) -> Made:
    if len(node.shape) != 3:
        raise BittrueError("it is repeated as an image alone [channels, rows, columns]; add or multiply it at once")
    return to.repeated(node, 0, Layout.permuted(node.shape, (1, 2, 0)), "repeats")


def _argmax(to: Realiser, node: floats.ArgMax) -> Made:
    made, channel, rows = to.innermost(node, node.along)
    if not np.array_equal(channel, np.arange(len(channel))):
        raise BittrueError("what it compares lies in another order in a circuit; permute less before it")
    layer = windows.TensorArgMax(to.step(node), to.choices.activation, to.label(node.name))
    return to.put(node, layer, (made.name,), Layout((*made.layout.shape[:-1], 1), rows))


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
        shift = min(to.shift(node, float(source.value) / divisor), (count - 1).bit_length())
        layer = windows.TensorMean(reading, count, divisor, source, None, width, label, shift=shift)
        to.steps[group] = layer.target
    return to.put(node, layer, (made.name,), layout)


def _multiply(to: Realiser, node: floats.Multiply) -> Made:
    left, right = to.alike(node, "multiplies")
    sources, group = tuple(to.step(operand) for operand in node.operands), to.groups.of(node)
    width, label = to.choices.activation, to.label(node.name)
    if to.choices.mode == "multiplier":
        layer = windows.TensorMultiply(*sources, to.steps[group], width, label)
    else:
        shift = to.shift(node, float(sources[0].value) * float(sources[1].value))
        layer = windows.TensorMultiply(*sources, None, width, label, shift=shift)
        to.steps[group] = layer.target
    return to.put(node, layer, (left.name, right.name), left.layout)


def _cat(to: Realiser, node: floats.Cat) -> Made:
    parts = [to.innermost(node, node.along, k, to.raster(operand)) for k, operand in enumerate(node.operands)]
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


def _bundle(to: Realiser, node: floats.Bundle) -> Made:
    made, channel, rows = to.innermost(node, 0)
    keys = groups.keys_of(node.weight)
    weight = nn.Parameter((node.weight if keys is None else keys).clone().contiguous(), requires_grad=node.trained)
    outputs = node.weight.shape[1]
    layer = groups.TensorBundle(
        node.regrouping, torch.from_numpy(channel), weight, nn.Parameter(torch.zeros(outputs)),
        to.step(node.operands[0]), to.step(node), to.choices.activation, to.label(node.name), **to.options(node),
    )  # fmt: skip
    layout = Layout.joined(node.shape, 0, np.arange(outputs), rows, (*made.layout.shape[:-1], outputs))
    return to.put(node, layer, (made.name,), layout)


def _unbundle(to: Realiser, node: floats.Unbundle) -> Made:
    made, channel, rows = to.innermost(node, 0)
    if not np.array_equal(channel, np.arange(len(channel))):
        raise BittrueError("the channels of its slots lie in another order in a circuit; permute less before it")
    layer = groups.TensorUnbundle(node.regrouping, to.step(node), to.choices.activation, to.label(node.name))
    each = node.shape[0]
    layout = Layout.joined(node.shape, 0, np.arange(each), rows, (*made.layout.shape[:-1], each))
    return to.put(node, layer, (made.name,), layout)


_KINDS: Kinds = {
    floats.Linear: _linear,
    floats.Affine: _affine,
    floats.Function: _function,
    floats.Add: _add,
    floats.Multiply: _multiply,
    floats.View: _view,
    floats.Conv: _conv,
    floats.Pool: _pool,
    floats.Upsample: _upsample,
    floats.Expand: _expand,
    floats.ArgMax: _argmax,
    floats.Mean: _mean,
    floats.Pad: _pad,
    floats.Cat: _cat,
    floats.Bundle: _bundle,
    floats.Unbundle: _unbundle,
}


def realise(what: str, graph: Graph, seen: Observed, choices: Choices, reaches: Sequence[float]) -> Realised:
    """The integer layers of a graph, for those layouts of its inputs that need the fewest of them."""
    best: Realised | None = None
    refused: BittrueError | None = None
    for starts in _starts([entry.shape for entry in graph.inputs]):
        try:
            found = Realiser(what, graph, seen, choices, reaches, starts).realise(_KINDS)
        except BittrueError as error:
            refused = refused or error
            continue
        if best is None or len(found.layers) < len(best.layers):
            best = found
    if best is None:
        raise refused or BittrueError(f"{what}: no layout of its inputs is known")
    return best


def _starts(shapes: Sequence[tuple[int, ...]]) -> Iterable[tuple[Layout, ...]]:
    """Layouts of the inputs: channels last, as torch has them, and flat; of many inputs all in one way."""
    ways = []
    for shape in shapes:
        last, plain = (Layout.permuted(shape, (*range(first, len(shape)), *range(first))) for first in (1, 0))
        ways.append([last, plain, plain.shaped(int(np.prod(shape)))] if len(shape) > 1 else [last])
    if len(shapes) <= MANY:
        return itertools.product(*ways)
    return [tuple(way[min(k, len(way) - 1)] for way in ways) for k in range(max(map(len, ways)))]
