"""The target in integers, with the weights of its generated convolutions as a generator gives them.

It is converted as any network (`models.int8.convert`), but for its generated layers: their codes have one step for the
whole layer, which is what the generator knows, and the gains of the normalisation behind them are in the multipliers of
their requantisers (`models.layers.given`). So a boot writes the codes of the generator as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bittrue.models.data.sets import Data
from bittrue.models.int8.converted import Converted
from bittrue.models.int8.quantize import of_codes
from bittrue.models.layers.given import GivenConv
from bittrue.models.layers.integer import IntegerLayer
from bittrue.models.layers.tensors import TensorProduct
from bittrue.models.layers.windows import TensorConv
from bittrue.models.nern.target import Layer, Target
from bittrue.sim.errors import BittrueError

#: How far a folded weight may be from a gain of its channel times the weight, relative to the largest.
NEAR = 1e-4


def convert(
    target: Target, codes: Sequence[Tensor], units: Sequence[float], data: Data, images: int,
    others: dict[str, Tensor] | None = None,
) -> Converted:  # fmt: skip
    """The target's integers, calibrated with its own weights, and these codes in their place.

    So it takes the codes of any generator of this target, and is the same for all whose steps are.

    codes    of each generated layer `[filters, channels, k, k]`, whole numbers, and `units` their steps
    others   further parameters in place of the target's, by name (`Generator.others`)
    """
    network = copy.deepcopy(target.network).cpu()
    worth = [weight.cpu() for weight in target.weights()]
    for layer, weight in zip(target.layers, worth, strict=True):
        alive = weight.flatten(1).any(1)
        if not alive.all():
            raise BittrueError(
                f"accelerator: filter {int((~alive).nonzero()[0])} of {layer.path} is all zeros in the original, so "
                "that the gain of its normalisation is not known; keep that layer"
            )
    with torch.no_grad():
        for name, value in (others or {}).items():
            network.get_parameter(name).copy_(value.cpu())
    options = {"requantize": "multiplier", "equalise_channels": False, "correct_biases": False, "images": images}
    integer = of_codes(network, data, **options)
    layers = {layer.path: k for k, layer in enumerate(target.layers)}
    seen: set[str] = set()

    def change(layer: IntegerLayer, operands: tuple[str, ...]) -> list[tuple[IntegerLayer, tuple[str, ...]]]:
        if not isinstance(layer, TensorProduct) or layer.path not in layers:
            return [(layer, operands)]
        if type(layer) is not TensorConv or layer.path in seen:
            why = "it is called twice" if layer.path in seen else "each of its channels is convolved for itself"
            raise BittrueError(f"accelerator: the weights of {layer.path} cannot be written: {why}; keep that layer")
        seen.add(layer.path)
        k = layers[layer.path]
        return [(_given(layer, target.layers[k], codes[k], float(units[k]), worth[k]), operands)]

    made = integer.rebuilt(change)
    if missing := [path for path in layers if path not in seen]:
        raise BittrueError(
            f"accelerator: {missing[0]} is no convolution of the integers any more, so its weights cannot be written; "
            "keep that layer"
        )
    return made


def _given(layer: TensorConv, of: Layer, codes: Tensor, unit: float, worth: Tensor) -> GivenConv:
    inputs = layer.weight.shape[1] // layer.reading.taps
    bare, folded = arranged(worth, inputs).double(), layer.real_weight().detach().double()
    gain = (folded * bare).sum(1) / bare.square().sum(1)
    if float((folded - gain[:, None] * bare).abs().max()) > NEAR * float(folded.abs().max()):
        raise BittrueError(
            f"accelerator: what is folded into {of.path} is no factor of each of its output channels; keep that layer, "
            "or move what scales its input channels behind an activation"
        )
    if not bool((gain > 0).all()):
        channel = int((gain <= 0).nonzero()[0])
        raise BittrueError(
            f"accelerator: the normalisation behind {of.path} multiplies channel {channel} with "
            f"{float(gain[channel]):.3g}; "
            "turn the signs of that filter in the original (models.nern.target.upright), then train the generator"
        )
    weight = nn.Parameter(arranged(codes, inputs).float())
    bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    made = GivenConv(
        layer.reading, weight, bias, layer.source, layer.target, layer.bits, layer.label or "", gain=gain, unit=unit,
        weight_bits=layer.weight_bits, input_bits=layer.input_bits, relu=layer.relu,
    )  # fmt: skip
    made.path = layer.path
    return made


def arranged(weight: Tensor, inputs: int) -> Tensor:
    """Weights `[N, C / groups, k, k]` of a convolution of so many input channels as its integers have them,
    `[N, taps C]`, with 0 where a group has no weights."""
    taps = weight.permute(0, 2, 3, 1)
    outputs, each = len(weight), weight.shape[1]
    if each == inputs:
        return taps.flatten(1)
    whole, groups = taps.new_zeros((*taps.shape[:3], inputs)), inputs // each
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        whole[rows, :, :, group * each : (group + 1) * each] = taps[rows]
    return whole.flatten(1)


def written_layers(integer: Converted) -> dict[str, GivenConv]:
    """The layers whose weights are generated, by the path of the convolution that each was."""
    return {layer.path: layer for layer in integer.layers if isinstance(layer, GivenConv)}  # type: ignore[misc]


def give(integer: Converted, target: Target, kernels: Tensor | None) -> None:
    """Let it compute with these generated kernels `[K, k^2]`, differentiably; None: with the codes that it keeps."""
    layers = written_layers(integer)
    weights = target.split(kernels) if kernels is not None else [None] * len(target.layers)
    for layer, weight in zip(target.layers, weights, strict=True):
        conv = layers[layer.path]
        conv.given = None if weight is None else arranged(weight, conv.weight.shape[1] // conv.reading.taps)


@torch.no_grad()
def keep(integer: Converted, target: Target, kernels: Tensor) -> None:
    """Keep the codes of these kernels as its weights."""
    give(integer, target, kernels)
    for conv in written_layers(integer).values():
        conv.weight.copy_(conv.given)
        conv.given = None
