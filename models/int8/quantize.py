"""Post-training quantisation: folding, calibration of the scales, the bias guard.

folding      batch normalisation becomes an affine, or goes into the linear or the table behind it; the
             last one of a block's MLP goes into its second linear, the network's last into the classifier
calibration  a percentile of the magnitudes of each group of tensors that share a scale, on training images;
             the percentile is chosen on the validation split. Logits always keep their whole range.
bias guard   a scale is at least max|bias| / high of every layer that writes to the group: biases are added
             after the shift, in output steps, and a clipped bias destroys a network. It is always on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.sets import Data
from bittrue.models.graph.calibration import SMALLEST, STRIDE, affine_of, samples
from bittrue.models.layers.integer import CodeStep, IntegerAffine, IntegerLinear
from bittrue.models.networks.integer import IntegerResMLP
from bittrue.models.networks.resmlp import ResMLP, refuse_foreign
from bittrue.models.networks.settings import Quantize
from bittrue.models.training.loop import accuracy


def post_training(model: ResMLP, data: Data, settings: Quantize = Quantize()) -> IntegerResMLP:  # noqa: B008  (frozen)
    """The integer network of a trained one. Leaves `model` as it is, in evaluation mode.

    `calibration` of the result maps each percentile to its accuracy on the validation split, and `percentile` is
    the one used.
    """
    refuse_foreign(model)
    model.eval()
    integer = IntegerResMLP(model.network, settings, model.shape, model.classes, model.gain).eval()
    with torch.no_grad():
        fold(model, integer)
        magnitudes = observe(model, integer, data.train.images[: settings.images])
        scores = {}
        for percentile in settings.percentiles:
            calibrate(model, integer, magnitudes, percentile)
            scores[percentile] = accuracy(integer, data.val)
        best = max(scores, key=scores.__getitem__)
        calibrate(model, integer, magnitudes, best)
    integer.calibration, integer.percentile = scores, best
    return integer


# -- folding -------------------------------------------------------------------------------------------
def fold(model: ResMLP, integer: IntegerResMLP) -> None:
    """Copy the real parameters, affines folded; tables are filled when their input's scale is known."""
    _copy(integer.embed, model.embed.weight, model.embed.bias)
    for block, into in zip(model.blocks, integer.blocks, strict=True):
        _copy(into.token.norm, *affine_of(block.token.norm))
        _copy(into.token.mix, block.token.mix.weight, block.token.mix.bias)
        _copy(into.token.scale, block.token.scale.weight, block.token.scale.bias)
        first, second, scale = block.mlp.first, block.mlp.second, block.mlp.scale
        weight, bias = first.weight, first.bias
        if not into.mlp.learnable:
            gain, offset = affine_of(block.mlp.norm)
            weight, bias = weight * gain, bias + weight @ offset
        _copy(into.mlp.first, weight, bias)
        _copy(into.mlp.second, second.weight * scale.weight[:, None], second.bias * scale.weight + scale.bias)
    gain, offset = affine_of(model.norm)
    weight, bias = model.classifier.weight, model.classifier.bias
    _copy(integer.classifier, weight * gain, bias + weight @ offset)


def _copy(layer: IntegerLinear | IntegerAffine, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def fill_tables(model: ResMLP, integer: IntegerResMLP) -> None:
    """The knots of every table: the function, with the normalisation in front of it, at the knots' inputs."""
    for block, into in zip(model.blocks, integer.blocks, strict=True):
        if into.mlp.learnable:
            gain, offset = affine_of(block.mlp.norm)
            table = into.mlp.before
            at = (table.at * table.source.value)[:, None]
            table.knots.copy_(block.mlp.before(at * gain + offset).T)
        if not into.mlp.relu:
            table = into.mlp.between
            at = (table.at * table.source.value)[:, None]
            table.knots.copy_(block.mlp.between(at.expand(-1, len(table.knots)).contiguous()).T)


# -- calibration ---------------------------------------------------------------------------------------
def groups(model: ResMLP, integer: IntegerResMLP) -> dict[CodeStep, list[nn.Module]]:
    """The modules of the float network whose results share each scale."""
    members: dict[CodeStep, list[nn.Module]] = {integer.embed.target: [model.embed]}
    for block, into in zip(model.blocks, integer.blocks, strict=True):
        members[into.token.norm.target] = [block.token.norm]
        members[into.token.mix.target] = [block.token.mix]
        members[into.token.add.target] = [block.token.scale, block.token]
        if into.mlp.learnable:
            members[into.mlp.before.target] = [block.mlp.before]
        if not into.mlp.relu:
            members[into.mlp.first.target] = [block.mlp.first]
        members[into.mlp.second.source] = [block.mlp.between]
        members[into.mlp.add.target] = [block.mlp.scale, block.mlp]
    members[integer.classifier.target] = [model.classifier]
    return members


def observe(model: ResMLP, integer: IntegerResMLP, images: np.ndarray) -> dict[CodeStep, list[np.ndarray]]:
    """Magnitudes of the float network's tensors, sampled, sorted, by the scale that they share."""
    members = groups(model, integer)
    keep = {module: lambda _, y: y.abs().flatten()[::STRIDE] for modules in members.values() for module in modules}
    keep[model.classifier] = lambda _, y: y.abs()
    seen = samples(model, images, keep)
    return {step: [seen[module] for module in modules] for step, modules in members.items()}


def calibrate(
    model: ResMLP, integer: IntegerResMLP, magnitudes: dict[CodeStep, list[np.ndarray]], percentile: float
) -> None:
    """Set every scale from a percentile, guard the biases, fill the tables."""
    for step, members in magnitudes.items():
        whole = step is integer.classifier.target
        largest = max(float(m[-1] if whole else np.percentile(m, percentile)) for m in members)
        step.set(max(largest / integer.embed.high, SMALLEST))
    for layer in integer.modules():
        if isinstance(layer, IntegerLinear | IntegerAffine):
            step = float(layer.bias.abs().max()) / layer.high
            if step > layer.scale:
                layer.target.set(step)
    fill_tables(model, integer)
