"""The standard file formats of image sets: idx (MNIST) and CIFAR batches, binary or python version.

Formats, sizes and ranges are checked before anything is returned. The python version of CIFAR is a pickle,
which could run anything; it is read by an unpickler that knows the five names of a pickled array of bytes,
has its own harmless stand-in for each, and refuses every other. Where both versions are present the binary one is read.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.sim.errors import BittrueError

_IDX_UNSIGNED_BYTE = 8
#: Most bytes that a byte of a gzip file unfolds to, and some more.
_MOST_PACKED = 1100
Labelled = tuple[np.ndarray, np.ndarray]


def debian_folder(package: str, usual: Path) -> Path | None:
    """The folder in which an installed Debian package keeps its idx files, or None."""
    if usual.is_dir():
        return usual
    try:
        listing = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False).stdout
    except OSError:  # not a Debian system
        return None
    return next((Path(line).parent for line in listing.splitlines() if "images-idx3-ubyte" in line), None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BittrueError(f"{path} cannot be read ({error.strerror})") from error


# -- idx -----------------------------------------------------------------------------------------------
def idx(folder: Path, images: str, labels: str) -> Labelled:
    """Images uint8 `[n, h, w, 1]` and labels int64 `[n]` of two idx files, given by the start of their names."""
    pixels = read_idx(_find_idx(folder, images, 3), 3)[..., None]
    path = _find_idx(folder, labels, 1)
    classes = read_idx(path, 1).astype(np.int64)
    if len(pixels) != len(classes):
        raise BittrueError(f"{path} has {len(classes)} labels for {len(pixels)} images")
    return pixels, classes


def _find_idx(folder: Path, stem: str, axes: int) -> Path:
    names = [f"{stem}{dot}idx{axes}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BittrueError(f"{folder} has no file {names[0]} or {names[1]}")


def read_idx(path: Path, axes: int) -> np.ndarray:
    """One idx file of unsigned bytes, plain or gzip: zeros (2), type, number of axes, sizes (big endian), data."""
    content, header = _read(path), 4 + 4 * axes
    packed = content[:2] == b"\x1f\x8b"
    start = _unpacked(path, content, header) if packed else content[:header]
    if len(start) < header or start[:2] != b"\0\0":
        raise BittrueError(f"{path} is not an idx file")
    if start[2] != _IDX_UNSIGNED_BYTE or start[3] != axes:
        raise BittrueError(
            f"{path} is an idx file of type {start[2]} with {start[3]} axes; "
            f"expected type {_IDX_UNSIGNED_BYTE} (unsigned byte) with {axes}"
        )
    shape = struct.unpack(f">{axes}I", start[4:header])
    if 0 in shape:
        raise BittrueError(f"{path} is empty: its header says {shape}")
    expected = header + int(np.prod([int(n) for n in shape], dtype=object))
    if packed and expected <= _MOST_PACKED * len(content):
        content = _unpacked(path, content, expected + 1)  # no more than it says, and one to see if there is more
    if len(content) != expected:
        what = "truncated" if len(content) < expected else "too long"
        raise BittrueError(f"{path} is {what}: {len(content)} bytes, but its header says {expected}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _unpacked(path: Path, content: bytes, count: int) -> bytes:
    """The first bytes of a gzip file, and all of them checked where there are no more."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise BittrueError(f"{path} is a damaged or truncated gzip file ({error})") from error


# -- CIFAR ---------------------------------------------------------------------------------------------
_PIXELS = 3 * 32 * 32


