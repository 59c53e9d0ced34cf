"""The FS-neuron: a membrane that turns one value into a spike train of K steps ("few spikes")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.contract import Format, Range, check_bits
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import fixed
from bittrue.sim.kernels.spikes import fire
from bittrue.sim.operation import Constant, Operation, TensorType, freeze
from bittrue.sim.operations.encode import SPIKE


@dataclass(frozen=True, eq=False)
class FsNeuron(Operation):
    """`v = min(max(x, lowest), highest)`, then for t = 0 .. K-1: `z[t] = v > threshold[t]`, `v -= reset[t] * z[t]`.

    Input `[..., C]`, output the spike train `[..., K, C]` in one unsigned bit, time before channels. `threshold` and
    `reset` are int `[K]` in units of the input's code step, shared by all neurons; the membrane v starts anew with
    every value. What a spike of step t is worth belongs to the reader (`SpikingLinear.decode`).

    `lowest` and `highest` bound the values for which the parameters were made (by default the input format); what
    lies outside is clipped and counted as saturated. The membrane never wraps: its exact range sets its width.

    With threshold = reset = 2^(K-1), .. 2, 1 the word is `min(max(x - 1, 0), 2^K - 1)`: successive approximation.
    Source: Stoeckl and Maass, "Optimized spiking neurons can classify images with high accuracy through temporal
    coding with two spikes", 2021 (arXiv 2002.00860).
    """

    input: TensorType
    threshold: np.ndarray
    reset: np.ndarray
    lowest: int | None = None
    highest: int | None = None

    def __post_init__(self) -> None:
        fmt = self.input.format
        threshold, reset = (freeze(fixed(getattr(self, name), f"fs_neuron: {name}")) for name in ("threshold", "reset"))
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "reset", reset)
        if threshold.ndim != 1 or reset.ndim != 1 or len(threshold) != len(reset) or not len(threshold):
            raise BittrueError(
                f"fs_neuron: {threshold.size} thresholds and {reset.size} resets; expected one of each per step, "
                "and at least one step"
            )
        if len(threshold) > 32:
            raise BittrueError(f"fs_neuron: {len(threshold)} steps; at most 32 are supported")
        lowest = fmt.low if self.lowest is None else int(self.lowest)
        highest = fmt.high if self.highest is None else int(self.highest)
        if not fmt.low <= lowest <= highest <= fmt.high:
            raise BittrueError(
                f"fs_neuron: the valid range {lowest}..{highest} must be in order and lie in the input's format {fmt} "
                f"({fmt.low}..{fmt.high}); widen the format or use fewer fraction bits"
            )
        object.__setattr__(self, "lowest", lowest)
        object.__setattr__(self, "highest", highest)
        largest = np.abs(np.concatenate([threshold, reset])).max()
        if largest > 1 << 30:
            raise BittrueError(f"fs_neuron: a parameter of {largest} is beyond 2^30; use fewer fraction bits")
        check_bits(float(max(abs(self.membrane.low), abs(self.membrane.high))), "fs_neuron")

    @property
    def steps(self) -> int:
        """K, the number of time steps."""
        return len(self.threshold)

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-1], self.steps, self.input.channels), SPIKE)

    @cached_property
    def membrane(self) -> Range:
        """Range of the membrane over all steps and valid inputs; exact for inputs of up to 16 bits, else a bound."""
        if self.input.format.bits <= 16:
            v = np.arange(self.lowest, self.highest + 1, dtype=np.int64)
            seen = Range.of(v, v)
            for threshold, reset in zip(self.threshold, self.reset, strict=True):
                v = v - reset * (v > threshold)
                seen |= Range.of(v, v)
            return seen
        low, high = int(self.lowest), int(self.highest)  # type: ignore[arg-type]
        seen = Range(low, high)
        for threshold, reset in zip(self.threshold.tolist(), self.reset.tolist(), strict=True):
            ends = [low, min(high, threshold)] if low <= threshold else []
            ends += [max(low, threshold + 1) - reset, high - reset] if high > threshold else []
            low, high = min(ends), max(ends)
            seen |= Range(low, high)
        return seen

    @property
    def accumulator(self) -> Range:
        return self.membrane

    @property
    def weights(self) -> int:
        return 2 * self.steps

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.input.tokens,
            "channels": self.input.channels,
            "steps": self.steps,
            "lowest": int(self.lowest),  # type: ignore[arg-type]
            "highest": int(self.highest),  # type: ignore[arg-type]
            "membrane": self.membrane.format,
            "threshold": (Format.covering(self.threshold, signed=True), self.threshold),
            "reset": (Format.covering(self.reset, signed=True), self.reset),
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        v = np.minimum(np.maximum(x[0], self.lowest), self.highest)
        spikes = []
        for threshold, reset in zip(self.threshold, self.reset, strict=True):
            z = v > threshold
            v = v - reset * z
            spikes.append(z)
        return np.stack(spikes, axis=-2).astype(np.int64)

    def saturated(self, *x: np.ndarray) -> int:
        return int(np.count_nonzero((x[0] < self.lowest) | (x[0] > self.highest)))

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        rows = x[0].reshape(-1, self.input.channels)
        spikes, outside = fire(rows, self.threshold, self.reset, (self.lowest, self.highest), self.membrane)
        return spikes.reshape(len(x[0]), *self.output.shape), outside

    @cached_property
    def words(self) -> np.ndarray:
        """The spike word of every code, ascending: step t is bit K - 1 - t. Int64 `[levels]`, by the reference."""
        spikes = self.reference(self.input.format.codes()[:, None]).astype(np.int64)[:, :, 0]
        return spikes @ (np.int64(1) << np.arange(self.steps - 1, -1, -1))

    @classmethod
    def example(cls, rng: np.random.Generator) -> FsNeuron:
        fmt = Format(int(rng.integers(2, 15)), bool(rng.random() < 0.8))
        shape = (int(rng.integers(1, 5)), int(rng.integers(1, 13)))
        kind = TensorType(shape if rng.random() < 0.7 else shape[1:], fmt)
        steps = int(rng.integers(1, 11))
        if rng.random() < 0.3:
            powers = np.int64(1) << np.arange(steps - 1, -1, -1)
            return cls(kind, powers, powers)
        lowest, highest = sorted(int(v) for v in rng.integers(fmt.low, fmt.high + 1, 2))
        reach = fmt.high + 1
        limits = (lowest, highest) if rng.random() < 0.5 else (None, None)
        return cls(kind, rng.integers(-reach, reach, steps), rng.integers(-reach // 2, reach, steps), *limits)
