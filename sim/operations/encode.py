"""A value as a spike word: the bits of its code, most significant first, one time step each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.kernels.spikes import unpack_words
from bittrue.sim.operation import Constant, Operation, TensorType

#: The format of a spike: 1 fires, 0 is silent.
SPIKE = Format(1, signed=False)


@dataclass(frozen=True, eq=False)
class Encode(Operation):
    """`z[t, c] = bit K - 1 - t of x[c]`, for codes of K bits (two's complement where they are signed).

    Input `[..., C]`, output the spike train `[..., K, C]` in one unsigned bit, time before channels. With the weights
    `decode` = 2^(K-1) .. 2, 1 (the first one negative for signed codes) the train is worth exactly the code:
    `x = sum_t decode[t] * z[t]`. So a spiking layer that reads it needs shifts and additions only.
    """

    input: TensorType

    @property
    def steps(self) -> int:
        """K, the number of time steps."""
        return self.input.format.bits

    @property
    def decode(self) -> np.ndarray:
        """What a spike of each step is worth, int64 `[K]`."""
        worth = np.int64(1) << np.arange(self.steps - 1, -1, -1)
        if self.input.format.signed:
            worth[0] = -worth[0]
        return worth

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-1], self.steps, self.input.channels), SPIKE)

    @property
    def accumulator(self) -> Range:
        return Range(self.input.format.low, self.input.format.high)

    @property
    def constants(self) -> dict[str, Constant]:
        return {"tokens": self.input.tokens, "channels": self.input.channels, "steps": self.steps}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        place = np.arange(self.steps - 1, -1, -1)[:, None]
        return (x[0][..., None, :] >> place) & 1

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        rows = x[0].reshape(-1, self.input.channels)
        return unpack_words(rows, self.steps).reshape(len(x[0]), *self.output.shape), 0

    @cached_property
    def words(self) -> np.ndarray:
        """The spike word of every code, ascending: step t is bit K - 1 - t. Unsigned int64 `[levels]`."""
        return self.input.format.codes() & (self.input.format.levels - 1)

    @classmethod
    def example(cls, rng: np.random.Generator) -> Encode:
        fmt = Format(int(rng.integers(1, 13)), bool(rng.random() < 0.5))
        shape = (int(rng.integers(1, 5)), int(rng.integers(1, 13)))
        return cls(TensorType(shape if rng.random() < 0.7 else shape[1:], fmt))
