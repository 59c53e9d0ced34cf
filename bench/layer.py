"""A whole layer, 65536 x 96 -> 96: product, requantisation, then a table of 64 knots as the 1-D function.

    python -m bench layer

Every candidate gives the same codes. Targets: 50 times numpy's int32 product with the intrinsic, 25 times without.
"""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import numpy as np

from bench.baseline import lerp, requantize, table
from bench.timing import Row, interleaved
from bittrue.sim.contract import INT8
from bittrue.sim.kernels.matrix import VARIABLE, backends
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Builder, Program
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
    seconds = interleaved(candidates)
    slowest = seconds["numpy int32 product, int32 lerp"]
    result = []
    for name, value in seconds.items():
        target = TARGETS.get(name.removeprefix("bittrue, "))
        note = f"target {target:.0f}x" if target else ""
        result.append(
            {
                "bench": "layer",
                "what": name,
                "value": value * 1e3,
                "unit": "ms",
                "speed-up": slowest / value,
                "note": note,
            }
        )
    return result
