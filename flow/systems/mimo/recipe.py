"""The recipes of `mimo`: a wide residual network that takes several images in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bittrue.flow.engine import recipe as common
from bittrue.models.superposition.settings import SuperpositionSettings, SuperpositionTrain


class LogPart(common.Part):
    """Where the figures of a training go besides the step's result; they change nothing of it."""

    tensorboard: Path | None = Field(default=None, description="folder for TensorBoard, which has to be installed")


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.superposition.settings`."""

    system: Literal["mimo"]
    network: SuperpositionSettings = SuperpositionSettings()
    train: SuperpositionTrain = SuperpositionTrain()
    log: LogPart = LogPart()

    @model_validator(mode="after")
    def _modes(self) -> Self:
        try:
            self.train.trained(self.network.slots)
        except ValueError as error:
            raise ValueError(f"train.{error}") from error
        return self
