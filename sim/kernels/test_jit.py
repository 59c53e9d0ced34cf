"""Compiled code on disk: a cache that is damaged, full or not there breaks nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import njit

import bittrue
from bittrue.sim.kernels import jit as kernels_jit


def _square(v):
    return v * v


def test_a_cache_that_cannot_be_written_breaks_nothing(monkeypatch):
    compiled = kernels_jit.jit(_square)
    cache, asked = compiled._cache, []

    def full(*_):
        asked.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache._cache_file, "save", full)
    monkeypatch.setattr(cache._cache_file, "load", full)
    assert compiled(7) == 49
    assert len(asked) == 2  # to load, and to save


def test_no_cache_at_all_breaks_nothing(monkeypatch):
    refused = []

    def refuse(*_, **options):
        if options.get("cache"):
            refused.append(1)
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*_, **options)

    monkeypatch.setattr(kernels_jit, "njit", refuse)
    assert kernels_jit.jit(_square)(6) == 36
    assert refused == [1]


def test_a_first_result_needs_no_scipy_and_leaves_numba_whole():
    """The probe that is skipped for speed is back afterwards: other compiled functions still have their BLAS."""
    pytest.importorskip("scipy", reason="numba's own BLAS comes with scipy, which is not installed")
    script = (
        "import sys, numpy as np, bittrue.sim.kernels.matrix, numba; from numba.np import linalg;"
        "assert 'scipy.linalg' not in sys.modules; assert linalg.ensure_blas.__name__ == 'ensure_blas';"
        "print(numba.njit(lambda a: np.dot(a, a))(np.eye(2)).sum())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(bittrue.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "2.0\n", done.stderr


def test_damaged_cache_files_break_nothing(tmp_path):
    """Compile into a cache, damage every file of it, and run again in a new process."""
    script = (
        "import numpy as np; from bittrue.sim.operations.transpose import Transpose;"
        "from bittrue.sim.operation import TensorType; from bittrue.sim.contract import INT8;"
        "print(Transpose(TensorType((2, 3), INT8))(np.arange(6, dtype=np.int8).reshape(1, 2, 3)).ravel().tolist())"
    )

    def run():
        environment = os.environ | {
            "NUMBA_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": str(Path(bittrue.__file__).parents[1]),
        }
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = run()
    files = [path for path in tmp_path.rglob("*.nb?")]
    assert files, "nothing was cached"
    for path in files:
        path.write_bytes(path.read_bytes()[:-20])
    assert run() == first == "[0, 3, 1, 4, 2, 5]\n"
