"""Matrix products of codes in floating point: exact, because every sum stays a whole number the float holds."""

from __future__ import annotations

import numpy as np

from bittrue.sim.contract import Format
from bittrue.sim.kernels.epilogue import Epilogue

BLOCK_BYTES = 256 << 10  # the codes, or the sums, of a block as floats: both stay in the second-level cache
TERMS = 64  # a float32 product over fewer terms than this is no faster than float64


class Sgemm:
    """The back end `sgemm`: BLAS on blocks of rows.

    Float32 holds sums below 2^24. Where the weights allow larger ones the terms are split into parts that
    stay below it, whose sums are added as integers; float64 (below 2^53) takes over where parts get short.
    """

    offset = 0

    @staticmethod
    def suits(weight: np.ndarray, fmt: Format) -> bool:
        return int(np.abs(weight).sum(1).max(initial=0)) * max(abs(fmt.low), fmt.high) < 1 << 53

    def __init__(self, weight: np.ndarray, fmt: Format) -> None:
        self.real: type = np.float32
        cuts = split(np.abs(weight) * max(abs(fmt.low), fmt.high), 1 << 24)
        if cuts is None or (len(cuts) > 2 and weight.shape[1] < TERMS * (len(cuts) - 1)):
            self.real, cuts = np.float64, [0, weight.shape[1]]
        self.parts = [
            (slice(a, b), np.ascontiguousarray(weight.T[a:b].astype(self.real)))
            for a, b in zip(cuts[:-1], cuts[1:], strict=True)
        ]
        self.rows = max(64, BLOCK_BYTES // (np.dtype(self.real).itemsize * max(weight.shape)))

    def run(self, rows: np.ndarray, out: np.ndarray, epilogue: Epilogue, count: bool, table: np.ndarray) -> int:
        """Fill `out [rows, N]` and count the saturated codes."""
        block = min(self.rows, len(rows))
        floats, sums = np.empty((block, rows.shape[1]), self.real), np.empty((block, out.shape[1]), self.real)
        total = np.empty(sums.shape, np.int64) if len(self.parts) > 1 else sums
        saturated = 0
        for start in range(0, len(rows), self.rows):
            part = rows[start : start + self.rows]
            x, y, acc = floats[: len(part)], sums[: len(part)], total[: len(part)]
            x[...] = part
            if acc.dtype == np.int64:
                acc[...] = 0
                for terms, packed in self.parts:
                    np.matmul(x[:, terms], packed, out=y)
                    np.add(acc, y, out=acc, casting="unsafe")
            else:
                np.matmul(x, self.parts[0][1], out=y)
            saturated += epilogue(acc, out[start : start + self.rows], count, table)
        return saturated


def split(magnitude: np.ndarray, limit: int) -> list[int] | None:
    """Where to split the terms `[N, K]` so that every part's sum stays below `limit`; None if one term does not."""
    if magnitude.max(initial=0) >= limit:
        return None
    cuts, total = [0], np.zeros(len(magnitude), np.int64)
    for k in range(magnitude.shape[1]):
        total += magnitude[:, k]
        if total.max(initial=0) >= limit:
            cuts.append(k)
            total = magnitude[:, k].copy()
    return [*cuts, magnitude.shape[1]]
