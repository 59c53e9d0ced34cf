"""The energy view: what an inference adds, multiplies and reads, and an estimate of its energy beside an INT8 twin.

Work is counted per stage from the plan (`flow.report.work`) and, in event-driven stages, from the golden simulator's
spikes of the given inputs: such a layer reads a row of weights for every spike and no other, while a parallel one
reads and adds all of them in every time step. The twin has the same layers as ordinary dense ones in the same folding:
8-bit codes, 8x8-bit multiply-accumulates, the weights read once for every vector (in an MLP: once an inference), ReLU
as a clamp. What is not spiking is the same in both.

Energies: M. Horowitz, ISSCC 2014 (see `SOURCE`): additions of 8, 16, 32 bits 0.03, 0.05, 0.1 pJ; multiplications of
8 and 32 bits 0.2 and 3.1 pJ; 64 bits from an SRAM of 8 and 32 kB 10 and 20 pJ. Between and beyond these points:
additions linear in the width, from 0 bits on; products by the power of the product of their widths that goes through
both points (0.99); memories by the square root of their size, as the two points have it; a write costs what a read
costs. Clock, wires, FIFOs, control and leakage are left out: the figures compare two networks, they predict no chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bittrue.flow.report import work as works
from bittrue.flow.report.work import PURPOSES, Activity, Work
from bittrue.flow.systems.fs import spikes as spike_counts
from bittrue.rtl.dataflow.plan import Plan
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.spiking_linear import SpikingLinear

SOURCE = 'M. Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014; 45 nm, 0.9 V'
#: Inputs whose toggles are counted by default.
TOGGLED = 4
ADDITION = {0: 0.0, 8: 0.03, 16: 0.05, 32: 0.1}
KILOBYTE = 8 * 1024

Progress = Callable[[str, float, float], None]


# -- energies, pJ --------------------------------------------------------------------------------------
def addition(bits: int) -> float:
    """Of an addition, subtraction or comparison of so many bits."""
    return 0.1 * bits / 32 if bits > 32 else float(np.interp(bits, list(ADDITION), list(ADDITION.values())))


def multiplication(a: int, b: int) -> float:
    """Of a product of factors of a and b bits."""
    return 0.2 * (a * b / 64) ** (math.log(3.1 / 0.2) / math.log(32 * 32 / 64))


def memory(bits: float, size: float) -> float:
    """Of reading or writing so many bits of a memory of `size` bits."""
    return bits / 64 * 10 * math.sqrt(size / (8 * KILOBYTE))


# -- the view ------------------------------------------------------------------------------------------
def view(
    plan: Plan,
    x: Sequence[np.ndarray],
    verilog: str | None = None,
    toggled: int = TOGGLED,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The energy view of a plan on input batches `[n, *shape]`, as in `report.json`: an inference, layer by layer.

    toggled   of how many inputs the toggles are counted in the compiled RTL (needs Verilator and g++); 0: of none
    verilog   the plan's Verilog, where it is at hand

    `spikes` and `synaptic_operations` (one addition of a weight for each spike and output) are those of
    `flow.systems.fs.spikes`; `additions` are what the hardware does, which in a parallel layer is all of them.
    """
    if toggled < 0:
        raise BittrueError(f"energy: toggles cannot be counted for {toggled} inputs; give 0 or more")
    program, stages = plan.program, {e.node: e.stage for e in plan.network.elements if e.node}
    counted = spike_counts.count(program, x, progress)
    spikes = {train.name: train.spikes / train.inputs for train in counted.trains}
    synapses = {layer.name: layer.operations / layer.inputs for layer in counted.synapses}
    seen = _activity(plan, x)
    layers, twin = [], []
    for node in program.nodes:
        stage, name = stages[node.name], node.name
        kind = type(node.operation).__name__.lower()
        if isinstance(node.operation, SpikingLinear):
            kind = "event-driven" if name in seen else "parallel"
        row = {"name": name, "kind": kind, "spikes": spikes.get(name), "synaptic_operations": synapses.get(name)}
        layers.append(row | figures(works.of_stage(node.operation, stage, seen.get(name))))
        twin.append({"name": name} | figures(works.of_twin(node.operation, stage)))
    result = {
        "inputs": len(x[0]),
        "source": SOURCE,
        "layers": layers,
        "total": total(layers) | {"spikes": sum(spikes.values()), "synaptic_operations": sum(synapses.values())},
        "twin": {"layers": twin, "total": total(twin)},
        "toggles": None,
    }
    return result | ({"toggles": _toggles(plan, x, verilog, toggled, progress)} if toggled else {})


