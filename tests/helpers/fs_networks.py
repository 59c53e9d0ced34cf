"""Small networks of FS-neurons, and pictures to train them on."""

from __future__ import annotations

import numpy as np

from bittrue.models.data.sets import Data, Split
from bittrue.models.fs.settings import Convert
from bittrue.models.networks.settings import MlpSettings
from bittrue.models.training import loop as train
from bittrue.models.training.settings import Train

SMALL = MlpSettings(hidden=(24, 16))


def pictures(height, width, channels, classes=4, seed=1):
    """Random images with a label that depends on them, for geometries that `digits` does not have."""
    rng = np.random.default_rng(seed)

    def split(n):
        images = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        return Split(images, images.reshape(n, -1)[:, :8].sum(1) % classes)

    return Data("pictures", tuple("abcdefgh"[:classes]), split(300), split(60), split(60))


def trained(kind, network, data, epochs=2):
    model = kind.for_data(network, data, 1)
    train.fit(model, data, Train(epochs=epochs, batch=60, lr=3e-3))
    return model


# -- every tensor --------------------------------------------------------------------------------------
MLPS = {
    "relu": (SMALL, Convert()),
    "4 steps of 5 bits": (MlpSettings(hidden=(9,), norm=False), Convert(steps=4, bits=5)),
    "1 step": (SMALL, Convert(steps=1, percentiles=(90.0,))),
    "rounded up": (SMALL, Convert(rounding="published", steps=7)),
    "integer pixels": (SMALL, Convert(first="integer")),
    "swish": (MlpSettings(hidden=(24, 16), nonlinearity="swish"), Convert(fraction_bits=8)),
    "sigmoid": (MlpSettings(hidden=(12, 12, 12), nonlinearity="sigmoid"), Convert(fraction_bits=12, bits=7)),
}
