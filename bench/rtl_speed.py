"""Cycles and images a second of each RTL simulator, on one small LERP-PSA accelerator.

    python -m bench rtl_speed

The compiled loop runs Verilator's C++ without Python; cocotb drives Icarus and Verilator with Python test benches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.network import mixer
from bench.timing import Row
from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.result import RtlRun
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError

FRAMES = {"compiled": 2000, "verilator": 16, "icarus": 2}


def measure() -> list[Row]:
    program = mixer(16, 4, 16, 16, 1, 10, tables=True)
    design = plan(program)
    verilog, inputs, outputs = emit(design), design.inputs, design.outputs
    x = np.random.default_rng(0).integers(-128, 128, (max(FRAMES.values()), 16, 4)).astype(np.int8)
    expected = program(x)

    def compiled(frames: int) -> RtlRun:
        return CompiledRtl(verilog, inputs, outputs, optimize="-O2").run(x[:frames])

    def cocotb(simulator: str) -> Callable[[int], RtlRun]:
        return lambda frames: cosim.run(verilog, inputs, outputs, x[:frames], simulator=simulator)

    runs = {"compiled": compiled, "verilator": cocotb("verilator"), "icarus": cocotb("icarus")}
    rows: list[Row] = []
    for name, frames in FRAMES.items():
        what = f"{name}: 16x4 tokens, E=h=16, 1 block"
        try:
            runs[name](1)  # builds
            result = runs[name](frames)
        except BittrueError as reason:
            rows.append({"bench": "RTL simulation", "what": what, "note": f"not measured: {reason}"})
            continue
        if result.errors or not np.array_equal(result.outputs, expected[:frames]):
            raise AssertionError(f"{name} gives other codes: {result.errors}")
        note = f"{result.cycles / result.seconds:,.0f} cycles/s, {frames} images"
        value = frames / result.seconds
        rows.append({"bench": "RTL simulation", "what": what, "value": value, "unit": "images/s", "note": note})
    return rows
