"""The largest code of each channel: max pooling behind a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.pool import maximum
from bittrue.sim.operation import Constant, Operation, TensorType


@dataclass(frozen=True, eq=False)
class Maximum(Operation):
    """`y[..., c] = max_t x[..., t, c]`; input `[..., T, C]`, output `[..., C]` (`[C]` for two axes), same format."""

    input: TensorType

    def __post_init__(self) -> None:
        if len(self.input.shape) < 2:
            raise BittrueError(f"maximum: input {self.input} has one axis, expected [..., terms, channels]")

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-2], self.input.channels), self.input.format)

    @property
    def accumulator(self) -> Range:
        return Range(self.input.format.low, self.input.format.high)

    @property
    def terms(self) -> int:
        """T, the codes that each result is the largest of."""
        return self.input.shape[-2]

    @property
    def row(self) -> int:
        return self.terms * self.input.channels

    @property
    def constants(self) -> dict[str, Constant]:
        return {"vectors": self.output.tokens, "terms": self.terms, "channels": self.input.channels}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return x[0].max(axis=-2)

    def by_row(
        self,
        rows: np.ndarray,
        count: bool = True,  # noqa: ARG002 - nothing can saturate
        table: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, int]:
        """Rows `[rows, T * C]` to `[rows, C]`, as a matrix product's kernel has it."""
        return maximum(rows.reshape(len(rows), *self.input.shape[-2:]), self.input.format, table, out), 0

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        y, _ = self.by_row(x[0].reshape(-1, self.row))
        return y.reshape(len(x[0]), *self.output.shape), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Maximum:
        fmt = Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        return cls(TensorType((*leading, int(rng.integers(1, 10)), int(rng.integers(1, 13))), fmt))
