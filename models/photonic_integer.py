"""Photonic networks in integers, in torch: DAC codes, counts of light, ADC codes; gradients straight through them.

A layer z = W x + b whose inputs are codes q of 0..Q, in steps s_x, and whose results are codes in steps s_y:

    M = W s_x / s_y     e = floor(log2(R / max|M|)) per output     m = clamp(round(|M| 2^e), 0, R)     R = 2^bits - 1
    plus, minus         transmissions of the two rails' cells, in 2^f counts for a step of the weight DAC
    u[k, n]             sum over tile k of  plus q + minus (Q - q)                                            >= 0
    code[k, n]          clamp(round_shift(u - offset[k, n], shift), 0, 2^adc - 1)
    acc[n]              sum_k (code << shift) + sum_k (offset - pedestal) + round((b - z0) / s_y 2^(e + f))
    y[n]                clamp(round_shift(acc, e + f))                       stands for z = z0 + y s_y

pedestal = Q sum minus is the light of dark inputs, as the controller measures it. Parameters stay real and each forward
rounds them; gradients pass rounding as if it were not there and stop where a code was clipped. Noise is drawn from
torch's generator, and in training mode alone: the program is what a noisy network is evaluated with.

Networks are made and filled by `models.photonic_convert.convert`, or read by `models.storage.load`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.exact import POWERS, requantize, round_through
from models.integer import EXACT, IntegerInput, IntegerLayer, Step
from models.photonic_activations import PhotonicSigmoid, PhotonicSinusoid
from models.photonic_net import TOP, grey, light_codes
from models.photonic_settings import Array
from sim.noise import DEVIATION, Noise, encrypt, gaussian

#: Largest shift that scales the weights of an output.
MAX_SHIFT = 24
#: Images of the noise generator that no run reaches, for what is drawn once: errors of setting, and drift.
SETTING, DRIFT = 0xFFFFFFFF, 0xFFFFFFFE
#: Functions between the layers; a ReLU is bounded by the next layer's alpha.
FUNCTIONS: dict[str, type[nn.Module]] = {
    "sigmoid": PhotonicSigmoid,
    "sinusoid": PhotonicSinusoid,
    "relu": nn.ReLU,
    "logistic": nn.Sigmoid,
}


def powers(shift: Tensor | int) -> Tensor:
    """2^shift in float64, exact."""
    shift = torch.as_tensor(shift)
    return POWERS.to(shift.device).double()[shift.long()]


class IntegerLightInput(IntegerInput):
    """The network's input: DAC codes `[B, features]`, unsigned, as whole numbers; the highest is full light, 1."""

    def __init__(self, features: int, bits: int) -> None:
        super().__init__(None, features)
        self.bits, self.low, self.high = bits, 0, (1 << bits) - 1
        self.target.set(1 / self.high)


