"""Whole programs without training: networks with random parameters whose codes spread over the range, and stimuli.

Parameters drawn without care make a dead network: everything saturates or becomes 0, and a wrong adder passes
unseen. Here each shift is chosen from the accumulators that a random batch really makes, one operation after the
other, so that the codes of every tensor have a standard deviation of about `SPREAD` and few saturate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.noise import Noise
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize

#: Wanted standard deviation of the codes of an 8-bit tensor: two of them reach about two thirds of the range.
SPREAD = 40
#: Frames from which the shifts are chosen.
CALIBRATION = 24


def stimulus(program: Program, n: int, seed: int) -> list[np.ndarray]:
    """`n` frames of every input: all low, all high, the two alternating, then random over the whole range."""
    rng = np.random.default_rng([seed, n])
    batches = []
    for kind in program.inputs.values():
        codes = rng.integers(kind.format.low, kind.format.high + 1, (n, *kind.shape))
        corners = np.full((3, *kind.shape), kind.format.low)
        corners[1] = kind.format.high
        corners[2].reshape(-1)[::2] = kind.format.high
        codes[: min(n, 3)] = corners[:n]
        batches.append(codes.astype(kind.format.dtype))
    return batches


class Growing:
    """A program under construction with the codes that a random batch makes in it."""

    def __init__(self, seed: int, inputs: dict[str, TensorType]) -> None:
        self.rng = np.random.default_rng(seed)
        self.build = Builder(inputs)
        self.codes = {
            name: self.rng.integers(kind.format.low, kind.format.high + 1, (CALIBRATION, *kind.shape))
            for name, kind in inputs.items()
        }

    def add(self, name: str, operation: Operation, *operands: str) -> str:
        self.codes[name] = operation.reference(*(self.codes[k] for k in operands)).astype(np.int64)
        return self.build.add(name, operation, *operands)

    def requantize(self, acc: np.ndarray, fmt: Format = INT8, floor: int | None = None, part: float = 1) -> Requantize:
        """Shifts a channel that bring the accumulators `[n, ..., C]` to the wanted spread, and biases that centre it.

        `part` is the share of the spread: a residual branch gets less, since a sum follows.
        """
        channels = acc.shape[-1]
        flat = acc.reshape(-1, channels)
        target = part * SPREAD * fmt.levels / INT8.levels
        shift = np.clip(np.round(np.log2(np.maximum(flat.std(axis=0), 1) / target)), 0, 47).astype(np.int64)
        centre = np.round(flat.mean(axis=0)).astype(np.int64) >> shift
        middle = (fmt.low + fmt.high + 1) // 2
        limit = fmt.levels // 2 - 1
        bias = np.clip(middle - centre + self.rng.integers(-10, 11, channels), -limit, limit)
        return Requantize(channels, shift, bias, format=fmt, floor=floor)

    def linear(self, name: str, x: str, outputs: int, floor: int | None = None, part: float = 1) -> str:
        kind = self.build.types[x]
        weight = self.rng.integers(-128, 128, (outputs, kind.channels))
        requantize = self.requantize(self.codes[x] @ weight.T, floor=floor, part=part)
        return self.add(name, Linear(kind, weight, requantize), x)

    def affine(self, name: str, x: str, part: float = 1) -> str:
        kind = self.build.types[x]
        weight = self.rng.integers(40, 128, kind.channels) * self.rng.choice([-1, 1], kind.channels)
        return self.add(name, Affine(kind, weight, self.requantize(self.codes[x] * weight, part=part)), x)

    def lerp(self, name: str, x: str, segments: int) -> str:
        """Tables that wander: a slope with random bends, as training leaves them."""
        kind = self.build.types[x]
        line = np.linspace(-100, 100, segments + 1) * self.rng.choice([-1, 1], (kind.channels, 1))
        knots = np.clip(np.round(line + self.rng.normal(0, 25, (kind.channels, segments + 1))), -128, 127)
        return self.add(name, Lerp(kind, knots.astype(np.int64)), x)

    def transpose(self, name: str, x: str) -> str:
        return self.add(name, Transpose(self.build.types[x]), x)

    def sum(self, name: str, a: str, b: str) -> str:
        return self.add(name, Add(self.build.types[a], self.build.types[b]), a, b)

    def mean(self, name: str, x: str) -> str:
        kind = self.build.types[x]
        return self.add(name, Mean(kind, self.requantize(self.codes[x].sum(axis=1))), x)

    def encode(self, name: str, x: str) -> tuple[str, np.ndarray]:
        """The spike train and what its steps are worth."""
        encode = Encode(self.build.types[x])
        return self.add(name, encode, x), encode.decode

    def fire(self, name: str, x: str, steps: int, halving: bool) -> tuple[str, np.ndarray]:
        """Neurons that fire often: the ReLU set, or one that falls off with random bends and clips a few values."""
        kind = self.build.types[x]
        powers = np.int64(1) << np.arange(steps - 1, -1, -1)
        if halving:
            return self.add(name, FsNeuron(kind, powers, powers), x), powers
        fall = 0.4 * kind.format.high * 0.7 ** np.arange(steps)
        threshold, reset, decode = np.round(fall + self.rng.normal(0, fall[0] / 6, (3, steps))).astype(np.int64)
        lowest, highest = int(0.9 * kind.format.low), int(0.8 * kind.format.high)
        return self.add(name, FsNeuron(kind, threshold, reset, lowest, highest), x), decode

    def spiking(self, name: str, spikes: str, decode: np.ndarray, outputs: int, part: float = 1) -> str:
        kind = self.build.types[spikes]
        weight = self.rng.integers(-128, 128, (outputs, kind.channels))
        acc = (self.codes[spikes] * decode[:, None]).sum(axis=-2) @ weight.T
        return self.add(name, SpikingLinear(kind, weight, decode, self.requantize(acc, part=part)), spikes)

    def photonic(self, name: str, x: str, outputs: int, rows: int, noise: Noise | None) -> str:
        """A layer on an array whose cells leak, and the sum of its tiles.

        The converter's window lies around the light of each output, a little narrower than its spread, so that some
        codes are clipped.
        """
        kind = self.build.types[x]
        cells = Format(6, signed=False)
        weight = self.rng.integers(-50, 51, (outputs, kind.channels))
        leak = self.rng.integers(0, 3, (2, *weight.shape))
        plus, minus = np.maximum(weight, 0) + leak[0], np.maximum(-weight, 0) + leak[1]
        make = lambda bits, shift, offset: PhotonicMac(  # noqa: E731
            kind, plus, minus, rows, bits, shift, offset, cells, noise
        )
        light = make(24, 0, np.zeros(1)).counts(self.codes[x])
        light = light.reshape(-1, *light.shape[-2:])
        middle, spread = np.round(light.mean(axis=0)).astype(np.int64), float(light.std(axis=0).max())
        shift = max(0, round(np.log2(spread / (0.9 * SPREAD))))
        array = make(7, shift, middle - (1 << shift << 6))
        codes = self.add(f"{name}.array", array, x)
        acc = (self.codes[codes] << shift).sum(axis=-2)
        requantize = replace(self.requantize(acc), bias=np.zeros(1, np.int64), bias_acc=-np.rint(acc.mean((0, 1))))
        return self.add(name, TileSum(array.output, shift, requantize), codes)

    def block(self, name: str, x: str, hidden: int, nonlinearity: str, segments: int) -> str:
        tokens, channels = self.build.types[x].shape
        residual = self.affine(f"{name}.token.residual", x, part=0.7)
        u = self.affine(f"{name}.token.affine1", x)
        u = self.transpose(f"{name}.token.transpose1", u)
        u = self.linear(f"{name}.token.linear", u, tokens)
        u = self.transpose(f"{name}.token.transpose2", u)
        u = self.affine(f"{name}.token.affine2", u, part=0.7)
        y = self.sum(f"{name}.token", u, residual)
        residual = self.affine(f"{name}.channel.residual", y, part=0.7)
        if nonlinearity == "lerp":
            z = self.lerp(f"{name}.channel.lerp1", y, segments)
            z = self.linear(f"{name}.channel.linear1", z, hidden)
            z = self.lerp(f"{name}.channel.lerp2", z, segments)
        else:
            z = self.linear(f"{name}.channel.linear1", y, hidden, floor=0)
        z = self.linear(f"{name}.channel.linear2", z, channels, part=0.7)
        return self.sum(name, z, residual)


def resmlp(
    *,
    tokens: int = 4,
    features: int = 3,
    channels: int = 4,
    hidden: int = 6,
    blocks: int = 1,
    classes: int = 3,
    nonlinearity: str = "lerp",
    segments: int = 8,
    seed: int = 0,
) -> Program:
    """A ResMLP of this geometry: input `x` int8 `[tokens, features]`, result `classifier` int8 `[classes]`.

    `nonlinearity` is `lerp` (two tables a block) or `relu` (a clamp after the first matrix of the channel mixer);
    `segments` of the tables is a power of two. `meta["boundaries"]` names `embed`, `block0`, `block1`, ...
    """
    assert nonlinearity in ("lerp", "relu")
    grow = Growing(seed, {"x": TensorType((tokens, features), INT8)})
    x = grow.linear("embed", "x", channels)
    boundaries = [x]
    for k in range(blocks):
        x = grow.block(f"block{k}", x, hidden, nonlinearity, segments)
        boundaries.append(x)
    result = grow.linear("classifier", grow.mean("mean", x), classes)
    return grow.build.program(result, boundaries=boundaries, nonlinearity=nonlinearity)


def two_inputs(*, tokens: int = 3, channels: int = 4, outputs: int = 5, seed: int = 0) -> Program:
    """Two inputs, `a` int8 and `b` unsigned with 5 bits: `a` is mixed and added to a scaled `b`; a 12-bit result.

    The codes take one and two bytes, signed and not, so that the ports' padding is exercised too.
    """
    kind = TensorType((tokens, channels), INT8)
    grow = Growing(seed, {"a": kind, "b": TensorType((tokens, channels), Format(5, signed=False))})
    a = grow.linear("mix", "a", channels, part=0.7)
    total = grow.sum("sum", a, grow.affine("scale", "b", part=0.7))
    weight = grow.rng.integers(-128, 128, (outputs, channels))
    requantize = grow.requantize(grow.codes[total] @ weight.T, Format(12))
    result = grow.add("out", Linear(grow.build.types[total], weight, requantize), total)
    return grow.build.program(result)


def several(*, tokens: int = 3, channels: int = 4, outputs: int = 5, seed: int = 0) -> Program:
    """Two inputs and four results: `a` int8 and `b` u5 as in `two_inputs`.

    The results are a tensor that is read again by two operations, the end of a short branch, an average that gives out
    one beat a frame, and the long way to the end: codes of one and two bytes, one beat and several a frame.
    """
    kind = TensorType((tokens, channels), INT8)
    grow = Growing(seed, {"a": kind, "b": TensorType((tokens, channels), Format(5, signed=False))})
    mix = grow.linear("mix", "a", channels, part=0.7)
    scale = grow.affine("scale", "b", part=0.7)
    total = grow.sum("sum", mix, scale)
    weight = grow.rng.integers(-128, 128, (outputs, channels))
    requantize = grow.requantize(grow.codes[total] @ weight.T, Format(12))
    out = grow.add("out", Linear(grow.build.types[total], weight, requantize), total)
    return grow.build.program(out, total, scale, grow.mean("mean", mix))


def often_several(program: Program, rng: np.random.Generator) -> Program:
    """In half of the cases the program with up to three more of its tensors as results, in any order."""
    others = [node.name for node in program.nodes if node.name not in program.results]
    if not others or rng.random() < 0.5:
        return program
    chosen = [*program.results, *rng.permutation(others)[: int(rng.integers(1, 4))].tolist()]
    return replace(program, results=tuple(rng.permutation(chosen).tolist()))


def swapped(verilog: str, one: str, other: str) -> str:
    """Verilog in which two ports of the top carry each other's signal."""
    lines = verilog.splitlines(keepends=True)
    at = {name: k for k, line in enumerate(lines) for name in (one, other) if line.startswith(f"  assign {name} = ")}
    a, b = lines[at[one]], lines[at[other]]
    lines[at[one]], lines[at[other]] = b.replace(other, one, 1), a.replace(one, other, 1)
    return "".join(lines)


