"""Convolutional networks: plain, residual, and of depthwise and pointwise convolutions.

x = codes / 128, as an image [channels, height, width]
plain       for each width: x = pool(relu(norm(conv3x3 x))), pools of 2 while the image is larger than 3
resnet      x = relu(norm(conv3x3 x)); for each width `blocks` times
                x = relu(norm(conv3x3 relu(norm(conv3x3 x))) + shortcut(x))
            the first block of every width but the first has stride 2, and a convolution of one pixel as its shortcut
mobilenet   x = relu(norm(conv3x3 x)); for each width `blocks` times
                x = relu(norm(conv1x1 relu(norm(depthwise3x3 x))))
            the first of every width but the first has stride 2
logits = W mean(x) + b               the mean over all pixels
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from bittrue.models.data.sets import INPUT_SCALE, encode
from bittrue.models.networks.base import ImageNetwork
from bittrue.models.networks.settings import ConvolutionSettings


def unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size of the image, but for its stride, and its normalisation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*unit(inputs, outputs, 3, stride), nn.ReLU(), *unit(outputs, outputs))
        other = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*unit(inputs, outputs, 1, stride)) if other else nn.Identity()
        self.function = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x) + self.shortcut(x))


class Pixels(ImageNetwork):
    """Base of networks that read pixels as they are: `features` of them, and a linear `classifier` behind.

    `forward` takes codes as `encode` makes them (any number type) and gives float logits `[B, classes]`; one code step
    is worth 1/128.
    """

    settings = ConvolutionSettings

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes int8 `[n, channels, h, w]` (`models.data.sets.encode`)."""
        codes = encode(images, 1, self.gain).reshape(len(images), *self.shape)
        return np.ascontiguousarray(codes.transpose(0, 3, 1, 2))

    def forward(self, codes: Tensor) -> Tensor:
        return self.classifier(self.features(codes.to(self.classifier.weight.dtype) * INPUT_SCALE))


class Convolution(Pixels):
    """The network in the module's docstring; codes are `[B, channels, height, width]`."""

    def __init__(self, network: ConvolutionSettings, shape: tuple[int, int, int], classes: int, gain: int = 1) -> None:
        super().__init__(network, shape, classes, gain)
        height, width, channels = shape
        layers: list[nn.Module] = []
        if network.kind != "plain":
            layers += [*unit(channels, network.widths[0]), nn.ReLU()]
            channels = network.widths[0]
        side = min(height, width)
        for stage, outputs in enumerate(network.widths):
            for block in range(network.blocks):
                stride = 2 if stage and not block else 1
                if network.kind == "resnet":
                    layers.append(Residual(channels, outputs, stride))
                elif network.kind == "mobilenet":
                    layers += [*unit(channels, channels, 3, stride, channels), nn.ReLU()]
                    layers += [*unit(channels, outputs, 1), nn.ReLU()]
                else:
                    layers += [*unit(channels, outputs), nn.ReLU()]
                channels = outputs
            if network.kind == "plain" and side > 3:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, classes)
