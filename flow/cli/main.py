"""The command `bittrue`."""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bittrue import __version__
from bittrue.flow.cli import console, options
from bittrue.flow.cli import program as cli_program
from bittrue.flow.cli import sweep as cli_sweep
from bittrue.flow.cli import systems as cli_systems
from bittrue.flow.cli.console import ERR, OUT
from bittrue.flow.engine import kernels
from bittrue.flow.engine import recipe as recipes
from bittrue.sim import caches
from bittrue.sim.errors import sentence
from bittrue.sim.extras import explained
from bittrue.sim.files import PlaceError
from bittrue.sim.locks import locked

#: Exit status after Ctrl-C, as shells have it.
INTERRUPTED = 130
#: What a shell sets that asks for completions.
COMPLETE = "_BITTRUE_COMPLETE"


class Commands(TyperGroup):
    """The commands; a recipe in the place of one is told how it is run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0] if args else ""
        if self.get_command(ctx, word) is None and (word in recipes.shipped() or word.endswith((".yaml", ".yml"))):
            ctx.fail(f"{word!r} is a recipe, not a command: bittrue flow {word}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="bittrue",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a PyTorch network to verified hardware: one integer program, many executions, equal bit for bit.",
    epilog="`bittrue recipes` lists what to begin with; `bittrue doctor` says what this machine lacks.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"bittrue {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[  # noqa: ARG001
        bool, typer.Option("--debug", help="Show the traceback of an error; also behind a command.")
    ] = False,
) -> None:
    pass  # `main` reads --debug itself: an error can come before the options are parsed


# -- the flow ------------------------------------------------------------------------------------------
def flow(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    out: options.FlowFolder = None,
    until: Annotated[
        str | None, typer.Option(help="The last step to run.", autocompletion=options.complete_step)
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Run this step and the ones after it in any case.", autocompletion=options.complete_step
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run every step in any case.")] = False,
    as_json: options.AsJson = False,
    **shortcuts: str | None,
) -> None:
    """Run a recipe: train, quantize, lower, simulate, rtl, hls, verify, synth, report.

    A system may have steps of its own before train, and between verify and synth.
    A step is skipped when nothing that it depends on has changed; after an interruption the same command continues.
    The status is 0 only if every execution was equal, bit for bit.

    Examples:

        bittrue flow my-recipe.yaml

        bittrue flow my-recipe.yaml train.epochs=10 rtl.interval=1024 --out /tmp/quick

        bittrue flow my-recipe.yaml --until simulate

        bittrue flow my-recipe.yaml --from verify
    """
    overrides = [*(overrides or ()), *cli_systems.overrides(recipe, shortcuts)]
    folder, outcomes = _flow(recipe, overrides, out, until, start, force)
    if outcomes[-1].step == "report":
        _show_report(folder, as_json)
        return
    if as_json:
        print(json.dumps({outcome.step: outcome.result for outcome in outcomes}))
    console.conclude([problem for outcome in outcomes for problem in outcome.result.get("problems", ())])


app.command(help=f"{inspect.getdoc(flow)}\n\n{cli_systems.paragraph()}")(cli_systems.with_shortcuts(flow))


@app.command()
def train(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    out: options.FlowFolder = None,
    as_json: options.AsJson = False,
) -> None:
    """Train the float network of a recipe (the flow up to `train`).

    Example: `bittrue train my-recipe.yaml train.epochs=20`
    """
    _, outcomes = _flow(recipe, overrides, out, "train")
    result = outcomes[-1].result
    console.say(as_json, result, f"float accuracy {console.percent(result['accuracy'])} on the test set")


@app.command()
def quantize(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    out: options.FlowFolder = None,
    as_json: options.AsJson = False,
) -> None:
    """Quantise to integers and write the program (the flow up to `lower`).

    Example: `bittrue quantize my-recipe.yaml`
    """
    folder, outcomes = _flow(recipe, overrides, out, "lower")
    result = next(o.result for o in outcomes if o.step == "quantize")
    place = folder / "lower" / "program.npz"
    sentence = f"integer accuracy {console.percent(result['accuracy'])}; {place}"
    console.say(as_json, result | {"program": str(place)}, sentence)


cli_program.register(app)


# -- results and tools ---------------------------------------------------------------------------------
@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a flow, e.g. `build/my-recipe`.", metavar="FOLDER")],
    as_json: options.AsJson = False,
) -> None:
    """Show the report of a flow again, and write `report.html` from its `report.json`; where nothing can be written
    the report is shown all the same.

    Example: `bittrue report build/my-recipe`
    """
    from bittrue.flow.report import report as reports

    content = reports.read(folder / "report.json")  # before the lock, which would make a folder that is not there
    try:
        with locked(folder):
            reports.write_html(content, folder)
    except PlaceError as error:  # a folder of another's, or on a medium that is only read: it is shown all the same
        ERR.print(f"note: {error}", soft_wrap=True, highlight=False, markup=False)
    _show_report(folder, as_json)


@app.command()
def doctor(
    extra: Annotated[
        list[str] | None, typer.Option(help="An extra to ask for, such as `rtl`; default: those that are installed.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what is installed, what is missing, what that costs, and how to get it.

    The status is 0 if everything is there that the installed extras need, in a source tree all that the tests need.

    Examples:

        bittrue doctor

        bittrue doctor --extra rtl --extra synth
    """
    from bittrue.flow.cli import doctor as checks

    raise typer.Exit(checks.run(OUT, as_json, extra or ()))


cli_sweep.register(app)
cli_systems.mount(app)


# -- helpers -------------------------------------------------------------------------------------------
def _flow(
    recipe: str, overrides: list[str] | None, out: Path | None, until: str | None, start: str | None = None,
    force: bool = False,
):  # fmt: skip
    from bittrue.flow.recipes import run_recipe

    with console.Bars() as bars:
        return run_recipe(recipe, overrides or (), out, until=until, start=start, force=force, listener=bars)


def _show_report(folder: Path, as_json: bool) -> None:
    from bittrue.flow.report import report as reports

    content = reports.read(folder / "report.json")
    if as_json:
        print(json.dumps(content))
    else:
        reports.show(content, OUT)
        if (folder / "report.html").exists():
            console.line(f"report: {folder / 'report.html'}")
    console.conclude(reports.problems(content))


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The words without a `--debug`, which is understood before and behind a command, and whether there was one."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    left = [word for word in arguments[:end] if word != "--debug"]
    return [*left, *arguments[end:]], len(left) < end


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error for people ends it with one sentence and status 1."""
    kernels.hold()  # before anything imports torch
    arguments, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
    if COMPLETE not in os.environ:
        cli_systems.told()
    try:
        with explained():
            app(args=arguments, prog_name="bittrue")
    except Exception as error:
        told = sentence(error)
        if debug or told is None:
            raise
        console.fail(told)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer has taken the KeyboardInterrupt
            ERR.print("interrupted; run the same command again to continue")
        raise
    finally:
        if why := caches.replaced():
            ERR.print(f"note: {why}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
