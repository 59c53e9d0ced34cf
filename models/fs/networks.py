"""Networks of FS-neurons: those of INT8 layers (`models.int8`) in which layers of `models.fs.layers` stand for some.

They are made and filled by `models.fs.convert.convert`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from bittrue.models.data.sets import INPUT_SCALE
from bittrue.models.fs.layers import IntegerEncode, Neurons, TensorSpikingLinear, least_step, linear_layer
from bittrue.models.int8.converted import Converted
from bittrue.models.layers.integer import CodeStep, IntegerLayer


@dataclass(frozen=True)
class Place:
    """Where neurons stand: paths of the activation that they stand for, of the linear layer in front, and their own."""

    activation: str
    front: str
    neurons: str


@dataclass(frozen=True, eq=False)
class Spikes:
    """Spikes in place of a tensor: their name, and what they are worth at each time step, in whole steps of `unit`."""

    name: str
    unit: CodeStep
    decode: np.ndarray


def spiking(
    quantized: Converted,
    neurons: Neurons,
    places: Sequence[Place],
    linears: Mapping[str, tuple[Tensor, Tensor]],
    logits: str,
) -> Converted:
    """The INT8 network with neurons for the activations at `places`; codes in and out are the same.

    linears   real weight and bias of the linear layers in front of neurons, and of those that may read spikes, by path
    logits    path of the layer that gives the result

    What reads spikes adds weights where they arrive; with `first: spikes` that is also what reads the network's codes,
    whose bits are spikes then. A bias is added behind the shift in front of neurons and in the logits, and within the
    sum in every other layer, as in the INT8 network.
    """
    fronts, activations = {place.front: place for place in places}, {place.activation for place in places}
    entries = {entry.label for entry in quantized.inputs}
    made: dict[str, Spikes] = {}  # by the tensor that they stand for
    weight_bits = neurons.settings.bits

    def change(layer: IntegerLayer, operands: tuple[str, ...]) -> list[tuple[IntegerLayer, tuple[str, ...]]]:
        path, (operand, *_) = layer.path, operands
        if path in activations:
            made[layer.label] = made[operand]
            return []
        if path not in linears:
            return [(layer, operands)]
        source, found = layer.source, []
        if operand in entries:
            source = CodeStep(float(source.value) * INPUT_SCALE, fixed=True)  # in what the model multiplies
            if neurons.settings.first == "spikes":
                encoder = IntegerEncode(source, layer.input_bits)
                encoder.label = "encoder"
                found.append((encoder, operands))
                made[operand] = Spikes(encoder.label, source, encoder.decode.numpy().astype(np.int64))
        decode = None
        if operand in made:
            operands, source, decode = (made[operand].name,), made[operand].unit, made[operand].decode
        elif path not in fronts:
            return [(layer, operands)]
        weight, bias = linears[path]
        if path in fronts:
            unit = neurons.unit()
            linear = linear_layer(weight, bias, source, unit, neurons.bits, decode, **neurons.feeding())
        elif path == logits:
            linear = linear_layer(weight, bias, source, layer.target, layer.bits, decode, weight_bits=weight_bits)
            layer.target.set(max(float(layer.target.value), least_step(linear)))
        else:
            parameters = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
            options = {"decode": decode, "weight_bits": weight_bits}
            linear = TensorSpikingLinear(*parameters, source, layer.target, layer.bits, layer.label, **options)
        linear.label, linear.path = layer.label, path
        found.append((linear, operands))
        if path in fronts:
            fires = neurons.layer(unit)
            fires.path = fronts[path].neurons
            fires.label = fires.path.replace(".", "_")
            found.append((fires, (layer.label,)))
            made[layer.label] = Spikes(fires.label, unit, neurons.integers.decode)
        return found

    network = quantized.rebuilt(change)
    network.neurons_made = neurons
    return network
