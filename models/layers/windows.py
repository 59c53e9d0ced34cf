"""Integer layers that read windows of images `[B, H, W, C]`, and those that join or rename tensors of a program.

A convolution is a reading order in front of a product: `Window` gives `[OH, OW, taps, C]`, which is read as
`[OH, OW, taps C]` by a `Linear`, or channel by channel by a `Depthwise`; pools are a maximum or a sum over the taps.
Padding is (top, bottom, left, right).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bittrue.models.layers.exact import requantize
from bittrue.models.layers.integer import CodeStep
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.models.layers.tensors import Mode, MultipleStep, ProductStep, TensorLayer, TensorProduct, scaled
from bittrue.sim.operations.arg_max import ArgMax
from bittrue.sim.operations.concat import Concat
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.slice import Slice
from bittrue.sim.operations.upsample import Upsample
from bittrue.sim.operations.window import Window
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True)
class Reading:
    """The windows of an image: how large, how far apart, what is around it."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: int = 0

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def planes(self, x: Tensor) -> Tensor:
        """Images `[B, H, W, C]` padded, as torch has them, `[B, C, H, W]`."""
        top, bottom, left, right = self.padding
        return functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom), value=self.fill)

    def windows(self, x: Tensor) -> Tensor:
        """All windows `[B, OH, OW, taps, C]` of images `[B, H, W, C]`."""
        planes = self.planes(x)
        for axis in (2, 3):
            reach = self.dilation[axis - 2] * (self.kernel[axis - 2] - 1) + 1
            planes = planes.unfold(axis, reach, self.stride[axis - 2])
        taps = planes[..., :: self.dilation[0], :: self.dilation[1]]  # [B, C, OH, OW, kh, kw]
        return taps.permute(0, 2, 3, 4, 5, 1).flatten(3, 4)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        kind = lowering.type(source)
        operation = Window(kind, self.kernel, self.stride, self.dilation, self.padding, self.fill)
        return lowering.add(f"{name}_window", operation, source, scale=lowering.scales[source])


