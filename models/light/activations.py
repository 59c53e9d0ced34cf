"""Activations that light can carry: transfer functions of photonic devices, and a bounded ReLU.

Each is non-negative and has `bound`, the largest value it takes: the compensation of the next layer rests on it
(`models.light.transform`).

Sources. Sigmoid: the all-optical neuron of Mourgias-Alexandris et al., Optics Express 27 (2019), an SOA in a
Mach-Zehnder interferometer. Sinusoid: the power transfer of a Mach-Zehnder modulator, Passalis et al., IEEE TETCI
(2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bittrue.sim.errors import BittrueError


class PhotonicSigmoid(nn.Module):
    """`f(x) = A2 + (A1 - A2) / (1 + exp(min(x - x0, 2) / d))`, with values from 0.060 to 1.005.

    A1 = 0.060, A2 = 1.005, x0 = 0.145, d = 0.033. The output is never 0: the device does not get dark.
    """

    low, bound, centre, width, cutoff = 0.060, 1.005, 0.145, 0.033, 2.0

    def forward(self, x: Tensor) -> Tensor:
        # 1 / (1 + exp(t)) is sigmoid(-t), whose gradient does not overflow in float32
        steps = torch.clamp(x - self.centre, max=self.cutoff) / self.width
        return self.bound + (self.low - self.bound) * torch.sigmoid(-steps)


class PhotonicSinusoid(nn.Module):
    """`f(x) = sin^2(pi/2 * clip(x, 0, 1))`, with values from 0 to 1."""

    bound = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * torch.clamp(x, 0, 1)).square()


class ReLUN(nn.Module):
    """`f(x) = min(max(x, 0), bound)`: the ReLU of a non-negative network, where `bound` is the next layer's alpha."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        if not (bound > 0 and math.isfinite(bound)):
            raise BittrueError(f"ReLUN: its bound is {bound}; give a positive number")
        self.bound = float(bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, 0, self.bound)

    def extra_repr(self) -> str:
        return f"bound={self.bound:g}"


ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": PhotonicSigmoid, "sinusoid": PhotonicSinusoid, "relu": nn.ReLU}


def activation(name: str) -> nn.Module:
    """The module of a function in the regular network: photonic `sigmoid` or `sinusoid`, or an unbounded `relu`."""
    if name not in ACTIVATIONS:
        raise BittrueError(f"no photonic activation is named {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
