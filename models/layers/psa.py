"""PSA, a learnable 1-D function of each channel, and LERP-PSA, the same function on a grid of points.

    PSA_c(x) = o_w[c] * sum_k softmax_k(-(x - b[c,k])^2 / (w[c,k]^2 + 1)) * v[c,k] * x + o_b[c] + x

The last `+ x` is the residual, inside the function. LERP-PSA evaluates it at G points evenly spaced over
[-R, R] once per step, through autograd, and interpolates linearly between them; beyond the grid the outermost
segment continues. Since the identity is linear, the residual costs nothing there: it is part of the grid.
Source: Singh et al., ACM TRETS 18(2), 2025 (PSA and its initialisation, LERP-PSA).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.layers import fused


class Psa(nn.Module):
    """PSA with its residual, exact. Input and output `[..., C]`, float; K = `terms` a channel."""

    def __init__(self, channels: int, terms: int = 8) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(channels, terms) * 4)
        self.centre = nn.Parameter(torch.rand(channels, terms) * 2 - 1)
        self.width = nn.Parameter(torch.ones(channels, terms))
        self.gain = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def exact(self, x: Tensor) -> Tensor:
        """The equation in the module's docstring, with the terms along the first axis so that it vectorises."""
        value, centre, width = (
            p.T.reshape(-1, *[1] * (x.ndim - 1), len(p)) for p in (self.value, self.centre, self.width)
        )
        attention = torch.softmax(-(x - centre).square() / (width.square() + 1), 0)
        return self.gain * (attention * value).sum(0) * x + self.offset + x

    def forward(self, x: Tensor) -> Tensor:
        return self.exact(x)


class LerpPsa(Psa):
    """PSA interpolated between `points` grid points over [-`span`, `span`]; same parameters."""

    def __init__(self, channels: int, terms: int = 8, points: int = 64, span: float = 4.0) -> None:
        super().__init__(channels, terms)
        self.points, self.span = points, span

    def grid(self) -> Tensor:
        """The function at the grid points, `[C, G]`."""
        at = torch.linspace(-self.span, self.span, self.points, device=self.value.device, dtype=self.value.dtype)
        return self.exact(at[:, None].expand(-1, len(self.value))).T.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, self.grid(), self.span)


def interpolate(x: Tensor, grid: Tensor, span: float) -> Tensor:
    """`x` `[..., C]` through the piecewise linear functions `grid` `[C, G]` over [-span, span].

        t = (x + span) * (G - 1) / (2 span),  i = clamp(floor(t), 0, G - 2),  y = g[i] + (t - i) (g[i+1] - g[i])

    Fused passes on a CPU in float32, plain torch elsewhere.
    """
    if x.device.type == "cpu" and x.dtype == grid.dtype == torch.float32:
        return _Interpolate.apply(x, grid, span)
    return interpolate_plain(x, grid, span)


def interpolate_plain(x: Tensor, grid: Tensor, span: float) -> Tensor:
    """`interpolate` in torch operations with their own gradients."""
    channels, points = grid.shape
    t = (x + span) * ((points - 1) / (2 * span))
    i = t.detach().floor().clamp(0, points - 2).nan_to_num(0)
    index = i.long() + torch.arange(channels, device=x.device) * points
    flat = grid.reshape(-1)
    left, right = flat[index], flat[index + 1]
    return left + (t - i) * (right - left)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, grid: Tensor, span: float) -> Tensor:
        x, grid = x.contiguous(), grid.contiguous()
        y = torch.empty_like(x)
        ctx.save_for_backward(x, grid)
        ctx.spacing = np.float32(-span), np.float32((grid.shape[1] - 1) / (2 * span))
        fused.lerp_forward(fused.rows(x), fused.rows(grid), *ctx.spacing, fused.rows(y))
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, grid = ctx.saved_tensors
        dx, dgrid = torch.empty_like(x), torch.zeros_like(grid)
        arrays = (fused.rows(v) for v in (dy.contiguous(), dx, dgrid))
        fused.lerp_backward(fused.rows(x), fused.rows(grid), *ctx.spacing, *arrays)
        return dx, dgrid, None
