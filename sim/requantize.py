"""From accumulator to output code, per output channel: the last step of linear, affine and mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bittrue.sim.contract import INT8, Format, Range, check_bits, round_shift
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Constant, freeze


@dataclass(frozen=True, eq=False)
class Requantize:
    """`y = saturate(max(round_shift((acc + bias_acc) * multiplier, shift) + bias, floor))`.

    All of `shift`, `bias`, `bias_acc`, `multiplier` are int64 `[channels]`; a scalar is repeated.
    `shift` 0..47; `multiplier` >= 1, where 1 (a pure shift) is the hardware default. `floor` is a lower
    clamp that belongs to the function (0 makes it a ReLU), so values below it do not count as saturated;
    None means the format's own low. `bias` is added after the shift, as published INT8 models do.
    """

    channels: int
    shift: np.ndarray
    bias: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    bias_acc: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    multiplier: np.ndarray = field(default_factory=lambda: np.ones(1, np.int64))
    format: Format = INT8
    floor: int | None = None

    def __post_init__(self) -> None:
        for name in ("shift", "bias", "bias_acc", "multiplier"):
            values = np.asarray(getattr(self, name))
            if values.size not in (1, self.channels) or values.ndim > 1:
                raise BittrueError(f"requantise: {name} has shape {values.shape}, expected ({self.channels},)")
            object.__setattr__(self, name, freeze(np.broadcast_to(values.reshape(-1), (self.channels,))))
        if self.shift.min() < 0 or self.shift.max() > 47:
            raise BittrueError(f"requantise: shifts are 0 to 47, got {self.shift.min()}..{self.shift.max()}")
        if self.multiplier.min() < 1:
            raise BittrueError(f"requantise: multipliers are at least 1, got {self.multiplier.min()}")
        if self.floor is not None and not self.format.low <= self.floor <= self.format.high:
            raise BittrueError(f"requantise: floor {self.floor} lies outside {self.format}")

    @property
    def low(self) -> int:
        """The lowest code that comes out."""
        return self.format.low if self.floor is None else self.floor

    @property
    def pure_shift(self) -> bool:
        return bool((self.multiplier == 1).all())

    def wide(self, acc: np.ndarray) -> np.ndarray:
        """The equation up to the final saturation; `acc` is int64 with channels innermost."""
        y = round_shift((acc + self.bias_acc) * self.multiplier, self.shift) + self.bias
        return y if self.floor is None else np.maximum(y, self.floor)

    def ranges(self, low: np.ndarray, high: np.ndarray, name: str) -> tuple[Range, Range, Range]:
        """Exact ranges of the scaled sum, of the sum with its rounding constant, and after shift and bias.

        `low` and `high` are the accumulator's, per channel. Refuses by name what exceeds the supported width.
        """
        magnitude = np.maximum(np.abs(low.astype(float)), np.abs(high.astype(float))) + np.abs(self.bias_acc)
        check_bits(float(np.max(magnitude * self.multiplier + 2.0**self.shift)), name)
        low, high = ((v + self.bias_acc) * self.multiplier for v in (low, high))
        half = (np.int64(1) << self.shift) >> np.int64(1)
        out_low, out_high = (((v + half) >> self.shift) + self.bias for v in (low, high))
        check_bits(float(max(np.abs(out_low).max(), np.abs(out_high).max())), name)
        return Range.of(low, high), Range.of(low + half, high + half), Range.of(out_low, out_high)

    @property
    def constants(self) -> dict[str, Constant]:
        named = {"shift": self.shift, "bias": self.bias, "bias_acc": self.bias_acc, "multiplier": self.multiplier}
        arrays: dict[str, Constant] = {name: (Format.covering(values), values) for name, values in named.items()}
        return arrays | {"floor": self.low}

    @classmethod
    def example(cls, rng: np.random.Generator, channels: int, magnitude: int) -> Requantize:
        """Random and mostly alive for accumulators of about `magnitude`; sometimes with every feature on."""
        fmt = Format(int(rng.integers(4, 11)), bool(rng.random() < 0.8))
        room = max(0, int(magnitude).bit_length() - fmt.bits)
        shift = np.clip(rng.integers(room - 2, room + 3, channels), 0, 40)
        multiplier, bias_acc = np.ones(1, np.int64), np.zeros(1, np.int64)
        if rng.random() < 0.3:
            multiplier = rng.integers(1, 200, channels)
            shift = shift + 7
        if rng.random() < 0.5:
            bias_acc = rng.integers(-magnitude // 2 - 1, magnitude // 2 + 1, channels)
        floor = 0 if rng.random() < 0.3 else None
        bias = rng.integers(fmt.low // 2, fmt.high // 2 + 1, channels)
        return cls(channels, shift, bias, bias_acc, multiplier, fmt, floor)
