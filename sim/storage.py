"""Programs on disk: a numpy `.npz` (a zip of plain arrays) with a JSON header and a hash of every byte.

The zip's comment holds the SHA-256 of all that precedes it, so a single altered byte is noticed; the header holds
that of the operations, which is compared before any of them is made. Nothing is ever unpickled. Files are written
beside their place and moved there when complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.sim import reading
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.held import LATER, Held
from bittrue.sim.noise import Noise
from bittrue.sim.operation import TensorType, discover
from bittrue.sim.requantize import Requantize

if TYPE_CHECKING:  # a program stores itself: here it is only looked at
    from bittrue.sim.program import Program

VERSION = 1
MAGIC = "bittrue program"
_SEAL = b"sha256:"
_OTHER = "its operations do not match its hash; make it again"
#: Most numbers of a program: as int64 they take 2 GiB.
MAX_ENTRIES = 1 << 28
_PARTS: dict[str, type] = {cls.__name__: cls for cls in (Format, TensorType, Requantize, Noise, Held)}


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple | list):
        return [_encode(v, arrays) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        present = [f for f in fields(value) if not (f.metadata.get(LATER) and getattr(value, f.name) == f.default)]
        inner = {f.name: _encode(getattr(value, f.name), arrays) for f in present}
        return {"is": type(value).__name__, "has": inner}
    if isinstance(value, np.integer):
        return int(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise BittrueError(f"a program cannot hold a {type(value).__name__}: {value!r}")


def _decode(value: Any, arrays: list[np.ndarray], known: dict[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v, arrays, known) for v in value)
    if isinstance(value, dict) and "array" in value:
        return arrays[value["array"]]
    if isinstance(value, dict):
        if value["is"] not in known:
            raise BittrueError(f"it uses the operation {reading.shown(value['is'])}, which this version does not have")
        return known[value["is"]](**{k: _decode(v, arrays, known) for k, v in value["has"].items()})
    return value


def _content(program: Program) -> tuple[dict[str, Any], list[np.ndarray]]:
    arrays: list[np.ndarray] = []
    header = {
        "inputs": {name: _encode(kind, arrays) for name, kind in program.inputs.items()},
        "nodes": [[n.name, _encode(n.operation, arrays), list(n.operands)] for n in program.nodes],
        "result": program.results[0] if len(program.results) == 1 else list(program.results),
    }
    return header, arrays


def digest(program: Program) -> str:
    """SHA-256 of everything in a program but its `meta`."""
    return _digest(*_content(program))


def _digest(header: dict[str, Any], arrays: list[np.ndarray]) -> str:
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for array in arrays:
        sha.update(str(array.shape).encode())
        sha.update(array.astype("<i8").tobytes())
    return sha.hexdigest()


def save(program: Program, path: str | Path) -> Path:
    """Write a program as `.npz`, whole or not at all; returns the path. Loading gives an equal one, with its `meta`.

    Raises BittrueError where `meta` holds something that is not JSON, or the place cannot be written.
    """
    return write_whole(Path(path), packed(program))


def packed(program: Program) -> bytes:
    """The content of the file that `save` writes."""
    header, arrays = _content(program)
    header |= {"magic": MAGIC, "version": VERSION, "sha256": digest(program), "meta": dict(program.meta)}
    try:
        text = json.dumps(header, sort_keys=True, indent=1)
        reading.plain_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise BittrueError(f"the program's meta holds something that is not JSON: {error}") from error
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        members = {"header": np.frombuffer(text.encode(), np.uint8)}
        members |= {f"array{k}": array.astype(Format.covering(array).dtype) for k, array in enumerate(arrays)}
        for name, array in members.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED)
        archive.comment = _SEAL + b"0" * 64
    body = buffer.getvalue()[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def load(path: str | Path, make: Callable[..., Program]) -> Program:
    """What `make` makes of the content that `save` wrote. Nothing in the file is run: it holds plain arrays and JSON.

    make   is given inputs (name -> type), nodes (name, operation, operands), the names of the results, and `meta`

    Raises BittrueError for what is no such file, was altered after it was written, or comes from a newer bittrue.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BittrueError(f"program {path}: cannot be read ({error.strerror})") from error
    return unpacked(content, str(path), make)


def unpacked(content: bytes, path: str, make: Callable[..., Program]) -> Program:
    """What `load` makes of the content of a file; `path` is for people."""
    if not content.startswith(b"PK"):
        what = "a pickle, which could run anything" if content[:1] == b"\x80" else "not a bittrue program"
        raise BittrueError(f"program {path}: it is {what}; only files that bittrue wrote (.npz) are read")
    if content[-64 - len(_SEAL) : -64] != _SEAL:
        raise BittrueError(f"program {path}: it is cut, altered at its end, or not written by bittrue; make it again")
    if hashlib.sha256(content[:-64]).hexdigest().encode() != content[-64:]:
        raise BittrueError(f"program {path}: its content does not match its hash, so it was altered; make it again")
    try:
        header, arrays = _parsed(content)
    except BittrueError as error:
        raise BittrueError(f"program {path}: not a bittrue program ({error})") from error
    if not isinstance(header, dict) or header.get("magic") != MAGIC or not isinstance(header.get("version"), int):
        raise BittrueError(f"program {path}: not a bittrue program")
    if header["version"] > VERSION:
        raise BittrueError(
            f"program {path}: written by a newer bittrue (file version {header['version']}, "
            f"this one reads up to {VERSION}); upgrade bittrue"
        )
    try:
        program = _made(header, arrays, make)
    except BittrueError as error:
        raise BittrueError(f"program {path}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, MemoryError) as error:
        raise BittrueError(
            f"program {path}: its header is not one that bittrue writes ({reading.shown(error)}); make it again"
        ) from error
    if program.sha256 != header["sha256"]:
        raise BittrueError(f"program {path}: {_OTHER}")
    return program


def _parsed(content: bytes) -> tuple[Any, list[np.ndarray]]:
    """The header, whatever it is, and the arrays, int64."""
    members = reading.arrays(content)
    names = ["header", *(f"array{k}" for k in range(len(members) - 1))]
    if set(names) != set(members):
        raise BittrueError(f"its members are {reading.shown(sorted(members))}")
    for name in names:
        if members[name].dtype.kind not in "iu":
            raise BittrueError(f"its member {name!r} holds {members[name].dtype}, and not integers")
    if (count := sum(array.size for array in members.values())) > MAX_ENTRIES:
        raise BittrueError(f"it holds {count} numbers, and at most {MAX_ENTRIES} are read")
    header, *arrays = (members[name] for name in names)
    return reading.plain_json(header.tobytes()), [array.astype(np.int64) for array in arrays]


def _made(header: dict[str, Any], arrays: list[np.ndarray], make: Callable[..., Program]) -> Program:
    """The program of a header. Its hash is compared first: nothing that was altered is made."""
    inputs, nodes, results, meta = (header[name] for name in ("inputs", "nodes", "result", "meta"))
    if _digest({"inputs": inputs, "nodes": nodes, "result": results}, arrays) != header["sha256"]:
        raise BittrueError(_OTHER)
    if not isinstance(meta, dict):
        raise BittrueError(f"its meta is {reading.shown(meta)}, and not keys with values; make it again")
    known = _PARTS | discover()
    operations = [(name, _decode(operation, arrays, known), tuple(of)) for name, operation, of in nodes]
    types = {name: _decode(kind, arrays, known) for name, kind in inputs.items()}
    return make(types, operations, [results] if isinstance(results, str) else results, meta)
