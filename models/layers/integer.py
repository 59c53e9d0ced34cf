"""Integer layers in torch: the forward is the hardware's arithmetic, the backward trains it.

Every activation is a tensor of whole numbers in float32. Parameters stay real; each forward rounds them:

    M = W * s_x / s_y,   e = floor(log2(high / max|M| of the output channel)) within 1..16,   w = round(M * 2^e)
    y = clamp(floor(acc * 2^-e + 0.5) + round(b / s_y), low, high)

`floor(t + 0.5)` of `acc * 2^-e` is exactly the contract's round_shift. Sums are exact in any order because they
stay below 2^24; a layer in which one could reach that computes in float64. Gradients go straight through
rounding and stop where a value was clamped; as s_x / s_y, b / s_y and V / s_y are part of the expressions,
autograd finds the gradients of the scales as well.
Source of the scheme: symmetric INT8 with power-of-two requantisation of PSA-Compress (Singh et al., 2025).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from bittrue.models.data.sets import INPUT_BITS, INPUT_SCALE
from bittrue.models.layers.exact import POWERS, interpolate_codes, requantize, round_through
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.requantize import Requantize

#: Whole numbers up to this magnitude are exact in float32.
EXACT = 1 << 24
MAX_SHIFT = 16


class CodeStep(nn.Module):
    """The real value of one code step of a group of tensors, shared by the layers around them: `exp(log)`.

    A `fixed` one is given by the format of what enters, and is never learned.
    """

    def __init__(self, value: float = 1.0, *, fixed: bool = False) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(value)), requires_grad=False)
        self.fixed = fixed

    @property
    def value(self) -> Tensor:
        return self.log.exp()

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.log.fill_(math.log(value))


class IntegerLayer(nn.Module):
    """Base of the layers of a network that can be lowered. `target` is the step of the result, `bits` its width.

    A layer lowers itself: `emit` says which operations it is. `label` is the name of its result in the program, where
    that is not its path in the network, and `path` that of what it was converted from.
    """

    label: str | None = None
    path: str | None = None

    def __init__(self, target: CodeStep, bits: int) -> None:
        super().__init__()
        self.target = target
        self.bits = bits
        self.low, self.high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    @property
    def scale(self) -> float:
        """Real value of one step of the result."""
        return float(self.target.value)

    def emit(self, lowering: Lowering, name: str, *operands: str) -> str:  # noqa: ARG002
        """Add the operations of the layer, which reads the tensors `operands`, and give the name of its result."""
        raise BittrueError(f"no operation is known for it (result {name!r})")

    def parts(self, name: str, *x: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """The tensors that it makes on the way to its result, by the names that `emit` gives them."""
        return {}


class IntegerInput(IntegerLayer):
    """The network's input: codes `[B, T, F]` as whole numbers `[T, B, F]`, or `[B, F]` as they are without tokens."""

    def __init__(self, tokens: int | None, features: int) -> None:
        super().__init__(CodeStep(INPUT_SCALE, fixed=True), INPUT_BITS)
        self.tokens, self.features = tokens, features

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return (self.features,) if self.tokens is None else (self.tokens, self.features)

    def forward(self, codes: Tensor) -> Tensor:
        codes = codes if self.tokens is None else codes.transpose(0, 1)
        return codes.to(torch.float32, memory_format=torch.contiguous_format).contiguous()

    @property
    def tensor_type(self) -> TensorType:
        """The type of a sample's codes."""
        return TensorType(self.shape, Format(self.bits, signed=self.low < 0))


