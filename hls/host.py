"""Compile a written project with g++ and run its kernels on batches: the same sources that a vendor's tool builds.

The integers are AMD's own `ap_int.h` (Apache-2.0), which the package hls4ml carries; the streams are
`hls/hls_stream.h`. The library is cached by the content of its sources, the compiler and the flags, under
`$XDG_CACHE_HOME/bittrue` (`~/.cache/bittrue`).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.sim import caches, groups
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.extras import absent
from bittrue.sim.held import Held, Sets, split
from bittrue.sim.operation import TensorType
from bittrue.sim.program import alone
from bittrue.sim.reading import unsealed

#: Of -O1, -O2 and -O3 the last runs fastest (1.4 times -O1 on a full-size network) for a fifth more compile time.
#: -fwrapv: the sums of contract.hpp wrap modulo a power of two.
FLAGS = ("-std=c++14", "-O3", "-fwrapv", "-fPIC", "-shared", "-DBITTRUE_HOST", "-w")
#: Samples of the first part of a run in parts: few, for a large network takes its time for each.
FIRST_PART = 4
_POINTER = ctypes.POINTER(ctypes.c_longlong)


def build(folder: str | Path, defines: tuple[str, ...] = ()) -> HostKernel:
    """Compile what `hls.project.write` left in the folder, or take it from the cache.

    `defines` are preprocessor macros; `BITTRUE_LOG` records the accesses to streams. Raises BittrueError when the
    folder holds no project, when g++ or `ap_int.h` is absent, and when the sources do not compile.
    """
    return HostKernel(*library(folder, defines))


def library(folder: str | Path, defines: tuple[str, ...] = ()) -> tuple[Path, dict[str, Any]]:
    """The compiled library of a project and what its `project.json` says; as `build`."""
    folder = Path(folder)
    project, contents = read_project(folder)
    compiler, headers = find_compiler(), find_headers()
    flags = [*FLAGS, *(f"-D{name}" for name in defines)]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    sha = hashlib.sha256(json.dumps([version, flags]).encode())
    # ap_int.h may change with the package that carries it
    contents |= {f"ap_types/{path.name}": path.read_bytes() for path in sorted(headers.glob("*.h"))}
    for name, content in sorted(contents.items()):
        sha.update(f"{name} {len(content)}\n".encode() + content)
    made = cache_folder() / f"{sha.hexdigest()}.so"
    if not made.is_file():
        compile_library(compiler, flags, headers, folder, made)
    return made, project


def read_project(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """`project.json`, sealed, since its sizes are those of memory that kernels write; and the sources by name."""
    try:
        project = unsealed((folder / "project.json").read_bytes())
        return project, {name: (folder / name).read_bytes() for name in project["sources"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error)[:300]
        raise BittrueError(f"{folder} holds no complete HLS project ({reason}); write it with `bittrue hls`") from error


def cache_folder() -> Path:
    """Where compiled kernels are kept: `$XDG_CACHE_HOME/bittrue/hls`, by default in `~/.cache`."""
    return caches.folder("hls")


def find_compiler() -> str:
    """The C++ compiler: `$CXX`, else g++."""
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    if path is None:
        raise BittrueError(
            f"HLS host build: the compiler {name} is not installed; install g++ (Debian: apt-get install g++)"
        )
    return path


def find_headers() -> Path:
    """The folder with `ap_int.h`, inside the installed package hls4ml, which is not imported."""
    spec = importlib.util.find_spec("hls4ml")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "templates" / "vivado" / "ap_types"
        if (folder / "ap_int.h").is_file():
            return folder
    if spec is None:
        raise absent("hls4ml", "HLS host build: ap_int.h is not found, which comes with hls4ml")
    raise BittrueError("HLS host build: this hls4ml lacks templates/vivado/ap_types/ap_int.h; install version 1.3.0")


def compile_library(compiler: str, flags: list[str], headers: Path, folder: Path, library: Path) -> None:
    """Compile `host/batch.cpp` with all it includes; the library appears whole or not at all."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        target = Path(scratch) / library.name
        # host/ comes first: the vendor's folder has an hls_stream.h of its own, which is not ours to use
        include = [f"-I{folder / 'host'}", f"-I{folder}", f"-I{headers}"]
        command = [compiler, *flags, *include, str(folder / "host" / "batch.cpp"), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-400:])
            raise BittrueError(f"HLS host build: {folder} does not compile: {first}")
        os.replace(target, library)


