"""The command `bittrue`."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bittrue.flow.cli import console
from bittrue.flow.cli import program as cli_program
from bittrue.flow.cli import systems as cli_systems
from bittrue.flow.cli.console import ERR, OUT
from bittrue.sim.errors import sentence
from bittrue.sim.extras import explained

#: Exit status after Ctrl-C, as shells have it.
INTERRUPTED = 130

app = typer.Typer(
    name="bittrue",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
    help="From a PyTorch network to verified hardware: one integer program, many executions, equal bit for bit.",
    epilog="`bittrue systems` lists the recipes to begin with; `bittrue doctor` says what this machine lacks.",
)

RecipeArgument = Annotated[str, typer.Argument(help="A shipped recipe by name, or a YAML file.", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes of the recipe, e.g. `train.epochs=5`.", metavar="[KEY.SUB=VALUE]...")
]
FlowFolder = Annotated[Path | None, typer.Option("--out", help="Folder of the flow; default `build/<recipe>`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:  # noqa: ARG001
    pass  # `main` reads --debug itself: an error can come before the options are parsed


# -- the flow ------------------------------------------------------------------------------------------
def flow(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: FlowFolder = None,
    until: Annotated[str | None, typer.Option(help="The last step to run.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Run this step and the ones after it in any case.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Run every step in any case.")] = False,
    as_json: AsJson = False,
    **shortcuts: str | None,
) -> None:
    """Run a recipe: train, quantize, lower, simulate, rtl, hls, verify, synth, report.

    A system may have steps of its own between verify and synth.
    A step is skipped when nothing that it depends on has changed; after an interruption the same command continues.
    The status is 0 only if every execution was equal, bit for bit.

    Examples:

        bittrue flow my-recipe.yaml

        bittrue flow my-recipe.yaml train.epochs=10 rtl.interval=1024 --out /tmp/quick

        bittrue flow my-recipe.yaml --until simulate

        bittrue flow my-recipe.yaml --from verify
    """
    overrides = [*(overrides or ()), *cli_systems.overrides(recipe, shortcuts)]
    folder, outcomes = _flow(recipe, overrides, out, until, "train" if force else start)
    if outcomes[-1].step == "report":
        _show_report(folder, as_json)
        return
    if as_json:
        print(json.dumps({outcome.step: outcome.result for outcome in outcomes}))
    console.conclude([problem for outcome in outcomes for problem in outcome.result.get("problems", ())])


app.command(help=f"{inspect.getdoc(flow)}\n\n{cli_systems.paragraph()}")(cli_systems.with_shortcuts(flow))


@app.command()
def train(recipe: RecipeArgument, overrides: Overrides = None, out: FlowFolder = None, as_json: AsJson = False) -> None:
    """Train the float network of a recipe (the flow up to `train`).

    Example: `bittrue train my-recipe.yaml train.epochs=20`
    """
    _, outcomes = _flow(recipe, overrides, out, "train", None)
    result = outcomes[-1].result
    console.say(as_json, result, f"float accuracy {console.percent(result['accuracy'])} on the test set")


@app.command()
def quantize(
    recipe: RecipeArgument, overrides: Overrides = None, out: FlowFolder = None, as_json: AsJson = False
) -> None:
    """Quantise to integers and write the program (the flow up to `lower`).

    Example: `bittrue quantize my-recipe.yaml`
    """
    folder, outcomes = _flow(recipe, overrides, out, "lower", None)
    result = next(o.result for o in outcomes if o.step == "quantize")
    place = folder / "lower" / "program.npz"
    sentence = f"integer accuracy {console.percent(result['accuracy'])}; {place}"
    console.say(as_json, result | {"program": str(place)}, sentence)


cli_program.register(app)


# -- results and tools ---------------------------------------------------------------------------------
@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a flow, e.g. `build/my-recipe`.")],
    as_json: AsJson = False,
) -> None:
    """Show the report of a flow again, and write `report.html` from its `report.json`.

    Example: `bittrue report build/my-recipe`
    """
    from bittrue.flow.report import report as reports

    reports.write_html(reports.read(folder / "report.json"), folder)
    _show_report(folder, as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, what is missing, what that costs, and how to get it.

    Example: `bittrue doctor`
    """
    from bittrue.flow.cli import doctor as checks

    raise typer.Exit(checks.run(OUT, as_json))


cli_systems.mount(app)


# -- helpers -------------------------------------------------------------------------------------------
def _flow(recipe: str, overrides: list[str] | None, out: Path | None, until: str | None, start: str | None):
    from bittrue.flow.recipes import run_recipe

    with console.Bars() as bars:
        return run_recipe(recipe, overrides or (), out, until=until, start=start, listener=bars)


def _show_report(folder: Path, as_json: bool) -> None:
    from bittrue.flow.report import report as reports

    content = reports.read(folder / "report.json")
    if as_json:
        print(json.dumps(content))
    else:
        reports.show(content, OUT)
        OUT.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    console.conclude(reports.problems(content))


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The words without a `--debug`, which is understood before and behind a command, and whether there was one."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    left = [word for word in arguments[:end] if word != "--debug"]
    return [*left, *arguments[end:]], len(left) < end


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error for people ends it with one sentence and status 1."""
    arguments, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
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


if __name__ == "__main__":
    main()
