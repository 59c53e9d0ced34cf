"""Saturating sum of two tensors or more: the residual connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bittrue.sim.contract import INT8, Format, Range, saturate
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import LATER
from bittrue.sim.kernels.matrix import add_codes, add_limited
from bittrue.sim.operation import Constant, Operation, TensorType


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """`y = saturate(a + b + ..)`; `left`, `right` and what is `more` have one shape, the result is in `format`."""

    left: TensorType
    right: TensorType
    format: Format = INT8
    more: tuple[TensorType, ...] = field(default=(), metadata={LATER: True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "more", tuple(self.more))
        for other in (self.right, *self.more):
            if self.left.shape != other.shape:
                raise BittrueError(f"add: shapes {self.left} and {other} differ")

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.left, self.right, *self.more)

    @property
    def output(self) -> TensorType:
        return TensorType(self.left.shape, self.format)

    @property
    def accumulator(self) -> Range:
        formats = [kind.format for kind in self.inputs]
        return Range(sum(fmt.low for fmt in formats), sum(fmt.high for fmt in formats))

    @property
    def constants(self) -> dict[str, Constant]:
        return {"tokens": self.left.tokens, "channels": self.left.channels}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return sum(x[1:], x[0])

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        if not self.more:
            return add_codes(x[0], x[1], self.format, self.accumulator)
        exact = self.accumulator.format
        total = x[0].astype(exact.dtype)
        for other in x[1:]:
            total += other
        y = saturate(total, self.format)
        return y.astype(self.format.dtype), int(np.count_nonzero(total != y))

    def within(self, low: int, high: int, dtype: np.dtype) -> Callable[..., np.ndarray] | None:
        """A fast execution whose results are limited to `low..high`, nothing counted; None for more than two."""
        if self.more:
            return None
        low, high = max(low, self.format.low), min(high, self.format.high)

        def run(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
            return add_limited(a, b, (low, high), dtype, self.accumulator, out)

        return run

    @classmethod
    def example(cls, rng: np.random.Generator) -> Add:
        shape = (int(rng.integers(1, 6)), int(rng.integers(1, 17)))
        pick = lambda: Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))  # noqa: E731
        a, b, y = pick(), pick(), pick()
        more = [TensorType(shape, pick()) for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.4 else 0)]
        return cls(TensorType(shape, a), TensorType(shape, b), y, tuple(more))
