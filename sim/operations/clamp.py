"""Limit every code to a range: a bounded ReLU (ReLU6, ReLUN), or a hard tanh, on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Constant, Operation, TensorType, tabulate


@dataclass(frozen=True, eq=False)
class Clamp(Operation):
    """`y = min(max(x, lowest), highest)`; the bounds lie in the input's format, the output is in `format`.

    The bounds are the function, so what they cut off does not count as saturated; both must fit `format`.
    """

    input: TensorType
    lowest: int
    highest: int
    format: Format

    def __post_init__(self) -> None:
        inside = self.input.format.holds(np.array([self.lowest, self.highest]))
        if self.lowest > self.highest or not inside or not self.format.holds(np.array([self.lowest, self.highest])):
            raise BittrueError(
                f"clamp: bounds {self.lowest}..{self.highest} must be in order and fit both {self.input.format} "
                f"and {self.format}"
            )

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType(self.input.shape, self.format)

    @property
    def accumulator(self) -> Range:
        return Range(self.input.format.low, self.input.format.high)

    @property
    def constants(self) -> dict[str, Constant]:
        return {"lowest": self.lowest, "highest": self.highest}

    def reached(self, *x: Range) -> Range:
        low, high = (min(max(end, self.lowest), self.highest) for end in (x[0].low, x[0].high))
        return Range(low, high)

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(x[0], self.lowest), self.highest)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return np.clip(x[0], self.lowest, self.highest).astype(self.format.dtype), 0

    def fuse(self, producer: Operation) -> Callable[..., np.ndarray] | None:
        """After a sum, which is limited at once."""
        within = getattr(producer, "within", None)
        return None if within is None else within(self.lowest, self.highest, self.format.dtype)

    def table(self) -> np.ndarray | None:
        return tabulate(self) if self.input.format.bits <= 8 else None

    @classmethod
    def example(cls, rng: np.random.Generator) -> Clamp:
        fmt = Format(int(rng.integers(2, 12)), bool(rng.random() < 0.7))
        lowest, highest = sorted(int(v) for v in rng.integers(fmt.low, fmt.high + 1, 2))
        shape = (int(rng.integers(1, 6)), int(rng.integers(1, 17)))
        return cls(TensorType(shape, fmt), lowest, highest, Format.covering(lowest, highest))
