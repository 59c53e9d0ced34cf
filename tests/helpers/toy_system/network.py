"""The recipe, the float network and the integer one."""

from typing import Literal

import numpy as np
import torch
from torch import nn

from bittrue.flow.engine import recipe as common
from bittrue.models.data.sets import encode
from bittrue.models.layers.integer import CodeStep, IntegerInput, IntegerLinear
from bittrue.models.training.settings import Train


class Recipe(common.Recipe):
    """One section of its own."""

    system: Literal["toy"]
    train: Train = Train(epochs=20, batch=64, lr=2e-2)


class Toy(nn.Module):
    """`logits = W x + b` of all pixels."""

    def __init__(self, shape, classes, gain):
        super().__init__()
        self.shape, self.classes, self.gain = tuple(shape), classes, gain
        self.classifier = nn.Linear(int(np.prod(shape)), classes)

    def describe(self):
        return {"shape": list(self.shape), "classes": self.classes, "gain": self.gain}

    @classmethod
    def from_description(cls, values):
        return cls(**values)

    def encode(self, images):
        return encode(images, 1, self.gain).reshape(len(images), -1)

    def forward(self, codes):
        return self.classifier(codes.to(self.classifier.weight.dtype) / 128)


class IntegerToy(Toy):
    """The same of integer layers."""

    def __init__(self, shape, classes, gain):
        super().__init__(shape, classes, gain)
        self.input = IntegerInput(int(np.prod(shape)))
        self.classifier = IntegerLinear(self.input.features, classes, self.input.target, CodeStep(), 8)

    @property
    def scale(self):
        return self.classifier.target.value

    @classmethod
    def of(cls, network, data):
        """The integer network of a float one; a step of the logits is the largest one on training images."""
        integer = cls(network.shape, network.classes, network.gain).eval()
        with torch.no_grad():
            logits = network(torch.from_numpy(network.encode(data.train.images)))
            integer.classifier.weight.copy_(network.classifier.weight)
            integer.classifier.bias.copy_(network.classifier.bias)
            integer.classifier.target.set(float(logits.abs().max()) / 127)
        return integer

    def forward(self, codes):
        return self.classifier(self.input(codes))