# -- the array -----------------------------------------------------------------------------------------
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

    def __init__(self, inputs: int, outputs: int, source: Step, target: Step, array: Array, layer: int) -> None:
        super().__init__(target, array.adc_bits)
        self.low, self.high = 0, (1 << array.adc_bits) - 1
        self.source, self.array, self.layer = source, array, layer
        self.top, self.largest = (1 << array.input_bits) - 1, (1 << array.weight_bits) - 1
        self.tiles = -(-inputs // array.rows)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.register_buffer("centre", torch.zeros(self.tiles, outputs, dtype=torch.float64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        full = array.rows * self.top * (self.open + 1)
        self.kind = torch.float32 if 4 * full < EXACT else torch.float64
        self._errors: tuple[Tensor, Tensor] | None = None

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
        missing = self.tiles * self.array.rows - x.shape[-1]
        return nn.functional.pad(x, (0, missing)).unflatten(-1, (self.tiles, self.array.rows))

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

    def forward(self, x: Tensor) -> Tensor:
        counts, cells = self.light(x)
        if self.training and self.array.noise.on:
            counts = counts + self._noise(counts.detach(), cells.calibrated.to(self.kind))
        low, shift = self.window(cells)
        return round_through((counts - low.to(self.kind)) * 2.0**-shift).clamp(0, self.high).float()

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

    @torch.no_grad()
    def _noise(self, counts: Tensor, pedestal: Tensor) -> Tensor:
        noise = self.noise()
        relative, shot, thermal = (
            factor * DEVIATION / (1 << noise.shift) for factor in (noise.relative, noise.shot, noise.thermal)
        )
        light = counts + pedestal
        added = relative * light * torch.randn_like(light[..., :1]) + shot * light.sqrt() * torch.randn_like(light)
        added = added + thermal * torch.randn_like(light)
        return torch.maximum(added, -light)  # the converter sees no negative light


class IntegerTileSum(IntegerLayer):
    """ADC codes `[B, tiles, N]` of an array to results `[B, N]`: sum, shift of each output, clamp.

    start   what code 0 stands for, z0. With `signed` it is 0; else codes below 0 are clamped: nothing is lost where
            the function behind is constant below z0.
    """

    def __init__(self, array: IntegerPhotonicArray, target: Step, bits: int, start: float, *, signed: bool) -> None:
        super().__init__(target, bits)
        self.signed, self.start = signed, start
        if not signed:
            self.low, self.high = 0, (1 << bits) - 1
        self._array = (array,)  # in a tuple, so that its parameters are registered once
        self.bias = nn.Parameter(torch.zeros(len(array.weight)))

    @property
    def array(self) -> IntegerPhotonicArray:
        return self._array[0]

    def integers(self) -> tuple[Tensor, Tensor, int]:
        """Shift e + f of each output `[N]`, the constant of its sum `[N]` (float64), and the converter's shift."""
        low, step = self.array.window()
        shift = self.array.shift() + self.array.array.fraction
        bias = (self.bias.double() - self.start) / self.target.value.double()
        return shift, low.sum(0) + round_through(bias * powers(shift)), step

    def forward(self, codes: Tensor) -> Tensor:
        shift, constant, step = self.integers()
        acc = codes.double().sum(-2) * float(1 << step) + constant
        return requantize(acc, shift, torch.zeros_like(self.bias), self.low, self.high)


class IntegerPhotonicLinear(nn.Module):
    """An array and the sum over its tiles: codes `[B, C]` to codes `[B, N]`."""

    def __init__(
        self, inputs: int, outputs: int, source: Step, target: Step, array: Array, layer: int, start: float | None
    ) -> None:
        super().__init__()
        self.array = IntegerPhotonicArray(inputs, outputs, source, target, array, layer)
        self.sum = IntegerTileSum(self.array, target, array.sum_bits, start or 0.0, signed=start is None)

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.array(x))


# -- the activation ------------------------------------------------------------------------------------
class IntegerPhotonicTable(IntegerLayer):
    """A photonic activation as an exact table, `[B, C]`: input code c stands for z = start + c s_y, output code for
    `min(f(z), alpha)` in steps alpha / (2^bits - 1). The gradient is that of f.
    """

    def __init__(self, function: str, alpha: float, source: Step, source_bits: int, start: float, bits: int) -> None:
        super().__init__(Step(alpha / ((1 << bits) - 1), fixed=True), bits)
        self.low, self.high = 0, (1 << bits) - 1
        self.function, self.alpha, self.source, self.start = function, alpha, source, start
        self.source_bits = source_bits
        self.activation = FUNCTIONS[function]()

    def real(self, codes: Tensor) -> Tensor:
        """The function's value at input codes, in steps of the output."""
        z = self.start + codes * self.source.value.detach().to(codes)
        return self.activation(z).clamp(0, self.alpha) * (self.high / self.alpha)

    def integers(self) -> Tensor:
        """The knots, one for every input code and one beyond the last, `[2^source_bits + 1]` in float32."""
        at = torch.arange((1 << self.source_bits) + 1, dtype=torch.float64)
        return torch.floor(self.real(at) + 0.5).clamp(0, self.high).float()

    def forward(self, x: Tensor) -> Tensor:
        exact = self.integers().to(x.device)[x.detach().long()]
        real = self.real(x)
        return exact + (real - real.detach())  # adds 0, and the gradient


