"""The system `photonic`: recipes, steps, the controller, sweeps and figures of photonic networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bittrue.flow.engine.system import TRAINING, Shortcut, System

if TYPE_CHECKING:
    from pathlib import Path

    from bittrue.flow.engine.steps import Step
    from bittrue.flow.engine.sweeper import Sweeper
    from bittrue.flow.report.section import Section
    from bittrue.flow.systems.light.recipe import Recipe
    from bittrue.rtl.design import Design
    from bittrue.sim.program import Program


class Photonic(System):
    """An MLP made non-negative, on a photonic array with converters."""

    name = "photonic"
    title = "MLP made non-negative, on a photonic array with converters, and the array's controller"
    reads = {
        "train": ("network", "train", "calibrate"),
        "quantize": ("array", "finetune", "beside"),
        "rtl": ("array", "controller"),
    }
    shortcuts = (
        Shortcut("scenario", "train.scenario", "`transform`, `post` or `scratch`"),
        Shortcut("optimizer", "train.optimizer", "`nnsgd` or `csgd`"),
    )

    @property
    def code(self) -> tuple[str, ...]:
        return (*TRAINING, *self.sources("recipe.py", "steps.py", "alphas.py"))

    def steps(self, recipe: Recipe) -> list[Step]:
        """The step `controller`."""
        from bittrue.flow.systems.light import controller

        return [controller.step(recipe)]

    def designs(self, recipe: Recipe, program: Program, folder: Path) -> Sequence[tuple[Design, tuple[str, ...]]]:  # noqa: ARG002
        """The controller without the array, for the targets that the recipe names."""
        from bittrue.flow.systems.light import controller

        return controller.designs(recipe, program)

    def section(self) -> Section:
        from bittrue.flow.systems.light.section import Light

        return Light()

    def sweep(self) -> Sweeper:
        from bittrue.flow.systems.light.sweep import Conversions

        return Conversions()


SYSTEM = Photonic()
