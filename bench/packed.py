"""Two products in a multiplier: cells of recipes' designs on UltraScale+ with one product in a DSP, and with two.

With two products a matrix stage reads its vector in words where it read all of it at once before: what was flip-flops
is block RAM then, where a block saves enough LUTs (`block_luts` of `rtl.dataflow.packed.Packed`).

    python -m bench packed                      # recipes on the digits: ten minutes, most of it yosys
    python -m bench packed --designs relu-fashion-mnist --store
    python -m bench packed --designs all        # those on Fashion-MNIST, too: an hour

A design has the parameters that its network begins with (`bench.designs.untrained`) and the interval of its recipe,
both ways. It is mapped as by `bittrue synth --target xilinx-us+`; the DSPs of linear layers are those that lie in their
stages.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.designs import chosen, untrained
from bench.timing import Row
from bittrue.flow.synth.synthesis import TOP, synthesize
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.sim.operations.linear import Linear

TARGET = "xilinx-us+"
DIGITS = ("lerp-psa-digits", "relu-digits", "cnn-digits")
RECIPES = (*DIGITS, "lerp-psa-fashion-mnist", "relu-fashion-mnist")
#: The stage in the name of a cell.
STAGE = re.compile(r"\bpipeline\.\\?(\w+)\.")


def linear_stages(planned: Plan) -> dict[str, int]:
    """By name of its stage, the multipliers of every linear layer, as planned."""
    nodes = {node.name for node in planned.program.nodes if isinstance(node.operation, Linear)}
    return {e.name: e.stage.multipliers for e in planned.network.elements if e.node in nodes}


def dsps(folder: Path, stages: Sequence[str]) -> int:
    """DSPs in these stages, in the netlist that a synthesis left."""
    cells = json.loads((folder / "netlist.json").read_text())["modules"][TOP]["cells"]
    multipliers = [name for name, cell in cells.items() if cell["type"].startswith("DSP")]
    return sum(1 for name in multipliers if (found := STAGE.search(name)) and found[1] in stages)


def counted(title: str, planned: Plan, products: int) -> Row:
    """LUTs of a design with its other cells, and the DSPs that its linear layers take for so many products a cycle."""
    with tempfile.TemporaryDirectory() as folder:
        used = synthesize(PipelineDesign(planned).verilog(), TARGET, folder)
        linear = dsps(Path(folder), list(linear_stages(planned)))
    note = f"{used.ff:,} FF, {used.dsp} DSP, {used.bram} block RAM"
    told = {"bench": "packed", "what": title, "value": used.lut, "unit": "LUT", "note": note}
    return told | {"products": products, "linear": linear}


def measure(designs: Sequence[str] = ()) -> list[Row]:
    """A row for every way of a design; of those on the digits where none is named."""
    rows = []
    for name in chosen("packed", designs, DIGITS, RECIPES):
        one = untrained(name)
        products = sum(linear_stages(one).values())
        ways = {"plain": one, "packed": plan(one.program, interval=one.estimated_interval, architecture="packed")}
        rows += [counted(f"{name}: {how}", planned, products) for how, planned in ways.items()]
    return rows
