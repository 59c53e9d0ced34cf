"""Whole programs, images a second on one thread: the golden simulator against numpy, batch 1024 and batch 1.

    python -m bench network

Measured are random LERP-PSA and ReLU programs of the demo's kind, the published ReLU-96 model where its headers
are at hand (BITTRUE_PUBLISHED), and every `program.npz` that the flow left under `out/`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bench.baseline import Numpy
from bench.layer import with_backend
from bench.timing import Row, interleaved
from bittrue.models.formats.headers import PARAMETERS, read
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.kernels.matrix import backends
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

ROOT = Path(__file__).parents[1]
BATCH = 1024


def mixer(tokens: int, features: int, channels: int, hidden: int, blocks: int, classes: int, tables: bool) -> Program:
    """A ResMLP with random weights."""
    rng = np.random.default_rng(0)
    build = Builder({"x": TensorType((tokens, features), INT8)})

    def linear(kind: TensorType, outputs: int, floor: int | None = None) -> Linear:
        shift = rng.integers(7, 9, outputs) + kind.channels.bit_length() // 2
        weight = rng.integers(-128, 128, (outputs, kind.channels))
        return Linear(kind, weight, Requantize(outputs, shift, rng.integers(-9, 9, outputs), floor=floor))

    def affine(kind: TensorType) -> Affine:
        n = kind.channels
        return Affine(kind, rng.integers(-128, 128, n), Requantize(n, rng.integers(6, 8, n)))

    def add(name: str, operation: object, *operands: str) -> tuple[str, TensorType]:
        build.add(name, operation, *operands)
        return name, build.types[name]

    x, kind = add("embed", linear(build.types["x"], channels), "x")
    for i in range(blocks):
        r, _ = add(f"{i}.r", affine(kind), x)
        u, _ = add(f"{i}.a", affine(kind), x)
        u, swapped = add(f"{i}.swap", Transpose(kind), u)
        u, swapped = add(f"{i}.tokens", linear(swapped, tokens), u)
        u, _ = add(f"{i}.back", Transpose(swapped), u)
        u, _ = add(f"{i}.b", affine(kind), u)
        y, _ = add(f"{i}.y", Add(kind, kind), u, r)
        r, _ = add(f"{i}.s", affine(kind), y)
        z = y
        if tables:
            z, _ = add(f"{i}.f", Lerp(kind, rng.integers(-128, 128, (channels, 65))), z)
        z, inner = add(f"{i}.up", linear(kind, hidden, None if tables else 0), z)
        if tables:
            z, inner = add(f"{i}.g", Lerp(inner, rng.integers(-128, 128, (hidden, 65))), z)
        z, _ = add(f"{i}.down", linear(inner, channels), z)
        x, _ = add(f"{i}.z", Add(kind, kind), z, r)
    x, kind = add("mean", Mean(kind, Requantize(channels, [tokens.bit_length() - 1])), x)
    return build.program(add("classify", linear(kind, classes), x)[0])


def programs() -> dict[str, Program]:
    """What is measured, by name."""
    found = {
        "random LERP-PSA 64x48, E=h=96, 4 blocks": mixer(64, 48, 96, 96, 4, 10, tables=True),
        "random LERP-PSA 16x4, E=h=32, 2 blocks": mixer(16, 4, 32, 32, 2, 10, tables=True),
    }
    published = Path(os.environ.get("BITTRUE_PUBLISHED", ROOT / ".." / "shared" / "data" / "psa-relu-96"))
    if (published / PARAMETERS).exists():
        found["published ReLU-96"] = read(published)
    for path in sorted((ROOT / "out").glob("**/program.npz")):
        found[str(path.parent.relative_to(ROOT / "out"))] = Program.load(path)
    return found


def measure() -> list[Row]:
    rows: list[Row] = []
    for name, program in programs().items():
        (kind,) = program.inputs.values()
        codes = np.random.default_rng(1).integers(kind.format.low, kind.format.high + 1, (BATCH, *kind.shape))
        x = codes.astype(kind.format.dtype)
        candidates = {}
        try:
            plain = Numpy(program)
            plain(x[:2])
            candidates["numpy sgemm, tables"] = lambda plain=plain, x=x: [
                plain(x[k : k + 64]) for k in range(0, BATCH, 64)
            ]
        except ValueError as reason:
            rows.append({"bench": "network", "what": f"{name}: numpy", "note": f"not measured: {reason}"})
        expected = program.reference(x[:16])
        for backend in reversed(backends()):
            copy = with_backend(program, backend, x[:1])
            candidates[backend] = lambda copy=copy, x=x: copy(x)
            if not np.array_equal(copy(x[:16]), expected):
                raise AssertionError(f"{name}: {backend} gives other codes")
        seconds = interleaved(candidates, repeats=5)
        slowest = seconds.get("numpy sgemm, tables")
        for candidate, value in seconds.items():
            row: Row = {"bench": "network", "what": f"{name}: {candidate}", "value": BATCH / value, "unit": "images/s"}
            rows.append(row | ({"speed-up": slowest / value} if slowest else {}))
        one = interleaved({"one": lambda copy=copy, x=x: copy(x[:1])}, repeats=25)["one"]
        rows.append({"bench": "network", "what": f"{name}: one image", "value": one * 1e3, "unit": "ms"})
    return rows
