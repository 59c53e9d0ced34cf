"""The command `bittrue sweep`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bittrue.flow.cli import console, options
from bittrue.flow.engine.sweeper import WITHIN


def sweep(
    recipe: options.Recipe,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes of the recipe for all points.", metavar="[KEY.SUB=VALUE]..."),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(help="An axis: a key of the recipe and its values.", metavar="KEY.SUB=VALUE,VALUE"),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Seeds for each point that has anything random; default: see below.", min=1)
    ] = None,
    images: Annotated[int | None, typer.Option(help="Test images, the first ones; default: all.", min=1)] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="Train every point in exact integers, where the recipe leaves it open.")
    ] = False,
    within: Annotated[
        float | None,
        typer.Option(
            help="Where points have a size: tell the smallest one at most so many points of accuracy below the "
            f"reference; default {WITHIN}.",
            metavar="POINTS",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, `tcp://host:8786`; default: this machine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine; default: one for each core.", min=1)
    ] = None,
    flow: Annotated[
        Path | None, options.to_folder("--flow", help="Folder of the flow; default `build/<recipe>`.")
    ] = None,
    out: Annotated[Path | None, options.to_folder(help="Folder of the sweep; default `sweep` in the flow's.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure accuracy over settings of a recipe, and seeds.

    The recipe is trained if it is not yet (`train`), and every point goes on from there. After an interruption the same
    command evaluates only what is missing. Leaves `sweep.json` and `sweep.svg`: the first axis that varies runs across
    the picture, the second makes its lines, and every choice of further ones has a panel.
    """
    from bittrue.flow.engine import sweep as sweeps
    from bittrue.flow.report.sweep_figure import show

    with console.Bars() as bars:
        result = sweeps.run(
            recipe, over or (), seeds, images,
            overrides=overrides or (), flow=flow, out=out, trained=qat, within=within, scheduler=scheduler,
            workers=workers, listener=bars,
        )  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    keys = [axis["key"] for axis in result["axes"]]
    short = [key.rpartition(".")[2] for key in keys]  # whole keys are wide, and named where they are swept
    named = short if len(set(short)) == len(keys) else keys
    sizes = [name for name in result["points"][0] if name not in MEASURED]
    heads = (*named, "seeds", "mean", "deviation", "lowest", "highest", *sizes)
    rows = [
        (
            *(show(row["values"][key]) for key in keys),
            len(row["seeds"]),
            console.percent(row["mean"]),
            console.percent(row["deviation"] if len(row["seeds"]) > 1 else None),
            *(console.percent(row[name]) for name in ("lowest", "highest")),
            *(_size(row[name]) for name in sizes),
        )
        for row in result["points"]
    ]
    title = f"Accuracy of {result['recipe']} on {result['images']:,} test images"
    reference = result["reference"]
    caption = f"{reference}: {console.percent(result[f'accuracy_{reference}'])}"
    console.show(console.table(title, heads, rows, caption))
    if "smallest" in result:
        console.line(_smallest(result, dict(zip(keys, named, strict=True)), sizes))
    console.line(f"{result['folder']}/{sweeps.JSON} and {sweeps.PICTURE}")


#: What every point of a result has; whatever else one has is a figure of its system.
MEASURED = ("values", "seeds", "mean", "deviation", "lowest", "highest")


def _size(figure: float) -> str:
    """A count, or a share."""
    return f"{figure:,}" if isinstance(figure, int) else console.percent(figure)


def _smallest(result: Mapping[str, Any], named: Mapping[str, str], sizes: list[str]) -> str:
    """Which point is the smallest near the reference, in words."""
    from bittrue.flow.report.sweep_figure import show

    near = f"within {result['within']:g} points of the {result['reference']}"
    one = result["smallest"]
    if one is None:
        return f"no point lies {near}"
    values = ", ".join(f"{named[key]} = {show(value)}" for key, value in one["values"].items())
    figures = ", ".join(f"{name} {_size(one[name])}" for name in sizes)
    return f"smallest {near}: {values}; mean {console.percent(one['mean'])}, {figures}"


def register(app: typer.Typer) -> None:
    """Add the command, with what the systems say of it in its help."""
    from bittrue.flow.engine.grid import sweepers

    lines, examples = [], []
    for name, one in sweepers().items():
        sections = ", ".join(f"`{section}`" for section in one.sections)
        words = [f"keys of {sections}", f"seeds from `{one.seed}` on, by default {one.seeds}"]
        words += [f"`--qat` trains by `{one.training}`"] * bool(one.training)
        words += [f"`--within` tells the point of the fewest {one.cost} near the {one.reference}"] * bool(one.cost)
        lines.append(f"- `{name}`: {'; '.join(words)}")
        examples += one.examples
    words = [
        "What varies, by the system of the recipe:",
        "",
        *lines,
        "",
        "Examples:",
        "",
        "\n\n".join(f"    {one}" for one in examples),
    ]
    app.command(help="\n".join([inspect.getdoc(sweep) or "", "", *words]))(sweep)
