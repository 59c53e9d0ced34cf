"""A learnable 1-D function of each channel: a table of knots with linear interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.contract import INT8, Format, Range, round_shift
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import fixed
from bittrue.sim.kernels.matrix import table_rows
from bittrue.sim.operation import Constant, Operation, TensorType, freeze, tabulate


@dataclass(frozen=True, eq=False)
class Lerp(Operation):
    """`m = (x - low) >> f`, `l = (x - low) mod 2^f`, `y = L[m] + round_shift((L[m+1] - L[m]) * l, f)`.

    Input `[..., C]` with B bits; knots int `[C, 2^M + 1]` (or `[1, 2^M + 1]`, shared by every channel) in
    the output format; f = B - M fraction bits. The result lies between two knots, so it never saturates.
    Source: LERP-PSA (Singh et al., TRETS 18(2), 2025); the edge reads a real last knot here, where the
    published sources clamp or read the next channel's row.
    """

    input: TensorType
    knots: np.ndarray
    format: Format = INT8

    def __post_init__(self) -> None:
        knots = fixed(self.knots, "lerp: knots")
        if knots.ndim != 2 or knots.shape[0] not in (1, self.input.channels):
            raise BittrueError(f"lerp: knots {knots.shape} do not fit input {self.input}; expected [C, 2^M + 1]")
        segments = knots.shape[1] - 1
        if segments < 1 or segments & (segments - 1) or segments > self.input.format.levels:
            raise BittrueError(
                f"lerp: {knots.shape[1]} knots; expected 2^M + 1 with M from 0 to {self.input.format.bits} "
                "(a published table of 2^M knots is read with Lerp.hold)"
            )
        if self.input.format.bits > 16:
            raise BittrueError(f"lerp: input {self.input} is wider than 16 bits; requantise it first")
        object.__setattr__(self, "knots", freeze(knots))
        if not self.format.holds(self.knots):
            raise BittrueError(f"lerp: knots {self.knots.min()}..{self.knots.max()} do not fit {self.format}")

    @classmethod
    def hold(cls, input: TensorType, knots: np.ndarray, format: Format = INT8) -> Lerp:
        """From a published table of 2^M knots: the last knot is held beyond the end."""
        knots = np.asarray(knots)
        return cls(input, np.concatenate([knots, knots[:, -1:]], axis=1), format)

    @property
    def segments(self) -> int:
        return self.knots.shape[1] - 1

    @property
    def fraction_bits(self) -> int:
        return self.input.format.bits - (self.segments.bit_length() - 1)

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType(self.input.shape, self.format)

    @property
    def accumulator(self) -> Range:
        step = np.diff(self.knots, axis=1)
        last = (1 << self.fraction_bits) - 1
        half = (1 << self.fraction_bits) >> 1
        return Range(int(min(0, step.min() * last)), int(max(0, step.max() * last)) + half)

    @property
    def weights(self) -> int:
        return self.knots.size

    @property
    def table_bits(self) -> int:
        return self.knots.size * self.format.bits

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.input.tokens,
            "channels": self.input.channels,
            "segments": self.segments,
            "fraction_bits": self.fraction_bits,
            "shared": int(len(self.knots) == 1),
            "knots": (self.format, self.knots),
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        offset = x[0] - self.input.format.low
        m = offset >> self.fraction_bits
        rest = offset & ((1 << self.fraction_bits) - 1)
        channel = np.arange(self.input.channels) if len(self.knots) > 1 else 0
        left, right = self.knots[channel, m], self.knots[channel, m + 1]
        return left + round_shift((right - left) * rest, self.fraction_bits)

    def table(self) -> np.ndarray | None:
        return self.expanded if self.input.format.bits <= 8 else None

    @cached_property
    def expanded(self) -> np.ndarray:
        return tabulate(self)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        rows = x[0].reshape(-1, self.input.channels)
        return table_rows(rows, self.expanded, self.input.format).reshape(x[0].shape), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Lerp:
        tokens, channels = (int(rng.integers(1, high)) for high in (6, 17))
        fmt = Format(8) if rng.random() < 0.6 else Format(int(rng.integers(2, 11)), bool(rng.random() < 0.5))
        out = Format(8) if rng.random() < 0.6 else Format(int(rng.integers(2, 12)), bool(rng.random() < 0.5))
        segments = 1 << int(rng.integers(0, min(fmt.bits, 7) + 1))
        rows = channels if rng.random() < 0.8 else 1
        return cls(TensorType((tokens, channels), fmt), rng.integers(out.low, out.high + 1, (rows, segments + 1)), out)
