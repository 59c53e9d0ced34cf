"""A matrix product of rows of a table, as a sum of rows of products: every entry of the table is multiplied once.

    acc[r, n] = sum_p sums[p, index[r, p], n]        sums[p, i, n] = sum_d weight[n, p D + d] entries[i, d]

So a row costs additions only. Sums are those of the product in every bit: they are modulo 2^32 or 2^64 the same in any
order, and what they come to fits.
"""

from __future__ import annotations

import numpy as np

from bittrue.sim.contract import Range
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.jit import jit
from bittrue.sim.requantize import Requantize

#: Most numbers that are kept of all products; more would take longer to make than they save.
MOST = 1 << 20
#: Rows that are added up before they are requantised.
BLOCK = 64


@jit
def _sum_rows(index, sums, vectors, limits, scaled, count, table, out):
    kind = sums.dtype.type
    last, channels = index.shape[1] - 1, sums.shape[2]
    acc = np.empty((min(max(index.shape[0], 1), BLOCK), channels), sums.dtype)
    most = np.zeros(channels, sums.dtype)  # of all indices but the last, which seldom change where samples count up
    saturated = 0
    for start in range(0, index.shape[0], BLOCK):
        stop = min(start + BLOCK, index.shape[0])
        for r in range(start, stop):
            other = r == 0
            for p in range(last):
                other |= index[r, p] != index[r - 1, p]
            if other:
                for n in range(channels):
                    most[n] = kind(0)
                for p in range(last):
                    more = sums[p, index[r, p]]
                    for n in range(channels):
                        most[n] = kind(most[n] + more[n])
            into, more = acc[r - start], sums[last, index[r, last]]
            for n in range(channels):
                into[n] = kind(most[n] + more[n])
        saturated += finish(acc, vectors, limits, scaled, count, table, out[start:stop])
    return saturated


class SumOfRows:
    """`requantize(weight @ [entries[i_0], entries[i_1], ...])` for rows of so many indices.

    weight   int `[N, P D]`;  entries  int `[R, D]`, a row for every index that there can be
    sums     exact low and high of what is summed, `[N]`
    """

    def __init__(
        self, weight: np.ndarray, entries: np.ndarray, sums: tuple[np.ndarray, np.ndarray], requantize: Requantize
    ) -> None:
        scaled, rounded, shifted = requantize.ranges(*sums, "matrix kernel")
        self.epilogue = Epilogue(requantize, Range.of(*sums) | scaled | rounded | shifted)
        parts = weight.reshape(len(weight), -1, entries.shape[1])
        self.indices = parts.shape[1]
        made = np.einsum("npd,id->pin", parts.astype(np.int64), entries.astype(np.int64))
        self.sums = np.ascontiguousarray(made.astype(self.epilogue.vectors[0].dtype))

    @staticmethod
    def suits(weight: np.ndarray, rows: int, dimension: int) -> bool:
        """Whether what the weights multiply is rows of a table of so many codes, and that has few enough rows."""
        whole, rest = divmod(weight.shape[1], dimension)
        return not rest and whole * rows * len(weight) <= MOST

    def __call__(self, index: np.ndarray, table: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Rows of indices `[rows, P]` to codes `[rows, N]`, or those of a `table`, as `MatrixKernel` has it."""
        if out is None:
            kind = self.epilogue.format.dtype if table is None else table.dtype
            out = np.empty((len(index), self.sums.shape[2]), kind)
        lookup = NO_TABLE if table is None else bytes_of(table)
        _sum_rows(index, self.sums, *self.epilogue.arguments(False, lookup), bytes_of(out))
        return out
