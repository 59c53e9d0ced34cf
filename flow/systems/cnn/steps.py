"""What `train` and `quantize` do: a convolutional network in float, in exact integers, and as a program."""

from __future__ import annotations

from typing import Any

from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.cnn.recipe import Recipe


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
    from bittrue.models.int8.quantize import of_codes
    from bittrue.models.networks.convolution import Convolution
    from bittrue.models.networks.temporal import Temporal
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    model = storage.load(work.upstream["train"] / "network.pt", Convolution, Temporal)
    options = recipe.convert.model_dump()
    return training.convert(recipe, work, data, lambda: of_codes(model, data, **options))