class IntegerLinear(IntegerLayer):
    """`[..., K]` to `[..., N]`: matrix product, shift of each output channel, bias, clamp (at 0 with `relu`).

    `source_gain` multiplies the source's step, where the tensor read is a fixed multiple of it. `weight_bits` is the
    width of the weights where it is not that of the result, `offset` is added to the result with the bias, and
    `round_up` rounds the shifted sum up instead of to the nearest.
    """

    #: Largest shift of a sum.
    max_shift = MAX_SHIFT

    def __init__(
        self,
        inputs: int,
        outputs: int,
        source: CodeStep,
        target: CodeStep,
        bits: int,
        *,
        input_bits: int | None = None,
        weight_bits: int | None = None,
        relu: bool = False,
        source_gain: float = 1.0,
        offset: int = 0,
        round_up: bool = False,
    ) -> None:
        super().__init__(target, bits)
        self.source, self.relu, self.source_gain = source, relu, source_gain
        self.weight_bits, self.offset, self.round_up = weight_bits or bits, offset, round_up
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.kind = self.exact_kind(inputs << ((input_bits or bits) - 1))

    def exact_kind(self, magnitude: int) -> torch.dtype:
        """The floats in which a sum of weights times inputs, whose magnitudes add up to this, is exact."""
        largest = (magnitude << (self.weight_bits - 1)) + (1 << (self.max_shift - 1))
        return torch.float32 if largest < EXACT else torch.float64

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight `[N, K]`, shift `[N]`, bias with offset `[N]`, as whole numbers in float32."""
        return integer_parameters(self, self.weight, self.bias, self.source.value * self.source_gain)

    def rounding(self, shift: Tensor) -> Tensor:
        """What is added to the sums `[N]` before they are shifted and rounded to the nearest."""
        return torch.where((shift > 0) & self.round_up, POWERS.to(shift.device)[(shift.long() - 1).clamp(0)] - 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        weight, shift, bias = self.integers()
        acc = linear(x.to(self.kind), weight.to(self.kind))
        if self.round_up:
            acc = acc + self.rounding(shift).to(self.kind)
        return requantize(acc, shift, bias, 0 if self.relu else self.low, self.high)

    def requantizer(self) -> Requantize:
        """From the sums of the layer to its results."""
        _, shift, bias = self.integers()
        bias_acc, floor = whole(self.rounding(shift)), 0 if self.relu else None
        return Requantize(len(bias), whole(shift), whole(bias), bias_acc, format=Format(self.bits), floor=floor)

    def operation(self, source: TensorType) -> Linear:
        """The matrix product over the channels of `source`."""
        return Linear(source, whole(self.integers()[0]), self.requantizer(), Format(self.weight_bits))

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        return lowering.add(name, self.operation(lowering.type(source)), source, scale=self.scale)


class IntegerTokenLinear(IntegerLinear):
    """As `IntegerLinear`, over the tokens of `[T, B, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        weight, shift, bias = self.integers()
        acc = weight.to(self.kind) @ x.reshape(len(x), -1).to(self.kind)
        y = requantize(acc, shift, bias, 0 if self.relu else self.low, self.high, channels_first=True)
        return y.view(-1, *x.shape[1:])

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        turn = Transpose(lowering.type(source))
        turned = lowering.add(f"{name}_transpose", turn, source, scale=lowering.scales[source])
        mixed = lowering.add(name, self.operation(turn.output), turned, scale=self.scale)
        return lowering.add(f"{name}_back", Transpose(lowering.type(mixed)), mixed, scale=self.scale)


class IntegerAffine(IntegerLayer):
    """`[..., C]`: product with a weight of each channel, shift, bias, clamp."""

    max_shift, offset = MAX_SHIFT, 0

    def __init__(self, channels: int, source: CodeStep, target: CodeStep, bits: int) -> None:
        super().__init__(target, bits)
        self.source, self.weight_bits = source, bits
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight, shift and bias `[C]`, as whole numbers in float32."""
        weight, shift, bias = integer_parameters(self, self.weight[:, None], self.bias, self.source.value)
        return weight[:, 0], shift, bias

    def forward(self, x: Tensor) -> Tensor:
        weight, shift, bias = self.integers()
        return requantize(x, shift, bias, self.low, self.high, weight=weight)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        weight, shift, bias = map(whole, self.integers())
        fmt = Format(self.bits)
        operation = Affine(lowering.type(source), weight, Requantize(len(bias), shift, bias, format=fmt), fmt)
        return lowering.add(name, operation, source, scale=self.scale)


def integer_parameters(
    layer: IntegerLinear | IntegerAffine, weight: Tensor, bias: Tensor, source: Tensor
) -> tuple[Tensor, ...]:
    """Weight, shift and bias in whole numbers, of a layer with real `weight` `[N, K]` and `bias` `[N]`."""
    step = layer.target.value
    scaled = weight * (source / step)
    high = (1 << (layer.weight_bits - 1)) - 1
    shift = torch.floor(torch.log2(high / scaled.detach().abs().amax(1))).clamp(1, layer.max_shift)
    codes = round_through(scaled * POWERS.to(shift.device)[shift.nan_to_num(1).long()][:, None])
    return (
        codes.clamp(-high - 1, high),
        shift,
        (round_through(bias / step) + layer.offset).clamp(layer.low, layer.high),
    )


class IntegerTable(IntegerLayer):
    """A function of each channel, `[..., C]`: a table of knots with linear interpolation between them.

    `knots` `[C, segments + 1]` are the real values at the codes low, low + 2^f, ... up to and with high + 1,
    where f = input bits - log2(segments).
    """

    def __init__(self, channels: int, segments: int, source: CodeStep, target: CodeStep, bits: int) -> None:
        super().__init__(target, bits)
        self.source = source
        self.segments = segments
        self.fraction_bits = bits - (segments.bit_length() - 1)
        self.knots = nn.Parameter(torch.zeros(channels, segments + 1))

    @property
    def at(self) -> Tensor:
        """The codes at which the knots lie, `[segments + 1]`."""
        return self.low + torch.arange(self.segments + 1, dtype=torch.float32) * (1 << self.fraction_bits)

    def integers(self) -> Tensor:
        """The knots `[C, segments + 1]`, as whole numbers in float32."""
        return round_through(self.knots / self.target.value).clamp(self.low, self.high)

    def forward(self, x: Tensor) -> Tensor:
        return interpolate_codes(x, self.integers(), self.low, self.fraction_bits)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        operation = Lerp(lowering.type(source), whole(self.integers()), Format(self.bits))
        lowering.functions[name] = {"x_scale": lowering.scales[source], "y_scale": self.scale}
        return lowering.add(name, operation, source, scale=self.scale)


class IntegerAdd(IntegerLayer):
    """Saturating sum of two tensors of one step."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).clamp(self.low, self.high)

    def emit(self, lowering: Lowering, name: str, x: str, y: str) -> str:
        operation = Add(lowering.type(x), lowering.type(y), Format(self.bits))
        return lowering.add(name, operation, x, y, scale=self.scale)


class IntegerMean(IntegerLayer):
    """Sum over the tokens of `[T, B, C]`, shifted by ceil(log2 T).

    The result is the mean times `T / 2^shift`; `gain` is the inverse, by which the reader's source step grows.
    """

    def __init__(self, tokens: int, target: CodeStep, bits: int) -> None:
        super().__init__(target, bits)
        self.tokens = tokens
        self.shift = (tokens - 1).bit_length()

    @property
    def gain(self) -> float:
        return (1 << self.shift) / self.tokens

    @property
    def scale(self) -> float:
        return super().scale * self.gain

    def forward(self, x: Tensor) -> Tensor:
        return round_through(x.sum(0) * 2.0**-self.shift)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        kind = lowering.type(source)
        requantize = Requantize(kind.channels, np.array(self.shift), format=Format(self.bits))
        return lowering.add(name, Mean(kind, requantize), source, scale=self.scale)
