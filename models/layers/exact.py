"""Exact integer arithmetic on float tensors, with straight-through gradients: rounding, requantising, tables.

Each function has a fused form for float tensors on a CPU and a plain one, in torch operations, for any device;
both give the same whole numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bittrue.models.layers import fused

#: 2^0 .. 2^47, exact: torch's own powers may be off by a bit.
POWERS = torch.tensor([float(1 << k) for k in range(48)])


class _RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # noqa: ARG004  (autograd's signature)
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:  # noqa: ARG004
        return dy


def round_through(x: Tensor) -> Tensor:
    """`floor(x + 0.5)`; the gradient passes as if nothing had been rounded."""
    return _RoundThrough.apply(x)


# -- requantise ----------------------------------------------------------------------------------------
def requantize(
    acc: Tensor,
    shift: Tensor,
    bias: Tensor,
    low: int,
    high: int,
    *,
    weight: Tensor | None = None,
    channels_first: bool = False,
) -> Tensor:
    """`clamp(floor(acc * 2^-shift + 0.5) + bias, low, high)` in float32, a shift and a bias for each channel.

    Channels are the last axis of `acc`, or the first with `channels_first`. With `weight`, `acc` is multiplied
    by it first, channel by channel. No gradient passes where the value was clamped.
    """
    factor = (1 / POWERS.to(shift.device)[shift.long()]).to(acc.dtype)
    if acc.device.type != "cpu":
        return requantize_plain(acc, factor, bias, low, high, weight, channels_first)
    if weight is not None:
        return _Affine.apply(acc, weight, factor, bias, low, high)
    return _Requantize.apply(acc, factor, bias, low, high, channels_first)


def requantize_plain(
    acc: Tensor, factor: Tensor, bias: Tensor, low: int, high: int, weight: Tensor | None, channels_first: bool
) -> Tensor:
    """`requantize` in torch operations, with `factor = 2^-shift`."""
    if channels_first:
        trailing = (-1,) + (1,) * (acc.ndim - 1)
        factor, bias = factor.view(trailing), bias.view(trailing)
    if weight is not None:
        acc = acc * weight
    return (round_through(acc * factor).to(torch.float32) + bias).clamp(low, high)


class _Requantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, acc: Tensor, factor: Tensor, bias: Tensor, low: int, high: int, channels_first: bool) -> Tensor:
        acc = acc.contiguous()
        y, inside = torch.empty(acc.shape), torch.empty(acc.shape, dtype=torch.bool)
        ctx.save_for_backward(factor, inside)
        ctx.channels_first = channels_first
        kernel = fused.requantize_rows_forward if channels_first else fused.requantize_forward
        limits = np.float32(low), np.float32(high)
        rows = _first_axis if channels_first else fused.rows
        kernel(rows(acc), _vector(factor), _vector(bias), *limits, rows(y), rows(inside))
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        factor, inside = ctx.saved_tensors
        dacc, dbias = torch.empty(dy.shape, dtype=factor.dtype), torch.zeros(len(factor))
        kernel = fused.requantize_rows_backward if ctx.channels_first else fused.requantize_backward
        rows = _first_axis if ctx.channels_first else fused.rows
        kernel(rows(dy.contiguous()), rows(inside), _vector(factor), rows(dacc), dbias.numpy())
        return dacc, None, dbias, None, None, None


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, factor: Tensor, bias: Tensor, low: int, high: int) -> Tensor:
        x = x.contiguous()
        y, inside = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)
        ctx.save_for_backward(x, weight, factor, inside)
        vectors = _vector(weight), _vector(factor), _vector(bias)
        fused.affine_forward(
            fused.rows(x), *vectors, np.float32(low), np.float32(high), fused.rows(y), fused.rows(inside)
        )
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight, factor, inside = ctx.saved_tensors
        dx, dweight, dbias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        fused.affine_backward(
            fused.rows(x),
            _vector(weight),
            _vector(factor),
            fused.rows(dy.contiguous()),
            fused.rows(inside),
            fused.rows(dx),
            dweight.numpy(),
            dbias.numpy(),
        )
        return dx, dweight, None, dbias, None, None


def _vector(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def _first_axis(x: Tensor) -> np.ndarray:
    return x.detach().view(len(x), -1).numpy()


# -- tables --------------------------------------------------------------------------------------------
def expand(knots: Tensor, fraction_bits: int) -> Tensor:
    """A table's value at every code: knots `[C, segments + 1]` in whole numbers to `[C, segments * 2^f]`.

    `T[m * 2^f + l] = L[m] + floor((L[m+1] - L[m]) * l / 2^f + 0.5)`; the gradient is that of the interpolation.
    """
    step = 1 << fraction_bits
    share = torch.arange(step, device=knots.device, dtype=knots.dtype) / step
    left, right = knots[:, :-1, None], knots[:, 1:, None]
    return (left + round_through((right - left) * share)).flatten(1)


def interpolate_codes(x: Tensor, knots: Tensor, low: int, fraction_bits: int) -> Tensor:
    """Codes `[..., C]` through tables of whole-number knots `[C, segments + 1]`; `low` is the lowest code."""
    if x.device.type == "cpu":
        return _Table.apply(x, knots, low, fraction_bits)
    return interpolate_codes_plain(x, knots, low, fraction_bits)


def interpolate_codes_plain(x: Tensor, knots: Tensor, low: int, fraction_bits: int) -> Tensor:
    """`interpolate_codes` in torch operations."""
    table = expand(knots, fraction_bits)
    channels, levels = table.shape
    code = (x.detach().nan_to_num(low) - low).clamp(0, levels - 1).long()
    channel = torch.arange(channels, device=x.device)
    slope = knots.detach().diff(dim=1).flatten()[code // (1 << fraction_bits) + channel * (knots.shape[1] - 1)]
    y = table.flatten()[code + channel * levels]
    return y + (x - x.detach()) * (slope / (1 << fraction_bits))  # adds 0, and the slope to the gradient of x


class _Table(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, knots: Tensor, low: int, fraction_bits: int) -> Tensor:
        x, knots = x.contiguous(), knots.contiguous()
        y = torch.empty_like(x)
        ctx.save_for_backward(x, knots)
        ctx.layout = np.float32(low), fraction_bits
        fused.table_forward(fused.rows(x), fused.rows(expand(knots, fraction_bits)), np.float32(low), fused.rows(y))
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, knots = ctx.saved_tensors
        dx, dknots = torch.empty_like(x), torch.zeros_like(knots)
        arrays = (fused.rows(v) for v in (dy.contiguous(), dx, dknots))
        fused.table_backward(fused.rows(x), fused.rows(knots), *ctx.layout, *arrays)
        return dx, dknots, None, None
