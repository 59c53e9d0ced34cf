"""A residual network as `models.networks.convolution` has it, with random parameters."""

from __future__ import annotations

from collections.abc import Sequence

from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.program import Program
from tests.helpers.convolutions import Convolutions


def resnet(side: int, widths: Sequence[int], classes: int = 10, seed: int = 0) -> Program:
    """ResNet-8 for three widths: a convolution, and for each width two of them beside a shortcut."""
    grow = Convolutions(seed, {"x": TensorType((side, side, 3), INT8)})

    def conv(name: str, x: str, outputs: int, kernel: int = 3, stride: int = 1, floor: int | None = 0) -> str:
        pad = (kernel // 2,) * 4
        return grow.convolution(name, x, outputs, (kernel, kernel), (stride, stride), (1, 1), pad, floor=floor)

    x = conv("in", "x", widths[0])
    for k, width in enumerate(widths):
        stride = 2 if k else 1
        inner = conv(f"block{k}.a", x, width, stride=stride)
        outer = conv(f"block{k}.b", inner, width, floor=None)
        short = conv(f"block{k}.short", x, width, 1, 2, None) if k else x
        x = grow.sum(f"block{k}", outer, short)
    return grow.build.program(grow.linear("classifier", grow.global_mean("mean", x), classes))
