"""How long after the start of Python the first result of a loaded program is there (target: 1 s, caches warm).

python -m bench first_inference
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.network import programs
from bench.timing import Row

SCRIPT = """
import sys, time
start = time.perf_counter()
import numpy as np
from bittrue.sim.program import Program
imported = time.perf_counter()
program = Program.load(sys.argv[1])
loaded = time.perf_counter()
(kind,) = program.inputs.values()
program(np.zeros((1, *kind.shape), kind.format.dtype))
print(imported - start, loaded - imported, time.perf_counter() - loaded)
"""


def _children() -> float:
    """CPU seconds of all processes started so far that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(repeats: int = 5) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, program in programs().items():
            path = program.save(Path(folder) / "program.npz")
            total, cpu, parts = [], [], []
            for _ in range(repeats + 1):  # the first run fills the caches
                used, start = _children(), time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", SCRIPT, str(path)],
                    capture_output=True,
                    text=True,
                    check=True,
                    cwd=Path(__file__).parents[1],
                )
                total.append(time.perf_counter() - start)
                cpu.append(_children() - used)
                parts.append([float(v) for v in done.stdout.split()])
            imported, loaded, ran = (median(p[k] for p in parts[1:]) for k in range(3))
            note = f"CPU {median(cpu[1:]):.2f} s, target 1 s; import {imported:.2f}, load {loaded:.2f}, run {ran:.2f}"
            value = median(total[1:])
            rows.append({"bench": "first inference", "what": name, "value": value, "unit": "s", "note": note})
    return rows
