"""The FS-neuron in torch: an activation that computes with spikes, trainable through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.fs.sets import IntegerSet, NeuronSet
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.fs_neuron import FsNeuron as FsNeuronOperation


class Spike(torch.autograd.Function):
    """`z = v > T` (1.0 or 0.0), with a triangle as derivative: `dz/ds = max(0, 1 - |s|)`, `s = (v - T) / (|v| + 1)`.

    The gradient reaches v also through the |v| of the scaling, and T summed over all values.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, threshold: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(v, threshold)
        return (v > threshold).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        v, threshold = ctx.saved_tensors
        width = v.abs() + 1
        scaled = (v - threshold) / width
        slope = upstream * (1 - scaled.abs()).clamp_min(0) / width
        wanted = ctx.needs_input_grad
        to_v = slope * (1 - scaled * v.sign()) if wanted[0] else None
        to_threshold = -slope.sum_to_size(threshold.shape) if wanted[1] else None
        return to_v, to_threshold


class FsNeuron(nn.Module):
    """`y = sum_t d[t] z[t]` over the K steps of a neuron set (`models.fs.sets`); same shape as its input, float32.

    Every step is a comparison and two additions in float32, in the order of the definition, so the result equals the
    integer neuron's bit for bit where the parameters and inputs are multiples of one power of two and no value leaves
    the integers of float32. Inputs outside the set's valid range are clipped. The gradient is that of `Spike`.

    trainable:        make h, d and T parameters; else they are constants of the module
    counting:         count while running: `inputs`, `clipped`, and `spikes` per step, int64 `[K]`
    strict:           refuse inputs outside the valid range instead of clipping them
    """

    def __init__(self, neuron_set: NeuronSet, trainable: bool = False, strict: bool = False) -> None:
        super().__init__()
        self.neuron_set = neuron_set
        self.low, self.high = neuron_set.low, neuron_set.high
        self.counting, self.strict = True, strict
        for name in ("h", "d", "T"):
            values = torch.tensor(getattr(neuron_set, name))
            if trainable:
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values)
        self.register_buffer("inputs", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("clipped", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("spikes", torch.zeros(self.steps, dtype=torch.int64), persistent=False)

    @property
    def steps(self) -> int:
        """K, the number of time steps."""
        return self.neuron_set.steps

    @property
    def spikes_per_neuron(self) -> float:
        """Mean spikes of a value over its K steps, of everything counted so far."""
        return int(self.spikes.sum()) / max(int(self.inputs), 1)

    def reset_counts(self) -> None:
        """Start counting anew."""
        for counter in (self.inputs, self.clipped, self.spikes):
            counter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.counting or self.strict:
            self._count(x)
        v = x.clamp(self.low, self.high)
        y = torch.zeros_like(v)
        for t in range(self.steps):
            z = Spike.apply(v, self.T[t])
            y = y + self.d[t] * z
            v = v - self.h[t] * z
            if self.counting:
                self.spikes[t] += torch.count_nonzero(z)
        return y

    def train_of(self, x: Tensor) -> Tensor:
        """The spikes, bool `[..., K, C]` for x `[..., C]`: time before channels, as in `sim`. Nothing is counted."""
        v = x.detach().clamp(self.low, self.high)
        spikes = []
        for t in range(self.steps):
            z = v > self.T[t]
            v = v - self.h[t] * z
            spikes.append(z)
        return torch.stack(spikes, dim=-2)

    def trained_set(self, name: str) -> NeuronSet:
        """The set with the present parameters, after training."""
        h, d, threshold = (p.detach().cpu().numpy() for p in (self.h, self.d, self.T))
        old = self.neuron_set
        return NeuronSet(name, h, d, threshold, old.low, old.high, old.function, f"{old.name}, trained in a network")

    def _count(self, x: Tensor) -> None:
        outside = torch.count_nonzero((x < self.low) | (x > self.high))
        if self.strict and outside:
            raise BittrueError(
                f"FS-neuron {self.neuron_set.name!r}: {int(outside)} of {x.numel()} inputs lie outside its valid range "
                f"{self.low:g}..{self.high:g} ({float(x.min()):g}..{float(x.max()):g}); scale the layer or clip them"
            )
        if self.counting:
            self.inputs += x.numel()
            self.clipped += outside

    def extra_repr(self) -> str:
        return f"{self.neuron_set.name}, steps={self.steps}, range={self.low:g}..{self.high:g}"


class FsActivation(nn.Module):
    """`y = scale neuron(x / scale)`: an FS-neuron in place of an activation whose inputs have another size.

    `scale` is one positive number, a buffer. A power of two changes no bit of the neuron; for a function that is not
    homogeneous (all but ReLU) any scale other than 1 also changes the function.
    """

    def __init__(self, neuron_set: NeuronSet, scale: float = 1.0, trainable: bool = False) -> None:
        super().__init__()
        self.neuron = FsNeuron(neuron_set, trainable)
        self.register_buffer("scale", torch.ones(()))
        self.rescale(scale)

    def rescale(self, scale: float) -> None:
        """Set the scale, as a calibration on data does."""
        scale = float(scale)
        if not 0 < scale < float("inf"):
            raise BittrueError(f"FS-neuron {self.neuron.neuron_set.name!r}: scale {scale!r} is not a positive number")
        self.scale.fill_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.neuron(x / self.scale)


def operation(integer_set: IntegerSet, kind: TensorType) -> tuple[FsNeuronOperation, np.ndarray]:
    """The neuron in `sim` for inputs of this type, and `decode`, what its spikes are worth to their reader.

    The input's codes are in `integer_set.unit`. Bounds of the valid range that the input's format cannot reach are
    dropped, as nothing can be clipped there.
    """
    lowest, highest = integer_set.lowest, integer_set.highest
    neuron = FsNeuronOperation(
        kind,
        threshold=integer_set.threshold,
        reset=integer_set.reset,
        lowest=None if lowest is None else max(lowest, kind.format.low),
        highest=None if highest is None else min(highest, kind.format.high),
    )
    return neuron, integer_set.decode
