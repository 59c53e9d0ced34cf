"""Measure here as on a machine that has AVX2 and no more: `rows("bench.layer")` runs its `measure_held` in a process
for which Numba and oneDNN take no later instructions, and gives the rows that it returns.

What such a process runs is what an AVX2 machine would run; how fast it is there is another matter.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding

from bench.timing import Row
from bittrue.sim.kernels.matrix import VARIABLE

#: Beginnings of the names of what LLVM knows beyond AVX2.
BEYOND = ("avx512", "avxvnni", "avxifma", "avxneconvert", "avx10", "amx", "evex512")


def environment() -> dict[str, str]:
    """What holds Numba, torch and oneDNN to AVX2."""
    known = llvmlite.binding.get_host_cpu_features()
    features = [f"{'+' if there and not name.startswith(BEYOND) else '-'}{name}" for name, there in known.items()]
    amd = llvmlite.binding.get_host_cpu_name().startswith("znver")
    last = "znver3" if amd else "haswell"  # a CPU of this maker that has AVX2 and no more
    numba = {"NUMBA_CPU_NAME": last, "NUMBA_CPU_FEATURES": ",".join(features)}
    return numba | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", VARIABLE: "avx2"}


def rows(module: str) -> list[Row]:
    """The rows of a module's `measure_held`, made in such a process."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.held", module],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | environment(),
        cwd=Path(__file__).parents[1],
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(importlib.import_module(sys.argv[1]).measure_held()))
