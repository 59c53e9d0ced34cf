"""Threads over the samples of a batch: kernels run without the lock of Python and share nothing they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from bittrue.sim.errors import BittrueError

#: Most threads that are taken.
MOST = 1024

T = TypeVar("T")


def check(threads: int) -> int:
    """The number of threads, refused where it is none."""
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or not 1 <= threads <= MOST:
        raise BittrueError(f"threads={threads!r}: the threads of a run are a whole number from 1 to {MOST}")
    return int(threads)


def pieces(part: slice, size: int, threads: int, step: int = 1) -> Iterator[slice]:
    """A part of a batch in pieces of at most `size` samples, small enough that every thread gets one.

    Each is of whole groups of `step` samples, so that one of them may exceed `size`.
    """
    size = max(1, min(size, -(-(part.stop - part.start) // threads)))
    size = max(step, size // step * step)
    for start in range(part.start, part.stop, size):  # none where the part is empty
        yield slice(start, min(start + size, part.stop))


def spread(threads: int, calls: Sequence[Callable[[], T]]) -> list[T]:
    """What the calls return, in order; they are made by so many threads, and what one raises is raised."""
    if threads == 1 or len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(threads, len(calls))) as pool:
        made = [pool.submit(call) for call in calls]
        return [future.result() for future in made]
