"""What alpha costs: light, and the width of the converter behind the detector.

The complement rail of a non-negative layer is almost fully lit wherever the inputs are far below alpha, so light and
converter bits pay for every alpha that is larger than the data. Of each layer, averaged over images and outputs:

    power      (W+ x + W- (alpha - x)) / (|W| x), the complement scheme's photocurrent against a differential scheme's
    pedestal   alpha sum W- over the root mean square of z = W x + b
    adc_bits   ceil(log2(max u + 1)) for p-bit input codes and r-bit weights, the layer's actual weights and biases
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bittrue.models.light.layers import NonNegative, integer_rails
from bittrue.models.light.network import TOP
from bittrue.models.light.transform import NonNegativeNetwork
from bittrue.sim.errors import BittrueError


@dataclass(frozen=True)
class Price:
    """The price of a layer at one alpha.

    above              share of its inputs that exceed alpha and would be clipped
    power              mean optical power of the complement scheme relative to the differential one, without bias light
    power_with_bias    the same with the bias light b^ on the one side and |b| on the other
    pedestal           mean of alpha sum W- over the root mean square of z
    adc_bits           exact converter for input codes of `input_bits`
    fine_input_bits    input bits whose step at this alpha is no coarser than `input_bits` at the layer's own alpha
    fine_adc_bits      exact converter for those steps: the fair comparison between two alphas
    """

    name: str
    alpha: float
    above: float
    power: float
    power_with_bias: float
    pedestal: float
    adc_bits: int
    fine_input_bits: int
    fine_adc_bits: int


def prices(
    network: NonNegativeNetwork,
    images: np.ndarray,
    alphas: dict[str, float] | None = None,
    *,
    input_bits: int = 8,
    weight_bits: int = 8,
) -> list[Price]:
    """The price of each layer on these images, at its own alpha or at that of `alphas` (layer name to alpha).

    The inputs of a layer are those that it has in the network as it is, with its own alphas. `weight_bits` counts the
    magnitude of a weight; its sign is the choice of the rail.
    """
    for what, bits in (("input", input_bits), ("weight", weight_bits)):
        if not 1 <= bits <= 16:
            raise BittrueError(f"light price: {bits} {what} bits; give 1 to 16")
    alphas = alphas or {}
    unknown = set(alphas) - {layer.name for layer in network.layers}
    if unknown:
        known = ", ".join(layer.name for layer in network.layers)
        raise BittrueError(f"light price: no layer is named {', '.join(sorted(unknown))}; the layers are {known}")
    if not len(images):
        raise BittrueError("light price: give some images, a mean over none does not exist")
    counted = [(layer.above, layer.seen) for layer in network.layers]
    result = []
    with torch.no_grad():
        x = torch.from_numpy(network.encode(images)).to(network.layers[0].bias_hat.dtype) / TOP
        for stage in network.stages:
            if isinstance(stage, NonNegative):
                result.append(price(stage, x, alphas.get(stage.name, float(stage.alpha)), input_bits, weight_bits))
            x = stage(x)
    for layer, (above, seen) in zip(network.layers, counted, strict=True):
        layer.above, layer.seen = above, seen
    return result


def price(layer: NonNegative, x: torch.Tensor, alpha: float, input_bits: int = 8, weight_bits: int = 8) -> Price:
    """The price of one layer for these inputs."""
    if not alpha > 0:
        raise BittrueError(f"layer {layer.name}: alpha is {alpha}; as the bound of the inputs it is a positive number")
    own = float(layer.alpha)
    above = float((x > alpha).double().mean())
    weight, bias = layer.regular()
    positive, negative = (w.detach().double() for w in (layer.weight_positive, layer.weight_negative))
    framed = layer.frame(x.double().clamp(max=alpha))
    lit = layer.weigh(framed, positive).mean() + layer.weigh(alpha - framed, negative).mean()
    differential = layer.weigh(framed, weight.abs()).mean()
    compensated = bias - alpha * negative.flatten(1).sum(1)
    bias_light = (compensated + compensated.abs().max()).mean()
    z = layer.weigh(framed, weight) + layer._per_output(bias)
    fine_top = int(np.ceil((2**input_bits - 1) * max(alpha / own, 1.0) - 1e-9))
    return Price(
        name=layer.name,
        alpha=alpha,
        above=above,
        power=_ratio(lit, differential),
        power_with_bias=_ratio(lit + bias_light, differential + bias.abs().mean()),
        pedestal=_ratio(alpha * negative.flatten(1).sum(1).mean(), z.square().mean().sqrt()),
        adc_bits=_adc_bits(layer, bias, alpha, 2**input_bits - 1, weight_bits),
        fine_input_bits=fine_top.bit_length(),
        fine_adc_bits=_adc_bits(layer, bias, alpha, fine_top, weight_bits),
    )


def _adc_bits(layer: NonNegative, bias: torch.Tensor, alpha: float, top: int, weight_bits: int) -> int:
    """Bits of the exact converter with weights of `weight_bits`, scaled to the layer's largest."""
    rails = [w.detach().double().flatten(1).numpy() for w in (layer.weight_positive, layer.weight_negative)]
    step = max(rail.max() for rail in rails) / (2**weight_bits - 1)
    if step == 0:
        raise BittrueError(f"layer {layer.name}: all its weights are 0, so it has no scale; train it again")
    positive, negative = (np.rint(rail / step).astype(np.int64) for rail in rails)
    codes = np.rint(bias.numpy() / (step * alpha / top)).astype(np.int64)
    return integer_rails(positive, negative, codes, top).adc_bits


def _ratio(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a / b) if float(b) else float("inf")
