"""A group's images apart again: each has its codes from every slot that it filled, and the mean of them is its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittrue.sim import groups
from bittrue.sim.bases import Moving
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, fixed
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Unbundle(Moving):
    """`y_i[..., c] = floor((2 sum_t x[..., (t n + i) C + c] + r) / 2 r)`, t < r = N / n; one sample to n.

    The channels of the input are those of N slots, C each. The mean over the r slots of an image is rounded half up,
    exactly, whatever r is; it needs no wider format than the codes.
    """

    input: TensorType
    slots: int
    images: np.ndarray | Held

    regroups = groups.APART

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", groups.check(self.images, self.slots, "unbundle"))
        if self.input.channels % self.slots:
            raise BittrueError(f"unbundle: {self.input.channels} channels are not those of {self.slots} slots")

    @property
    def modes(self) -> tuple[int, ...]:
        """Every n that there can be."""
        return groups.modes(self.images, self.slots)

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-1], self.input.channels // self.slots), self.input.format)

    @property
    def sum_range(self) -> Range:
        """Of the codes of the slots of one image, whatever n is, and none."""
        most = self.slots // min(self.modes)
        return Range.of(most * self.input.format.low, most * self.input.format.high) | Range(0, 0)

    @property
    def accumulator(self) -> Range:
        """Of twice the sum, and r."""
        total, most = self.sum_range, self.slots // min(self.modes)
        return Range(2 * total.low, 2 * total.high + most)

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.input.tokens,
            "channels": self.output.channels,
            "slots": self.slots,
            "images": (Format.covering(1, self.slots), self.images),
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        n = int(fixed(self.images, "unbundle: images"))
        r, channels = self.slots // n, self.output.channels
        slots = x[0].reshape(len(x[0]), self.input.tokens, self.slots, channels)
        means = [
            (2 * sum(slots[:, :, t * n + i] for t in range(r)) + r) // (2 * r)  # floor, also below 0
            for i in range(n)
        ]
        return np.stack(means, axis=1).reshape(-1, *self.output.shape)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        n = int(fixed(self.images, "unbundle: images"))
        r, channels = self.slots // n, self.output.channels
        slots = x[0].reshape(len(x[0]), self.input.tokens, r, n, channels)
        if r == 1:
            means = slots[:, :, 0]
        else:
            sums = slots.sum(2, dtype=np.int32)
            means = np.floor_divide(2 * sums + r, 2 * r).astype(self.input.format.dtype)
        return np.ascontiguousarray(means.swapaxes(1, 2)).reshape(-1, *self.output.shape), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Unbundle:
        """With one sample in a group, so that as many come out as go in."""
        tokens, channels, slots = int(rng.integers(1, 4)), int(rng.integers(1, 9)), int(rng.integers(1, 7))
        fmt = Format(int(rng.integers(2, 12)), bool(rng.random() < 0.7))
        return cls(TensorType((tokens, slots * channels), fmt), slots, np.array(1))
