"""Functions of each value, recognised by what they give: whatever they are written with.

Candidates are a function that is the same everywhere, and one that differs along one axis of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bittrue.sim.errors import BittrueError

#: Values at which a result is compared with that of the same value elsewhere.
PROBES = 64
#: Points at which a function is looked at to tell what it is.
POINTS = 4097
_CLOSE = 1e-5


@dataclass(frozen=True)
class Recognised:
    """What a function is: `affine` (gain and offset), a clamp (`limits`), a clamp at 0 of an affine (both), or none of
    these; it differs along `along`."""

    along: int | None
    affine: tuple[Tensor, Tensor] | None = None
    limits: tuple[float, float] | None = None

    @property
    def identity(self) -> bool:
        """Whether it gives what it reads."""
        if self.affine is None or self.limits is not None:
            return False
        gain, offset = self.affine
        return bool((gain == 1).all() and (offset == 0).all())


def spread(values: Tensor, shape: tuple[int, ...], along: int | None) -> Tensor:
    """Values `[points]` as samples whose axes have length 1, but for `along`: `[points, 1, .., size, .., 1]`."""
    sizes = [size if axis == along else 1 for axis, size in enumerate(shape)]
    return values.view(-1, *[1] * len(shape)).expand(-1, *sizes).contiguous()


def differs_along(call: Callable[[Tensor], Tensor], read: Tensor, given: Tensor) -> tuple[bool, int | None]:
    """Whether `given = call(read)` is a function of each value, and along which axis of a sample it differs."""
    if read.shape != given.shape or not read.is_floating_point() or not given.is_floating_point():
        return False, None
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randint(read.numel(), (PROBES,), generator=generator)
    values, expected = read.flatten()[chosen], given.flatten()[chosen]
    places = torch.unravel_index(chosen, read.shape)
    shape = tuple(read.shape[1:])
    for along in (None, *range(len(shape))):
        try:
            found = call(spread(values, shape, along)).reshape(PROBES, -1)
        except Exception:  # noqa: S112  (a function that wants another shape is none of each value)
            continue
        if found.shape[1] != (1 if along is None else shape[along]):
            continue
        index = 0 if along is None else places[along + 1]
        if torch.allclose(found[torch.arange(PROBES), index], expected, rtol=1e-4, atol=1e-5, equal_nan=True):
            return True, along
    return False, None


def recognise(call: Callable[[Tensor], Tensor], shape: tuple[int, ...], along: int | None, reach: float) -> Recognised:
    """What a function of each value is between `-reach` and `reach`."""
    points = torch.linspace(-reach, reach, POINTS)
    with torch.no_grad():
        y = call(spread(points, shape, along)).reshape(POINTS, -1)
        if not y.isfinite().all():
            return Recognised(along)
        ends = call(spread(torch.tensor([0.0, 1.0]), shape, along)).reshape(2, -1)
    offset, gain = ends[0], ends[1] - ends[0]
    line = points[:, None] * gain + offset
    if ((y - line).abs() <= _CLOSE * (reach * gain.abs() + offset.abs() + 1e-30)).all():
        return Recognised(along, affine=(_plain(gain), _plain(offset)))
    low, high = float(y.min()), float(y.max())
    if along is None and torch.equal(y[:, 0], points.clamp(low, high)):
        return Recognised(along, limits=(-torch.inf if low <= -reach else low, torch.inf if high >= reach else high))
    if low == 0 and (line := _above_zero(points, y)) is not None:
        return Recognised(along, affine=line, limits=(0.0, torch.inf))
    return Recognised(along)


def _above_zero(points: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Gain and offset of lines that are functions `[points, C]` where those are not 0; None: they are no such lines."""
    positive, every = y > 0, torch.arange(y.shape[1])
    first, last = positive.int().argmax(0), len(y) - 1 - positive.flip(0).int().argmax(0)
    some = positive.any(0) & (last > first)
    rise, run = y[last, every] - y[first, every], points[last] - points[first]
    gain = torch.where(some, rise / torch.where(some, run, 1), 0)
    offset = torch.where(some, y[last, every] - gain * points[last], 0)
    line = (points[:, None] * gain + offset).clamp(min=0)
    close = (y - line).abs() <= _CLOSE * (points.abs().max() * gain.abs() + offset.abs() + 1e-30)
    return (_plain(gain), _plain(offset)) if close.all() else None


def _plain(x: Tensor) -> Tensor:
    """Values that are whole but for the rounding of floats as whole numbers."""
    whole = x.round()
    return torch.where((x - whole).abs() <= _CLOSE, whole, x).clone()


def table(call: Callable[[Tensor], Tensor], shape: tuple[int, ...], along: int | None, values: Tensor) -> Tensor:
    """The functions `[C, points]` at values `[points]`; C is 1 where all share one. Refuses what is not finite."""
    with torch.no_grad():
        found = call(spread(values, shape, along)).reshape(len(values), -1).T
    if not found.isfinite().all():
        worst = float(values[(~found.isfinite()).any(0).nonzero()[0, 0]])
        raise BittrueError(
            f"its result at {worst:.4g} is not finite, and it may read such values by its calibration; limit what it "
            "reads, for example with torch.clamp"
        )
    return found
