"""Conversion: the activations of a trained network become FS-neurons, without training it again.

neurons      the published set of the function, or a named one; for ReLU and K steps the halving set with K steps
calibration  where the function is homogeneous (ReLU), each layer's neurons are scaled so that a percentile of the
             values that the float network shows them is the end of the valid range; the percentile is chosen on the
             validation split. Other sets take values as they are, in steps of 2^-F.
the rest     is that of its INT8 network (`bittrue.quantize`)

Values outside the valid range are clipped and counted; with `strict` they are an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.sets import Data, Split
from bittrue.models.fs.calibration import STRIDE, affine_of, samples
from bittrue.models.fs.layers import IntegerFsNeuron, Neurons, least_step
from bittrue.models.fs.networks import Place, spiking
from bittrue.models.fs.sets import PUBLISHED, NeuronSet, find, shipped
from bittrue.models.fs.settings import Convert, Sweep
from bittrue.models.int8.converted import Converted
from bittrue.models.int8.quantize import post_training
from bittrue.models.layers.activations import ACTIVATIONS, name_of
from bittrue.models.layers.integer import IntegerLinear
from bittrue.models.networks.mlp import Mlp
from bittrue.models.networks.resmlp import ResMLP
from bittrue.models.training.loop import EVALUATION_BATCH, accuracy
from bittrue.sim.errors import BittrueError

#: The end of the valid range of a ReLU set that is made for K steps; as in the published one.
RELU_RANGE = 25.0


def convert(
    model: Mlp | ResMLP,
    data: Data,
    settings: Convert = Convert(),  # noqa: B008  (frozen)
    quantized: Converted | None = None,
) -> Converted:
    """The network of FS-neurons of a trained one. Leaves `model` as it is, in evaluation mode.

    `calibration` of the result maps each percentile to its accuracy on the validation split, `percentile` is the one
    used, and `clipped` maps each layer of neurons to the number of its inputs outside the valid range and of all its
    inputs, over the calibration images. `quantized` is its INT8 network, for what is not spiking in it; where it is not
    given, it is made with default settings.
    """
    return build(observe(model, data, settings, quantized), data, settings)


# -- neuron sets ---------------------------------------------------------------------------------------
def relu_set(steps: int) -> NeuronSet:
    """The halving set for ReLU with K steps, on (0, 25]; with K = 10 the published one."""
    halves = RELU_RANGE * np.exp2(-np.arange(1.0, steps + 1))
    return NeuronSet(f"relu-{steps}", halves, halves, halves, high=RELU_RANGE, function="relu", source="halving")


def function_of(module: nn.Module, place: str) -> str:
    """The name of an activation; `place` names it in errors."""
    function = name_of(module)
    if function is None:
        raise BittrueError(
            f"the activation {place} ({type(module).__name__}): no neuron set is known for it; known are the functions "
            f"{', '.join(ACTIVATIONS)}"
        )
    return function


def neurons_for(module: nn.Module, place: str, settings: Convert) -> Neurons:
    """The neurons that stand for an activation; `place` names it in errors."""
    function = function_of(module, place)
    where = f"the activation {place} ({type(module).__name__})"
    if settings.neurons is None and function not in PUBLISHED:
        fitted = [name for name in shipped() if find(name).function == function]
        ready = f"name a fitted one ({', '.join(fitted)}) as convert.neurons, or " if fitted else ""
        raise BittrueError(
            f"{where}: no neuron set is published for {function}; {ready}fit one with `bittrue fit {function} "
            f"--out {function}.json` and name the file as convert.neurons"
        )
    chosen = PUBLISHED[function] if settings.neurons is None else find(settings.neurons)
    if chosen.function != function:
        raise BittrueError(
            f"{where}: the neuron set {chosen.name!r} approximates {chosen.function or 'an unnamed function'}, "
            f"not {function}; name another as convert.neurons"
        )
    if settings.steps is not None and settings.steps != chosen.steps:
        if not chosen.binary or function != "relu":
            raise BittrueError(
                f"{where}: the neuron set {chosen.name!r} has {chosen.steps} steps, and convert.steps asks for "
                f"{settings.steps}; leave it out, or fit a set with `bittrue fit {function} --steps {settings.steps}`"
            )
        chosen = relu_set(settings.steps)
    return Neurons(chosen, settings)


def places(model: Mlp | ResMLP) -> list[Place]:
    """Where neurons will stand, in order."""
    if isinstance(model, Mlp):
        return [Place(f"functions.{k}", f"hidden.{k}", f"neurons.{k}") for k in range(len(model.hidden))]
    if not isinstance(model, ResMLP):
        raise BittrueError(f"cannot convert a {type(model).__name__}; known are Mlp and ResMLP")
    for k, block in enumerate(model.blocks):
        if model.network.learnable:
            raise BittrueError(
                f"the activation blocks.{k}.mlp.before ({type(block.mlp.before).__name__}): it is learned for each "
                "channel, so no neuron set stands for it; train with nonlinearity relu or swish"
            )
    blocks = [f"blocks.{k}.mlp" for k in range(len(model.blocks))]
    return [Place(f"{block}.between", f"{block}.first", f"{block}.neurons") for block in blocks]


def neurons_of(model: Mlp | ResMLP, settings: Convert) -> Neurons:
    """The neurons that stand for all activations of a network; what cannot be replaced is refused with its place."""
    (place, module), *others = ((one.activation, model.get_submodule(one.activation)) for one in places(model))
    for other_place, other in others:
        if function_of(other, other_place) != function_of(module, place):
            raise BittrueError(
                f"the activation {other_place} ({type(other).__name__}) is another than {place} "
                f"({type(module).__name__}), and the neurons of a network share one set; use one function throughout"
            )
    return neurons_for(module, place, settings)


# -- looking at the float network ----------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Observed:
    """A float network, ready to be converted with any settings.

    linears    weight and bias of the first linear and of those around each activation, by path, normalisation folded in
    values     what enters each activation on the calibration images, sampled and sorted
    quantized  the INT8 network
    images     the calibration images
    """

    model: Mlp | ResMLP
    linears: dict[str, tuple[Tensor, Tensor]]
    values: list[np.ndarray]
    quantized: Converted
    images: np.ndarray


def observe(model: Mlp | ResMLP, data: Data, settings: Convert, quantized: Converted | None = None) -> Observed:
    """Fold the normalisations and run the calibration images; `quantized` as in `convert`."""
    neurons_of(model, settings)  # refuses what cannot be converted before anything is computed
    replaced = [model.get_submodule(place.activation) for place in places(model)]
    model.eval()
    quantized = post_training(model, data) if quantized is None else quantized
    images = data.train.images[: settings.images]
    with torch.no_grad():
        linears = _linears(model)
        refuse_another(linears, quantized)
        keep = {module: lambda x, _: torch.cat([x.flatten()[::STRIDE], x.max()[None]]) for module in replaced}
        seen = samples(model, images, keep)
    return Observed(model, linears, [seen[module] for module in replaced], quantized, images)


def _linears(model: Mlp | ResMLP) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias of the first linear and of those around activations, normalisations and scales folded in."""
    if isinstance(model, Mlp):
        found = {"classifier": (model.classifier.weight, model.classifier.bias)}
        for k, (linear, norm) in enumerate(zip(model.hidden, model.norms, strict=True)):
            gain, offset = (1, 0) if isinstance(norm, nn.Identity) else affine_of(norm)
            found[f"hidden.{k}"] = (linear.weight.T * gain).T, linear.bias * gain + offset
        return found
    found = {"embed": (model.embed.weight, model.embed.bias)}
    for k, block in enumerate(model.blocks):
        first, second, scale = block.mlp.first, block.mlp.second, block.mlp.scale
        gain, offset = affine_of(block.mlp.norm)
        found[f"blocks.{k}.mlp.first"] = first.weight * gain, first.bias + first.weight @ offset
        found[f"blocks.{k}.mlp.second"] = second.weight * scale.weight[:, None], second.bias * scale.weight + scale.bias
    return found


