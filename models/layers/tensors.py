"""Integer layers on tensors of any shape in the program's own layout, channels last: what a converted network has.

As in `models.layers.integer`, every activation is a tensor of whole numbers in float32, `[B, ..., C]`. A bias is added
to the sum, so that it is as fine as the sum and nothing limits it:

    y = clamp(floor((acc + B) * m * 2^-e + 0.5), low, high),   acc = sum w x

    shift        m = 1,  e = floor(log2(high / max|M|)) of the output channel within 0..16,  M = W s_x / s_y,
                 w = round(M 2^e),  B = round(b / s_y 2^e)
    multiplier   w = round(W / s_w),  s_w = max(max|W| / high, 2^-16 s_y / s_x) of the output channel,
                 B = round(b / (s_w s_x)),  m = round(s_w s_x / s_y 2^e) of 15 bits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bittrue.models.layers.exact import POWERS, interpolate_codes, requantize, round_through
from bittrue.models.layers.integer import EXACT, CodeStep, IntegerInput, IntegerLayer
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.sim.contract import Format
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.requantize import Requantize

Mode = Literal["shift", "multiplier"]
MAX_SHIFT, MAX_MULTIPLIED_SHIFT = 16, 47
#: Bits of a multiplier.
MULTIPLIER_BITS = 15


class MultipleStep(nn.Module):
    """A code step that is a fixed multiple of another."""

    def __init__(self, of: nn.Module, gain: float) -> None:
        super().__init__()
        self.of, self.gain = of, gain

    @property
    def value(self) -> Tensor:
        return self.of.value * self.gain


class ProductStep(nn.Module):
    """The step of a product of codes of two steps."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    @property
    def value(self) -> Tensor:
        return self.left.value * self.right.value


class TensorInput(IntegerInput):
    """Codes `[B, *shape]`, whatever the shape, as whole numbers; the step is fixed."""

    def __init__(self, shape: tuple[int, ...], step: CodeStep, bits: int) -> None:
        IntegerLayer.__init__(self, step, bits)
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape


class TensorLayer(IntegerLayer):
    """Base: `label` is the name of the result in the program."""

    def __init__(self, target: nn.Module, bits: int, label: str) -> None:
        super().__init__(target, bits)
        self.label = label

    @property
    def format(self) -> Format:
        return Format(self.bits)


