"""What `train` and `quantize` do: a ResMLP in float, in exact integers, and as a program."""

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
    """Post-training quantisation and exact-integer training; leaves the program and its test set."""
    from bittrue.models.int8.quantize import post_training
    from bittrue.models.networks.resmlp import ResMLP
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    model = storage.load(work.upstream["train"] / "network.pt", ResMLP)
    return training.convert(recipe, work, data, lambda: post_training(model, data, recipe.quantize))
