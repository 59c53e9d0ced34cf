"""Gathering windows: rows of codes copied out of images a block at a time, so that no tensor of windows is made."""

from __future__ import annotations

import numpy as np

from bittrue.sim.kernels.epilogue import bytes_of
from bittrue.sim.kernels.jit import jit

#: Bytes of a block of gathered rows: it stays in the second-level cache, beside the weights.
BLOCK = 1 << 17


@jit
def _copy(source, into):
    for k in range(into.size):
        into[k] = source[k]


@jit
def gather(x, columns, kernel, stride, dilation, corner, fill, first, out):
    """Windows `first`, `first + 1`, ... of the images `x [n, H, W, C]` into `out [windows, kh * kw * C]`.

    `columns` are the windows of a row and of an image; `corner` is the place of the first window's first tap.
    """
    height, width, channels = x.shape[1:]
    flat, into = x.reshape(-1), out.reshape(-1)
    across, total = columns
    run, row_size = kernel[1] * channels, out.shape[1]
    for r in range(out.shape[0]):
        image, at = divmod(first + r, total)
        row, column = divmod(at, across)
        top, left = row * stride[0] + corner[0], column * stride[1] + corner[1]
        straight = dilation[1] == 1 and left >= 0 and left + kernel[1] <= width
        to = r * row_size
        for i in range(kernel[0]):
            y = top + i * dilation[0]
            if not 0 <= y < height:
                into[to : to + run] = fill
            elif straight:
                _copy(flat[((image * height + y) * width + left) * channels :], into[to : to + run])
            else:
                for j in range(kernel[1]):
                    x_at, here = left + j * dilation[1], into[to + j * channels : to + (j + 1) * channels]
                    if 0 <= x_at < width:
                        _copy(flat[((image * height + y) * width + x_at) * channels :], here)
                    else:
                        here[:] = fill
            to += run


class Reading:
    """An order in which codes are read: rows of `size` codes, `rows` of them a sample, taken out of a tensor.

    image   H, W, C     shape   OH, OW, C     corner   row and column of the first window's first tap
    """

    def __init__(self, image, shape, kernel, stride, dilation, corner, fill, dtype) -> None:
        self.rows, self.size = shape[0] * shape[1], kernel[0] * kernel[1] * shape[2]
        self.dtype = np.dtype(dtype)
        self.image, self.kernel, self.stride, self.dilation, self.corner = image, kernel, stride, dilation, corner
        self.windows, self.fill = shape[:2], fill
        self._fixed = (shape[1], self.rows), kernel, stride, dilation, corner
        code = np.array(fill, dtype)
        self._fill = code.view(np.uint8)[()] if self.dtype == np.int8 else code[()]

    def places(self, axis: int) -> np.ndarray:
        """Row (axis 0) or column (axis 1) of every tap of every window, int64 `[windows, taps]`; may lie outside."""
        starts = np.arange(self.windows[axis]) * self.stride[axis] + self.corner[axis]
        return starts[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis]

    def seen(self, axis: int) -> np.ndarray:
        """Which of these places lie in the image, bool `[windows, taps]`."""
        places = self.places(axis)
        return (places >= 0) & (places < self.image[axis])

    @property
    def block(self) -> int:
        """Rows that are gathered together."""
        return max(16, BLOCK // (self.size * self.dtype.itemsize))

    def __call__(self, x: np.ndarray, first: int, out: np.ndarray) -> None:
        """Rows `first`, `first + 1`, ... of a batch `x` into `out [rows, size]`."""
        gather(bytes_of(x), *self._fixed, self._fill, first, bytes_of(out))
