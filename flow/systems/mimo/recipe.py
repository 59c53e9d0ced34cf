"""The recipes of `mimo`: a wide residual network that takes several images in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bittrue.flow.engine import recipe as common
from bittrue.models.superposition.settings import SuperpositionConvert, SuperpositionSettings, SuperpositionTrain
from bittrue.models.training.settings import Qat


class LogPart(common.Part):
    """Where the figures of a training go besides the step's result; they change nothing of it."""

    tensorboard: Path | None = Field(default=None, description="folder for TensorBoard, which has to be installed")


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.superposition.settings`."""

    system: Literal["mimo"]
    network: SuperpositionSettings = SuperpositionSettings()
    train: SuperpositionTrain = SuperpositionTrain()
    convert: SuperpositionConvert = SuperpositionConvert()
    qat: Qat = Qat()
    log: LogPart = LogPart()

    @model_validator(mode="after")
    def _modes(self) -> Self:
        try:
            self.train.trained(self.network.slots)
        except ValueError as error:
            raise ValueError(f"train.{error}") from error
        if self.qat.epochs and self.qat.batch % self.modes[-1]:
            raise ValueError(
                f"qat.batch = {self.qat.batch} is no multiple of {self.modes[-1]}, the images of one pass; take one"
            )
        return self

    @property
    def modes(self) -> tuple[int, ...]:
        """The numbers of images at a time that the integers take: all that divide N, or the largest that is trained."""
        trained, dynamic = self.train.trained(self.network.slots), self.convert.dynamic
        return self.network.modes if (len(trained) > 1 if dynamic is None else dynamic) else trained[-1:]
