"""The photonic array: non-negative sums of light, tile by tile, noise, and an analogue-to-digital converter."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bittrue.sim.contract import Format, Range, check_bits, round_shift
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Parameter, Set, bounds, find, put
from bittrue.sim.kernels.light import TileKernel
from bittrue.sim.kernels.matrix import MatrixKernel
from bittrue.sim.kernels.noise import noisy_codes
from bittrue.sim.noise import IMAGE, INDICES, MEAN, Noise
from bittrue.sim.operation import Constant, Operation, TensorType, freeze
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True, eq=False)
class PhotonicMac(Operation):
    """ADC codes of the tiles of a non-negative matrix product.

        u[k, n] = sum_{i in tile k} plus[n, i] * q[i] + minus[n, i] * (Q - q[i])        >= 0
        code[k, n] = min(max(round_shift(max(u + noise, 0) - offset[k, n], shift), 0), 2^bits - 1)

    Input `[..., C]`: unsigned codes q of 0..Q; the complement rail carries Q - q. `plus` and `minus` int `[N, C]` are
    the transmissions of the cells of the two rails, at least 0 (both may be open: leakage, crosstalk and errors of
    setting are part of them). A tile holds `rows` inputs, the last one what is left. Output `[..., tiles, N]` in
    `bits` unsigned bits. `offset` int `[tiles, N]` is subtracted before conversion (a pedestal; 0 for a full-scale
    window), `shift` is the converter's step, 2^shift counts. What it clips is counted as saturated. `plus`, `minus` and
    `offset` may be held inputs.

    Noise is drawn per image: of the images of a run the first has the index `noise.first`, the one after 2^32 - 1 is 0.
    Source of the isomorphism: Kirtas et al., "Non-negative isomorphic neural networks for photonic neuromorphic
    accelerators", 2023 (arXiv 2310.01084).
    """

    input: TensorType
    plus: Parameter
    minus: Parameter
    rows: int
    bits: int
    shift: int
    offset: Parameter
    cells: Format = Format(8, signed=False)  # noqa: RUF009  (frozen)
    noise: Noise | None = None

    def __post_init__(self) -> None:
        plus, minus = freeze(self.plus), freeze(self.minus)
        object.__setattr__(self, "plus", plus)
        object.__setattr__(self, "minus", minus)
        if self.input.format.signed:
            raise BittrueError(f"photonic_mac: input {self.input} is signed; light carries unsigned codes only")
        if plus.ndim != 2 or plus.shape != minus.shape or plus.shape[1] != self.input.channels:
            raise BittrueError(
                f"photonic_mac: cells {plus.shape} and {minus.shape} do not fit {self.input}; expected [N, C] twice"
            )
        ends = np.stack([*bounds(plus), *bounds(minus)])
        if self.cells.signed or not self.cells.holds(ends):
            raise BittrueError(
                f"photonic_mac: cells {ends.min()}..{ends.max()} do not fit "
                f"{self.cells}; transmissions are unsigned codes of the weight DAC"
            )
        if self.rows < 1:
            raise BittrueError(f"photonic_mac: a tile of {self.rows} rows is empty; give at least 1")
        if not 1 <= self.bits <= 24 or not 0 <= self.shift <= 40:
            raise BittrueError(
                f"photonic_mac: an ADC has 1 to 24 bits and a shift of 0 to 40, not {self.bits}, {self.shift}"
            )
        offset = freeze(self.offset)
        one = not isinstance(offset, Held) and offset.size == 1
        if not one and offset.shape != (self.tiles, len(plus)):
            raise BittrueError(f"photonic_mac: offset {offset.shape}, expected ({self.tiles}, {len(plus)})")
        object.__setattr__(self, "offset", freeze(np.broadcast_to(offset, (self.tiles, len(plus)))) if one else offset)
        check_bits(self._rough_bound(), "photonic_mac")  # in floats, which do not wrap as the exact ranges would
        most = float(np.abs(np.stack(bounds(self.offset))).max())
        check_bits(float(self.light.high) + most + 2.0**self.shift, "photonic_mac")
        if self.noise is not None:
            bound = self.noise.bound(self.light.high)
            check_bits(float(bound.high) + 2.0**self.noise.shift, "photonic_mac: noise")
            check_bits(float(max(self.accumulator.high, -self.accumulator.low)), "photonic_mac: light with its noise")
            if self.input.tokens * self.tiles * (len(plus) + 1) >= 1 << 32:
                raise BittrueError("photonic_mac: more than 2^32 sites of noise an image")

    # -- what it is ------------------------------------------------------------------------------------
    @property
    def tiles(self) -> int:
        return -(-self.input.channels // self.rows)

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.input.shape[:-1], self.tiles, len(self.plus)), Format(self.bits, signed=False))

    def parts(self) -> Iterator[tuple[int, slice]]:
        """The tiles: their numbers and their inputs."""
        for k in range(self.tiles):
            yield k, slice(k * self.rows, min((k + 1) * self.rows, self.input.channels))

    @cached_property
    def weight(self) -> np.ndarray:
        """`plus - minus`: what the input really counts, int64 `[N, C]`; of cells that are not held."""
        return self.plus - self.minus

    @property
    def weight_format(self) -> Format:
        """The narrowest signed format of `weight`."""
        return Format.covering(self.weight, signed=True)

    @property
    def rails(self) -> bool:
        """Whether a rail's cells are held: then only the two rails, not their difference, are known to hardware."""
        return isinstance(self.plus, Held) or isinstance(self.minus, Held)

    @cached_property
    def pedestal(self) -> np.ndarray:
        """The light of dark inputs, `Q sum minus`, int64 `[tiles, N]`; of cells that are not held."""
        return np.stack([self.input.format.high * self.minus[:, part].sum(1) for _, part in self.parts()])

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the most light without noise, int64 `[tiles, N]` each: all on the darker, the brighter rail."""
        (plus_low, plus_high), (minus_low, minus_high) = bounds(self.plus), bounds(self.minus)
        darker, brighter = np.minimum(plus_low, minus_low), np.maximum(plus_high, minus_high)
        top = self.input.format.high
        low, high = (np.stack([top * r[:, part].sum(1) for _, part in self.parts()]) for r in (darker, brighter))
        return low, high

    @cached_property
    def light(self) -> Range:
        """Range of a tile's count without noise, from none at all."""
        return Range(0, int(self.ends[1].max()))

    def _rough_bound(self) -> float:
        """The largest of what one tile's cells let through, of the offsets and of the converter's step, in floats."""
        cells = np.maximum(bounds(self.plus)[1], bounds(self.minus)[1]).astype(np.float64)
        most = max(float(cells[:, part].sum(1).max()) for _, part in self.parts())
        offset = np.stack(bounds(self.offset)).astype(np.float64)
        return max(most * self.input.format.high, float(np.abs(offset).max()), 2.0**self.shift)

    @property
    def accumulator(self) -> Range:
        low, high = self.ends
        if self.noise is not None:
            most = round_shift(np.int64(self.noise.bound(self.light.high).high), self.noise.shift)
            low, high = np.zeros_like(low), np.full_like(high, self.light.high + int(most))
        half = (1 << self.shift) >> 1
        least, most = bounds(self.offset)
        return Range.of(low, high) | Range.of(low - most, high - least + half)

    @property
    def macs(self) -> int:
        return self.input.tokens * self.plus.size

    @property
    def weights(self) -> int:
        return 2 * self.plus.size

    @property
    def held(self) -> dict[str, Held]:
        """Cells and offsets that are written; with noise, the index of the image."""
        return find(self) | ({} if self.noise is None else {IMAGE.name: IMAGE})

    def bind(self, values: Set) -> PhotonicMac:
        """With these cells and offsets, as a run sees it whose first image has this index."""
        bound, first = put(self, values), int(values.get(IMAGE.name, 0))
        if bound.noise is None or not first:
            return bound
        _ = bound.kernels  # do not depend on the index: made once, shared by the copies
        moved = copy(bound)
        object.__setattr__(moved, "noise", replace(bound.noise, first=(bound.noise.first + first) % INDICES))
        return moved

    @property
    def constants(self) -> dict[str, Constant]:
        n = self.noise
        named: dict[str, Constant] = {
            "tokens": self.input.tokens,
            "inputs": self.input.channels,
            "outputs": len(self.plus),
            "rows": self.rows,
            "tiles": self.tiles,
            "shift": self.shift,
            "noisy": int(n is not None),
            "light": self.light.format,
            "rails": int(self.rails),
            "offset": (Format.covering(*bounds(self.offset), signed=True), self.offset),
        }
        if self.rails:
            named |= {"plus": (self.cells, self.plus), "minus": (self.cells, self.minus)}
        else:
            named["weight"] = self.weight_format, self.weight
            named["pedestal"] = Format.covering(self.pedestal, signed=True), self.pedestal
        keys = n.keys.astype(np.int64) if n else np.zeros(1, np.int64)
        named |= {"rounds": len(keys), "keys": (Format(32, signed=False), keys)}
        factors = ("relative", "shot", "thermal")
        named |= {name: getattr(n, name) if n else 0 for name in factors}
        return named | {"noise_shift": n.shift if n else 0, "first": n.first if n else 0, "mean": MEAN}

    # -- what it does ----------------------------------------------------------------------------------
    def counts(self, x: np.ndarray) -> np.ndarray:
        """The light u, `[n, ..., tiles, N]`, noise included: the equation, in int64."""
        dark = self.input.format.high - x
        tiles = [
            x[..., part] @ self.plus[:, part].T + dark[..., part] @ self.minus[:, part].T for _, part in self.parts()
        ]
        u = np.stack(tiles, axis=-2)
        if self.noise is None:
            return u
        n, outputs = len(x), len(self.plus)
        flat = u.reshape(n, self.input.tokens * self.tiles, outputs)  # token by token, tile by tile
        image = np.arange(n)[:, None, None]
        common = np.arange(flat.shape[1])[:, None] * (outputs + 1) + outputs
        return self.noise.added(flat, image, common, common - outputs + np.arange(outputs)).reshape(u.shape)

    def wide(self, *x: np.ndarray) -> np.ndarray:
        return round_shift(self.counts(x[0]) - self.offset, self.shift)

    @cached_property
    def kernels(self) -> list[MatrixKernel]:
        """A matrix product for every tile; with noise it gives the counts themselves, else the codes."""
        made = []
        for k, part in self.parts():
            weight, q = self.weight[:, part], self.input.format.high
            low, high = (np.minimum(weight, 0).sum(1) * q, np.maximum(weight, 0).sum(1) * q)
            outputs = len(weight)
            if self.noise is None:
                requantize = Requantize(
                    outputs, np.array(self.shift), bias_acc=self.pedestal[k] - self.offset[k], format=self.output.format
                )
            else:
                requantize = Requantize(outputs, np.array(0), bias_acc=self.pedestal[k], format=Format(self.light.bits))
            made.append(MatrixKernel(weight, self.input.format, (low, high), requantize, but=("avx2",)))
        return made

    @cached_property
    def fast(self) -> TileKernel | None:
        """All tiles in one pass over the inputs, where there is no noise and the products are of a suitable kind."""
        if self.noise is not None or not TileKernel.suits(self.kernels, self.input.format):
            return None
        return TileKernel(self.kernels, self.weight, self.rows, self.shift, self.output.format)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        rows = x[0].reshape(-1, self.input.channels)
        codes = np.empty((len(rows), self.tiles, len(self.plus)), self.output.format.dtype)
        if self.fast is not None:
            clipped = self.fast.codes(rows, codes)
            return codes.reshape(len(x[0]), *self.output.shape), clipped
        clipped = 0
        for (k, part), kernel in zip(self.parts(), self.kernels, strict=True):
            inputs = np.ascontiguousarray(rows[:, part])
            y, saturated = kernel(inputs)
            if self.noise is not None:
                drawn = self.noise, k, self.input.tokens
                clipped += noisy_codes(y, *drawn, self.offset[k], self.shift, self.output.format.high, codes)
                continue
            codes[:, k] = y
            clipped += saturated
        return codes.reshape(len(x[0]), *self.output.shape), clipped

    @classmethod
    def example(cls, rng: np.random.Generator) -> PhotonicMac:
        channels, outputs = (int(rng.integers(1, high)) for high in (20, 9))
        fmt, cells = Format(int(rng.integers(1, 9)), signed=False), Format(int(rng.integers(1, 9)), signed=False)
        shape = (int(rng.integers(1, 4)), channels) if rng.random() < 0.5 else (channels,)
        weight = rng.integers(-cells.high, cells.high + 1, (outputs, channels))
        plus, minus = np.maximum(weight, 0), np.maximum(-weight, 0)
        if rng.random() < 0.5:  # leaking cells: both rails are open
            leak = rng.integers(0, 2, weight.shape)
            plus, minus = np.minimum(plus + leak, cells.high), np.minimum(minus + leak, cells.high)
        rows, bits = int(rng.integers(1, channels + 2)), int(rng.integers(2, 11))
        full = rows * fmt.high * cells.high
        shift = int(np.clip(full.bit_length() - bits - rng.integers(0, 3), 0, 30))
        tiles = -(-channels // rows)
        offset = rng.integers(0, full // 2 + 1, (tiles, outputs)) if rng.random() < 0.5 else np.zeros(1, np.int64)
        noise = None
        if rng.random() < 0.5:
            noise = Noise.from_physics(
                int(rng.integers(1 << 40)),
                int(rng.integers(9)),
                relative=0.02,
                photons=20.0,
                thermal=full / 100,
                shift=20,
            )
        return cls(TensorType(shape, fmt), plus, minus, rows, bits, shift, offset, cells, noise)
