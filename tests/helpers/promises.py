"""Tools that a test needs, and that continuous integration may not do without."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sysconfig
from pathlib import Path

import pytest

#: Tools that continuous integration promises (`.ci/run` sets CI): there, a test that skips for one of them fails.
PROGRAMS = ("iverilog", "icarus", "verilator", "g++", "yosys", "nextpnr", "yices")
PACKAGES = ("snntorch", "nirtorch", "nbclient", "nbformat", "ipykernel", "hatchling", "mypy", "seglearn")
PROMISED = (*PROGRAMS, *PACKAGES)


def installed(tool: str) -> bool:
    """Whether a command is on PATH or in this Python environment, or a Python package of that name is there."""
    if tool.isidentifier() and importlib.util.find_spec(tool) is not None:
        return True
    return (Path(sysconfig.get_path("scripts")) / tool).exists() or shutil.which(tool) is not None


def require(*tools: str) -> None:
    """Skips the running test where a tool is absent; in continuous integration the skip becomes a failure."""
    for tool in tools:
        if not installed(tool):
            pytest.skip(f"{tool} is not installed")


def breaks_promise(reason: str) -> bool:
    """Whether a reason to skip says that a promised tool is absent."""
    absent = re.search(r"not installed|not found|absent|missing|no such", reason, re.IGNORECASE)
    return bool(absent) and any(tool in reason.lower() for tool in PROMISED)
