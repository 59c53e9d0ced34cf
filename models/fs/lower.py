"""Spiking layers to `sim` operations: importing this module teaches `models.graph.lower` about them."""

from __future__ import annotations

from bittrue.models.fs.integer import IntegerEncode, IntegerFsNeuron, IntegerSpikingLinear
from bittrue.models.graph.lower import Lowering, emit, linear_requantize, whole
from bittrue.sim.contract import Format
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear


@emit.register
def _encode(layer: IntegerEncode, lowering: Lowering, name: str, source: str) -> str:  # noqa: ARG001
    return lowering.add(name, Encode(lowering.type(source)), source, scale=1.0)


@emit.register
def _fs_neuron(layer: IntegerFsNeuron, lowering: Lowering, name: str, source: str) -> str:
    threshold, reset = whole(layer.threshold), whole(layer.reset)
    neuron = FsNeuron(lowering.type(source), threshold, reset, layer.lowest, layer.highest)
    return lowering.add(name, neuron, source, scale=1.0)


@emit.register
def _spiking_linear(layer: IntegerSpikingLinear, lowering: Lowering, name: str, source: str) -> str:
    weight, decode = whole(layer.integers()[0]), whole(layer.decode)
    operation = SpikingLinear(
        lowering.type(source), weight, decode, linear_requantize(layer), Format(layer.weight_bits)
    )
    return lowering.add(name, operation, source, scale=layer.scale)
