"""The system `lerp-psa`: a ResMLP with learnable 1-D functions (LERP-PSA, PSA) or ReLU, trained and quantised to INT8.

See `flow.systems` for what a system provides, `models/` for what is trained.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np

from flow import recipe as common
from flow.steps import Work
from models.settings import Network, Qat, Quantize, Train
from sim.storage import write_whole

CODE = ("models",)
SECTIONS = ("network", "train", "quantize", "qat")


class Recipe(common.Recipe):
    """A recipe of this system; the sections are those of `models.settings`."""

    system: Literal["lerp-psa"]
    network: Network = Network()
    train: Train = Train()
    quantize: Quantize = Quantize()
    qat: Qat = Qat()


def _data(recipe: Recipe):
    from models import data

    return data.load(recipe.dataset.name, recipe.dataset.folder)


def _watch(work: Work):
    """Progress of a training as the flow's progress."""

    def progress(p) -> None:
        last = f", validation {100 * p.last.accuracy:.1f} %" if p.last else ""
        done, total = (p.epoch - 1) * p.steps + p.step, p.epochs * p.steps
        work.progress(f"epoch {p.epoch} of {p.epochs}, loss {p.loss:.3f}{last}", done, total)

    return progress


def _history(epochs) -> list[dict[str, float]]:
    return [{"loss": round(e.loss, 6), "accuracy": e.accuracy} for e in epochs]


def train(recipe: Recipe, work: Work) -> dict[str, Any]:
    """Float training; leaves `network.pt`."""
    from models import storage
    from models.resmlp import ResMLP
    from models.train import accuracy, fit

    data = _data(recipe)
    model = ResMLP.for_data(recipe.network, data, recipe.train.seed)
    history = fit(model, data, recipe.train, checkpoint=work.scratch / "checkpoint.pt", progress=_watch(work))
    storage.save(model, work.folder / "network.pt")
    return {
        "accuracy": accuracy(model, data.test),
        "parameters": sum(p.numel() for p in model.parameters()),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "history": _history(history),
    }


def quantize(recipe: Recipe, work: Work) -> dict[str, Any]:
    """Post-training quantisation and exact-integer training; leaves `integer.pt`."""
    from models import qat, storage
    from models.quantize import post_training
    from models.resmlp import ResMLP
    from models.train import accuracy

    data = _data(recipe)
    model = storage.load(work.upstream["train"] / "network.pt", ResMLP)
    work.progress("calibrating", 0, 1)
    integer = post_training(model, data, recipe.quantize)
    result: dict[str, Any] = {
        "percentile": integer.percentile,
        "calibration": {str(percentile): score for percentile, score in integer.calibration.items()},
        "accuracy_post_training": accuracy(integer, data.test),
        "history": [],
    }
    if recipe.qat.epochs:
        checkpoint = work.scratch / "checkpoint.pt"
        result["history"] = _history(qat.fit(integer, data, recipe.qat, checkpoint=checkpoint, progress=_watch(work)))
    result["accuracy"] = accuracy(integer, data.test)
    storage.save(integer, work.folder / "integer.pt")
    return result


def lower(recipe: Recipe, work: Work) -> dict[str, Any]:
    """The program, the encoded test set, and the network's own integer logits on it."""
    import torch

    from models import storage
    from models.integer import IntegerResMLP
    from models.lower import lower as to_program
    from models.lower import whole
    from models.train import predict

    data = _data(recipe)
    integer = storage.load(work.upstream["quantize"] / "integer.pt", IntegerResMLP)
    program = to_program(integer, name=recipe.name, dataset=data.name, classes=list(data.classes))
    program.save(work.folder / "program.npz")
    np.save(work.folder / "inputs.npy", integer.encode(data.test.images))
    np.save(work.folder / "labels.npy", data.test.labels)
    np.save(work.folder / "expected.npy", whole(torch.from_numpy(predict(integer, data.test.images))))
    write_whole(work.folder / "program.json", json.dumps(program.summary(), indent=1).encode())
    return {
        "sha256": program.sha256,
        "operations": len(program.nodes),
        "macs": program.macs,
        "weights": program.weights,
        "classes": list(data.classes),
    }
