"""Timing on a shared machine: candidates take turns in one process, medians of CPU time are compared, or the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Row = dict[str, object]


def taking_turns(candidates: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, list[float]]:
    """Seconds of this process's CPU time of every call of each candidate, after one call to warm up."""
    for call in candidates.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, call in candidates.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return seconds


def best(candidates: Mapping[str, Callable[[], object]], repeats: int = 15, calls: int = 1) -> dict[str, float]:
    """Least seconds of this process's CPU time for each candidate, who take turns of so many calls: neighbours on the
    machine only make it longer."""
    turns = {name: lambda call=call: [call() for _ in range(calls)] for name, call in candidates.items()}
    return {name: min(values) / calls for name, values in taking_turns(turns, repeats).items()}


def interleaved(candidates: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, float]:
    """Median seconds of this process's CPU time for each candidate, after one call to warm up."""
    return {name: median(values) for name, values in taking_turns(candidates, repeats).items()}
