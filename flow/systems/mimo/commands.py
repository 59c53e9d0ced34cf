"""The commands of networks that take several images in one pass: `bittrue mimo macs`, `validate` and `keys`."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bittrue.flow.cli import console, options
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.models.superposition.settings import SuperpositionSettings


def register(app: typer.Typer) -> None:
    """Add the group of commands to the application."""
    group = typer.Typer(
        name="mimo", no_args_is_help=True, help="Several images in one pass: what it saves, and how well it does."
    )
    group.command()(macs)
    group.command()(validate)
    group.command()(keys)
    app.add_typer(group)


def macs(
    network: Annotated[
        str | None,
        typer.Argument(help="Kind and depth, e.g. `MIMONet-28`; default: the published ones.", metavar="[NETWORK]"),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Width of the stages (1).", min=1)] = None,
    initial_width: Annotated[int | None, typer.Option(help="Width at the binding, D / 16 (1).", min=1)] = None,
    slots: Annotated[int | None, typer.Option(help="N, images that a pass can take (1).", min=1)] = None,
    binding: Annotated[str | None, typer.Option(help="`HRR`, `MBAT` or `None` (HRR).")] = None,
    stem_stride: Annotated[int | None, typer.Option(help="Stride of the first convolution, 1 or 2 (1).")] = None,
    image: Annotated[str, typer.Option(help="Height, width and channels.", metavar="HxWxC")] = "32x32x3",
    classes: Annotated[int, typer.Option(help="Classes.", min=1)] = 10,
    summed_keys: Annotated[
        bool, typer.Option("--summed-keys", help="Keys of an image's copies are added first.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Count the multiply-accumulates for an input, at every number of images at a time.

    They are counted from the shapes that the network's own modules see, and the binding by its rule, D x D for every
    pixel and slot. Beside each stands the speed-up over the ordinary network of its depth and width, whose initial
    width is 1, and over the same network with one slot.

    Examples:

        bittrue mimo macs

        bittrue mimo macs MIMONet-10 --width 2 --initial-width 4 --slots 4 --image 28x28x1
    """
    from bittrue.models.superposition import macs as counts

    chosen = {"width": width, "initial_width": initial_width, "slots": slots, "binding": binding}
    chosen |= {"stem_stride": stem_stride}
    given = {name: value for name, value in chosen.items() if value is not None}
    if network is None and given:
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise BittrueError(f"mimo macs: {option} is of one network; name it in front, such as MIMONet-28")
    shape = options.image(image)
    networks = counts.published() if network is None else [_named(network, given)]
    rows = counts.table(networks, shape=shape, classes=classes, summed=summed_keys)
    if as_json:
        print(json.dumps([_row(*row) for row in rows]))
        return
    body = []
    for row in rows:
        told = _row(*row)
        millions = [f"{told[part] / 1e6:.2f}" for part in ("parameters", *counts.PARTS, "total")]
        speeds = ["–" if told[name] is None else f"{told[name]:.3f}" for name in ("speed_up", "over_one_slot")]
        geometry = [told[name] for name in ("width", "initial_width", "slots", "images")]
        body.append([told["network"], *geometry, *(Text(words, justify="right") for words in (*millions, *speeds))])
    heads = (
        "network",
        "width",
        "initial",
        "slots",
        "at a time",
        "parameters",
        *counts.PARTS,
        "total",
        "speed-up",
        "/ N = 1",
    )
    said = "speed-up: over the WideResNet of its depth and width; / N = 1: over the same network with one slot"
    title = f"Multiply-accumulates for an input of {image}, in millions"
    console.show(console.table(title, heads, body, said))


def _row(count: Any, speed: float, alone: float | None) -> dict[str, Any]:
    from bittrue.models.superposition.macs import PARTS

    of = count.network
    told: dict[str, Any] = {"network": f"{of.kind}-{of.depth}", "width": of.width, "initial_width": of.initial_width}
    told |= {"bound_by": of.binding, "slots": of.slots, "images": count.images, "parameters": count.parameters}
    told |= {part: getattr(count, part) for part in (*PARTS, "total")}
    return told | {"speed_up": speed, "over_one_slot": alone}


