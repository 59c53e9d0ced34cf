"""The channel with the largest code: the decision of a classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.operation import Constant, Operation, TensorType


@dataclass(frozen=True, eq=False)
class ArgMax(Operation):
    """`y[..., 0] = argmax_c x[..., c]`, the first of equal ones; input `[..., C]`, output `[..., 1]`, unsigned, of as
    many bits as the last channel's number has."""

    input: TensorType

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        bits = max(1, (self.input.channels - 1).bit_length())
        return TensorType((*self.input.shape[:-1], 1), Format(bits, signed=False))

    @property
    def accumulator(self) -> Range:
        fmt = self.input.format
        return Range(fmt.low, fmt.high) | Range(0, self.input.channels - 1)

    @property
    def constants(self) -> dict[str, Constant]:
        return {"tokens": self.input.tokens, "channels": self.input.channels}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return x[0].argmax(axis=-1)[..., None]

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return self.wide(x[0]).astype(self.output.format.dtype), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> ArgMax:
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        fmt = Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))
        return cls(TensorType((*leading, int(rng.integers(1, 13))), fmt))
