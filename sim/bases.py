"""What operations of a kind have in common: they only move codes, requantise sums, or reduce an axis of terms."""

from __future__ import annotations

from functools import cached_property, reduce
from operator import or_
from typing import Any

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Parameter, bounds
from bittrue.sim.operation import Operation, TensorType, freeze
from bittrue.sim.requantize import Requantize


class Moving(Operation):
    """Gives out codes that came in, in other places or fewer: nothing is wider than they are."""

    @property
    def accumulator(self) -> Range:
        return Range(self.output.format.low, self.output.format.high)

    def reached(self, *x: Range) -> Range:
        return reduce(or_, x)


class Requantised(Operation):
    """`y = requantize(sum)`; a subclass has `requantize`, and `sums`, exact low and high of the sum per channel."""

    requantize: Requantize
    sums: Any

    @cached_property
    def ranges(self) -> tuple[Range, Range, Range]:
        return self.requantize.ranges(*self.sums, self.stem)

    @property
    def accumulator(self) -> Range:
        return Range.of(*self.sums) | self.ranges[0] | self.ranges[1]

    def reached(self, *x: Range) -> Range:  # noqa: ARG002
        return Range(self.requantize.low, self.requantize.format.high)


class Reducing(Operation):
    """Makes one code of the `terms` codes of each channel: input `[..., T, C]`, output `[..., C]`, `[C]` for two axes.

    Its rows, for executions by row, are the T * C codes of an output vector.
    """

    input: TensorType
    by_row: Any  # rows `[rows, T * C]` to `[rows, C]`, as a matrix product has it (`sim.execution`)

    def check_axes(self) -> None:
        """Refuse an input without an axis of terms."""
        if len(self.input.shape) < 2:
            raise BittrueError(f"{self.stem}: input {self.input} has one axis, expected [..., terms, channels]")

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def format(self) -> Format:
        """The format of a result: that of the requantiser where there is one, else of the codes."""
        return self.requantize.format if isinstance(self, Requantised) else self.input.format

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-2], self.input.channels), self.format)

    @property
    def terms(self) -> int:
        """T, the codes of each channel that a result is made of."""
        return self.input.shape[-2]

    @property
    def row(self) -> int:
        return self.terms * self.input.channels

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        y, saturated = self.by_row(x[0].reshape(-1, self.row))
        return y.reshape(len(x[0]), *self.output.shape), saturated


def stored(weight: Parameter, fmt: Format, stem: str) -> Parameter:
    """A matrix of weights as an operation keeps it, or an error where a weight does not fit its format."""
    weight = freeze(weight)
    low, high = bounds(weight)
    if not (fmt.holds(low) and fmt.holds(high)):
        raise BittrueError(f"{stem}: weights {low.min()}..{high.max()} do not fit {fmt}")
    return weight
