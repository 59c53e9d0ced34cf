"""Networks that take several images in one pass in integers: made of a trained one, and trained on as such."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
from pydantic import Field
from torch import nn

from bittrue.models.data.sets import Data, Split
from bittrue.models.int8.converted import Converted, check_bits
from bittrue.models.int8.quantize import of_codes
from bittrue.models.superposition.networks import Superposition
from bittrue.models.superposition.settings import SuperpositionConvert
from bittrue.models.training.loop import History, Loss, Progress, accuracy_and_loss
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program

#: The path of the layer whose weights are the keys.
KEYS = "binding"


class _Moded(Qat):
    """What decides a training besides its settings: the share of updates with all slots taken, and the other mode."""

    low: int | None = None
    frequency: float = Field(default=1.0, ge=0, le=1)


def quantize(
    model: Superposition, data: Data, settings: SuperpositionConvert, modes: Iterable[int] | None = None
) -> Converted:
    """The integers of a trained network, calibrated on training images; the model is left as it is.

    modes   one number of images at a time, which the program has as a constant, or all that divide N, of which it
            takes any, as a held input; None: as the model has it now. Ranges and biases are those of all of them
    """
    options = settings.model_dump(exclude={"key_bits", "dynamic"})
    if settings.key_bits is not None and has_keys(model):
        options["bits"] = {"": settings.bits, KEYS: settings.key_bits}
    return of_codes(model, data, modes=None if modes is None else tuple(modes), **options)


def has_keys(model: Superposition) -> bool:
    """Whether there is anything to bind with: all but an ordinary network, whose one image goes through as it is."""
    return model.network.binding != "None" or model.network.slots > 1


def by_key_bits(
    model: Superposition, data: Data, settings: SuperpositionConvert, modes: Iterable[int], bits: Iterable[int]
) -> Iterator[tuple[int, Converted]]:
    """The integers with keys of several widths, all else alike."""
    modes = tuple(modes)
    for width in bits:
        check_bits(width, "keys: bits")
        yield width, quantize(model, data, settings.model_copy(update={"key_bits": width}), modes)


def logits(program: Program, codes: np.ndarray, n: int, order: np.ndarray | None = None) -> np.ndarray:
    """Results `[m, classes]` of a network's program for codes `[m, ...]`, n at a time in this order, at their images'
    places: those of its integers, and much faster."""
    order = np.arange(len(codes)) if order is None else order
    found = (program if program.grouping is None else program.in_groups_of(n))(codes[order])
    placed = np.empty_like(found)
    placed[order] = found
    return placed.reshape(len(placed), -1)


def fit(
    integer: Converted,
    data: Data,
    settings: Qat,
    *,
    low: int | None = None,
    frequency: float = 1.0,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> History:
    """Train in integers, in place; the best epoch stays, what it began with included.

    low, frequency   as in training in floats: an update has all slots taken with the probability `frequency`, else
                     `low` images at a time. Best is the highest mean of the accuracies in the modes that are trained

    The integers are left with all slots taken.
    """
    high = integer.modes[-1]
    low = low if frequency < 1 else None
    if low is not None and low not in integer.modes:
        raise BittrueError(
            f"fit: {low} images at a time are not what these integers are made for; they take "
            f"{', '.join(map(str, integer.modes))}"
        )
    if settings.batch % high:
        raise BittrueError(
            f"fit: a batch of {settings.batch} images is no multiple of {high}, the images of one pass; take "
            f"{max(1, settings.batch // high) * high}"
        )
    trained = (high,) if low is None else (low, high) if frequency > 0 else (low,)

    def before(rng: np.random.Generator) -> None:
        integer.at_a_time = low if low is not None and rng.random() > frequency else high

    def judge(model: nn.Module, split: Split, loss: Loss) -> tuple[float, float]:
        found = []
        for n in trained:
            model.at_a_time = n
            found.append(accuracy_and_loss(model, split, loss))
        return fmean(right for right, _ in found), fmean(value for _, value in found)

    moded = _Moded(**settings.model_dump(), low=low, frequency=frequency)
    try:
        return integer.fit(data, moded, before=before, judge=judge, checkpoint=checkpoint, progress=progress)
    finally:
        integer.at_a_time = high
