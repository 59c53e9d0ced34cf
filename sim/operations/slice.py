"""Some of the channels of a tensor: the parts of a chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.bases import Moving
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Slice(Moving):
    """`y[..., c] = x[..., start + c]`; input `[..., C]`, output `[..., stop - start]`, same format."""

    input: TensorType
    start: int
    stop: int

    def __post_init__(self) -> None:
        for name in ("start", "stop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise BittrueError(f"slice: its {name} is a whole number, not {value!r}")
            object.__setattr__(self, name, int(value))
        if not 0 <= self.start < self.stop <= self.input.channels:
            raise BittrueError(
                f"slice: {self.start}:{self.stop} is no part of the {self.input.channels} channels of {self.input}; "
                "give 0 <= start < stop <= channels"
            )

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-1], self.stop - self.start), self.input.format)

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.input.tokens,
            "channels": self.input.channels,
            "start": self.start,
            "stop": self.stop,
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return x[0][..., self.start : self.stop]

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return np.ascontiguousarray(self.wide(x[0])), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Slice:
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        fmt = Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))
        unit = int(rng.integers(1, 4))
        start, width, rest = int(rng.integers(0, 4)), int(rng.integers(1, 4)), int(rng.integers(0, 4))
        kind = TensorType((*leading, unit * (start + width + rest)), fmt)
        return cls(kind, unit * start, unit * (start + width))
