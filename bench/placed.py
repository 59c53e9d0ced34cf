"""Designs placed on an ECP5, with three seeds of the placer, and what block RAM is traded for.

    python -m bench placed                     # layers with random weights: ten minutes, most of it place and route
    python -m bench placed --designs relu-digits "fs-mlp-digits, events" --store
    python -m bench placed --designs all       # every recipe's design too: about an hour on a quiet machine

ECP5-85k, speed grade 6, 200 MHz asked. Layers have random INT8 weights (`bench.peer_rows.network`). The designs of a
recipe are those that `bittrue flow` builds, in `build/NAME`: what is there already is not trained again. Of the network
of jet taggers both ways: weights in block RAM, and in LUTs (`block_luts`); mapped and packed, without placing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from bench.adders import JETS, cells
from bench.designs import chosen
from bench.peer_rows import network
from bench.timing import Row
from bittrue.flow.recipes import run_recipe
from bittrue.flow.stages import read_design
from bittrue.flow.synth.synthesis import TOP, placements
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.design import Design
from bittrue.sim.program import Program

#: Widths of a network, and the cycles that a frame may take.
PLACED = {"96x96 at an interval of 288": ((96, 96), 288), "784-64-10 at an interval of 784": ((784, 64, 10), 784)}
#: Designs of recipes: the recipe, changes of its keys, the name of the design.
RECIPES = {
    "lerp-psa-digits": ("lerp-psa-digits", (), TOP),
    "relu-digits": ("relu-digits", (), TOP),
    "fs-mlp-digits": ("fs-mlp-digits", (), TOP),
    "fs-mlp-digits, events": ("fs-mlp-digits", ("rtl.architecture=events", "rtl.interval=2560"), TOP),
    "fs-swish-mlp-digits": ("fs-swish-mlp-digits", (), TOP),
    "photonic-mlp-digits, controller": ("photonic-mlp-digits", (), "controller"),
    "cnn-digits": ("cnn-digits", (), TOP),
}
TRADE = "jet taggers"
INTERVAL = 32
#: What a block RAM is worth in LUTs: by default, and so much that weights of 32 rows are LUTs.
WORTH = {"weights in block RAM": None, "weights in LUTs": 128}
SEEDS = (1, 2, 3)


def row(what: str, value: float, unit: str, note: str) -> Row:
    return {"bench": "placed", "what": what, "value": value, "unit": unit, "note": note}


def placed(title: str, design: Design, text: str | None = None) -> list[Row]:
    """The area of a design and its clocks, by seed of the placer."""
    with tempfile.TemporaryDirectory() as folder:
        found = placements(text or design.verilog(), "ecp5-85k", folder, 200, SEEDS)
    used, clocks, area = found[0], [result.fmax_mhz or 0.0 for result in found], design.estimate
    told = f"{used.ff:,} FF, {used.dsp} DSP, {used.bram} block RAM"
    if area is not None:
        told += f"; planned {area.lut:,} LUT, {area.ff:,} FF, {area.dsp} DSP, {area.bram} block RAM"
    return [
        row(f"{title}: area", used.lut, "LUT", told),
        row(f"{title}: clock", mean(clocks), "MHz", f"{', '.join(f'{clock:.1f}' for clock in clocks)} by seed"),
    ]


def of_recipe(title: str) -> tuple[Design, str]:
    """The design of a recipe, and its Verilog."""
    recipe, changes, name = RECIPES[title]
    folder, _ = run_recipe(recipe, changes, Path("build") / title.replace(", ", "-"), until="rtl")
    return read_design(Program.load(folder / "lower" / "program.npz"), folder / "rtl", name)


def traded() -> list[Row]:
    rows = []
    for how, worth in WORTH.items():
        planned = plan(network(JETS).program, interval=INTERVAL, block_luts=worth)
        used = cells({"design.v": str(PipelineDesign(planned).verilog())}, "bittrue_top")
        note = f"{used['ff']:,} FF before blocks take any, {used['dsp']} DSP, {used['bram']} block RAM"
        rows.append(row(f"{TRADE} at an interval of {INTERVAL}, {how}", used["packed"], "LUT", note))
    return rows


def measure(designs: Sequence[str] = ()) -> list[Row]:
    """The rows of these designs; of all layers, and both ways of the trade, where none is named."""
    rows = []
    for title in chosen("placed", designs, [*PLACED, TRADE], [*PLACED, TRADE, *RECIPES]):
        if title == TRADE:
            rows += traded()
        elif title in PLACED:
            widths, interval = PLACED[title]
            rows += placed(title, PipelineDesign(plan(network(widths).program, interval=interval)))
        else:
            rows += placed(title, *of_recipe(title))
    return rows
