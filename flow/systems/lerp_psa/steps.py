"""What `train`, `quantize` and `lower` do: a ResMLP in float, in exact integers, and as a program."""

from __future__ import annotations

from typing import Any

from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.lerp_psa.recipe import Recipe


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Float training; leaves `network.pt`."""
    from bittrue.models.networks.resmlp import ResMLP

    data = training.data_of(recipe)
    return training.fit(recipe, work, ResMLP.for_data(recipe.network, data, recipe.train.seed), data)


@training.one_thread
def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Post-training quantisation and exact-integer training; leaves `integer.pt`."""
    from bittrue.models.int8.quantize import post_training
    from bittrue.models.networks.resmlp import ResMLP
    from bittrue.models.training import qat, storage
    from bittrue.models.training.loop import accuracy

    data = training.data_of(recipe)
    model = storage.load(work.upstream["train"] / "network.pt", ResMLP)
    work.progress("calibrating", 0, 1)
    integer = post_training(model, data, recipe.quantize)
    result: dict[str, Any] = {
        "percentile": integer.percentile,
        "calibration": {str(percentile): score for percentile, score in integer.calibration.items()},
        "accuracy_converted": accuracy(integer, data.test),
    }
    epochs = None
    if recipe.qat.epochs:
        checkpoint = work.scratch / "checkpoint.pt"
        epochs = qat.fit(integer, data, recipe.qat, checkpoint=checkpoint, progress=training.watch(work))
    result |= training.history(epochs) | {"accuracy": accuracy(integer, data.test)}
    storage.save(integer, work.folder / "integer.pt")
    return result | {"status": training.trained(result, len(data.test))}


@training.one_thread
def lower(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """The program, the encoded test set, and the network's own integer logits on it."""
    from bittrue.models.graph.lower import lower as to_program
    from bittrue.models.networks.integer import IntegerResMLP
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    integer = storage.load(work.upstream["quantize"] / "integer.pt", IntegerResMLP)
    program = to_program(integer, name=recipe.name, dataset=data.name, classes=list(data.classes))
    return training.write_lowered(work, program, integer, data)
