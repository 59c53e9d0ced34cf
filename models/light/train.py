"""Training of photonic networks in three scenarios, and the comparison of a network with its non-negative twin.

transform   train the regular network with SGD, then transform it
post        train briefly with SGD, transform, go on with an optimiser that keeps every parameter non-negative
scratch     initialise, transform, and train non-negatively from the start

Plain SGD, constant rates, cross entropy, batches in the order of the data set: as published; of the epochs the best on
the validation split is kept (`models.training.loop`). What is reported is an
evaluation of both networks in float64, image by image. Everything runs in true float32 or float64: reduced precision
(TF32, bfloat16, autocast) is switched off, because a non-negative layer subtracts a pedestal that is many times
larger than its result.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bittrue.models.data.sets import Data, Split
from bittrue.models.light.network import SimpleMLP
from bittrue.models.light.optim import CSGD, NNSGD
from bittrue.models.light.settings import (
    Calibrate,
    PhotonicPerceptron,
    PhotonicTrain,
    architecture,
    check_calibration,
)
from bittrue.models.light.transform import NonNegativeNetwork, transform
from bittrue.models.training.loop import History, Progress, optimize, predict
from bittrue.models.training.precision import full_precision
from bittrue.sim.errors import BittrueError

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Agreement:
    """Two networks evaluated on the same images in float64.

    images       how many
    agree        how many of them both networks put into the same class
    regular      accuracy of the regular network, 0..1
    twin         accuracy of the non-negative one
    difference   largest difference of two logits, after the mean over the classes is taken off each image's
    others       positions of the images on which they do not agree
    above        inputs of all layers of the twin that exceeded alpha and were clipped
    """

    images: int
    agree: int
    regular: float
    twin: float
    difference: float
    others: tuple[int, ...]
    above: int


@dataclass(frozen=True, eq=False)
class Trained:
    """What a scenario leaves, both networks in float64; `before` is the accuracy after the first phase of post.

    A history is None where the scenario has no such phase.
    """

    settings: PhotonicTrain
    regular: SimpleMLP
    twin: NonNegativeNetwork
    agreement: Agreement
    history: History | None
    non_negative_history: History | None
    before: float | None


def compare(regular: nn.Module, twin: NonNegativeNetwork, split: Split) -> Agreement:
    """Evaluate both networks on every image of a split, in float64 on the CPU; neither network is changed."""
    if not len(split):
        raise BittrueError("compare: there are no images to compare the networks on")
    regular, twin = (copy.deepcopy(network).cpu().double().eval() for network in (regular, twin))
    twin.reset()
    with full_precision():
        a, b = predict(regular, split.images), predict(twin, split.images)
    classes_a, classes_b = a.argmax(1), b.argmax(1)
    others = np.flatnonzero(classes_a != classes_b)
    centred = (a - a.mean(1, keepdims=True)) - (b - b.mean(1, keepdims=True))
    return Agreement(
        images=len(split),
        agree=len(split) - len(others),
        regular=float((classes_a == split.labels).mean()),
        twin=float((classes_b == split.labels).mean()),
        difference=float(np.abs(centred).max()),
        others=tuple(others.tolist()),
        above=sum(count["above"] for count in twin.counts()),
    )


def regular_of(twin: NonNegativeNetwork, network: SimpleMLP) -> SimpleMLP:
    """The regular network of a twin that came from `network` and was trained since: W+ - W- and its bias, float64."""
    result = copy.deepcopy(network).cpu().double()
    with torch.no_grad():
        for layer in twin.layers:
            module = result.get_submodule(layer.name)
            weight, bias = layer.regular()
            module.weight.copy_(weight)
            module.bias.copy_(bias)
    return result.eval()


def train(
    data: Data,
    settings: PhotonicTrain,
    network: PhotonicPerceptron | None = None,
    calibrate: Calibrate | None = None,
    *,
    folder: str | Path | None = None,
    progress: Report | None = None,
    device: torch.device | str | None = None,
) -> Trained:
    """Run a scenario and compare both networks on the whole test split.

    network     the published architecture of the data set unless given
    calibrate   alpha from the bounds of the activations unless given; a percentile of a network that is not trained
                yet means nothing, so `scratch` refuses it
    folder      keeps a checkpoint after every epoch; a run of the same settings that was interrupted goes on
    """
    calibrate = calibrate or Calibrate()
    network = network or architecture(data.name)
    check_calibration(settings.scenario, calibrate, network.activation)
    place = None if folder is None else Path(folder)
    regular = SimpleMLP.for_data(network, data, settings.seed)
    first: History | None = None
    second: History | None = None
    before = None
    if settings.scenario != "scratch":
        optimizer = torch.optim.SGD(regular.parameters(), lr=settings.lr)
        checkpoint = None if place is None else place / "regular.pt"
        first = descend(regular, data, settings, optimizer, settings.epochs, "train", checkpoint, progress, device)
    twin = transform(regular, calibrate, images=data.train.images)
    if settings.scenario != "transform":
        before = compare(regular, twin, data.test).regular if settings.scenario == "post" else None
        twin = twin.float()
        checkpoint = None if place is None else place / "non_negative.pt"
        second = descend(
            twin,
            data,
            settings,
            non_negative_optimizer(twin, settings),
            settings.non_negative_epochs,
            f"train with {settings.optimizer.upper()}",
            checkpoint,
            progress,
            device,
        )
        regular = regular_of(twin, regular)
    regular, twin = regular.double().eval(), twin.double().eval()
    return Trained(settings, regular, twin, compare(regular, twin, data.test), first, second, before)


def non_negative_optimizer(twin: NonNegativeNetwork, settings: PhotonicTrain) -> torch.optim.Optimizer:
    """The optimiser of the second phase, over W+, W- and b^ of all layers."""
    if settings.optimizer == "nnsgd":
        return NNSGD(twin.parameters(), lr_in=settings.lr_in, lr_out=settings.lr_out)
    return CSGD(twin.parameters(), lr=settings.clip_lr)


def descend(
    model: nn.Module,
    data: Data,
    settings: PhotonicTrain,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    stage: str,
    checkpoint: str | Path | None = None,
    progress: Report | None = None,
    device: torch.device | str | None = None,
) -> History:
    """`models.training.loop.optimize` as published: constant rates, and the last batch of an epoch may be smaller."""
    return optimize(
        model,
        data,
        settings,
        optimizer,
        epochs=epochs,
        stage=stage,
        shuffle=settings.shuffle,
        drop_last=False,
        checkpoint=checkpoint,
        progress=progress,
        device=device,
    )
