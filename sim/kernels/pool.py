"""Fast exact executions over the taps of a window, each channel by itself: largest code, weighted sum."""

from __future__ import annotations

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.kernels.channel_tiles import KINDS
from bittrue.sim.kernels.channels import Largest, Weighted
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.isa import VNNI
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.matrix import preferred, table_rows
from bittrue.sim.kernels.window import Reading
from bittrue.sim.requantize import Requantize


@jit
def _maximum(x, out):
    for r in range(x.shape[0]):
        for c in range(x.shape[2]):
            out[r, c] = x[r, 0, c]
        for t in range(1, x.shape[1]):
            for c in range(x.shape[2]):
                out[r, c] = max(out[r, c], x[r, t, c])


@jit
def _weighted(x, weight, vectors, limits, scaled, count, table, out):
    kind = weight.dtype.type
    saturated = 0
    acc = np.empty((32, x.shape[2]), weight.dtype)
    for start in range(0, x.shape[0], 32):
        stop = min(start + 32, x.shape[0])
        for r in range(start, stop):
            row = acc[r - start]
            for c in range(x.shape[2]):
                row[c] = kind(0)
            for t in range(x.shape[1]):
                for c in range(x.shape[2]):
                    row[c] = kind(row[c] + kind(kind(x[r, t, c]) * weight[t, c]))
        saturated += finish(acc, vectors, limits, scaled, count, table, out[start:stop])
    return saturated


def maximum(x: np.ndarray, fmt: Format, table: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
    """The largest codes over axis 1 of `[r, T, C]`, and the table of a function after it."""
    largest = np.empty((len(x), x.shape[2]), x.dtype) if table is not None or out is None else out
    _maximum(x, largest)
    if table is None:
        return largest
    looked = table_rows(largest, table, fmt)
    if out is None:
        return looked
    out[...] = looked
    return out


class LargestKernel:
    """The largest code of each channel in a window, which is never made, and the table of a function after it."""

    def __init__(self, reading: Reading, fmt: Format) -> None:
        self.taps, self.format = Largest(reading), fmt

    def run(self, x: np.ndarray, out: np.ndarray, count: bool = False, table: np.ndarray | None = None) -> int:  # noqa: ARG002
        """Fill `out [n * OH * OW, C]` from images `x [n, H, W, C]`; nothing can saturate."""
        if table is None:
            self.taps.run(x, out)
        else:
            largest = np.empty(out.shape, x.dtype)
            self.taps.run(x, largest)
            out[...] = table_rows(largest, table, self.format)
        return 0


def weighted(reading: Reading | None, weight: np.ndarray, epilogue: Epilogue, codes: Range) -> Weighted | None:
    """A weighted sum over the taps of a window without the window; None where there is none, or other channels."""
    if reading is None or reading.image[2] != weight.shape[1]:
        return None
    names = preferred()
    kinds = [kind for kind in KINDS.values() if ("vnni" if kind.isa is VNNI else "avx2") in names]
    return Weighted(reading, weight, epilogue, codes, kinds)


class WeightedKernel:
    """`requantize(sum_t weight[t, c] x[r, t, c])`; the vectors are made once."""

    def __init__(self, weight: np.ndarray, requantize: Requantize, widest: Range) -> None:
        self.epilogue = Epilogue(requantize, widest)
        self.weight = weight.astype(self.epilogue.vectors[0].dtype)

    def __call__(
        self, rows: np.ndarray, count: bool = True, table: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        """Rows `[rows, T * C]` to codes `[rows, C]` and how many saturated, as a matrix product's kernel has it."""
        x = rows.reshape(len(rows), *self.weight.shape)
        if out is None:
            out = np.empty((len(x), x.shape[2]), self.epilogue.format.dtype if table is None else table.dtype)
        lookup = NO_TABLE if table is None else bytes_of(table)
        arguments = self.epilogue.arguments(count, lookup)
        return out, int(_weighted(x, self.weight, *arguments, bytes_of(out)))
