"""The system `photonic`: an MLP made non-negative, on a photonic array with converters, in exact integers.

See `flow.engine.registry` for what a system provides, `models.light.train` for the scenarios, `models.light.integer`
for the array. `train.scenario` is enough to choose one: what a recipe does not give is as published.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from bittrue.flow.engine import recipe as common
from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Step, Work
from bittrue.flow.systems.light import controller as photonic_controller
from bittrue.flow.systems.light.controller import ControllerPart
from bittrue.models.light.settings import (
    Array,
    ArrayNoise,
    Bound,
    Calibrate,
    NonNegativeOptimizer,
    PhotonicPerceptron,
    PhotonicTrain,
    Positive,
    Scenario,
    check_calibration,
    published,
)
from bittrue.models.settings import Settings
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program

CODE = ("models", "flow/engine/training.py", "flow/systems/light/alphas.py")
SECTIONS = {
    "train": ("network", "train", "calibrate"),
    "quantize": ("array", "finetune", "beside"),
    "rtl": ("array", "controller"),
}

_Count = Annotated[int, Field(ge=0)]


class TrainPart(Settings):
    """A scenario of `models.light.settings.PhotonicTrain`; what is null is as published for the data set."""

    scenario: Scenario = "transform"
    optimizer: NonNegativeOptimizer = "nnsgd"
    epochs: _Count | None = None
    non_negative_epochs: _Count | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    lr: Positive | None = None
    lr_in: Positive | None = None
    lr_out: Bound | None = None
    clip_lr: Positive | None = None
    shuffle: bool = False
    seed: int = Field(1, ge=0)

    def settings(self, data: str, activation: str) -> PhotonicTrain:
        """The whole settings for a data set and an activation."""
        base = published(data, activation, self.scenario, self.optimizer, self.seed)
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return PhotonicTrain(**(base.model_dump() | given))


class Beside(Settings):
    """What is shown for comparison.

    full_scale    the same network with full-scale windows: not at all, converted, or converted and trained
    relu_epochs   epochs of a ReLU network of the same sizes, for which large alphas were published; 0: none is trained
    """

    full_scale: Literal["none", "converted", "trained"] = "trained"
    relu_epochs: int = Field(5, ge=0)


class Recipe(common.Recipe):
    """A recipe of this system. `array.noise` switches noise on, in training and in the program."""

    system: Literal["photonic"]
    network: PhotonicPerceptron = PhotonicPerceptron()
    train: TrainPart = TrainPart()
    calibrate: Calibrate = Calibrate()
    array: Array = Array()
    finetune: Qat = Qat(epochs=5, lr=1e-3)
    beside: Beside = Beside()
    controller: ControllerPart = ControllerPart()

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        """What would be refused only behind a training is refused here."""
        try:
            settings = self.train.settings(self.dataset.name, self.network.activation)
            check_calibration(settings.scenario, self.calibrate, self.network.activation)
        except ValidationError as error:  # its own text is a page about a class that no recipe names
            found = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
            raise ValueError(f"section 'train': {found}") from error
        except BittrueError as error:
            raise ValueError(str(error)) from error
        return self


def train(recipe: Recipe, work: Work) -> dict[str, Any]:
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
    return {
        "accuracy": found.regular,
        "parameters": sum(p.numel() for p in made.regular.parameters()),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "history": training.history(made.history + made.non_negative_history),
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


def quantize(recipe: Recipe, work: Work) -> dict[str, Any]:
    """Conversion to the array and exact-integer training; leaves `integer.pt`.

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
    network, found = _converted(twin, recipe, recipe.array, data, work, recipe.finetune.epochs > 0)
    result |= found
    if recipe.array.window == "pedestal" and recipe.beside.full_scale != "none":
        trained = recipe.beside.full_scale == "trained" and recipe.finetune.epochs > 0
        full = recipe.array.model_copy(update={"window": "full"})
        result["full_scale"] = _converted(twin, recipe, full, data, work, trained)[1]
    storage.save(network, work.folder / "integer.pt")
    return result


def _converted(twin, recipe: Recipe, array: Array, data, work: Work, trained: bool) -> tuple[Any, dict[str, Any]]:
    """An integer network with what the report shows of it."""
    from bittrue.models.light.convert import convert
    from bittrue.models.light.measure import conversions
    from bittrue.models.training import qat
    from bittrue.models.training.loop import accuracy

    work.progress(f"calibrating {array.window} windows", 0, 1)
    network = convert(twin, data, array)
    codes, history = network.encode(data.test.images), []
    before = _accuracy(_program(network, recipe, data), codes, data)
    if trained:
        checkpoint = work.scratch / f"{array.window}.pt"
        epochs = qat.fit(network, data, recipe.finetune, checkpoint=checkpoint, progress=training.watch(work))
        history = training.history(epochs)
    program = _program(network, recipe, data)
    quiet = {"accuracy_without_noise": accuracy(network.under(ArrayNoise()), data.test)} if array.noise.on else {}
    return network, quiet | {
        "accuracy_converted": before,
        "accuracy": _accuracy(program, codes, data),
        "history": history,
        "converters": [asdict(row) for row in conversions(network, program, codes, work.progress)],
    }


def lower(recipe: Recipe, work: Work) -> dict[str, Any]:
    """The program, the encoded test set, and the network's own logits, with noise where there is any."""
    from bittrue.models.light.integer import IntegerPhotonicMLP
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    network = storage.load(work.upstream["quantize"] / "integer.pt", IntegerPhotonicMLP)
    program = _program(network, recipe, data)
    return training.write_lowered(work, program, network, data)


def steps(recipe: Recipe) -> list[Step]:
    """The step `controller`."""
    return [photonic_controller.step(recipe)]


def designs(recipe: Recipe, program: Program) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The controller without the array, for the targets that the recipe names."""
    return photonic_controller.designs(recipe, program)


def _program(network, recipe: Recipe, data):
    from bittrue.models.graph.lower import lower as to_program

    return to_program(network, name=recipe.name, dataset=data.name, classes=list(data.classes))


def _accuracy(program, codes: np.ndarray, data) -> float:
    return float((program(codes).argmax(1) == data.test.labels).mean())
