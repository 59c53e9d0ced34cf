"""An MLP: linear layers over all the pixels of an image, with one fixed function between them.

x = codes / 128
x = function(norm(W x + b))          once for each hidden layer; `norm` is batch normalisation, where asked for
logits = W x + b
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from bittrue.models.data.sets import INPUT_SCALE, encode
from bittrue.models.layers.activations import activation
from bittrue.models.networks.base import ImageNetwork
from bittrue.models.networks.settings import MlpSettings


class Mlp(ImageNetwork):
    """The network in the module's docstring.

    network   sizes of the hidden layers, and their function
    shape     height, width and channels of an image
    classes   number of classes
    gain      code steps of one pixel step (`Data.gain`)

    `forward` takes codes `[B, pixels]` as `encode` makes them (any number type) and gives float logits
    `[B, classes]`; one code step is worth 1/128.
    """

    settings = MlpSettings

    def __init__(self, network: MlpSettings, shape: tuple[int, int, int], classes: int, gain: int = 1) -> None:
        super().__init__(network, shape, classes, gain)
        self.features = int(np.prod(shape))
        sizes = (self.features, *network.hidden)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) if network.norm else nn.Identity() for n in network.hidden)
        self.functions = nn.ModuleList(activation(network.nonlinearity) for _ in network.hidden)
        self.classifier = nn.Linear(sizes[-1], classes)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes int8 `[n, h * w * channels]`, pixels in raster order."""
        return encode(images, 1, self.gain).reshape(len(images), -1)

    def forward(self, codes: Tensor) -> Tensor:
        x = codes.to(self.classifier.weight.dtype) * INPUT_SCALE
        for linear, norm, function in zip(self.hidden, self.norms, self.functions, strict=True):
            x = function(norm(linear(x)))
        return self.classifier(x)
