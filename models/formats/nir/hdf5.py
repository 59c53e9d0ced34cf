"""The content of an HDF5 file as plain values, checked before any memory is taken for it.

HDF5 can link into other files, keep data in them, nest without end and declare sizes that are not there. Here a file
holds numbers, texts and groups of them, each in one place and all of it in the file itself.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bittrue.sim.errors import BittrueError

#: Most values of a file, all together, most things in it, and the deepest nesting of its groups.
MAX_VALUES, MAX_THINGS, MAX_DEPTH = 1 << 28, 1 << 16, 8
#: Most bytes that a byte of compressed data unfolds to, and some more.
MOST_PACKED = 1100


def read(path: str | Path) -> dict[str, Any]:
    """Groups as dictionaries, data as numbers, texts, and arrays of both.

    Raises BittrueError for what is no such file, is damaged, or holds anything else.
    """
    try:
        _check_heaps(Path(path).read_bytes())
        with h5py.File(path, "r") as file:
            return _Reader().group(file, "", 0)
    except BittrueError as error:
        raise BittrueError(f"NIR file {path}: {error}; write it again with nir.write") from error
    except Exception as error:  # h5py raises nearly anything on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BittrueError(
            f"NIR file {path}: cannot be read ({reason}); is it a whole file that nir.write wrote?"
        ) from error


def _check_heaps(content: bytes) -> None:
    """Refuse a global heap, in which texts are kept, with a free block of no size: the library would never end on it.

    A heap is `GCOL`, version 1, its size; then blocks of an index (0: free), a count of references, and a size.
    """
    for match in re.finditer(rb"GCOL\x01\0\0\0", content):
        begin = match.start()
        (size,) = struct.unpack("<Q", content[begin + 8 : begin + 16].ljust(8, b"\0"))
        at, end = begin + 16, min(begin + size, len(content))
        while at + 16 <= end:
            index, length = struct.unpack("<H6xQ", content[at : at + 16])
            step = 16 + (length + 7) // 8 * 8 if index else length
            if not step:
                raise BittrueError("its heap of texts is damaged")
            at += step


class _Reader:
    def __init__(self) -> None:
        self.values, self.things = 0, 0

    def group(self, group: h5py.Group, name: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise BittrueError(f"{name!r} is nested more than {MAX_DEPTH} deep")
        found = {}
        for key in group:
            place = f"{name}/{key}"
            self.things += 1
            if self.things > MAX_THINGS:
                raise BittrueError(f"it holds more than {MAX_THINGS} things")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise BittrueError(f"{place!r} is a link to another place or file")
            item = group[key]
            if isinstance(item, h5py.Group):
                found[key] = self.group(item, place, depth + 1)
            elif isinstance(item, h5py.Dataset):
                found[key] = self.data(item, place)
            else:
                raise BittrueError(f"{place!r} is neither a group nor data")
        return found

    def data(self, item: h5py.Dataset, name: str) -> Any:
        if item.shape is None:
            raise BittrueError(f"{name!r} is empty")
        if item.is_virtual or item.external:
            raise BittrueError(f"the data of {name!r} are in another file")
        text = h5py.check_string_dtype(item.dtype)
        if text is None and item.dtype.kind not in "biuf":
            raise BittrueError(f"{name!r} holds {str(item.dtype):.60}, and not numbers or text")
        count = 1
        for n in item.shape:
            count *= int(n)
        self.values += count if text is None or text.length is None else count * text.length // 8 + count
        if self.values > MAX_VALUES:
            raise BittrueError(f"{name!r} has the shape {list(item.shape)}, which is more than can be read")
        if not self.stored(item, count):
            raise BittrueError(f"{name!r} has the shape {list(item.shape)}, but so much is not there")
        if text is None:
            return item[()]
        content = np.asarray(item.asstr(errors="strict")[()], dtype=object)
        return str(content) if content.ndim == 0 else content

    @staticmethod
    def stored(item: h5py.Dataset, count: int) -> bool:
        """Whether the values are in the file: what is absent would be filled in, however much and long."""
        if count * item.dtype.itemsize > MOST_PACKED * item.id.get_storage_size():
            return False
        if item.chunks is None:
            return True
        pieces = math.prod(-(-n // size) for n, size in zip(item.shape, item.chunks, strict=True))
        return pieces == item.id.get_num_chunks()
