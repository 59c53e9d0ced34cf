"""A converted network: integer layers wired as the user's model was, exact, trainable, and lowered as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.batches import Batch
from bittrue.models.data.sets import Data
from bittrue.models.graph.layout import Layout
from bittrue.models.graph.lower import lower
from bittrue.models.layers.groups import Regrouping, TensorBundle, TensorUnbundle
from bittrue.models.layers.integer import IntegerLayer
from bittrue.models.layers.tensors import TensorInput, TensorProduct
from bittrue.models.training import qat
from bittrue.models.training.loop import History, predict, share
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program

#: What stands for a layer that reads tensors of these names, as layers and what each reads.
Change = Callable[[IntegerLayer, tuple[str, ...]], Sequence[tuple[IntegerLayer, tuple[str, ...]]]]
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
    labels: Any

    def __len__(self) -> int:
        return len(Batch.of(self.labels))


@dataclass(frozen=True, eq=False)
class _Sets:
    train: _Samples
    val: _Samples
    name: str = "samples"


@dataclass(frozen=True, eq=False)
class Ends:
    """Where a converted network begins and ends: the layers and layouts of its inputs, and of its results the names of
    their tensors, their code steps and layouts, and whether they are decisions (argmax); shapes are those of the
    model's, `keys` of a dictionary of results."""

    entries: list[TensorInput]
    starts: list[Layout]
    shapes: tuple[tuple[int, ...], ...]
    results: tuple[str, ...]
    steps: list[nn.Module]
    layouts: list[Layout]
    result_shapes: tuple[tuple[int, ...], ...]
    keys: tuple[str, ...] | None
    decided: tuple[bool, ...]


