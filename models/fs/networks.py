"""Networks of FS-neurons in integers, in torch, of the layers in `models.fs.layers`.

They are made and filled by `models.fs.convert.convert`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from bittrue.models.fs.layers import IntegerEncode, IntegerFsNeuron, Neurons, TensorSpikingLinear, linear_layer
from bittrue.models.layers.integer import CodeStep, IntegerInput, IntegerLayer, IntegerLinear
from bittrue.models.layers.tensors import TensorProduct
from bittrue.models.networks.mlp import flat_codes
from bittrue.models.networks.settings import MlpSettings

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
        self.input = IntegerInput(features)
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


def spiking(quantized: nn.Module, neurons: Neurons, linears: Mapping[str, tuple[Tensor, Tensor]]) -> nn.Module:
    """The network of INT8 layers of a ResMLP (`models.int8`), with neurons in place of the functions of its blocks.

    linears   real weight and bias of the two linears of a block, by their places: the first feeds neurons, the second
              reads their spikes

    With `first: spikes` the embedding reads the bits of the codes as spikes.
    """
    made: list[IntegerFsNeuron] = []
    decode, weight_bits = neurons.integers.decode, neurons.settings.bits

    def reader(layer: TensorProduct, weight: Tensor, bias: Tensor, source: CodeStep, decode: np.ndarray):
        parameters = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        options = {"decode": decode, "weight_bits": weight_bits}
        linear = TensorSpikingLinear(*parameters, source, layer.target, layer.bits, layer.label, **options)
        linear.path = layer.path
        return linear

    def change(layer, operands: tuple[str, ...]) -> list[tuple[IntegerLayer, tuple[str, ...]]]:
        block, _, place = layer.path.rpartition(".")
        if layer.path == "embed" and neurons.settings.first == "spikes":
            encoder = IntegerEncode(layer.source, layer.input_bits)
            encoder.label = "embed_spikes"
            worth = encoder.decode.numpy().astype(np.int64)
            linear = reader(layer, layer.weight.detach(), layer.bias.detach(), layer.source, worth)
            return [(encoder, operands), (linear, (encoder.label,))]
        if place == "between":
            return []
        if layer.path not in linears:
            return [(layer, operands)]
        weight, bias = linears[layer.path]
        if place == "second":
            return [(reader(layer, weight, bias, made[-1].unit, decode), (made[-1].label,))]
        unit = neurons.unit()
        feeds = IntegerLinear(
            *weight.shape[::-1], layer.source, unit, neurons.bits, input_bits=layer.input_bits, **neurons.feeding()
        )
        made.append(neurons.layer(unit))
        made[-1].path = f"{block}.neurons"
        made[-1].label = made[-1].path.replace(".", "_")
        feeds.label, feeds.path = layer.label, layer.path
        feeds.weight.copy_(weight)
        feeds.bias.copy_(bias)
        return [(feeds, operands), (made[-1], (layer.label,))]

    network = quantized.rebuilt(change)
    network.neurons_made = neurons
    return network