#: Names for the tensors of `two_inputs`: of one identifier, as its pipeline names parts, as its ports are named;
#: words of Python, Verilog and C++, and what functions call their arguments; no ASCII.
AWKWARD = {
    "parts": {"a": "o", "b": "o.", "mix": "a.b", "scale": "a_b", "sum": "o_inlet", "out": "a_b_fork"},
    "words": {"a": "self", "b": "class", "mix": "file", "scale": "module", "sum": "int", "out": "result"},
    "marks": {"a": "é 1", "b": "1/x", "mix": "..", "scale": "", "sum": "λ", "out": '"'},
}


def awkward(names: str = "parts", seed: int = 0) -> Program:
    """`two_inputs` with tensors named as `AWKWARD[names]` says."""
    names, program = AWKWARD[names], two_inputs(seed=seed)
    inputs = {names[name]: kind for name, kind in program.inputs.items()}
    nodes = [Node(names[n.name], n.operation, tuple(names[name] for name in n.operands)) for n in program.nodes]
    return Program(inputs, nodes, tuple(names[name] for name in program.results))


def spiking(
    *, shape: tuple[int, ...] = (6,), channels: int = 5, classes: int = 3, steps: int = 6, halving: bool, seed: int = 0
) -> Program:
    """A spiking network with a residual block: input `x` int8 `shape`, result `classifier` int8 `[..., classes]`.

    Codes as spike words into a spiking layer, neurons and a second layer added to their input, then neurons whose
    spike train two layers read, and the sum of the two. `halving` takes the ReLU set, whose layers need no multiplier.
    """
    grow = Growing(seed, {"x": TensorType(shape, INT8)})
    x = grow.spiking("embed", *grow.encode("encode", "x"), channels)
    u = grow.spiking("block.layer", *grow.fire("block.fire", x, steps, halving), channels, part=0.7)
    x = grow.sum("block", u, x)
    spikes, decode = grow.fire("fire", x, steps, halving)
    left, right = (grow.spiking(name, spikes, decode, classes, part=0.7) for name in ("left", "right"))
    return grow.build.program(grow.sum("classifier", left, right))


