"""What all tests share: tools that a test needs, and that continuous integration may not do without."""

import gc
import os

import pytest

from bittrue.flow.run import verilate
from bittrue.hls import host
from tests.helpers.promises import breaks_promise, require


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*tools): programs without which the test skips, or fails where CI is set")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that at the end no worker waits for another one's long file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Modules and tests stay until the end: the search for cycles leaves them out; it took over a quarter of the time.

    Simulators and kernels are compiled as fast as can be: few tests run so long that it pays to wait for better code.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 5, 5)
    verilate.OPTIMIZE = "-O0"
    host.FLAGS = tuple(flag for flag in host.FLAGS if flag != "-O3")


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
