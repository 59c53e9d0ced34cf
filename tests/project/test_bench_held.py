"""A process that is held to AVX2 is given no later instructions, and says what it measured."""

import subprocess

import pytest

from bench import held
from bittrue.sim.kernels.matrix import VARIABLE

BENCH = """
def measure_held():
    import os
    return [{"what": os.environ["ONEDNN_MAX_CPU_ISA"], "value": os.environ["BITTRUE_BACKEND"]}]
"""


def test_nothing_beyond_avx2():
    there = held.environment()
    features = there["NUMBA_CPU_FEATURES"].split(",")
    assert all(name[0] in "+-" for name in features)
    on = {name[1:] for name in features if name.startswith("+")}
    assert not {name for name in on if "512" in name or name.startswith(("avxvnni", "amx", "avx10"))}
    assert (there[VARIABLE], there["ONEDNN_MAX_CPU_ISA"]) == ("avx2", "AVX2")


def test_rows_come_from_such_a_process(tmp_path, monkeypatch):
    (tmp_path / "measures_little.py").write_text(BENCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert held.rows("measures_little") == [{"what": "AVX2", "value": "avx2"}]


def test_one_that_fails_is_not_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError):
        held.rows("nothing_of_this_name")
