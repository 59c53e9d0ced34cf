"""A small target with generated kernels, a small data set, and settings of a short training."""

from __future__ import annotations

import torch
from torch import nn

from bittrue.models.data.sets import Data, Split, load
from bittrue.models.nern.networks import Resnet
from bittrue.models.nern.settings import Embeddings, Generate, Nern, Optim, Permutations, TargetSettings
from bittrue.models.nern.target import Target
from bittrue.models.networks.convolution import Convolution
from bittrue.models.networks.settings import ConvolutionSettings

#: Levels that tell the indices up to 63 apart, and the published base.
LEVELS, BASE = 16, 0.76


def few() -> Data:
    """Digits: 96 to train on, 40 to validate, 64 to test."""
    data = load("digits")
    parts = (slice(0, 96), slice(96, 136), slice(136, 200))
    splits = (Split(data.train.images[part], data.train.labels[part]) for part in parts)
    return Data("few", data.classes, *splits, gain=data.gain)


def embeddings(mode: str | None = None, **changes) -> Embeddings:
    given = {"enc_levels": LEVELS, "base": BASE, "permutations": Permutations(permute_mode=mode)} | changes
    return Embeddings(**given)


def nern(mode: str | None = None, **changes) -> Nern:
    """Five blocks of 12, but for the changes."""
    given = {"num_blocks": 5, "hidden_layer_size": 12, "weights_batch_size": 512, "embeddings": embeddings(mode)}
    return Nern(**given | changes)


def generate(**changes) -> Generate:
    """Two epochs of three steps, without a warm-up, but for the changes."""
    given = {"batch_size": 32, "epochs": 2, "loss_warmup_iterations": 0, "seed": 1}
    return Generate(**given | changes)


def optim(**changes) -> Optim:
    return Optim(**{"optimizer_type": "ranger", "lr": 5e-3, "ranger_use_gc": False} | changes)


def resnet(architecture: str = "ResNet8", shape: tuple[int, int, int] = (8, 8, 1), seed: int = 1, **changes) -> Resnet:
    """A network with random weights, as if it had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Resnet(TargetSettings(architecture=architecture, **changes), shape, 10, 16).eval()


def target(**changes) -> Target:
    return Target(resnet(**changes))


def small_target(seed: int = 1) -> Target:
    """72 kernels of two convolutions, with random weights: what needs no more takes no time."""
    return Target(Convolution.for_data(ConvolutionSettings(kind="plain", widths=(8, 8)), few(), seed))


class Small(nn.Module):
    """Convolutions of several kinds, as a network of a user's own has them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.point = nn.Conv2d(4, 6, 1)
        self.large = nn.Conv2d(6, 2, 5, padding=2)
        self.last = nn.Linear(2, 3)

    def forward(self, x):
        return self.last(self.large(self.point(self.depthwise(self.first(x)).relu()).relu()).mean((2, 3)))
