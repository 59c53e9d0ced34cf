"""From a trained non-negative network to an integer one of photonic arrays: scales, windows of the converters.

scales    inputs and activations: alpha over the highest DAC code; results: the range in which the activation changes
          (`models.light.integer.operating_range`); logits: their largest magnitude on training images, and that of
          their biases
windows   layer after layer on training images that pass through the layers before it, with their windows: the centre
          is the middle between the `window_percentile` and its mirror of each tile's and output's light, the step the
          smallest power of two whose window holds that percentile of the deviations; all of this without noise
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.sets import Data
from bittrue.models.light.activations import PhotonicSigmoid, PhotonicSinusoid, ReLUN
from bittrue.models.light.array import IntegerPhotonicArray
from bittrue.models.light.integer import IntegerPhotonicMLP
from bittrue.models.light.layers import NonNegativeLinear
from bittrue.models.light.settings import Array
from bittrue.models.light.transform import NonNegativeNetwork
from bittrue.sim.errors import BittrueError

_NAMES = {
    PhotonicSigmoid: "sigmoid",
    PhotonicSinusoid: "sinusoid",
    nn.ReLU: "relu",
    ReLUN: "relu",
    nn.Sigmoid: "logistic",
}
SMALLEST = 1e-6


def convert(twin: NonNegativeNetwork, data: Data, settings: Array = Array()) -> IntegerPhotonicMLP:  # noqa: B008  (frozen)
    """The integer network of a non-negative one; `twin` stays as it is."""
    layers, functions = _read(twin)
    sizes = (layers[0].weight_positive.shape[1], *(len(layer.weight_positive) for layer in layers))
    alphas = tuple(float(layer.alpha) for layer in layers)
    alphas = (alphas[0], *(_bounded(twin, k, alpha) for k, alpha in enumerate(alphas[1:])))
    integer = IntegerPhotonicMLP(sizes, functions, alphas, settings, twin.shape, twin.gain, twin.grey).eval()
    images = data.train.images[: settings.images]
    with torch.no_grad():
        for layer, into in zip(layers, integer.layers, strict=True):
            weight, bias = layer.regular()
            into.array.weight.copy_(weight)
            into.sum.bias.copy_(bias)
        logits = twin(torch.from_numpy(twin.encode(images))).abs().max()
        last = integer.layers[-1].sum
        largest = max(float(logits), float(last.bias.abs().max()))
        last.target.set(max(largest / last.high, SMALLEST))
    calibrate(integer, images)
    return integer


def _bounded(twin: NonNegativeNetwork, k: int, alpha: float) -> float:
    """The next layer's alpha, or the bound of the activation behind layer k where that is smaller."""
    function = [stage for stage in twin.stages if type(stage) in _NAMES][k]
    return min(alpha, getattr(function, "bound", 1.0 if isinstance(function, nn.Sigmoid) else alpha))


def _read(twin: NonNegativeNetwork) -> tuple[list[NonNegativeLinear], tuple[str, ...]]:
    """The linear layers and the functions between them; anything else is refused by its place."""
    if not isinstance(twin, NonNegativeNetwork):
        raise BittrueError(
            f"cannot put a {type(twin).__name__} on a photonic array; make it non-negative first "
            "(models.light.transform.transform)"
        )
    layers: list[NonNegativeLinear] = []
    functions: list[str] = []
    for place, stage in enumerate(twin.stages):
        name, kind = f"stages.{place}", type(stage)
        if kind is NonNegativeLinear and len(layers) == len(functions):
            layers.append(stage)
        elif kind in _NAMES and len(layers) == len(functions) + 1:
            functions.append(_NAMES[kind])
        elif not (kind is nn.Flatten and not layers and twin.shape[2] == 1):
            raise BittrueError(
                f"{name} ({kind.__name__}): a photonic array takes linear layers with one non-negative activation "
                "between them, the last layer's sums are the logits; convolutions and pools are not supported"
            )
    if len(layers) != len(functions) + 1:
        raise BittrueError(
            "a photonic network ends with a linear layer, whose sums are the logits; remove what follows"
        )
    return layers, tuple(functions)


@torch.no_grad()
def calibrate(network: IntegerPhotonicMLP, images: np.ndarray) -> None:
    """Set the pedestal windows of every layer on these images; full windows follow from the weights."""
    if not len(images):
        raise BittrueError("calibration of the converters: give some images, there is no window without light")
    training = network.training
    network.eval()
    x = network.input(torch.from_numpy(network.encode(images)))
    for k, layer in enumerate(network.layers):
        set_window(layer.array, x)
        x = layer.sum(layer.array.convert(*layer.array.light(x)))
        if k < len(network.tables):
            x = network.tables[k](x)
    network.train(training)


def set_window(layer: IntegerPhotonicArray, x: Tensor) -> None:
    """The window of a layer for these input codes `[n, C]`."""
    counts = layer.light(x)[0].double().numpy()
    share = layer.array.window_percentile
    high, low = np.percentile(counts, share, axis=0), np.percentile(counts, 100 - share, axis=0)
    unit = layer.counts_per_unit().numpy()
    layer.centre.copy_(torch.from_numpy((high + low) / 2 / unit))
    deviation = np.abs(counts - np.floor((high + low) / 2 + 0.5))
    reach, shift = float(np.percentile(deviation, share)), 0
    while (1 << (layer.bits - 1 + shift)) < reach:  # codes reach half a step beyond the lowest and the highest
        shift += 1
    layer.step.fill_(shift)
