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


class BootedPart(common.Part):
    """Generator and accelerator as one design, which boots and then classifies.

    interval   cycles between images; null: the fewest with which the accelerator is estimated to fit `rtl.device`
               beside the generator, or one code a beat where the recipe names no device
    banks      1: what is held is there once, and frames wait while it boots; 2: a later boot disturbs none
    reference, compiled, gxx, icarus, verilator   images behind a boot for each back end, null: all; 0: none, as where a
               simulator would take long for the boot alone; stalls are those of `verify`
    synth      targets on which it is placed and routed beside the pipeline, whose weights are constants
    """

    interval: int | None = Field(None, ge=1)
    banks: Literal[1, 2] = 1
    reference: int | None = Field(16, ge=0)
    compiled: int | None = Field(None, ge=0)
    gxx: int | None = Field(None, ge=0)
    icarus: int | None = Field(0, ge=0)
    verilator: int | None = Field(0, ge=0)
    synth: tuple[str, ...] = ("ecp5-85k",)

    @property
    def counts(self) -> dict[str, int | None]:
        """Back end -> images that it classifies."""
        return {name: getattr(self, name) for name in ("reference", "compiled", "gxx", "icarus", "verilator")}


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.nern.settings`, `nern` and `optim` under the published
    keys, `generate` the published keys that stand in no section, `integers` how its generator becomes integers, `boot`
    its hardware, `booted` that of generator and accelerator together."""

    system: Literal["nern"]
    network: TargetSettings = TargetSettings()
    train: Original = Original()
    nern: Nern = Nern()
    optim: Optim = Optim()
    generate: Generate = Generate()
    integers: Integers = Integers()
    boot: BootPart = BootPart()
    booted: BootedPart = BootedPart()