def every_kind(seed: int = 0) -> Program:
    """A chain of stages of every kind: matrix, transpose, table, neurons, a layer behind spikes.

    Input `x` int8 `[2, 16]`, result `out` int8 `[32, 2]`. The weights of the matrix fill a block RAM.
    """
    grow = Growing(seed, {"x": TensorType((2, 16), INT8)})
    x = grow.transpose("transpose", grow.linear("matrix", "x", 32))
    spikes, decode = grow.fire("neuron", grow.lerp("table", x, 4), 3, halving=False)
    return grow.build.program(grow.spiking("out", spikes, decode, 2))


def photonic(*, noisy: bool, tokens: int = 2, seed: int = 0) -> Program:
    """Two layers on photonic arrays: input `x` u6 `[tokens, 10]`, result `classifier` int8 `[tokens, 3]`.

    Tiles of 4 rows, of which the last has fewer; between the layers an activation that is a table of every code, with
    5 unsigned bits. With noise, every source of it.
    """

    def noise(layer: int) -> Noise | None:
        physics = {"relative": 0.02, "photons": 4.0, "thermal": 15.0, "shift": 20}
        return Noise.from_physics(0xB1770000000 + seed, layer, **physics) if noisy else None

    grow = Growing(seed, {"x": TensorType((tokens, 10), Format(6, signed=False))})
    x = grow.photonic("hidden", "x", 6, 4, noise(0))
    table = np.round(31 / (1 + np.exp(-np.arange(-128, 129) / 30))).astype(np.int64)
    x = grow.add("activation", Lerp(grow.build.types[x], table[None], Format(5, signed=False)), x)
    return grow.build.program(grow.photonic("classifier", x, 3, 4, noise(1)))


def segment(program: Program, start: str, stop: str) -> Program:
    """The operations between two tensors as a program of its own: `start` is its input `x`, `stop` its result.

    A stream does not care when its codes come, so a chain of segments computes what the whole program computes.
    """
    assert stop not in (start, *program.inputs)
    made = {node.name: node for node in program.nodes}
    needed, open_ends = set(), [stop]
    while open_ends:
        name = open_ends.pop()
        if name != start and name not in needed:
            assert name in made, f"{stop} reads {name}, which {start} does not make"
            needed.add(name)
            open_ends += made[name].operands
    nodes = [
        replace(node, operands=tuple("x" if name == start else name for name in node.operands))
        for node in program.nodes
        if node.name in needed
    ]
    return Program({"x": program.types[start]}, tuple(nodes), stop)