def refuse_another(linears: dict[str, tuple[Tensor, Tensor]], quantized: Converted) -> None:
    """Raise unless this is the INT8 network of a model with these linears."""
    if not isinstance(quantized, Converted):
        raise BittrueError(
            f"what is not spiking is that of the INT8 network, and a {type(quantized).__name__} was given as "
            "`quantized`; give bittrue.quantize(model, data), or nothing"
        )
    its = {layer.path: list(layer.weight.shape) for layer in quantized.layers if hasattr(layer, "weight")}
    for path, (weight, _) in linears.items():
        if its.get(path) != list(weight.shape):
            raise BittrueError(
                f"`quantized` is the INT8 network of another model: its layer {path} has weights "
                f"{its.get(path, 'that it lacks')}, not {list(weight.shape)}; give that of this one"
            )


# -- building ------------------------------------------------------------------------------------------
def build(observed: Observed, data: Data, settings: Convert, validation: Split | None = None) -> Converted:
    """The network of FS-neurons of an observed one. `validation` decides on the percentile (by default the split)."""
    model = observed.model
    neurons = neurons_of(model, settings)
    with torch.no_grad():
        network = spiking(observed.quantized, neurons, places(model), observed.linears, "classifier")
        percentiles = settings.percentiles if neurons.homogeneous else settings.percentiles[:1]
        scores = {}
        for percentile in percentiles:
            calibrate(network, observed, neurons, percentile)
            if len(percentiles) > 1:
                scores[percentile] = accuracy(network, validation or data.val)
        best = max(scores, key=scores.__getitem__) if scores else percentiles[0]
        calibrate(network, observed, neurons, best)
    network.calibration, network.percentile = scores, best if neurons.homogeneous else None
    network.clipped = outside(network, observed.images)
    if settings.strict:
        refuse_clipped(network, network.clipped)
    return network


