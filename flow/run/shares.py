"""A long run of the compiled RTL in shares: as many streams side by side, each through a simulator of its own.

Only where the schedule of a frame does not depend on those before it, so that a stream may begin with any frame. Every
share is long enough for a steady state, which has to be the same in all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.run.result import RtlRun

if TYPE_CHECKING:
    from bittrue.flow.run.compiled import CompiledRtl

#: Frames of a share at least.
LEAST = 1000
#: Seconds between two words about progress.
PAUSE = 0.2


def divided(frames: int, shares: int) -> list[slice]:
    """So many shares of the frames, the same number in each but for one."""
    ends = [frames * k // shares for k in range(shares + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


@dataclass(frozen=True, eq=False)
class Shared(RtlRun):
    """Shares as one run: frames and cycles as if one stream came after the other, `seconds` as they were.

    Latency and interval are those of every share, and None where these differ.
    """

    shares: tuple[RtlRun, ...] = ()

    @property
    def streams(self) -> int:
        return len(self.shares)

    @property
    def latency(self) -> int | None:
        return _common([run.latency for run in self.shares])

    @property
    def interval(self) -> int | None:
        return _common([run.interval for run in self.shares])


def run(
    rtl: CompiledRtl,
    x: Sequence[np.ndarray],
    shares: int,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Shared:
    """Batches `[n, *shape]` through `shares` simulators at a time.

    progress  as in `CompiledRtl.run`, called in this thread
    options   those of `CompiledRtl.run`, the same for each; no stalls and no sets, which belong to one stream
    """
    places, begin = divided(len(x[0]), shares), time.perf_counter()
    done, stopped = [0] * shares, threading.Event()

    def share(k: int) -> RtlRun:
        def tell(frames: int, _: int) -> None:
            done[k] = frames
            if stopped.is_set():
                raise KeyboardInterrupt

        return rtl.run(*(v[places[k]] for v in x), progress=tell, **options)

    with ThreadPoolExecutor(shares) as pool:
        running = [pool.submit(share, k) for k in range(shares)]
        try:
            while wait(running, PAUSE).not_done:
                for future in running:
                    if future.done():
                        future.result()
                if progress:
                    progress(sum(done), len(x[0]))
        finally:  # what failed in one of them, or in `progress`, ends the others
            stopped.set()
    return joined([future.result() for future in running], places, time.perf_counter() - begin)


def joined(runs: Sequence[RtlRun], places: Sequence[slice], seconds: float) -> Shared:
    """Runs of the frames at these places, as one."""
    starts = [0, *np.cumsum([run.cycles for run in runs])]
    moved = [
        [np.where(cycles < 0, cycles, cycles + start) for cycles in run.handshakes]
        for run, start in zip(runs, starts, strict=False)
    ]
    errors = [
        f"frames {place.start} to {place.stop - 1}, a stream of their own: {error}"
        for run, place in zip(runs, places, strict=True)
        for error in run.errors
    ]
    first = {one.name: getattr(runs[0], one.name) for one in fields(RtlRun)}
    return Shared(
        **first
        | {
            "results": tuple(np.concatenate(codes) for codes in zip(*(run.results for run in runs), strict=True)),
            "handshakes": tuple(np.concatenate(cycles) for cycles in zip(*moved, strict=True)),
            "cycles": int(starts[-1]),
            "seconds": seconds,
            "errors": tuple(errors),
            "ones": {name: sum(run.ones[name] for run in runs) for name in runs[0].ones},
            "meets": np.concatenate([run.meets for run in runs]),
        },
        shares=tuple(runs),
    )


def _common(values: Sequence[int | None]) -> int | None:
    return values[0] if len(set(values)) == 1 else None
