"""The recipes of `nern`: a residual network, and the generator of its kernels."""

from __future__ import annotations

from typing import Literal

from bittrue.flow.engine import recipe as common
from bittrue.models.nern.settings import Generate, Integers, Nern, Optim, Original, TargetSettings


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.nern.settings`, `nern` and `optim` under the published
    keys, `generate` the published keys that stand in no section, `integers` how its generator becomes integers."""

    system: Literal["nern"]
    network: TargetSettings = TargetSettings()
    train: Original = Original()
    nern: Nern = Nern()
    optim: Optim = Optim()
    generate: Generate = Generate()
    integers: Integers = Integers()