class Converted(nn.Module):
    """A network of integers: codes `[n, ...]` in, codes of the result out, as whole numbers in float32.

    Of several inputs it takes as many tensors, in the order of the model's arguments, and of several results it gives a
    tuple of them; samples, codes and labels of them are tuples, too.

    Made by `bittrue.convert`. Its forward is the arithmetic of the program that `lower` makes of it; tensors are in the
    program's layout, channels last. What `fit` made of it is kept as its `state_dict`, which the network that the same
    conversion makes takes again.

    ranges       how its ranges were chosen, and by each way that was tried the accuracy on validation data, `scores`
    scales       real value of one step of each result; `scale` of the only one
    shapes       of a sample of each input, as the model takes it
    """

    def __init__(
        self,
        layers: Sequence[tuple[IntegerLayer, tuple[str, ...]]],
        ends: Ends,
        preprocess: Callable[[np.ndarray], Any],
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(ends.entries)
        self.layers = nn.ModuleList(layer for layer, _ in layers)
        self.wiring = tuple(operands for _, operands in layers)
        self.preprocess, self._ends = preprocess, ends
        self.ranges: str | float = "mse"
        self.scores: dict[str | float, float] = {}
        found = (layer.regrouping for layer in self.layers if isinstance(layer, TensorBundle | TensorUnbundle))
        self.regrouping: Regrouping | None = next(found, None)

    def forward(self, *codes: Tensor) -> Any:
        count, missing = 0, 0
        if self.regrouping is not None and isinstance(codes[0], Tensor):  # and not followed for its layers alone
            count, missing = len(codes[0]), -len(codes[0]) % self.regrouping.size
            codes = tuple(torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x for x in codes)
        values = {entry.label: entry(x) for entry, x in zip(self.inputs, codes, strict=True)}
        for layer, operands in zip(self.layers, self.wiring, strict=True):
            values[layer.label] = layer(*(values[name] for name in operands))
        results = tuple(values[name] for name in self._ends.results)
        if missing:  # a tensor of groups has an entry for each of them
            results = tuple(y[:count] if len(y) == count + missing else y for y in results)
        return results[0] if len(results) == 1 else results

    @property
    def modes(self) -> tuple[int, ...]:
        """The numbers of samples that a group can have, ascending; 1 alone where samples stay by themselves."""
        return (1,) if self.regrouping is None else self.regrouping.modes

    @property
    def at_a_time(self) -> int:
        """Samples of a group now, of `modes`; at first the most. Those of a last group that is not complete go with
        samples of code 0."""
        return 1 if self.regrouping is None else self.regrouping.size

    @at_a_time.setter
    def at_a_time(self, n: int) -> None:
        if self.regrouping is not None:
            self.regrouping.set(n)
        elif n != 1:
            raise BittrueError(f"at_a_time: {n} samples do not go together in a network whose samples stay alone")

    @property
    def input(self) -> TensorInput:
        """The only input."""
        (entry,) = self.inputs
        return entry

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self._ends.shapes

    @property
    def scales(self) -> tuple[Tensor, ...]:
        return tuple(step.value for step in self._ends.steps)

    @property
    def scale(self) -> Tensor:
        (scale,) = self.scales
        return scale

    def rebuilt(self, change: Change) -> Converted:
        """Another network with layers of its own, of which `change` has put some in place of others.

        change    gives the layers that stand for a layer, with what each reads; it is given the layer and what that
                  reads
        """
        layers, ends = copy.deepcopy((list(zip(self.layers, self.wiring, strict=True)), self._ends))
        made = [found for layer, operands in layers for found in change(layer, operands)]
        return type(self)(made, ends, self.preprocess).eval()

    # -- codes and values ------------------------------------------------------------------------------
    def encode(self, x: Any) -> Any:
        """Codes int8 `[n, ...]` for the program, of samples as the model takes them (floats `[n, *shape]`, tensors or
        arrays), or of images uint8 `[n, h, w, channels]`, which `preprocess` makes such samples of. Of several inputs a
        tuple of theirs, of a tuple or a dictionary by the names of the inputs.

        `code = clip(floor(x / step + 0.5))`. Raises BittrueError for other shapes, and for samples of which more than
        half of the values lie beyond the range of those that it was calibrated on.
        """
        given = batch(x, self.preprocess, [entry.label for entry in self.inputs])
        shapes = [["n", *shape] for shape in self.shapes]
        if [list(part.shape[1:]) for part in given.parts] != [shape[1:] for shape in shapes]:
            found = " and ".join(str(list(part.shape)) for part in given.parts)
            expected = " and ".join(str(shape).replace("'", "") for shape in shapes)
            raise BittrueError(f"encode: samples are {expected}, got {found}")
        codes = tuple(
            _codes(real, entry, start)
            for real, entry, start in zip(given.parts, self.inputs, self._ends.starts, strict=True)
        )
        return codes[0] if len(codes) == 1 else codes

    def decode(self, codes: Any) -> Any:
        """Real values float64 `[n, ...]` in the shape of the model's result, of the program's result codes; of several
        results as the model gives them, in a tuple or a dictionary."""
        ends, keys = self._ends.layouts, self._ends.keys
        parts = codes if isinstance(codes, tuple) else (codes,)
        if len(parts) != len(ends):
            raise BittrueError(f"decode: the network has {len(ends)} results, got codes of {len(parts)}")
        found = []
        for part, end, shape, scale in zip(parts, ends, self._ends.result_shapes, self.scales, strict=True):
            part = np.asarray(part)
            real = np.empty((len(part), len(end.order)))
            real[:, end.order] = part.reshape(len(part), -1) * float(scale)
            found.append(real.reshape(len(part), *shape))
        if keys is not None:
            return dict(zip(keys, found, strict=True))
        return found[0] if len(found) == 1 else tuple(found)

    # -- what is done with it --------------------------------------------------------------------------
    def lower(self, **meta: Any) -> Program:
        """Its program (`bittrue.lower`)."""
        return lower(self, **meta)

    def accuracy(self, x: Any, labels: Any) -> float:
        """Share of the samples whose largest result is at the label, 0..1; of several results the mean of theirs."""
        found = predict(self, x)
        parts, labels = (v if isinstance(v, tuple) else (v,) for v in (found, labels))
        shares = [
            float((part.reshape(len(part), -1)[:, 0] == np.asarray(at)).mean()) if decided else share(part, at)
            for part, at, decided in zip(parts, labels, self._ends.decided, strict=True)
        ]
        return float(np.mean(shares))

    def fit(self, data: Any, settings: Qat = Qat(), **options: Any) -> History:  # noqa: B008  (frozen)
        """Train it in its own integers, in place; the best epoch stays, the epoch before the first included.

        data   a data set (`bittrue.dataset`), or `((x, labels), (x, labels))` for training and validation, with samples
               as `encode` takes them, and labels of several results as a tuple, whose losses are added; `options` are
               those of `bittrue.fine_tune`
        """
        if any(self._ends.decided):
            raise BittrueError("fit: its result is a decision (argmax), which has no gradient; train it without")
        if not isinstance(data, Data):
            try:
                (x, labels), (val, val_labels) = data
            except (TypeError, ValueError) as error:
                raise BittrueError(
                    "fit: give a data set, or ((samples, labels), (samples, labels)) for training and validation"
                ) from error
            data = _Sets(_Samples(x, self._labels(labels)), _Samples(val, self._labels(val_labels)))
        return qat.fit(self, data, settings, **options)

    def _labels(self, labels: Any) -> Any:
        """Labels as arrays, one for each result."""
        parts = labels if isinstance(labels, tuple) else (labels,)
        if len(parts) != len(self._ends.results):
            raise BittrueError(f"fit: the network has {len(self._ends.results)} results, got labels of {len(parts)}")
        found = tuple(map(np.asarray, parts))
        return found[0] if len(found) == 1 else found

    def sensitivity(self, x: Any, labels: Any, bits: Sequence[int] = (6, 4, 3, 2)) -> Sensitivity:
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


def batch(x: Any, preprocess: Callable[[np.ndarray], Any], names: Sequence[str]) -> Batch:
    """Samples of the inputs of these names: of the only one an array, else a tuple, or a dictionary by name."""
    if isinstance(x, Mapping):
        if sorted(map(str, x)) != sorted(names):
            raise BittrueError(f"the inputs are {', '.join(names)}, got samples of {', '.join(map(str, x)) or 'none'}")
        x = tuple(x[name] for name in names)
    parts = x if isinstance(x, tuple) else (x,)
    if len(parts) != len(names):
        raise BittrueError(
            f"the network has {len(names)} inputs ({', '.join(names)}), got samples of {len(parts)}; give theirs in a "
            "tuple"
        )
    found = tuple(samples(part, preprocess) for part in parts)
    if len({len(part) for part in found}) > 1:
        counts = ", ".join(f"{len(part)} of {name}" for name, part in zip(names, found, strict=True))
        raise BittrueError(f"there are {counts}; give as many samples of each input")
    return Batch(found)


def _codes(real: Tensor, entry: TensorInput, start: Layout) -> np.ndarray:
    """Samples of an input as codes, in its layout."""
    codes = torch.floor(real / entry.scale + 0.5)
    most, top = float(real.abs().max()), entry.high * entry.scale
    if codes.numel() and float(((codes < entry.low) | (codes > entry.high)).float().mean()) > BEYOND:
        raise BittrueError(
            f"encode: values reach {most:.4g}, and codes {top:.4g}; scale them as "
            "the calibration data were, or convert again with those"
        )
    flat = codes.clamp(entry.low, entry.high).to(torch.int8).reshape(len(codes), -1).numpy()
    return np.ascontiguousarray(flat[:, start.order].reshape(len(flat), *start.shape))


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
