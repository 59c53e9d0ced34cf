"""Tensors side by side along the channels: the join of branches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.bases import Moving
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Concat(Moving):
    """`y[...] = (x0[...], x1[...], ..)` along the last axis; any number of `parts` `[..., Ck]` of one format."""

    parts: tuple[TensorType, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise BittrueError("concat: it has no operand; give at least one")
        first = self.parts[0]
        for k, part in enumerate(self.parts):
            if part.shape[:-1] != first.shape[:-1] or part.format != first.format:
                raise BittrueError(
                    f"concat: operand {k} is {part}, the first is {first}; they may differ in their channels only"
                )

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return self.parts

    @property
    def output(self) -> TensorType:
        channels = sum(part.channels for part in self.parts)
        return TensorType((*self.parts[0].shape[:-1], channels), self.parts[0].format)

    @property
    def constants(self) -> dict[str, Constant]:
        channels = np.array([part.channels for part in self.parts])
        return {"tokens": self.output.tokens, "channels": (Format.covering(channels, signed=False), channels)}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return np.concatenate(x, axis=-1)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return np.concatenate(x, axis=-1), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Concat:
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        fmt = INT8 if rng.random() < 0.6 else Format(int(rng.integers(1, 12)), bool(rng.random() < 0.5))
        unit = int(rng.integers(1, 4))
        channels = [unit * int(n) for n in rng.integers(1, 5, int(rng.integers(1, 5)))]
        return cls(tuple(TensorType((*leading, n), fmt) for n in channels))
