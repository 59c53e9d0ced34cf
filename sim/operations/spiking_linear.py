"""Fully connected layer on spike trains: weights are added where a spike arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.bases import Requantised, stored
from bittrue.sim.contract import INT8, Format, Range, product_sum_range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Parameter, bounds, fixed
from bittrue.sim.kernels.matrix import MatrixKernel
from bittrue.sim.kernels.spikes import decode_steps, decode_words, take
from bittrue.sim.operation import Constant, Operation, TensorType, freeze
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class SpikingLinear(Requantised):
    """`S[t, n] = sum_i weight[n, i] * z[t, i]`,  `acc[n] = sum_t decode[t] * S[t, n]`,  `y = requantize(acc)`.

    Input: spike trains `[..., K, C]` of one unsigned bit; weight int `[N, C]` (held or not) in
    `weight_format`; decode int `[K]`,
    what a spike of each step is worth; output `[..., N]` in the requantiser's format. The accumulator never wraps.

    Since the sums are integers, `acc[n] = sum_i weight[n, i] * d[i]` with the decoded values
    `d[i] = sum_t decode[t] * z[t, i]`: the fast execution is one matrix product, equal in every bit to the step by
    step one. When decode is a halving sequence (`halving`) hardware needs no multiplier: `acc = 2 * acc + S[t]`.
    """

    input: TensorType
    weight: Parameter
    decode: np.ndarray
    requantize: Requantize
    weight_format: Format = INT8

    def __post_init__(self) -> None:
        weight = stored(self.weight, self.weight_format, self.stem)
        decode = freeze(fixed(self.decode, "spiking_linear: decode"))
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "decode", decode)
        if self.input.format != SPIKE or len(self.input.shape) < 2:
            raise BittrueError(
                f"spiking_linear: input {self.input} is no spike train; expected u1[..., steps, channels]"
            )
        if weight.ndim != 2 or weight.shape[1] != self.input.channels:
            raise BittrueError(
                f"spiking_linear: weight {weight.shape} does not fit input {self.input}; expected [N, C]"
            )
        if decode.shape != (self.steps,):
            raise BittrueError(
                f"spiking_linear: decode {decode.shape} does not fit the {self.steps} steps of the input"
            )
        if self.requantize.channels != len(weight):
            raise BittrueError(
                f"spiking_linear: {len(weight)} outputs, but the requantiser has {self.requantize.channels}"
            )
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @property
    def steps(self) -> int:
        """K, the number of time steps."""
        return self.input.shape[-2]

    @property
    def tokens(self) -> int:
        """Spike trains per sample."""
        return self.input.tokens // self.steps

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-2], len(self.weight)), self.requantize.format)

    @property
    def values(self) -> Range:
        """Range of a decoded value."""
        return Range(int(np.minimum(self.decode, 0).sum()), int(np.maximum(self.decode, 0).sum()))

    @property
    def halving(self) -> bool:
        """Whether every spike is worth half of its predecessor (up to sign) and the last one 1 or -1."""
        return bool(np.array_equal(np.abs(self.decode), np.int64(1) << np.arange(self.steps - 1, -1, -1)))

    @cached_property
    def step_sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the sum of one step, per output, int64 `[N]`."""
        return product_sum_range(bounds(self.weight), SPIKE, 1, "spiking_linear")

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of `acc` over every spike train, per output, int64 `[N]`."""
        return product_sum_range(bounds(self.weight), self.values, 1, "spiking_linear")

    @property
    def macs(self) -> int:
        """Of the matrix product that it is worth; how many weights are really added depends on the spikes."""
        return self.tokens * self.weight.size

    @property
    def weights(self) -> int:
        return self.weight.size + len(self.weight) + self.steps

    @property
    def constants(self) -> dict[str, Constant]:
        return {
            "tokens": self.tokens,
            "steps": self.steps,
            "inputs": self.input.channels,
            "outputs": len(self.weight),
            "halving": int(self.halving),
            "step_sum": Range.of(*self.step_sums).format,
            "decode": (Format.covering(self.decode, signed=True), self.decode),
            "weight": (self.weight_format, self.weight),
            **self.requantize.constants,
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        sums = x[0] @ self.weight.T  # [..., K, N]
        return self.requantize.wide((self.decode[:, None] * sums).sum(axis=-2))

    @cached_property
    def product(self) -> MatrixKernel:
        """The matrix product on decoded values."""
        return MatrixKernel(self.weight, self.value_format, self.sums, self.requantize)

    @property
    def value_format(self) -> Format:
        return Format.covering(self.values.low, self.values.high)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        spikes = x[0].reshape(-1, self.steps, self.input.channels)
        y, saturated = self.product(decode_steps(spikes, self.decode, self.value_format.dtype))
        return y.reshape(len(x[0]), *self.output.shape), saturated

    def fuse(self, producer: Operation) -> Callable[..., np.ndarray] | None:
        """After an operation that makes spike words from values of up to 16 bits: no spike is ever stored."""
        words = getattr(producer, "words", None) if producer.inputs[0].format.bits <= 16 else None
        if words is None:
            return None
        table = decode_words(words, self.decode).astype(self.value_format.dtype)
        kind = producer.inputs[0]

        def run(x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
            rows = take(x.reshape(-1, kind.channels), kind.format.low, table)
            y, _ = self.product(rows, count=False, out=None if out is None else out.reshape(-1, self.output.channels))
            return y.reshape(len(x), *self.output.shape)

        return run

    @classmethod
    def example(cls, rng: np.random.Generator) -> SpikingLinear:
        tokens, steps, c, n = (int(rng.integers(1, high)) for high in (4, 9, 25, 13))
        weight_format = Format(int(rng.integers(2, 9)))
        weight = rng.integers(weight_format.low, weight_format.high + 1, (n, c))
        if rng.random() < 0.5:
            decode = np.int64(1) << np.arange(steps - 1, -1, -1)
            decode[0] *= rng.choice([-1, 1])
        else:
            decode = rng.integers(-300, 1000, steps)
        magnitude = int(np.sqrt(c) * np.abs(decode).sum() * weight_format.high / 3) + 1
        shape = (tokens, steps, c) if rng.random() < 0.7 else (steps, c)
        return cls(TensorType(shape, SPIKE), weight, decode, Requantize.example(rng, n, magnitude), weight_format)
