"""What the systems add to the command line: their commands, options of `bittrue flow`, and the list of them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from bittrue.flow.cli.console import ERR, show, table
from bittrue.flow.cli.options import AsJson, complete_recipe
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine import registry
from bittrue.flow.engine.system import Shortcut, System
from bittrue.sim.errors import BittrueError

#: Options of the same name, by name: what each system says of its own.
Shortcuts = dict[str, dict[str, Shortcut]]


def mount(app: typer.Typer) -> None:
    """Add `bittrue systems`, and the commands of every system."""
    app.command("recipes")(list_recipes)
    app.command()(systems)
    for system in list(registry.systems().values()):
        before, groups = list(app.registered_commands), list(app.registered_groups)
        try:
            system.register(app)
            new = [*app.registered_commands[len(before) :], *app.registered_groups[len(groups) :]]
            _refuse_twins([*before, *groups], new)
        except Exception as error:  # whatever a foreign package raises
            app.registered_commands[:], app.registered_groups[:] = before, groups
            registry.withdraw(system.name, error)


def _refuse_twins(before: list[Any], new: list[Any]) -> None:
    """An error where a new command, or group of commands, has the name of one that was there before it."""
    taken = {_name(command) for command in before}
    for command in new:
        if _name(command) in taken:
            raise BittrueError(f"a command `bittrue {_name(command)}` is there already; register another name")
        taken.add(_name(command))


def _name(command: Any) -> str:
    if hasattr(command, "typer_instance"):  # a group
        return command.name if isinstance(command.name, str) else command.typer_instance.info.name
    return command.name or command.callback.__name__.replace("_", "-")


def systems(as_json: AsJson = False) -> None:
    """List the systems that recipes can name, with the recipes that come with each.

    A system of your own appears here when its package is installed; CONTRIBUTING says how to write one.

    Example: `bittrue systems`
    """
    known = registry.systems().values()
    if as_json:
        print(json.dumps({one.name: {"title": one.title, "recipes": sorted(one.recipes())} for one in known}))
        return
    rows = [(one.name, one.title, ", ".join(one.recipes())) for one in known]
    show(table("Systems", ("system", "what it is", "recipes"), rows))


def list_recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One of them: print it whole, to be changed.", metavar="[RECIPE]", autocompletion=complete_recipe
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the recipes to begin with, or print one with all its keys.

    Examples:

        bittrue recipes

        bittrue recipes relu-digits > my-recipe.yaml
    """
    if name is not None:
        recipe = recipes.load(name)
        print(json.dumps(recipe.model_dump(mode="json")) if as_json else recipe.to_yaml().rstrip())
        return
    known = {one: recipes.load(one) for one in recipes.shipped()}
    if as_json:
        told = {one: (of.system, of.dataset.name, of.description) for one, of in known.items()}
        keys = ("system", "dataset", "description")
        print(json.dumps({one: dict(zip(keys, values, strict=True)) for one, values in told.items()}))
        return
    rows = [(one, of.system, of.description) for one, of in known.items()]
    show(table("Recipes", ("recipe", "system", "what it makes"), rows))


def told() -> None:
    """Say which packages name a system that cannot be used; nothing where all can."""
    for sentence in registry.found().broken.values():
        ERR.print(f"note: {sentence}", soft_wrap=True, highlight=False, markup=False)


# -- `bittrue flow` ------------------------------------------------------------------------------------
def paragraph() -> str:
    """The systems and their recipes, for the help of `bittrue flow`."""
    lines = [_line(system) for system in registry.systems().values()]
    return "\n".join(["Systems, and the recipes that come with them:", "", *lines])


def _line(system: System) -> str:
    known = ", ".join(f"`{name}`" for name in system.recipes())
    return f"- `{system.name}`: {system.title}" + (f" ({known})" if known else "")


def with_shortcuts(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every shortcut of the systems; it is given them by name as `**shortcuts`."""
    signature = inspect.signature(command, eval_str=True)
    kept = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for name, owners in _shortcuts().items():
        words = "; ".join(f"{system}: {one.help} (`{one.key}`)" for system, one in owners.items())
        option = typer.Option(f"--{name}", help=f"Recipes of {words}.")
        kept.append(
            inspect.Parameter(
                name.replace("-", "_"),
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, option],
            )
        )

    def run(*values: Any, **named: Any) -> None:
        command(*values, **named)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return run


def overrides(recipe: str, shortcuts: dict[str, str | None]) -> list[str]:
    """The shortcuts that were given, as overrides; refused where the recipe's system has none of that name."""
    given = {name.replace("_", "-"): value for name, value in shortcuts.items() if value is not None}
    if not given:
        return []
    loaded, known = recipes.load(recipe), _shortcuts()
    keys = {}
    for name in given:
        owners = known[name]
        if loaded.system not in owners:
            others = [one for owner in owners for one in registry.find(owner).recipes()]
            hint = f", such as {others[0]}" if others else ""
            raise BittrueError(
                f"--{name}: recipe {loaded.name!r} is of the system {loaded.system!r}, which has no such option; "
                f"it is for recipes of the system {' or '.join(owners)}{hint}"
            )
        keys[name] = owners[loaded.system].key
    return [f"{keys[name]}={value}" for name, value in given.items()]


def _shortcuts() -> Shortcuts:
    found: Shortcuts = {}
    for system in registry.systems().values():
        for one in system.shortcuts:
            found.setdefault(one.name, {})[system.name] = one
    return found
