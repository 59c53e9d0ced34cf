"""The recipes of `cnn`: a convolutional network, trained in float, converted, and trained on in its own integers."""

from __future__ import annotations

from typing import Literal

from bittrue.flow.engine import recipe as common
from bittrue.models.networks.settings import Convert, ConvolutionSettings
from bittrue.models.training.settings import Qat, Train


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.networks.settings` and `models.training.settings`."""

    system: Literal["cnn"]
    network: ConvolutionSettings = ConvolutionSettings()
    train: Train = Train()
    convert: Convert = Convert()
    qat: Qat = Qat()
