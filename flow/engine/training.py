"""What the steps of every system share: data, progress and history of a training, what `lower` leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.engine import kernels
from bittrue.flow.engine.statistics import chosen, share
from bittrue.flow.run import arrays
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.program import Program

if TYPE_CHECKING:
    from torch import nn

    from bittrue.flow.engine.recipe import Recipe
    from bittrue.flow.engine.steps import Workspace
    from bittrue.models.data.sets import Data
    from bittrue.models.training.loop import History, Progress


def one_thread(step: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A step of one thread of torch, but for what its training asks for: figures depend on the order of sums."""

    @wraps(step)
    def run(recipe: Any, work: Workspace) -> dict[str, Any]:
        from bittrue.models.training.precision import threads

        with threads(1):
            return step(recipe, work)

    return run


def data_of(recipe: Recipe) -> Data:
    """The recipe's data set."""
    from bittrue.models.data import sets as data

    return data.load(recipe.dataset.name, recipe.dataset.folder)


def watch(work: Workspace) -> Callable[[Progress], None]:
    """Progress of a training as the flow's progress."""

    def progress(p: Progress) -> None:
        last = f", validation {100 * p.last.accuracy:.1f} %" if p.last else ""
        done, total = (p.epoch - 1) * p.steps + p.step, p.epochs * p.steps
        work.progress(f"epoch {p.epoch} of {p.epochs}, loss {p.loss:.3f}{last}", done, total)

    return progress


def history(*trainings: History | None, begun: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What reports show of trainings that followed each other, None for one that was not done, and before them of those
    that `begun` tells of, the result of a step before.

    history        loss and validation accuracy of each epoch
    kept           number of the epoch that was kept, from 1; 0: what the first began with
    """
    epochs: list[dict[str, float]] = list(begun["history"]) if begun else []
    kept: int = begun["kept"] if begun else 0
    for one in trainings:
        if one is not None:
            kept = len(epochs) + one.kept if one.kept else kept
            epochs += [{"loss": round(e.loss, 6), "accuracy": e.accuracy} for e in one]
    return {"history": epochs, "kept": kept}


def trained(result: Mapping[str, Any], images: int) -> str:
    """The status of a step that quantised and trained, from its result, for `images` test images."""
    accuracy = share(result["accuracy"], images)
    if not result["history"]:
        return f"integers {accuracy}, not trained"
    return f"quantised {100 * result['accuracy_converted']:.2f} %, trained in integers {accuracy}, {chosen(result)}"


def fit(recipe: Any, work: Workspace, model: nn.Module, data: Data) -> dict[str, Any]:
    """Float training by the recipe's section `train`; leaves `network.pt` and gives what the report shows."""
    from bittrue.models.training import loop as train
    from bittrue.models.training import storage

    checkpoint = work.scratch / "checkpoint.pt"
    told = history(train.fit(model, data, recipe.train, checkpoint=checkpoint, progress=watch(work)))
    storage.save(model, work.folder / "network.pt")
    accuracy = train.accuracy(model, data.test)
    return told | {
        "status": f"float {share(accuracy, len(data.test))}, {chosen(told)}",
        "accuracy": accuracy,
        "kernels": kernels.described(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
    }


def convert(recipe: Any, work: Workspace, data: Data, make: Callable[[], Any]) -> dict[str, Any]:
    """What `make` converts and, by the recipe's section `qat`, its training in its own integers: leaves what
    `write_lowered` does, and gives what the report shows."""
    from bittrue.models.training.loop import accuracy

    work.progress("calibrating", 0, 1)
    integer = make()
    result: dict[str, Any] = {"accuracy_converted": accuracy(integer, data.test)}
    if integer.scores:
        scores = {str(ranges): score for ranges, score in integer.scores.items()}
        result |= {"percentile": integer.ranges, "calibration": scores}
    epochs = None
    if recipe.qat.epochs:
        epochs = integer.fit(data, recipe.qat, checkpoint=work.scratch / "checkpoint.pt", progress=watch(work))
    result |= history(epochs) | {"accuracy": accuracy(integer, data.test)}
    write_lowered(work, integer.lower(name=recipe.name, dataset=data.name, classes=list(data.classes)), integer, data)
    return result | {"status": trained(result, len(data.test))}


def write_lowered(work: Workspace, program: Program, integer: nn.Module, data: Data) -> dict[str, Any]:
    """Write the program, the encoded test set, its labels, and the network's own integer logits on it."""
    import torch

    from bittrue.models.layers.lowering import whole
    from bittrue.models.training.loop import predict

    program.save(work.folder / "program.npz")
    logits = whole(torch.from_numpy(predict(integer, data.test.images)))
    np.save(work.folder / "inputs.npy", integer.encode(data.test.images))
    np.save(work.folder / "labels.npy", data.test.labels)
    np.save(work.folder / "expected.npy", logits)
    write_whole(work.folder / "program.json", json.dumps(program.summary(), indent=1).encode())
    return lowered(program, data.classes)


#: What `write_lowered` leaves.
LOWERED = ("program.npz", "inputs.npy", "labels.npy", "expected.npy", "program.json")


def copy_lowered(work: Workspace) -> dict[str, Any]:
    """The step `lower` of a system whose `quantize` left the program and its test set."""
    left = work.upstream["quantize"]
    if missing := [name for name in LOWERED if not (left / name).exists()]:
        raise BittrueError(
            f"lower: the step quantize left no {missing[0]}; let it leave the program with "
            "`flow.engine.training.write_lowered`, or give the system's steps.py a `lower`"
        )
    for name in LOWERED:
        shutil.copyfile(left / name, work.folder / name)
    program = Program.load(work.folder / "program.npz")
    return lowered(program, program.meta["classes"])


def lowered(program: Program, classes: Iterable[str]) -> dict[str, Any]:
    """What the step `lower` tells of its program."""
    return {
        "sha256": program.sha256,
        "operations": len(program.nodes),
        "macs": program.macs,
        "weights": program.weights,
        "classes": list(classes),
    }


def read_lowered(work: Workspace) -> tuple[Program, list[np.ndarray], np.ndarray]:
    """The program, its encoded test set (one array per input) and the labels, as `lower` left them.

    A program with several results is refused: what is held to the labels is one.
    """
    folder = work.upstream["lower"]
    program = Program.load(folder / "program.npz")
    if len(program.results) > 1:
        raise BittrueError(
            f"flow: the lowered program has {len(program.results)} results ({', '.join(program.results)}), and the "
            "steps hold one to the labels; lower a program with one, or take it to `bittrue verify` and `bittrue synth`"
        )
    several = folder / "inputs.npz"
    x = arrays.read_inputs(several if several.exists() else folder / "inputs.npy", program)
    return program, list(x), np.load(folder / "labels.npy")
