"""Rows of a table by an index: what stands for a coordinate or a word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from bittrue.sim.contract import INT8, Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import fixed
from bittrue.sim.operation import Constant, Operation, TensorType, freeze

#: Widest index, in bits.
WIDEST = 16


@dataclass(frozen=True, eq=False)
class Embedding(Operation):
    """`y[..., d] = entries[min(x[...], R - 1), d]`.

    Input `[...]`, indices: unsigned codes of up to 16 bits; output `[..., D]`; entries int `[R, D]` in the output
    format. R is at most the number of indices that there can be; those beyond R - 1 have the last row, so that the
    result is told for every code. Nothing saturates. Semantics within the rows: `torch.nn.Embedding`.
    """

    looks_up: ClassVar[bool] = True

    input: TensorType
    entries: np.ndarray
    format: Format = INT8

    def __post_init__(self) -> None:
        entries = fixed(self.entries, "embedding: entries")
        index = self.input.format
        if index.signed or index.bits > WIDEST:
            raise BittrueError(
                f"embedding: its indices are unsigned codes of up to {WIDEST} bits, not {self.input}; clamp them first"
            )
        if entries.ndim != 2 or not entries.size or len(entries) > index.levels:
            raise BittrueError(
                f"embedding: entries {entries.shape} are no table for {self.input}; give rows of codes, 1 to "
                f"{index.levels} of them"
            )
        object.__setattr__(self, "entries", freeze(entries))
        if not self.format.holds(self.entries):
            raise BittrueError(
                f"embedding: entries {self.entries.min()}..{self.entries.max()} do not fit {self.format}; scale them, "
                "or give a wider format"
            )

    @property
    def rows(self) -> int:
        """R."""
        return len(self.entries)

    @property
    def dimension(self) -> int:
        """D, the codes of a row."""
        return self.entries.shape[1]

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape, self.dimension), self.format)

    @property
    def accumulator(self) -> Range:
        return Range.of(self.entries, self.entries)

    @property
    def weights(self) -> int:
        return self.entries.size

    @property
    def table_bits(self) -> int:
        return self.entries.size * self.format.bits

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "indices": self.input.size,
            "rows": self.rows,
            "dimension": self.dimension,
            "entries": (self.format, self.entries),
        }

    def reached(self, *x: Range) -> Range:  # noqa: ARG002
        return self.accumulator

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return self.entries[np.minimum(x[0], self.rows - 1)]

    @cached_property
    def complete(self) -> np.ndarray:
        """A row for every code that there can be, int64 `[2^bits, D]`: the last one is repeated."""
        return self.entries[np.minimum(np.arange(self.input.format.levels), self.rows - 1)]

    @cached_property
    def _codes(self) -> np.ndarray:
        return self.complete.astype(self.format.dtype)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return self._codes[x[0]], 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Embedding:
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        index = Format(int(rng.integers(1, 8)), signed=False)
        out = INT8 if rng.random() < 0.6 else Format(int(rng.integers(2, 12)), bool(rng.random() < 0.5))
        rows = int(rng.integers(1, index.levels + 1))
        dimension = int(rng.choice([1, 2, 3, 4, 6, 8, 12]))
        kind = TensorType((*leading, int(rng.integers(1, 5))), index)
        return cls(kind, rng.integers(out.low, out.high + 1, (rows, dimension)), out)
