"""Small spiking programs."""

from __future__ import annotations

import numpy as np

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize


def silent(threshold: int) -> Program:
    """Neurons whose reader has no weight but 0: whatever they do, the output is the same."""
    kind = TensorType((2, 6), INT8)
    build = Builder({"x": kind})
    powers = np.array([64, 32, 16])
    spikes = build.add("fire", FsNeuron(kind, np.array([threshold, 32, 16]), powers), "x")
    weight = np.zeros((4, 6), np.int64)
    reader = SpikingLinear(build.types[spikes], weight, powers, Requantize(4, 2, np.arange(4)))
    return build.program(build.add("reader", reader, spikes))
