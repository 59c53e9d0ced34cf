"""From a trained network to its non-negative isomorphic: every linear layer by the rule of `models.light.layers`.

1. The normalisation of the inputs is folded into the first layer, W' = W / sigma, b' = b - sum W mu / sigma, so that
   its inputs are pixels in [0, 1], which is light, and its alpha is 1.
2. Batch normalisation is folded, W' = gamma / sqrt(var + eps) W, b' = beta + gamma (b - mu) / sqrt(var + eps).
3. Each further layer takes its alpha from the activation in front of it, from a percentile of its inputs on data, or
   from a constant (`models.light.settings.Calibrate`). A layer clips what exceeds its alpha and counts it, so a
   ReLU in front of a layer is, together with it, the bounded ReLU min(max(x, 0), alpha).

The transformed network computes in float64 unless it is converted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.light.activations import PhotonicSigmoid, PhotonicSinusoid, ReLUN
from bittrue.models.light.layers import NonNegative, NonNegativeConv2d, NonNegativeLinear
from bittrue.models.light.network import TOP, SimpleMLP, grey, light_codes
from bittrue.models.light.settings import Calibrate
from bittrue.models.networks.mlp import Mlp
from bittrue.sim.errors import BittrueError

#: Modules without parameters that a non-negative network may have, and what describes each.
_PLAIN: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "photonic_sigmoid": (PhotonicSigmoid, ()),
    "photonic_sinusoid": (PhotonicSinusoid, ()),
    "relun": (ReLUN, ("bound",)),
    "relu": (nn.ReLU, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "flatten": (nn.Flatten, ("start_dim", "end_dim")),
    "max_pool": (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    "average_pool": (nn.AvgPool2d, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
    "adaptive_average_pool": (nn.AdaptiveAvgPool2d, ("output_size",)),
}
_LAYERS: dict[str, type[NonNegative]] = {"linear": NonNegativeLinear, "conv2d": NonNegativeConv2d}
_POOLS = (nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_ACTIVATIONS = (PhotonicSigmoid, PhotonicSinusoid, ReLUN, nn.ReLU, nn.Sigmoid)
_SIGNED = (nn.SiLU, nn.GELU, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.PReLU)
Affine = tuple[Tensor, Tensor]


class NonNegativeNetwork(nn.Module):
    """A chain of non-negative layers, activations and pools.

    stages           the modules, in order
    shape, gain      height, width and channels of an image, code steps of one pixel step
    flat, grey       codes `[n, pixels]` in raster order, or `[n, channels, height, width]`; colours to luminance

    `forward` takes codes as `encode` makes them (any number type) and gives the logits `z = u - s` of the last layer.
    """

    def __init__(
        self, stages: list[nn.Module], shape: tuple[int, int, int], gain: int = 1, flat: bool = True, grey: bool = False
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.shape, self.gain, self.flat, self.grey = tuple(shape), gain, flat, grey

    @property
    def layers(self) -> list[NonNegative]:
        """The non-negative layers, in order; each has weight_positive, weight_negative, bias_hat, shift and alpha."""
        return [stage for stage in self.stages if isinstance(stage, NonNegative)]

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes uint8."""
        codes = light_codes(grey(images) if self.grey else images, self.gain)
        return codes.reshape(len(codes), -1) if self.flat else np.ascontiguousarray(codes.transpose(0, 3, 1, 2))

    def forward(self, codes: Tensor) -> Tensor:
        return self.stages(codes.to(self.layers[0].bias_hat.dtype) / TOP)

    def reset(self) -> None:
        """Begin to count the inputs above alpha anew."""
        for layer in self.layers:
            layer.reset()

    def counts(self) -> list[dict[str, Any]]:
        """Per layer: name, alpha, and of the inputs seen in evaluation mode since `reset` those above alpha."""
        return [
            {"name": layer.name, "alpha": float(layer.alpha), "above": layer.above, "seen": layer.seen}
            for layer in self.layers
        ]

    def describe(self) -> dict[str, Any]:
        """JSON values from which `from_description` builds the network, without its parameters."""
        given = {"shape": list(self.shape), "gain": self.gain, "flat": self.flat, "grey": self.grey}
        return {"stages": [_describe(stage) for stage in self.stages]} | given

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> NonNegativeNetwork:
        stages = []
        for stage in values["stages"]:
            given = {key: value for key, value in stage.items() if key != "kind"}
            if stage["kind"] in _LAYERS:
                stages.append(_LAYERS[stage["kind"]].from_description(given))
            else:
                stages.append(_PLAIN[stage["kind"]][0](**given))
        return cls(stages, tuple(values["shape"]), values["gain"], values["flat"], values["grey"])


