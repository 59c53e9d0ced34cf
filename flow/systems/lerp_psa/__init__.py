"""The system `lerp-psa`: recipes, steps and commands of the INT8 pipelines with learnable functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bittrue.flow.engine.system import TRAINING, System

if TYPE_CHECKING:
    import typer


class LerpPsa(System):
    """A ResMLP in INT8, with a learnable function in each channel or with ReLU."""

    name = "lerp-psa"
    title = "ResMLP with learnable functions or ReLU, trained and quantised to INT8"
    reads = {"train": ("network", "train"), "quantize": ("quantize", "qat"), "lower": ()}

    @property
    def code(self) -> tuple[str, ...]:
        return (*TRAINING, *self.sources("recipe.py", "steps.py"))

    def register(self, app: typer.Typer) -> None:
        from bittrue.flow.systems.lerp_psa import commands

        commands.register(app)


SYSTEM = LerpPsa()
