"""Numba with a cache on disk that can be absent, full or damaged without breaking anything."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.np import linalg

_DAMAGE = (OSError, EOFError, ValueError, KeyError, IndexError, AttributeError, ImportError, pickle.PickleError)


def _import_without_blas() -> None:
    """Import Numba's array functions without their probe for a BLAS, which imports all of scipy.linalg.

    That is a fifth of the time to a first result, for functions that are not used here. The probe is put back,
    and is still asked when some other function is compiled that does call a BLAS.
    """
    if "numba.np.arraymath" in sys.modules:
        return
    probe = linalg.ensure_blas
    linalg.ensure_blas = lambda: None
    try:
        arraymath = importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = probe
    arraymath.ensure_blas = probe


_import_without_blas()


@cache
def _stamp(file: str) -> str:
    """A hash of every kernel module here and of the function's own: one function is compiled into another, across
    files, and Numba looks only at the file of the outer one when it asks whether cached code is still current."""
    sha = hashlib.sha256()
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(file)):
        if not path.name.startswith("test_"):
            sha.update(path.read_bytes())
    return sha.hexdigest()


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`numba.njit` with the compiled code kept on disk where that is possible.

    Where no cache can be written (a read-only installation, a full disk) or a cached file is damaged, the
    function is compiled in memory instead: slower at the first call, otherwise the same. Python's lock is not held
    while it runs, so threads run beside each other.
    """
    options = {"nogil": True} | options
    try:
        compiled = njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder that it may write to
        return njit(**options)(function)
    files = compiled._cache
    files._cache_file._source_stamp = _stamp(function.__code__.co_filename)
    load, save = files.load_overload, files.save_overload

    def load_overload(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except _DAMAGE:
            return None

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except _DAMAGE:
            return

    files.load_overload, files.save_overload = load_overload, save_overload
    return compiled
