"""The same codes under other axes: a name for what needs no hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bittrue.sim.bases import Moving
from bittrue.sim.contract import Format, axes
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Reshape(Moving):
    """`y.flat[k] = x.flat[k]`, the last axis running fastest; output of `shape`, same format.

    In RTL it is the stream itself, in HLS a process that passes codes on.
    """

    renames: ClassVar[bool] = True

    input: TensorType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", axes(self.shape, "reshape"))
        if TensorType(self.shape, self.input.format).size != self.input.size:
            raise BittrueError(
                f"reshape: {self.input} has {self.input.size} codes, the shape {self.shape} has "
                f"{int(np.prod(self.shape))}; give a shape of as many"
            )

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType(self.shape, self.input.format)

    @property
    def constants(self) -> dict[str, Constant]:
        return {}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return x[0].reshape(len(x[0]), *self.shape)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return np.ascontiguousarray(x[0]).reshape(len(x[0]), *self.shape), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Reshape:
        factors = [int(v) for v in rng.integers(1, 5, int(rng.integers(1, 5)))]
        fmt = Format(int(rng.integers(1, 12)), bool(rng.random() < 0.7))
        cut = int(rng.integers(len(factors)))
        shape = (int(np.prod(factors[:cut])), *factors[cut:]) if cut else tuple(factors)
        return cls(TensorType(tuple(int(v) for v in rng.permutation(factors)), fmt), shape)
