"""A run of tests in a process of its own, forked from one that has already imported the heavy packages.

What is under test is imported after the fork, from the copy of the tree with the mutant in it. Most of what a short
test costs is starting Python, and that is paid once.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numba
import numpy  # noqa: F401  (loaded before the fork)
import pytest

from tools.mutants.covered import Watch, told

#: What else is loaded before the fork, where it is installed.
HEAVY = ("hypothesis", "amaranth.sim", "torch", "sklearn.datasets", "pydantic", "typer", "jinja2", "rich.console")
#: Seconds of computing, of waiting, and bytes of data, that one file's tests may take.
COMPUTING, WAITING, MEMORY = 240, 1200, 8 << 30
#: pytest's status when all tests of a file are left out.
NO_TESTS = 5


@dataclass(frozen=True)
class Result:
    """How a run ended: `passed`, `failed` or `timeout`; and its first failed test, or the end of what it printed."""

    outcome: str
    by: str


def _run(tree: str, arguments: list[str], numba_cache: str, record: str, limit: int) -> None:
    os.setsid()
    os.nice(max(0, 10 - os.nice(0)))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    folder = Path(tree).parent
    with (folder / "output.txt").open("w") as output:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    os.chdir(tree)
    # Below the tree: what runs in a temporary folder and looks upward for the project is to find this one.
    temporary = Path(tree) / ".cache" / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    os.environ |= {"PYTHONPATH": tree, "TMPDIR": str(temporary), "NUMBA_CACHE_DIR": numba_cache}
    numba.config.CACHE_DIR = numba_cache
    sys.dont_write_bytecode = True  # a mutant may be as long and as old as what it replaces
    root = str(Path(__file__).parents[2])
    sys.path[:] = [tree, *(place for place in sys.path if place not in ("", root))]
    for name in [name for name in sys.modules if name.split(".")[0] in ("bittrue", "tests", "tools")]:
        del sys.modules[name]
    shared = ["-q", "-n", "0", "-p", "no:cacheprovider", "--tb=line", *arguments]
    if not record:
        os._exit(int(pytest.main(["-x", *shared])))
    watch = Watch()
    watch.begin(Path(tree))
    status = int(pytest.main(shared, plugins=[watch]))
    Path(record).write_text(told(watch, Path(tree)))
    os._exit(status)


class Runner:
    """Runs pytest in copies of the tree."""

    def __init__(self, heavy: Sequence[str] = HEAVY) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__, *heavy])
        os.environ["OMP_NUM_THREADS"] = "1"  # also: a fork of a process with threads is none of them

    def run(
        self, tree: Path, arguments: list[str], numba_cache: Path, record: Path | None = None, limit: int = COMPUTING
    ) -> Result:
        """Run the tests, all and watched if a `record` is to be written; what they started ends with them.

        limit   seconds of computing
        """
        what = (str(tree), arguments, str(numba_cache), str(record or ""), limit)
        process: ForkServerProcess = self.context.Process(target=_run, args=what)
        process.start()
        process.join(WAITING)
        ended = process.exitcode is not None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        process.join()
        if not ended or process.exitcode == -signal.SIGXCPU or process.exitcode == -signal.SIGKILL:
            return Result("timeout", f"{limit} s of computing, or {WAITING} s")
        if process.exitcode in (0, NO_TESTS):
            return Result("passed", "")
        text = (tree.parent / "output.txt").read_text(errors="replace")
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.M)  # a test's name may have spaces
        return Result("failed", failed[1] if failed else text.strip()[-200:])
