"""Where compiled code is kept, by us and by the tools that we start: one folder, replaced where it cannot be written.

Wasmtime (yosys and nextpnr), ccache and our own simulators and kernels all keep what they compile below
`$XDG_CACHE_HOME`, by default `~/.cache`. Some of them end in an error where that cannot be written.
"""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import PlaceError, try_folder

#: Folders below the root that programs which we start write to.
USERS = ("bittrue", "YoWASP", "wasmtime", "ccache")
VARIABLE = "XDG_CACHE_HOME"
#: Roots that stand in for the user's own, and why.
_replaced: dict[str, str] = {}


def folder(name: str) -> Path:
    """The folder `bittrue/<name>` in the cache; it need not be there yet. See `prepare`."""
    return prepare() / "bittrue" / name


def prepare() -> Path:
    """The root of all caches, after which a tool that is started finds one that it can write to.

    Where the user's own cannot be written, it is a folder of this user below the temporary one, and `$XDG_CACHE_HOME`
    says so to this process and to those that it starts; `complaint` says why.
    """
    root, why = _root(), complaint()
    if why is None:
        assert root is not None
        return root
    place = _temporary()
    _replaced[str(place)] = why
    os.environ[VARIABLE] = str(place)
    return place


def complaint() -> str | None:
    """Why the user's own cache is not used, with the remedy; None where it is."""
    root = _root()
    if str(root) in _replaced:
        return _replaced[str(root)]
    if root is None:
        return f"this user has no home directory, so nothing compiled is kept there; set HOME or {VARIABLE}"
    refused = _refused(root)
    if refused is None:
        return None
    return f"{refused}; set {VARIABLE} to a folder where compiled code can be kept"


def replaced() -> str | None:
    """`complaint`, if that has led to another cache in this process."""
    return next(iter(_replaced.values()), None)


def _usual() -> Path | None:
    """`~/.cache`, None for a user without a home."""
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return None


def _root() -> Path | None:
    """What the environment says."""
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else _usual()


@cache
def _refused(root: Path) -> str | None:
    """What below the root cannot be written; asked once a process."""
    for name in USERS:
        try:
            try_folder(root / name)
        except PlaceError as error:
            return str(error).rpartition(";")[0]  # the remedy here is another one
    return None


@cache
def _temporary() -> Path:
    """A folder that belongs to this user alone, the same for every process where that is possible."""
    try:
        place = Path(tempfile.gettempdir()) / f"bittrue-cache-{os.geteuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
        there = place.lstat()
        if stat.S_ISDIR(there.st_mode) and there.st_uid == os.geteuid() and not there.st_mode & 0o077:
            return place
        return Path(tempfile.mkdtemp(prefix="bittrue-cache-"))  # somebody else made it
    except OSError as error:
        raise BittrueError(
            f"neither the cache nor a temporary folder can be written ({error.strerror or error}); "
            f"set TMPDIR, or {VARIABLE}, to a folder that can"
        ) from error
