"""Files of strangers, read so that nothing in them can do harm: JSON, one numpy array, a zip of arrays.

Sizes are compared with the bytes that are there before anything is made of them, so what a file costs in time and
memory follows from its length, whatever its headers say. Every refusal is a `BittrueError` that holds the bare reason;
whoever reads puts the file and the remedy around it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from bittrue.sim.errors import BittrueError

#: Most bytes that a compressed file may hold: more would be a trap, or work for another tool.
MAX_BYTES = 1 << 32
#: Deepest nesting of JSON, and most digits of a number in it.
MAX_DEPTH, MAX_DIGITS = 32, 40
#: Most characters of a numpy header; those of plain arrays have about a hundred.
_MAX_HEADER = 4096


def plain_json(text: bytes | str) -> Any:
    """The values of JSON text, each key once. What is no such text, nested deeply or a huge number is refused."""
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_int=_whole)
    except RecursionError as error:
        raise BittrueError(f"it is nested more than {MAX_DEPTH} deep") from error
    except BittrueError:
        raise
    except ValueError as error:  # of JSON, and of UTF-8
        raise BittrueError(f"not JSON: {error}") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer))
        level = [inner for inner in inside if isinstance(inner, dict | list)]
    if level:
        raise BittrueError(f"it is nested more than {MAX_DEPTH} deep")
    return value


def sealed(value: dict[str, Any]) -> bytes:
    """JSON text of a dictionary that only machines write, with the SHA-256 of the rest under the key `seal`."""
    plain = json.loads(json.dumps(value))  # as it will be read: every key a text
    plain.pop("seal", None)
    return (json.dumps({"seal": _hash(plain)} | plain, indent=1) + "\n").encode()


def unsealed(text: bytes | str) -> dict[str, Any]:
    """What `sealed` wrote, without the seal; refused when anything was altered."""
    value = plain_json(text)
    seal = value.pop("seal", None) if isinstance(value, dict) else None
    if seal is None or seal != _hash(value):
        raise BittrueError("it does not match its seal, so it was altered, or another version of bittrue wrote it")
    return value


def _hash(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _inside(value: dict | list) -> Sequence:
    return list(value.values()) if isinstance(value, dict) else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BittrueError(f"the key {shown(twice)} is there twice")
    return found


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise BittrueError(f"it holds a number of {len(text)} digits")
    return int(text)


def shown(value: Any) -> str:
    """A value of a file in an error message: short, whatever it is."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


def array(content: bytes) -> np.ndarray:
    """The array of numbers that a `.npy` file holds, which must be just as long as its header says."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream, max_header_size=_MAX_HEADER)
    except Exception as error:  # the header is Python text, and damaged it raises nearly anything
        reason = str(error).split("\n")[0][:200]
        raise BittrueError(f"its header is not one of numpy ({reason or type(error).__name__})") from error
    if dtype.kind not in "biuf" or dtype.names is not None:
        raise BittrueError(f"it holds {shown(str(dtype))}, and not numbers")
    if any(isinstance(n, bool) or not 0 <= n < 1 << 62 for n in shape) or len(shape) > 32:
        raise BittrueError(f"its header has the shape {shown(shape)}")
    size = dtype.itemsize
    for n in shape:
        size *= int(n)
    left = len(content) - stream.tell()
    if size != left:
        raise BittrueError(f"its header says {size} bytes of shape {shown(shape)}, but {left} are there")
    order = "F" if fortran else "C"
    if not size:
        return np.zeros(shape, dtype, order)
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order=order).copy(order="K")


def arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, by name."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_BYTES:
                raise BittrueError(f"it says that it holds {total} bytes, and at most {MAX_BYTES} are read")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in found:
                    raise BittrueError(f"its member {shown(name)} is there twice")
                found[name] = _member(archive.read(member), name)
    except BittrueError:
        raise
    except Exception as error:  # a damaged zip raises nearly anything
        raise BittrueError(f"its zip is damaged ({str(error) or type(error).__name__})") from error
    return found


def _member(content: bytes, name: str) -> np.ndarray:
    try:
        return array(content)
    except BittrueError as error:
        raise BittrueError(f"member {shown(name)}: {error}") from error
