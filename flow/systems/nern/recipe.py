"""The recipes of `nern`: a residual network, and the generator of its kernels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bittrue.flow.engine import recipe as common
from bittrue.models.nern.settings import Generate, Integers, Nern, Optim, Original, TargetSettings


class BootPart(common.Part):
    """The generator in hardware, by itself.

    interval   cycles between kernels; null: one code a beat
    reference, compiled, gxx   kernels for each back end, null: all; stalls are those of `verify`
    """

    interval: int | None = Field(None, ge=1)
    reference: int | None = Field(64, ge=0)
    compiled: int | None = Field(1024, ge=0)
    gxx: int | None = Field(None, ge=0)

    @property
    def counts(self) -> dict[str, int | None]:
        """Back end -> kernels that it makes."""
        return {"reference": self.reference, "compiled": self.compiled, "gxx": self.gxx}


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.nern.settings`, `nern` and `optim` under the published
    keys, `generate` the published keys that stand in no section, `integers` how its generator becomes integers, `boot`
    its hardware."""

    system: Literal["nern"]
    network: TargetSettings = TargetSettings()
    train: Original = Original()
    nern: Nern = Nern()
    optim: Optim = Optim()
    generate: Generate = Generate()
    integers: Integers = Integers()
    boot: BootPart = BootPart()
