"""The energy view: what an inference adds, multiplies, reads and toggles, and an estimate of its energy.

Every stage of the plan says what it does for a frame (`rtl.dataflow.effort`); a stage whose cycles depend on the data
is told what the golden simulator saw of the given inputs. What a system compares it with, it adds itself.

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

from bittrue.rtl.dataflow.choice import frames_shared
from bittrue.rtl.dataflow.effort import PURPOSES, Effort
from bittrue.rtl.dataflow.groups import GroupStage
from bittrue.rtl.dataflow.plan import Plan
from bittrue.sim.errors import BittrueError

SOURCE = 'M. Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014; 45 nm, 0.9 V'
#: Inputs run together; every tensor of them is in memory.
BLOCK = 256
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
    size: int | None = None,
) -> dict[str, Any]:
    """The energy view of a plan on input batches `[n, *shape]`, as in `report.json`: an inference, layer by layer.

    Where frames go in groups, an inference has its part of what is done for a group of this `size`, by default of that
    which it has at first.

    toggled   of how many inputs the toggles are counted in the compiled RTL (needs Verilator and g++); 0: of none
    verilog   the plan's Verilog, where it is at hand
    """
    if toggled < 0:
        raise BittrueError(f"energy: toggles cannot be counted for {toggled} inputs; give 0 or more")
    grouping = plan.program.grouping
    if size is not None and (grouping is None or size not in grouping.modes or toggled):
        of = "toggles are those of groups as they are at first" if toggled else "the plan has no groups of that size"
        raise BittrueError(f"energy: an inference with {size} at a time cannot be counted: {of}; leave one of them out")
    stages = {element.node: element.stage for element in plan.network.elements if element.node}
    seen = _seen(plan, x)
    if grouping is not None:
        images = {"images": size or grouping.size}
        seen |= {name: images for name, stage in stages.items() if isinstance(stage, GroupStage)}
    layers = [
        {"name": node.name, "kind": type(node.operation).__name__.lower()}
        | figures(
            stages[node.name].effort(**seen.get(node.name, {})).shared(frames_shared(plan.program, node.name, size))
        )
        for node in plan.program.nodes
        if node.name in stages  # others are wires, or within the stage of their reader
    ]
    result = {"inputs": len(x[0]), "source": SOURCE, "layers": layers, "total": total(layers), "toggles": None}
    return result | ({"toggles": _toggles(plan, x, verilog, toggled, progress)} if toggled else {})


def figures(effort: Effort) -> dict[str, Any]:
    """The effort of a layer as numbers of operations and bits, and its energy in pJ."""
    pj = {
        "additions": sum(n * addition(bits) for bits, n in effort.additions.items()),
        "multiplications": sum(n * multiplication(*bits) for bits, n in effort.multiplications.items()),
        "memory": sum(memory(traffic.read + traffic.written, traffic.size) for traffic in effort.memory),
    }
    return {
        "additions": sum(effort.additions.values()),
        "multiplications": sum(effort.multiplications.values()),
        "read_bits": {p: sum(t.read for t in effort.memory if t.purpose == p) for p in PURPOSES},
        "written_bits": sum(traffic.written for traffic in effort.memory),
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


def _seen(plan: Plan, x: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """By node, the counts that the effort of its stage depends on, a frame."""
    dynamic = {element.node: element.stage for element in plan.network.dynamic}
    sums: dict[str, dict[str, int]] = {name: {} for name in dynamic}
    for start in range(0, len(x[0]) if dynamic else 0, BLOCK):
        tensors = plan.program.trace(*(v[start : start + BLOCK] for v in x), first=start).tensors
        for node in plan.program.nodes:
            if node.name in dynamic:
                found = dynamic[node.name].counts(*(tensors[operand] for operand in node.operands))
                for key, value in found.items():
                    sums[node.name][key] = sums[node.name].get(key, 0) + value
    return {name: {key: value / len(x[0]) for key, value in found.items()} for name, found in sums.items()}


def _toggles(
    plan: Plan, x: Sequence[np.ndarray], verilog: str | None, count: int, progress: Progress | None
) -> dict[str, Any]:
    """Toggles an inference, stage by stage; filling and draining the pipeline are in the mean."""
    from bittrue.flow.run import toggles
    from bittrue.rtl.dataflow.design import PipelineDesign

    count = min(count, len(x[0]))
    if progress is not None:
        progress(f"counting the toggles of {count} inputs", 0, 1)
    design = PipelineDesign(plan)
    rows, run = toggles.count(design, design.verilog() if verilog is None else verilog, [v[:count] for v in x])
    run.check(plan.program(*(v[:count] for v in x)))
    stages = [
        {"name": row.stage, "node": row.node, "registers": row.registers / count, "nets": row.nets / count}
        for row in rows
    ]
    sums = {key: sum(stage[key] for stage in stages) for key in ("registers", "nets")}
    return {"inputs": count, "cycles": run.cycles, "stages": stages} | sums


# -- for people ----------------------------------------------------------------------------------------
def toggles_told(result: Mapping[str, Any]) -> str:
    """The toggles in a sentence behind others."""
    seen = result["toggles"]
    if seen is None:
        return "; toggles were not counted"
    return (
        f"\n{seen['registers']:,.0f} toggles of registers and {seen['nets']:,.0f} of all nets an inference, "
        f"counted over {seen['inputs']} inputs in {seen['cycles']:,} cycles"
    )
