"""Layers placed on an ECP5, with three seeds of the placer, and what block RAM is traded for.

    python -m bench placed           # ten minutes or more, most of it place and route

Random INT8 weights (`bench.peer_rows.network`), ECP5-85k, speed grade 6, 200 MHz asked. Of the network of jet taggers
both ways: weights in block RAM, and in LUTs (`block_luts`); mapped and packed, without placing.
"""

from __future__ import annotations

import tempfile
from statistics import mean

from bench.adders import JETS, cells
from bench.peer_rows import network
from bench.timing import Row
from bittrue.flow.synth.synthesis import synthesize
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan

#: Widths of a network, and the cycles that a frame may take.
PLACED = {"96x96": ((96, 96), 288), "784-64-10": ((784, 64, 10), 784)}
INTERVAL = 32
#: What a block RAM is worth in LUTs: by default, and so much that weights of 32 rows are LUTs.
WORTH = {"weights in block RAM": None, "weights in LUTs": 128}
SEEDS = (1, 2, 3)


def row(what: str, value: float, unit: str, note: str) -> Row:
    return {"bench": "placed", "what": what, "value": value, "unit": unit, "note": note}


def placed(title: str, widths: tuple[int, ...], interval: int) -> list[Row]:
    """The area of a network and its clocks, by seed of the placer."""
    planned = plan(network(widths).program, interval=interval)
    text, area = PipelineDesign(planned).verilog(), planned.estimate
    with tempfile.TemporaryDirectory() as folder:
        found = [synthesize(text, "ecp5-85k", folder, 200, seed) for seed in SEEDS]
    used, clocks = found[0], [result.fmax_mhz for result in found]
    blocks = f"{used.ff:,} FF, {used.dsp} DSP, {used.bram} block RAM"
    told = f"planned {area.lut:,} LUT, {area.ff:,} FF, {area.dsp} DSP, {area.bram} block RAM"
    return [
        row(f"{title}: area", used.lut, "LUT", f"{blocks}; {told}"),
        row(f"{title}: clock", mean(clocks), "MHz", f"{', '.join(f'{clock:.1f}' for clock in clocks)} by seed"),
    ]


def measure() -> list[Row]:
    rows = []
    for title, (widths, interval) in PLACED.items():
        rows += placed(f"{title} at an interval of {interval}", widths, interval)
    for how, worth in WORTH.items():
        planned = plan(network(JETS).program, interval=INTERVAL, block_luts=worth)
        used = cells({"design.v": str(PipelineDesign(planned).verilog())}, "bittrue_top")
        note = f"{used['ff']:,} FF before blocks take any, {used['dsp']} DSP, {used['bram']} block RAM"
        rows.append(row(f"jet taggers at an interval of {INTERVAL}, {how}", used["packed"], "LUT", note))
    return rows
