"""How well a network does with n images at a time, which depends on the images that happen to be together.

A pairing is an order of the images: those beside each other in it share a pass. With one image at a time there is
nothing to pair.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bittrue.models.data.sets import Split
from bittrue.models.training.loop import share
from bittrue.models.training.precision import full_precision
from bittrue.sim.errors import BittrueError

#: Images evaluated together, about.
BATCH = 512
#: Turns of which the fastest is timed.
TURNS = 3


class Network(Protocol):
    """What can be evaluated: a torch module, in floats (`Superposition`) or integers (`Converted`)."""

    at_a_time: int
    training: bool

    def encode(self, images: np.ndarray) -> Any: ...

    def __call__(self, codes: torch.Tensor) -> Any: ...

    def parameters(self) -> Iterator[torch.Tensor]: ...

    def eval(self) -> Any: ...

    def train(self, mode: bool) -> Any: ...


@dataclass(frozen=True)
class Mode:
    """n images at a time: the accuracy (0..1) of every pairing, and the seconds that an image takes.

    The seconds are those of `forward` alone, on up to `BATCH` images, the fastest of `TURNS` turns.
    """

    images: int
    accuracies: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> float:
        return fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Of a sample; None of a single pairing, which has none."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


def pairing(images: int, seed: int, number: int) -> np.ndarray:
    """The order int64 `[images]` of a pairing: by the seed, its number, and nothing else."""
    return np.random.default_rng((seed, number)).permutation(images)


def predict(model: Network, images: np.ndarray, n: int, order: np.ndarray | None = None) -> np.ndarray:
    """Logits `[m, classes]` of images uint8 `[m, h, w, channels]`, n at a time in this order, at their images' places.

    The model is left in the mode and with the images at a time that it had.
    """
    order = np.arange(len(images)) if order is None else order
    device = next(model.parameters()).device
    step = n * max(1, BATCH // n)
    parts: list[np.ndarray] = []
    with _evaluated(model, n):
        for start in range(0, len(images), step):
            chosen = order[start : start + step]
            codes = torch.from_numpy(model.encode(images[chosen])).to(device)
            parts.append(model(codes).cpu().numpy())
    found = np.concatenate(parts)
    logits = np.empty_like(found)
    logits[order] = found
    return logits


def _seconds(model: Network, images: np.ndarray, n: int) -> float:
    """What an image takes, the fastest of some turns."""
    codes, turns = torch.from_numpy(model.encode(images)).to(next(model.parameters()).device), []
    with _evaluated(model, n):
        for _ in range(TURNS):
            begin = time.perf_counter()
            model(codes).cpu()
            turns.append((time.perf_counter() - begin) / len(images))
    return min(turns)


@contextmanager
def _evaluated(model: Network, n: int) -> Iterator[None]:
    """Within, the model is evaluated with n images at a time; afterwards it is as it was."""
    before, training = model.at_a_time, model.training
    model.at_a_time = n
    model.eval()
    try:
        with torch.inference_mode(), full_precision():
            yield
    finally:
        model.at_a_time = before
        model.train(training)


def judge(model: Network, split: Split, n: int, order: np.ndarray) -> tuple[float, float]:
    """Accuracy (0..1) and loss with n images at a time in this order."""
    found = predict(model, split.images, n, order)
    loss = cross_entropy(torch.from_numpy(found), torch.from_numpy(split.labels.copy()))
    return share(found, split.labels), float(loss)


def validate(model: Network, split: Split, modes: Iterable[int], pairings: int = 5, seed: int = 0) -> tuple[Mode, ...]:
    """Each mode over so many random pairings (one, where n is 1)."""
    if not len(split) or pairings < 1:
        raise BittrueError(
            f"validate: {len(split)} images in {pairings} pairings measure nothing; give at least one of each"
        )
    found = []
    for n in modes:
        orders = (pairing(len(split), seed, number) for number in range(1 if n == 1 else pairings))
        accuracies = tuple(judge(model, split, n, order)[0] for order in orders)
        found.append(Mode(n, accuracies, _seconds(model, split.images[:BATCH], n)))
    return tuple(found)
