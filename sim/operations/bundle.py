"""Several images as one: each goes through the matrix of its slot, and all are added, before one requantisation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim import groups
from bittrue.sim.bases import Requantised, stored
from bittrue.sim.contract import INT8, Format, product_sum_range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, fixed
from bittrue.sim.kernels.matrix import MatrixKernel
from bittrue.sim.operation import Constant, TensorType
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class Bundle(Requantised):
    """`z[..., j] = requantize(sum_s sum_i weight[s, j, i] x_{s mod n}[..., i])`, over N slots; n samples to one.

    weight   int64 `[N, outputs, inputs]`, a matrix a slot: of a circular convolution with a key it is circulant
    images   n, which divides N: the samples of a group. Sample i fills the slots i, i + n, ...; as the sum is linear it
             is multiplied once, by the sum of their matrices, which is held exactly

    All slots have one scale, so that sums are added as they are. Accumulators hold every n that there can be.
    Source: superposition by binding, Menet et al., MIMONets, NeurIPS 2023.
    """

    input: TensorType
    weight: np.ndarray
    requantize: Requantize
    images: np.ndarray | Held
    weight_format: Format = INT8

    regroups = groups.TOGETHER

    def __post_init__(self) -> None:
        weight = stored(fixed(self.weight, "bundle: weight"), self.weight_format, "bundle")
        object.__setattr__(self, "weight", weight)
        if weight.ndim != 3 or weight.shape[2] != self.input.channels:
            raise BittrueError(
                f"bundle: weights have shape {weight.shape}, expected (slots, outputs, {self.input.channels})"
            )
        object.__setattr__(self, "images", groups.check(self.images, self.slots, "bundle"))
        for name in ("shift", "bias", "bias_acc", "multiplier"):
            fixed(getattr(self.requantize, name), f"bundle: {name}")
        if self.requantize.channels != weight.shape[1]:
            raise BittrueError(
                f"bundle: {weight.shape[1]} outputs, but the requantiser has {self.requantize.channels} channels"
            )
        _ = self.ranges  # refuses, by name, what cannot be bounded within the supported width

    @property
    def slots(self) -> int:
        """N."""
        return len(self.weight)

    @property
    def modes(self) -> tuple[int, ...]:
        """Every n that there can be."""
        return groups.modes(self.images, self.slots)

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-1], self.weight.shape[1]), self.requantize.format)

    def summed(self, n: int) -> np.ndarray:
        """The matrices of n samples, `[n, outputs, inputs]`: of each the sum of those of its slots."""
        return self.weight.reshape(self.slots // n, n, *self.weight.shape[1:]).sum(0)

    @cached_property
    def summed_format(self) -> Format:
        """The narrowest signed format of all sums that there can be."""
        sums = [self.summed(n) for n in self.modes]
        return Format.covering(min(int(v.min()) for v in sums), max(int(v.max()) for v in sums), signed=True)

    @cached_property
    def circulant(self) -> bool:
        """Whether every matrix is that of a circular convolution: `weight[s, j, i]` a function of (j - i) mod D."""
        _, outputs, inputs = self.weight.shape
        if outputs != inputs:
            return False
        turned = (np.arange(inputs)[:, None] - np.arange(inputs)[None, :]) % inputs
        return bool(np.array_equal(self.weight, self.keys[:, turned]))

    @property
    def keys(self) -> np.ndarray:
        """The first column of every matrix, `[N, outputs]`: k, where `z = sum_s k_s (*) x_s`."""
        return self.weight[:, :, 0]

    def sums_of(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the bare sum with n samples, per output, int64 `[outputs]`."""
        rows = self.summed(n).transpose(1, 0, 2).reshape(self.weight.shape[1], -1)
        return product_sum_range((rows, rows), self.input.format, 1, "bundle")

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of the bare sum, per output, whatever n is."""
        ends = [self.sums_of(n) for n in self.modes]
        return np.minimum.reduce([low for low, _ in ends]), np.maximum.reduce([high for _, high in ends])

    @property
    def macs(self) -> int:
        """Of a sample: its matrices are added beforehand."""
        return self.input.tokens * self.weight[0].size

    @property
    def weights(self) -> int:
        return self.weight.size + self.weight.shape[1]

    @property
    def constants(self) -> dict[str, Constant]:
        slots, outputs, inputs = self.weight.shape
        return {
            "tokens": self.input.tokens,
            "inputs": inputs,
            "outputs": outputs,
            "slots": slots,
            "weight": (self.weight_format, self.weight),
            "summed": self.summed_format,
            **self.requantize.constants,
            "images": (Format.covering(1, slots), self.images),
        }

    def wide(self, *x: np.ndarray) -> np.ndarray:
        n = int(fixed(self.images, "bundle: images"))
        images = x[0].reshape(-1, n, *self.input.shape)
        total = sum(images[:, s % n] @ self.weight[s].T for s in range(self.slots))
        return self.requantize.wide(total)

    @cached_property
    def _product(self) -> MatrixKernel:
        """The product of the codes of a place in all samples of a group, one after the other."""
        n = int(fixed(self.images, "bundle: images"))
        rows = self.summed(n).transpose(1, 0, 2).reshape(self.weight.shape[1], -1)
        return MatrixKernel(rows, self.input.format, self.sums_of(n), self.requantize)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        n, channels = int(fixed(self.images, "bundle: images")), self.input.channels
        rows = x[0].reshape(-1, n, self.input.tokens, channels)
        rows = rows.reshape(-1, channels) if n == 1 else rows.swapaxes(1, 2).reshape(-1, n * channels)
        y, saturated = self._product(rows)
        return y.reshape(-1, *self.output.shape), saturated

    @classmethod
    def example(cls, rng: np.random.Generator) -> Bundle:
        """With one sample in a group, so that as many come out as go in; its matrices are sums all the same."""
        tokens, d, slots = int(rng.integers(1, 6)), int(rng.integers(1, 13)), int(rng.integers(1, 5))
        fmt = Format(8) if rng.random() < 0.7 else Format(int(rng.integers(2, 9)), bool(rng.random() < 0.5))
        weight_format = Format(int(rng.integers(2, 9)))
        if rng.random() < 0.5:
            keys = rng.integers(weight_format.low, weight_format.high + 1, (slots, d))
            weight = circulant(keys)
        else:
            weight = rng.integers(weight_format.low, weight_format.high + 1, (slots, int(rng.integers(1, 13)), d))
        magnitude = int(np.sqrt(d * slots) * fmt.high * weight_format.high / 3) + 1
        requantize = Requantize.example(rng, weight.shape[1], magnitude)
        return cls(TensorType((tokens, d), fmt), weight, requantize, np.array(1), weight_format)


def circulant(keys: np.ndarray) -> np.ndarray:
    """Keys `[N, D]` as matrices `[N, D, D]` of their circular convolutions, `weight[s, j, i] = k_s[(j - i) mod D]`."""
    places = np.arange(keys.shape[1])
    return keys[:, (places[:, None] - places[None, :]) % keys.shape[1]]
