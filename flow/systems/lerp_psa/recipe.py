"""The system `lerp-psa`: a ResMLP with learnable 1-D functions (LERP-PSA, PSA) or ReLU, trained and quantised to INT8.

See `flow.engine.registry` for what a system provides, `models/` for what is trained.
"""

from __future__ import annotations

from typing import Any, Literal

from bittrue.flow.engine import recipe as common
from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Work
from bittrue.models.networks.settings import Quantize, ResMLPSettings
from bittrue.models.training.settings import Qat, Train

CODE = ("models", "flow/engine/training.py")
SECTIONS = {"train": ("network", "train"), "quantize": ("quantize", "qat")}


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.networks.settings` and `models.training.settings`."""

    system: Literal["lerp-psa"]
    network: ResMLPSettings = ResMLPSettings()
    train: Train = Train()
    quantize: Quantize = Quantize()
    qat: Qat = Qat()


def train(recipe: Recipe, work: Work) -> dict[str, Any]:
    """Float training; leaves `network.pt`."""
    from bittrue.models.networks.resmlp import ResMLP

    data = training.data_of(recipe)
    return training.fit(recipe, work, ResMLP.for_data(recipe.network, data, recipe.train.seed), data)


def quantize(recipe: Recipe, work: Work) -> dict[str, Any]:
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
        "accuracy_post_training": accuracy(integer, data.test),
        "history": [],
    }
    if recipe.qat.epochs:
        checkpoint = work.scratch / "checkpoint.pt"
        epochs = qat.fit(integer, data, recipe.qat, checkpoint=checkpoint, progress=training.watch(work))
        result["history"] = training.history(epochs)
    result["accuracy"] = accuracy(integer, data.test)
    storage.save(integer, work.folder / "integer.pt")
    return result


def lower(recipe: Recipe, work: Work) -> dict[str, Any]:
    """The program, the encoded test set, and the network's own integer logits on it."""
    from bittrue.models.graph.lower import lower as to_program
    from bittrue.models.networks.integer import IntegerResMLP
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    integer = storage.load(work.upstream["quantize"] / "integer.pt", IntegerResMLP)
    program = to_program(integer, name=recipe.name, dataset=data.name, classes=list(data.classes))
    return training.write_lowered(work, program, integer, data)
