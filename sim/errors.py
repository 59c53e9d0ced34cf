"""The one exception a user is meant to read, and the machine's own errors as sentences."""

from __future__ import annotations

import errno
import re
import subprocess

#: A word of a message that is longer than this is cut: names and values that a damaged file gives have no end.
LONGEST_WORD = 500
_LONG = re.compile(rf"\S{{{LONGEST_WORD},}}")


class BittrueError(ValueError):
    """Something the user gave cannot be used; the message names the thing, the place and the remedy."""

    def __init__(self, message: str = ""):
        super().__init__(_LONG.sub(lambda word: f"{word[0][:100]}...{word[0][-20:]}", str(message)))


_SPACE = "free space there, or choose another place"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "a file there may not be so large; choose another place",
    errno.ENOMEM: "close other programs, or give it less at a time",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: no more files can be opened",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or close other programs",
}


def remedy(error: OSError) -> str:
    """What to do about what the machine said of a place."""
    return _REMEDIES.get(error.errno or 0, "choose another place")


def sentence(error: BaseException) -> str | None:
    """An error of the machine or of a program that was started, for people; None for what is a fault of bittrue."""
    if isinstance(error, BittrueError):
        return str(error)
    if isinstance(error, OSError):
        places = [str(place) for place in (error.filename, error.filename2) if place is not None]
        if not places:
            return f"the machine refused: {error.strerror or error}; {remedy(error)}"
        return f"{' and '.join(places)}: {error.strerror or error}; {remedy(error)}"
    if isinstance(error, MemoryError):
        return (
            f"the memory is full{f' ({error})' if str(error) else ''}; close other programs, or give it less at a time"
        )
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or error.output or b"").strip()
        lines = (said.decode(errors="replace") if isinstance(said, bytes) else said).splitlines()
        what = f": {lines[-1].strip()}" if lines else ""
        return f"{_program(error.cmd)} ended with status {error.returncode}{what}; see `bittrue doctor`"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{_program(error.cmd)} took longer than {error.timeout:g} s; try again, or see `bittrue doctor`"
    return None


def _program(command: object) -> str:
    return str(command[0] if isinstance(command, list | tuple) else command)
