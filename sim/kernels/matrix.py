"""Fast exact executions: what `Operation.run` calls. Each returns codes and, where asked, a saturation count.

A matrix product goes through one of several back ends behind one epilogue, a block of rows at a time, so that
the sums never leave the cache; all are exact:

    vnni    vpdpbusd register tiles, for 8-bit weights and codes of up to 16 bits, on CPUs that have AVX512-VNNI
    avx2    register tiles on CPUs that have AVX2: vpmaddubsw where codes are known to be positive and products fit
            in words (behind a ReLU), else vpmaddwd, for weights and codes of up to 16 bits
    sgemm   BLAS in float32 while sums stay below 2^24 (K is split where they do not), else in float64 below 2^53
    numba   plain integer dot products, any width

The first that suits an operation is chosen when it first runs. The environment variable BITTRUE_BACKEND names
the one to begin with: `BITTRUE_BACKEND=sgemm` leaves out vnni. Element-wise functions of 8-bit codes go
through tables built from the reference model; one that reads a matrix product joins its epilogue.
"""

from __future__ import annotations

import os

import numpy as np

from bittrue.sim.contract import MAX_BITS, Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.blas import Sgemm
from bittrue.sim.kernels.direct import Avx2, Direct, alone
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish
from bittrue.sim.kernels.isa import BYTES, VNNI, WORDS
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.vnni import Vnni
from bittrue.sim.kernels.window import Reading
from bittrue.sim.requantize import Requantize

BACKENDS = ("vnni", "avx2", "sgemm", "numba")
#: What the tiles of those are made of that are made for some CPUs, fastest first.
ISAS = {"vnni": (VNNI,), "avx2": (BYTES, WORDS)}
VARIABLE = "BITTRUE_BACKEND"


def backends() -> tuple[str, ...]:
    """The back ends that this computer can run, fastest first."""
    return tuple(name for name in BACKENDS if name not in ISAS or ISAS[name][0].available())


