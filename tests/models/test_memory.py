"""Trainings keep the memory that they free: pages are not cleared again in every step."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bittrue.models.training import memory

#: Faults of pages while eight megabytes are taken and freed a hundred times, some of them at the end of the heap.
SCRIPT = """
import resource, sys, torch
from bittrue.models.training.precision import threads
if sys.argv[1] == "kept":
    with threads(1):
        pass
def step():
    (torch.ones(1 << 20) + torch.ones(1 << 20)).sum().item()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """In a process whose environment is that of Dask's workers."""
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, how]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not memory.keep(), reason="the C library here is not glibc")
def test_pages_are_not_taken_again_in_every_step():
    assert faults("given back") > 100 * 3 * 1000  # three blocks of four megabytes, a page of four kilobytes each
    assert faults("kept") < 20 * 1024  # as the heap grows


@pytest.mark.parametrize("answers", [(1, 1), (0, 1), (1, 0)])
def test_it_is_told_whether_the_library_does_so(answers, monkeypatch):
    given = iter(answers)
    asked = []
    library = SimpleNamespace(mallopt=lambda *what: asked.append(what) or next(given))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: {None: library}[name])
    assert memory.keep.__wrapped__() == all(answers)
    assert asked == [(-3, 32 << 20), (-1, (1 << 31) - 1)][: len(asked)]


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace())
    assert memory.keep.__wrapped__() is False
