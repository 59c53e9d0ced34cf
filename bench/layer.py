"""A whole layer, 65536 x 96 -> 96: product, requantisation, then a table of 64 knots as the 1-D function.

    python -m bench layer

Every candidate gives the same codes. Targets: 50 times numpy's int32 product with the intrinsic, 25 times without.
Beside oneDNN's INT8, which has no table, the layer stands without its table, with what this CPU has and in a process
held to AVX2 (`bench.held`). oneDNN requantises in floats; where there is no VNNI its products saturate, and how many
of its results are off by more than one is counted. Each takes 15 turns, the best is shown.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from bench import held
from bench.baseline import lerp, requantize, table
from bench.timing import Row, best
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.kernels.matrix import VARIABLE, backends
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

TOKENS, IMAGES, INPUTS, OUTPUTS = 64, 1024, 96, 96
TARGETS = {"vnni": 50.0, "avx2": 25.0, "sgemm": 25.0}


def layer() -> tuple[Program, Linear, Lerp]:
    rng = np.random.default_rng(0)
    build = Builder({"x": TensorType((TOKENS, INPUTS), INT8)})
    weight = rng.integers(-128, 128, (OUTPUTS, INPUTS))
    linear = Linear(
        build.types["x"], weight, Requantize(OUTPUTS, rng.integers(9, 12, OUTPUTS), rng.integers(-9, 10, OUTPUTS))
    )
    name = build.add("linear", linear, "x")
    curve = Lerp(build.types[name], np.sort(rng.integers(-128, 128, (OUTPUTS, 65)), axis=1))
    return build.program(build.add("lerp", curve, name)), linear, curve


def with_backend(program: Program, name: str, x: np.ndarray) -> Program:
    """A copy of the program whose kernels are made, now, for the back end `name`."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        nodes = tuple(type(n)(n.name, type(n.operation)(**vars_of(n.operation)), n.operands) for n in program.nodes)
        copy = Program(program.inputs, nodes, program.results)
        copy(x)
        return copy
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def vars_of(operation: Any) -> dict[str, object]:
    return {field.name: getattr(operation, field.name) for field in fields(operation)}


def row(what: str, seconds: float, gain: float, note: str) -> Row:
    return {"bench": "layer", "what": what, "value": seconds * 1e3, "unit": "ms", "speed-up": gain, "note": note}


def without_table(name: str, suffix: str) -> list[Row]:
    """The layer without its table beside oneDNN's INT8, and with it; speed-ups are against oneDNN."""
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "onednn"
    program, linear, _ = layer()
    build = Builder(program.inputs)
    bare = build.program(build.add("linear", linear, "x"))
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (IMAGES, TOKENS, INPUTS)).astype(np.int8)
    module = torch.ao.nn.quantized.Linear(INPUTS, OUTPUTS)
    zeros, scales = torch.zeros(OUTPUTS, dtype=torch.int64), torch.from_numpy(2.0**-linear.requantize.shift)
    weight = (torch.from_numpy(linear.weight) * scales[:, None]).float()
    bias = torch.from_numpy(linear.requantize.bias).float()
    module.set_weight_bias(torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8), bias)
    module.scale, module.zero_point = 1.0, 128
    codes = torch.from_numpy(x.reshape(-1, INPUTS).astype(np.float32))
    q = torch.quantize_per_tensor(codes, 1.0, 128, torch.quint8)
    exact = (codes @ weight.T + bias).round().clamp(-128, 127)
    wrong = float(((module(q).dequantize() - exact).abs() > 1).double().mean())
    copies = {kind: with_backend(one, name, x[:1]) for kind, one in ((", no table", bare), ("", program))}
    for copy in copies.values():
        if not np.array_equal(copy(x[:16]), copy.reference(x[:16])):
            raise AssertionError(f"{name} gives other codes")
    calls = {f"bittrue, {name}{kind}": lambda copy=copy: copy(x) for kind, copy in copies.items()}
    with torch.inference_mode():
        seconds = best({"oneDNN INT8, no table": lambda: module(q)} | calls)
    peer = seconds["oneDNN INT8, no table"]
    note = {"oneDNN INT8, no table": f"{100 * wrong:.1f} % off by more than 1"}
    return [row(f"{what}{suffix}", value, peer / value, note.get(what, "")) for what, value in seconds.items()]


def measure_held() -> list[Row]:
    """What is measured in a process that is held to AVX2."""
    return without_table("avx2", ", AVX2")


def measure() -> list[Row]:
    program, linear, curve = layer()
    x = np.random.default_rng(1).integers(-128, 128, (IMAGES, TOKENS, INPUTS)).astype(np.int8)
    rows = x.reshape(-1, INPUTS)
    wide, real = (np.ascontiguousarray(linear.weight.T, dtype=kind) for kind in (np.int32, np.float32))
    flat = curve.table().reshape(-1)

    def sgemm() -> np.ndarray:
        return requantize((rows.astype(np.float32) @ real).astype(np.int32), linear.requantize)

    candidates = {
        "numpy int32 product, int32 lerp": lambda: lerp(
            requantize(rows.astype(np.int32) @ wide, linear.requantize), curve
        ),
        "numpy sgemm, int32 lerp": lambda: lerp(sgemm(), curve),
        "numpy sgemm, 256-entry table": lambda: table(sgemm(), flat, -128, 256),
    }
    for name in reversed(backends()):
        copy = with_backend(program, name, x[:1])
        candidates[f"bittrue, {name}"] = lambda copy=copy: copy(x)
    expected = program.reference(x[:16]).reshape(-1, OUTPUTS)
    for name, call in candidates.items():
        if not np.array_equal(call().reshape(-1, OUTPUTS)[: len(expected)], expected):
            raise AssertionError(f"{name} gives other codes")
    seconds = best(candidates, 7)
    slowest = seconds["numpy int32 product, int32 lerp"]
    result = [one for one in without_table(backends()[0], "") if "no table" in one["what"]]
    result += held.rows("bench.layer") if "avx2" in backends() else []
    for name, value in seconds.items():
        target = TARGETS.get(name.removeprefix("bittrue, "))
        note = f"target {target:.0f}x" if target else ""
        result.append(row(name, value, slowest / value, note))
    return result
