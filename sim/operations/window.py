"""Windows of an image or of a sequence: the reading order in front of a convolution or a pool."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bittrue.sim.bases import Moving
from bittrue.sim.contract import Format, Range, axes
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.window import Reading
from bittrue.sim.operation import Constant, TensorType


@dataclass(frozen=True, eq=False)
class Window(Moving):
    """`y[r, s, i * kw + j, c] = x[r * sy + i * dy - top, s * sx + j * dx - left, c]`, and `fill` outside the image.

    Input `[H, W, C]`, output `[OH, OW, kh * kw, C]` in the same format; OH = (H + top + bottom - dy (kh - 1) - 1) / sy
    + 1, rounded down, OW likewise. A sequence `[T, C]` is an image of one row (`Reshape`).

    kernel    (kh, kw)          stride   (sy, sx)          dilation  (dy, dx)
    padding   (top, bottom, left, right) codes of `fill` around the image; `fill` is the code of real zero for a
              convolution, the lowest code for a maximum
    A window that lies beside the image, seeing nothing of it, is refused.
    """

    input: TensorType
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: int = 0

    def __post_init__(self) -> None:
        if len(self.input.shape) != 3:
            raise BittrueError(
                f"window: input {self.input} has {len(self.input.shape)} axes, expected rows, columns, channels; "
                "reshape it (a sequence is an image of one row)"
            )
        for name, count, least in (("kernel", 2, 1), ("stride", 2, 1), ("dilation", 2, 1), ("padding", 4, 0)):
            values = axes(getattr(self, name), f"window: {name}")
            if len(values) != count or min(values) < least:
                raise BittrueError(f"window: {name} is {count} whole numbers of at least {least}, not {values}")
            object.__setattr__(self, name, values)
        fill, fmt = self.fill, self.input.format
        if isinstance(fill, bool) or not isinstance(fill, int | np.integer) or not fmt.holds(int(fill)):
            raise BittrueError(f"window: its fill, {fill!r}, is no code of {fmt} ({fmt.low}..{fmt.high})")
        object.__setattr__(self, "fill", int(fill))
        for axis, (name, reach) in enumerate(zip(("rows", "columns"), self.reach, strict=True)):
            padded = self.input.shape[axis] + sum(self.padding[2 * axis : 2 * axis + 2])
            if reach > padded:
                raise BittrueError(
                    f"window: it spans {reach} {name}, but the padded image has {padded}; take a smaller kernel or "
                    "dilation, or pad more"
                )
            seen = self.seen(axis)
            if not seen.any(axis=1).all():
                lost = int(np.flatnonzero(~seen.any(axis=1))[0])
                raise BittrueError(
                    f"window: number {lost} of those along the {name} sees nothing of the image; pad less"
                )

    # -- geometry --------------------------------------------------------------------------------------
    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns from the first tap to the last."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))  # type: ignore[return-value]

    @property
    def windows(self) -> tuple[int, int]:
        """OH and OW."""
        padded = [self.input.shape[a] + sum(self.padding[2 * a : 2 * a + 2]) for a in (0, 1)]
        return tuple((n - r) // s + 1 for n, r, s in zip(padded, self.reach, self.stride, strict=True))  # type: ignore[return-value]

    @property
    def taps(self) -> int:
        """kh * kw."""
        return self.kernel[0] * self.kernel[1]

    def places(self, axis: int) -> np.ndarray:
        """Row (axis 0) or column (axis 1) of every tap of every window, int64 `[windows, taps]`; may lie outside."""
        return self.reading.places(axis)

    def seen(self, axis: int) -> np.ndarray:
        """Which of these places lie in the image, bool `[windows, taps]`."""
        return self.reading.seen(axis)

    @property
    def whole(self) -> bool:
        """Whether it is the image itself: a kernel of one tap, no step, no padding."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding)

    # -- types -----------------------------------------------------------------------------------------
    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return (self.input,)

    @property
    def output(self) -> TensorType:
        return TensorType((*self.windows, self.taps, self.input.channels), self.input.format)

    @property
    def constants(self) -> dict[str, Constant]:
        names = ("rows", "columns", "channels"), ("kernel_rows", "kernel_columns"), ("windows_down", "windows_across")
        values = self.input.shape, self.kernel, self.windows
        geometry = {n: v for of, at in zip(names, values, strict=True) for n, v in zip(of, at, strict=True)}
        lines = min(self.input.shape[0], self.reach[0] + self.stride[0] - 1)  # rows seen, and those not yet forgotten
        steps = {"lines": lines, "step_down": self.stride[0], "step_across": self.stride[1]}
        spread = {"spread_down": self.dilation[0], "spread_across": self.dilation[1]}
        return {**geometry, **steps, **spread, "top": self.padding[0], "left": self.padding[2], "fill": self.fill}

    def reached(self, *x: Range) -> Range:
        return x[0] | Range(self.fill, self.fill)

    # -- execution -------------------------------------------------------------------------------------
    def wide(self, *x: np.ndarray) -> np.ndarray:
        (codes,) = x
        height, width, channels = self.input.shape
        down, across = self.windows
        y = np.full((len(codes), down, across, self.taps, channels), self.fill, np.int64)
        for r, s in np.ndindex(down, across):
            for i, j in np.ndindex(*self.kernel):
                row = r * self.stride[0] + i * self.dilation[0] - self.padding[0]
                column = s * self.stride[1] + j * self.dilation[1] - self.padding[2]
                if 0 <= row < height and 0 <= column < width:
                    y[:, r, s, i * self.kernel[1] + j] = codes[:, row, column]
        return y

    @cached_property
    def reading(self) -> Reading:
        """The rows that a matrix product takes of it, without the tensor between them."""
        corner = (-self.padding[0], -self.padding[2])
        shape = (*self.windows, self.input.channels)
        fmt = self.input.format
        return Reading(self.input.shape, shape, self.kernel, self.stride, self.dilation, corner, self.fill, fmt.dtype)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        out = np.empty((len(x[0]), *self.output.shape), self.output.format.dtype)
        self.reading(x[0], 0, out.reshape(-1, self.reading.size))
        return out, 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Window:
        fmt = Format(8) if rng.random() < 0.6 else Format(int(rng.integers(1, 12)), bool(rng.random() < 0.5))
        while True:
            pick = lambda high, count: tuple(int(v) for v in rng.integers(1, high, count))  # noqa: E731
            shape, padding = pick(8, 2), tuple(int(v) for v in rng.integers(0, 3, 4))
            kind = TensorType((*shape, int(rng.choice([1, 2, 3, 4, 6]))), fmt)
            fill = int(rng.integers(fmt.low, fmt.high + 1))
            try:
                return cls(kind, pick(4, 2), pick(4, 2), pick(3, 2), padding, fill)
            except BittrueError:
                continue  # windows beside the image
