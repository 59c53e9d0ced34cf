"""Spiking layers in integers, in torch: spikes where the hardware has spikes, gradients through them.

A spike train is a tensor `[..., K, C]` of 0.0 and 1.0: time step before channel, as in `sim`. A layer in front of
neurons gives the membrane's value v in whole steps of the neuron's unit; its reader adds weights where spikes arrive:

    v = clamp(floor(acc * 2^-e + 0.5) + round(b / u) + offset)      offset 1 for a neuron in its own unit, else 0
    z[t] = v > threshold[t],   v -= reset[t] z[t]
    acc = sum_c w[n, c] * sum_t decode[t] z[t, c]

With thresholds and resets 2^(K-1) .. 2, 1 the offset makes an unbiased quantiser of ReLU of a neuron that rounds
down; with rounding `published` v is rounded up instead and has no offset, as that of the float neuron.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.sets import INPUT_BITS
from bittrue.models.fs.calibration import SMALLEST
from bittrue.models.fs.sets import IntegerSet, NeuronSet
from bittrue.models.fs.settings import Convert
from bittrue.models.layers.activations import activation
from bittrue.models.layers.integer import CodeStep, IntegerLayer, IntegerLinear
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.models.layers.tensors import TensorLinear
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear


class IntegerEncode(IntegerLayer):
    """The bits of each code, most significant first: codes `[..., C]` to spikes `[..., K, C]`.

    For what enters the network: no gradient passes.
    """

    def __init__(self, source: CodeStep, bits: int) -> None:
        super().__init__(CodeStep(fixed=True), 1)
        self.source, self.steps = source, bits
        decode = Encode(TensorType((1,), Format(bits))).decode
        self.register_buffer("decode", torch.tensor(decode, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        word = torch.remainder(x.detach(), float(1 << self.steps))[..., None, :]
        return torch.remainder(torch.floor(word / self.decode.abs()[:, None]), 2.0)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        return lowering.add(name, Encode(lowering.type(source)), source, scale=1.0)


class _Fire(torch.autograd.Function):
    """Membranes `[..., C]` to spikes `[..., K, C]`; see `IntegerFsNeuron` for the gradients."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, neuron: IntegerFsNeuron) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(v)
        ctx.neuron = neuron
        spikes = torch.empty((*v.shape[:-1], neuron.steps, v.shape[-1]), dtype=v.dtype, device=v.device)
        membrane = v.clamp(neuron.lowest, neuron.highest)
        for t in range(neuron.steps):
            z = spikes[..., t, :]
            torch.gt(membrane, neuron.threshold[t], out=z)
            membrane = torch.addcmul(membrane, z, neuron.reset[t], value=-1)
        return spikes

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (v,) = ctx.saved_tensors
        neuron: IntegerFsNeuron = ctx.neuron
        way = neuron.triangular if neuron.gradient == "triangular" else neuron.straight_through
        return way(v, dz) * ((v >= neuron.lowest) & (v <= neuron.highest)), None


