"""A converted network: integer layers wired as the user's model was, exact, trainable, and lowered as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.sets import Data
from bittrue.models.graph.layout import Layout
from bittrue.models.graph.lower import lower
from bittrue.models.layers.integer import IntegerLayer
from bittrue.models.layers.tensors import TensorInput, TensorProduct
from bittrue.models.training import qat
from bittrue.models.training.loop import History, predict
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program

#: A share of values beyond the range that is no matter of rounding and rare values any more.
BEYOND = 0.5


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy with all layers as they are, and with one layer alone at fewer bits: rows of path, bits, accuracy."""

    accuracy: float
    rows: tuple[tuple[str, int, float], ...]

    def __str__(self) -> str:
        widths = sorted({bits for _, bits, _ in self.rows}, reverse=True)
        paths = list(dict.fromkeys(path for path, _, _ in self.rows))
        wide = max(map(len, (*paths, "layer")))
        found = {(path, bits): accuracy for path, bits, accuracy in self.rows}
        lines = [f"{'layer':{wide}}" + "".join(f"{f'{bits} bits':>9}" for bits in widths)]
        for path in paths:
            cells = (f"{found[path, bits]:9.2%}" if (path, bits) in found else " " * 9 for bits in widths)
            lines.append(f"{path:{wide}}" + "".join(cells))
        return "\n".join([*lines, f"{'as it is':{wide}}{self.accuracy:9.2%}"])


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples with labels, as a training reads them."""

    images: Any
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class _Sets:
    train: _Samples
    val: _Samples
    name: str = "samples"


class Converted(nn.Module):
    """A network of integers: codes `[n, ...]` in, codes of the result out, as whole numbers in float32.

    Made by `bittrue.convert`. Its forward is the arithmetic of the program that `lower` makes of it; tensors are in the
    program's layout, channels last. What `fit` made of it is kept as its `state_dict`, which the network that the same
    conversion makes takes again.

    scale        real value of one step of the result
    shape        of a sample, as the model takes it
    """

    def __init__(
        self,
        layers: Sequence[tuple[IntegerLayer, tuple[str, ...]]],
        entry: TensorInput,
        layouts: tuple[Layout, Layout],
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        result: tuple[str, nn.Module],
        preprocess: Callable[[np.ndarray], Any],
    ) -> None:
        super().__init__()
        self.input = entry
        self.layers = nn.ModuleList(layer for layer, _ in layers)
        self.wiring = tuple(operands for _, operands in layers)
        self.shape, self.result_shape = shapes
        self.preprocess = preprocess
        self._layouts = layouts
        self._result, self._step = result

    def forward(self, codes: Tensor) -> Tensor:
        values = {"x": self.input(codes)}
        for layer, operands in zip(self.layers, self.wiring, strict=True):
            values[layer.label] = layer(*(values[name] for name in operands))
        return values[self._result]

    @property
    def scale(self) -> Tensor:
        return self._step.value

    # -- codes and values ------------------------------------------------------------------------------
    def encode(self, x: Any) -> np.ndarray:
        """Codes int8 `[n, ...]` for the program, of samples as the model takes them (floats `[n, *shape]`, tensors or
        arrays), or of images uint8 `[n, h, w, channels]`, which `preprocess` makes such samples of.

        `code = clip(floor(x / step + 0.5))`. Raises BittrueError for other shapes, and for samples of which more than
        half of the values lie beyond the range of those that it was calibrated on.
        """
        real = samples(x, self.preprocess)
        if tuple(real.shape[1:]) != self.shape:
            raise BittrueError(f"encode: samples are {['n', *self.shape]}, got {list(real.shape)}".replace("'", ""))
        codes = torch.floor(real / self.input.scale + 0.5)
        low, high = self.input.low, self.input.high
        most, top = float(real.abs().max()), high * self.input.scale
        if codes.numel() and float(((codes < low) | (codes > high)).float().mean()) > BEYOND:
            raise BittrueError(
                f"encode: values reach {most:.4g}, and codes {top:.4g}; scale them as "
                "the calibration data were, or convert again with those"
            )
        flat = codes.clamp(low, high).to(torch.int8).reshape(len(codes), -1).numpy()
        start = self._layouts[0]
        return np.ascontiguousarray(flat[:, start.order].reshape(len(flat), *start.shape))

    def decode(self, codes: np.ndarray | Tensor) -> np.ndarray:
        """Real values float64 `[n, ...]` in the shape of the model's result, of the program's result codes."""
        end, codes = self._layouts[1], np.asarray(codes)
        real = np.empty((len(codes), len(end.order)))
        real[:, end.order] = codes.reshape(len(codes), -1) * float(self.scale)
        return real.reshape(len(codes), *self.result_shape)

    # -- what is done with it --------------------------------------------------------------------------
    def lower(self, **meta: Any) -> Program:
        """Its program (`bittrue.lower`)."""
        return lower(self, **meta)

    def accuracy(self, x: Any, labels: np.ndarray | Tensor) -> float:
        """Share of the samples whose largest result is at the label, 0..1."""
        found = predict(self, x)
        return float((found.reshape(len(found), -1).argmax(1) == np.asarray(labels)).mean())

    def fit(self, data: Any, settings: Qat = Qat(), **options: Any) -> History:  # noqa: B008  (frozen)
        """Train it in its own integers, in place; the best epoch stays, the epoch before the first included.

        data   a data set (`bittrue.dataset`), or `((x, labels), (x, labels))` for training and validation, with samples
               as `encode` takes them; `options` are those of `bittrue.fine_tune`
        """
        if not isinstance(data, Data):
            try:
                (x, labels), (val, val_labels) = data
            except (TypeError, ValueError) as error:
                raise BittrueError(
                    "fit: give a data set, or ((samples, labels), (samples, labels)) for training and validation"
                ) from error
            data = _Sets(_Samples(x, np.asarray(labels)), _Samples(val, np.asarray(val_labels)))
        return qat.fit(self, data, settings, **options)

    def sensitivity(self, x: Any, labels: np.ndarray | Tensor, bits: Sequence[int] = (6, 4, 3, 2)) -> Sensitivity:
        """Accuracy with the weights of each layer alone at fewer bits; `print` shows it as a table."""
        for width in bits:
            check_bits(width, "sensitivity: bits")
        paths: dict[str, list[TensorProduct]] = {}
        for layer in self.layers:
            if isinstance(layer, TensorProduct):
                paths.setdefault(layer.path, []).append(layer)
        rows = []
        for path, layers in paths.items():
            for width in (w for w in bits if w < layers[0].weight_bits):
                with _at(layers, width):
                    rows.append((path, width, self.accuracy(x, labels)))
        return Sensitivity(self.accuracy(x, labels), tuple(rows))


@contextmanager
def _at(layers: list[TensorProduct], bits: int) -> Iterator[None]:
    """Within, the weights of layers have so many bits."""
    before = [layer.weight_bits for layer in layers]
    for layer in layers:
        layer.weight_bits = bits
    try:
        yield
    finally:
        for layer, width in zip(layers, before, strict=True):
            layer.weight_bits = width


def check_bits(bits: Any, name: str) -> int:
    """A width of 2 to 8 bits."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 2 <= bits <= 8:
        raise BittrueError(f"{name}: a width is 2 to 8 bits, not {bits!r}")
    return int(bits)


