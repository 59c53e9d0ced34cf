"""The system `mimo`: networks that take several images in one pass, in floats, in integers, and as a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bittrue.flow.engine.system import TRAINING, System

if TYPE_CHECKING:
    import typer

    from bittrue.flow.engine.steps import Step
    from bittrue.flow.report.section import Section


class Mimo(System):
    """Wide residual networks that images go through together, bound with keys."""

    name = "mimo"
    title = "several images in one pass, bound with keys (MIMONet)"
    reads = {"train": ("network", "train"), "quantize": ("convert", "qat"), "lower": ()}

    @property
    def code(self) -> tuple[str, ...]:
        return (*TRAINING, *self.sources("recipe.py", "steps.py", "told.py"))

    def steps(self, recipe: Any) -> list[Step]:  # noqa: ARG002
        """The step `modes`: what every mode costs, beside the networks that take one image."""
        from bittrue.flow.engine.steps import Step
        from bittrue.flow.systems.mimo import steps

        code = (*self.sources("steps.py", "beside.py"), "models", "flow/report/energy.py", "sim", "rtl")
        sections = ("dataset", "network", "convert", "rtl", "synth")
        return [Step("modes", steps.modes, ("lower", "rtl"), sections, code, ("torch", "numpy"))]

    def section(self) -> Section:
        from bittrue.flow.systems.mimo.section import Modes

        return Modes()

    def register(self, app: typer.Typer) -> None:
        from bittrue.flow.systems.mimo import commands

        commands.register(app)


SYSTEM = Mimo()
