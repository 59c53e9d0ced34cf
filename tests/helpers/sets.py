"""Small programs whose weights are written, and sets of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bittrue.sim.contract import INT8, Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Builder, Program
from bittrue.sim.requantize import Requantize

Set = dict[str, np.ndarray]


def network(seed: int, *, most: int = 9, kinds: Sequence[str] = ()) -> Program:
    """Two or three matrix products and affines of random geometry; often a sum with one more that is beside them."""
    rng = np.random.default_rng(seed)
    fmt = [INT8, Format(5, signed=False), Format(1, signed=False)][int(rng.integers(3))]
    tokens, channels = (int(rng.integers(1, high)) for high in (4, most))
    build = Builder({"x": TensorType((tokens, channels), fmt)})
    kinds = kinds or rng.choice(["linear", "affine"], int(rng.integers(2, 4)))
    x = "x"
    for k, kind in enumerate(kinds):
        source = build.types[x]
        n = int(rng.integers(1, most)) if kind == "linear" else source.channels
        bits = Format(int(rng.integers(2, 9)))
        shape = (n, source.channels) if kind == "linear" else (n,)
        weight = rng.integers(bits.low, bits.high + 1, shape)
        terms = source.channels if kind == "linear" else 1
        magnitude = source.format.high * bits.high * terms // 2 + 1
        made = Linear if kind == "linear" else Affine
        op = made(source, weight, Requantize.example(rng, n, magnitude), bits)
        y = build.add(f"{kind}{k}", op, x)
        x = y
    if rng.random() < 0.5:
        kind = build.types[x]
        weight = rng.integers(-8, 8, (kind.channels, channels))
        beside = Linear(build.types["x"], weight, Requantize(kind.channels, np.array(3)))
        x = build.add("sum", Add(kind, beside.output), x, build.add("beside", beside, "x"))
    return build.program(x)


def drawn(program: Program, rng: np.random.Generator, corner: str = "") -> Set:
    """A set within the bounds: at random, or every value at its lowest or its highest, or one of both."""
    made = {}
    for name, held in program.written.items():
        if corner in ("low", "high"):
            made[name] = np.full(held.shape, getattr(held, corner))
        elif corner:
            made[name] = rng.choice([held.low, held.high], held.shape)
        else:
            made[name] = rng.integers(held.low, held.high + 1, held.shape)
    return made


def codes(program: Program, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Full-range inputs, the extremes among them."""
    batches = []
    for kind in program.inputs.values():
        x = rng.integers(kind.format.low, kind.format.high + 1, (count, *kind.shape))
        x[rng.random(x.shape) < 0.2] = kind.format.low
        x[rng.random(x.shape) < 0.2] = kind.format.high
        batches.append(x.astype(kind.format.dtype))
    return batches


def golden(
    program: Program, x: Sequence[np.ndarray], meets: Sequence[int], sets: Sequence[Set], run=None
) -> np.ndarray:
    """The codes of frames of which each meets the set of its number: 0 is the initial one."""
    contents = [program.initial, *sets]
    changes = [(k, contents[n]) for k, n in enumerate(meets) if not k or meets[k - 1] != n]
    return (run or program)(*x, held=changes)
