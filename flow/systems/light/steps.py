"""What `train` and `quantize` do: an MLP made non-negative, on an array of light, in exact integers.

See `models.light.train` for the scenarios, `models.light.integer` for the array.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from bittrue.flow.engine import kernels, statistics, training
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.light.recipe import Recipe
from bittrue.models.light.settings import Array, ArrayNoise
from bittrue.sim.program import Program


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """The scenario; leaves `network.pt`, the regular network, and `twin.pt`, the non-negative one."""
    from bittrue.models.light import train as photonic_train
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    settings = recipe.train.settings(data.name, recipe.network.activation)
    watch = training.watch(work)
    made = photonic_train.train(data, settings, recipe.network, recipe.calibrate, folder=work.scratch, progress=watch)
    storage.save(made.regular, work.folder / "network.pt")
    storage.save(made.twin, work.folder / "twin.pt")
    found = made.agreement
    told = training.history(made.history, made.non_negative_history)
    return told | {
        "status": f"float {statistics.share(found.regular, found.images)}, {statistics.chosen(told)}",
        "accuracy": found.regular,
        "kernels": kernels.described(),
        "parameters": sum(p.numel() for p in made.regular.parameters()),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "scenario": settings.model_dump(mode="json"),
        "accuracy_before_non_negative": made.before,
        "agreement": {
            "images": found.images,
            "agree": found.agree,
            "regular": found.regular,
            "twin": found.twin,
            "difference": found.difference,
            "above_alpha": found.above,
        },
    }


@training.one_thread
def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Conversion to the array and exact-integer training; leaves the program and its test set.

    Accuracies are the golden simulator's on the test set, with the noise of the recipe where there is any.
    """
    from bittrue.flow.systems.light import alphas as photonic_alphas
    from bittrue.models.light.transform import NonNegativeNetwork
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    twin = storage.load(work.upstream["train"] / "twin.pt", NonNegativeNetwork)
    result: dict[str, Any] = {
        "light": photonic_alphas.table(recipe, work, twin, data),
        "noise": recipe.array.noise.on,
    }
    network, program, found = _converted(twin, recipe, recipe.array, data, work, recipe.finetune.epochs > 0)
    result |= found
    if recipe.array.window == "pedestal" and recipe.beside.full_scale != "none":
        trained = recipe.beside.full_scale == "trained" and recipe.finetune.epochs > 0
        full = recipe.array.model_copy(update={"window": "full"})
        result["full_scale"] = _converted(twin, recipe, full, data, work, trained)[2]
    training.write_lowered(work, program, network, data)
    return result | {"status": training.trained(result, len(data.test))}


def _converted(
    twin, recipe: Recipe, array: Array, data, work: Workspace, trained: bool
) -> tuple[Any, Program, dict[str, Any]]:
    """An integer network and its program, with what the report shows of it."""
    from bittrue.models.light.convert import convert
    from bittrue.models.light.measure import conversions
    from bittrue.models.training import qat
    from bittrue.models.training.loop import accuracy

    work.progress(f"calibrating {array.window} windows", 0, 1)
    network = convert(twin, data, array)
    codes, epochs = network.encode(data.test.images), None
    before = _accuracy(_program(network, recipe, data), codes, data)
    if trained:
        checkpoint = work.scratch / f"{array.window}.pt"
        epochs = qat.fit(network, data, recipe.finetune, checkpoint=checkpoint, progress=training.watch(work))
    program = _program(network, recipe, data)
    quiet = {"accuracy_without_noise": accuracy(network.under(ArrayNoise()), data.test)} if array.noise.on else {}
    return (
        network,
        program,
        quiet
        | training.history(epochs)
        | {
            "accuracy_converted": before,
            "accuracy": _accuracy(program, codes, data),
            "converters": [asdict(row) for row in conversions(network, program, codes, work.progress)],
        },
    )


def _program(network, recipe: Recipe, data) -> Program:
    from bittrue.models.graph.lower import lower as to_program

    return to_program(network, name=recipe.name, dataset=data.name, classes=list(data.classes))


def _accuracy(program: Program, codes: np.ndarray, data) -> float:
    return float((program(codes).argmax(1) == data.test.labels).mean())