def scaled(
    weight: Tensor, bias: Tensor, source: Tensor, target: Tensor, high: int, mode: Mode
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight codes `[N, K]`, bias of the sums, shift and multiplier `[N]`, of real weights and bias; see the module."""
    largest = weight.detach().abs().amax(1)
    if mode == "shift":
        ratio = source / target
        room = high / (largest * ratio.detach())
        shift = torch.floor(torch.log2(room)).nan_to_num(0).clamp(0, MAX_SHIFT)
        power = POWERS.to(shift.device)[shift.long()]
        codes = round_through(weight * ratio * power[:, None]).clamp(-high - 1, high)
        return codes, round_through((bias / target * power).double()), shift, torch.ones_like(shift)
    step = torch.maximum(largest / high, 2.0**-MAX_SHIFT * (target / source).detach())
    factor = (step * source / target).double()
    free = torch.floor(torch.log2(factor.detach()))
    shift = (MULTIPLIER_BITS - 1 - free).clamp(0, MAX_MULTIPLIED_SHIFT)
    multiplier = round_through(factor * POWERS.double().to(shift.device)[shift.long()]).clamp(
        1, (1 << MULTIPLIER_BITS) - 1
    )
    codes = round_through(weight / step[:, None]).clamp(-high - 1, high)
    return codes, round_through((bias / (step * source)).double()), shift, multiplier


class TensorProduct(TensorLayer):
    """Base of layers with weights: `weight` `[N, K]` and `bias` `[N]` are real, `relu` clamps at 0.

    weight_bits   width of the weights, which may be changed at any time
    """

    def __init__(
        self, weight: nn.Parameter, bias: nn.Parameter, source: nn.Module, target: nn.Module, bits: int, label: str, *,
        weight_bits: int, input_bits: int, relu: bool = False, mode: Mode = "shift",
    ) -> None:  # fmt: skip
        super().__init__(target, bits, label)
        self.source, self.relu, self.mode = source, relu, mode
        self.weight_bits, self.input_bits = weight_bits, input_bits
        self.weight, self.bias = weight, bias

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The bare sums `[B, ..., N]`, of whole numbers in floats in which they are exact."""
        raise NotImplementedError

    def real_weight(self) -> Tensor:
        """The real weights `[N, K]`."""
        return self.weight

    def integers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight codes `[N, K]`, bias of the sums, shift and multiplier `[N]`, as whole numbers in floats."""
        high = (1 << (self.weight_bits - 1)) - 1
        return scaled(self.real_weight(), self.bias, self.source.value, self.target.value, high, self.mode)

    def sums(self, x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
        """`acc + B`, exact: in float32 where every sum fits it, in float64 else."""
        magnitude = weight.detach().abs().sum(1) * (1 << (self.input_bits - 1)) + bias.detach().abs()
        half = POWERS.to(shift.device)[(shift.long() - 1).clamp(0)] if self.mode == "shift" else 0
        kind = torch.float32 if float((magnitude + half).max()) < EXACT else torch.float64
        return self.product(x.to(kind), weight.to(kind)) + bias.to(kind)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, shift, multiplier = self.integers()
        acc = self.sums(x, weight, bias, shift)
        if self.mode == "multiplier":
            acc = acc.double() * multiplier
        return requantize(acc, shift, torch.zeros_like(shift), 0 if self.relu else self.low, self.high)

    def real(self, x: Tensor) -> Tensor:
        """What the layer computes of codes, before it is rounded and clamped, in real units `[B, ..., N]`."""
        weight, bias, shift, multiplier = self.integers()
        acc = self.sums(x, weight, bias, shift).double() * multiplier
        return acc / POWERS.double()[shift.long()] * self.target.value

    def requantizer(self) -> tuple[np.ndarray, Requantize, Format]:
        """Weight codes `[N, K]` with their format, and what makes results of sums."""
        codes, bias, shift, multiplier = map(whole, self.integers())
        options = {"bias_acc": bias, "multiplier": multiplier, "format": self.format, "floor": 0 if self.relu else None}
        return codes, Requantize(len(bias), shift, **options), Format(self.weight_bits)


class TensorLinear(TensorProduct):
    """`[..., K]` to `[..., N]`."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.linear(x, weight)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        codes, requantizer, fmt = self.requantizer()
        return lowering.add(name, Linear(lowering.type(source), codes, requantizer, fmt), source, scale=self.scale)


class TensorAffine(TensorProduct):
    """`[..., C]`, a weight of each channel: `weight` is `[C, 1]`."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight[:, 0]

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        codes, requantizer, fmt = self.requantizer()
        operation = Affine(lowering.type(source), codes[:, 0], requantizer, fmt)
        return lowering.add(name, operation, source, scale=self.scale)


class TensorMap(TensorLayer):
    """Base of tables. `units` are what one of the argument and of the result are worth, of each channel or of all."""

    units: tuple[list[float] | float, list[float] | float] = (1.0, 1.0)

    def tell(self, lowering: Lowering, name: str, source: str) -> None:
        """Note what the steps of the table are worth: numbers, or of each channel."""
        steps = zip(("x_scale", "y_scale"), self.units, (lowering.scales[source], self.scale), strict=True)
        lowering.functions[name] = {
            key: step * unit if isinstance(unit, float) else [step * one for one in unit] for key, unit, step in steps
        }


class TensorFunction(TensorMap):
    """A function of each value, `[..., C]`, as a table of its exact results: `y = round(f(s_x x) / s_y)`, limited.

    call   gives the functions `[C, points]` at values `[points]`; of one row it is shared by all channels
    """

    def __init__(
        self,
        call: Callable[[Tensor], Tensor],
        source: nn.Module,
        target: nn.Module,
        bits: int,
        label: str,
        input_bits: int,
    ) -> None:
        super().__init__(target, bits, label)
        self.call, self.source, self.input_bits = call, source, input_bits

    def real(self) -> Tensor:
        """Results `[C, codes]` for every code, from the lowest, in steps of the result, before they are rounded."""
        low = -(1 << (self.input_bits - 1))
        at = torch.arange(low, -low, dtype=torch.float32) * self.source.value.detach().cpu()
        step = self.target.value
        return (self.call(at).to(step.device) / step).clamp(self.low, self.high)

    def integers(self) -> Tensor:
        """Results `[C, codes]` for every code, from the lowest, as whole numbers in floats."""
        return round_through(self.real())

    def forward(self, x: Tensor) -> Tensor:
        real = self.real()
        table = round_through(real)
        levels = table.shape[1]
        code = (x.detach() + levels // 2).long()
        row = torch.arange(len(table), device=x.device) * levels if len(table) > 1 else 0
        y = table.flatten()[code + row]
        (slope,) = torch.gradient(real.detach(), dim=1)  # of what was not rounded
        return y + (x - x.detach()) * slope.flatten()[code + row]  # adds 0, and the slope to the gradient of x

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        kind = lowering.type(source)
        self.tell(lowering, name, source)
        return lowering.add(name, Lerp.hold(kind, whole(self.integers()), self.format), source, scale=self.scale)


class TensorTable(TensorMap):
    """A function of each value, `[..., C]`: a table of knots with linear interpolation between them, which are trained.

    `knots` `[C, segments + 1]`, or of one row that all channels share, are the real results at the codes low,
    low + 2^f, ... up to and with high + 1, where f = bits - log2(segments).

    call   gives the functions `[C, points]` at values `[points]`
    """

    def __init__(
        self, call: Callable[[Tensor], Tensor], source: nn.Module, target: nn.Module, segments: int, bits: int,
        label: str,
    ) -> None:  # fmt: skip
        super().__init__(target, bits, label)
        self.source, self.fraction_bits = source, bits - (segments.bit_length() - 1)
        at = self.low + torch.arange(segments + 1, dtype=torch.float32) * (1 << self.fraction_bits)
        self.knots = nn.Parameter(call(at * source.value.detach()).clone())

    def integers(self) -> Tensor:
        """The knots as whole numbers in floats."""
        return round_through(self.knots / self.target.value).clamp(self.low, self.high)

    def forward(self, x: Tensor) -> Tensor:
        return interpolate_codes(x, self.integers().expand(x.shape[-1], -1), self.low, self.fraction_bits)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        self.tell(lowering, name, source)
        operation = Lerp(lowering.type(source), whole(self.integers()), self.format)
        return lowering.add(name, operation, source, scale=self.scale)


class TensorClamp(TensorLayer):
    """`min(max(x, low), high)` of real limits, at the codes next to them; source and result have one step."""

    def __init__(self, limits: tuple[float, float], target: nn.Module, bits: int, label: str) -> None:
        super().__init__(target, bits, label)
        self.limits = limits

    def codes(self) -> tuple[int, int]:
        """The limits as codes, within those of the format."""
        step = float(self.target.value.detach())
        low, high = (int(np.clip(np.floor(v / step + 0.5), self.low, self.high)) for v in self.limits)
        return low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(*self.codes())

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        return lowering.add(name, Clamp(lowering.type(source), *self.codes(), self.format), source, scale=self.scale)


class TensorTranspose(TensorLayer):
    """`[T, C]` to `[C, T]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous()

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        return lowering.add(name, Transpose(lowering.type(source)), source, scale=lowering.scales[source])
