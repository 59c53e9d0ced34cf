"""Ways in which a file is damaged: bytes, trees of values, numpy headers, members of zips, C text, HDF5.

Each takes a random generator and something whole and gives something damaged. `Raw` text stands in a tree for what JSON
and YAML writers would not write: numbers without end, nesting without end.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import h5py
import numpy as np

Rng = np.random.Generator


class Raw(str):
    """Text that is written as it is."""

    __slots__ = ()


#: What a value of a tree is replaced by: other kinds, extremes, and what costs a careless reader its memory or stack.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, "", "text", "1", "\x00", "x" * 5000, [], {}, [[]], [1], {"a": 1}, 0, 1, -1, 1.5, -0.0, 10**6),
    *(10**14, -(10**14), 2**31, 2**32, 2**63, 2**64, 10**30, 1e-310, 1e300, -1e300, 1e308),
    *(Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("9" * 5000), Raw("1" + "0" * 300), Raw("1e400"), Raw("-")),
    *(Raw("[" * 500 + "]" * 500), Raw("[" * 3000), Raw('{"a":' * 300 + "1" + "}" * 300), Raw("[" * 100_000)),
)


def pick(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


# -- bytes -------------------------------------------------------------------------------------------------
def octets(rng: Rng, content: bytes) -> bytes:
    """A few bits or bytes changed, most of them where there is something; or a piece cut, doubled, zeroed or put in."""
    changed, how = bytearray(content), pick(rng, ("bit", "bit", "bit", "byte", "cut", "out", "twice", "zero", "in"))
    used = np.flatnonzero(np.frombuffer(content, np.uint8)) if content else np.zeros(0, np.int64)
    for _ in range(int(rng.integers(1, 5))):
        if not changed or not len(used):
            break
        at = min(int(pick(rng, used) if rng.random() < 0.9 else rng.integers(len(changed))), len(changed) - 1)
        length = int(2 ** rng.integers(0, 8))
        if how == "bit":
            changed[at] ^= 1 << int(rng.integers(8))
        elif how == "byte":
            changed[at] = int(pick(rng, (0, 1, 127, 128, 255, int(rng.integers(256)))))
        elif how == "cut":
            return bytes(changed[:at])
        elif how == "out":
            del changed[at : at + length]
        elif how == "twice":
            changed[at:at] = changed[at : at + length]
        elif how == "zero":
            changed[at : at + length] = bytes(min(length, len(changed) - at))
        else:
            changed[at:at] = rng.bytes(length)
    return bytes(changed)


# -- trees of values ---------------------------------------------------------------------------------------
def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a tree: the container, and the key or index in it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from places(inner)


def tree(rng: Rng, value: Any, strange: tuple[Any, ...] = STRANGE) -> Any:
    """A copy with one to three places changed: removed, renamed, of another kind, extreme, doubled, exchanged."""
    value = deepcopy(value)
    for _ in range(int(pick(rng, (1, 1, 1, 2, 3)))):
        found = list(places(value))
        if not found:
            break
        inside, key = pick(rng, found)
        how = pick(rng, ("replace", "replace", "replace", "remove", "rename", "number", "exchange", "more"))
        if how == "remove":
            del inside[key]
        elif how == "rename" and isinstance(inside, dict):
            inside[pick(rng, (f"{key}_", "", "x", str(key)[:-1]))] = inside.pop(key)
        elif how == "number" and isinstance(inside[key], int | float):
            inside[key] = pick(
                rng, (inside[key] + 1, -inside[key], inside[key] * 2, inside[key] * 10**9, not inside[key])
            )
        elif how == "exchange":
            other, there = pick(rng, found)
            if there in (other if isinstance(other, dict) else range(len(other))):
                inside[key] = deepcopy(other[there])
        elif how == "more" and isinstance(inside, list):
            inside.insert(int(rng.integers(len(inside) + 1)), deepcopy(inside[key]))
        else:
            inside[key] = pick(rng, strange)
    return value


def json_text(value: Any, rng: Rng | None = None, twice: float = 0.05) -> str:
    """JSON with `Raw` text as it is; now and then, with `rng`, a key is there twice."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(key))}: {json_text(inner, rng, twice)}" for key, inner in value.items()]
        if rng is not None and pairs and rng.random() < twice / 5:
            pairs.append(pick(rng, pairs))
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(json_text(inner, rng, twice) for inner in value) + "]"
    return json.dumps(value)


# -- numpy -------------------------------------------------------------------------------------------------
def npy(array: np.ndarray) -> bytes:
    member = io.BytesIO()
    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=True)
    return member.getvalue()


