"""Saturating sum of two tensors: the residual connection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.contract import INT8, Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.matrix import add_codes
from bittrue.sim.operation import Constant, Operation, TensorType


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """`y = saturate(a + b)`; `left` and `right` have one shape, the result is in `format`."""

    left: TensorType
    right: TensorType
    format: Format = INT8

    def __post_init__(self) -> None:
        if self.left.shape != self.right.shape:
            raise BittrueError(f"add: shapes {self.left} and {self.right} differ")

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.left, self.right)

    @property
    def output(self) -> TensorType:
        return TensorType(self.left.shape, self.format)

    @property
    def accumulator(self) -> Range:
        a, b = self.left.format, self.right.format
        return Range(a.low + b.low, a.high + b.high)

    @property
    def constants(self) -> dict[str, Constant]:
        return {"tokens": self.left.tokens, "channels": self.left.channels}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return x[0] + x[1]

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return add_codes(x[0], x[1], self.format, self.accumulator)

    @classmethod
    def example(cls, rng: np.random.Generator) -> Add:
        shape = (int(rng.integers(1, 6)), int(rng.integers(1, 17)))
        a, b, y = (Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7)) for _ in range(3))
        return cls(TensorType(shape, a), TensorType(shape, b), y)
