"""Temporal convolutional networks: causal, dilated convolutions over time (S. Bai et al. 2018, arXiv:1803.01271).

x = codes / 128, as a series [channels, time]
for each width, with a dilation of 1, 2, 4 and so on
    x = relu(relu(norm(conv3 relu(norm(conv3 x)))) + shortcut(x))
        conv3 sees the present sample and the two that are one and two dilations before it; the shortcut is a
        convolution of one sample where the width changes
logits = W mean(x) + b               the mean over time
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from bittrue.models.networks.convolution import Pixels
from bittrue.models.networks.settings import ConvolutionSettings

#: Samples that a convolution sees, and the share of values that are left out in training.
TAPS, DROPOUT = 3, 0.2


def causal(inputs: int, outputs: int, dilation: int) -> list[nn.Module]:
    """A convolution over the present and the past, its normalisation, and its function; what was before is 0."""
    past = nn.ConstantPad1d(((TAPS - 1) * dilation, 0), 0.0)
    convolution = nn.Conv1d(inputs, outputs, TAPS, dilation=dilation, bias=False)
    return [past, convolution, nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(DROPOUT)]


class Residual(nn.Module):
    """Two causal convolutions of one dilation beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*causal(inputs, outputs, dilation), *causal(outputs, outputs, dilation))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)
        self.function = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x) + self.shortcut(x))


class Temporal(Pixels):
    """The network in the module's docstring, for images one pixel wide, whose rows are samples in time; codes are
    `[B, channels, time]`."""

    def __init__(self, network: ConvolutionSettings, shape: tuple[int, int, int], classes: int, gain: int = 1) -> None:
        super().__init__(network, shape, classes, gain)
        _, _, channels = shape
        layers: list[nn.Module] = []
        for number, outputs in enumerate(width for width in network.widths for _ in range(network.blocks)):
            layers.append(Residual(channels, outputs, 2**number))
            channels = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, classes)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, time, 1, channels]` as codes int8 `[n, channels, time]`."""
        codes = super().encode(images)
        return codes.reshape(*codes.shape[:2], -1)
