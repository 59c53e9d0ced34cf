"""Small systems that boot: a generator of coordinates, and a convolutional network that holds the kernels it makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.held import Held
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.concat import Concat
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.system import Link, System
from bittrue.sim.written import held_only, written

GENERATOR, NETWORK = "generator", "network"


def coordinates(layers: list[tuple[int, int]]) -> np.ndarray:
    """Layer, filter and channel of every kernel, in order, of layers of so many filters and channels."""
    return np.array([(k, f, c) for k, (n, m) in enumerate(layers) for f in range(n) for c in range(m)])


def generator(seed: int, inputs: int = 3, codes: int = 9, bits: int = 8) -> Program:
    """A perceptron of coordinates, of so many inputs (3 or 1)."""
    rng = np.random.default_rng([seed, 1])
    index = Format(7, signed=False)
    if inputs == 1:
        build = Builder({"place": TensorType((3,), index)})
        x = "place"
    else:
        build = Builder({name: TensorType((1,), index) for name in ("l", "f", "c")})
        x = build.add("place", Concat((TensorType((1,), index),) * 3), "l", "f", "c")
    for name, width, fmt, floor in (
        ("first", 8, INT8, 0),
        ("second", 6, INT8, 0),
        ("kernel", codes, Format(bits), None),
    ):
        kind = build.types[x]
        weight = rng.integers(-128, 128, (width, kind.channels))
        bias = rng.integers(-2000, 2000, width)
        r = Requantize(width, 5 if name == "first" else 7, bias_acc=bias, format=fmt, floor=floor)
        x = build.add(name, Linear(kind, weight, r), x)
    return build.program(x)


def network(seed: int, layers: list[tuple[int, int]], side: int = 5) -> Program:
    """3x3 convolutions of so many filters and channels, one behind the other, then a matrix; all of it constant."""
    rng = np.random.default_rng([seed, 2])
    build = Builder({"x": TensorType((side, side, layers[0][1]), INT8)})
    x = "x"
    for k, (filters, _) in enumerate(layers):
        x = build.add(f"window{k}", Window(build.types[x], (3, 3), padding=(1, 1, 1, 1)), x)
        down, across, taps, channels = build.types[x].shape
        x = build.add(f"rows{k}", Reshape(build.types[x], (down, across, taps * channels)), x)
        weight = rng.integers(-128, 128, (filters, taps * channels))
        bias = rng.integers(-3000, 3000, filters)
        x = build.add(f"conv{k}", Linear(build.types[x], weight, Requantize(filters, 8, bias_acc=bias, floor=0)), x)
    x = build.add("flat", Reshape(build.types[x], (build.types[x].size,)), x)
    kind = build.types[x]
    head = Linear(kind, rng.integers(-128, 128, (3, kind.channels)), Requantize(3, 9))
    return build.program(build.add("head", head, x))


def weights_held(program: Program, names: list[str]) -> Program:
    """The program with these weights held, 0 at first, and nothing else."""
    held = held_only(written(program, names), [f"{name}.weight" for name in names])
    nodes = []
    for node in held.nodes:
        weight = getattr(node.operation, "weight", None)
        if isinstance(weight, Held):
            node = replace(node, operation=replace(node.operation, weight=replace(weight, initial=0 * weight.initial)))
        nodes.append(node)
    return Program(held.inputs, tuple(nodes), held.results)


def places(layers: list[tuple[int, int]], rng: np.random.Generator, taps: int = 9) -> np.ndarray:
    """Where the kernels of each layer go, in an order that is drawn: int64 `[kernels, taps]`."""
    rows, first = [], 0
    for filters, channels in layers:
        for kernel in rng.permutation(filters * channels):
            f, c = divmod(int(kernel), channels)
            rows.append(first + f * taps * channels + np.arange(taps) * channels + c)
        first += filters * channels * taps
    return np.array(rows)


def system(
    seed: int, inputs: int = 3, layers: tuple[tuple[int, int], ...] = ((4, 2), (4, 4)), held: bool = False, **options
) -> System:
    """A generator, whose own weights may be held, too, and its network."""
    shapes = list(layers)
    make = generator(seed, inputs)
    if held:
        make = written(make)
    use = weights_held(network(seed, shapes, **options), [f"conv{k}" for k in range(len(shapes))])
    where = coordinates(shapes)
    batches = [where] if inputs == 1 else [where[:, k : k + 1] for k in range(3)]
    names = tuple(f"conv{k}.weight" for k in range(len(shapes)))
    link = Link(GENERATOR, NETWORK, names, places(shapes, np.random.default_rng([seed, 3])))
    return System({GENERATOR: make, NETWORK: use}, [link], {GENERATOR: batches})
