"""The command of photonic networks: `bittrue sweep`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bittrue.flow.cli import console, options


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(sweep)


def sweep(
    recipe: options.Recipe,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes of the recipe for all points.", metavar="[KEY.SUB=VALUE]..."),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(help="An axis: a key of `array` or `calibrate` and its values.", metavar="KEY.SUB=VALUE,VALUE"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of noise and errors of setting for each point.", min=1)] = 8,
    images: Annotated[int | None, typer.Option(help="Test images, the first ones; default: all.", min=1)] = None,
    qat: Annotated[bool, typer.Option("--qat", help="Train every point in exact integers (`finetune`).")] = False,
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
    """Measure a photonic network's accuracy over settings of its array and seeds of its noise.

    The recipe's network is trained if it is not yet, then converted for every point. After an interruption the same
    command evaluates only what is missing. Leaves `sweep.json` and `sweep.svg`: the first axis that varies runs across
    the picture, the second makes its lines, and every choice of further ones has a panel.

    Examples:

        bittrue sweep photonic-mlp-digits --over array.adc_bits=4,5,6,8 --over array.rows=16,64

        bittrue sweep photonic-mlp-digits --over array.noise.thermal=0,0.01,0.1 --over array.adc_bits=6,8 --seeds 16

        bittrue sweep photonic-mlp-digits --over array.noise.rin_db_per_hz=-150,-120,-110 array.noise.bandwidth_hz=1e9

        bittrue sweep photonic-mlp-digits --over calibrate.method=constant --over calibrate.alpha=0.5,0.8,1

        bittrue sweep photonic-mlp-fashion-mnist --over array.window=pedestal,full --scheduler tcp://head:8786
    """
    from bittrue.flow.systems.light import sweep as sweeps
    from bittrue.flow.systems.light.sweep_figure import show

    with console.Bars() as bars:
        result = sweeps.run(
            recipe, over or (), seeds, images,
            overrides=overrides or (), flow=flow, out=out, trained=qat, scheduler=scheduler, workers=workers,
            listener=bars,
        )  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    keys = [axis["key"] for axis in result["axes"]]
    short = [key.rpartition(".")[2] for key in keys]  # whole keys are wide, and named where they are swept
    named = short if len(set(short)) == len(keys) else keys
    heads = (*named, "seeds", "mean", "deviation", "lowest", "highest")
    rows = [
        (
            *(show(row["values"][key]) for key in keys),
            len(row["seeds"]),
            console.percent(row["mean"]),
            console.percent(row["deviation"] if len(row["seeds"]) > 1 else None),
            *(console.percent(row[name]) for name in ("lowest", "highest")),
        )
        for row in result["points"]
    ]
    title = f"Accuracy of {result['recipe']} on {result['images']:,} test images"
    console.show(console.table(title, heads, rows, f"float: {console.percent(result['accuracy_float'])}"))
    console.line(f"{result['folder']}/{sweeps.JSON} and {sweeps.PICTURE}")
