"""Integer layers that look rows up by an index: `models.layers.tensors` with `sim.operations.embedding`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bittrue.models.layers.integer import CodeStep
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.models.layers.tensors import TensorInput, TensorLayer
from bittrue.sim.contract import Format
from bittrue.sim.operations.embedding import Embedding


class IndexInput(TensorInput):
    """Indices 0 .. 2^bits - 1 `[B, *shape]`, unsigned; a step is one."""

    def __init__(self, shape: tuple[int, ...], bits: int, label: str | None = None) -> None:
        super().__init__(shape, CodeStep(1.0, fixed=True), bits)
        self.low, self.high, self.label = 0, (1 << bits) - 1, label


class TensorEmbedding(TensorLayer):
    """`[...]` to `[..., D]`: the row of `entries` `[R, D]`, whole numbers in floats, of each index, those beyond the
    last one the last. It has no gradient.

    signed   whether the codes are; unsigned ones are up to 2^bits - 1
    """

    def __init__(self, entries: Tensor, target: nn.Module, bits: int, label: str, *, signed: bool = True) -> None:
        super().__init__(target, bits, label)
        if not signed:
            self.low, self.high = 0, (1 << bits) - 1
        self.register_buffer("entries", entries.detach().to(torch.float32).clamp(self.low, self.high).round())

    @property
    def format(self) -> Format:
        return Format(self.bits, signed=self.low < 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.entries[x.detach().long().clamp(max=len(self.entries) - 1)]

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        operation = Embedding(lowering.type(source), whole(self.entries), self.format)
        return lowering.add(name, operation, source, scale=self.scale)
