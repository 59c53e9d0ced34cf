"""Integer layers in torch: the forward is the hardware's arithmetic, the backward trains it.

Every activation is a tensor of whole numbers in float32. Parameters stay real; each forward rounds them:

    M = W * s_x / s_y,   e = floor(log2(high / max|M| of the output channel)) within 1..16,   w = round(M * 2^e)
    y = clamp(floor(acc * 2^-e + 0.5) + round(b / s_y), low, high)

`floor(t + 0.5)` of `acc * 2^-e` is exactly the contract's round_shift. Sums are exact in any order because they
stay below 2^24; a layer in which one could reach that computes in float64. Gradients go straight through
rounding and stop where a value was clamped; as s_x / s_y, b / s_y and V / s_y are part of the expressions,
autograd finds the gradients of the scales as well. The layers of converted networks are in `models.layers.tensors`.
Source of the scheme: symmetric INT8 with power-of-two requantisation of PSA-Compress (Singh et al., 2025).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from bittrue.models.data.sets import INPUT_BITS, INPUT_SCALE
from bittrue.models.layers.exact import POWERS, requantize, round_through
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.linear import Linear
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
    """The network's input: codes `[B, F]` as whole numbers."""

    def __init__(self, features: int) -> None:
        super().__init__(CodeStep(INPUT_SCALE, fixed=True), INPUT_BITS)
        self.features = features

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return (self.features,)

    def forward(self, codes: Tensor) -> Tensor:
        return codes.to(torch.float32)

    @property
    def tensor_type(self) -> TensorType:
        """The type of a sample's codes."""
        return TensorType(self.shape, Format(self.bits, signed=self.low < 0))


class IntegerLinear(IntegerLayer):
    """`[..., K]` to `[..., N]`: matrix product, shift of each output channel, bias, clamp (at 0 with `relu`).

    `weight_bits` is the width of the weights where it is not that of the result, `offset` is added to the result with
    the bias, and `round_up` rounds the shifted sum up instead of to the nearest.
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
        offset: int = 0,
        round_up: bool = False,
    ) -> None:
        super().__init__(target, bits)
        self.source, self.relu = source, relu
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
        return integer_parameters(self, self.weight, self.bias, self.source.value)

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


def integer_parameters(layer: IntegerLinear, weight: Tensor, bias: Tensor, source: Tensor) -> tuple[Tensor, ...]:
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


class IntegerAdd(IntegerLayer):
    """Saturating sum of two tensors of one step."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).clamp(self.low, self.high)

    def emit(self, lowering: Lowering, name: str, x: str, y: str) -> str:
        operation = Add(lowering.type(x), lowering.type(y), Format(self.bits))
        return lowering.add(name, operation, x, y, scale=self.scale)
