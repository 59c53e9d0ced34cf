"""Wide residual networks with slots for several images.

n images go in, n divides the N slots, r = N / n:

    x = relu(norm(conv3x3 x))           the stem, each image by itself, D = 16 initial_width channels
    z = sum_s M_s x[s mod n]            bound and added (`models.superposition.binding`), the slots filled in turn
    z = stages of 16, 32 and 64 times `width` channels; the second and the third halve the image
    u = relu(A mean(z) + b)             taken apart: the mean over all pixels, C channels -> N C
    u = mean over the r copies          slots s mod n
    logits = F u[i] + c                 for image i; one classifier for all

A network of one slot and without binding has no A: it is the ordinary one. Nothing is between the last stage and the
mean. A block is `y + shortcut(x)` (with skip_init `alpha y`), `y = conv3x3(act(norm(conv3x3(act(norm(x))))))`; the
shortcut is x, or norm(conv1x1 x) when channels or size change; act is

    WideResNet, WideISOReLUNet    relu
    WideISONet                    max(x, b_c), a ReLU shifted by channel
    MIMONet                       x, or a_c x below 0

and all but WideResNet have a penalty for convolutions that are not isometries.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bittrue.models.data.sets import INPUT_SCALE
from bittrue.models.layers.groups import Unbundled
from bittrue.models.networks.convolution import Pixels
from bittrue.models.superposition.binding import BINDINGS
from bittrue.models.superposition.penalties import isometry_penalty
from bittrue.models.superposition.settings import SuperpositionSettings
from bittrue.sim.errors import BittrueError


class ShiftedReLU(nn.Module):
    """max(x, b_c) of `[B, C, H, W]`: relu(x - b_c) + b_c without its roundings."""

    def __init__(self, channels: int, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((channels,), shift))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.shift[:, None, None])


def activation(network: SuperpositionSettings, channels: int) -> nn.Module:
    """The function of a block."""
    if network.kind == "WideISONet":
        return ShiftedReLU(channels, network.initial_relu)
    if network.kind == "MIMONet":
        return nn.PReLU(channels, network.initial_relu)
    return nn.ReLU()


def norm(network: SuperpositionSettings, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if network.batch_norm else nn.Identity()


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Padded, without bias, normal with variance 2 / (outputs k^2)."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


class Block(nn.Module):
    """Two convolutions beside a shortcut, normalised before they are applied."""

    def __init__(self, network: SuperpositionSettings, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.function1 = norm(network, inputs), activation(network, inputs)
        self.conv1 = convolution(inputs, outputs, stride=stride)
        self.norm2, self.function2 = norm(network, outputs), activation(network, outputs)
        self.conv2 = convolution(outputs, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), norm(network, outputs))
        self.alpha = nn.Parameter(torch.zeros(())) if network.skip_init else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.function1(self.norm1(x)))
        y = self.conv2(self.function2(self.norm2(y)))
        return (y if self.alpha is None else self.alpha * y) + self.shortcut(x)


class Superposition(Pixels):
    """The network in the module's docstring.

    `at_a_time` is n, settable before every call; at first N. `forward` takes codes `[B, channels, height, width]` as
    `encode` makes them, n after n images in one pass, and gives float logits `[B, classes]`. Where B is not a multiple
    of n, the last pass is filled with images of code 0, whose logits are cut off again; in training, where they would
    go into the normalisation, such a batch is refused.
    """

    settings = SuperpositionSettings

    def __init__(
        self, network: SuperpositionSettings, shape: tuple[int, int, int], classes: int, gain: int = 1
    ) -> None:
        super().__init__(network, shape, classes, gain)
        inputs, bound, slots = shape[2], network.bound, network.slots
        stem = convolution(inputs, bound, stride=network.stem_stride)
        self.stem = nn.Sequential(stem, norm(network, bound), nn.ReLU())
        self.binding = BINDINGS[network.binding](slots, bound, network.train_keys)
        blocks, channels = [], bound
        for stage, outputs in enumerate((16 * network.width, 32 * network.width, 64 * network.width)):
            for block in range((network.depth - 4) // 6):
                blocks.append(Block(network, channels, outputs, 2 if stage and not block else 1))
                channels = outputs
        self.bulk = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.unbind: nn.Module | None = None
        if network.binding != "None" or slots > 1:
            apart = nn.Linear(channels, slots * channels)
            nn.init.kaiming_normal_(apart.weight, mode="fan_out", nonlinearity="relu")
            self.unbind = nn.Sequential(apart, nn.ReLU())
        self.apart = Unbundled(slots)
        self.classifier = nn.Linear(channels, classes)
        if network.dirac_init:
            for layer in self.isometries:
                nn.init.dirac_(layer.weight)

    @property
    def at_a_time(self) -> int:
        """n, the images of one pass."""
        return self.binding.at_a_time

    @at_a_time.setter
    def at_a_time(self, n: int) -> None:
        if n not in self.network.modes:
            raise BittrueError(
                f"superposition: {n} images at a time do not divide the {self.network.slots} slots; this network takes "
                f"{', '.join(map(str, self.network.modes))}"
            )
        self.binding.at_a_time = self.apart.at_a_time = n

    @property
    def isometries(self) -> list[nn.Conv2d]:
        """The convolutions that the penalty is for: all of the blocks."""
        return [layer for layer in self.bulk.modules() if isinstance(layer, nn.Conv2d)]

    def isometry_penalty(self) -> Tensor:
        """The sum over the blocks' convolutions, 0 for a WideResNet."""
        if self.network.kind == "WideResNet":
            return torch.zeros((), device=self.classifier.weight.device)
        return sum(isometry_penalty(layer.weight, layer.stride[0]) for layer in self.isometries)  # type: ignore[return-value]

    def forward(self, codes: Tensor) -> Tensor:
        images, n = len(codes), self.at_a_time
        missing = -images % n
        if missing and self.training:
            raise BittrueError(
                f"superposition: a training batch of {images} images is no multiple of {n}, the images of one pass; "
                f"leave {images % n} out, or add {missing}"
            )
        x = codes.to(self.classifier.weight.dtype) * INPUT_SCALE
        if missing:
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
        u = self.pool(self.bulk(self.binding(self.stem(x))))
        if self.unbind is not None:
            u = self.apart(self.unbind(u))
        return self.classifier(u)[:images] if missing else self.classifier(u)
