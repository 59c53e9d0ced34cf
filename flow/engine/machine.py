"""The class of this machine, as far as speeds depend on it: the widest instructions that the kernels use, and cores."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CPU, _MEMORY = Path("/proc/cpuinfo"), Path("/proc/meminfo")
#: From the widest to the narrowest: a flag of the CPU, and what the class is called.
CLASSES = {"amx_int8": "AMX", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "avx512f": "AVX512", "avx2": "AVX2"}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int | None:
    """Bytes that processes may still take, None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", _MEMORY.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def described() -> dict[str, Any]:
    """`{"class": "AVX2", "cores": 2}`; where the flags are not known, the name of the architecture."""
    try:
        flags = {flag for line in _CPU.read_text().splitlines() if line.startswith("flags") for flag in line.split()}
    except OSError:
        flags = set()
    found = next((name for flag, name in CLASSES.items() if flag in flags), platform.machine())
    return {"class": found, "cores": cores()}


def words(machine: Mapping[str, Any]) -> str:
    """As people say it: `2 cores with AVX2`."""
    return f"{machine['cores']} {'core' if machine['cores'] == 1 else 'cores'} with {machine['class']}"
