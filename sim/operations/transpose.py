"""Swap tokens and channels: what lets a matrix stage mix tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.bases import Moving
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.matrix import swap_axes
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Transpose(Moving):
    """`y[c, t] = x[t, c]`; input `[T, C]`, output `[C, T]`, same format."""

    input: TensorType

    def __post_init__(self) -> None:
        if len(self.input.shape) != 2:
            raise BittrueError(f"transpose: input {self.input} has {len(self.input.shape)} axes, expected 2")

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType(self.input.shape[::-1], self.input.format)

    @property
    def constants(self) -> dict[str, Constant]:
        return {"tokens": self.input.tokens, "channels": self.input.channels}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return x[0].transpose(0, 2, 1)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return swap_axes(x[0]), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Transpose:
        fmt = Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))
        return cls(TensorType((int(rng.integers(1, 13)), int(rng.integers(1, 13))), fmt))
