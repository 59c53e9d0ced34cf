"""The photonic array of a layer in integers, in torch: from DAC codes over counts of light to ADC codes.

A layer z = W x + b whose inputs are codes q of 0..Q, in steps s_x, and whose results are codes in steps s_y:

    M = W s_x / s_y     e = floor(log2(R / max|M|)) per output     m = clamp(round(|M| 2^e), 0, R)     R = 2^bits - 1
    plus, minus         transmissions of the two rails' cells, in 2^f counts for a step of the weight DAC
    u[k, n]             sum over tile k of  plus q + minus (Q - q)                                            >= 0
    code[k, n]          clamp(round_shift(max(u + noise, 0) - offset[k, n], shift), 0, 2^adc - 1)

What follows the converter is in `models.light.integer`. Parameters stay real and each forward rounds them; gradients
pass rounding and noise as if they were not there and stop where a code was clipped.

Noise is that of `sim.noise`, word for word: its words belong to (seed, layer, tile, output, image). In evaluation image
i of a set is image i of the generator, so the network equals its program with noise as without; in training the i-th
image since the training began is image `TRAINING + i`, in whatever order they come: a training draws no word twice, and
none of evaluation's. What is drawn once, errors of setting and drift, has two images of its own at the very end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.layers.exact import POWERS, round_through
from bittrue.models.layers.integer import EXACT, CodeStep, IntegerLayer
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.models.light.settings import Array
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.noise import add_noise
from bittrue.sim.noise import DEVIATION, Noise, encrypt, gaussian
from bittrue.sim.operations.photonic_mac import PhotonicMac

#: Largest shift that scales the weights of an output.
MAX_SHIFT = 24
#: The noise generator's image that is the first of a training, and those of errors of setting and of drift.
TRAINING, SETTING, DRIFT = 1 << 31, 0xFFFFFFFF, 0xFFFFFFFE


def powers(shift: Tensor | int) -> Tensor:
    """2^shift in float64, exact."""
    shift = torch.as_tensor(shift)
    return POWERS.to(shift.device).double()[shift.long()]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a layer in whole numbers (float64): transmissions `[N, C]` and light of dark inputs `[tiles, N]`.

    `calibrated` is the pedestal when it was measured, before any drift.
    """

    plus: Tensor
    minus: Tensor
    pedestal: Tensor
    calibrated: Tensor


