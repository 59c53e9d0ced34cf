"""Digital accumulation over the tiles of an array: what the controller does with the ADC codes of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.bases import Requantised
from bittrue.sim.contract import Format, check_bits
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.matrix import MeanKernel
from bittrue.sim.operation import Constant, Operation, TensorType
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class TileSum(Requantised):
    """`acc[n] = sum_k code[k, n] << shift`, `y = requantize(acc)`; input `[..., tiles, N]`, output `[..., N]`.

    `shift` is the step of the converter, so that `acc` counts light again; the pedestal, the shift of the operating
    point and the layer's bias are constants of each output, in the requantiser's `bias_acc`.
    """

    input: TensorType
    shift: int
    requantize: Requantize

    def __post_init__(self) -> None:
        if len(self.input.shape) < 2:
            raise BittrueError(f"tile_sum: input {self.input} has one axis, expected tiles, outputs")
        if not 0 <= self.shift <= 40:
            raise BittrueError(f"tile_sum: shift {self.shift} is not within 0 to 40")
        if self.requantize.channels != self.input.channels:
            raise BittrueError(f"tile_sum: {self.input.channels} outputs, requantiser has {self.requantize.channels}")
        largest = max(-self.input.format.low, self.input.format.high)
        check_bits(2.0**self.shift * self.tiles * largest, "tile_sum")  # in floats, which do not wrap
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @property
    def tiles(self) -> int:
        return self.input.shape[-2]

    @property
    def tokens(self) -> int:
        return self.input.tokens // self.tiles

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-2], self.input.channels), self.requantize.format)

    @property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the sum, per output, int64 `[N]`."""
        scale = np.full(self.input.channels, self.tiles << self.shift, np.int64)
        return scale * self.input.format.low, scale * self.input.format.high

    @property
    def weights(self) -> int:
        return self.input.channels

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.tokens,
            "tiles": self.tiles,
            "channels": self.input.channels,
            "step": self.shift,
            **self.requantize.constants,
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return self.requantize.wide((x[0] << self.shift).sum(axis=-2))

    @cached_property
    def pool(self) -> MeanKernel:
        return MeanKernel(self.requantize, self.accumulator, self.ranges[2])

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        trains = x[0].reshape(-1, self.tiles, self.input.channels)
        y, saturated = self.pool(trains.astype(self.pool.epilogue.vectors[0].dtype) << self.shift)
        return y.reshape(len(x[0]), *self.output.shape), saturated

    def fuse(self, producer: Operation) -> Callable[..., np.ndarray] | None:
        """After an array without noise: no ADC code is ever stored."""
        tiles = producer.fast if isinstance(producer, PhotonicMac) else None
        if tiles is None:
            return None

        def run(x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
            y = np.empty((len(x), *self.output.shape), self.output.format.dtype) if out is None else out
            rows = x.reshape(-1, producer.input.channels)
            tiles.sums(rows, self.shift, self.pool.epilogue, y.reshape(-1, self.output.channels))
            return y

        return run

    @classmethod
    def example(cls, rng: np.random.Generator) -> TileSum:
        tokens, tiles, outputs = (int(rng.integers(1, high)) for high in (4, 7, 13))
        fmt = Format(int(rng.integers(1, 11)), signed=bool(rng.random() < 0.3))
        shift = int(rng.integers(0, 6))
        magnitude = (int(np.sqrt(tiles) * fmt.high) << shift) + 1
        shape = (tokens, tiles, outputs) if rng.random() < 0.7 else (tiles, outputs)
        return cls(TensorType(shape, fmt), shift, Requantize.example(rng, outputs, magnitude))
