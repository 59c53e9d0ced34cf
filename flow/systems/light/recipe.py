"""The recipes of `photonic`: an MLP made non-negative, on a photonic array with converters, in exact integers.

`train.scenario` is enough to choose one: what a recipe does not give is as published.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from bittrue.flow.engine import recipe as common
from bittrue.models.light.settings import (
    Array,
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


class ControllerPart(common.Part):
    """The controller of the array, whose rows and columns are those of `array`.

    lanes      codes a beat, a power of two; fewer where rows, columns or inputs of an image are no multiple
    settling   cycles that the array needs from new codes to the sample
    images     the batch: images for which weights stay loaded
    compiled, icarus, verilator   test images for each simulator, null: all; stalls are those of `verify`
    synth      targets for which the controller alone, its weights streamed, is placed and routed
    """

    lanes: int = Field(8, ge=1)
    settling: int = Field(8, ge=1, lt=1 << 16)
    images: int = Field(16, ge=1)
    compiled: _Count | None = Field(None, ge=0)
    icarus: _Count | None = Field(2, ge=0)
    verilator: _Count | None = Field(8, ge=0)
    synth: tuple[str, ...] = ()

    @field_validator("lanes")
    @classmethod
    def _power(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("lanes are a power of two")
        return value

    @field_validator("synth")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return common.known_targets(value)

    @property
    def counts(self) -> dict[str, int | None]:
        """Test images by back end."""
        return {"compiled": self.compiled, "icarus": self.icarus, "verilator": self.verilator}


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
