"""What a program's spikes do on a set of inputs: how many there are, what the neurons see, what it costs to add them.

Counted on the golden simulator's tensors, whole numbers throughout, so that a simulation of hardware can be held to
the same counts. A spike costs one synaptic operation at each output of the layer that reads it: one addition of a
weight, where the dense twin has one multiply-accumulate for every input whether it is zero or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.program import Program

#: Inputs run together; every tensor of them is in memory.
BLOCK = 256


@dataclass(frozen=True, eq=False)
class Train:
    """The spikes of one tensor, over all inputs.

    kind        operation that makes them, `fsneuron` or `encode`
    neurons     values that become a spike train, per input
    per_neuron  spikes of each neuron, int64 `[*shape]`, shape as that of the values
    per_step    spikes of each time step, int64 `[K]`
    mean, deviation   of the value that each neuron was given, in code steps, float64 `[*shape]`
    overall     mean and deviation over all neurons and inputs, in code steps
    scale       real value of a code step, where the program tells it
    clipped     values outside the valid range
    """

    name: str
    kind: str
    inputs: int
    per_neuron: np.ndarray
    per_step: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    overall: tuple[float, float]
    scale: float
    clipped: int

    @property
    def neurons(self) -> int:
        return int(self.per_neuron.size)

    @property
    def spikes(self) -> int:
        return int(self.per_neuron.sum())

    def to_json(self) -> dict[str, Any]:
        """One row of a report; the arrays of each neuron are left out."""
        mean, deviation = self.overall
        return {
            "name": self.name,
            "kind": self.kind,
            "neurons": self.neurons,
            "steps": len(self.per_step),
            "spikes": self.spikes,
            "spikes_per_neuron": self.spikes / (self.neurons * self.inputs),
            "per_step": self.per_step.tolist(),
            "mean": mean * self.scale,
            "deviation": deviation * self.scale,
            "clipped": self.clipped,
            "clipped_fraction": self.clipped / (self.neurons * self.inputs),
        }


@dataclass(frozen=True)
class Synapses:
    """What reading spikes costs in one layer: `operations` over all inputs, `macs` of its dense twin per input."""

    name: str
    source: str
    fan_out: int
    operations: int
    macs: int
    inputs: int

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "fan_out": self.fan_out,
            "operations": self.operations / self.inputs,
            "macs": self.macs,
        }


@dataclass(frozen=True)
class Spikes:
    """Every spike train of a program, every layer that reads one, and the multiply-accumulates of all other layers."""

    inputs: int
    trains: tuple[Train, ...]
    synapses: tuple[Synapses, ...]
    other_macs: int

    def to_json(self) -> dict[str, Any]:
        """Per inference where it says nothing else; `in_all` sums the FS-neurons, without what encodes the input."""
        neurons = [train for train in self.trains if train.kind == "fsneuron"]
        count, spikes = sum(t.neurons for t in neurons), sum(t.spikes for t in neurons)
        values = max(1, count * self.inputs)
        clipped = sum(t.clipped for t in neurons)
        return {
            "inputs": self.inputs,
            "layers": [train.to_json() for train in self.trains],
            "synapses": [layer.to_json() for layer in self.synapses],
            "in_all": {
                "neurons": count,
                "spikes": spikes,
                "spikes_per_neuron": spikes / values,
                "clipped": clipped,
                "clipped_fraction": clipped / values,
                "synaptic_operations": sum(layer.operations for layer in self.synapses) / self.inputs,
                "spiking_macs": sum(layer.macs for layer in self.synapses),
                "other_macs": self.other_macs,
            },
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What belongs to each neuron: `<layer>.spikes`, and `<layer>.mean`, `<layer>.deviation` in real units."""
        named = {}
        for train in self.trains:
            named[f"{train.name}.spikes"] = train.per_neuron
            named[f"{train.name}.mean"] = train.mean * train.scale
            named[f"{train.name}.deviation"] = train.deviation * train.scale
        return named


class _Tally:
    """Sums of one spike train and of the values that it encodes, block by block."""

    def __init__(self, shape: tuple[int, ...], steps: int) -> None:
        self.per_neuron, self.per_step = np.zeros(shape, np.int64), np.zeros(steps, np.int64)
        self.sum, self.squares = np.zeros(shape, np.int64), np.zeros(shape, np.float64)
        self.clipped = 0

    def add(self, values: np.ndarray, spikes: np.ndarray, clipped: int) -> None:
        fired = spikes.sum(axis=0, dtype=np.int64)  # [..., K, C]
        self.per_neuron += fired.sum(axis=-2)
        self.per_step += fired.sum(axis=tuple(k for k in range(fired.ndim) if k != fired.ndim - 2))
        self.sum += values.sum(axis=0, dtype=np.int64)
        self.squares += np.square(values, dtype=np.float64).sum(axis=0)
        self.clipped += clipped

    def train(self, name: str, kind: str, inputs: int, scale: float) -> Train:
        mean = self.sum / inputs
        deviation = np.sqrt(np.maximum(self.squares / inputs - mean**2, 0))
        centre = float(mean.mean())
        spread = float(np.sqrt(max(self.squares.sum() / (inputs * mean.size) - centre**2, 0.0)))
        arrays = self.per_neuron, self.per_step, mean, deviation
        return Train(name, kind, inputs, *arrays, (centre, spread), scale, self.clipped)


def count(
    program: Program, x: Sequence[np.ndarray], progress: Callable[[str, float, float], None] | None = None
) -> Spikes:
    """Count the spikes of a program on input batches `[n, *shape]`, one array per input of the program."""
    inputs = len(x[0])
    if not inputs:
        raise BittrueError("spikes: there are no inputs to count on; give at least one")
    sources = {node.name: node for node in program.nodes if isinstance(node.operation, FsNeuron | Encode)}
    tallies = {name: _Tally(node.operation.inputs[0].shape, node.operation.steps) for name, node in sources.items()}
    for start, trace in _traces(program, x):
        if progress is not None:
            progress("counting spikes", start, inputs)
        for name, node in sources.items():
            tallies[name].add(trace.tensors[node.operands[0]], trace.tensors[name], trace.saturation[name])
    scales = program.meta.get("scales", {})
    trains = tuple(
        tallies[name].train(
            name, type(node.operation).__name__.lower(), inputs, float(scales.get(node.operands[0], 1.0))
        )
        for name, node in sources.items()
    )
    spikes = {train.name: train.spikes for train in trains}
    synapses, other = [], 0
    for node in program.nodes:
        operation = node.operation
        if not isinstance(operation, SpikingLinear):
            other += operation.macs
            continue
        fan_out, source = operation.output.channels, node.operands[0]
        if source not in spikes:
            raise BittrueError(f"spikes: {node.name!r} reads {source!r}, which neither neurons nor an encoder make")
        synapses.append(Synapses(node.name, source, fan_out, spikes[source] * fan_out, operation.macs, inputs))
    return Spikes(inputs, trains, tuple(synapses), other)


def _traces(program: Program, x: Sequence[np.ndarray]) -> Iterator[tuple[int, Any]]:
    for start in range(0, len(x[0]), BLOCK):
        yield start, program.trace(*(v[start : start + BLOCK] for v in x), first=start)
