"""The largest code of each channel: max pooling behind a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.bases import Moving, Reducing
from bittrue.sim.contract import Format, Range
from bittrue.sim.kernels.pool import LargestKernel, maximum
from bittrue.sim.kernels.window import Reading
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Maximum(Reducing, Moving):
    """`y[..., c] = max_t x[..., t, c]`; input `[..., T, C]`, output `[..., C]` (`[C]` for two axes), same format."""

    input: TensorType

    def __post_init__(self) -> None:
        self.check_axes()

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

    def by_window(self, reading: Reading | None, codes: Range) -> LargestKernel | None:  # noqa: ARG002
        """A faster execution than by rows, where they are windows whose channels are these."""
        if reading is None or reading.image[2] != self.input.channels:
            return None
        return LargestKernel(reading, self.input.format)

    @classmethod
    def example(cls, rng: np.random.Generator) -> Maximum:
        fmt = Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        return cls(TensorType((*leading, int(rng.integers(1, 10)), int(rng.integers(1, 13))), fmt))
