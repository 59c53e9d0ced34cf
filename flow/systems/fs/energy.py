"""The energy of a spiking network beside an INT8 twin: the generic count, with the spikes and a dense network's.

What is counted follows from the plan (`flow.report.energy`) and, in event-driven layers, from the spikes of the given
inputs: such a layer reads a row of weights for every spike and no other, while a parallel one reads and adds all of
them in every time step. The twin has the same layers as ordinary dense ones in the same folding: 8-bit codes, 8x8-bit
multiply-accumulates, the weights read once for every vector (in an MLP: once an inference), ReLU as a clamp. What is
not spiking is the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bittrue.flow.report import energy
from bittrue.flow.report.energy import TOGGLED, Progress
from bittrue.flow.systems.fs import spikes as spike_counts
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.plan import Plan
from bittrue.rtl.dataflow.stage import Stage
from bittrue.sim.contract import INT8
from bittrue.sim.operation import Operation
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear


def view(
    plan: Plan,
    x: Sequence[np.ndarray],
    verilog: str | None = None,
    toggled: int = TOGGLED,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """`flow.report.energy.view` with spikes and the twin, as in `report.json`: an inference, layer by layer.

    `spikes` and `synaptic_operations` (one addition of a weight for each spike and output) are those of
    `flow.systems.fs.spikes`; `additions` are what the hardware does, which in a parallel layer is all of them.
    """
    result = energy.view(plan, x, verilog, toggled, progress)
    counted = spike_counts.count(plan.program, x, progress)
    spikes = {train.name: train.spikes / train.inputs for train in counted.trains}
    synapses = {layer.name: layer.operations / layer.inputs for layer in counted.synapses}
    stages = {element.node: element.stage for element in plan.network.elements if element.node}
    dynamic = {element.node for element in plan.network.dynamic}
    twin = []
    for node, row in zip(plan.program.nodes, result["layers"], strict=True):
        name, operation = node.name, node.operation
        row |= {"spikes": spikes.get(name), "synaptic_operations": synapses.get(name)}
        if isinstance(operation, SpikingLinear):
            row["kind"] = "event-driven" if name in dynamic else "parallel"
        twin.append({"name": name} | energy.figures(dense(operation, stages[name])))
    result["total"] |= {"spikes": sum(spikes.values()), "synaptic_operations": sum(synapses.values())}
    return result | {"twin": {"layers": twin, "total": energy.total(twin)}}


def dense(operation: Operation, stage: Stage) -> Effort:
    """What the INT8 twin does: a dense layer for a spiking one, a clamp for a neuron, nothing for an encoder."""
    effort = Effort()
    if isinstance(operation, Encode):
        return effort
    if isinstance(operation, FsNeuron):
        effort.add(INT8.bits, operation.input.size)
    elif isinstance(operation, SpikingLinear):
        (n, c), bits, vectors = operation.weight.shape, INT8.bits, operation.tokens
        effort.multiply(bits, bits, operation.macs)
        effort.add(2 * bits + (c - 1).bit_length(), operation.macs)
        effort.access("weights", n * c * bits, vectors * n * c * bits)
        effort.access("values", 2 * c * bits, vectors * c * bits * (n // stage.pe), vectors * c * bits)
        effort.requantize(stage.requantize, vectors)
    else:
        return stage.effort()
    return effort


# -- for people ----------------------------------------------------------------------------------------
def rows(result: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """Headings and rows of the table: every layer, and the sums."""
    heads = (
        "layer",
        "spikes",
        "synaptic operations",
        "additions",
        "products",
        "weights read, bits",
        "state read, bits",
    )
    body = []
    for layer, twin in zip(
        [*result["layers"], result["total"] | {"name": "in all"}],
        [*result["twin"]["layers"], result["twin"]["total"]],
        strict=True,
    ):
        read, energies = layer["read_bits"], (layer["pj"]["total"] / 1000, twin["pj"]["total"] / 1000)
        figures = (layer["spikes"], layer["synaptic_operations"], layer["additions"], layer["multiplications"])
        body.append([layer["name"], *figures, read["weights"], read["state"], *energies])
    return (*heads, "nJ", "INT8 twin, nJ"), body


def summary(result: Mapping[str, Any]) -> str:
    """The comparison and the toggles in a sentence each."""
    spiking, twin = result["total"]["pj"]["total"], result["twin"]["total"]["pj"]["total"]
    words = (
        f"about {spiking / 1000:.3g} nJ an inference, the INT8 twin {twin / 1000:.3g} nJ: {spiking / twin:.2f} times"
    )
    return f"{words}{energy.toggles_told(result)}"
