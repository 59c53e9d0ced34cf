"""What a system is to the flow: one declared object, with a default for everything that it may leave out.

A system turns a recipe into a program. It is a package: `bittrue/flow/systems/<name>/`, or a package of your own that
an entry point of the group `bittrue.systems` names (see `flow.engine.registry`). Its `__init__` declares

    class Mine(System):
        name, title = "mine", "what it is, in a few words"
        ...

    SYSTEM = Mine()

and imports nothing heavy: the command line looks at every system before it knows which one is wanted, so that torch,
hardware and figures are imported within the methods.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    from bittrue.flow.engine.recipe import Recipe
    from bittrue.flow.engine.steps import Step, Workspace
    from bittrue.flow.engine.sweeper import Sweeper
    from bittrue.flow.report.section import Section
    from bittrue.rtl.design import Design
    from bittrue.sim.program import Program

#: What decides what is trained, besides the sources of the system itself.
TRAINING = ("models", "flow/engine/training.py", "flow/engine/statistics.py", "flow/engine/kernels.py")


@dataclass(frozen=True)
class Shortcut:
    """An option of `bittrue flow` that stands for a key of this system's recipes: `--name VALUE` for `key=VALUE`."""

    name: str
    key: str
    help: str


class System:
    """A kind of network that recipes train, quantise and lower.

    name       as recipes have it after `system:`
    title      what it is, in a few words, for lists
    reads      sections of the recipe that the steps `train`, `quantize` (besides those of `train`) and `rtl` read; a
               step that is not named reads all sections which the system adds to a recipe (`rtl`: none of them)
    code       sources that decide what `train`, `quantize` and `lower` make: below the distribution, or absolute paths;
               by default training, `models`, and the whole package of the system
    shortcuts  options of `bittrue flow` that stand for keys of the recipe
    """

    name: str
    title: str
    reads: Mapping[str, tuple[str, ...]] = {}
    shortcuts: tuple[Shortcut, ...] = ()

    # -- where it is -----------------------------------------------------------------------------------
    @property
    def folder(self) -> Path:
        """The folder of the package that declares it; `recipes/*.yaml` in it are known by their names."""
        return Path(inspect.getfile(type(self))).resolve().parent

    @property
    def code(self) -> tuple[str, ...]:
        return (*TRAINING, str(self.folder))

    def sources(self, *names: str) -> tuple[str, ...]:
        """Modules of the package by their file names, for `code` and `Step.code`."""
        return tuple(str(self.folder / name) for name in names)

    # -- what it must have -----------------------------------------------------------------------------
    def part(self, name: str) -> Any:
        """The module of this name in its package; imported when it is asked for."""
        return importlib.import_module(f"{type(self).__module__}.{name}")

    @property
    def recipe(self) -> type[Recipe]:
        """The recipe's class: `flow.engine.recipe.Recipe` with sections of its own; `Recipe` of its `recipe.py`."""
        return self.part("recipe").Recipe

    def train(self, recipe: Any, work: Workspace) -> dict[str, Any]:
        """Float training, by default that of its `steps.py`. The report reads `accuracy` of what it returns, and draws
        `history` (loss and accuracy of each epoch, of which the `kept`th is what is left) where there is one; `status`
        is said when it is done."""
        return self.part("steps").train(recipe, work)

    def quantize(self, recipe: Any, work: Workspace) -> dict[str, Any]:
        """The network in integers, from what `train` left in `work.upstream["train"]`; returns as `train` does, with
        `accuracy_converted`, the accuracy before it was trained in integers, where it was."""
        return self.part("steps").quantize(recipe, work)

    def lower(self, recipe: Any, work: Workspace) -> dict[str, Any]:
        """The program, from what `quantize` left; by default that of its `steps.py`, or, where that has none, the one
        which `quantize` left with all that belongs to it.

        Leaves `program.npz`, `inputs.npy` (the encoded test set, or `inputs.npz` by input name), `labels.npy`, and
        `expected.npy`, the exact integer outputs of the quantised network in PyTorch on the same inputs (of the
        program, where it has noise of its own): `flow.engine.training.write_lowered` does it.
        """
        from bittrue.flow.engine import training

        own = getattr(self.part("steps"), "lower", None)
        return training.copy_lowered(work) if own is None else own(recipe, work)

    # -- what it may have ------------------------------------------------------------------------------
    def first(self, recipe: Any) -> list[Step]:  # noqa: ARG002
        """Steps of its own before `train`: what several trainings of one recipe begin with. `train`, `quantize` and the
        report come after all of them."""
        return []

    def steps(self, recipe: Any) -> list[Step]:  # noqa: ARG002
        """Steps of its own, between `verify` and `synth`."""
        return []

    def designs(self, recipe: Any, program: Program, folder: Path) -> Sequence[tuple[Design, tuple[str, ...]]]:  # noqa: ARG002
        """Designs that are placed and routed beside the pipeline, each with its targets, from what `lower` left in this
        folder."""
        return ()

    def section(self) -> Section:
        """Its part of the report."""
        from bittrue.flow.report.section import Section

        return Section()

    def sweep(self) -> Sweeper | None:
        """What `bittrue sweep` varies of its recipes; None: nothing. Asked for by the help of the command, too."""
        return None

    def register(self, app: typer.Typer) -> None:  # noqa: B027  (may be left out)
        """Add its commands to the application."""

    # -- for the flow ----------------------------------------------------------------------------------
    def recipes(self) -> dict[str, Path]:
        """The recipes that come with it, by name."""
        return {path.stem: path for path in sorted(self.folder.glob("recipes/*.yaml"))}
