"""Arrays on disk: batches of inputs (`.npy`, or `.npz` by input name) and results, read safely and written whole."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bittrue.sim import reading
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.program import Program


def read_inputs(path: str | Path, program: Program) -> list[np.ndarray]:
    """The program's input batches, checked: one `.npy` for a program with one input, else an `.npz` by input name."""
    path = Path(path)
    found = read(path)
    if isinstance(found, np.ndarray):
        if len(program.inputs) > 1:
            raise BittrueError(
                f"inputs {path}: the program has the inputs {', '.join(program.inputs)}; "
                "put them into one .npz under these names (numpy.savez)"
            )
        arrays = [found]
    else:
        absent = [name for name in program.inputs if name not in found]
        if absent:
            raise BittrueError(
                f"inputs {path}: it has no array {absent[0]!r}; it holds {', '.join(found) or 'nothing'}"
            )
        arrays = [found[name] for name in program.inputs]
    try:
        return program.check(*arrays)
    except BittrueError as error:
        raise BittrueError(f"inputs {path}: {error}") from error


def read(path: str | Path) -> np.ndarray | dict[str, np.ndarray]:
    """One array, or the arrays of an `.npz` by name; anything else is refused, pickles above all."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BittrueError(f"array file {path}: cannot be read ({error.strerror or error})") from error
    try:
        return reading.arrays(content) if content.startswith(b"PK") else reading.array(content)
    except BittrueError as error:
        raise BittrueError(
            f"array file {path}: not a numpy file of numbers, or cut ({error}); write it with numpy.save"
        ) from error


def write_results(path: str | Path, program: Program, outputs: Sequence[np.ndarray]) -> Path:
    """Write what a program gave: the codes of its one result as `.npy`, those of several as `.npz` by name."""
    return write(path, outputs[0] if len(outputs) == 1 else dict(zip(program.results, outputs, strict=True)))


def write(path: str | Path, content: np.ndarray | Mapping[str, np.ndarray]) -> Path:
    """Write one array as `.npy`, or several by name as `.npz`; there complete or not at all."""
    buffer = io.BytesIO()
    if isinstance(content, np.ndarray):
        np.lib.format.write_array(buffer, content, allow_pickle=False)
    else:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:  # `savez` cannot take any name
            for name, array in content.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return write_whole(Path(path), buffer.getvalue())
