"""Small programs whose images go in groups: a stem, a bundle, a bulk with a join, and images apart again."""

from __future__ import annotations

import numpy as np

from bittrue.sim import groups
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.bundle import Bundle, circulant
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.unbundle import Unbundle
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize


def grouped(
    seed: int,
    *,
    slots: int | None = None,
    images: int | None = None,
    turned: bool | None = None,
    bulk: int = 1,
    most: int = 8,
) -> Program:
    """A random one; `images` of them together, or, by default, as many as is written; `turned`: with circulant
    matrices, or any; `bulk`: so many times as wide between the bundle and the mean."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([2, 3, 4, 6])) if slots is None else slots
    bound, channels, pixels = 2 * int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.integers(1, most))
    together = groups.written(n) if images is None else np.array(images)
    build = Builder({"x": TensorType((pixels, 3), INT8)})

    def linear(name: str, x: str, outputs: int, shift: int = 5) -> str:
        kind = build.types[x]
        weight = rng.integers(-20, 20, (outputs, kind.channels))
        return build.add(name, Linear(kind, weight, Requantize(outputs, np.array(shift))), x)

    stem = linear("stem", "x", bound)
    if turned if turned is not None else rng.random() < 0.6:
        weight = circulant(rng.integers(-60, 60, (n, bound)))
    else:
        weight = rng.integers(-60, 60, (n, bound, bound))
    requantize = Requantize(bound, rng.integers(6, 8, bound), rng.integers(-5, 5, bound))
    z = build.add("bundle", Bundle(build.types[stem], weight, requantize, together), stem)
    y = linear("back", linear("narrow", linear("wide", z, bulk * bound), channels), bound)
    y = build.add("join", Add(build.types[y], build.types[z]), y, z)
    y = build.add("mean", Mean(build.types[y], Requantize(bound, np.array(2))), y)
    y = linear("unbind", y, n * channels, 4)
    y = build.add("apart", Unbundle(build.types[y], n, together), y)
    return build.program(linear("classes", y, 3))


def images(program: Program, count: int, seed: int = 0) -> np.ndarray:
    """Full-range codes, those at the ends among them."""
    rng = np.random.default_rng([seed, 5])
    (kind,) = program.inputs.values()
    x = rng.integers(kind.format.low, kind.format.high + 1, (count, *kind.shape))
    x[rng.random(x.shape) < 0.1] = kind.format.low
    x[rng.random(x.shape) < 0.1] = kind.format.high
    return x.astype(kind.format.dtype)


def changes(sizes: list[int]) -> list[tuple[int, dict[str, np.ndarray]]]:
    """What is written so that the groups of a run have these sizes."""
    starts = np.cumsum([0, *sizes[:-1]])
    return [(int(at), {"images": np.array(n)}) for at, n in zip(starts, sizes, strict=True)]
