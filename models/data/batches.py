"""Samples of a network with several inputs, or the labels of several results: tensors that are indexed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Tensors whose first axes are the same samples."""

    parts: tuple[Tensor, ...]

    @classmethod
    def of(cls, arrays: Any) -> Batch:
        """Of one array or tensor, or of a tuple of them."""
        return cls(tuple(map(_tensor, arrays if isinstance(arrays, tuple) else (arrays,))))

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: Any) -> Batch:
        return Batch(tuple(part[index] for part in self.parts))

    def to(self, device: torch.device) -> Batch:
        return Batch(tuple(part.to(device) for part in self.parts))

    def __str__(self) -> str:
        """The shapes of a sample."""
        return " and ".join(str(list(part.shape[1:])) for part in self.parts)

    @property
    def alone(self) -> Any:
        """The only tensor, or a tuple of several."""
        return self.parts[0] if len(self.parts) == 1 else self.parts


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
