"""The linear nodes of a NIR graph as matrices on flattened maps: convolutions and pooling are unrolled."""

from __future__ import annotations

from dataclasses import dataclass

import nir
import numpy as np

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
        first, last = int(node.start_dim) % len(shape), int(node.end_dim) % len(shape)
        if first > last:
            raise mismatch(f"with axes {int(node.start_dim)} to {int(node.end_dim)} in order")
        out = (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])
        return LinearMap.identity(size), out
    if isinstance(node, nir.Scale):
        scale = np.asarray(node.scale, np.float64)
        if scale.size not in (1, size):
            raise mismatch(list(scale.shape))
        return _finite(LinearMap(np.broadcast_to(scale.reshape(-1), (size,)), np.zeros(size)), name, kind), shape
    if isinstance(node, nir.Affine | nir.Linear):
        weight = np.asarray(node.weight, np.float64)
        if weight.ndim != 2 or shape != (weight.shape[1],):
            raise mismatch(f"[{weight.shape[-1]}], a vector (put a Flatten before it)")
        bias = _bias(node.bias if isinstance(node, nir.Affine) else 0.0, len(weight), name, kind)
        return _finite(LinearMap(weight, bias), name, kind), (len(weight),)
    axes = 1 if isinstance(node, nir.Conv1d) else 2
    if len(shape) != axes + 1:
        raise mismatch(f"[channels, {', '.join(['size'] * axes)}]")
    stride = _each(node.stride, axes)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        weight, groups = np.asarray(node.weight, np.float64), int(node.groups)
        if weight.ndim != axes + 2 or weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
            raise mismatch(f"[{weight.shape[1] * groups}, ...] (weight {list(weight.shape)}, {groups} groups)")
        bias = _bias(node.bias, len(weight), name, kind)
        dilation = _each(node.dilation, axes)
        padding = _padding(node.padding, weight.shape[2:], stride, dilation, name)
    else:
        kernel = _each(node.kernel_size, axes)
        # As in torch, AvgPool2d divides by the whole window, padding included.
        worth = 1 / np.prod(kernel) if isinstance(node, nir.AvgPool2d) else 1.0
        weight, groups, bias = np.full((shape[0], 1, *kernel), worth), shape[0], np.zeros(shape[0])
        dilation, padding = (1,) * axes, tuple((p, p) for p in _each(node.padding, axes))
    linear, out = _unrolled(weight, bias, groups, shape, stride, padding, dilation, name, kind)
    return _finite(linear, name, kind), out


def _bias(value: object, outputs: int, name: str, kind: str) -> np.ndarray:
    bias = np.asarray(value, np.float64)
    if bias.size not in (1, outputs):
        raise BittrueError(f"NIR node {name!r} ({kind}): {outputs} outputs, but a bias of shape {list(bias.shape)}")
    return np.broadcast_to(bias.reshape(-1), (outputs,))


def _finite(linear: LinearMap, name: str, kind: str) -> LinearMap:
    if not (np.isfinite(linear.matrix).all() and np.isfinite(linear.bias).all()):
        raise BittrueError(f"NIR node {name!r} ({kind}): its parameters hold values that are not finite")
    return linear


def _each(value: object, axes: int) -> tuple[int, ...]:
    return tuple(int(v) for v in np.broadcast_to(np.asarray(value).reshape(-1), (axes,)))


def _padding(value: object, kernel: tuple, stride: tuple, dilation: tuple, name: str) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each axis; 'same' puts the odd one after, as torch does."""
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        return tuple((p, p) for p in _each(value, len(kernel)))
    if value == "same":
        if set(stride) != {1}:
            raise BittrueError(f"NIR node {name!r}: padding 'same' is defined for stride 1 only, not {list(stride)}")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((n // 2, n - n // 2) for n in total)
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
    size = int(np.prod(shape))
    if int(np.prod(out)) * size > MAX_ENTRIES:
        raise BittrueError(
            f"NIR node {name!r} ({kind}): unrolled to a matrix of {int(np.prod(out))} x {size}, which exceeds "
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
    rows = int(np.prod(out))
    return LinearMap(matrix.reshape(rows, size), np.repeat(bias, rows // out[0])), out
