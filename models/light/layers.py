"""Linear and convolutional layers that hold and add only non-negative numbers, equal to a signed layer.

For a layer z = W x + b whose inputs lie in [0, alpha], with W+ = max(W, 0) and W- = max(-W, 0):

    b~ = b - alpha sum_i W-_ji        s = max_j |b~_j|        b^ = b~ + s
    u  = W+ x + W- (alpha - x) + b^   every operand and every partial sum is >= 0
    z  = u - s                        one number s for the layer, taken off behind the detector

W+ x + W- (alpha - x) = W x + alpha sum W-, so that z = W x + b for any W, b and alpha: b^ is always b~ + s, whatever
the sign of b~. In integers (`integer_form`) the identity is exact, in floats it holds to the rounding of the pedestal.

Source: Kirtas, Passalis, Pleros and Tefas, arXiv 2310.01084.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from bittrue.sim.contract import whole
from bittrue.sim.errors import BittrueError


@dataclass(frozen=True, eq=False)
class IntegerForm:
    """The layer in integers, for input codes q from 0 to `top` and complement codes `top - q`.

    positive, negative   int64 [N, K], both >= 0          bias_hat   int64 [N], >= 0
    shift                s >= 0                            top        code of full light
    """

    positive: np.ndarray
    negative: np.ndarray
    bias_hat: np.ndarray
    shift: int
    top: int

    def optical(self, q: np.ndarray) -> np.ndarray:
        """`u = m+ q + m- (top - q) + B^`, int64 `[..., N]` of codes `[..., K]`; `u - shift = w q + B`."""
        q = whole(q, "non-negative layer: codes")
        if q.size and (q.min() < 0 or q.max() > self.top):
            raise BittrueError(f"non-negative layer: codes are 0..{self.top}, got {q.min()}..{q.max()}")
        return q @ self.positive.T + (self.top - q) @ self.negative.T + self.bias_hat

    @property
    def largest(self) -> int:
        """The largest u that any input codes can make; a weight may have light on both rails."""
        sums = self.top * np.maximum(self.positive, self.negative).sum(1, dtype=object) + self.bias_hat.astype(object)
        return int(max(sums))

    @property
    def adc_bits(self) -> int:
        """Bits with which a converter represents every u exactly: `ceil(log2(largest + 1))`."""
        return self.largest.bit_length()


def integer_form(weight: np.ndarray, bias: np.ndarray, top: int) -> IntegerForm:
    """The non-negative form of `z = w q + B`, w int [N, K], B int [N], q in 0..top; sums beyond int64 are refused."""
    weight, bias = np.asarray(weight), np.asarray(bias)
    if weight.dtype.kind not in "iu" or bias.dtype.kind not in "iu":
        raise BittrueError(f"integer form: weights and biases are integers, got {weight.dtype} and {bias.dtype}")
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or top < 1:
        raise BittrueError(
            f"integer form: weights [N, K], biases [N] and top >= 1, got {weight.shape}, {bias.shape} and {top}"
        )
    wide = weight.astype(object)
    return _rails(np.maximum(wide, 0), np.maximum(-wide, 0), bias.astype(object), top)


def integer_rails(positive: np.ndarray, negative: np.ndarray, bias: np.ndarray, top: int) -> IntegerForm:
    """As `integer_form`, for two given rails of integers >= 0, which need not be disjoint; `bias` is the signed B."""
    named = (("positive", positive), ("negative", negative), ("bias", bias))
    for name, values in named:
        if np.asarray(values).dtype.kind not in "iu":
            raise BittrueError(f"integer form: {name} is of integers, got {np.asarray(values).dtype}; round it first")
    return _rails(*(np.asarray(values).astype(object) for _, values in named), top)


def _rails(positive: np.ndarray, negative: np.ndarray, bias: np.ndarray, top: int) -> IntegerForm:
    """`integer_rails` of Python's integers, whose sums do not wrap."""
    compensated = bias - top * negative.sum(1)
    shift = max((abs(int(value)) for value in compensated), default=0)
    bias_hat = compensated + shift
    bound = max((top * (positive + negative).sum(1) + bias_hat).tolist(), default=0)
    if bound >= 2**63:
        raise BittrueError(f"integer form: a sum reaches {bound}, more than 63 bits; use smaller weights or codes")
    rails = (positive.astype(np.int64), negative.astype(np.int64), bias_hat.astype(np.int64))
    return IntegerForm(*rails, shift, int(top))


