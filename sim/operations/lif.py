"""Integrate-and-fire: a membrane for every channel that keeps a part of itself from one time step to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bittrue.sim.contract import Format, Range, check_bits, round_shift
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import LATER, fixed
from bittrue.sim.kernels.lif import integrate
from bittrue.sim.operation import Constant, Operation, TensorType, freeze
from bittrue.sim.operations.encode import SPIKE

#: Most fraction bits of `keep`: beyond them a decay is not told from another in any number of steps that fits.
MAX_SHIFT = 20


@dataclass(frozen=True, eq=False)
class Lif(Operation):
    """Leaky integrate-and-fire neurons, for t = 0 .. T-1 and every channel:

        v[t] = round_shift(keep * m[t-1], shift) + x[t] * 2^guard        m[-1] = 0
        z[t] = v[t] > threshold
        m[t] = v[t]             where z[t] = 0
               reset            where z[t] = 1
               v[t] - reset     where z[t] = 1 and `subtract`

    With `delayed` a spike subtracts its reset from what has decayed, one step later, as snnTorch's neurons do:

        v[t] = round_shift(keep * v[t-1], shift) - reset * z[t-1] + x[t] * 2^guard        v[-1] = z[-1] = 0

    Input `[T, C]`, time before channels; output the spikes z `[T, C]` in one unsigned bit. The membrane starts at 0
    with every sample. All parameters are integers, one a channel or one for all: `threshold` and `reset` in units of
    the membrane, whose least bit is worth 2^-guard of the input's; `keep` in units of 2^-shift, 0 .. 2^shift.

    keep = 2^shift (or keep 1, shift 0) is integrate-and-fire without a leak; keep = 0 is a bare threshold. Without
    a threshold (None) nothing fires and the output is the membrane v itself: a leaky integrator, for read-outs and
    for the synaptic current of current-based neurons.

    The membrane never wraps and never saturates: its range follows from the input's format by propagating intervals
    over the T steps, and sets its width. Rounding is that of `round_shift`, half toward +infinity.
    """

    input: TensorType
    threshold: np.ndarray | None
    reset: np.ndarray | None
    keep: np.ndarray
    shift: int = 0
    guard: int = 0
    subtract: bool = False
    delayed: bool = field(default=False, metadata={LATER: True})

    def __post_init__(self) -> None:
        if len(self.input.shape) != 2:
            raise BittrueError(f"lif: input {self.input} has {len(self.input.shape)} axes, expected time, channels")
        if (self.threshold is None) != (self.reset is None):
            raise BittrueError("lif: give a threshold and a reset, or neither of them for an integrator")
        if not 0 <= self.shift <= MAX_SHIFT or not 0 <= self.guard <= 32:
            raise BittrueError(
                f"lif: shift is 0 to {MAX_SHIFT} and guard 0 to 32, got shift {self.shift}, guard {self.guard}"
            )
        for name in ("threshold", "reset", "keep"):
            values = getattr(self, name)
            if values is None:
                continue
            values = freeze(fixed(values, f"lif: {name}"))
            if values.ndim > 1 or values.size not in (1, self.input.channels):
                raise BittrueError(f"lif: {name} has shape {values.shape}, expected ({self.input.channels},) or one")
            object.__setattr__(self, name, freeze(np.broadcast_to(values.reshape(-1), (self.input.channels,))))
            check_bits(float(np.abs(getattr(self, name).astype(float)).max()), f"lif {name}")
        if self.keep.min() < 0 or self.keep.max() > 1 << self.shift:
            raise BittrueError(
                f"lif: keep {self.keep.min()}..{self.keep.max()} lies outside 0..{1 << self.shift}; a membrane that "
                "grows by itself or changes its sign is not supported"
            )
        if self.delayed and not (self.fires and self.subtract):
            raise BittrueError("lif: only a reset by subtraction can be delayed; give a threshold and `subtract`")
        _ = self.membrane  # refuses, by name, what cannot be bounded within the supported width

    @property
    def fires(self) -> bool:
        """Whether the output is spikes; else it is the membrane."""
        return self.threshold is not None

    @property
    def steps(self) -> int:
        """T, the number of time steps."""
        return self.input.shape[0]

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType(self.input.shape, SPIKE if self.fires else self.membrane.format)

    @cached_property
    def ranges(self) -> tuple[Range, Range, Range, Range]:
        """Ranges over all channels, steps and inputs: of v, of m, of keep * m rounded, and of what a step leaves.

        What it leaves is what decay leaves of m, less a delayed reset.

        Every step maps an interval of m to an interval of v exactly. The two cases of a step are joined to their
        hull, so that with a threshold the range is a safe bound, and without one exact.
        """
        x_low, x_high = self.input.format.low << self.guard, self.input.format.high << self.guard
        half = (1 << self.shift) >> 1
        low = high = np.zeros(self.input.channels, np.int64)
        v, m, product, kept = Range(x_low, x_high), Range(0, 0), Range(0, half), Range(0, 0)
        for step in range(self.steps):
            check_bits(float(np.maximum(np.abs(low), np.abs(high)).max()) * float(self.keep.max()) + half, "lif")
            products = low * self.keep, high * self.keep + half
            decayed = self._left(low, high, fired=step > 0)
            check_bits(float(np.maximum(np.abs(decayed[0]), np.abs(decayed[1])).max()), "lif")
            v_low, v_high = decayed[0] + x_low, decayed[1] + x_high
            check_bits(float(np.maximum(np.abs(v_low), np.abs(v_high)).max()), "lif")
            product, kept, v = product | Range.of(*products), kept | Range.of(*decayed), v | Range.of(v_low, v_high)
            before, (low, high) = (low, high), self._after_firing(v_low, v_high)
            low, high = np.minimum(low, before[0]), np.maximum(high, before[1])
            m |= Range.of(low, high)
            if np.array_equal(low, before[0]) and np.array_equal(high, before[1]):
                break
        return v, m, product, kept

    def _left(self, low: np.ndarray, high: np.ndarray, fired: bool) -> tuple[np.ndarray, np.ndarray]:
        """The interval of what a step leaves for the next, for m in an interval; `fired`: m may have fired."""

        def decay(m: np.ndarray) -> np.ndarray:
            return (m * self.keep + ((1 << self.shift) >> 1)) >> self.shift

        if not (self.delayed and fired):
            return decay(low), decay(high)
        silent, firing = low <= self.threshold, high > self.threshold
        least = np.where(silent, decay(low), np.iinfo(np.int64).max)
        most = np.where(silent, decay(np.minimum(high, self.threshold)), np.iinfo(np.int64).min)
        least = np.where(firing, np.minimum(least, decay(np.maximum(low, self.threshold + 1)) - self.reset), least)
        most = np.where(firing, np.maximum(most, decay(high) - self.reset), most)
        return least, most

    def _after_firing(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The interval of m for v in an interval, per channel."""
        if self.threshold is None or self.delayed:
            return low, high
        silent, fired = low <= self.threshold, high > self.threshold
        after_low, after_high = self.reset, self.reset
        if self.subtract:
            after_low, after_high = np.maximum(low, self.threshold + 1) - self.reset, high - self.reset
        largest = np.iinfo(np.int64).max
        m_low = np.minimum(np.where(silent, low, largest), np.where(fired, after_low, largest))
        m_high = np.maximum(
            np.where(silent, np.minimum(high, self.threshold), -largest), np.where(fired, after_high, -largest)
        )
        return m_low, m_high

    @property
    def membrane(self) -> Range:
        """Range of the membrane before it fires."""
        return self.ranges[0]

    @property
    def accumulator(self) -> Range:
        v, m, product, _ = self.ranges
        return v | m | product

    @property
    def macs(self) -> int:
        """One product for each membrane and step, where there is a leak."""
        return self.input.size if self.shift else 0

    @property
    def weights(self) -> int:
        return sum(values.size for values in (self.threshold, self.reset, self.keep) if values is not None)

    @property
    def constants(self) -> dict[str, Constant]:
        none = np.zeros(self.input.channels, np.int64)
        threshold, reset = (none, none) if self.threshold is None else (self.threshold, self.reset)
        return {
            "tokens": self.steps,
            "channels": self.input.channels,
            "shift": self.shift,
            "guard": self.guard,
            "fires": int(self.fires),
            "subtract": int(self.subtract),
            "delayed": int(self.delayed),
            "threshold": (Format.covering(threshold, signed=True), threshold),
            "reset": (Format.covering(reset, signed=True), reset),
            "keep": (Format.covering(self.keep), self.keep),
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        m = np.zeros((len(x[0]), self.input.channels), np.int64)
        due = np.zeros_like(m)  # what delayed resets take from the next step
        results = []
        for t in range(self.steps):
            v = round_shift(self.keep * m, self.shift) - due + (x[0][:, t] << self.guard)
            if self.threshold is None:
                m = v
                results.append(v)
                continue
            z = v > self.threshold
            if self.delayed:
                m, due = v, z * self.reset
            else:
                m = np.where(z, v - self.reset if self.subtract else self.reset, v)
            results.append(z.astype(np.int64))
        return np.stack(results, axis=1)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        out = np.empty(x[0].shape, self.output.format.dtype)
        how = (self.shift, self.guard, self.subtract, self.delayed)
        integrate(x[0], self.threshold, self.reset, self.keep, *how, out)
        return out, 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Lif:
        """Leaky, leakless, bare thresholds and integrators, with thresholds that a few steps can reach."""
        steps, channels = int(rng.integers(1, 10)), int(rng.integers(1, 17))
        fmt = Format(int(rng.integers(1, 13)), bool(rng.random() < 0.7))
        shift, guard = int(rng.integers(0, 11)), int(rng.integers(0, 5))
        keep = rng.integers((1 << shift) // 2, (1 << shift) + 1, channels)
        if rng.random() < 0.2:
            keep = np.zeros(1, np.int64)
        elif rng.random() < 0.3:
            keep = keep[:1]
        kind = TensorType((steps, channels), fmt)
        if rng.random() < 0.25:
            return cls(kind, None, None, keep, shift, guard)
        unit = max(1, fmt.high) << guard
        count = channels if rng.random() < 0.7 else 1
        threshold = rng.integers(-unit // 4, unit + unit // 2 + 1, count)
        subtract = bool(rng.random() < 0.5)
        reset = rng.integers(0, unit + 1, count) if subtract else rng.integers(-unit // 2, unit // 2 + 1, count)
        return cls(kind, threshold, reset, keep, shift, guard, subtract, subtract and bool(rng.random() < 0.5))
