"""Noise that is deterministic: words of a block cipher in counter mode, sums of bytes as Gaussian numbers.

The generator is Speck64/128 (Beaulieu et al., "The Simon and Speck families of lightweight block ciphers", 2013): 27
rounds of a 32-bit addition, two rotations and two exclusive ors, so that numpy, Numba, RTL and C++ make the same words
and none of them needs a multiplier. The key is (seed, layer), the block is (image, site); a site is a place and a time
within an image. Every word is known without the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.contract import MAX_BITS, Range, round_shift
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held

ROUNDS = 27
#: Four bytes have the sum 0..1020; less this mean they are a Gaussian number of standard deviation `DEVIATION`.
MEAN = 510
DEVIATION = float(np.sqrt(4 * (256**2 - 1) / 12))
#: Of images: the one after the last is 0 again.
INDICES = 1 << 32
#: The index of the image, by which noise is drawn: hardware counts it from its reset.
IMAGE = Held("image", (), 0, INDICES - 1, counts=True)
_MASK = 0xFFFFFFFF


def _right(x, n):
    return (x >> n | x << (32 - n)) & _MASK


def _left(x, n):
    return (x << n | x >> (32 - n)) & _MASK


def round_keys(key: tuple[int, int, int, int]) -> np.ndarray:
    """The 27 round keys of a key, given as its words from the lowest, uint32 `[27]`."""
    keys, spare = [key[0] & _MASK], [k & _MASK for k in key[1:]]
    for i in range(ROUNDS - 1):
        spare.append(((keys[i] + _right(spare[i], 8)) & _MASK) ^ i)
        keys.append(_left(keys[i], 3) ^ spare[i + 3])
    return np.array(keys, np.uint32)


def encrypt(keys: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blocks (high, low) of 32-bit words, as int64 arrays, encrypted."""
    x, y = np.broadcast_arrays(np.asarray(high, np.int64) & _MASK, np.asarray(low, np.int64) & _MASK)
    for key in keys.astype(np.int64):
        x = ((_right(x, 8) + y) & _MASK) ^ key
        y = _left(y, 3) ^ x
    return x, y


def gaussian(word: np.ndarray) -> np.ndarray:
    """The sum of the four bytes of a word less its mean: int64, -510..510, standard deviation 147.8."""
    return sum((word >> shift) & 255 for shift in (0, 8, 16, 24)) - MEAN


def root(u: np.ndarray) -> np.ndarray:
    """`floor(sqrt(u))` for 0 <= u < 2^48, exact: doubles tell the square roots of neighbours apart."""
    return np.floor(np.sqrt(np.asarray(u, np.float64))).astype(np.int64)


@dataclass(frozen=True)
class Noise:
    """`n = round_shift(relative * u * g0 + shot * floor(sqrt(u)) * g1 + thermal * g2, shift)` on a count u >= 0.

    seed, layer   the key; every layer of a program has its own
    relative      of the light source: one number g0 for all outputs of a site, in proportion to the signal
    shot          of the photons: in proportion to the root of the signal
    thermal       of the receiver: whatever the signal
    shift         binary digits of the three factors
    first         index of the first image

    The factors are whole numbers; `from_physics` makes them from standard deviations.
    """

    seed: int
    layer: int
    relative: int = 0
    shot: int = 0
    thermal: int = 0
    shift: int = 24
    first: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64 or not 0 <= self.layer < 1 << 32:
            raise BittrueError(f"noise: seed {self.seed} and layer {self.layer} must lie in 0..2^64-1 and 0..2^32-1")
        factors = self.relative, self.shot, self.thermal
        if min(factors) < 0 or max(factors) >= 1 << MAX_BITS or not 0 <= self.shift <= 40:
            raise BittrueError(
                f"noise: its factors ({', '.join(map(str, factors))}) lie in 0..2^{MAX_BITS}-1, its shift "
                f"({self.shift}) in 0..40"
            )
        if not 0 <= self.first < 1 << 32:
            raise BittrueError(f"noise: the first image {self.first} must lie in 0..2^32-1")

    @classmethod
    def from_physics(
        cls,
        seed: int,
        layer: int,
        *,
        relative: float = 0.0,
        photons: float = np.inf,
        thermal: float = 0.0,
        shift: int = 24,
    ) -> Noise:
        """relative: standard deviation over signal; photons: per count; thermal: standard deviation in counts."""
        if not (relative >= 0 and thermal >= 0 and photons > 0) or not np.isfinite([relative, thermal]).all():
            raise BittrueError("noise: standard deviations are at least 0 and finite, photons per count above 0")
        if not 0 <= shift <= 40:
            raise BittrueError(f"noise: a shift of {shift}; it is 0 to 40")
        scale = float(1 << shift) / DEVIATION
        names = ("relative", "photons", "thermal")
        factors = [f * scale for f in (relative, 1 / np.sqrt(photons), thermal)]
        for name, factor in zip(names, factors, strict=True):
            if factor >= 2.0**MAX_BITS:
                raise BittrueError(f"noise: {name} makes a factor of more than {MAX_BITS} bits; make that noise weaker")
        return cls(seed, layer, *(round(float(f)) for f in factors), shift)

    @cached_property
    def keys(self) -> np.ndarray:
        """The round keys, uint32 `[27]`."""
        return round_keys((self.seed & _MASK, self.seed >> 32, self.layer, 0x62697474))

    def words(self, image: np.ndarray, site: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two words of a site of an image (its index from 0)."""
        return encrypt(self.keys, np.asarray(image, np.int64) + self.first, site)

    def added(self, u: np.ndarray, image: np.ndarray, common: np.ndarray, site: np.ndarray) -> np.ndarray:
        """`max(u + n, 0)`; `common` are the sites of g0, `site` those of g1 and g2."""
        g0 = gaussian(self.words(image, common)[0])
        g1, g2 = (gaussian(word) for word in self.words(image, site))
        n = self.relative * u * g0 + self.shot * root(u) * g1 + self.thermal * g2
        return np.maximum(u + round_shift(n, self.shift), 0)

    def bound(self, highest: int) -> Range:
        """Of the sum before its shift, for counts up to `highest`."""
        largest = self.relative * highest + self.shot * int(root(np.int64(highest))) + self.thermal
        return Range(-MEAN * largest, MEAN * largest)
