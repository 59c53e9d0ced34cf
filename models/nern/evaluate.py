"""How well a target does with generated kernels, and where a generator comes from: made for the target, or a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bittrue.models.data.sets import Split
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.settings import Nern
from bittrue.models.nern.target import Target
from bittrue.models.nern.tours import Tour, similarity, tours
from bittrue.models.training import storage
from bittrue.models.training.loop import EVALUATION_BATCH, share
from bittrue.models.training.precision import full_precision
from bittrue.sim.errors import BittrueError

#: Settings that a generator is made by; the others say how it is trained.
GEOMETRY = ("act_layer", "num_blocks", "hidden_layer_size", "output_size", "sampling_mode", "keep")


@torch.no_grad()
def weights(target: Target, generator: Generator) -> list[Tensor]:
    """The generated weights of each layer."""
    return target.split(generator.kernels(), generator.settings.sampling_mode)


@torch.no_grad()
def predict(target: Target, generator: Generator, images: np.ndarray) -> np.ndarray:
    """Logits `[n, classes]` of images by the target with generated kernels."""
    made, others, device = weights(target, generator), generator.others(), generator.placed.device
    codes = torch.from_numpy(target.network.encode(images))
    parts = range(0, len(codes), EVALUATION_BATCH)
    with full_precision():
        found = [target.run(made, codes[k : k + EVALUATION_BATCH].to(device), others).cpu() for k in parts]
    return torch.cat(found).numpy()


def accuracy(target: Target, generator: Generator, split: Split) -> float:
    """Share of the images, 0..1, that the target with generated kernels puts into their class."""
    return share(predict(target, generator, split.images), split.labels)


@dataclass(frozen=True)
class Error:
    """How far a layer is from what it was: root mean squares of the weights and of their differences, and the mean
    cosine of kernels that have neighbouring coordinates."""

    path: str
    weights: float
    differences: float
    smoothness: float


def errors(target: Target, generator: Generator) -> list[Error]:
    """Of each layer."""
    found = []
    layers = zip(target.layers, target.weights(), weights(target, generator), generator.orders(), strict=True)
    for layer, original, made, order in layers:
        rms = [float(x.square().mean().sqrt()) for x in (original, original - made)]
        pairs = max(layer.kernels - 1, 1)
        found.append(Error(layer.path, *rms, similarity(original.numpy(), order) / pairs))
    return found


def rms(target: Target, generator: Generator) -> float:
    """Root of the mean square of what all generated weights differ by from the target's."""
    layers = errors(target, generator)
    total = sum(e.differences**2 * layer.weights for e, layer in zip(layers, target.layers, strict=True))
    return math.sqrt(total / sum(layer.weights for layer in target.layers))


def begin(
    settings: Nern,
    target: Target,
    *,
    seed: int,
    learn_classifier: bool = False,
    tour: Callable[[Sequence[np.ndarray]], list[Tour]] | None = None,
) -> Generator:
    """The generator that a training begins with: a new one, in the orders of the target's tours, or that of a file.

    tour    makes the tours of the layers' weights, by default as the settings say, kept in their folder
    """
    if settings.checkpoint_path is not None:
        return read(settings.checkpoint_path, target, settings, learn_classifier)
    permutations = settings.embeddings.permutations
    arrays = [weight.cpu().numpy() for weight in target.weights()]
    if tour is None:
        made = tours(arrays, permutations.permute_mode, folder=permutations.path, workers=permutations.num_workers)
    else:
        made = tour(arrays)
    return Generator.for_target(settings, target, [one.order for one in made], seed, learn_classifier)


def read(path: Path, target: Target, settings: Nern | None = None, learn_classifier: bool | None = None) -> Generator:
    """The generator of a file, refused where it was made for another target, or is not as the settings say."""
    generator = storage.load(path, Generator)
    generator.belongs_to(target, f"generator {path}")
    if settings is not None:
        there, here = generator.settings, settings
        pairs = [(key, getattr(there, key), getattr(here, key)) for key in GEOMETRY]
        for key in ("type", "enc_levels", "base", "fusion_mode", "gauss_scale"):
            pairs.append((f"embeddings.{key}", getattr(there.embeddings, key), getattr(here.embeddings, key)))
        modes = (of.embeddings.permutations.permute_mode for of in (there, here))
        pairs.append(("embeddings.permutations.permute_mode", *modes))
        if differ := [f"nern.{key} is {a} there and {b} here" for key, a, b in pairs if a != b]:
            raise BittrueError(f"generator {path}: {', '.join(differ)}; give back what it was made with")
        generator.settings = settings.model_copy(update={"init": "default", "checkpoint_path": None})
    if learn_classifier is not None and learn_classifier != (generator.classifier is not None):
        has = "has" if generator.classifier is not None else "has no"
        raise BittrueError(
            f"generator {path}: it {has} classifier of its own, and learn_fc_layer is {str(learn_classifier).lower()}; "
            "let both agree"
        )
    return generator
