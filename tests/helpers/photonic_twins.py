"""Small photonic networks and images for tests, and the equality of one with its program."""

import numpy as np
import torch
from torch import nn

from bittrue.models.data.sets import Data, Split
from bittrue.models.graph.lower import lower, record
from bittrue.models.light.settings import ArrayNoise, Calibrate, PhotonicPerceptron, PhotonicTrain
from bittrue.models.light.train import train as scenario
from bittrue.models.training import loop as train

NOISE = ArrayNoise(relative=0.01, photons=3000.0, thermal=0.05)


def pictures(height=5, width=3, channels=2, classes=4, seed=1):
    """Random images with a label that depends on them."""
    rng = np.random.default_rng(seed)

    def split(n):
        images = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        return Split(images, images.reshape(n, -1)[:, :8].sum(1) % classes)

    return Data("pictures", tuple("abcdefgh"[:classes]), split(300), split(60), split(60))


def twin_of(data, activation="sinusoid", hidden=(12, 9), epochs=3, method=None):
    network = PhotonicPerceptron(hidden=hidden, activation=activation)
    settings = PhotonicTrain(epochs=epochs, batch=30, lr=0.1)
    method = method or Calibrate(**({"method": "percentile"} if activation == "relu" else {}))
    return scenario(data, settings, network, method).twin


def assert_equal_everywhere(network, images):
    """Every tensor of the forward is the program's, in the fast, the traced and the slow execution."""
    program, codes = lower(network), network.encode(images)
    logits = program(codes)
    assert np.array_equal(logits, train.predict(network, images))
    assert np.array_equal(logits[:10], program.reference(codes[:10]))
    recorded, traced = record(network, codes), program.trace(codes)
    assert recorded.keys() == traced.tensors.keys()
    for name, codes_of in traced.tensors.items():
        assert np.array_equal(recorded[name], codes_of), name
    return program, traced


def codes_of(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(torch.float64)


def random_images(shape, n=6, seed=1, top=256):
    return np.random.default_rng(seed).integers(0, top, size=(n, *shape)).astype(np.uint8)


def cnn(function, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), function()),
            nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(6, 8, 3, padding="same", groups=2, bias=False), nn.BatchNorm2d(8), function()),
            nn.AvgPool2d(2, padding=1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(32, 12),
            nn.BatchNorm1d(12),
            function(),
            nn.Linear(12, 5),
        ]
        return nn.Sequential(*layers).double()
