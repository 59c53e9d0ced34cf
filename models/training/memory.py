"""Memory of a training: the tensors of a step are as large in the next, so it is kept and not given back between them.

By default the C library of Linux gives a large block back to the system as it is freed, and what comes from the system
is cleared page by page. Dask tells its workers to give back more (`MALLOC_TRIM_THRESHOLD_`), which took a third of the
time of a sweep's trainings. No value depends on it.
"""

from __future__ import annotations

import ctypes
from functools import cache

# Of glibc's <malloc.h>: blocks from this size on are mapped by themselves, and so much may lie free at the end.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Bytes; glibc takes no larger one for the former.
MAPPED, KEPT = 32 << 20, (1 << 31) - 1


@cache
def keep() -> bool:
    """Let this process keep the memory that it frees, until it ends; False where its C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))
