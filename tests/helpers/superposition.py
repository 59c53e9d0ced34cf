"""Small networks that take several images in one pass, a small data set, and settings of a short training."""

from __future__ import annotations

from bittrue.models.data.sets import Data, Split, load
from bittrue.models.superposition.networks import Superposition
from bittrue.models.superposition.settings import SuperpositionSettings, SuperpositionTrain

#: Of `few`, 96 images in batches of 16: six updates an epoch.
TRAIN = SuperpositionTrain(epochs=2, batch=16, lr=0.05, mixup=0.0, augment="none", seed=1)
STEPS = 6


def few() -> Data:
    """Digits: 96 to train on, 40 to validate, 64 to test."""
    data = load("digits")
    parts = (slice(0, 96), slice(96, 136), slice(136, 200))
    splits = (Split(data.train.images[part], data.train.labels[part]) for part in parts)
    return Data("few", data.classes, *splits, gain=data.gain)


def network(data: Data, seed: int = 1, **changes) -> Superposition:
    """Of two slots, but for the changes."""
    changes = {"slots": 2} | changes
    return Superposition.for_data(SuperpositionSettings(**changes), data, seed)


def settings(**changes) -> SuperpositionTrain:
    """`TRAIN`, but for the changes."""
    return SuperpositionTrain.model_validate(TRAIN.model_dump() | changes)


def state(model: Superposition) -> dict:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    """The same tensors by the same names."""
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)
