"""Instances of every operation that are small enough for all their inputs, so that what is reachable is reached.

An operation that is added here later than elsewhere is no fault: what is asked of `SMALL` is asked of those it names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from bittrue.sim.contract import Format
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.encode import SPIKE, Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.requantize import Requantize

Rng = np.random.Generator


def _format(rng: Rng, low: int, high: int) -> Format:
    return Format(int(rng.integers(low, high + 1)), bool(rng.random() < 0.6))


def _add(rng: Rng) -> Operation:
    a, b, y = (_format(rng, 1, 4) for _ in range(3))
    return Add(TensorType((1, 1), a), TensorType((1, 1), b), y)


def _affine(rng: Rng) -> Operation:
    kind = TensorType((1, 2), _format(rng, 1, 5))
    return Affine(kind, rng.integers(-9, 10, 2), Requantize.example(rng, 2, 20))


def _clamp(rng: Rng) -> Operation:
    kind = TensorType((1, 2), _format(rng, 2, 4))
    lowest, highest = sorted(int(v) for v in rng.integers(kind.format.low, kind.format.high + 1, 2))
    return Clamp(kind, lowest, highest, Format.covering(lowest, highest))


def _depthwise(rng: Rng) -> Operation:
    return Depthwise(
        TensorType((3, 2), _format(rng, 1, 3)), rng.integers(-9, 10, (3, 2)), Requantize.example(rng, 2, 40)
    )


def _fs_neuron(rng: Rng) -> Operation:
    kind = TensorType((1, 2), Format(4))
    steps = int(rng.integers(1, 5))
    return FsNeuron(kind, rng.integers(-9, 9, steps), rng.integers(-5, 9, steps))


def _lerp(rng: Rng) -> Operation:
    fmt, out = _format(rng, 2, 6), _format(rng, 2, 7)
    segments = 1 << int(rng.integers(0, fmt.bits + 1))
    return Lerp(TensorType((1, 2), fmt), rng.integers(out.low, out.high + 1, (2, segments + 1)), out)


def _lif(rng: Rng) -> Operation:
    shift = int(rng.integers(0, 4))
    keep = rng.integers(0, (1 << shift) + 1, 2)
    kind = TensorType((3, 2), _format(rng, 1, 3))
    if rng.random() < 0.5:
        return Lif(kind, None, None, keep, shift, int(rng.integers(0, 3)))
    return Lif(kind, rng.integers(-4, 9, 2), rng.integers(-3, 4, 2), keep, shift, 0, bool(rng.random() < 0.5))


def _linear(rng: Rng) -> Operation:
    kind = TensorType((1, 2), _format(rng, 1, 4))
    return Linear(kind, rng.integers(-9, 10, (2, 2)), Requantize.example(rng, 2, 30))


def _mean(rng: Rng) -> Operation:
    return Mean(TensorType((3, 2), _format(rng, 1, 2)), Requantize.example(rng, 2, 20))


def _multiply(rng: Rng) -> Operation:
    a, b = (TensorType((1, 1), _format(rng, 1, 4)) for _ in range(2))
    return Multiply(a, b, Requantize.example(rng, 1, 20))


def _photonic_mac(rng: Rng) -> Operation:
    plus, minus = rng.integers(0, 8, (2, 2, 3))
    offset = rng.integers(0, 12, (2, 2))
    kind = TensorType((3,), Format(2, signed=False))
    return PhotonicMac(kind, plus, minus, 2, 3, int(rng.integers(0, 4)), offset, Format(3, signed=False))


def _spiking_linear(rng: Rng) -> Operation:
    decode = np.array([2, 1]) * rng.choice([-1, 1], 2) if rng.random() < 0.5 else rng.integers(-9, 20, 2)
    kind = TensorType((2, 2), SPIKE)
    return SpikingLinear(kind, rng.integers(-9, 10, (2, 2)), decode, Requantize.example(rng, 2, 60))


def _tile_sum(rng: Rng) -> Operation:
    kind = TensorType((3, 2), _format(rng, 1, 3))
    return TileSum(kind, int(rng.integers(0, 4)), Requantize.example(rng, 2, 40))


SMALL: dict[str, Callable[[Rng], Operation]] = {
    "Add": _add,
    "Affine": _affine,
    "Clamp": _clamp,
    "Depthwise": _depthwise,
    "Encode": lambda rng: Encode(TensorType((1, 2), _format(rng, 1, 4))),
    "FsNeuron": _fs_neuron,
    "Lerp": _lerp,
    "Lif": _lif,
    "Linear": _linear,
    "Maximum": lambda rng: Maximum(TensorType((3, 2), _format(rng, 1, 3))),
    "Mean": _mean,
    "Multiply": _multiply,
    "PhotonicMac": _photonic_mac,
    "SpikingLinear": _spiking_linear,
    "TileSum": _tile_sum,
    "Transpose": lambda rng: Transpose(TensorType((2, 2), _format(rng, 1, 2))),
}


def every_input(op: Operation) -> tuple[np.ndarray, ...]:
    """All inputs where they are at most 2^10; else all for one channel, in every channel the same."""
    kinds = op.inputs
    entries = [kind.format for kind in kinds for _ in range(kind.size)]
    if sum(fmt.bits for fmt in entries) <= 10:
        rows = np.array(list(itertools.product(*(fmt.codes() for fmt in entries))))
        parts = np.split(rows, np.cumsum([kind.size for kind in kinds])[:-1], axis=1)
        return tuple(p.reshape(-1, *k.shape).astype(k.format.dtype) for p, k in zip(parts, kinds, strict=True))
    (kind,) = kinds
    rows = np.array(list(itertools.product(kind.format.codes(), repeat=kind.tokens)))
    batch = np.repeat(rows[:, :, None], kind.channels, axis=2)
    return (batch.reshape(-1, *kind.shape).astype(kind.format.dtype),)
