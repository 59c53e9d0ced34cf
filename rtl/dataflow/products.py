"""What a folded matrix stage multiplies and adds: exact ranges of products, adder trees and running sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Value

from bittrue.sim.contract import Format, Range


def fold_rows(weight: np.ndarray, simd: int, pe: int) -> np.ndarray:
    """A matrix `[N, K]` as rows of the weight memory, `[(N / pe) (K / simd), pe, simd]`."""
    outputs, inputs = weight.shape
    return weight.reshape(outputs // pe, pe, inputs // simd, simd).transpose(0, 2, 1, 3).reshape(-1, pe, simd)


class Products:
    """Exact ranges of the products, of every node of the adder tree and of the running sums, per output lane.

    `level[0]` are the products of a step, the last level their sum, `sums` the running sums over the steps of an
    output, `partial` those of them before the last step.

    weight  int64 `[N, K]`; or of weights that are held the lowest and the highest that each can be
    """

    def __init__(self, weight: np.ndarray | tuple[np.ndarray, np.ndarray], fmt: Format, simd: int, pe: int):
        ends = weight if isinstance(weight, tuple) else (weight,)
        self.steps = ends[0].shape[1] // simd
        corners = [fold_rows(end, simd, pe) * x for end in ends for x in (fmt.low, fmt.high)]
        self.levels: list[list[list[Range]]] = []
        self.grow(np.minimum.reduce(corners), np.maximum.reduce(corners))

    def level(self, low: np.ndarray, high: np.ndarray) -> None:
        """Add the ranges of a level, given for every row `[rows, pe, nodes]`."""
        _, pe, nodes = low.shape
        self.levels.append([[Range.of(low[:, p, k], high[:, p, k]) for k in range(nodes)] for p in range(pe)])

    def grow(self, low: np.ndarray, high: np.ndarray) -> None:
        """Add this level and all above it."""
        self.level(low, high)
        while low.shape[2] > 1:
            pairs = range(0, low.shape[2], 2)
            low, high = (np.stack([v[:, :, k : k + 2].sum(2) for k in pairs], axis=2) for v in (low, high))
            self.level(low, high)
        pe = low.shape[1]
        low, high = (v[:, :, 0].reshape(-1, self.steps, pe).cumsum(1) for v in (low, high))
        self.sums = [Range.of(low[:, :, p], high[:, :, p]) for p in range(pe)]
        none = np.zeros(1, np.int64)  # before the first step
        self.partial = [Range.of(np.append(low[:, :-1, p], none), np.append(high[:, :-1, p], none)) for p in range(pe)]

    @property
    def tree_depth(self) -> int:
        return len(self.levels) - 1


@dataclass(frozen=True)
class Partial:
    """A number that a tree has so far: `value`, and where it is one short, 1 in `carry`, which the next adder takes."""

    value: Value
    carry: Value | None = None

    def plus(self, other: Value | None = None) -> Value:
        """The sum with another number, if any, and the carry, in one adder: twice the carry below them is one in it."""
        if self.carry is None:
            return self.value if other is None else other + self.value
        if other is None:
            return self.value + self.carry
        total = Cat(self.carry, other).as_signed() + Cat(self.carry, self.value).as_signed()
        return total[1:].as_signed()