@dataclass(frozen=True)
class Calls:
    """The calls of the top that a run is.

    frames    of each call: 1, or those of a group
    sets      the set that each call meets
    held      of every written input its values, `[sets, *shape]`
    """

    frames: np.ndarray
    sets: np.ndarray
    held: list[np.ndarray]

    @property
    def count(self) -> int:
        """Frames of all calls."""
        return int(self.frames.sum())


class HostKernel:
    """A compiled project. `predict` and `trace` take what the program takes and give what it gives.

    Every call is a run of its own: kernels that count frames (deterministic noise) begin at the index `first`, as
    `Program` does, whatever ran before.

    tensors   name -> type of every tensor, inputs first
    inputs    names of the inputs, in order
    results   names of the results, in order
    written   the held inputs that are written; `predict` and `trace` take sets of them as `Program` does
    grouping  how its samples go in groups, None where each goes by itself
    """

    def __init__(self, library: Path, project: dict) -> None:
        self.project = project
        self.tensors = {name: TensorType(tuple(shape), Format.parse(fmt)) for name, shape, fmt in project["tensors"]}
        self.inputs: list[str] = project["inputs"]
        self.results: list[str] = project["results"]
        self.written = held_of(project["held"])
        self.grouping: groups.Grouping | None = None
        if group := project.get("grouping"):
            images = self.written[group["held"]] if group["held"] else np.array(group["size"])
            self.grouping = groups.Grouping(group["slots"], images, frozenset(group["tensors"]))
        self._library = ctypes.CDLL(str(library))

    @cached_property
    def outputs(self) -> dict[str, TensorType]:
        """The type of every result by name, in order."""
        return {name: self.tensors[name] for name in self.results}

    def predict(self, *x: np.ndarray, first: int = 0, held: Sets | None = None) -> Any:
        """Run a batch: int arrays `[n, *shape]`, one per input, to codes `[n, *output shape]`; several are a tuple.

        A result that is a tensor of groups has an entry a group.
        """
        return alone(self.run(*x, first=first, held=held))

    def run(self, *x: np.ndarray, first: int = 0, held: Sets | None = None) -> tuple[np.ndarray, ...]:
        """The same, always as a tuple: the codes of every result, in order."""
        return self._run(x, False, first, held)[0]

    def run_in_parts(
        self, *x: np.ndarray, progress: Callable[[int, int], None], held: Sets | None = None
    ) -> tuple[np.ndarray, ...]:
        """The same as `run`, about a second's samples at a time, after each of which `progress(done, total)` is told.

        Where samples go in groups, which end where they fall, all are one part.
        """
        total, done, size = len(x[0]), 0, FIRST_PART
        parts = []
        while done < total or not parts:
            begin = time.perf_counter()
            size = total if self.grouping is not None else min(size, total - done)
            parts.append(self.run(*(v[done : done + size] for v in x), first=done, held=held))
            done += size
            progress(done, total)
            size = max(1, int(size * min(4.0, 1 / max(1e-6, time.perf_counter() - begin))))
        return tuple(np.concatenate(codes) for codes in zip(*parts, strict=True))

    def trace(self, *x: np.ndarray, first: int = 0, held: Sets | None = None) -> dict[str, np.ndarray]:
        """Run a batch and keep every tensor, by name: `[n, *shape]`, or an entry a group, as `Program.trace` does."""
        return self._run(x, True, first, held)[1]

    def _run(
        self, x: tuple[np.ndarray, ...], trace: bool, first: int, held: Sets | None
    ) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
        """Results, and every tensor where they are to be kept."""
        if len(x) != len(self.inputs):
            raise BittrueError(f"the kernel has {len(self.inputs)} inputs ({', '.join(self.inputs)}), got {len(x)}")
        named = zip(self.inputs, x, strict=True)
        codes = [self.tensors[name].check(v, f"input {name!r}").astype(np.int64) for name, v in named]
        if len({len(v) for v in codes}) > 1:
            raise BittrueError(f"inputs have different batch sizes: {', '.join(str(len(v)) for v in codes)}")
        count = len(codes[0])
        calls = self._calls(count, first, held)
        if missing := calls.count - count:
            codes = [np.concatenate([v, np.zeros((missing, *v.shape[1:]), np.int64)]) for v in codes]
        results, tensors = self._room(self.results, calls), self._room(self.tensors if trace else (), calls)
        self._call(
            "bittrue_batch",
            ctypes.c_long(len(calls.frames)),
            ctypes.c_long(first),
            _longs(calls.frames),
            _longs(calls.sets),
            pointers(codes),
            pointers(calls.held),
            pointers(list(results.values())),
            pointers(list(tensors.values())) if trace else None,
        )
        return tuple(self._codes(results, count).values()), self._codes(tensors, count)

    def _calls(self, count: int, first: int, held: Sets | None) -> Calls:
        """The calls of the top that a run of so many frames is; the last group is complete."""
        if self.grouping is not None:
            frames = np.array([g.size for g in groups.walk(self.grouping, count, first, held)], np.int64)
            return Calls(
                frames, np.zeros_like(frames), []
            )  # n is told by the frames of a call, and nothing else is held
        parts = list(split(self.written, count, first, held))
        lengths = [part.stop - part.start for part, _ in parts]
        given = [
            np.stack([h.initial if values is None else values[name] for _, values in parts])  # type: ignore[misc]
            for name, h in self.written.items()
        ]
        return Calls(np.ones(count, np.int64), np.repeat(np.arange(len(parts)), lengths), given)

    def _room(self, names: Iterable[str], calls: Calls) -> dict[str, np.ndarray]:
        """Where the kernels write the codes of tensors."""
        return {
            name: np.zeros((len(calls.frames) if self._grouped(name) else calls.count, *kind.shape), np.int64)
            for name, kind in ((name, self.tensors[name]) for name in names)
        }

    def _grouped(self, name: str) -> bool:
        """Whether a tensor has an entry a group."""
        return self.grouping is not None and name in self.grouping.tensors

    def _codes(self, made: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """What the kernels wrote, without what fills the last of so many frames' groups."""
        return {
            name: (codes if self._grouped(name) else codes[:count]).astype(self.tensors[name].format.dtype)
            for name, codes in made.items()
        }

    def beats(
        self, *sources: tuple[np.ndarray, np.ndarray], frames: int, held: Sets | None = None
    ) -> tuple[tuple[np.ndarray, ...], list[int]]:
        """Run what sources send, whatever its TLAST: what `run` gives, and the framing errors of each.

        sources   for every input, the codes of its beats and their TLAST, `[n]` each
        frames    frames that come of them; after these come what completes the last group
        held      the held inputs, for frames counted from 0
        """
        calls = self._calls(frames, 0, held)
        codes, last = [], []
        for name, (code, flags) in zip(self.inputs, sources, strict=True):
            size = self.tensors[name].size
            filling = np.zeros((calls.count - frames, size), np.uint8)
            filling[:, -1] = 1
            codes.append(np.concatenate([np.asarray(code, np.int64), np.zeros(filling.size, np.int64)]))
            last.append(np.concatenate([np.asarray(flags, np.uint8), filling.reshape(-1)]))
        counts = np.array([len(code) for code in codes], np.int64)
        results = self._room(self.results, calls)
        errors = np.zeros(len(sources), np.int64)
        self._call(
            "bittrue_beats",
            ctypes.c_long(len(calls.frames)),
            _longs(calls.frames),
            _longs(calls.sets),
            _longs(counts),
            pointers(codes),
            pointers(calls.held),
            (ctypes.c_void_p * len(last))(*(flags.ctypes.data for flags in last)),
            pointers(list(results.values())),
            _longs(errors),
        )
        return tuple(self._codes(results, frames).values()), errors.tolist()

    def _call(self, name: str, *arguments: object) -> None:
        """Call a function of the library that says by its status whether it failed, and in a message why."""
        message = ctypes.create_string_buffer(1000)
        if getattr(self._library, name)(*arguments, message, ctypes.c_long(len(message))):
            raise BittrueError(f"HLS kernel: {message.value.decode(errors='replace')}")

    def log(self) -> np.ndarray:
        """Accesses to streams so far, int32, as `hls_stream.h` records them; empty without BITTRUE_LOG."""
        entries = ctypes.POINTER(ctypes.c_int)()
        self._library.bittrue_log.restype = ctypes.c_long
        length = self._library.bittrue_log(ctypes.byref(entries))
        return np.ctypeslib.as_array(entries, (length,)).copy() if length else np.empty(0, np.int32)


def held_of(record: Mapping[str, Any]) -> dict[str, Held]:
    """The held inputs of a `project.json`."""
    return {
        name: Held(
            name,
            h["shape"],
            h["low"],
            h["high"],
            np.reshape(np.array(h["initial"], np.int64), h["shape"]),
            among=h.get("among"),
        )
        for name, h in record.items()
    }


def _longs(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_long))


def pointers(arrays: list[np.ndarray]) -> ctypes.Array:
    """Arrays of int64 as the libraries take them."""
    return (_POINTER * len(arrays))(*(array.ctypes.data_as(_POINTER) for array in arrays))
