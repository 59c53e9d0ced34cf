"""The regular network of the photonic system: an MLP whose inputs are light, that is, numbers from 0 to 1.

x = codes / 255                      unsigned 8-bit codes, as a DAC takes them
x = function(W x + b)                once for each hidden layer
logits = W x + b
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from bittrue.models.light.activations import activation
from bittrue.models.light.settings import PhotonicPerceptron
from bittrue.models.networks.base import ImageNetwork
from bittrue.sim.errors import BittrueError

#: The code of full light.
TOP = 255
#: ITU-R BT.601 luminance in parts of 2^16.
_LUMINANCE = (19595, 38470, 7471)


class SimpleMLP(ImageNetwork):
    """The network in the module's docstring, 784-100-200-10 on 28x28 images.

    network   sizes of the hidden layers, and their function
    shape     height, width and channels of an image
    classes   number of classes
    gain      code steps of one pixel step (`Data.gain`)

    `forward` takes codes `[B, features]` as `encode` makes them (any number type) and gives float logits
    `[B, classes]`; the logarithm of a softmax belongs to the loss. Weights are drawn by Xavier's normal rule.
    """

    settings = PhotonicPerceptron

    def __init__(self, network: PhotonicPerceptron, shape: tuple[int, int, int], classes: int, gain: int = 1) -> None:
        super().__init__(network, shape, classes, gain)
        height, width, channels = self.shape
        if network.grey and channels != 3:
            raise BittrueError(f"SimpleMLP: grey levels are made of 3 colours, the images have {channels} channels")
        self.features = height * width * (1 if network.grey else channels)
        sizes = (self.features, *network.hidden)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True))
        self.functions = nn.ModuleList(activation(network.activation) for _ in network.hidden)
        self.classifier = nn.Linear(sizes[-1], classes)
        for linear in (*self.hidden, self.classifier):
            nn.init.xavier_normal_(linear.weight)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes uint8 `[n, features]`, pixels in raster order."""
        images = grey(images) if self.network.grey else images
        codes = light_codes(images, self.gain)
        return codes.reshape(len(codes), -1)

    def forward(self, codes: Tensor) -> Tensor:
        x = codes.to(self.classifier.weight.dtype) / TOP
        for linear, function in zip(self.hidden, self.functions, strict=True):
            x = function(linear(x))
        return self.classifier(x)


def light_codes(images: np.ndarray, gain: int = 1) -> np.ndarray:
    """`min(gain * pixel, 255)` of every pixel: uint8 `[n, height, width, channels]`; code 255 is full light."""
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype.kind not in "iu":
        raise BittrueError(
            f"photonic codes: images are integers [n, height, width, channels], got {images.dtype} {images.shape}"
        )
    if images.dtype.kind == "i" and images.size and images.min() < 0:
        raise BittrueError(f"photonic codes: a pixel is {images.min()}; light is not negative, give pixels from 0")
    return np.minimum(images.astype(np.int64) * gain, TOP).astype(np.uint8)


def grey(images: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R BT.601, rounded half up) of colour images `[n, h, w, 3]` as `[n, h, w, 1]`, uint8."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise BittrueError(
            f"grey: images are uint8 [n, height, width, 3], got {images.dtype} {images.shape}; scale them to 0..255"
        )
    red, green, blue = _LUMINANCE
    wide = images.astype(np.int64)
    level = (wide[..., 0] * red + wide[..., 1] * green + wide[..., 2] * blue + (1 << 15)) >> 16
    return level.astype(np.uint8)[..., None]