def npy_header(rng: Rng, content: bytes) -> bytes:
    """Another header before the same data: shape, type and order of other kinds and sizes."""
    text = content[10 : 10 + int.from_bytes(content[8:10], "little")].decode("latin1")
    shapes = (
        "()",
        "(1,)",
        "(-1,)",
        "(0,)",
        "(100000000000000,)",
        f"({10**30},)",
        "(True,)",
        "(1.5,)",
        "[3]",
        "None",
        "(2, 2, 0)",
    )
    types = (
        "'|O'",
        "'<f8'",
        "'>i2'",
        "'<U9'",
        "'|V4'",
        "[('a', '<i4'), ('b', '<f4')]",
        "'<M8[s]'",
        "('<i4', (2,))",
        "5",
        "'<c16'",
    )
    how = pick(rng, ("shape", "type", "order", "text", "brackets", "version"))
    if how == "shape":
        text = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {pick(rng, shapes)}", text)
    elif how == "type":
        text = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {pick(rng, types)}", text)
    elif how == "order":
        text = text.replace("False", pick(rng, ("True", "None", "1", "'F'")))
    elif how == "text":
        text = octets(rng, text.encode()).decode("latin1")
    elif how == "brackets":
        text = pick(rng, ("{", "(", "[", "-", "not ", "'")) * int(pick(rng, (10, 3000, 9000)))
    version = bytes([int(pick(rng, (0, 2, 3, 255))), 0]) if how == "version" else content[6:8]
    length = struct.pack("<I" if version[0] in (2, 3) else "<H", len(text) & 0xFFFF)
    return (
        content[:6] + version + length + text.encode("latin1") + content[10 + int.from_bytes(content[8:10], "little") :]
    )


def any_npy(rng: Rng, content: bytes) -> bytes:
    strange = (npy(np.ones(3)), npy(np.array("text")), npy(np.array([None])), npy(np.zeros((0, 3))), b"", b"\x80\x04N.")
    return pick(rng, (octets, npy_header, npy_header, lambda r, _: pick(r, strange)))(rng, content)


# -- zips --------------------------------------------------------------------------------------------------
def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED)
        archive.comment = comment
    return buffer.getvalue()


def member(rng: Rng, content: bytes, change: Callable[[Rng, bytes], bytes] = any_npy) -> dict[str, bytes]:
    """The members of a zip, one of them damaged, gone, renamed or exchanged with another."""
    parts = members(content)
    name, other = pick(rng, list(parts)), pick(rng, list(parts))
    how = pick(rng, ("change", "change", "change", "change", "gone", "name", "exchange", "more"))
    if how == "gone":
        del parts[name]
    elif how == "name":
        parts[pick(rng, ("array9.npy", "x", "../x.npy", "header", f"{name}.npy"))] = parts.pop(name)
    elif how == "exchange":
        parts[name], parts[other] = parts[other], parts[name]
    elif how == "more":
        parts["more.npy"] = parts[name]
    else:
        parts[name] = change(rng, parts[name])
    return parts


def with_hash(body: bytes) -> bytes:
    """What is sealed, and the SHA-256 of it: damage that an outer hash does not show."""
    return body + hashlib.sha256(body).hexdigest().encode()


# -- C headers ---------------------------------------------------------------------------------------------
DIRECTIVES = (
    *("#if 0", "#else", "#endif", "#ifdef X", "#ifndef X", "#elif 1", "#undef int", "#line 5", "#error no", "# if 0"),
    *(
        "#define {a} {b}",
        "#define {a}",
        "#define const",
        "#define ap_int ap_uint",
        "#define embed(x) 0",
        "#pragma pack",
    ),
    *(
        "%:if 0",
        "??=if 0",
        "/*",
        "*/",
        "//\\",
        "\\",
        "/* \\",
        "#define X \\",
        '"/*"',
        "'",
        '#include "a/*b"',
        "#\\",
        "\r",
    ),
    *(
        "#import <x>",
        "#include X",
        '_Pragma("once")',
        "int x = 1;",
        "#if 1 /*",
        "#ifndef __cplusplus",
        "\x0b#if 0",
        "\x1d",
    ),
)


def directive(rng: Rng, text: str) -> str:
    """Lines put in by which a compiler sees other arrays than a careless reader."""
    names = re.findall(r"ap_u?int<\d+> (\w+)", text)
    lines = text.split("\n")
    first = int(rng.integers(len(lines)))
    line = pick(rng, DIRECTIVES).replace("{a}", pick(rng, names)).replace("{b}", pick(rng, names))
    lines.insert(first, line)
    if rng.random() < 0.6:
        lines.insert(int(rng.integers(first, len(lines))) + 1, pick(rng, ("#endif", "*/", "#else", "\n", "//")))
    return "\n".join(lines)


