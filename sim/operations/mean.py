"""Sum over the tokens, or over the taps of a window, requantised: average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.bases import Reducing, Requantised
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.channels import Weighted
from bittrue.sim.kernels.matrix import MeanKernel
from bittrue.sim.kernels.pool import weighted
from bittrue.sim.kernels.window import Reading
from bittrue.sim.operation import Constant, TensorType
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class Mean(Reducing, Requantised):
    """`y[..., c] = requantize(sum_t x[..., t, c])`; input `[..., T, C]`, output `[..., C]` (`[C]` for two axes).

    With shift = log2 T this is the mean; for other T a power of two near it is used and the remaining
    factor belongs to the scale of the next layer, so that no divider is needed.
    """

    input: TensorType
    requantize: Requantize

    def __post_init__(self) -> None:
        self.check_axes()
        if self.requantize.channels != self.input.channels:
            raise BittrueError(f"mean: {self.input.channels} channels, requantiser has {self.requantize.channels}")
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the sum, per channel, int64 `[C]`."""
        tokens = np.full(self.input.channels, self.terms, np.int64)
        return tokens * self.input.format.low, tokens * self.input.format.high

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "vectors": self.output.tokens,
            "tokens": self.terms,
            "channels": self.input.channels,
            **self.requantize.constants,
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return self.requantize.wide(x[0].sum(axis=-2))

    @cached_property
    def pool(self) -> MeanKernel:
        return MeanKernel(self.requantize, self.accumulator, self.ranges[2])

    def by_row(
        self, rows: np.ndarray, count: bool = True, table: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        """Rows `[rows, T * C]` to `[rows, C]`, as a matrix product's kernel has it."""
        return self.pool(rows.reshape(len(rows), self.terms, self.input.channels), count, table, out)

    def by_window(self, reading: Reading | None, codes: Range) -> Weighted | None:
        """A faster execution than by rows, where they are windows whose channels are these."""
        ones = np.ones(self.input.shape[-2:], np.int64)
        return weighted(reading, ones, self.pool.epilogue, codes)

    @classmethod
    def example(cls, rng: np.random.Generator) -> Mean:
        tokens, channels = (int(rng.integers(1, high)) for high in (10, 17))
        fmt = Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))
        magnitude = int(np.sqrt(tokens) * fmt.high) + 1
        requantize = Requantize.example(rng, channels, magnitude)
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        return cls(TensorType((*leading, tokens, channels), fmt), requantize)