def cifar(folder: Path, name: str) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    """Training set, test set and class names of `cifar10` or `cifar100`; images uint8 `[n, 32, 32, 3]`.

    `folder` is the unpacked folder, or one that contains it.
    """
    ten = name == "cifar10"
    trains = [f"data_batch_{k}" for k in range(1, 6)] if ten else ["train"]
    test = "test_batch" if ten else "test"
    binary, python = (
        ("cifar-10-batches-bin", "cifar-10-batches-py") if ten else ("cifar-100-binary", "cifar-100-python")
    )
    labels = "label_names" if ten else "fine_label_names"
    for place in (folder, folder / binary):
        if (place / f"{test}.bin").is_file():
            parts = [_binary_batch(place / f"{batch}.bin", 1 if ten else 2) for batch in (*trains, test)]
            names = _text_names(place / ("batches.meta.txt" if ten else "fine_label_names.txt"))
            break
    else:
        for place in (folder, folder / python):
            if (place / test).is_file():
                parts = [_python_batch(place / batch, "labels" if ten else "fine_labels") for batch in (*trains, test)]
                names = _python_names(place / ("batches.meta" if ten else "meta"), labels)
                break
        else:
            raise BittrueError(f"{folder} has neither {test}.bin nor {test}, nor a folder {binary} or {python} with it")
    count = 10 if ten else 100
    if len(names) != count:
        raise BittrueError(f"{place} names {len(names)} classes, expected {count}")
    images, classes = (np.concatenate(column) for column in zip(*parts[:-1], strict=True))
    return (images, classes), parts[-1], names


def _images(planes: np.ndarray) -> np.ndarray:
    """Rows of red, green and blue planes as images with the channels innermost."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _binary_batch(path: Path, label_bytes: int) -> Labelled:
    content = np.frombuffer(_read(path), np.uint8)
    record = label_bytes + _PIXELS
    if not content.size or content.size % record:
        raise BittrueError(f"{path} is truncated or of another format: {content.size} bytes, not records of {record}")
    rows = content.reshape(-1, record)
    return _images(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int64)  # the last label is the finest


def _text_names(path: Path) -> tuple[str, ...]:
    return tuple(line for line in _read(path).decode(errors="replace").splitlines() if line.strip())


def _python_batch(path: Path, labels: str) -> Labelled:
    batch = read_plain_pickle(path)
    try:
        pixels, classes = batch[b"data"].array, np.asarray(batch[labels.encode()])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BittrueError(f"{path} is not a CIFAR batch: it has no 'data' or no {labels!r}") from error
    if classes.ndim != 1 or pixels.shape != (len(classes), _PIXELS):
        raise BittrueError(f"{path} is not a CIFAR batch: its data are {pixels.shape}, not [images, {_PIXELS}]")
    if classes.dtype.kind not in "iu" or classes.min(initial=0) < 0:
        raise BittrueError(f"{path} is not a CIFAR batch: its labels are not whole numbers from 0")
    return _images(pixels), classes.astype(np.int64)


def _python_names(path: Path, key: str) -> tuple[str, ...]:
    meta = read_plain_pickle(path)
    names = meta.get(key.encode()) if isinstance(meta, dict) else None
    if not isinstance(names, list) or not all(isinstance(n, bytes) for n in names):
        raise BittrueError(f"{path} is not a CIFAR meta file: it has no list {key!r}")
    return tuple(n.decode(errors="replace") for n in names)


class _PickledDtype:
    """Stands in for a numpy dtype; only unsigned bytes exist here."""

    def __init__(self, code: bytes | str, *_: Any) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"it wants an array of {code!r}, not of unsigned bytes")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which bytes do not have."""


class _PickledArray:
    """Stands in for a numpy array: takes its pickled state and checks it; `array` is the real one."""

    array = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple) -> None:
        _version, shape, _dtype, fortran, content = state
        order = "F" if fortran else "C"
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order=order)


def _reconstruct(*_: Any) -> _PickledArray:
    return _PickledArray()


def _latin1(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise pickle.UnpicklingError("it wants to decode something that is not latin1 text")
    return text.encode("latin1")


class _ArrayUnpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Builds containers, numbers, byte strings and arrays of bytes, and nothing else: numpy itself is not called.

    The unpickler that is written in Python: the other one takes memory for as many marks as a damaged number says.
    """

    _known = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is not part of a plain array")
        return self._known[module, name]


def read_plain_pickle(path: Path) -> Any:
    """A pickle of plain containers and arrays of bytes (as `_PickledArray`); anything else is refused, not run."""
    try:
        return _ArrayUnpickler(io.BytesIO(_read(path)), encoding="bytes").load()
    except BittrueError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise BittrueError(f"{path} is truncated, or not a plain CIFAR pickle ({error})") from error