def _describe(stage: nn.Module) -> dict[str, Any]:
    for kind, layer in _LAYERS.items():
        if type(stage) is layer:
            return {"kind": kind} | stage.describe()
    kind, names = next((kind, names) for kind, (module, names) in _PLAIN.items() if type(stage) is module)
    return {"kind": kind} | {name: getattr(stage, name) for name in names}


def transform(
    network: nn.Module,
    calibrate: Calibrate | None = None,
    *,
    images: np.ndarray | None = None,
    shape: tuple[int, int, int] | None = None,
    gain: int = 1,
    normalization: tuple[Any, Any] | None = None,
) -> NonNegativeNetwork:
    """The non-negative isomorphic of a trained network, in float64 and evaluation mode; the network stays as it is.

    network         `SimpleMLP`, `Mlp`, or an `nn.Sequential` of linear or convolutional layers, batch normalisation
                    directly behind one, non-negative activations, pools, flattening and dropout; a logarithmic
                    softmax at its end is left to the decision
    calibrate       how alpha is found; `images` (uint8 `[n, h, w, channels]`) are those of the percentile
    shape, gain     an `nn.Sequential` alone: shape (height, width, channels) of the images that it takes as
                    `[n, channels, height, width]`, and the code steps of one pixel step
    normalization   an `nn.Sequential` alone: mean and standard deviation of `x = (p - mean) / deviation`, per channel
    """
    calibrate = calibrate or Calibrate()
    if isinstance(network, SimpleMLP | Mlp):
        if shape is not None or normalization is not None:
            raise BittrueError(f"transform: a {type(network).__name__} knows its images and their normalisation itself")
        # an Mlp reads (code - 128) / 128, that is (p - 128/255) / (128/255)
        normalization = (128 / TOP, 128 / TOP) if isinstance(network, Mlp) else None
        shape, gain, flat = network.shape, network.gain, True
    elif isinstance(network, nn.Sequential):
        flat = False
        if shape is None:
            raise BittrueError("transform: give the shape (height, width, channels) of the images of an nn.Sequential")
    else:
        raise BittrueError(
            f"transform: a {type(network).__name__} cannot be made non-negative; give a SimpleMLP, an Mlp or an "
            "nn.Sequential of linear and convolutional layers with non-negative activations"
        )
    walk = _Walk(calibrate, shape, flat, normalization)
    result = NonNegativeNetwork([], shape, gain, flat, isinstance(network, SimpleMLP) and network.network.grey)
    if calibrate.method == "percentile":
        if images is None or not len(images):
            raise BittrueError("transform: a percentile needs images to calibrate on; give some of the training split")
        if tuple(np.shape(images)[1:]) != tuple(shape):
            raise BittrueError(
                f"transform: the network takes images of shape {tuple(shape)}, those of the percentile have "
                f"{tuple(np.shape(images)[1:])}; give the images that it was trained on"
            )
        walk.x = torch.from_numpy(result.encode(images[: calibrate.images])).double() / TOP
    modules = list(_modules(network))
    with torch.no_grad():
        for position, (name, module) in enumerate(modules):
            walk.take(name, module, modules[position + 1] if position + 1 < len(modules) else None)
    if walk.first:
        raise BittrueError("transform: the network has no linear or convolutional layer")
    result.stages = nn.Sequential(*walk.stages)
    result.reset()
    return result.eval()


