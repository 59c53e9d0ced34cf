"""What a generator is in bytes beside the network that it generates, and what making all kernels costs.

    permutations    crossfilter   filters channels ceil(log2(filters channels)) bits of a layer
                    infilter      filters channels ceil(log2 channels) + filters ceil(log2 filters)
    published       a byte for every parameter of the generator, and the permutations
    exact           what an INT8 generator holds (`held`): a byte for every weight, `BIAS` for every bias; the scales,
                    of each channel a shift of four bits, or a multiplier of 15 and a shift of six, of each generated
                    layer a multiplier, and of all one shift; and the permutations

The target is that of the generated weights, a byte each; what is not generated is the same in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bittrue.models.layers.tensors import MULTIPLIER_BITS
from bittrue.models.nern import generator
from bittrue.models.nern.networks import Resnet
from bittrue.models.nern.settings import Embeddings, Nern, TargetSettings
from bittrue.models.nern.target import Layer, generated

#: Bytes of a bias, of int32.
BIAS = 4
#: Bits of the shift of a channel where requantisers only shift, and behind a multiplier.
SHIFT_BITS, SHIFT_BEHIND = 4, 6
#: The published hidden sizes, by target.
PUBLISHED = {
    "ResNet20": (140, 160, 180, 200),
    "ResNet56": (240, 280, 320, 360, 400),
    "ResNet18": (1024, 1140, 1256, 1372),
}
#: Sides and channels of the images that the published targets see.
IMAGES = {"ResNet18": (224, 224, 3)}


def permutation_bits(layers: Iterable[Layer], mode: str | None) -> int:
    """What the orders of these layers take."""
    bits = 0
    for layer in layers:
        if mode == "crossfilter":
            bits += layer.kernels * (layer.kernels - 1).bit_length()
        elif mode == "infilter":
            bits += layer.kernels * (layer.channels - 1).bit_length()
            bits += layer.filters * (layer.filters - 1).bit_length()
    return bits


def permutation_bytes(layers: Iterable[Layer], mode: str | None) -> int:
    return -(-permutation_bits(layers, mode) // 8)


def held(weights: int, channels: int, layers: Sequence[Layer], mode: str | None, requantize: str) -> dict[str, int]:
    """Bytes of an INT8 generator, by what they hold.

    weights, channels   of all its layers together, a bias for each channel
    layers              what it generates, in the permutations `mode`
    requantize          how its layers do: `shift` or `multiplier`
    """
    each = SHIFT_BITS if requantize == "shift" else MULTIPLIER_BITS + SHIFT_BEHIND
    scales = each * channels + MULTIPLIER_BITS * len(layers) + SHIFT_BEHIND
    return {
        "weights": weights,
        "biases": BIAS * channels,
        "scales": -(-scales // 8),
        "permutations": permutation_bytes(layers, mode),
    }


@dataclass(frozen=True)
class Size:
    """A generator beside its target.

    layers       what is generated
    settings     of the generator
    inference    multiply-accumulates of one pass of the whole target
    requantize   how the layers of the generator do in integers
    """

    name: str
    layers: tuple[Layer, ...]
    settings: Nern
    inference: int
    requantize: str = "shift"

    @property
    def weights(self) -> int:
        """Generated weights of the target: its INT8 bytes."""
        return sum(layer.weights for layer in self.layers)

    @property
    def kernels(self) -> int:
        return sum(layer.kernels for layer in self.layers)

    @property
    def parameters(self) -> int:
        return generator.parameters(self.settings)

    @property
    def biases(self) -> int:
        return (self.settings.num_blocks - 1) * self.settings.hidden_layer_size + self.settings.output_size**2

    def permutations(self, mode: str | None) -> int:
        """Bytes of the orders."""
        return permutation_bytes(self.layers, mode)

    def ratio(self, mode: str | None) -> float:
        """INT8 bytes of the target over those of the generator, as published: a byte for each parameter."""
        return self.weights / (self.parameters + self.permutations(mode))

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of the generator by what they hold, exactly, with the permutations of its settings."""
        mode = self.settings.embeddings.permutations.permute_mode
        return held(self.parameters - self.biases, self.biases, self.layers, mode, self.requantize)

    @property
    def share(self) -> float:
        """Exact bytes over those of the target."""
        return sum(self.parts.values()) / self.weights

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a kernel, each layer as a whole."""
        return generator.macs(self.settings)

    @property
    def every(self) -> int:
        """Multiply-accumulates of all kernels."""
        return self.macs * self.kernels


def size(network: nn.Module, codes: Sequence[int], settings: Nern, name: str = "", requantize: str = "shift") -> Size:
    """Of a generator of a network that sees codes of this shape, without the axis of samples."""
    layers = generated(network, settings.output_size, settings.keep)
    return Size(name or type(network).__name__, layers, settings, inference(network, codes), requantize)


def inference(network: nn.Module, codes: Sequence[int]) -> int:
    """Multiply-accumulates of one pass: of the convolutions and linear layers, from the shapes that they give."""
    found: list[int] = []

    def see(module: nn.Module, _: object, y: torch.Tensor) -> None:
        found.append(y[0].numel() * module.weight[0].numel())  # type: ignore[operator, index]

    handles = [m.register_forward_hook(see) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *codes, device=next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return sum(found)


def published(settings: Nern, hidden: int) -> Nern:
    """The settings with another hidden size."""
    return settings.model_copy(update={"hidden_layer_size": hidden})


#: Geometry of all published generators.
GEOMETRY = Nern(num_blocks=5, embeddings=Embeddings(enc_levels=40, base=0.76))


def of(
    target: TargetSettings,
    hidden: Sequence[int],
    settings: Nern = GEOMETRY,
    image: tuple[int, int, int] | None = None,
    classes: int | None = None,
) -> Iterator[Size]:
    """Of a target's architecture, a size for each hidden size; images and classes as published unless given."""
    name = target.architecture
    height, width, channels = image or IMAGES.get(name, (32, 32, 3))
    classes = classes or (1000 if name in IMAGES else 10)
    with torch.random.fork_rng():  # a pass on the CPU takes less time than torch's first one on the device `meta`
        network = Resnet(target, (height, width, channels), classes)
    name = name if name == "ResNet18" else f"{name}-{target.option}"
    first = size(network, (channels, height, width), settings, name)
    for number in hidden:
        yield Size(name, first.layers, published(settings, number), first.inference)


def table() -> list[Size]:
    """Every published configuration."""
    return [one for name, hidden in PUBLISHED.items() for one in of(TargetSettings(architecture=name), hidden)]  # type: ignore[arg-type]
