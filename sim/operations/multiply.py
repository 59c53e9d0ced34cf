"""Product of two tensors, requantised: gates, attention of channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.bases import Requantised
from bittrue.sim.contract import INT8, Format, Range, check_bits
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.epilogue import Epilogue
from bittrue.sim.operation import Constant, TensorType
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class Multiply(Requantised):
    """`y[..., c] = requantize(a[..., c] * b[..., c])`; `left` and `right` have one shape `[..., C]`."""

    left: TensorType
    right: TensorType
    requantize: Requantize

    def __post_init__(self) -> None:
        if self.left.shape != self.right.shape:
            raise BittrueError(f"multiply: shapes {self.left} and {self.right} differ")
        if self.requantize.channels != self.left.channels:
            raise BittrueError(
                f"multiply: {self.left.channels} channels, but the requantiser has {self.requantize.channels}"
            )
        a, b = self.left.format, self.right.format
        check_bits(float(max(-a.low, a.high)) * max(-b.low, b.high), "multiply")
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.left, self.right)

    @property
    def output(self) -> TensorType:
        return TensorType(self.left.shape, self.requantize.format)

    @cached_property
    def product(self) -> Range:
        """Exact range of the products."""
        a, b = self.left.format, self.right.format
        ends = [p * q for p in (a.low, a.high) for q in (b.low, b.high)]
        return Range(min(ends), max(ends))

    @property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the product, per channel, int64 `[C]`."""
        every = np.ones(self.left.channels, np.int64)
        return every * self.product.low, every * self.product.high

    @property
    def macs(self) -> int:
        return self.left.size

    @property
    def weights(self) -> int:
        return self.left.channels

    @property
    def constants(self) -> dict[str, Constant]:
        return {"tokens": self.left.tokens, "channels": self.left.channels, **self.requantize.constants}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return self.requantize.wide(x[0] * x[1])

    @cached_property
    def epilogue(self) -> Epilogue:
        return Epilogue(self.requantize, self.accumulator | self.ranges[2])

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        kind = self.epilogue.vectors[0].dtype
        products = np.multiply(x[0], x[1], dtype=kind).reshape(-1, self.left.channels)
        y = np.empty(products.shape, self.output.format.dtype)
        saturated = self.epilogue(products, y)
        return y.reshape(len(x[0]), *self.output.shape), int(saturated)

    @classmethod
    def example(cls, rng: np.random.Generator) -> Multiply:
        leading = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(3))))
        channels = int(rng.integers(1, 13))
        a, b = (TensorType((*leading, channels), _format(rng)) for _ in range(2))
        magnitude = a.format.high * b.format.high + 1
        return cls(a, b, Requantize.example(rng, channels, magnitude))


def _format(rng: np.random.Generator) -> Format:
    return INT8 if rng.random() < 0.6 else Format(int(rng.integers(1, 11)), bool(rng.random() < 0.6))
