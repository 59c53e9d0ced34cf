"""The system `fs`: recipes, steps, figures and commands of networks of FS-neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bittrue.flow.engine.system import TRAINING, System

if TYPE_CHECKING:
    import typer

    from bittrue.flow.engine.steps import Step
    from bittrue.flow.report.section import Section
    from bittrue.flow.systems.fs.recipe import Recipe


class FsNeurons(System):
    """A trained MLP or ResMLP whose activations become FS-neurons, spikes that few additions read."""

    name = "fs"
    title = "MLP or ResMLP converted to FS-neurons: spikes, whose readers only add"
    reads = {"train": ("network", "train"), "quantize": ("convert", "quantize", "finetune", "sweep"), "lower": ()}

    @property
    def code(self) -> tuple[str, ...]:
        return (*TRAINING, *self.sources("recipe.py", "steps.py", "spikes.py"))

    def steps(self, recipe: Recipe) -> list[Step]:  # noqa: ARG002
        """The step `spikes`: rasters and energy."""
        from bittrue.flow import stages
        from bittrue.flow.engine.steps import Step
        from bittrue.flow.run.sources import SIMULATORS
        from bittrue.flow.systems.fs import steps

        code = self.sources("steps.py", "spikes.py", "raster.py", "energy.py")
        code += tuple(f"flow/run/{name}.py" for name in ("waves", "probe", "toggles"))
        code += ("flow/report/energy.py", "rtl", *SIMULATORS)
        return [Step("spikes", steps.hardware, ("lower", "rtl"), ("verify",), code, (), stages.tools)]

    def section(self) -> Section:
        from bittrue.flow.systems.fs.section import Spikes

        return Spikes()

    def register(self, app: typer.Typer) -> None:
        from bittrue.flow.systems.fs import commands

        commands.register(app)


SYSTEM = FsNeurons()