def _modules(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Names and modules in the order in which they act."""
    if isinstance(network, nn.Sequential):
        for name, module in network.named_children():
            inner = isinstance(module, nn.Sequential)
            yield from _modules(module, f"{prefix}{name}.") if inner else [(prefix + name, module)]
        return
    for i, (linear, function) in enumerate(zip(network.hidden, network.functions, strict=True)):
        yield f"hidden.{i}", linear
        if isinstance(network, Mlp):
            yield f"norms.{i}", network.norms[i]
        yield f"functions.{i}", function
    yield "classifier", network.classifier


class _Walk:
    """One pass over the modules: what has been made, and what is known of the numbers at this place."""

    def __init__(
        self, calibrate: Calibrate, shape: tuple[int, int, int], flat: bool, normalization: tuple[Any, Any] | None
    ) -> None:
        self.calibrate, self.shape, self.flat = calibrate, shape, flat
        self.normalization = None if normalization is None else _normalization(normalization, shape[2])
        self.stages: list[nn.Module] = []
        self.first, self.signed = True, False
        self.bound: float | None = 1.0
        self.x: Tensor | None = None
        self.pads = (0, 0, 0, 0)
        self.folded: nn.Module | None = None

    def take(self, name: str, module: nn.Module, following: tuple[str, nn.Module] | None) -> None:
        last = following is None
        if any(self.pads) and not isinstance(module, nn.Conv2d):
            raise BittrueError(f"{name}: zero padding is taken only directly in front of a convolution")
        if module is self.folded or isinstance(module, nn.Identity | nn.Dropout | nn.Dropout1d | nn.Dropout2d):
            return
        if isinstance(module, nn.LogSoftmax | nn.Softmax) and last:
            return
        if isinstance(module, nn.Linear | nn.Conv2d):
            self._layer(name, module, following)
        elif isinstance(module, nn.ZeroPad2d):
            self.pads = tuple(module.padding)
        elif type(module) in _ACTIVATIONS:
            bounds = {nn.ReLU: None, nn.Sigmoid: 1.0}
            self.bound = bounds[type(module)] if type(module) in bounds else module.bound
            self._plain(name, module)
            self.signed = False
        elif isinstance(module, _POOLS):
            if getattr(module, "divisor_override", None) or getattr(module, "return_indices", False):
                raise BittrueError(f"{name}: a pool with a divisor of its own, or with indices, is not supported")
            self._plain(name, module)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            raise BittrueError(f"{name}: batch normalisation is folded only directly behind a linear or convolution")
        else:
            why = "its activation takes negative values" if isinstance(module, _SIGNED) else "it is not supported"
            raise BittrueError(
                f"{name}: a {type(module).__name__} cannot be made non-negative, {why}; use a photonic sigmoid, a "
                "photonic sinusoid or a ReLU between linear or convolutional layers"
            )

    def _plain(self, name: str, module: nn.Module) -> None:
        if self.first and self.normalization is not None and not isinstance(module, nn.Flatten):
            raise BittrueError(f"{name}: it stands between the normalised inputs and the first layer, only Flatten may")
        self._append(copy.deepcopy(module))

    def _append(self, stage: nn.Module) -> None:
        stage.eval()
        self.stages.append(stage)
        if self.x is not None:
            self.x = stage(self.x)

    def _layer(self, name: str, layer: nn.Linear | nn.Conv2d, following: tuple[str, nn.Module] | None) -> None:
        if self.signed:
            raise BittrueError(f"{name}: its inputs are sums of either sign; put a non-negative activation in front")
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            raise BittrueError(f"{name}: padding mode {layer.padding_mode!r} is not supported; use zero padding")
        weight = layer.weight.detach().cpu().double()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu().double()
        if following is not None and isinstance(following[1], nn.BatchNorm1d | nn.BatchNorm2d):
            weight, bias = fold_norm(weight, bias, following[1], following[0])
            self.folded = following[1]
        border = None
        if self.first and self.normalization is not None:
            mean, deviation = self._per_input(layer)
            border = mean if isinstance(layer, nn.Conv2d) else None
            weight, bias = fold_inputs(weight, bias, mean, deviation, getattr(layer, "groups", 1))
        behind_pixels = not self.flat and all(isinstance(stage, nn.Flatten) for stage in self.stages)
        if behind_pixels and isinstance(layer, nn.Linear) and layer.in_features != math.prod(self.shape):
            raise BittrueError(
                f"{name}: it takes {layer.in_features} inputs, but images of shape {self.shape} have "
                f"{math.prod(self.shape)}; give the shape (height, width, channels) that the network was trained on"
            )
        alpha = 1.0 if self.first else self._alpha(name)
        if isinstance(layer, nn.Linear):
            stage: NonNegative = NonNegativeLinear(weight, bias, alpha, name)
        else:
            pads = tuple(a + b for a, b in zip(layer._reversed_padding_repeated_twice, self.pads, strict=True))
            border = border if any(pads) else None
            geometry = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
            stage = NonNegativeConv2d(weight, bias, alpha, name, pads=pads, border=border, **geometry)
            self.pads = (0, 0, 0, 0)
        self._append(stage)
        self.first, self.signed = False, True

    def _per_input(self, layer: nn.Linear | nn.Conv2d) -> Affine:
        """Mean and deviation for each input of the first layer."""
        mean, deviation = self.normalization
        if isinstance(layer, nn.Conv2d):
            return mean, deviation
        pixels = self.shape[0] * self.shape[1]
        if self.flat:
            return mean.repeat(pixels), deviation.repeat(pixels)
        return mean.repeat_interleave(pixels), deviation.repeat_interleave(pixels)

    def _alpha(self, name: str) -> float:
        if self.calibrate.method == "constant":
            return self.calibrate.alpha
        if self.calibrate.method == "bound":
            if self.bound is None:
                raise BittrueError(
                    f"layer {name}: a ReLU has no largest value to take alpha from; calibrate by `percentile` or "
                    "`constant`"
                )
            return self.bound
        alpha = float(np.percentile(self.x.numpy(), self.calibrate.percentile))
        if not alpha > 0:
            raise BittrueError(
                f"layer {name}: percentile {self.calibrate.percentile:g} of its inputs is {alpha:g} on the calibration "
                "images, so alpha would be it; use a higher percentile, other images, or `constant`"
            )
        return alpha


def _normalization(given: tuple[Any, Any], channels: int) -> Affine:
    mean, deviation = (torch.as_tensor(value, dtype=torch.float64).reshape(-1) for value in given)
    for values in (mean, deviation):
        if len(values) not in (1, channels) or not values.isfinite().all():
            raise BittrueError(
                f"normalisation: {values.tolist()} are not finite numbers for each of {channels} channels"
            )
    if not (deviation > 0).all():
        raise BittrueError(f"normalisation: deviations are positive, got {deviation.tolist()}")
    return mean.expand(channels), deviation.expand(channels)


def fold_inputs(weight: Tensor, bias: Tensor, mean: Tensor, deviation: Tensor, groups: int = 1) -> Affine:
    """Weight and bias that take p where those given took (p - mean) / deviation: per input of a linear layer
    `[N, K]`, or per input channel of a convolution `[N, K / groups, kh, kw]`.
    """
    outputs = len(weight)
    # row n of a convolution sees the channels of its group
    per_row = [values.reshape(groups, -1).repeat_interleave(outputs // groups, 0) for values in (mean, deviation)]
    mean, deviation = (values.reshape(*values.shape, *[1] * (weight.ndim - 2)) for values in per_row)
    folded = weight / deviation
    return folded, bias - (folded * mean).flatten(1).sum(1)


def fold_norm(weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, name: str) -> Affine:
    """Weight and bias of a layer with the batch normalisation behind it, as it acts in evaluation mode."""
    if norm.running_mean is None:
        raise BittrueError(
            f"{name}: batch normalisation without running statistics cannot be folded; train it with them"
        )
    if norm.num_features != len(weight):
        raise BittrueError(f"{name}: it normalises {norm.num_features} channels, the layer in front has {len(weight)}")
    mean, variance = (value.detach().cpu().double() for value in (norm.running_mean, norm.running_var))
    factor = 1 / (variance + norm.eps).sqrt()
    offset = torch.zeros_like(mean)
    if norm.affine:
        factor, offset = factor * norm.weight.detach().cpu().double(), norm.bias.detach().cpu().double()
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled, (bias - mean) * factor + offset