class IntegerPhotonicArray(IntegerLayer):
    """Codes `[B, C]` to ADC codes `[B, tiles, N]`; see the module's docstring for the arithmetic.

    centre   buffer `[tiles, N]`: where the window's middle lies above the pedestal, as a share of z in its real unit
    step     buffer: the converter's shift with a pedestal window
    """

    def __init__(self, inputs: int, outputs: int, source: CodeStep, target: CodeStep, array: Array, layer: int) -> None:
        super().__init__(target, array.adc_bits)
        self.low, self.high = 0, (1 << array.adc_bits) - 1
        self.source, self.array, self.layer = source, array, layer
        self.top, self.largest = (1 << array.input_bits) - 1, (1 << array.weight_bits) - 1
        self.tiles = -(-inputs // array.rows)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.register_buffer("centre", torch.zeros(self.tiles, outputs, dtype=torch.float64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.rows = min(array.rows, inputs)  # of the array; those that no input has are dark
        full = self.rows * self.top * (self.open + 1)
        codes = 1 << array.adc_bits  # of which the converter rounds halves
        self.kind = torch.float32 if max(4 * full, codes) < EXACT else torch.float64
        self._errors: tuple[Tensor, Tensor] | None = None
        if array.noise.on and float(self.noise().bound(full).high) >= 2.0**62:
            raise BittrueError(
                f"photonic noise: on counts of up to {full:,} its sums need more than 63 bits; make it weaker "
                "(`array.noise`: less `relative` or `thermal`, more `photons`)"
            )

    @property
    def scale(self) -> float:
        """ADC codes have no unit of their own."""
        return 1.0

    @property
    def leak(self) -> int:
        """Transmission of a closed cell, in counts: its share of what separates it from an open one."""
        if self.array.extinction_db is None:
            return 0
        ratio = 10 ** (-self.array.extinction_db / 10)
        return round(ratio / (1 - ratio) * (self.largest << self.array.fraction))

    @property
    def open(self) -> int:
        """Transmission of an open cell, in counts."""
        return (self.largest << self.array.fraction) + self.leak

    # -- parameters in whole numbers -------------------------------------------------------------------
    def shift(self) -> Tensor:
        """e of each output, `[N]`; a count is worth 2^-(e + f) of a step of the result."""
        scaled = self.weight.detach() * (self.source.value / self.target.value).detach()
        return torch.floor(torch.log2(self.largest / scaled.abs().amax(1))).nan_to_num(0).clamp(0, MAX_SHIFT)

    def counts_per_unit(self) -> Tensor:
        """Counts that stand for 1 of z, for each output `[N]`."""
        return powers(self.shift() + self.array.fraction) / self.target.value.detach().double()

    def codes(self) -> tuple[Tensor, Tensor]:
        """Codes of the weight DAC with the sign of the rail `[N, C]`, and that sign (1.0 or -1.0).

        With one rail a closed cell still leaks, in the direction of its sign: the code is that much smaller.
        """
        scaled = self.weight * (self.source.value / self.target.value) * powers(self.shift()).float()[:, None]
        sign = torch.where(scaled.detach() < 0, -1.0, 1.0)
        leak = self.leak / (1 << self.array.fraction) if self.array.rails == "one" else 0.0
        magnitude = scaled * sign - leak
        # no code is below 0, but a weight must be able to come back from there, and to change its sign
        magnitude = magnitude + (magnitude.clamp(min=0) - magnitude).detach()
        return round_through(magnitude.clamp(max=self.largest)) * sign, sign

    def cells(self, codes: Tensor, sign: Tensor) -> Cells:
        """Both rails with leakage, errors of setting, drift and crosstalk."""
        codes = codes.detach().double()
        if self.array.exact:
            plus, minus = (
                codes.clamp(min=0) * (1 << self.array.fraction),
                (-codes).clamp(min=0) * (1 << self.array.fraction),
            )
            pedestal = self.pedestal(minus)
            return Cells(plus, minus, pedestal, pedestal)
        _, before = self._transmissions(codes, sign, self._drawn()[:1])
        plus, minus = self._transmissions(codes, sign, self._drawn())
        return Cells(plus, minus, self.pedestal(minus), self.pedestal(before))

    def _transmissions(self, codes: Tensor, sign: Tensor, errors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        rails = []
        for rail, direction in enumerate((1.0, -1.0)):
            cell = (codes * direction).clamp(min=0) * (1 << self.array.fraction) + self.leak
            for error in errors:
                cell = cell + error[rail].to(cell.device)
            cell = cell.clamp(self.leak, self.open)
            if self.array.rails == "one":
                cell = cell * (sign == direction)  # the other rail has no cell
            rails.append(self._crossed(cell))
        return rails[0], rails[1]

    def _crossed(self, cell: Tensor) -> Tensor:
        """Each column's light with what its neighbours in the same tile lose to it; at the edges it is lost."""
        if self.array.crosstalk_db is None:
            return cell
        share = 10 ** (self.array.crosstalk_db / 10)
        crossed = (1 - 2 * share) * cell
        column = torch.arange(len(cell), device=cell.device) % self.array.columns
        crossed[1:] += share * cell[:-1] * (column[1:] > 0)[:, None]
        crossed[:-1] += share * cell[1:] * (column[1:] > 0)[:, None]
        return torch.floor(crossed + 0.5)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """Errors of setting and drift in counts, `[2 rails, N, C]` each: drawn once from the seed."""
        if self._errors is None:
            shape = tuple(self.weight.shape)
            noise = Noise(self.array.seed, self.layer)
            made = []
            for image, deviation in ((SETTING, self.array.weight_error), (DRIFT, self.array.drift)):
                words = encrypt(noise.keys, np.int64(image), np.arange(math.prod(shape)))
                counts = deviation * (self.largest << self.array.fraction) / DEVIATION
                errors = [np.floor(gaussian(word) * counts + 0.5).reshape(shape) for word in words]
                made.append(torch.from_numpy(np.stack(errors)))
            self._errors = made[0], made[1]
        return self._errors

    def pedestal(self, minus: Tensor) -> Tensor:
        """Light of dark inputs, `[tiles, N]`."""
        return self.top * self._tiled(minus).sum(-1).T

    def _tiled(self, x: Tensor) -> Tensor:
        """`[M, C]` as `[M, tiles, rows]`, filled with zeros."""
        missing = self.tiles * self.rows - x.shape[-1]
        return nn.functional.pad(x, (0, missing)).unflatten(-1, (self.tiles, self.rows))

    @torch.no_grad()
    def window(self, cells: Cells | None = None) -> tuple[Tensor, int]:
        """Lowest count of each tile's and output's window above its calibrated pedestal (float64), and the shift."""
        if self.array.window == "full":
            cells = cells or self.cells(*self.codes())
            gain = self._tiled((cells.plus - cells.minus).clamp(min=0)).sum(-1).T * self.top
            most, shift = int((gain + cells.pedestal).max()), 0
            while (most + ((1 << shift) >> 1)) >> shift > self.high:
                shift += 1
            return -cells.calibrated, shift
        shift = int(self.step)
        middle = torch.floor(self.centre * self.counts_per_unit() + 0.5)
        return middle - ((self.high << shift) >> 1), shift

    # -- what it does ----------------------------------------------------------------------------------
    def light(self, x: Tensor) -> tuple[Tensor, Cells]:
        """Counts above the calibrated pedestal, `[B, tiles, N]` in `kind`, and the cells."""
        codes, sign = self.codes()
        cells = self.cells(codes, sign)
        weight = codes * float(1 << self.array.fraction)
        weight = weight.to(self.kind) + ((cells.plus - cells.minus).to(self.kind) - weight.detach().to(self.kind))
        x = self._tiled(x.to(self.kind)).transpose(0, 1)
        counts = torch.bmm(x, self._tiled(weight).permute(1, 2, 0)).transpose(0, 1)
        return counts + (cells.pedestal - cells.calibrated).to(self.kind), cells

    def convert(self, counts: Tensor, cells: Cells) -> Tensor:
        """ADC codes `[B, tiles, N]` of counts above the calibrated pedestal."""
        low, shift = self.window(cells)
        return round_through((counts - low.to(counts.dtype)) * 2.0**-shift).clamp(0, self.high).float()

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Codes of images of which the first has this index: see the module's docstring for what noise makes of it."""
        counts, cells = self.light(x)
        if self.array.noise.on:
            counts = counts + self.added(counts.detach(), cells.calibrated, first)
        return self.convert(counts, cells)

    @torch.no_grad()
    def added(self, counts: Tensor, calibrated: Tensor, first: int) -> Tensor:
        """What noise adds to counts above the pedestal, `[B, tiles, N]`, for images from this index on.

        Where the counts are float32 it is exact below 2^24, and beyond it the converter clips.
        """
        most = DRIFT - TRAINING if self.training else TRAINING
        if not 0 <= first <= most - len(counts):
            raise BittrueError(
                f"photonic noise: images {first} to {first + len(counts) - 1} of a "
                f"{'training' if self.training else 'set'}; the generator has words for {most:,}, use fewer"
            )
        noise = replace(self.noise(), first=first + (TRAINING if self.training else 0))
        light = (counts + calibrated).cpu().numpy().astype(np.int64).swapaxes(0, 1)
        noisy = np.array(light, order="C")
        for k, tile in enumerate(noisy):
            add_noise(tile, noise, k, 1, self.tiles)
        return torch.from_numpy((noisy - light).swapaxes(0, 1).copy()).to(counts)

    def noise(self) -> Noise | None:
        """The noise of `sim`, whose factors are whole numbers."""
        if not self.array.noise.on:
            return None
        given, full = self.array.noise.factors, float(self.top * (self.largest << self.array.fraction))
        shift = 24
        return Noise.from_physics(
            self.array.seed,
            self.layer,
            relative=given.relative,
            photons=given.photons / full,
            thermal=given.thermal * full,
            shift=shift,
        )

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        cells = self.cells(*self.codes())
        low, shift = self.window(cells)
        plus, minus = whole(cells.plus), whole(cells.minus)
        array = PhotonicMac(
            lowering.type(source),
            plus,
            minus,
            self.array.rows,
            self.bits,
            shift,
            whole(cells.calibrated + low),
            Format.covering(np.maximum(plus, minus), signed=False),
            self.noise(),
        )
        return lowering.add(name, array, source, scale=self.scale)
