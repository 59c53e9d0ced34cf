"""Small programs whose samples go in groups, and where the groups of a run begin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bittrue.sim import groups
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.bundle import Bundle, circulant
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.unbundle import Unbundle
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize


def network(seed: int, slots: int, images: int | None = None, together: bool = False) -> Program:
    """Two inputs, joined; a residual inside the groups and one around them; a result that reads before the groups.

    `images` is n where it is constant. `together`: one more result is a tensor of groups.
    """
    rng = np.random.default_rng([seed, slots])
    tokens, channels, d = (int(rng.integers(low, high)) for low, high in ((2, 5), (2, 6), (2, 7)))
    n = groups.written(slots) if images is None else np.array(images)
    build = Builder(
        {
            "a": TensorType((tokens, channels), INT8),
            "b": TensorType((tokens, channels), Format(5, signed=bool(seed % 2))),
        }
    )

    def linear(name: str, x: str, outputs: int, **changes) -> str:
        kind = build.types[x]
        weight = rng.integers(-30, 31, (outputs, kind.channels))
        magnitude = int(np.sqrt(kind.channels) * 30 * kind.format.high / 2) + 1
        requantize = replace(Requantize.example(rng, outputs, magnitude), **changes)
        return build.add(name, Linear(kind, weight, requantize), x)

    def add(name: str, *x: str) -> str:
        return build.add(name, Add(*(build.types[k] for k in x), format=Format(int(rng.integers(5, 9)))), *x)

    stem = linear("stem", add("both", "a", "b"), d)
    bits = Format(int(rng.integers(5, 9)))
    weight = circulant(rng.integers(bits.low, bits.high + 1, (slots, d)))
    if seed % 2:
        weight = rng.integers(bits.low, bits.high + 1, (slots, int(rng.integers(2, 7)), d))
    magnitude = int(np.sqrt(slots * d) * bits.high * build.types[stem].format.high / 2) + 1
    requantize = Requantize.example(rng, weight.shape[1], magnitude)
    z = build.add("bind", Bundle(build.types[stem], weight, requantize, n, bits), stem)
    bulk = add("bulk", linear("deep", z, weight.shape[1]), z)
    wide = linear("wide", bulk, slots * channels, format=INT8, floor=None)  # also negative means
    apart = build.add("apart", Unbundle(build.types[wide], slots, n), wide)
    early = linear("early", stem, channels)
    classes = linear("classes", add("around", early, apart), 3)
    return build.program(classes, early, *([bulk] if together else []))


def changed(program: Program, count: int, rng: np.random.Generator) -> list[tuple[int, dict[str, np.ndarray]]]:
    """n, written at random samples: between groups, and within them, where it holds from the next on."""
    grouping = program.grouping
    places = [0, *sorted(rng.choice(np.arange(1, count), count // 3, replace=False).tolist())]
    return [(int(at), {grouping.held.name: np.array(rng.choice(grouping.modes))}) for at in places]