def figures(work: Work) -> dict[str, Any]:
    """The work of a layer as numbers of operations and bits, and its energy in pJ."""
    pj = {
        "additions": sum(n * addition(bits) for bits, n in work.additions.items()),
        "multiplications": sum(n * multiplication(*bits) for bits, n in work.multiplications.items()),
        "memory": sum(memory(access.read + access.written, access.size) for access in work.memory),
    }
    return {
        "additions": sum(work.additions.values()),
        "multiplications": sum(work.multiplications.values()),
        "read_bits": {p: sum(a.read for a in work.memory if a.purpose == p) for p in PURPOSES},
        "written_bits": sum(access.written for access in work.memory),
        "pj": pj | {"total": sum(pj.values())},
    }


def total(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of all layers."""
    result: dict[str, Any] = {
        key: sum(layer[key] for layer in layers) for key in ("additions", "multiplications", "written_bits")
    }
    for key in ("read_bits", "pj"):
        result[key] = {part: sum(layer[key][part] for layer in layers) for part in layers[0][key]}
    return result


def _activity(plan: Plan, x: Sequence[np.ndarray]) -> dict[str, Activity]:
    """The events and moves of every event-driven stage, an inference."""
    program = plan.program
    dynamic = {e.node: e.stage for e in plan.network.dynamic}
    sums = {name: np.zeros(2, np.int64) for name in dynamic}
    for start in range(0, len(x[0]) if dynamic else 0, spike_counts.BLOCK):
        tensors = program.trace(*(v[start : start + spike_counts.BLOCK] for v in x)).tensors
        for node in program.nodes:
            if node.name in dynamic:
                sums[node.name] += works.activity(node.operation, dynamic[node.name], tensors[node.operands[0]])
    return {name: Activity(*(seen / len(x[0])).tolist()) for name, seen in sums.items()}


def _toggles(
    plan: Plan, x: Sequence[np.ndarray], verilog: str | None, count: int, progress: Progress | None
) -> dict[str, Any]:
    """Toggles an inference, stage by stage; filling and draining the pipeline are in the mean."""
    from bittrue.flow.run import toggles
    from bittrue.rtl.verilog import emit

    count = min(count, len(x[0]))
    if progress is not None:
        progress(f"counting the toggles of {count} inputs", 0, 1)
    rows, run = toggles.count(plan, emit(plan) if verilog is None else verilog, [v[:count] for v in x])
    run.check(plan.program(*(v[:count] for v in x)))
    stages = [
        {"name": row.stage, "node": row.node, "registers": row.registers / count, "nets": row.nets / count}
        for row in rows
    ]
    sums = {key: sum(stage[key] for stage in stages) for key in ("registers", "nets")}
    return {"inputs": count, "cycles": run.cycles, "stages": stages} | sums


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
    for layer, dense in zip(
        [*result["layers"], result["total"] | {"name": "in all"}],
        [*result["twin"]["layers"], result["twin"]["total"]],
        strict=True,
    ):
        read, energies = layer["read_bits"], (layer["pj"]["total"] / 1000, dense["pj"]["total"] / 1000)
        figures_ = (layer["spikes"], layer["synaptic_operations"], layer["additions"], layer["multiplications"])
        body.append([layer["name"], *figures_, read["weights"], read["state"], *energies])
    return (*heads, "nJ", "INT8 twin, nJ"), body


def summary(result: Mapping[str, Any]) -> str:
    """The comparison and the toggles in a sentence each."""
    spiking, twin = result["total"]["pj"]["total"], result["twin"]["total"]["pj"]["total"]
    words = (
        f"about {spiking / 1000:.3g} nJ an inference, the INT8 twin {twin / 1000:.3g} nJ: {spiking / twin:.2f} times"
    )
    seen = result["toggles"]
    if seen is None:
        return words + "; toggles were not counted"
    return (
        f"{words}\n{seen['registers']:,.0f} toggles of registers and {seen['nets']:,.0f} of all nets an inference, "
        f"counted over {seen['inputs']} inputs in {seen['cycles']:,} cycles"
    )