def to_values(images: np.ndarray) -> Tensor:
    """Images uint8 `[n, h, w, channels]` as torchvision's ToTensor has them: floats `[n, channels, h, w]`, 0..1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255


def samples(x: Any, preprocess: Callable[[np.ndarray], Any]) -> Tensor:
    """Samples as float32 on the CPU: floats as they are, images of uint8 through `preprocess`."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
    elif not isinstance(x, np.ndarray):
        x = np.asarray(x)
    if x.dtype in (torch.uint8, np.uint8):
        if x.ndim != 4:
            raise BittrueError(
                f"images of uint8 are [n, height, width, channels], got {list(x.shape)}; give grey images a last "
                "axis of 1, and anything else as floats, as the model takes it"
            )
        x = preprocess(x.numpy() if isinstance(x, Tensor) else x)
    try:
        x = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    except TypeError as error:
        raise BittrueError(f"samples are an array or a tensor of floats, or images of uint8; got {x.dtype}") from error
    if not x.is_floating_point():
        raise BittrueError(f"samples are floats, as the model takes them, or images of uint8; got {x.dtype}")
    if x.ndim < 2 or not x.numel():
        raise BittrueError(
            f"samples have a first axis of samples and at least one more, and none is empty; got {list(x.shape)}"
        )
    return x.float().contiguous()
