"""Small programs whose weights are written, and sets of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.noise import Noise
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

Set = dict[str, np.ndarray]


#: What `network` can have, each a chain by itself: the operations that have arrays to be written.
KINDS = (
    *(("spiking", "affine"), ("linear", "spiking"), ("photonic", "linear"), ("affine", "noisy"), ("spiking", "mean")),
    ("multiply", "depthwise"),
)


def network(seed: int, *, most: int = 9, kinds: Sequence[str] = ()) -> Program:
    """Two or three matrix products and affines of random geometry; often a sum with one more that is beside them.

    `kinds` says which operations: also `spiking` (on the bits of the codes), `photonic` (an array and the sum of its
    tiles, on codes made positive), `noisy` (such an array with noise), `multiply` (of a tensor with itself) and, at the
    end, `mean` or `depthwise`.
    """
    rng = np.random.default_rng(seed)
    fmt = [INT8, Format(5, signed=False), Format(1, signed=False)][int(rng.integers(3))]
    tokens, channels = (int(rng.integers(1, high)) for high in (4, most))
    build = Builder({"x": TensorType((tokens, channels), fmt)})
    kinds = kinds or rng.choice(["linear", "affine"], int(rng.integers(2, 4)))
    x = "x"
    for k, kind in enumerate(kinds):
        source = build.types[x]
        if kind in MAKE:
            x = MAKE[kind](build, f"{kind}{k}", x, int(rng.integers(1, most)), rng)
            continue
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
    if len(build.types[x].shape) == 2 and rng.random() < 0.5:
        kind = build.types[x]
        weight = rng.integers(-8, 8, (kind.channels, channels))
        beside = Linear(build.types["x"], weight, Requantize(kind.channels, np.array(3)))
        x = build.add("sum", Add(kind, beside.output), x, build.add("beside", beside, "x"))
    return build.program(x)


def spiking(build: Builder, name: str, x: str, n: int, rng: np.random.Generator) -> str:
    """A matrix product on the bits of codes; what these are worth is theirs, or any number."""
    encode = Encode(build.types[x])
    spikes = build.add(f"{name}_bits", encode, x)
    decode = encode.decode if rng.random() < 0.5 else rng.integers(-20, 60, encode.output.shape[-2])
    bits = Format(int(rng.integers(2, 7)))
    weight = rng.integers(bits.low, bits.high + 1, (n, encode.output.channels))
    magnitude = int(np.abs(decode).sum()) * bits.high * encode.output.channels // 3 + 1
    op = SpikingLinear(encode.output, weight, decode, Requantize.example(rng, n, magnitude), bits)
    return build.add(name, op, spikes)


def photonic(build: Builder, name: str, x: str, n: int, rng: np.random.Generator, noise: bool = False) -> str:
    """A photonic array whose last tile may be short, sometimes of one rail, and the sum of its tiles."""
    positive = Requantize(build.types[x].channels, np.array(0), format=Format(5, signed=False), floor=0)
    x = build.add(f"{name}_positive", Affine(build.types[x], np.ones(positive.channels, np.int64), positive), x)
    source, cells = build.types[x], Format(int(rng.integers(2, 6)), signed=False)
    rows = int(rng.integers(1, source.channels + 1))
    plus, minus = rng.integers(0, cells.high + 1, (2, n, source.channels))
    minus = minus * int(rng.random() < 0.8)
    full = rows * source.format.high * cells.high
    bits, tiles = int(rng.integers(3, 9)), -(-source.channels // rows)
    offset = rng.integers(0, full // 4 + 2, (tiles, n))
    drawn = Noise.from_physics(int(rng.integers(99)), 1, relative=0.02, photons=20.0, thermal=full / 90, shift=16)
    shift = max(0, full.bit_length() - bits - 1)
    mac = PhotonicMac(source, plus, minus, rows, bits, shift, offset, cells, drawn if noise else None)
    build.add(f"{name}_array", mac, x)
    total = TileSum(mac.output, shift, Requantize.example(rng, n, tiles * full // 8 + 1))
    return build.add(name, total, f"{name}_array")


def noisy(build: Builder, name: str, x: str, n: int, rng: np.random.Generator) -> str:
    """The same with noise."""
    return photonic(build, name, x, n, rng, noise=True)


def mean(build: Builder, name: str, x: str, n: int, rng: np.random.Generator) -> str:  # noqa: ARG001
    """The mean of the tokens."""
    source = build.types[x]
    r = Requantize.example(rng, source.channels, source.tokens * source.format.high + 1)
    return build.add(name, Mean(source, r), x)


def depthwise(build: Builder, name: str, x: str, n: int, rng: np.random.Generator) -> str:  # noqa: ARG001
    """The weighted sum of the tokens, each channel by itself."""
    source, bits = build.types[x], Format(int(rng.integers(2, 9)))
    weight = rng.integers(bits.low, bits.high + 1, source.shape)
    magnitude = source.tokens * source.format.high * bits.high // 2 + 1
    return build.add(name, Depthwise(source, weight, Requantize.example(rng, source.channels, magnitude), bits), x)


def multiply(build: Builder, name: str, x: str, n: int, rng: np.random.Generator) -> str:  # noqa: ARG001
    """The squares of the codes."""
    source = build.types[x]
    r = Requantize.example(rng, source.channels, source.format.high**2 + 1)
    return build.add(name, Multiply(source, source, r), x, x)


MAKE = {
    **{"spiking": spiking, "photonic": photonic, "noisy": noisy, "mean": mean},
    **{"depthwise": depthwise, "multiply": multiply},
}


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
