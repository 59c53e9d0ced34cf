"""Conformance of an operation: what its fast execution promises, checked on random values and on the corners.

The tests hold every registered operation to it, and a new operation can be held to it while it is written:

    run_equals_reference(MyOperation.example(rng), rng)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from bittrue.sim.operation import Operation, discover


def batches(op: Operation, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
    """Full-range random values, then the corners: all low, all high, alternating."""
    yield tuple(rng.integers(t.format.low, t.format.high + 1, (7, *t.shape)).astype(t.format.dtype) for t in op.inputs)
    for pick in ("low", "high"):
        yield tuple(np.full((2, *t.shape), getattr(t.format, pick), t.format.dtype) for t in op.inputs)
    yield tuple(
        np.where(np.indices((2, *t.shape)).sum(0) % 2, t.format.low, t.format.high).astype(t.format.dtype)
        for t in op.inputs
    )


def make(name: str, seed: int) -> tuple[Operation, np.random.Generator]:
    """A random operation of that name, and the generator for its inputs."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return discover()[name].example(rng), rng


def run_equals_reference(op: Operation, rng: np.random.Generator) -> None:
    """AssertionError unless codes, their type, their shape and the count of saturated ones are the reference's."""
    for x in batches(op, rng):
        y, saturated = op.run(*x)
        np.testing.assert_array_equal(y, op.reference(*x))
        assert y.dtype == op.output.format.dtype
        assert y.shape == (len(x[0]), *op.output.shape)
        assert saturated == op.saturated(*x)
        assert op.output.format.holds(y)
