"""What a layer writes itself into when it becomes operations of `sim`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from bittrue.sim.builder import Builder
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation, TensorType


@dataclass
class Lowering:
    """A program in the making, with what people and plots want to know about it."""

    build: Builder
    scales: dict[str, float]
    functions: dict[str, dict[str, float | list[float]]] = field(default_factory=dict)

    def add(self, name: str, operation: Operation, *operands: str, scale: float) -> str:
        self.scales[name] = scale
        return self.build.add(name, operation, *operands)

    def type(self, name: str) -> TensorType:
        return self.build.types[name]


def whole(x: Tensor) -> np.ndarray:
    """Whole numbers held in floats as int64."""
    x = x.detach().cpu().numpy()
    if not np.isfinite(x).all():
        raise BittrueError("a parameter is not finite; train it again, with a smaller learning rate")
    if np.abs(x).max(initial=0) >= 2.0**62:
        raise BittrueError(
            f"a parameter is {np.abs(x).max():.3g} in whole numbers, beyond 64 bits; its network has weights or biases "
            "that are far too large, so train it again, with a smaller learning rate"
        )
    codes = x.astype(np.int64)
    if not np.array_equal(codes, x):
        raise BittrueError("a value is not a whole number after rounding")
    return codes
