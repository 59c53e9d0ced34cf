"""Photonic networks in integers, in torch: arrays, sums over their tiles, activation tables; gradients through them.

Behind the array of `models.light.array`, whose names these are, a layer ends digitally:

    acc[n]   sum_k (code << shift) + sum_k (offset - pedestal) + round((b - z0) / s_y 2^(e + f))
    y[n]     clamp(round_shift(acc, e + f))                       stands for z = z0 + y s_y

pedestal = Q sum minus is the light of dark inputs, as the controller measures it.

Networks are made and filled by `models.light.convert.convert`, or read by `models.training.storage.load`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.layers.exact import requantize, round_through
from bittrue.models.layers.integer import CodeStep, IntegerInput, IntegerLayer
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.models.light.activations import PhotonicSigmoid, PhotonicSinusoid
from bittrue.models.light.array import IntegerPhotonicArray, powers
from bittrue.models.light.network import TOP, grey, light_codes
from bittrue.models.light.settings import Array, ArrayNoise
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.requantize import Requantize

#: Functions between the layers; a ReLU is bounded by the next layer's alpha.
FUNCTIONS: dict[str, type[nn.Module]] = {
    "sigmoid": PhotonicSigmoid,
    "sinusoid": PhotonicSinusoid,
    "relu": nn.ReLU,
    "logistic": nn.Sigmoid,
}


class IntegerLightInput(IntegerInput):
    """The network's input: DAC codes `[B, features]`, unsigned, as whole numbers; the highest is full light, 1."""

    def __init__(self, features: int, bits: int) -> None:
        super().__init__(features)
        self.bits, self.low, self.high = bits, 0, (1 << bits) - 1
        self.target.set(1 / self.high)


class IntegerTileSum(IntegerLayer):
    """ADC codes `[B, tiles, N]` of an array to results `[B, N]`: sum, shift of each output, clamp.

    start   what code 0 stands for, z0. With `signed` it is 0; else codes below 0 are clamped: nothing is lost where
            the function behind is constant below z0.
    """

    def __init__(self, array: IntegerPhotonicArray, target: CodeStep, bits: int, start: float, *, signed: bool) -> None:
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

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        shift, constant, step = self.integers()
        fmt, floor = Format(self.bits, signed=self.signed), None if self.signed else 0
        requantizer = Requantize(len(shift), whole(shift), bias_acc=whole(constant), format=fmt, floor=floor)
        return lowering.add(name, TileSum(lowering.type(source), step, requantizer), source, scale=self.scale)


class IntegerPhotonicLinear(nn.Module):
    """An array and the sum over its tiles: codes `[B, C]` to codes `[B, N]`; `first` as in the array's noise."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        source: CodeStep,
        target: CodeStep,
        array: Array,
        layer: int,
        start: float | None,
    ) -> None:
        super().__init__()
        self.array = IntegerPhotonicArray(inputs, outputs, source, target, array, layer)
        self.sum = IntegerTileSum(self.array, target, array.sum_bits, start or 0.0, signed=start is None)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        return self.sum(self.array(x, first))


# -- the activation ------------------------------------------------------------------------------------
class IntegerPhotonicTable(IntegerLayer):
    """A photonic activation as an exact table, `[B, C]`: input code c stands for z = start + c s_y, output code for
    `min(f(z), alpha)` in steps alpha / (2^bits - 1). The gradient is that of f.
    """

    def __init__(
        self, function: str, alpha: float, source: CodeStep, source_bits: int, start: float, bits: int
    ) -> None:
        super().__init__(CodeStep(alpha / ((1 << bits) - 1), fixed=True), bits)
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

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        operation = Lerp(lowering.type(source), whole(self.integers())[None], Format(self.bits, signed=False))
        lowering.functions[name] = {"x_scale": lowering.scales[source], "y_scale": self.scale, "x_start": self.start}
        return lowering.add(name, operation, source, scale=self.scale)


def operating_range(function: str, alpha: float, levels: int) -> tuple[float, float]:
    """Between which z `min(f(z), alpha)`, rounded to one of `levels` steps, is not what it is far below and above.

    Never fewer than 15 steps, so that a coarse function is not all but a threshold to the gradients. An alpha so far
    below the function that nothing changes is refused.
    """
    reach = 4 * alpha if function == "relu" else max(8.0, 4 * alpha)  # a ReLU has no scale but alpha
    z = torch.linspace(-reach, reach, (1 << 18) + 1, dtype=torch.float64)
    y = torch.floor(FUNCTIONS[function]()(z).clamp(0, alpha) * (max(levels, 15) / alpha) + 0.5)
    changes = torch.nonzero((y != y[0]) & (y != y[-1])).flatten()
    if not len(changes):
        raise BittrueError(
            f"alpha {alpha:g}: below it the activation {function!r} has no two values that can be told apart, so "
            "alpha is far below the data; give a larger one, or calibrate by `bound` or `percentile`"
        )
    return float(z[changes[0] - 1]), float(z[changes[-1] + 1])


# -- the network ---------------------------------------------------------------------------------------
class IntegerPhotonicMLP(nn.Module):
    """A photonic MLP whose forward is exact: DAC codes `[B, features]` in, logit codes `[B, classes]` out.

    sizes       features, outputs of each layer, the last being the classes
    functions   name of the activation behind each layer but the last (`FUNCTIONS`)
    alphas      upper bound of the input of each layer; the first is 1

    `forward` takes the index of the batch's first image too (`models.training.loop`), which noise depends on.
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
            start, target = None, CodeStep()
            if k < len(functions):
                start, end = operating_range(functions[k], alphas[k + 1], self.input.high)
                target = CodeStep((end - start) / ((1 << array.sum_bits) - 1), fixed=True)
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

    @property
    def counts_frames(self) -> bool:
        """Whether the logits depend on the index of an image: there is noise."""
        return self.array.noise.on

    def under(self, noise: ArrayNoise | None = None, seed: int | None = None) -> IntegerPhotonicMLP:
        """A copy whose array has other noise, another seed (of all that is random), or both; else as it is."""
        given = {"noise": noise, "seed": seed}
        array = self.array.model_copy(update={key: value for key, value in given.items() if value is not None})
        copy = type(self).from_description(self.describe() | {"array": array.model_dump(mode="json")})
        copy.load_state_dict(self.state_dict())
        return copy.train(self.training)

    def forward(self, codes: Tensor, first: int = 0) -> Tensor:
        x = self.input(codes)
        for layer, table in zip(self.layers[:-1], self.tables, strict=True):
            x = table(layer(x, first))
        return self.layers[-1](x, first)