class IntegerFsNeuron(IntegerLayer):
    """Membrane values `[..., C]` in whole steps of `unit` to spikes `[..., K, C]`; what lies outside is clipped.

    unit       real value of one step of v, and of one step of what the spikes are worth
    function   name of the activation that the neurons stand for

    The gradient is, by `gradient`,

        straight_through   that of the function: the spikes' gradients, projected on `decode` (which is what the
                           gradients of a reader are multiples of), times f'(v u)
        triangular         that of the steps, with dz/ds = max(0, 1 - |s|), s = (v - T) / (|v| + 1), in the unit in
                           which the set was made

    and zero where v was clipped.
    """

    def __init__(self, parameters: IntegerSet, unit: CodeStep, bits: int, offset: int, function: str, gradient: str):
        super().__init__(CodeStep(fixed=True), 1)
        self.parameters_of_set, self.unit, self.offset = parameters, unit, offset
        self.function, self.gradient, self.steps = function, gradient, parameters.steps
        self.format = Format(bits)
        self.lowest = self.format.low if parameters.lowest is None else parameters.lowest
        self.highest = self.format.high if parameters.highest is None else parameters.highest
        for name in ("threshold", "reset", "decode"):
            values = torch.tensor(getattr(parameters, name), dtype=torch.float32)
            self.register_buffer(name, values, persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        return _Fire.apply(v, self)

    def outside(self, v: Tensor) -> int:
        """How many of the membrane values lie outside the valid range."""
        return int(torch.count_nonzero((v < self.lowest) | (v > self.highest)))

    def straight_through(self, v: Tensor, dz: Tensor) -> Tensor:
        worth = self.decode / self.decode.square().sum()
        with torch.enable_grad():
            x = ((v.detach() - self.offset) * self.unit.value.detach()).requires_grad_()
            (slope,) = torch.autograd.grad(activation(self.function)(x).sum(), x)
        return torch.matmul(worth, dz) * slope

    def triangular(self, v: Tensor, dz: Tensor) -> Tensor:
        step = self.parameters_of_set.unit
        membranes = [v.clamp(self.lowest, self.highest)]
        for threshold, reset in zip(self.threshold[:-1], self.reset[:-1], strict=True):
            membranes.append(membranes[-1] - reset * (membranes[-1] > threshold))
        gradient = torch.zeros_like(v)
        for t in range(self.steps - 1, -1, -1):
            width = membranes[t].abs() * step + 1
            scaled = (membranes[t] - self.threshold[t]) * step / width
            slope = (1 - scaled.abs()).clamp_min(0) * (1 - scaled * membranes[t].sign()) / width * step
            gradient = gradient + (dz[..., t, :] - self.reset[t] * gradient) * slope
        return gradient

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        threshold, reset = whole(self.threshold), whole(self.reset)
        neuron = FsNeuron(lowering.type(source), threshold, reset, self.lowest, self.highest)
        return lowering.add(name, neuron, source, scale=1.0)


class IntegerSpikingLinear(IntegerLinear):
    """Spikes `[..., K, C]` to `[..., N]`: weights added where spikes arrive, each step worth `decode[t]` source steps.

    What follows the sums is that of `IntegerLinear`. The sums are taken on decoded values, which is the same number.
    """

    max_shift = 24

    def __init__(
        self, inputs: int, outputs: int, source: CodeStep, target: CodeStep, bits: int, decode: np.ndarray, **options
    ):
        super().__init__(inputs, outputs, source, target, bits, **options)
        self.register_buffer("decode", torch.tensor(decode, dtype=torch.float32), persistent=False)
        self.kind = self.exact_kind(inputs * int(max(decode.clip(0).sum(), -decode.clip(max=0).sum())))

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(torch.matmul(self.decode, z))

    def operation(self, source: TensorType) -> SpikingLinear:
        """The sums over the spikes of `source`."""
        weight, decode = whole(self.integers()[0]), whole(self.decode)
        return SpikingLinear(source, weight, decode, self.requantizer(), Format(self.weight_bits))


class TensorSpikingLinear(TensorLinear):
    """Spikes `[..., K, C]` to `[..., N]` in a converted network, each step worth `decode[t]` source steps; what follows
    the sums is that of `TensorLinear`."""

    def __init__(
        self, weight: nn.Parameter, bias: nn.Parameter, source: nn.Module, target: nn.Module, bits: int, label: str, *,
        decode: np.ndarray, weight_bits: int,
    ) -> None:  # fmt: skip
        reach = Format.covering(int(decode.clip(max=0).sum()), int(decode.clip(0).sum()), signed=True)
        super().__init__(weight, bias, source, target, bits, label, weight_bits=weight_bits, input_bits=reach.bits)
        self.register_buffer("decode", torch.tensor(decode, dtype=torch.float32), persistent=False)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().product(torch.matmul(self.decode.to(x.dtype), x), weight)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        codes, requantizer, fmt = self.requantizer()
        operation = SpikingLinear(lowering.type(source), codes, whole(self.decode), requantizer, fmt)
        return lowering.add(name, operation, source, scale=self.scale)


# -- the neurons of a network --------------------------------------------------------------------------
class Neurons:
    """What the neurons of a network have in common: the set in integers, the format of v, how v is rounded."""

    def __init__(self, neuron_set: NeuronSet, settings: Convert) -> None:
        self.neuron_set, self.settings = neuron_set, settings
        self.integers = neuron_set.own_unit() if neuron_set.binary else neuron_set.integer(settings.fraction_bits)
        lowest, highest = self.integers.lowest, self.integers.highest
        span = int(np.abs(self.integers.threshold).max()) * 2
        # One beyond each end, so that a value which the format clips is outside the valid range, and counted there.
        reach = -span if lowest is None else lowest - 1, span if highest is None else highest + 1
        self.bits = Format.covering(*reach, signed=True).bits
        published = settings.rounding == "published"
        self.offset = int(neuron_set.binary and not published)
        self.round_up = bool(neuron_set.binary and published)

    @property
    def homogeneous(self) -> bool:
        """Whether f(a x) = a f(x) for a > 0, so that each layer may scale its neurons to its data."""
        return self.neuron_set.function == "relu"

    @property
    def full(self) -> float:
        """The largest valid value, in units."""
        highest = self.integers.highest
        return float((1 << (self.bits - 1)) - 1 if highest is None else highest)

    def unit(self) -> CodeStep:
        """A new layer's unit: that of the set, until it is scaled."""
        return CodeStep(self.integers.unit, fixed=not self.homogeneous)

    def feeding(self) -> dict[str, Any]:
        """Options of a linear layer in front of neurons."""
        return {"weight_bits": self.settings.bits, "offset": self.offset, "round_up": self.round_up}

    def layer(self, unit: CodeStep) -> IntegerFsNeuron:
        gradient, function = self.settings.gradient, self.neuron_set.function
        return IntegerFsNeuron(self.integers, unit, self.bits, self.offset, function, gradient)


def linear_layer(
    weight: Tensor, bias: Tensor, source: CodeStep, target: CodeStep, bits: int, decode: np.ndarray | None,
    **options: Any,
) -> IntegerLinear:  # fmt: skip
    """A layer of real weights `[N, K]` that reads spikes worth `decode`, or 8-bit codes where there are none."""
    if decode is None:
        layer = IntegerLinear(*weight.shape[::-1], source, target, bits, input_bits=INPUT_BITS, **options)
    else:
        layer = IntegerSpikingLinear(*weight.shape[::-1], source, target, bits, decode, **options)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def least_step(layer: IntegerLinear) -> float:
    """The least step with which the bias of a layer fits its result."""
    return max(float(layer.bias.abs().max()) / layer.high, SMALLEST)
