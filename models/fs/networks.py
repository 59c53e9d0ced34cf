"""Networks of FS-neurons in integers, in torch, of the layers in `models.fs.layers`.

They are made and filled by `models.fs.convert.convert`, or read by `models.training.storage.load`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from bittrue.models.data.sets import INPUT_BITS
from bittrue.models.fs.layers import IntegerEncode, IntegerSpikingLinear, Neurons, linear_layer
from bittrue.models.layers.integer import CodeStep, IntegerAdd, IntegerAffine, IntegerInput, IntegerLinear
from bittrue.models.networks.integer import IntegerResMLP
from bittrue.models.networks.mlp import flat_codes
from bittrue.models.networks.settings import MlpSettings, Quantize, ResMLPSettings

#: Width of logits.
LOGIT_BITS = 8


class FsMlp(nn.Module):
    """An MLP of FS-neurons whose forward is exact: codes `[B, pixels]` in, logit codes `[B, classes]` out.

    The first layer reads the bits of the codes as spikes, or with `first: integer` the codes themselves.
    """

    def __init__(
        self, network: MlpSettings, neurons: Neurons, shape: tuple[int, int, int], classes: int, gain: int = 1
    ) -> None:
        super().__init__()
        self.network, self.neurons_made = network, neurons
        self.shape, self.classes, self.gain = tuple(shape), classes, gain
        features, bits = int(np.prod(shape)), neurons.settings.bits
        self.input = IntegerInput(None, features)
        self.spiking_input = neurons.settings.first == "spikes"
        source, decode = self.input.target, None
        if self.spiking_input:
            self.encoder = IntegerEncode(source, self.input.bits)
            decode = self.encoder.decode.numpy().astype(np.int64)
        self.hidden, self.neurons = nn.ModuleList(), nn.ModuleList()
        sizes = (features, *network.hidden)
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            unit = neurons.unit()
            self.hidden.append(linear_layer(inputs, outputs, source, unit, neurons.bits, decode, **neurons.feeding()))
            self.neurons.append(neurons.layer(unit))
            source, decode = unit, neurons.integers.decode
        self.classifier = linear_layer(sizes[-1], classes, source, CodeStep(), LOGIT_BITS, decode, weight_bits=bits)

    @property
    def scale(self) -> Tensor:
        """Real value of one step of the logits."""
        return self.classifier.target.value

    def describe(self) -> dict[str, Any]:
        """JSON values from which `from_description` builds the network, without its parameters."""
        geometry = {"shape": list(self.shape), "classes": self.classes, "gain": self.gain}
        return {"network": self.network.model_dump(mode="json"), "neurons": self.neurons_made.describe()} | geometry

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> FsMlp:
        network, neurons = MlpSettings(**values["network"]), Neurons.from_description(values["neurons"])
        return cls(network, neurons, tuple(values["shape"]), values["classes"], values["gain"])

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes int8 `[n, h * w * channels]`."""
        return flat_codes(images, self.gain)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.input(codes)
        if self.spiking_input:
            x = self.encoder(x)
        for linear, neurons in zip(self.hidden, self.neurons, strict=True):
            x = neurons(linear(x))
        return self.classifier(x)


class FsCrossChannel(nn.Module):
    """`residual(x) + second(neurons(first(x)))`: that of an `IntegerResMLP` with neurons in place of its function."""

    def __init__(
        self, network: ResMLPSettings, neurons: Neurons, source: CodeStep, target: CodeStep, bits: int
    ) -> None:
        super().__init__()
        embed, hidden, unit = network.embed, network.hidden, neurons.unit()
        self.residual = IntegerAffine(embed, source, target, bits)
        self.first = IntegerLinear(embed, hidden, source, unit, neurons.bits, input_bits=bits, **neurons.feeding())
        self.neurons = neurons.layer(unit)
        decode, weight_bits = neurons.integers.decode, neurons.settings.bits
        self.second = IntegerSpikingLinear(hidden, embed, unit, target, bits, decode, weight_bits=weight_bits)
        self.add = IntegerAdd(target, bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self.second(self.neurons(self.first(x))), self.residual(x))


class FsResMLP(IntegerResMLP):
    """A ResMLP whose functions over the channels are FS-neurons; everything else is that of `IntegerResMLP`.

    With `first: spikes` the embedding reads the bits of the codes as spikes.
    """

    def __init__(
        self,
        network: ResMLPSettings,
        quantize: Quantize,
        neurons: Neurons,
        shape: tuple[int, int, int],
        classes: int,
        gain: int = 1,
    ) -> None:
        super().__init__(network, quantize, shape, classes, gain)
        self.neurons_made = neurons
        if neurons.settings.first == "spikes":
            encoder = IntegerEncode(self.input.target, INPUT_BITS)
            decode = encoder.decode.numpy().astype(np.int64)
            source, target = self.input.target, self.embed.target
            features = self.embed.weight.shape[1]
            options = {"weight_bits": neurons.settings.bits}
            spiking = IntegerSpikingLinear(features, network.embed, source, target, quantize.bits, decode, **options)
            self.embed = nn.Sequential(encoder, spiking)
        for block in self.blocks:
            source, target = block.mlp.residual.source, block.mlp.residual.target
            block.mlp = FsCrossChannel(network, neurons, source, target, quantize.bits)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"neurons": self.neurons_made.describe()}

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> FsResMLP:
        network, quantize = ResMLPSettings(**values["network"]), Quantize(**values["quantize"])
        neurons = Neurons.from_description(values["neurons"])
        return cls(network, quantize, neurons, tuple(values["shape"]), values["classes"], values["gain"])
