"""Weighted sum over the taps of a window, each channel by itself: depthwise convolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.bases import Reducing, Requantised, stored
from bittrue.sim.contract import INT8, Format, Range, product_sum_range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Parameter, bounds
from bittrue.sim.kernels.channels import Weighted
from bittrue.sim.kernels.pool import WeightedKernel, weighted
from bittrue.sim.kernels.window import Reading
from bittrue.sim.operation import Constant, TensorType
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class Depthwise(Reducing, Requantised):
    """`y[..., c] = requantize(sum_t weight[t, c] * x[..., t, c])`.

    Input `[..., T, C]` (T taps of a window), weight int `[T, C]` (held or not) in `weight_format`, output `[..., C]`
    (`[C]` for two axes) in the requantiser's format. The accumulator never wraps: its range follows from the weights.
    """

    input: TensorType
    weight: Parameter
    requantize: Requantize
    weight_format: Format = INT8

    def __post_init__(self) -> None:
        self.check_axes()
        weight = stored(self.weight, self.weight_format, self.stem)
        if weight.shape != self.input.shape[-2:]:
            raise BittrueError(
                f"depthwise: weight {weight.shape} does not fit input {self.input}; expected [taps, channels], as the "
                "last axes of the input"
            )
        object.__setattr__(self, "weight", weight)
        if self.requantize.channels != self.input.channels:
            raise BittrueError(
                f"depthwise: {self.input.channels} channels, but the requantiser has {self.requantize.channels}"
            )
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the bare sum, per channel, int64 `[C]`."""
        return product_sum_range(bounds(self.weight), self.input.format, 0, "depthwise")

    @property
    def macs(self) -> int:
        return self.input.size

    @property
    def weights(self) -> int:
        return self.weight.size + self.input.channels

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "vectors": self.output.tokens,
            "terms": self.terms,
            "channels": self.input.channels,
            "weight": (self.weight_format, self.weight),
            **self.requantize.constants,
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return self.requantize.wide((x[0] * self.weight).sum(axis=-2))

    @cached_property
    def by_row(self) -> WeightedKernel:
        return WeightedKernel(self.weight, self.requantize, self.accumulator | self.ranges[2])

    def by_window(self, reading: Reading | None, codes: Range) -> Weighted | None:
        """A faster execution than by rows, where they are windows whose channels are these."""
        return weighted(reading, self.weight, self.by_row.epilogue, codes)  # type: ignore[arg-type]

    @classmethod
    def example(cls, rng: np.random.Generator) -> Depthwise:
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        taps, channels = int(rng.integers(1, 10)), int(rng.integers(1, 13))
        fmt = Format(8) if rng.random() < 0.7 else Format(int(rng.integers(1, 12)), bool(rng.random() < 0.5))
        weight_format = Format(int(rng.integers(2, 9)))
        weight = rng.integers(weight_format.low, weight_format.high + 1, (taps, channels))
        magnitude = int(np.sqrt(taps) * fmt.high * weight_format.high / 3) + 1
        requantize = Requantize.example(rng, channels, magnitude)
        return cls(TensorType((*leading, taps, channels), fmt), weight, requantize, weight_format)
