"""Matrix product over the channels, with requantisation: fully connected layers and token mixing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bittrue.sim.bases import Requantised, stored
from bittrue.sim.contract import INT8, Format, Range, product_sum_range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Parameter, bounds
from bittrue.sim.kernels.direct import Direct
from bittrue.sim.kernels.matrix import MatrixKernel
from bittrue.sim.kernels.separable import SumOfRows
from bittrue.sim.kernels.window import Reading
from bittrue.sim.operation import Constant, TensorType
from bittrue.sim.requantize import Requantize

if TYPE_CHECKING:
    from bittrue.sim.operations.embedding import Embedding


@dataclass(frozen=True, eq=False)
class Linear(Requantised):
    """`acc[t, n] = sum_k weight[n, k] * x[t, k]`,  `y = requantize(acc)`.

    Input `[..., K]`, weight int `[N, K]` (held or not) in `weight_format`, output `[..., N]` in the requantiser's one.
    The accumulator never wraps: its exact range follows from the weights and sets the hardware's width.
    """

    input: TensorType
    weight: Parameter
    requantize: Requantize
    weight_format: Format = INT8

    def __post_init__(self) -> None:
        weight = stored(self.weight, self.weight_format, self.stem)
        if weight.ndim != 2 or weight.shape[1] != self.input.channels:
            raise BittrueError(f"linear: weight {weight.shape} does not fit input {self.input}; expected [N, K]")
        object.__setattr__(self, "weight", weight)
        if self.requantize.channels != weight.shape[0]:
            raise BittrueError(f"linear: {weight.shape[0]} outputs, but the requantiser has {self.requantize.channels}")
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-1], len(self.weight)), self.requantize.format)

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the bare sum, per output channel, int64 `[N]`."""
        return product_sum_range(bounds(self.weight), self.input.format, 1, "linear")

    @property
    def macs(self) -> int:
        return self.input.tokens * self.weight.size

    @property
    def weights(self) -> int:
        return self.weight.size + len(self.weight)

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.input.tokens,
            "inputs": self.input.channels,
            "outputs": len(self.weight),
            "weight": (self.weight_format, self.weight),
            **self.requantize.constants,
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return self.requantize.wide(x[0] @ self.weight.T)

    @cached_property
    def by_row(self) -> MatrixKernel:
        return MatrixKernel(self.weight, self.input.format, self.sums, self.requantize)

    def by_window(self, reading: Reading | None, codes: Range) -> Direct | None:
        """A faster execution than by rows, where this computer has one: rows are those of a window, or as they are,
        and the codes that they hold lie within `codes`."""
        return self.by_row.direct(reading, codes)

    def by_index(self, table: Embedding) -> SumOfRows | None:
        """The same for rows that are rows of a table side by side, from their indices; None where it saves nothing."""
        if not SumOfRows.suits(self.weight, table.input.format.levels, table.dimension):
            return None
        return SumOfRows(self.weight, table.complete, self.sums, self.requantize)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        rows = x[0].reshape(-1, self.input.channels)
        y, saturated = self.by_row(rows)
        return y.reshape(len(x[0]), *self.output.shape), saturated

    @classmethod
    def example(cls, rng: np.random.Generator) -> Linear:
        tokens, k, n = (int(rng.integers(1, high)) for high in (6, 25, 13))
        fmt = Format(8) if rng.random() < 0.7 else Format(int(rng.integers(1, 12)), bool(rng.random() < 0.5))
        weight_format = Format(int(rng.integers(2, 9)))
        weight = rng.integers(weight_format.low, weight_format.high + 1, (n, k))
        magnitude = int(np.sqrt(k) * fmt.high * weight_format.high / 3) + 1
        requantize = Requantize.example(rng, n, magnitude)
        return cls(TensorType((tokens, k), fmt), weight, requantize, weight_format)
