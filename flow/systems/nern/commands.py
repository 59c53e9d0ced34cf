"""The commands of generated kernels: `bittrue nern sizes`, `tours`, `original`, `train` and `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bittrue.flow.cli import console, options
from bittrue.sim.errors import BittrueError

#: Words behind a command that are none of its options: keys of a configuration.
KEYS = {"allow_extra_args": True, "ignore_unknown_options": True}
Architecture = Annotated[
    str | None, typer.Argument(help="ResNet8, 20, 32, 44, 56 or 18; default: the published ones.", metavar="[TARGET]")
]
ConfigFile = Annotated[Path, options.from_file("--config", help="A published configuration, YAML.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the application."""
    group = typer.Typer(
        name="nern", no_args_is_help=True, help="Kernels made by a generator: its size, its tours, its training."
    )
    group.command()(sizes)
    group.command()(tours)
    group.command()(original)
    group.command(context_settings=KEYS)(train)
    group.command(context_settings=KEYS)(evaluate)
    app.add_typer(group)


def sizes(
    target: Architecture = None,
    hidden: Annotated[str | None, typer.Option(help="Hidden sizes, comma-separated; default: the published.")] = None,
    blocks: Annotated[int, typer.Option(help="Linear layers of the generator.", min=2)] = 5,
    levels: Annotated[int, typer.Option(help="Levels of the embedding.", min=1)] = 40,
    option: Annotated[str, typer.Option(help="Shortcuts of the target: `A` or `B`.")] = "A",
    image: Annotated[str | None, typer.Option(help="Height, width and channels.", metavar="HxWxC")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare generators with the networks that they generate: parameters, bytes, multiply-accumulates.

    Bytes are those of the published comparison: one for every parameter of the generator, with the permutations,
    against one for every generated weight. Behind them what a kernel and all kernels cost, in multiply-accumulates, and
    how many passes of the target that is.

    Examples:

        bittrue nern sizes

        bittrue nern sizes ResNet8 --hidden 80,96 --levels 16 --image 28x28x1
    """
    from bittrue.models.nern import sizes as counts

    if target is None and (hidden, blocks, levels, option, image) != (None, 5, 40, "A", None):
        raise BittrueError("nern sizes: options are of one target; name it in front, such as ResNet20")
    found = counts.table() if target is None else _of(target, hidden, blocks, levels, option, image)
    if as_json:
        print(json.dumps([_row(size) for size in found]))
        return
    body, before = [], ""
    for size in found:
        told = _row(size)
        name = (
            "" if told["target"] == before else f"{told['target']} ({size.weights:,} weights, {size.kernels:,} kernels)"
        )
        before = told["target"]
        ratios = [told[key] for key in ("weights_ratio", "int8_crossfilter", "int8_infilter")]
        body.append(
            (name, told["hidden"], told["parameters"], console.percent(told["share"]), *ratios, told["macs"],
             told["macs_all"] / 1e6, told["inferences"])
        )  # fmt: skip
    heads = ("target", "H", "parameters", "of target", "ratio", "+ cross", "+ infilter", "MACs", "all, M", "passes")
    said = "ratio: weights of the target over parameters; + cross, + infilter: bytes in INT8, with the permutations; "
    said += "MACs: of a kernel; passes: of the target, whose MACs are those of all kernels"
    console.show(console.table("Generators and what they generate", heads, body, said))


def _row(size: Any) -> dict[str, Any]:
    return {
        "target": size.name,
        "weights": size.weights,
        "kernels": size.kernels,
        "hidden": size.settings.hidden_layer_size,
        "parameters": size.parameters,
        "share": size.parameters / size.weights,
        "weights_ratio": size.weights / size.parameters,
        "permutation_bytes": {mode: size.permutations(mode) for mode in ("crossfilter", "infilter")},
        "int8_crossfilter": size.ratio("crossfilter"),
        "int8_infilter": size.ratio("infilter"),
        "macs": size.macs,
        "macs_all": size.every,
        "macs_inference": size.inference,
        "inferences": round(size.every / size.inference),
    }


def _of(target: str, hidden: str | None, blocks: int, levels: int, option: str, image: str | None) -> list[Any]:
    from bittrue.models.nern import sizes as counts
    from bittrue.models.nern.settings import Embeddings, Nern

    network = _network(target, option)
    numbers = counts.PUBLISHED.get(target, ()) if hidden is None else _hidden(hidden)
    if not numbers:
        raise BittrueError(f"nern sizes {target}: no sizes of it are published; give --hidden, such as --hidden 80,96")
    settings = Nern(num_blocks=blocks, embeddings=Embeddings(enc_levels=levels, base=0.76))
    return list(counts.of(network, numbers, settings, None if image is None else options.image(image)))


def _network(target: str, option: str = "A") -> Any:
    from bittrue.flow.engine.recipe import checked
    from bittrue.models.nern.settings import TargetSettings

    return checked(TargetSettings, {"architecture": target, "option": option}, f"nern {target}", None, "a target")


def _hidden(text: str) -> list[int]:
    most = 1 << 14
    return options.numbers(text, 1, most, f"--hidden {text!r}: write whole numbers from 1 to {most}, such as 140,180")


def tours(
    target: Annotated[
        str,
        typer.Argument(help="ResNet8, 20, 32, 44, 56 or 18 with random weights, or a `network.pt`.", metavar="TARGET"),
    ],
    mode: Annotated[str, typer.Option(help="`crossfilter` or `infilter`.")] = "crossfilter",
    option: Annotated[str, typer.Option(help="Shortcuts of an architecture: `A` or `B`.")] = "A",
    workers: Annotated[int, typer.Option(help="Layers at once.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Of random weights.", min=0)] = 1,
    folder: Annotated[
        Path | None, options.to_folder("--folder", help="Folder that keeps tours; default: none.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Order the kernels of a network by greedy tours, and say how alike neighbours are before and after.

    Examples:

        bittrue nern tours ResNet18

        bittrue nern tours build/nern-resnet8-fashion-mnist/original/network.pt --mode infilter
    """
    import time

    import numpy as np
    import torch

    from bittrue.models.nern import tours as touring
    from bittrue.models.nern.networks import KNOWN, Resnet
    from bittrue.models.nern.target import Target
    from bittrue.models.training import storage

    if mode not in ("crossfilter", "infilter"):
        raise BittrueError(f"--mode {mode!r}: take crossfilter or infilter")
    if Path(target).is_file():
        network = storage.load(target, *KNOWN)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = Resnet(_network(target, option), (32, 32, 3), 10)
    found = Target(network, keep=("others",))
    weights = [weight.numpy() for weight in found.weights()]
    with console.Bars() as bars:
        bars.begin("tours")
        begin = time.perf_counter()
        made = touring.tours(
            weights, mode, folder=folder, keep=folder is not None, workers=workers,
            progress=lambda done, of: bars.progress(f"{done:,} of {of:,} kernels", done, of),
        )  # fmt: skip
        seconds = time.perf_counter() - begin
    rows = []
    for layer, weight, tour in zip(found.layers, weights, made, strict=True):
        before = touring.similarity(weight, np.arange(layer.kernels))
        rows.append({"layer": layer.path, "kernels": layer.kernels, "before": before, "after": tour.similarity})
    if as_json:
        print(json.dumps({"mode": mode, "seconds": seconds, "layers": rows}))
        return
    body = [
        (row["layer"], row["kernels"], *(row[key] / max(row["kernels"] - 1, 1) for key in ("before", "after")))
        for row in rows
    ]
    console.show(console.table("Mean cosine of neighbouring kernels", ("layer", "kernels", "before", "after"), body))
    total = sum(row["after"] for row in rows)
    console.line(f"{mode}: total similarity {total:,.2f} over {found.kernels:,} kernels, in {seconds:.1f} s")


def original(
    architecture: Annotated[str, typer.Argument(help="ResNet8, 20, 32, 44, 56 or 18.", metavar="TARGET")],
    out: Annotated[Path, options.to_file("--out", help="The network, `network.pt`.")],
    dataset: Annotated[str, typer.Option(help="Data set.")] = "cifar10",
    data: Annotated[Path | None, typer.Option(help="Folder of its files.", metavar="FOLDER")] = None,
    option: Annotated[str, typer.Option(help="Shortcuts: `A` or `B`.")] = "A",
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch: Annotated[int, typer.Option(min=2)] = 128,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 4e-3,
    weight_decay: Annotated[float, typer.Option(min=0)] = 0.05,
    augment: Annotated[str, typer.Option(help="`none`, `shift`, `flip` or `flip-shift`.")] = "flip-shift",
    smoothness: Annotated[str, typer.Option(help="Of neighbouring kernels: `none`, `Cosine` or `L2`.")] = "none",
    smoothness_factor: Annotated[float, typer.Option(min=0)] = 1e-4,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Train an original network, with kernels beside each other drawn together if wanted.

    Example: `bittrue nern original ResNet20 --data cifar-10-batches-py --smoothness Cosine --out network.pt`
    """
    from bittrue.flow.engine.recipe import checked
    from bittrue.models.data import sets
    from bittrue.models.nern import original as training
    from bittrue.models.nern.networks import Resnet
    from bittrue.models.nern.settings import Original
    from bittrue.models.training import storage
    from bittrue.models.training.loop import accuracy

    values = {"epochs": epochs, "batch": batch, "lr": lr, "weight_decay": weight_decay, "augment": augment}
    values |= {"smoothness": smoothness, "smoothness_factor": smoothness_factor, "seed": seed}
    settings = checked(Original, values, "nern original", None, "a training")
    network, images = _network(architecture, option), sets.load(dataset, data)
    model = Resnet.for_data(network, images, seed)
    with console.Bars() as bars:
        bars.begin("original")
        history = training.fit(model, images, settings, keep=("others",), progress=_watched(bars))
    storage.save(model, out)
    right = accuracy(model, images.test)
    result = {"accuracy": right, "validation": history.accuracy, "kept": history.kept, "network": str(out)}
    console.say(as_json, result, f"accuracy {console.percent(right)}; {out}")


def _watched(bars: console.Bars) -> Any:
    def progress(p: Any) -> None:
        last = f", validation {100 * p.last.accuracy:.1f} %" if p.last else ""
        bars.progress(
            f"epoch {p.epoch} of {p.epochs}, loss {p.loss:.4f}{last}", (p.epoch - 1) + p.step / p.steps, p.epochs
        )

    return progress


def train(ctx: typer.Context, config: ConfigFile, as_json: options.AsJson = False) -> None:
    """Train a generator by a published configuration; its keys are options too.

    Data and original are named by the section task and original_model_path. It leaves generator.pt, config.yaml and
    log.jsonl in `logging.log_dir/logging.exp_name`; run again after an interruption it continues.

    Example: `bittrue nern train --config resnet20.yaml --nern.hidden_layer_size 180 --task.data_path cifar-10`
    """
    from bittrue.flow.systems.nern import config as configurations
    from bittrue.flow.systems.nern import run

    settings = configurations.load(config, ctx.args)
    with console.Bars() as bars:
        bars.begin("train")
        result = run.train(settings, f"configuration {config}", _watched(bars))
    _tell(result, as_json)


def evaluate(ctx: typer.Context, config: ConfigFile, as_json: options.AsJson = False) -> None:
    """Evaluate the generator that a configuration names as nern.checkpoint_path, with nern.init checkpoint.

    Example: `bittrue nern evaluate --config resnet20.yaml --nern.init checkpoint --nern.checkpoint_path generator.pt`
    """
    from bittrue.flow.systems.nern import config as configurations
    from bittrue.flow.systems.nern import run

    settings = configurations.load(config, ctx.args)
    _tell(run.evaluate(settings, f"configuration {config}"), as_json)


def _tell(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    rows = [
        (row["path"], *(f"{row[key]:.4f}" for key in ("rms", "difference", "neighbours"))) for row in result["layers"]
    ]
    console.show(console.table("Generated layers", ("layer", "rms", "difference", "neighbours' cosine"), rows))
    accuracies = [console.percent(result[key]) for key in ("original", "generated")]
    console.line(
        f"accuracy on {result['images']:,} test images: original {accuracies[0]}, generated {accuracies[1]}; generator "
        f"of {sum(result['bytes'].values()):,} bytes in INT8, {100 * result['share']:.1f} % of "
        f"{result['target_bytes']:,}" + (f"; {result['generator']}" if "generator" in result else "")
    )
