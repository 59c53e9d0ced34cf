"""One at a time works in a folder: a lock that goes with the process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import PlaceError, make_folder

LOCK = ".lock"
#: What the machine says of a write into an open file, without a name.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def locked(folder: str | Path) -> Iterator[Path]:
    """The folder, made where it is not there, for this process alone; nothing of the lock is left behind.

    Raises BittrueError, at once, where another bittrue is working in it, and PlaceError where it cannot be written.
    """
    folder = make_folder(folder)
    try:
        handle = _taken(folder / LOCK)
    except BlockingIOError:
        raise BittrueError(
            f"{folder}: another bittrue is working in this folder; wait for it, or choose another one"
        ) from None
    except OSError as error:
        raise PlaceError.of(folder, error) from error
    try:
        yield folder
    except OSError as error:
        if error.filename is None and error.errno in FULL:  # a file that was open: it was one in here
            raise PlaceError.of(folder, error) from error
        raise
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # before it is let go, so that nobody has it meanwhile
        os.close(handle)


def _taken(place: Path) -> int:
    """A descriptor that holds the lock; BlockingIOError where another one does."""
    while True:
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if place.exists() and os.path.samestat(os.fstat(handle), place.stat()):
                return handle  # else it was removed by the one who had it: the next one makes it anew
        except FileNotFoundError:
            pass
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
