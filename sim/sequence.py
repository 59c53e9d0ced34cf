"""The samples of a boot as nested counters, where they count.

They do where they fall into few runs: in a run every column goes from a first value up in ones, the last column
fastest, and begins anew with every step of the one before it. The runs are found from the front, each as long as it can
be: as often as the last column goes on, then as often as the one before it does so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Most runs for which there are counters.
MOST_RUNS = 64


@dataclass(frozen=True, eq=False)
class Run:
    """Nested counters: the first value of every column, and how many it has."""

    first: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return int(self.sizes.prod())

    @property
    def last(self) -> np.ndarray:
        return self.first + self.sizes - 1

    @property
    def samples(self) -> np.ndarray:
        """All of them, int64 `[n, columns]`."""
        grid = np.indices(self.sizes).reshape(len(self.sizes), -1)
        return self.first + grid.T


def runs(samples: np.ndarray) -> list[Run]:
    """The nested counters that samples `[n, columns]` are."""
    found, at, columns = [], 0, samples.shape[1]
    while at < len(samples):
        sizes, block = np.ones(columns, np.int64), 1
        for column in reversed(range(columns)):
            step = np.arange(columns) == column
            whole, count = samples[at : at + block], 1
            while np.array_equal(samples[at + count * block : at + (count + 1) * block], whole + count * step):
                count += 1
            sizes[column] = count
            block *= count
        found.append(Run(samples[at].astype(np.int64), sizes))
        at += block
    return found


def counted(samples: np.ndarray) -> list[Run] | None:
    """The runs, where counters take less than a memory of the samples; else None."""
    found = runs(samples)
    return found if len(found) <= MOST_RUNS and 2 * len(found) < len(samples) else None


def columns(batches: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """The samples of all inputs side by side, int64 `[n, columns]`, and the column with which each input begins."""
    flat = [np.asarray(batch).reshape(len(batch), -1) for batch in batches]
    return np.concatenate(flat, axis=1).astype(np.int64), np.cumsum([0, *(b.shape[1] for b in flat)])[:-1].tolist()