def constants(rng: Rng, text: str) -> str:
    """A number, a bracket or a name of C text exchanged for another."""
    strange = (
        "",
        "1e5",
        "0x10",
        "010",
        "1.5",
        "-",
        "true",
        "NaN",
        '"1"',
        "9" * 5000,
        "99999999999999999999",
        "128",
        "-129",
        "{",
        "}",
        ";",
    )
    found = list(re.finditer(r"-?\d+|[{}\[\]<>;=,]|\w+", text))
    for _ in range(int(rng.integers(1, 3))):
        match = pick(rng, found)
        with_ = pick(rng, strange) if rng.random() < 0.7 else pick(rng, found)[0]
        text = text[: match.start()] + with_ + text[match.end() :]
        found = list(re.finditer(r"-?\d+|[{}\[\]<>;=,]|\w+", text))
    return text


# -- HDF5 --------------------------------------------------------------------------------------------------
def hdf5(rng: Rng, content: bytes) -> bytes:
    """Data and groups of an HDF5 file of other kinds, shapes and values, gone, doubled, or links to elsewhere."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(int(pick(rng, (1, 1, 1, 2)))):
            try:
                name = pick(rng, [n for n in names if n in file])
                _change(rng, file, name, pick(rng, [n for n in names if n in file]))
            except (KeyError, RuntimeError, MemoryError):
                break  # the first change has made what the second meets: a link to nowhere, data without end
    return buffer.getvalue()


def _change(rng: Rng, file: h5py.File, name: str, other: str) -> None:
    old = file[name][()] if isinstance(file[name], h5py.Dataset) else None
    how = pick(rng, ("value", "value", "value", "value", "scale", "shape", "hint", "link", "gone", "copy", "strange"))
    if how == "hint" and "nodes/" in name:
        node = "/".join(name.split("/")[:3])
        key = f"{node}/metadata/bittrue_{pick(rng, ('shift', 'guard', 'fraction'))}"
        if node in file and isinstance(file[node], h5py.Group):
            if key in file:
                del file[key]
            file[key] = pick(rng, (-1, 0, 1, 2, 5, -50, 10**6, "text", [1, 2], [], 1e300, np.nan, True, 2**40))
        return
    if name.count("/") < 1 and how != "value":
        return
    del file[name]
    numbers = isinstance(old, np.ndarray | np.generic) and np.asarray(old).dtype.kind in "iuf"
    if how == "value":
        values = (
            -1,
            0,
            1,
            2,
            10**6,
            1e300,
            -1e300,
            1e-310,
            np.nan,
            np.inf,
            -np.inf,
            "text",
            "same",
            b"\xff",
            True,
            1.5,
            2**62,
        )
        file[name] = pick(rng, (*values, np.zeros(0), np.ones(7), np.ones((2, 3, 4)), ["a", "b"], h5py.Empty("f8")))
    elif how == "scale" and numbers:
        factor = pick(rng, (0.0, -1.0, 1e-12, 1e12, 1e-310, 1e300, np.nan))
        changed = np.array(old, np.float64)
        changed.reshape(-1)[int(rng.integers(changed.size)) :: int(rng.integers(1, 9))] *= factor
        with np.errstate(over="ignore"):
            file[name] = changed if rng.random() < 0.5 else changed.astype(np.float32)
    elif how == "shape" and numbers:
        array = np.asarray(old)
        file[name] = pick(rng, (array.reshape(-1), array[None], array[..., None], array.reshape(-1)[:-1], array.T))
    elif how == "link":
        links = (h5py.SoftLink(f"/{other}"), h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/nowhere"))
        file[name] = file["/"] if rng.random() < 0.2 else pick(rng, links)
    elif how == "copy" and other in file and not other.startswith(name):
        file.copy(other, name)
    elif how == "strange":
        kind = pick(rng, ("huge", "group", "compound", "reference", "deep", "sparse"))
        if kind == "huge":
            file.create_dataset(name, (10**5, 10**5, 10**4), "f8", chunks=(1, 1, 1024))
        elif kind == "sparse":
            file.create_dataset(name, (1 << 29,), "f8", chunks=(1 << 16,))
        elif kind == "compound":
            file[name] = np.zeros(3, [("a", "<i4"), ("b", "<f8")])
        elif kind == "reference":
            file.create_dataset(name, data=file["/"].ref, dtype=h5py.ref_dtype)
        else:
            file.create_group("/".join([name, *"abcdefghijkl"]) if kind == "deep" else name)
