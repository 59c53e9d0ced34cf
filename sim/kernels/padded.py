"""Images with a border of padding codes, how they are filled, and where windows and their taps lie in them."""

from __future__ import annotations

import numpy as np

from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.window import Reading

#: Bytes of the padded images of a block: they stay in the second-level cache.
IMAGES = 1 << 17


@jit
def pad(x, flip, corner, image):
    """Codes `x [n, H, W, C]`, xor `flip`, into the middle of `image [n, PH, PW, C]`; what is around stays."""
    top, left = corner
    source, target = x.reshape(-1), image.reshape(-1)
    if top == left == 0 and x.shape[1:] == image.shape[1:]:  # nothing is around
        for k in range(source.size):
            target[k] = source[k] ^ flip
        return
    height, row = min(x.shape[1], image.shape[1] - top), x.shape[2] * x.shape[3]
    width = min(row, (image.shape[2] - left) * x.shape[3])
    for n in range(x.shape[0]):
        for y in range(height):
            from_ = source[(n * x.shape[1] + y) * row :][:width]
            to = ((n * image.shape[1] + y + top) * image.shape[2] + left) * x.shape[3]
            into = target[to : to + width]
            if flip == 0:  # what is not turned is copied faster
                for k in range(width):
                    into[k] = from_[k]
            else:
                for k in range(width):
                    into[k] = from_[k] ^ flip


@jit
def widen(x, flip, corner, image):
    """The same into images that have more channels than x."""
    top, left = corner
    height, width = min(x.shape[1], image.shape[1] - top), min(x.shape[2], image.shape[2] - left)
    channels, wide = x.shape[3], image.shape[3]
    source, target = x.reshape(-1), image.reshape(-1)
    for n in range(x.shape[0]):
        for y in range(height):
            from_ = (n * x.shape[1] + y) * x.shape[2] * channels
            to = ((n * image.shape[1] + y + top) * image.shape[2] + left) * wide
            for _ in range(width):
                for c in range(channels):
                    target[to + c] = source[from_ + c] ^ flip
                from_ += channels
                to += wide


@jit
def fill(x, flip, corner, image):
    """`pad`, or `widen` where images have more channels."""
    if x.shape[3] == image.shape[3]:
        pad(x, flip, corner, image)
    else:
        widen(x, flip, corner, image)


class Padded:
    """The padded images of a window.

    height, width, channels   of a padded image, and `size`, its codes
    corner                    row and column of the image's first code in it
    windows, rows             OH, OW, and OH * OW
    A channel more or less of a padded image is asked for by `channels`.
    """

    def __init__(self, reading: Reading, channels: int = 0) -> None:
        (height, width, given), (rows, columns) = reading.image, reading.kernel
        self.channels = channels or given
        (sy, sx), (dy, dx), (top, left) = reading.stride, reading.dilation, reading.corner
        self.corner, self.windows = (-top, -left), reading.windows
        down, across = reading.windows
        self.rows = down * across
        self.height = max(height - top, (down - 1) * sy + (rows - 1) * dy + 1)
        self.width = max(width - left, (across - 1) * sx + (columns - 1) * dx + 1)
        self.size = self.height * self.width * self.channels
        y, x = np.arange(down) * sy, np.arange(across) * sx
        #: Codes from the beginning of an image to the first of each window, and from there to the first of each tap.
        self.starts = self._codes(y, x)
        self.taps = self._codes(np.arange(rows) * dy, np.arange(columns) * dx)

    def _codes(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return ((y[:, None] * self.width + x) * self.channels).reshape(-1)

    def together(self, item: int) -> int:
        """Images of a block whose codes have so many bytes."""
        return max(1, min(max(64, 1024 // self.rows), IMAGES // (item * self.size)))

    def every(self, images: int) -> np.ndarray:
        """Codes from the beginning of a block to the first of each window of so many images."""
        return (np.arange(images)[:, None] * self.size + self.starts).reshape(-1)


class Channels:
    """What executions of windows whose channels stay apart have in common: padded images of a type, where windows
    begin in them, and the taps of each.

    channels   of the images that are read, where they are made wider
    border     what lies around them, where it is not the padding code itself
    """

    def __init__(
        self, reading: Reading, dtype: np.dtype | type, channels: int = 0, border: np.integer | None = None
    ) -> None:
        self.padded, self.dtype = Padded(reading, channels), np.dtype(dtype)
        self.border = np.array(reading.fill).astype(self.dtype) if border is None else border
        self.images = self.padded.together(self.dtype.itemsize)
        self.where, self.reach = self.padded.every(self.images), self.padded.taps

    def room(self, images: int) -> int:
        """Codes of a buffer for a block of so many images."""
        return images * self.padded.size

    def least(self, images: int) -> int:
        """The fewest windows that a block of so many images has."""
        return min(images, self.images, images % self.images or self.images) * self.padded.rows

    def arguments(self, x: np.ndarray, copied: bool = True) -> tuple:
        """What the loops take first: codes, and a buffer for a block of their images, from a cache line on; an empty
        one where images are read where they are and not `copied`."""
        images = max(1, min(self.images, len(x))) if copied else 0
        item, size = self.dtype.itemsize, self.room(images)
        memory = np.empty(size + 64 // item, self.dtype)
        flat = memory[-memory.ctypes.data % 64 // item :][:size]
        flat[...] = self.border
        image = flat.reshape(images, self.padded.height, self.padded.width, self.padded.channels)
        return np.ascontiguousarray(x), self.padded.corner, image, flat, self.where, self.padded.rows, self.reach
