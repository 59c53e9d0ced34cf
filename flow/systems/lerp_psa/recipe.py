"""The recipes of `lerp-psa`: a ResMLP with learnable 1-D functions (LERP-PSA, PSA) or ReLU, quantised to INT8."""

from __future__ import annotations

from typing import Literal

from bittrue.flow.engine import recipe as common
from bittrue.models.networks.settings import Quantize, ResMLPSettings
from bittrue.models.training.settings import Qat, Train


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.networks.settings` and `models.training.settings`."""

    system: Literal["lerp-psa"]
    network: ResMLPSettings = ResMLPSettings()
    train: Train = Train()
    quantize: Quantize = Quantize()
    qat: Qat = Qat()
