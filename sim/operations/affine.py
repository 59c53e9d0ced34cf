"""Scale and offset of each channel, with requantisation: batch normalisation and layer scale in integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.bases import Requantised, stored
from bittrue.sim.contract import INT8, Format, product_sum_range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Parameter, bounds
from bittrue.sim.kernels.matrix import AffineKernel
from bittrue.sim.operation import Constant, TensorType, tabulate
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class Affine(Requantised):
    """`y[t, c] = requantize(weight[c] * x[t, c])`.

    Input `[..., C]`, weight int `[C]` (held or not) in `weight_format`, output `[..., C]` in the requantiser's format.
    """

    input: TensorType
    weight: Parameter
    requantize: Requantize
    weight_format: Format = INT8

    def __post_init__(self) -> None:
        weight = stored(self.weight, self.weight_format, self.stem)
        if weight.shape != (self.input.channels,) or self.requantize.channels != self.input.channels:
            raise BittrueError(
                f"affine: weight {weight.shape} and requantiser ({self.requantize.channels},) "
                f"do not fit input {self.input}; both have one entry a channel"
            )
        object.__setattr__(self, "weight", weight)
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType(self.input.shape, self.requantize.format)

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the product, per channel, int64 `[C]`."""
        low, high = bounds(self.weight)
        return product_sum_range((low[:, None], high[:, None]), self.input.format, 1, "affine")

    @property
    def macs(self) -> int:
        return self.input.size

    @property
    def weights(self) -> int:
        return 2 * self.input.channels

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.input.tokens,
            "channels": self.input.channels,
            "weight": (self.weight_format, self.weight),
            **self.requantize.constants,
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return self.requantize.wide(x[0] * self.weight)

    @cached_property
    def rows(self) -> AffineKernel:
        return AffineKernel(self.weight, self.requantize, self.accumulator | self.ranges[2])

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        y, saturated = self.rows(x[0].reshape(-1, self.input.channels))
        return y.reshape(x[0].shape), saturated

    def table(self) -> np.ndarray | None:
        return tabulate(self) if self.input.format.bits <= 8 and not self.held else None

    @classmethod
    def example(cls, rng: np.random.Generator) -> Affine:
        tokens, channels = (int(rng.integers(1, high)) for high in (6, 17))
        fmt = Format(8) if rng.random() < 0.7 else Format(int(rng.integers(1, 12)), bool(rng.random() < 0.5))
        weight_format = Format(int(rng.integers(2, 9)))
        weight = rng.integers(weight_format.low, weight_format.high + 1, channels)
        magnitude = fmt.high * weight_format.high // 2 + 1
        return cls(
            TensorType((tokens, channels), fmt), weight, Requantize.example(rng, channels, magnitude), weight_format
        )
