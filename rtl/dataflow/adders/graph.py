"""A graph of adders that multiplies a vector with a constant matrix: its nodes, what they are worth, their ranges.

    value = sign_a a + sign_b (b << shift),   a and b inputs, constants or nodes before it

Every node is a sum of two, so the graph is nothing but adders and wires. What a node is worth is an integer of every
input and a constant (`coefficients`), and from those its exact range follows: inputs are independent of each other, so
each is at the end of its format that suits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.contract import Format, Range, product_sum_range


@dataclass(frozen=True)
class Adder:
    """`(-1)^minus_a a + (-1)^minus_b (b << shift)`; not both are subtracted."""

    a: int
    b: int
    shift: int
    minus_a: bool = False
    minus_b: bool = False


@dataclass(frozen=True)
class Output:
    """`node << shift`, or 0 where there is no node."""

    node: int | None
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Graph:
    """Adders in the order in which they can be worked out.

    inputs     how many codes there are; they are the values 0, 1, ...
    constants  the values that follow
    adders     and the values that follow those
    outputs    which value each result is
    """

    inputs: int
    constants: tuple[int, ...]
    adders: tuple[Adder, ...]
    outputs: tuple[Output, ...]

    @property
    def first(self) -> int:
        """The value of the first adder."""
        return self.inputs + len(self.constants)

    @cached_property
    def levels(self) -> list[int]:
        """By value: adders one after the other on the longest way to it."""
        found = [0] * self.first
        for adder in self.adders:
            found.append(1 + max(found[adder.a], found[adder.b]))
        return found

    @property
    def depth(self) -> int:
        """Adders on the longest way to a result."""
        return max((self.levels[o.node] for o in self.outputs if o.node is not None), default=0)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """What each value is worth: int64 `[values, inputs + 1]`, of every input and, last, a constant."""
        worth = np.zeros((self.first + len(self.adders), self.inputs + 1), np.int64)
        worth[: self.inputs, : self.inputs] = np.eye(self.inputs, dtype=np.int64)
        worth[self.inputs : self.first, self.inputs] = self.constants
        for k, adder in enumerate(self.adders, self.first):
            a, b = worth[adder.a], worth[adder.b] << adder.shift
            worth[k] = (-a if adder.minus_a else a) + (-b if adder.minus_b else b)
        return worth

    @property
    def matrix(self) -> np.ndarray:
        """What the results are worth: int64 `[outputs, inputs + 1]`, the constant last."""
        none = np.zeros(self.inputs + 1, np.int64)
        return np.array([none if o.node is None else self.coefficients[o.node] << o.shift for o in self.outputs])

    def ranges(self, fmt: Format) -> list[Range]:
        """The exact range of every value over all codes of the format."""
        worth = self.coefficients
        low, high = product_sum_range(worth[:, :-1], fmt, 1, "adders")
        return [Range(int(a), int(b)) for a, b in zip(low + worth[:, -1], high + worth[:, -1], strict=True)]

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """The results for codes `[n, inputs]`, int64 `[n, outputs]`: adder by adder, as hardware does it."""
        values = [*x.astype(np.int64).T, *(np.full(len(x), c, np.int64) for c in self.constants)]
        for adder in self.adders:
            a, b = values[adder.a], values[adder.b] << adder.shift
            values.append((-a if adder.minus_a else a) + (-b if adder.minus_b else b))
        none = np.zeros(len(x), np.int64)
        return np.stack([none if o.node is None else values[o.node] << o.shift for o in self.outputs], 1)


def signed_digits(value: int) -> list[tuple[int, int]]:
    """The canonical signed digits of an integer, as (shift, 1 or -1): no two of them are neighbours.

    >>> signed_digits(7), signed_digits(-6)
    ([(0, -1), (3, 1)], [(1, 1), (3, -1)])
    """
    digits, shift = [], 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)
            digits.append((shift, digit))
            value -= digit
        value, shift = value >> 1, shift + 1
    return digits