def _named(name: str, given: dict[str, Any]) -> SuperpositionSettings:
    """`MIMONet-28` with these settings."""
    from pydantic import ValidationError

    from bittrue.models.superposition.settings import SuperpositionSettings

    kind, _, depth = name.rpartition("-")
    try:
        return SuperpositionSettings.model_validate(
            {"kind": kind, "depth": int(depth) if depth.isdecimal() else depth, **given}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        key, said = ".".join(map(str, problem["loc"])) or "its settings", problem["msg"]
        raise BittrueError(
            f"mimo macs {name}: {key}: {said[0].lower() + said[1:]}; a network is named by its kind and depth, such as "
            "MIMONet-28, its sizes by options"
        ) from error


def validate(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    images: Annotated[
        str | None, typer.Option(help="Images at a time, comma-separated; default: every number that divides N.")
    ] = None,
    pairings: Annotated[int, typer.Option(help="Random pairings of the images for each mode.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Of the pairings.", min=0)] = 0,
    split: Annotated[str, typer.Option(help="Which images: `test` or `val`.")] = "test",
    network: Annotated[
        Path | None, options.from_file("--network", help="A trained `network.pt` instead of the recipe's training.")
    ] = None,
    out: options.FlowFolder = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a network with several numbers of images at a time, trained for them or not.

    The recipe's network is trained if it is not yet. Which images share a pass is random, so that each mode is measured
    over several pairings. Time is that of the float network alone, the fastest of three turns, on this machine.

    Examples:

        bittrue mimo validate my-recipe.yaml --images 1,2,4

        bittrue mimo validate my-recipe.yaml --network network.pt --pairings 10
    """
    from bittrue.flow.systems.mimo import validate as validation

    with console.Bars() as bars:
        result = validation.run(
            recipe, overrides or (), validation.modes(images), pairings,
            seed=seed, split=split, network=network, flow=out, listener=bars,
        )  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    heads = ("at a time", "trained", "pairings", "mean", "deviation", "lowest", "highest", "us an image")
    rows = [
        (
            mode["images"],
            mode["trained"],
            len(mode["accuracies"]),
            console.percent(mode["mean"]),
            console.percent(mode["deviation"]),
            console.percent(min(mode["accuracies"])),
            console.percent(max(mode["accuracies"])),
            1e6 * mode["seconds_per_image"],
        )
        for mode in result["modes"]
    ]
    console.show(
        console.table(f"Accuracy of {result['network']} on {result['images']:,} images ({split})", heads, rows)
    )


def keys(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    bits: Annotated[str, typer.Option(help="Widths of the keys, comma-separated, each from 2 to 8.")] = "8,4,2",
    pairings: Annotated[int, typer.Option(help="Random pairings of the images for each mode.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the pairings.", min=0)] = 0,
    split: Annotated[str, typer.Option(help="Which images: `test` or `val`.")] = "test",
    network: Annotated[
        Path | None, options.from_file("--network", help="A trained `network.pt` instead of the recipe's training.")
    ] = None,
    out: options.FlowFolder = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare widths of the keys: the accuracy of a network in integers, in every mode that these take.

    The recipe's network is trained if it is not yet, then quantised by the recipe's section `convert` but for the keys,
    and not trained in integers. All weights but the keys keep their width.

    Examples:

        bittrue mimo keys mimonet-fashion-mnist

        bittrue mimo keys my-recipe.yaml --network network.pt --bits 8,6,4,3,2
    """
    from bittrue.flow.systems.mimo import keys as comparison

    with console.Bars() as bars:
        result = comparison.run(
            recipe, overrides or (), comparison.widths(bits), pairings,
            seed=seed, split=split, network=network, flow=out, listener=bars,
        )  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    heads = ("keys", *(f"{n} at a time" for n in result["modes"]))
    named = [("float", result["float"]), *((f"{row['bits']} bits", row["accuracies"]) for row in result["rows"])]
    rows = [(name, *(_spread(found[str(n)]) for n in result["modes"])) for name, found in named]
    said = f"mean and standard deviation over {pairings} pairings" if pairings > 1 else ""
    title = f"Accuracy of {result['network']} in integers on {result['images']:,} images ({split})"
    console.show(console.table(title, heads, rows, *([said] if said else [])))


def _spread(accuracies: list[float]) -> Text:
    """Mean and, of several, standard deviation."""
    mean = console.percent(fmean(accuracies))
    return Text(f"{mean} ± {100 * stdev(accuracies):.2f}" if len(accuracies) > 1 else mean, justify="right")
