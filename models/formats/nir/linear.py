"""The linear nodes of a NIR graph as matrices on flattened maps: convolutions and pooling are unrolled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import nir
import numpy as np

from bittrue.models.formats.nir import values
from bittrue.sim.errors import BittrueError

#: Largest matrix to which a convolution or pooling is unrolled, in entries.
MAX_ENTRIES = 1 << 22
LINEAR = (nir.Affine, nir.Linear, nir.Scale, nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d, nir.Flatten)


@dataclass(frozen=True, eq=False)
class LinearMap:
    """`y = matrix @ x + bias` on flattened maps, float64; a `matrix` of one axis is a diagonal."""

    matrix: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Apply to `[..., K]`."""
        return (x * self.matrix if self.matrix.ndim == 1 else x @ self.matrix.T) + self.bias

    def after(self, first: LinearMap) -> LinearMap:
        """This map after another one, as one map."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused by who needs it
            if self.matrix.ndim == 1:
                scale = self.matrix if first.matrix.ndim == 1 else self.matrix[:, None]
                matrix = scale * first.matrix
            else:
                matrix = self.matrix * first.matrix if first.matrix.ndim == 1 else self.matrix @ first.matrix
            return LinearMap(matrix, self(first.bias))

    @staticmethod
    def identity(size: int) -> LinearMap:
        return LinearMap(np.ones(size), np.zeros(size))


def linear_map(node: nir.NIRNode, name: str, shape: tuple[int, ...]) -> tuple[LinearMap, tuple[int, ...]]:
    """The node as a map of flattened tensors, and its output shape."""
    kind, size = type(node).__name__, int(np.prod(shape))

    def mismatch(expected: object) -> BittrueError:
        return BittrueError(
            f"NIR node {name!r} ({kind}) expects an input of shape {expected}, but {list(shape)} arrives"
        )

    if isinstance(node, nir.Flatten):
        ends = [
            values.whole(node, name, key, 1, -values.MAX_AXES, values.MAX_AXES)[0] for key in ("start_dim", "end_dim")
        ]
        first, last = (end + len(shape) if end < 0 else end for end in ends)
        if not 0 <= first <= last < len(shape):
            raise mismatch(f"with axes {ends[0]} to {ends[1]} (from 0, or from -1 at the end; without the batch)")
        out = (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])
        return LinearMap.identity(size), out
    if isinstance(node, nir.Scale):
        scale = values.numbers(node, name, "scale")
        if scale.size not in (1, size):
            raise mismatch(list(scale.shape))
        return LinearMap(np.broadcast_to(scale.reshape(-1), (size,)), np.zeros(size)), shape
    if isinstance(node, nir.Affine | nir.Linear):
        weight = values.numbers(node, name, "weight")
        if weight.ndim != 2 or shape != (weight.shape[1],):
            raise mismatch(f"[{weight.shape[-1] if weight.ndim else 1}], a vector (put a Flatten before it)")
        bias = _bias(node, len(weight), name) if isinstance(node, nir.Affine) else np.zeros(len(weight))
        return LinearMap(weight, bias), (len(weight),)
    axes = 1 if isinstance(node, nir.Conv1d) else 2
    if len(shape) != axes + 1:
        raise mismatch(f"[channels, {', '.join(['size'] * axes)}]")
    stride = values.whole(node, name, "stride", axes, 1)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        weight, groups = values.numbers(node, name, "weight"), values.whole(node, name, "groups", 1, 1)[0]
        if weight.ndim != axes + 2 or weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
            channels = weight.shape[1] * groups if weight.ndim > 1 else "channels"
            raise mismatch(f"[{channels}, ...] (weight {list(weight.shape)}, {groups} groups)")
        bias = _bias(node, len(weight), name)
        dilation = values.whole(node, name, "dilation", axes, 1)
        padding = _padding(node, weight.shape[2:], stride, dilation, name)
    else:
        kernel = values.whole(node, name, "kernel_size", axes, 1)
        if int(np.prod(kernel)) * shape[0] > MAX_ENTRIES:
            raise mismatch(f"larger than its kernel {list(kernel)}")
        # As in torch, AvgPool2d divides by the whole window, padding included.
        worth = 1 / np.prod(kernel) if isinstance(node, nir.AvgPool2d) else 1.0
        weight, groups, bias = np.full((shape[0], 1, *kernel), worth), shape[0], np.zeros(shape[0])
        dilation, padding = (1,) * axes, tuple((p, p) for p in values.whole(node, name, "padding", axes, 0))
    return _unrolled(weight, bias, groups, shape, stride, padding, dilation, name, kind)


def _bias(node: nir.NIRNode, outputs: int, name: str) -> np.ndarray:
    bias = values.numbers(node, name, "bias")
    if bias.size not in (1, outputs):
        raise values.refused(node, name, f"{outputs} outputs, but a bias of shape {list(bias.shape)}")
    return np.broadcast_to(bias.reshape(-1), (outputs,))


def _padding(
    node: nir.NIRNode, kernel: tuple, stride: tuple, dilation: tuple, name: str
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each axis; 'same' puts the odd one after, as torch does."""
    value = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if not isinstance(value, str):
        return tuple((p, p) for p in values.whole(node, name, "padding", len(kernel), 0))
    if value == "same":
        if set(stride) != {1}:
            raise BittrueError(f"NIR node {name!r}: padding 'same' is defined for stride 1 only, not {list(stride)}")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((n // 2, n - n // 2) for n in total)
    if value != "valid":
        raise values.refused(node, name, f"padding is {value!r:.60}; 'same', 'valid' or whole numbers can be")
    return ((0, 0),) * len(kernel)


def _unrolled(
    weight: np.ndarray,
    bias: np.ndarray,
    groups: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    name: str,
    kind: str,
) -> tuple[LinearMap, tuple[int, ...]]:
    """A convolution as one matrix on flattened maps; weight `[C_out, C_in / groups, *kernel]`."""
    kernel, extent = weight.shape[2:], shape[1:]
    spans = [n + sum(p) - d * (k - 1) - 1 for n, p, d, k in zip(extent, padding, dilation, kernel, strict=True)]
    if min(spans) < 0:
        raise BittrueError(
            f"NIR node {name!r} ({kind}): its kernel {list(kernel)} is larger than the map {list(shape)}"
        )
    out = (len(weight), *(span // s + 1 for span, s in zip(spans, stride, strict=True)))
    size = math.prod(shape)
    rows = math.prod(out)
    if rows * max(size, math.prod(kernel)) > MAX_ENTRIES:
        raise BittrueError(
            f"NIR node {name!r} ({kind}): unrolled to a matrix of {rows} x {size}, which exceeds "
            f"{MAX_ENTRIES} entries; convolutions are supported on small maps only"
        )
    matrix = np.zeros((*out, *shape))
    per_group = len(weight) // groups
    for channel in range(out[0]):
        inputs = np.arange(weight.shape[1]) + channel // per_group * weight.shape[1]
        for place in np.ndindex(*out[1:]):
            for tap in np.ndindex(*kernel):
                at = tuple(
                    p * s - pad[0] + k * d
                    for p, s, pad, k, d in zip(place, stride, padding, tap, dilation, strict=True)
                )
                if all(0 <= a < n for a, n in zip(at, extent, strict=True)):
                    matrix[(channel, *place, inputs, *at)] += weight[(channel, slice(None), *tap)]
    return LinearMap(matrix.reshape(rows, size), np.repeat(bias, rows // out[0])), out
