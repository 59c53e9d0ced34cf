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
def requantize(acc: Tensor, shift: Tensor, bias: Tensor, low: int, high: int) -> Tensor:
    """`clamp(floor(acc * 2^-shift + 0.5) + bias, low, high)` in float32, a shift and a bias for each channel.

    Channels are the last axis of `acc`. No gradient passes where the value was clamped.
    """
    factor = (1 / POWERS.to(shift.device)[shift.long()]).to(acc.dtype)
    if acc.device.type != "cpu":
        return requantize_plain(acc, factor, bias, low, high)
    return _Requantize.apply(acc, factor, bias, low, high)


def requantize_plain(acc: Tensor, factor: Tensor, bias: Tensor, low: int, high: int) -> Tensor:
    """`requantize` in torch operations, with `factor = 2^-shift`."""
    return (round_through(acc * factor).to(torch.float32) + bias).clamp(low, high)


class _Requantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, acc: Tensor, factor: Tensor, bias: Tensor, low: int, high: int) -> Tensor:
        acc = acc.contiguous()
        y, inside = torch.empty(acc.shape), torch.empty(acc.shape, dtype=torch.bool)
        ctx.save_for_backward(factor, inside)
        limits, vectors = (np.float32(low), np.float32(high)), (_vector(factor), _vector(bias))
        fused.requantize_forward(fused.rows(acc), *vectors, *limits, fused.rows(y), fused.rows(inside))
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        factor, inside = ctx.saved_tensors
        dacc, dbias = torch.empty(dy.shape, dtype=factor.dtype), torch.zeros(len(factor))
        arrays = fused.rows(dy.contiguous()), fused.rows(inside), _vector(factor), fused.rows(dacc)
        fused.requantize_backward(*arrays, dbias.numpy())
        return dacc, None, dbias, None, None


def _vector(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


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