def operating_range(function: str, alpha: float, levels: int) -> tuple[float, float]:
    """Between which z `min(f(z), alpha)`, rounded to one of `levels` steps, is not what it is far below and above.

    Never fewer than 15 steps, so that a coarse function is not all but a threshold to the gradients.
    """
    reach = max(8.0, 4 * alpha)
    z = torch.linspace(-reach, reach, (1 << 18) + 1, dtype=torch.float64)
    y = torch.floor(FUNCTIONS[function]()(z).clamp(0, alpha) * (max(levels, 15) / alpha) + 0.5)
    changes = torch.nonzero((y != y[0]) & (y != y[-1])).flatten()
    return float(z[changes[0] - 1]), float(z[changes[-1] + 1])


# -- the network ---------------------------------------------------------------------------------------
class IntegerPhotonicMLP(nn.Module):
    """A photonic MLP whose forward is exact: DAC codes `[B, features]` in, logit codes `[B, classes]` out.

    sizes       features, outputs of each layer, the last being the classes
    functions   name of the activation behind each layer but the last (`FUNCTIONS`)
    alphas      upper bound of the input of each layer; the first is 1
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        functions: tuple[str, ...],
        alphas: tuple[float, ...],
        array: Array,
        shape: tuple[int, int, int],
        gain: int = 1,
        grey: bool = False,
    ) -> None:
        super().__init__()
        self.sizes, self.functions, self.alphas = tuple(sizes), tuple(functions), tuple(alphas)
        self.array, self.shape, self.gain, self.grey = array, tuple(shape), gain, grey
        self.input = IntegerLightInput(sizes[0], array.input_bits)
        self.layers, self.tables = nn.ModuleList(), nn.ModuleList()
        source = self.input.target
        for k, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            start, target = None, Step()
            if k < len(functions):
                start, end = operating_range(functions[k], alphas[k + 1], self.input.high)
                target = Step((end - start) / ((1 << array.sum_bits) - 1), fixed=True)
            self.layers.append(IntegerPhotonicLinear(inputs, outputs, source, target, array, k, start))
            if start is not None:
                table = IntegerPhotonicTable(
                    functions[k], alphas[k + 1], target, array.sum_bits, start, array.input_bits
                )
                self.tables.append(table)
                source = table.target

    @property
    def scale(self) -> Tensor:
        """Real value of one step of the logits."""
        return self.layers[-1].sum.target.value

    def describe(self) -> dict[str, Any]:
        """JSON values from which `from_description` builds the network, without its parameters."""
        geometry = {"shape": list(self.shape), "gain": self.gain, "grey": self.grey}
        lists = {"sizes": list(self.sizes), "functions": list(self.functions), "alphas": list(self.alphas)}
        return lists | {"array": self.array.model_dump(mode="json")} | geometry

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> IntegerPhotonicMLP:
        lists = (tuple(values[name]) for name in ("sizes", "functions", "alphas"))
        array = Array(**values["array"])
        return cls(*lists, array, tuple(values["shape"]), values["gain"], values["grey"])

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as DAC codes uint8 `[n, features]`: light of 0..1 to the nearest code."""
        codes = light_codes(grey(images) if self.grey else images, self.gain).reshape(len(images), -1)
        if self.input.high == TOP:
            return codes
        return ((codes.astype(np.int64) * self.input.high * 2 + TOP) // (2 * TOP)).astype(np.uint8)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.input(codes)
        for layer, table in zip(self.layers[:-1], self.tables, strict=True):
            x = table(layer(x))
        return self.layers[-1](x)