def preferred() -> tuple[str, ...]:
    """The back ends to choose from: all that run here, or those from `BITTRUE_BACKEND` on."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        return backends()
    if name not in BACKENDS:
        raise BittrueError(f"{VARIABLE}={name}: no such back end; choose one of {', '.join(BACKENDS)}, or unset it")
    if name not in backends():
        what = {"vnni": "AVX512-VNNI", "avx2": "AVX2"}[name]
        raise BittrueError(f"{VARIABLE}={name}: this CPU has no {what}; choose sgemm or numba, or unset it")
    return tuple(other for other in backends() if BACKENDS.index(other) >= BACKENDS.index(name))


# -- matrix products ----------------------------------------------------------------------------------------
class Dot:
    """The back end `numba`: integer dot products over `weight [N, K]`, in int32 where every sum fits, else int64."""

    offset = 0
    rows = 64

    @staticmethod
    def suits(weight: np.ndarray, fmt: Format) -> bool:
        """Always: the contract bounds every sum to 48 bits."""
        return weight.size > 0 and fmt.bits <= MAX_BITS

    def __init__(self, weight: np.ndarray, fmt: Format) -> None:
        largest = max(abs(fmt.low), fmt.high)
        sums = int(np.abs(weight).sum(1).max(initial=0)) * largest
        narrow = max(largest, int(np.abs(weight).max(initial=0))) < 1 << 15 and sums < 1 << 31
        self.term, self.sum = (np.int16, np.int32) if narrow else (np.int64, np.int64)
        self.packed = np.ascontiguousarray(weight, dtype=self.term)

    def run(self, rows: np.ndarray, out: np.ndarray, epilogue: Epilogue, count: bool, table: np.ndarray) -> int:
        """Fill `out [rows, N]` and count the saturated codes."""
        acc = np.empty((min(self.rows, len(rows)), out.shape[1]), self.sum)
        saturated = 0
        for start in range(0, len(rows), self.rows):
            part = rows[start : start + self.rows].astype(self.term)
            dot(part, self.packed, acc)
            saturated += epilogue(acc, out[start : start + self.rows], count, table)
        return saturated


_MAKE: dict[str, type[Vnni] | type[Avx2] | type[Sgemm] | type[Dot]] = {
    "vnni": Vnni,
    "avx2": Avx2,
    "sgemm": Sgemm,
    "numba": Dot,
}


@jit
def dot(x, weight, acc):
    """`acc[r, n] = sum_k x[r, k] * weight[n, k]` in the integer type of `acc`, which holds every sum."""
    kind = acc.dtype.type
    for r in range(x.shape[0]):
        for n in range(weight.shape[0]):
            total = kind(0)
            for k in range(x.shape[1]):
                total = kind(total + kind(x[r, k]) * kind(weight[n, k]))
            acc[r, n] = total


class MatrixKernel:
    """`requantize(x @ weight.T)` for rows of codes, and the table of an element-wise function after it.

    Weights int `[N, K]` are packed once and the back end is chosen once; `backend` names it, for tests;
    those in `but` are left out.
    """

    def __init__(
        self,
        weight: np.ndarray,
        input_format: Format,
        sums: tuple[np.ndarray, np.ndarray],
        requantize: Requantize,
        backend: str | None = None,
        but: tuple[str, ...] = (),
    ) -> None:
        names = tuple(name for name in preferred() if name not in but) if backend is None else (backend,)
        suitable = [name for name in names if _MAKE[name].suits(weight, input_format)]
        if not suitable:
            raise BittrueError(f"matrix kernel: back end {backend} cannot run {input_format} codes exactly")
        self.backend = suitable[0]
        self.product = _MAKE[self.backend](weight, input_format)
        scaled, rounded, shifted = requantize.ranges(*sums, "matrix kernel")
        self.epilogue = Epilogue(requantize, Range.of(*sums) | scaled | rounded | shifted, self.product.offset)
        self.outputs = len(weight)
        self._weight, self._format = weight, input_format

    def direct(self, reading: Reading | None, codes: Range | None = None) -> Direct | None:
        """The same for rows that are windows of an image, read where they lie, or for rows as they are where `reading`
        is None; None where the back end has no tiles for that.

        `codes` are those that are read, where they are known to be fewer than their format has.
        """
        reading = alone(self._weight.shape[1], self._format) if reading is None else reading
        for isa in ISAS.get(self.backend, ()):
            if Direct.suits(isa, self._weight, self._format, codes):
                return Direct(isa, reading, self._weight, self._format, self.epilogue, codes)
        return None

    def __call__(
        self,
        rows: np.ndarray,
        count: bool = True,
        table: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, int]:
        """Codes `[rows, K]` to codes `[rows, N]` and how many saturated (0 unless `count`).

        With `table [N, levels]`, column k of which is the result for the k-th code of the requantiser's
        format, the codes that come out are the table's. `out`, contiguous, takes them where it is given.
        """
        if out is None:
            out = np.empty((len(rows), self.outputs), self.epilogue.format.dtype if table is None else table.dtype)
        lookup = NO_TABLE if table is None else bytes_of(table)
        return out, int(self.product.run(rows, out, self.epilogue, count, lookup))


# -- the other operations -----------------------------------------------------------------------------------
@jit
def _affine(x, weight, vectors, limits, scaled, count, table, out):
    kind = weight.dtype.type
    saturated = 0
    acc = np.empty((32, x.shape[1]), weight.dtype)
    for start in range(0, x.shape[0], 32):
        stop = min(start + 32, x.shape[0])
        for r in range(start, stop):
            for c in range(x.shape[1]):
                acc[r - start, c] = kind(kind(x[r, c]) * weight[c])
        saturated += finish(acc, vectors, limits, scaled, count, table, out[start:stop])
    return saturated


@jit
def _sum_tokens(x, acc):
    kind = acc.dtype.type
    for n in range(x.shape[0]):
        for c in range(x.shape[2]):
            acc[n, c] = kind(0)
        whole = x.shape[1] // 4 * 4
        for t in range(0, whole, 4):  # four at a time: a sum is read and written as seldom
            for c in range(x.shape[2]):
                pairs = kind(kind(x[n, t, c]) + kind(x[n, t + 1, c])), kind(kind(x[n, t + 2, c]) + kind(x[n, t + 3, c]))
                acc[n, c] = kind(acc[n, c] + kind(pairs[0] + pairs[1]))
        for t in range(whole, x.shape[1]):
            for c in range(x.shape[2]):
                acc[n, c] = kind(acc[n, c] + kind(x[n, t, c]))


@jit
def _mean(x, sums, vectors, limits, scaled, count, table, out):
    acc = np.empty((min(x.shape[0], 64), x.shape[2]), sums.dtype)
    saturated = 0
    for start in range(0, x.shape[0], 64):
        stop = min(start + 64, x.shape[0])
        _sum_tokens(x[start:stop], acc)
        saturated += finish(acc, vectors, limits, scaled, count, table, out[start:stop])
    return saturated


@jit
def _table(x, flip, table, out):
    row = np.empty(x.shape[1], np.int32)
    levels, flat = table.shape[1], table.reshape(-1)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            row[c] = c * levels + (x[r, c] ^ flip)
        for c in range(x.shape[1]):
            out[r, c] = flat[np.uint32(row[c])]


@jit
def _add(a, b, limits, out):
    kind = limits.dtype.type
    low, high = limits[0], limits[1]
    saturated = 0
    for k in range(a.size):
        v = kind(kind(a[k]) + kind(b[k]))
        saturated += (v > high) | (v < low)
        out[k] = min(max(v, low), high)
    return saturated


@jit
def _transpose(x, out):
    for n in range(x.shape[0]):
        for first in range(0, x.shape[1], 16):
            for c in range(x.shape[2]):
                for t in range(first, min(first + 16, x.shape[1])):
                    out[n, c, t] = x[n, t, c]


class AffineKernel:
    """`requantize(weight[c] * x[r, c])`; the vectors are made once."""

    def __init__(self, weight: np.ndarray, requantize: Requantize, widest: Range) -> None:
        self.epilogue = Epilogue(requantize, widest)
        self.weight = weight.astype(self.epilogue.vectors[0].dtype)

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, int]:
        out = np.empty(rows.shape, self.epilogue.format.dtype)
        return out, int(_affine(rows, self.weight, *self.epilogue.arguments(True, NO_TABLE), bytes_of(out)))


class MeanKernel:
    """`requantize(sum over axis 1)` of `[n, T, C]`; the vectors are made once.

    `sums` are those that occur: they are made in words where words hold them.
    """

    def __init__(self, requantize: Requantize, sums: Range, widest: Range) -> None:
        self.epilogue = Epilogue(requantize, sums | widest)
        self.none = np.empty(0, np.int16 if sums.bits <= 16 else self.epilogue.vectors[0].dtype)  # says what sums are

    def __call__(
        self, x: np.ndarray, count: bool = True, table: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        if out is None:
            shape = len(x), x.shape[2]
            out = np.empty(shape, self.epilogue.format.dtype if table is None else table.dtype)
        told = self.epilogue.arguments(count, NO_TABLE if table is None else bytes_of(table))
        return out, int(_mean(x, self.none, *told, bytes_of(out)))


def table_rows(rows: np.ndarray, table: np.ndarray, fmt: Format) -> np.ndarray:
    """`table[c, x[r, c] - fmt.low]`."""
    out = np.empty(rows.shape, table.dtype)
    if fmt.bits == 8:  # the code's byte, its sign bit turned, is the index
        _table(rows.view(np.uint8), np.uint8(128 if fmt.signed else 0), bytes_of(table), bytes_of(out))
    else:
        _table(rows - np.int64(fmt.low), np.int64(0), bytes_of(table), bytes_of(out))
    return out


def add_codes(a: np.ndarray, b: np.ndarray, fmt: Format, widest: Range) -> tuple[np.ndarray, int]:
    """`saturate(a + b)`, whose exact sum lies within `widest`."""
    kind = np.int32 if widest.bits <= 31 and fmt.bits <= 31 else np.int64
    out = np.empty(a.shape, fmt.dtype)
    saturated = _add(a.reshape(-1), b.reshape(-1), np.array([fmt.low, fmt.high], kind), bytes_of(out).reshape(-1))
    return out, int(saturated)


@jit
def _limited(a, b, low, high, out):
    kind = low.dtype.type
    least, most = low[0], high[0]
    for k in range(a.size):
        out[k] = min(max(kind(kind(a[k]) + kind(b[k])), least), most)


def add_limited(
    a: np.ndarray, b: np.ndarray, ends: tuple[int, int], dtype: np.dtype, widest: Range, out: np.ndarray | None = None
) -> np.ndarray:
    """`min(max(a + b, ends[0]), ends[1])`, nothing counted; the exact sum lies within `widest`, and so may the ends."""
    bits = (widest | Range(*ends)).bits
    kind = np.int16 if bits <= 16 else np.int32 if bits <= 32 else np.int64
    out = np.empty(a.shape, dtype) if out is None else out
    low, high = (np.array([end], kind) for end in ends)
    _limited(a.reshape(-1), b.reshape(-1), low, high, out.reshape(-1))
    return out


def swap_axes(x: np.ndarray) -> np.ndarray:
    """`[n, T, C]` to `[n, C, T]`, contiguous."""
    out = np.empty((x.shape[0], x.shape[2], x.shape[1]), x.dtype)
    _transpose(bytes_of(x), bytes_of(out))
    return out