class TensorConv(TensorProduct):
    """`[H, W, C]` to `[OH, OW, N]`; weight `[N, taps C]`, channels innermost."""

    def __init__(self, reading: Reading, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.reading = reading
        self.register_buffer("keep", None)  # 1 where a weight is, 0 where groups have none

    def real_weight(self) -> Tensor:
        return self.weight if self.keep is None else self.weight * self.keep

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        if (
            x.device.type == "cpu"
        ):  # elsewhere a library may choose transforms whose sums are not those of whole numbers
            kernel = weight.view(len(weight), *self.reading.kernel, -1).permute(0, 3, 1, 2)
            return _convolve(self.reading, x, kernel, 1)
        return functional.linear(self.reading.windows(x).flatten(3), weight)

    def parts(self, name: str, x: Tensor) -> dict[str, Tensor]:
        windows = self.reading.windows(x)
        return {f"{name}_window": windows, f"{name}_patches": windows.flatten(3)}

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        windows = self.reading.emit(lowering, name, source)
        kind = lowering.type(windows)
        flat = Reshape(kind, (*kind.shape[:2], kind.shape[2] * kind.shape[3]))
        patches = lowering.add(f"{name}_patches", flat, windows, scale=lowering.scales[source])
        codes, requantizer, fmt = self.requantizer()
        return lowering.add(name, Linear(lowering.type(patches), codes, requantizer, fmt), patches, scale=self.scale)


class TensorDepthwise(TensorProduct):
    """`[H, W, C]` to `[OH, OW, C]`, every channel for itself; weight `[C, taps]`."""

    def __init__(self, reading: Reading, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.reading = reading

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return _convolve(self.reading, x, weight.view(len(weight), 1, *self.reading.kernel), len(weight))
        return (self.reading.windows(x) * weight.T).sum(3)

    def parts(self, name: str, x: Tensor) -> dict[str, Tensor]:
        return {f"{name}_window": self.reading.windows(x)}

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        windows = self.reading.emit(lowering, name, source)
        codes, requantizer, fmt = self.requantizer()
        operation = Depthwise(lowering.type(windows), codes.T, requantizer, fmt)
        return lowering.add(name, operation, windows, scale=self.scale)


def _convolve(reading: Reading, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """The sums `[B, OH, OW, N]`; NNPACK is off, whose transforms round."""
    with torch.backends.nnpack.flags(enabled=False):
        y = functional.conv2d(reading.planes(x), kernel, None, reading.stride, 0, reading.dilation, groups)
    return y.permute(0, 2, 3, 1)


class TensorMaximum(TensorLayer):
    """The largest of every window, channel by channel, `[H, W, C]` to `[OH, OW, C]`; the step stays."""

    def __init__(self, reading: Reading, target: nn.Module, bits: int, label: str) -> None:
        super().__init__(target, bits, label)
        self.reading = reading

    def forward(self, x: Tensor) -> Tensor:
        planes = self.reading.planes(x)
        y = functional.max_pool2d(planes, self.reading.kernel, self.reading.stride, 0, self.reading.dilation)
        return y.permute(0, 2, 3, 1)

    def parts(self, name: str, x: Tensor) -> dict[str, Tensor]:
        return {f"{name}_window": self.reading.windows(x)}

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        windows = self.reading.emit(lowering, name, source)
        return lowering.add(name, Maximum(lowering.type(windows)), windows, scale=self.scale)


class TensorMean(TensorLayer):
    """Sums over T, divided by `divisor`: over windows of `[H, W, C]` with a reading, else over T of `[A, T, C]`.

    In mode `shift` the sum is shifted by `shift`, and the step of the result is `2^shift / divisor` times the source's;
    in mode `multiplier` it has a step of its own.
    """

    def __init__(
        self, reading: Reading | None, count: int, divisor: int, source: nn.Module, target: nn.Module | None, bits: int,
        label: str, *, shift: int = 0,
    ) -> None:  # fmt: skip
        mode: Mode = "shift" if target is None else "multiplier"
        super().__init__(target or MultipleStep(source, (1 << shift) / divisor), bits, label)
        self.reading, self.count, self.divisor, self.source = reading, count, divisor, source
        self.mode, self.shift = mode, shift

    def integers(self) -> tuple[Tensor, Tensor]:
        """Shift and multiplier `[1]`."""
        if self.mode == "shift":
            return torch.tensor([float(self.shift)]), torch.ones(1)
        source, target = self.source.value.detach().cpu() / self.divisor, self.target.value.detach().cpu()
        _, _, shift, multiplier = scaled(torch.ones(1, 1), torch.zeros(1), source, target, 1, "multiplier")
        return shift, multiplier

    def forward(self, x: Tensor) -> Tensor:
        if self.reading is None:
            acc = x.double().sum(-2)
        else:
            planes, reading = self.reading.planes(x.double()), self.reading
            acc = functional.avg_pool2d(planes, reading.kernel, reading.stride, divisor_override=1).permute(0, 2, 3, 1)
        shift, multiplier = (v.expand(acc.shape[-1]).to(x.device) for v in self.integers())
        return requantize(acc * multiplier.double(), shift, torch.zeros_like(shift), self.low, self.high)

    def parts(self, name: str, x: Tensor) -> dict[str, Tensor]:
        return {} if self.reading is None else {f"{name}_window": self.reading.windows(x)}

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        read = source if self.reading is None else self.reading.emit(lowering, name, source)
        kind = lowering.type(read)
        shift, multiplier = map(whole, self.integers())
        requantizer = Requantize(kind.channels, shift, multiplier=multiplier, format=self.format)
        return lowering.add(name, Mean(kind, requantizer), read, scale=self.scale)


class TensorMultiply(TensorLayer):
    """Product of two tensors of one shape, `y = x1 x2`, requantised.

    In mode `shift` the products are shifted by `shift`, and the step of the result is `2^shift` times that of the
    products; in mode `multiplier` it has a step of its own.
    """

    def __init__(
        self, left: nn.Module, right: nn.Module, target: nn.Module | None, bits: int, label: str, *, shift: int = 0
    ) -> None:
        super().__init__(target or MultipleStep(ProductStep(left, right), 1 << shift), bits, label)
        self.sources, self.shift = nn.ModuleList([left, right]), shift
        self.mode: Mode = "shift" if target is None else "multiplier"

    def integers(self) -> tuple[Tensor, Tensor]:
        """Shift and multiplier `[1]`."""
        if self.mode == "shift":
            return torch.tensor([float(self.shift)]), torch.ones(1)
        left, right = self.sources
        source, target = (left.value * right.value).detach().cpu(), self.target.value.detach().cpu()
        _, _, shift, multiplier = scaled(torch.ones(1, 1), torch.zeros(1), source, target, 1, "multiplier")
        return shift, multiplier

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        acc = x.double() * y.double()
        shift, multiplier = (v.expand(acc.shape[-1]).to(x.device) for v in self.integers())
        return requantize(acc * multiplier.double(), shift, torch.zeros_like(shift), self.low, self.high)

    def emit(self, lowering: Lowering, name: str, x: str, y: str) -> str:
        left, right = lowering.type(x), lowering.type(y)
        shift, multiplier = map(whole, self.integers())
        requantizer = Requantize(left.channels, shift, multiplier=multiplier, format=self.format)
        return lowering.add(name, Multiply(left, right, requantizer), x, y, scale=self.scale)


class TensorSlice(TensorLayer):
    """Channels from `start` to `stop` of `[..., C]`."""

    def __init__(self, start: int, stop: int, target: nn.Module, bits: int, label: str) -> None:
        super().__init__(target, bits, label)
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.start : self.stop].contiguous()

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        return lowering.add(name, Slice(lowering.type(source), self.start, self.stop), source, scale=self.scale)


class TensorArgMax(TensorLayer):
    """The number of the largest code, the first of equal ones, `[..., C]` to `[..., 1]`; it has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(-1, keepdim=True).to(torch.float32)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        return lowering.add(name, ArgMax(lowering.type(source)), source, scale=self.scale)


class TensorConcat(TensorLayer):
    """Tensors of one step, one after the other along the channels."""

    def forward(self, x: Tensor, y: Tensor, *more: Tensor) -> Tensor:
        return torch.cat([x, y, *more], -1)

    def emit(self, lowering: Lowering, name: str, *sources: str) -> str:
        return lowering.add(name, Concat(tuple(map(lowering.type, sources))), *sources, scale=self.scale)


class TensorUpsample(TensorLayer):
    """`[H, W, C]` to `[fy H, fx W, C]`, every pixel repeated; with `parts` to `[fy H, fx W, C / (fy fx)]`, its channels
    beside each other as pixels."""

    def __init__(self, factors: tuple[int, int], parts: bool, target: nn.Module, bits: int, label: str) -> None:
        super().__init__(target, bits, label)
        self.factors, self.parted = factors, parts

    def forward(self, x: Tensor) -> Tensor:
        down, across = self.factors
        if not self.parted:
            return x.repeat_interleave(down, 1).repeat_interleave(across, 2)
        pixels = x.unflatten(-1, (down, across, -1))  # [B, H, W, fy, fx, C']
        return pixels.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        operation = Upsample(lowering.type(source), self.factors, self.parted)
        return lowering.add(name, operation, source, scale=lowering.scales[source])


class TensorReshape(TensorLayer):
    """The same codes with other axes."""

    def __init__(self, shape: tuple[int, ...], target: nn.Module | CodeStep, bits: int, label: str) -> None:
        super().__init__(target, bits, label)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        return lowering.add(name, Reshape(lowering.type(source), self.shape), source, scale=lowering.scales[source])
