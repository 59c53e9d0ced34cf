"""An image made larger: every pixel repeated, or the channels of a pixel put beside each other as pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim.bases import Moving
from bittrue.sim.contract import Format, axes
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Upsample(Moving):
    """`y[r, s, c] = x[r // fy, s // fx, p C' + c]`, p = 0, or with `parts` the place (r % fy) fx + s % fx in the pixel.

    Input `[H, W, C]`, output `[fy H, fx W, C']` in the same format. C' = C: the nearest pixel, repeated; an image of
    one pixel so becomes one of a code for each channel everywhere. With `parts` C' = C / (fy fx): what a transposed
    convolution is, behind a convolution with an output for each of its phases. A sequence is an image of one row.

    factors   (fy, fx)
    """

    input: TensorType
    factors: tuple[int, int]
    parts: bool = False

    def __post_init__(self) -> None:
        if len(self.input.shape) != 3:
            raise BittrueError(
                f"upsample: input {self.input} has {len(self.input.shape)} axes, expected rows, columns, channels; "
                "reshape it (a sequence is an image of one row)"
            )
        factors = axes(self.factors, "upsample: factors")
        if len(factors) != 2 or min(factors) < 1:
            raise BittrueError(f"upsample: its factors are 2 whole numbers of at least 1, not {factors}")
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "parts", bool(self.parts))
        if self.parts and self.input.channels % (factors[0] * factors[1]):
            raise BittrueError(
                f"upsample: the {self.input.channels} channels of {self.input} are no {factors[0]} x {factors[1]} "
                "pixels; give a multiple of that, or factors that divide them"
            )

    @property
    def channels(self) -> int:
        """C', the channels of a pixel of the result."""
        return self.input.channels // (self.factors[0] * self.factors[1]) if self.parts else self.input.channels

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        (rows, columns, _), (down, across) = self.input.shape, self.factors
        return TensorType((rows * down, columns * across, self.channels), self.input.format)

    @property
    def constants(self) -> dict[str, Constant]:
        names = ("rows", "columns", "channels"), ("factor_down", "factor_across")
        values = self.input.shape, self.factors
        geometry = {n: v for of, at in zip(names, values, strict=True) for n, v in zip(of, at, strict=True)}
        return geometry | {"given": self.channels, "parts": int(self.parts)}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        (codes,), (down, across) = x, self.factors
        y = np.empty((len(codes), *self.output.shape), np.int64)
        for r, s in np.ndindex(*self.output.shape[:2]):
            first = ((r % down) * across + s % across) * self.channels if self.parts else 0
            y[:, r, s] = codes[:, r // down, s // across, first : first + self.channels]
        return y

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        (rows, columns, _), (down, across) = self.input.shape, self.factors
        inside = (down, across) if self.parts else (1, 1)
        pixels = x[0].reshape(-1, rows, columns, *inside, self.channels).transpose(0, 1, 3, 2, 4, 5)
        y = np.empty((len(x[0]), rows, down, columns, across, self.channels), self.output.format.dtype)
        y[...] = pixels
        return y.reshape(len(x[0]), *self.output.shape), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Upsample:
        fmt = Format(8) if rng.random() < 0.6 else Format(int(rng.integers(1, 12)), bool(rng.random() < 0.5))
        pick = lambda high, count: tuple(int(v) for v in rng.integers(1, high, count))  # noqa: E731
        shape, factors, parts = pick(5, 2), pick(4, 2), bool(rng.random() < 0.5)
        channels = int(rng.choice([1, 2, 3, 4, 6])) * (factors[0] * factors[1] if parts else 1)
        return cls(TensorType((*shape, channels), fmt), factors, parts)
