"""From accumulator to output code, per output channel: the last step of linear, affine and mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bittrue.sim.contract import INT8, Format, Range, check_bits, round_shift
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Parameter, bounds, constant
from bittrue.sim.operation import Constant, freeze


@dataclass(frozen=True, eq=False)
class Requantize:
    """`y = saturate(max(round_shift((acc + bias_acc) * multiplier, shift) + bias, floor))`.

    All of `shift`, `bias`, `bias_acc`, `multiplier` are int64 `[channels]`, where a scalar is repeated, or held inputs.
    `shift` 0..47; `multiplier` >= 1, where 1 (a pure shift) is the hardware default. `floor` is a lower
    clamp that belongs to the function (0 makes it a ReLU), so values below it do not count as saturated;
    None means the format's own low. `bias` is added after the shift, as published INT8 models do.
    """

    channels: int
    shift: Parameter
    bias: Parameter = field(default_factory=lambda: np.zeros(1, np.int64))
    bias_acc: Parameter = field(default_factory=lambda: np.zeros(1, np.int64))
    multiplier: Parameter = field(default_factory=lambda: np.ones(1, np.int64))
    format: Format = INT8
    floor: int | None = None

    def __post_init__(self) -> None:
        for name in ("shift", "bias", "bias_acc", "multiplier"):
            values = getattr(self, name)
            if isinstance(values, Held):
                if values.shape != (self.channels,):
                    raise BittrueError(
                        f"requantise: held input {values.name!r} has shape {values.shape}, expected ({self.channels},)"
                    )
                continue
            values = np.asarray(values)
            if values.size not in (1, self.channels) or values.ndim > 1:
                raise BittrueError(f"requantise: {name} has shape {values.shape}, expected ({self.channels},)")
            object.__setattr__(self, name, freeze(np.broadcast_to(values.reshape(-1), (self.channels,))))
        low, high = bounds(self.shift)
        if low.min() < 0 or high.max() > 47:
            raise BittrueError(f"requantise: shifts are 0 to 47, got {low.min()}..{high.max()}")
        if (least := bounds(self.multiplier)[0].min()) < 1:
            raise BittrueError(f"requantise: multipliers are at least 1, got {least}")
        if self.floor is not None and not self.format.low <= self.floor <= self.format.high:
            raise BittrueError(f"requantise: floor {self.floor} lies outside {self.format}")

    @property
    def low(self) -> int:
        """The lowest code that comes out."""
        return self.format.low if self.floor is None else self.floor

    @property
    def pure_shift(self) -> bool:
        return constant(self.multiplier, 1)

    def wide(self, acc: np.ndarray) -> np.ndarray:
        """The equation up to the final saturation; `acc` is int64 with channels innermost."""
        y = round_shift((acc + self.bias_acc) * self.multiplier, self.shift) + self.bias
        return y if self.floor is None else np.maximum(y, self.floor)

    def ranges(self, low: np.ndarray, high: np.ndarray, name: str) -> tuple[Range, Range, Range]:
        """Exact ranges of the scaled sum, of the sum with its rounding constant, and after shift and bias.

        `low` and `high` are the accumulator's, per channel. Refuses by name what exceeds the supported width.
        """
        before, factors, shifts, after = (bounds(v) for v in (self.bias_acc, self.multiplier, self.shift, self.bias))
        magnitude = np.maximum(np.abs(low.astype(float)), np.abs(high.astype(float))) + np.abs(before).max(0)
        check_bits(float(np.max(magnitude * factors[1] + 2.0 ** shifts[1])), name)
        low, high = low + before[0], high + before[1]
        low, high = np.minimum(low * factors[0], low * factors[1]), np.maximum(high * factors[0], high * factors[1])
        half = [(np.int64(1) << shift) >> np.int64(1) for shift in shifts]
        # for one sum the result rises or falls with the shift, so that its ends are those of the bounds
        out_low = np.minimum(*(round_shift(low, shift) for shift in shifts)) + after[0]
        out_high = np.maximum(*(round_shift(high, shift) for shift in shifts)) + after[1]
        check_bits(float(max(np.abs(out_low).max(), np.abs(out_high).max())), name)
        return Range.of(low, high), Range.of(low + half[0], high + half[1]), Range.of(out_low, out_high)

    @property
    def constants(self) -> dict[str, Constant]:
        named = {"shift": self.shift, "bias": self.bias, "bias_acc": self.bias_acc, "multiplier": self.multiplier}
        arrays: dict[str, Constant] = {name: (Format.covering(*bounds(v)), v) for name, v in named.items()}
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
