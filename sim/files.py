"""Files that are written: whole or not at all, through links, into devices and pipes, and tried before long work.

Every place that a user names and that is written goes through `write_whole`; what cannot be written is one sentence.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from mmap import mmap
from pathlib import Path

from bittrue.sim.errors import BittrueError, remedy

#: What can be written: bytes, or memory that a file is mapped to.
Content = bytes | mmap
#: A temporary file of this age, in seconds, was left by a process that was killed.
STALE = 60
#: What a folder answers that takes no new file, though one in it may be written.
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
#: What file systems answer that have no files without a name.
_NAMED_ONLY = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class PlaceError(BittrueError):
    """A place that the user named cannot be written."""

    @classmethod
    def of(cls, path: str | Path, error: OSError) -> PlaceError:
        """The sentence of what the machine said when `path` was to be written."""
        return cls(f"{path}: cannot be written ({error.strerror or error}); {remedy(error)}")


def write_whole(path: str | Path, content: Content) -> Path:
    """Write a file so that it is there complete or not at all, and return the path. Folders are made where needed.

    A symbolic link stays and its target is written. A device, a pipe, and what standard output or error is open on are
    written into. A new file has the mode that the umask gives, one that is replaced keeps its own. A process that is
    killed leaves the old file and nothing beside it. A file that stands in a folder that takes no new ones is the one
    exception to "complete": it is written in place.

    Raises PlaceError when the place cannot be written.
    """
    path = Path(path)
    try:
        there = _look(path)
        if there is not None and (not stat.S_ISREG(there.st_mode) or _standard(there)):
            _through(path, content, there)
            return path
        place = Path(os.path.realpath(path))
        try:
            _replace(place, content, there)
        except OSError as error:
            if there is None or error.errno not in _CLOSED:
                raise
            _through(place, content, there)
    except OSError as error:
        raise PlaceError.of(path, error) from error
    return path


def try_file(path: str | Path) -> Path:
    """The path, or the PlaceError that `write_whole` would raise, as far as it can be told beforehand.

    Nothing is there afterwards that was not there before.
    """
    path = Path(path)
    try:
        there = _look(path)
        if there is not None and not stat.S_ISREG(there.st_mode):
            return path
        try:
            _try_folder(Path(os.path.realpath(path)).parent)
        except OSError as error:
            if there is None or error.errno not in _CLOSED:
                raise
    except OSError as error:
        raise PlaceError.of(path, error) from error
    return path


def try_folder(path: str | Path) -> Path:
    """The path of a folder that is to be made or filled, or the PlaceError of one that cannot be."""
    path = Path(path)
    try:
        _try_folder(Path(os.path.realpath(path)))
    except OSError as error:
        raise PlaceError.of(path, error) from error
    return path


def make_folder(path: str | Path) -> Path:
    """The folder, made with those above it where it is not there; PlaceError where it cannot be."""
    path = Path(path)
    try:
        Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise PlaceError.of(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from None
    except OSError as error:
        raise PlaceError.of(path, error) from error
    return path


def beside(path: str | Path, name: str, what: str) -> Path:
    """The file `name` in the folder of the file `path`, for what is written with it.

    Raises BittrueError where `path` is a device or a pipe, beside which nothing belongs; `what` the other file is.
    """
    path = Path(path)
    if alone(path):
        raise BittrueError(f"{path}: {what} is written beside it, so it cannot be a device or a pipe; name a file")
    return path.parent / name


def alone(path: str | Path) -> bool:
    """Whether there is a device or a pipe, beside which nothing belongs."""
    with suppress(OSError):
        there = os.stat(path)
        return not stat.S_ISREG(there.st_mode) or _standard(there)
    return False


# -- how ---------------------------------------------------------------------------------------------------
def _look(path: Path) -> os.stat_result | None:
    """What is there, None where nothing is; an OSError where it cannot be written for what it is."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(there.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return there


def _standard(there: os.stat_result) -> int:
    """The descriptor, 1 or 2, that is open on this very file; 0 where neither is."""
    for number in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), there):
                return number
    return 0


def _through(path: Path, content: Content, there: os.stat_result) -> None:
    """Write into what is there."""
    number = _standard(there)
    if number:
        (sys.stdout if number == 1 else sys.stderr).flush()
        handle = os.dup(number)
    else:
        handle = os.open(path, os.O_WRONLY | (os.O_TRUNC if stat.S_ISREG(there.st_mode) else 0))
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _replace(place: Path, content: Content, there: os.stat_result | None) -> None:
    """A new file in the place of the old one, in one move."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.parent / f".{place.name[:100]}.{secrets.token_hex(6)}.bittrue-part"
    handle, named = _open(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            if there is not None:
                with suppress(OSError):
                    os.fchown(handle, there.st_uid, there.st_gid)
                os.fchmod(handle, stat.S_IMODE(there.st_mode))
            file.write(content)
            file.flush()
            if not named:
                folder = os.open(place.parent, os.O_RDONLY)  # without one, Python's link does not follow /proc
                try:
                    os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=folder, follow_symlinks=True)
                finally:
                    os.close(folder)
        os.replace(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open(temporary: Path) -> tuple[int, bool]:
    """A new file, without a name where the file system has such: it goes with the process. And whether it has one."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").exists():
        try:
            return os.open(temporary.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), False
        except OSError as error:
            if error.errno not in _NAMED_ONLY:
                raise
    for old in temporary.parent.glob(".*.bittrue-part"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > STALE:
                old.unlink()
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), True


def _try_folder(folder: Path) -> None:
    """Write a little into the folder, or the one that is there of those above it, and leave nothing."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    temporary = folder / f".{secrets.token_hex(6)}.bittrue-part"
    handle, named = _open(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(bytes(4096))
    finally:
        if named:
            temporary.unlink(missing_ok=True)
