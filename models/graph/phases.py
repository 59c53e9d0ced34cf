"""A transposed convolution as a convolution with an output for each of its phases, and those put beside each other.

Along an axis of stride s a pixel h and a tap k meet at `u = h s + k d - p`. The results `u = q s + a` of one phase a
read, for every tap with `s | a + p - k d`, the pixel `q + (a + p - k d) / s`: a convolution of stride 1, whose taps are
those places. All phases have one window in common, where the weights of the others are none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bittrue.models.graph.floats import Conv, Graph, Node, Transposed, View


@dataclass(frozen=True)
class Axis:
    """What the phases have in common along an axis: windows, the first tap's place, and those of the others.

    taps   (phase, tap of the window, tap of the transposed convolution), wherever there is a weight
    """

    windows: int
    first: int
    step: int
    count: int
    taps: tuple[tuple[int, int, int], ...]

    @property
    def reach(self) -> int:
        return (self.count - 1) * self.step

    def padding(self, size: int) -> tuple[int, int]:
        """Before and behind an image of this size."""
        return -self.first, self.windows - 1 + self.first + self.reach - (size - 1)


def axis_of(size: int, result: int, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
    """The windows over `size` pixels from which the phases of `result` pixels are made."""
    windows = -(-result // stride)
    met = [(a, k) for a in range(stride) for k in range(kernel) if (a + padding - k * dilation) % stride == 0]
    places = [(a + padding - k * dilation) // stride for a, k in met]
    # padding is never negative, and every window sees a pixel
    first, last = min(*places, 0, size - windows), max(*places, 0, size - windows)
    step = math.gcd(*(place - first for place in places), last - first) or 1
    if any(all(not 0 <= q + at < size for at in range(first, last + 1, step)) for q in range(windows)):
        step = 1
    taps = tuple((a, (place - first) // step, k) for (a, k), place in zip(met, places, strict=True))
    return Axis(windows, first, step, (last - first) // step + 1, taps)


def expand(graph: Graph) -> None:
    """Put convolutions and views in place of transposed convolutions; what the graph computes stays the same.

    Where the channels of a convolution become pixels, as by PixelShuffle, those of a pixel come to lie side by side.
    """
    for node in [node for node in graph.nodes if isinstance(node, Transposed)]:
        made = _of(node)
        at = graph.nodes.index(node)
        graph.nodes[at:at] = made
        graph.replace(node, made[-1])
    for node in graph.nodes:
        if isinstance(node, View) and (order := _phases_first(node)) is not None and graph.alone(node.operands[0]):
            conv = node.operands[0]
            conv.weight, conv.bias, conv.owner = conv.weight[order], conv.bias[order], None
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(len(order))
            pixels = math.prod(conv.shape[1:])
            node.order = inverse[node.order // pixels] * pixels + node.order % pixels


def _phases_first(node: View) -> torch.Tensor | None:
    """Of a view that puts a convolution's channels beside each other as pixels: the channels in the order of the pixel
    and then of the result's. None: it is no such view, or they have it."""
    conv = node.operands[0]
    if not isinstance(conv, Conv) or conv.groups > 1 or conv.mask is not None or len(node.shape) != 3:
        return None
    (count, *size), (outputs, *larger) = conv.shape, node.shape
    if (
        len(size) != 2
        or any(b % a for a, b in zip(size, larger, strict=True))
        or len(node.order) != math.prod(conv.shape)
    ):
        return None
    (high, wide), (down, across) = size, (b // a for a, b in zip(size, larger, strict=True))
    order = node.order.view(outputs, high, down, wide, across).permute(1, 3, 2, 4, 0).reshape(high * wide, count)
    channels = order[0] // (high * wide)
    if not torch.equal(order, channels * (high * wide) + torch.arange(high * wide)[:, None]):
        return None
    return None if torch.equal(channels, torch.arange(count)) else channels


def _of(node: Transposed) -> list[Node]:
    read = node.operands[0].shape
    flat = len(read) == 2
    sizes = (1, read[1]) if flat else read[1:]
    axes = [
        axis_of(*along)
        for along in zip(sizes, node.size, node.kernel, node.stride, node.padding, node.dilation, strict=True)
    ]
    (rows, columns), (down, across) = axes, node.stride
    outputs, inside = node.weight.shape[:2]
    weight = torch.zeros(down, across, outputs, read[0], rows.count, columns.count)
    mask = torch.zeros_like(weight)
    each = outputs // node.groups
    for group in range(node.groups):
        of, by = slice(group * each, (group + 1) * each), slice(group * inside, (group + 1) * inside)
        for a, i, k in rows.taps:
            for b, j, m in columns.taps:
                weight[a, b, of, by, i, j] = node.weight[of, :, k, m]
                mask[a, b, of, by, i, j] = 1
    count = down * across
    conv = Conv(
        node.name, node.place, node.operands, (count * outputs, *((columns.windows,) if flat else _windows(axes))),
        weight.flatten(0, 2), node.bias.repeat(count), node.relu, node.owner, (1, 1),
        (*rows.padding(sizes[0]), *columns.padding(sizes[1])), (rows.step, columns.step), 1, mask.flatten(0, 2),
    )  # fmt: skip
    high, wide = rows.windows * down, columns.windows * across
    order = torch.arange(math.prod(conv.shape)).view(down, across, outputs, rows.windows, columns.windows)
    order = order.permute(2, 3, 0, 4, 1).reshape(outputs, high, wide)
    made: list[Node] = [conv]

    def view(order: torch.Tensor) -> None:
        shape = (outputs, order.shape[2]) if flat else tuple(order.shape)
        made.append(View(f"{node.name}_pixels", node.place, [made[-1]], shape, order.flatten()))

    if count > 1:
        view(order)
    if node.size[0] < high:
        view(torch.arange(order.numel()).view(order.shape)[:, : node.size[0]])
        high = node.size[0]
    if node.size[1] < wide:
        view(torch.arange(outputs * high * wide).view(outputs, high, wide)[:, :, : node.size[1]])
    return made


def _windows(axes: list[Axis]) -> tuple[int, ...]:
    return tuple(axis.windows for axis in axes)