class NonNegative(nn.Module, ABC):
    """What both layers share: the rails, what is added and taken off, and the watch over the inputs.

    weight_positive, weight_negative   parameters of the signed weight's shape
    bias_hat                           parameter [N]
    shift                              buffer, the scalar s
    alpha                              buffer, float64 whatever the parameters are, so that a bound of 1.005 stays it
    above, seen                        inputs above alpha and inputs at all since `reset`, counted in evaluation mode

    Inputs above alpha are clipped to it: there is no light of alpha - x < 0. Negative, infinite and NaN inputs are
    refused by the layer's name.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, alpha: float, name: str) -> None:
        super().__init__()
        alpha = float(alpha)
        if not (alpha > 0 and math.isfinite(alpha)):
            raise BittrueError(
                f"layer {name}: alpha is {alpha}, it bounds the inputs from above; give a positive number"
            )
        if not weight.isfinite().all() or (bias is not None and not bias.isfinite().all()):
            raise BittrueError(
                f"layer {name}: a weight or bias is not finite, so the training diverged; train it again"
            )
        self.name, self.above, self.seen = name, 0, 0
        weight = weight.detach()
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        compensated = bias - alpha * (-weight).clamp(min=0).flatten(1).sum(1)
        shift = compensated.abs().max()
        self.weight_positive = nn.Parameter(weight.clamp(min=0))
        self.weight_negative = nn.Parameter((-weight).clamp(min=0))
        self.bias_hat = nn.Parameter(compensated + shift)
        self.register_buffer("shift", shift)
        self.register_buffer("alpha", torch.tensor(alpha, dtype=torch.float64))

    def _apply(self, fn: Any, recurse: bool = True) -> NonNegative:
        alpha = self.alpha
        super()._apply(fn, recurse)
        self.alpha = alpha.to(self.shift.device)
        return self

    def reset(self) -> None:
        """Begin to count anew."""
        self.above = self.seen = 0

    def regular(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the signed layer, `W+ - W-` and `b^ - s + alpha sum W-`, in float64."""
        positive, negative = self.weight_positive.detach().double(), self.weight_negative.detach().double()
        bias = self.bias_hat.detach().double() - self.shift.double() + self.alpha * negative.flatten(1).sum(1)
        return positive - negative, bias

    def admit(self, x: Tensor) -> Tensor:
        """The inputs as light: refused where they cannot be, clipped and counted above alpha."""
        if not x.numel():
            return x
        low, high = x.detach().aminmax()
        if not (low >= 0 and high.isfinite()):
            what = "NaN" if bool(x.isnan().any()) else f"{float(low):g}" if low < 0 else f"{float(high):g}"
            raise BittrueError(
                f"layer {self.name}: an input is {what}, but light is finite and not negative; use a non-negative "
                "activation in front of it, and fold the input's normalisation"
            )
        above = x > self.alpha if high > self.alpha else None
        if not self.training:
            self.seen += x.numel()
            self.above += 0 if above is None else int(above.sum())
        return x if above is None else torch.where(above, self.alpha.to(x.dtype), x)

    def frame(self, x: Tensor) -> Tensor:
        """The inputs with the border that the layer's padding puts around them."""
        return x

    @abstractmethod
    def weigh(self, x: Tensor, weight: Tensor) -> Tensor:
        """The sums of framed inputs with a weight of the layer's shape."""

    def _per_output(self, values: Tensor) -> Tensor:
        """Numbers `[N]` in the shape that adds to what `weigh` gives."""
        return values

    def optical(self, x: Tensor) -> Tensor:
        """The detected light `u = W+ x + W- (alpha - x) + b^`, at least 0."""
        x = self.frame(self.admit(x))
        rails = self.weigh(x, self.weight_positive) + self.weigh(self.alpha - x, self.weight_negative)
        return rails + self._per_output(self.bias_hat)

    def forward(self, x: Tensor) -> Tensor:
        """`z = u - s`, what the activation takes: its operating point is moved by s."""
        return self.optical(x) - self.shift

    def describe(self) -> dict[str, Any]:
        """JSON values from which `from_description` builds the layer, without its parameters."""
        return {"name": self.name, "shape": list(self.weight_positive.shape), "alpha": float(self.alpha)}


class NonNegativeLinear(NonNegative):
    """`z = W x + b`, W [N, K], inputs `[..., K]` in [0, alpha]; see the module's docstring."""

    def weigh(self, x: Tensor, weight: Tensor) -> Tensor:
        return linear(x, weight)

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> NonNegativeLinear:
        return cls(torch.zeros(values["shape"], dtype=torch.float64), None, values["alpha"], values["name"])


class NonNegativeConv2d(NonNegative):
    """A convolution, W [N, K / groups, kh, kw], inputs `[B, K, h, w]` in [0, alpha].

    pads     left, right, top, bottom, as `torch.nn.functional.pad` has them
    border   the light that padding is made of, per input channel: 0, or the mean where a normalisation is folded,
             which is what a normalised 0 means

    The inputs are padded and then complemented, so the complement's border is alpha - border and the compensation
    is alpha times the sum of the whole kernel at every pixel, at the edges too.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        alpha: float,
        name: str,
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        border: Tensor | None = None,
    ) -> None:
        super().__init__(weight, bias, alpha, name)
        channels = weight.shape[1] * groups
        border = weight.new_zeros(channels) if border is None else border.to(weight.dtype)
        if border.shape != (channels,) or not ((border >= 0) & (border <= alpha)).all():
            raise BittrueError(
                f"layer {name}: its padding takes light of {border.tolist()}, one value from 0 to alpha = {alpha:g} is "
                f"needed for each of {channels} channels"
            )
        if min(pads) < 0:
            raise BittrueError(f"layer {name}: padding {tuple(pads)} would crop the image; pad by 0 or more")
        self.stride, self.dilation, self.groups, self.pads = tuple(stride), tuple(dilation), groups, tuple(pads)
        self.register_buffer("border", border)

    def frame(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.pads
        if not any(self.pads):
            return x
        height, width = x.shape[-2:]
        sizes = (*x.shape[:-2], height + top + bottom, width + left + right)
        framed = self.border[:, None, None].expand(sizes).clone()
        framed[..., top : top + height, left : left + width] = x
        return framed

    def weigh(self, x: Tensor, weight: Tensor) -> Tensor:
        return conv2d(x, weight, stride=self.stride, dilation=self.dilation, groups=self.groups)

    def _per_output(self, values: Tensor) -> Tensor:
        return values[:, None, None]

    def describe(self) -> dict[str, Any]:
        geometry = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups, "pads": self.pads}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in geometry.items()}
        return super().describe() | plain

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> NonNegativeConv2d:
        weight = torch.zeros(values["shape"], dtype=torch.float64)
        geometry = {key: values[key] for key in ("stride", "dilation", "groups", "pads")}
        return cls(weight, None, values["alpha"], values["name"], **geometry)
