"""What `train`, `quantize` and `lower` do: a convolutional network in float, in exact integers, and as a program."""

from __future__ import annotations

import shutil
from typing import Any

from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.cnn.recipe import Recipe
from bittrue.sim.program import Program


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Float training; leaves `network.pt`."""
    from bittrue.models.networks.convolution import Convolution
    from bittrue.models.networks.temporal import Temporal

    data = training.data_of(recipe)
    network = Temporal if recipe.network.kind == "tcn" else Convolution
    return training.fit(recipe, work, network.for_data(recipe.network, data, recipe.train.seed), data)


@training.one_thread
def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Conversion with calibration, and training in the network's own integers; leaves the program and its test set."""
    from bittrue.models.int8.convert import convert
    from bittrue.models.networks.convolution import Convolution
    from bittrue.models.networks.temporal import Temporal
    from bittrue.models.training import storage
    from bittrue.models.training.loop import accuracy

    data = training.data_of(recipe)
    model = storage.load(work.upstream["train"] / "network.pt", Convolution, Temporal)
    work.progress("calibrating", 0, 1)
    # codes as they are, so that the program takes those of the image: a step of the input is one of them
    options = recipe.convert.model_dump() | {"preprocess": model.values, "input_range": 127.0}
    integer = convert(model.eval(), data, **options)
    result: dict[str, Any] = {"accuracy_converted": accuracy(integer, data.test)}
    epochs = None
    if recipe.qat.epochs:
        checkpoint = work.scratch / "checkpoint.pt"
        epochs = integer.fit(data, recipe.qat, checkpoint=checkpoint, progress=training.watch(work))
    result |= training.history(epochs) | {"accuracy": accuracy(integer, data.test)}
    program = integer.lower(name=recipe.name, dataset=data.name, classes=list(data.classes))
    training.write_lowered(work, program, integer, data)
    return result | {"status": training.trained(result, len(data.test))}


def lower(recipe: Recipe, work: Workspace) -> dict[str, Any]:  # noqa: ARG001 - a step is called so
    """The program, the encoded test set, and the network's own integer logits on it, as `quantize` left them."""
    left = work.upstream["quantize"]
    for name in training.LOWERED:
        shutil.copyfile(left / name, work.folder / name)
    program = Program.load(work.folder / "program.npz")
    return training.lowered(program, program.meta["classes"])
