"""Multiply-accumulates of a network, counted from the shapes that its modules see.

    per input = stem + (N / n) D^2 HW + bulk / n + unbind / n + classifier

The second term is the binding by its rule, a D x D map for every pixel and slot; with the keys of an image's copies
summed beforehand it is D^2 HW. Normalisations, activations, additions and means count nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bittrue.models.superposition.binding import Binding
from bittrue.models.superposition.networks import Superposition
from bittrue.models.superposition.settings import SuperpositionSettings

#: A colour image of CIFAR, and its classes: what the published networks read.
IMAGE, CLASSES = (32, 32, 3), 10
PARTS = ("stem", "binding", "bulk", "unbind", "classifier")


@dataclass(frozen=True)
class Count:
    """A network at n images a time: its parameters, and for one input the multiply-accumulates of each part."""

    network: SuperpositionSettings
    images: int
    parameters: int
    stem: float
    binding: float
    bulk: float
    unbind: float
    classifier: float

    @property
    def total(self) -> float:
        return sum(getattr(self, part) for part in PARTS)


def count(
    network: SuperpositionSettings,
    images: int | None = None,
    shape: tuple[int, int, int] = IMAGE,
    classes: int = CLASSES,
    summed: bool = False,
) -> Count:
    """Count a network without making its weights: one pass of `images` images (by default N) of shape `[H, W, C]`.

    `summed` says that the keys of an image's copies were added beforehand.
    """
    with torch.device("meta"):
        model = Superposition(network, shape, classes).eval()
    n = network.slots if images is None else images
    model.at_a_time = n
    found = dict.fromkeys(PARTS, 0)

    def watch(part: str, module: nn.Module) -> None:
        def see(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            if isinstance(module, Binding):
                found[part] += module.macs(output.shape[0] * output.shape[2] * output.shape[3], n, summed)
            else:
                found[part] += output.numel() * module.weight[0].numel()  # type: ignore[operator, index]

        module.register_forward_hook(see)

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, Binding)):
            watch(name.partition(".")[0], module)
    height, width, channels = shape
    with torch.inference_mode():
        model(torch.empty(n, channels, height, width, device="meta"))
    parameters = sum(p.numel() for p in model.parameters())
    return Count(network, n, parameters, *(found[part] / n for part in PARTS))


def baseline(network: SuperpositionSettings) -> SuperpositionSettings:
    """The ordinary network to compare with: WideResNet of the same depth, width and stem, of initial width 1."""
    kept = network.model_dump(include={"depth", "width", "stem_stride", "batch_norm"})
    return SuperpositionSettings(kind="WideResNet", binding="None", **kept)


def table(networks: Iterable[SuperpositionSettings], **options: Any) -> list[tuple[Count, float, float | None]]:
    """Every network in each of its modes, behind the ordinary one of its depth and width.

    Each with its speed-up, in multiply-accumulates for an input, over that ordinary network, and over the same network
    with one slot (None for the ordinary one). `options` are those of `count`.
    """
    rows: list[tuple[Count, float, float | None]] = []
    ordinary: Count | None = None
    for network in networks:
        if ordinary is None or ordinary.network != baseline(network):
            ordinary = count(baseline(network), 1, **options)
            rows.append((ordinary, 1.0, None))
        if network == ordinary.network:
            continue
        alone = count(network.model_copy(update={"slots": 1}), 1, **options).total
        for n in network.modes:
            one = count(network, n, **options)
            rows.append((one, ordinary.total / one.total, alone / one.total))
    return rows


def published() -> Sequence[SuperpositionSettings]:
    """The published sizes: MIMONet of depth 28 and 16, width 10, initial width 4, with 1, 2 and 4 slots."""
    return [
        SuperpositionSettings(kind="MIMONet", depth=depth, width=10, initial_width=4, slots=slots)  # type: ignore[arg-type]
        for depth in (28, 16)
        for slots in (1, 2, 4)
    ]
