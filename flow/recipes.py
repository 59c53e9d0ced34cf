"""A recipe from its name, or its file, to its report: what `bittrue flow` does, as a function."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bittrue.flow import stages
from bittrue.flow.engine import kernels, steps
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine.steps import Listener, Outcome
from bittrue.flow.report import report as reports


def run_recipe(
    recipe: str | Path,
    overrides: Iterable[str] = (),
    folder: str | Path | None = None,
    *,
    until: str | None = None,
    start: str | None = None,
    force: bool = False,
    listener: Listener | None = None,
) -> tuple[Path, list[Outcome]]:
    """Run a recipe; its folder, and what became of each step, in order.

    recipe      a shipped recipe by name, or a YAML file
    overrides   changes of its keys, such as "train.epochs=5"
    folder      where each step has a folder; `build/<name of the recipe>` by default. A step that is there already and
                depends on nothing that has changed is not run again
    until       the last step to run; by default all are, and `report.json` and `report.html` lie in the folder
    start       this step and those after it run in any case
    force       every step runs in any case
    listener    is told when a step begins, how far it is, and when it ends

    Raises BittrueError for a recipe that cannot be used and a step that cannot be done. Whether every execution was
    equal bit for bit is in the result of the steps and in the report.
    """
    kernels.hold()
    loaded = recipes.load(recipe, overrides)
    place = Path(folder) if folder is not None else Path("build") / loaded.name
    todo = stages.steps(loaded)
    outcomes = steps.run(todo, loaded, place, until, todo[0].name if force else start, listener)
    if outcomes[-1].step == "report":
        reports.publish(outcomes[-1].folder, place)
    return place, outcomes
