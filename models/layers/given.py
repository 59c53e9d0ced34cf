"""A convolution whose weight codes come from elsewhere: one step for all of them, a gain of each output channel.

    y = clamp(round(acc * m 2^-e)),  acc = sum w x + B,  m 2^-e = gain s_w s_x / s_y,  B = round(b / (gain s_w s_x))

So what a normalisation behind the convolution multiplies with is in the requantiser, and the codes `w` may be written
by whoever makes them: they mean `w s_w` in every channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bittrue.models.layers.exact import POWERS, round_through
from bittrue.models.layers.tensors import MAX_MULTIPLIED_SHIFT, MULTIPLIER_BITS
from bittrue.models.layers.windows import Reading, TensorConv


class GivenConv(TensorConv):
    """`[H, W, C]` to `[OH, OW, N]`.

    weight   codes `[N, taps C]`, whole numbers in floats; they are not trained
    gain     of each output channel, `[N]`, positive
    unit     s_w, the real value of a step of the codes
    given    codes to compute with in place of `weight`, which have a gradient; None: `weight`
    """

    def __init__(
        self, reading: Reading, weight: nn.Parameter, bias: nn.Parameter, source: nn.Module, target: nn.Module,
        bits: int, label: str, *, gain: Tensor, unit: float, weight_bits: int, input_bits: int, relu: bool = False,
    ) -> None:  # fmt: skip
        options = {"weight_bits": weight_bits, "input_bits": input_bits, "relu": relu, "mode": "multiplier"}
        super().__init__(reading, weight.requires_grad_(False), bias, source, target, bits, label, **options)
        self.register_buffer("gain", gain.detach().double())
        self.register_buffer("unit", torch.tensor(float(unit), dtype=torch.float64))
        self.given: Tensor | None = None

    def integers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        high = (1 << (self.weight_bits - 1)) - 1
        codes = round_through(self.weight if self.given is None else self.given).clamp(-high - 1, high)
        worth = self.gain * self.unit * self.source.value.double()
        factor = worth / self.target.value.double()
        shift = (MULTIPLIER_BITS - 1 - torch.floor(torch.log2(factor.detach()))).clamp(0, MAX_MULTIPLIED_SHIFT)
        power = POWERS.double().to(shift.device)[shift.long()]
        multiplier = round_through(factor * power).clamp(1, (1 << MULTIPLIER_BITS) - 1)
        return codes, round_through(self.bias.double() / worth), shift, multiplier
