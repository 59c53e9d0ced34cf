"""A small program with its inputs, one with a wrong weight, and overrides that make a flow quick."""

from __future__ import annotations

import numpy as np

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType, discover
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize

QUICK = [
    "train.epochs=2",
    "qat.epochs=1",
    "network.embed=8",
    "network.blocks=1",
    "rtl.interval=2048",
    "synth.targets=[]",
]


def program(seed: int = 0, tokens: int = 4, channels: int = 6, classes: int = 3) -> Program:
    """A small network with a residual, a transpose, a table and a mean."""
    rng = np.random.default_rng(seed)
    known = discover()
    build = Builder({"x": TensorType((tokens, channels), INT8)})

    def linear(name: str, source: str, outputs: int, shift: int) -> None:
        kind = build.types[source]
        build.add(
            name, Linear(kind, rng.integers(-99, 100, (outputs, kind.channels)), Requantize(outputs, shift)), source
        )

    linear("embed", "x", channels, 9)
    build.add("turn", known["Transpose"](build.types["embed"]), "embed")
    linear("mix", "turn", tokens, 8)
    build.add("back", known["Transpose"](build.types["mix"]), "mix")
    build.add(
        "residual",
        known["Affine"](build.types["embed"], rng.integers(1, 99, channels), Requantize(channels, 6)),
        "embed",
    )
    build.add("add", known["Add"](build.types["back"], build.types["residual"]), "back", "residual")
    build.add("curve", known["Lerp"](build.types["add"], rng.integers(-128, 128, (channels, 65))), "add")
    build.add("pool", known["Mean"](build.types["curve"], Requantize(channels, 2)), "curve")
    linear("classify", "pool", classes, 8)
    return build.program("classify")


def batch(p: Program, n: int, seed: int = 1) -> np.ndarray:
    (kind,) = p.inputs.values()
    return np.random.default_rng(seed).integers(kind.format.low, kind.format.high + 1, (n, *kind.shape)).astype(np.int8)


def with_weight_flipped(p: Program, name: str) -> Program:
    """The program with the top bit but one of one weight of an operation inverted."""
    nodes = []
    for node in p.nodes:
        op = node.operation
        if node.name == name:
            weight = op.weight.copy()
            weight[0, 0] ^= 64
            op = Linear(op.input, weight, op.requantize, op.weight_format)
        nodes.append(Node(node.name, op, node.operands))
    return Program(p.inputs, tuple(nodes), p.results, p.meta)