def spiking_layers(network: Converted) -> list[tuple[str, IntegerLinear, IntegerFsNeuron]]:
    """Each layer of neurons with its path and the linear layer in front of it."""
    return [(b.path, a, b) for a, b in itertools.pairwise(network.layers) if isinstance(b, IntegerFsNeuron)]


def calibrate(network: Converted, observed: Observed, neurons: Neurons, percentile: float) -> None:
    """Set the unit of each layer of neurons from a percentile of what the float network showed it."""
    if not neurons.homogeneous:
        return
    for (_, linear, layer), values in zip(spiking_layers(network), observed.values, strict=True):
        end = float(np.percentile(values, percentile))
        steps = neurons.full - neurons.offset  # what is worth as much as the largest valid value
        end *= 1 + neurons.settings.headroom
        layer.unit.set(max(end / steps, least_step(linear)))


# -- values outside ------------------------------------------------------------------------------------
def outside(network: Converted, images: np.ndarray) -> dict[str, tuple[int, int]]:
    """By layer of neurons: how many of its inputs lie outside the valid range on these images, and how many it has."""
    counts = {name: [0, 0] for name, _, _ in spiking_layers(network)}

    def count(name: str):
        def hook(layer: IntegerFsNeuron, operands: tuple[Tensor, ...]) -> None:
            counts[name][0] += layer.outside(operands[0])
            counts[name][1] += operands[0].numel()

        return hook

    hooks = [layer.register_forward_pre_hook(count(name)) for name, _, layer in spiking_layers(network)]
    try:
        with torch.inference_mode():
            for part in torch.from_numpy(network.encode(images)).split(EVALUATION_BATCH):
                network(part)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (clipped, total) for name, (clipped, total) in counts.items()}


def refuse_clipped(network: nn.Module, counts: dict[str, tuple[int, int]]) -> None:
    """Raise, naming the first layer of neurons some of whose inputs lie outside the valid range."""
    for name, _, layer in spiking_layers(network):
        clipped, total = counts[name]
        if clipped:
            unit = float(layer.unit.value)
            low, high = ((end - layer.offset) * unit for end in (layer.lowest, layer.highest))
            raise BittrueError(
                f"layer {name}: {clipped} of {total} inputs lie outside the valid range of its neurons, "
                f"{low:.4g}..{high:.4g}, and convert.strict forbids to clip them; use percentile 100 and more "
                "convert.headroom for ReLU, a set with a wider range, or strict: false"
            )


# -- accuracy against K, F and bits --------------------------------------------------------------------
def sweep(
    observed: Observed,
    data: Data,
    settings: Convert,
    grid: Sweep,
    progress: Callable[[str, float, float], None] | None = None,
) -> list[dict[str, Any]]:
    """Accuracy on validation images for every K (or F, where the set has its own K) and width of the weights.

    Without training; one row each with `steps`, `fraction_bits` (None for a set in its own unit), `bits`, `accuracy`.
    """
    if not grid.images:
        return []
    some = Split(data.val.images[: grid.images], data.val.labels[: grid.images])
    neurons = neurons_of(observed.model, settings)
    relaxed = settings.model_copy(update={"strict": False})
    axis, values = ("steps", grid.steps) if neurons.neuron_set.binary else ("fraction_bits", grid.fraction_bits)
    rows: list[dict[str, Any]] = []
    total = len(values) * len(grid.bits)
    for value in values:
        for bits in grid.bits:
            if progress is not None:
                progress(f"accuracy with {axis.replace('_', ' ')} {value}, {bits} bits", len(rows), total)
            network = build(observed, data, relaxed.model_copy(update={axis: value, "bits": bits}), some)
            made = network.neurons_made.integers
            row = {"steps": made.steps, "fraction_bits": made.fraction_bits, "bits": bits}
            rows.append(row | {"accuracy": accuracy(network, some)})
    return rows
