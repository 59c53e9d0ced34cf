"""Fast exact executions on counts of light without noise: conversion to ADC codes, and their sum over the tiles.

A block of rows goes through all tiles. With `vnni` and ADC codes of 8 bits the counts are converted in
the registers (`sim.kernels.light_vnni`), else while they are in the first-level cache (`vnni`, `numba`) or in the
second (`sgemm`). Where only the sum of the codes is wanted no code is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bittrue.sim.contract import Format
from bittrue.sim.kernels import light_vnni as registers
from bittrue.sim.kernels.blas import BLOCK_BYTES, Sgemm
from bittrue.sim.kernels.epilogue import NO_TABLE, Epilogue, bytes_of, finish, shift_right
from bittrue.sim.kernels.jit import jit
from bittrue.sim.kernels.matrix import Dot, MatrixKernel, dot
from bittrue.sim.kernels.vnni import TILE_ROWS, Vnni, panels


@jit
def _store(acc, half, shift, highest, codes, tile):
    """`codes[:, tile]` from the counts of a tile; how many were clipped. `half` holds offsets and rounding."""
    kind = half.dtype.type
    clipped = 0
    for r in range(codes.shape[0]):
        row, counts = codes[r, tile], acc[r]
        beyond = kind(0)
        for c in range(half.size):
            v = shift_right(kind(kind(counts[c]) + half[c]), shift)
            code = min(max(v, kind(0)), highest)
            beyond = kind(beyond + kind(v != code))
            row[c] = code
        clipped += beyond
    return clipped


@jit
def _accumulate(acc, half, shift, highest, total, rows):
    """The codes of a tile added to `total`, whose integer holds the sum of all tiles."""
    kind, wide = half.dtype.type, total.dtype.type
    for r in range(rows):
        counts, sums = acc[r], total[r]
        for c in range(half.size):
            v = shift_right(kind(kind(counts[c]) + half[c]), shift)
            sums[c] = wide(sums[c] + wide(min(max(v, kind(0)), highest)))


@jit
def _scale(total, rows, step):
    for r in range(rows):
        for c in range(total.shape[1]):
            total[r, c] <<= step


@jit
def _vnni_codes(x, inputs, weight, begins, ends, widths, a, acc, half, shift, highest, codes):
    clipped = 0
    for start in range(0, x.shape[0], a.shape[0]):
        stop = min(start + a.shape[0], x.shape[0])
        registers.load(x[start:stop], inputs, a)
        for k in range(half.shape[0]):
            panels(a[:, begins[k] : ends[k]], stop - start, weight[k], 0, widths, acc)
            clipped += _store(acc, half[k], shift, highest, codes[start:stop], k)
    return clipped


@jit
def _vnni_sums(x, inputs, weight, begins, ends, widths, a, acc, half, shift, highest, total, step, last):
    vectors, limits, scaled, table, out = last
    for start in range(0, x.shape[0], a.shape[0]):
        stop = min(start + a.shape[0], x.shape[0])
        registers.load(x[start:stop], inputs, a)
        total[:] = 0
        for k in range(half.shape[0]):
            panels(a[:, begins[k] : ends[k]], stop - start, weight[k], 0, widths, acc)
            _accumulate(acc, half[k], shift, highest, total, stop - start)
        _scale(total, stop - start, step)
        finish(total, vectors, limits, scaled, False, table, out[start:stop])


class TileKernel:
    """Codes, or the requantised sum of the codes, of all tiles of a `PhotonicMac` without noise.

    `kernels` are its matrix products, one a tile of `inputs` rows (the last holds what is left), whose constants and
    back end are used; `suits` tells whether they are of a kind that runs here.
    """

    @staticmethod
    def suits(kernels: Sequence[MatrixKernel], fmt: Format) -> bool:
        """Whether all tiles have one back end, 8-bit codes for `vnni`, and sums in one piece for `sgemm`."""
        products = [kernel.product for kernel in kernels]
        if all(isinstance(p, Vnni) for p in products):
            return fmt.bits <= 8
        return all(isinstance(p, Dot) or (isinstance(p, Sgemm) and len(p.parts) == 1) for p in products)

    def __init__(
        self, kernels: Sequence[MatrixKernel], weight: np.ndarray, inputs: int, shift: int, fmt: Format
    ) -> None:
        self.products, self.inputs = [kernel.product for kernel in kernels], inputs
        self.half = np.stack([kernel.epilogue.vectors[2] for kernel in kernels])
        kind = self.half.dtype.type
        self.shift, self.highest = kind(shift), kind(fmt.high)
        self.vnni = isinstance(self.products[0], Vnni)
        self.registers = None  # arguments of the kernels that convert in registers, where they suit
        if self.vnni and registers.suits(self.half, fmt.high):
            self.registers = registers.arguments(weight, self.half, inputs, shift, fmt.high)
        elif self.vnni:
            depths = np.array([p.depth for p in self.products])
            self.ends = np.cumsum(depths)
            self.begins = self.ends - depths
            self.packed = np.zeros((len(depths), max(p.packed.size for p in self.products)), np.int8)
            for row, p in zip(self.packed, self.products, strict=True):
                row[: p.packed.size] = p.packed

    def codes(self, rows: np.ndarray, out: np.ndarray) -> int:
        """Codes `[rows, C]` to ADC codes `out [rows, tiles, N]`; how many were clipped."""
        if self.registers is not None:
            return int(registers.codes(np.ascontiguousarray(rows), *self.registers, out))
        if self.vnni:
            return int(_vnni_codes(*self._vnni_arguments(rows), out))
        clipped = 0

        def store(k: int, acc: np.ndarray, part: slice) -> None:
            nonlocal clipped
            clipped += int(_store(acc, self.half[k], self.shift, self.highest, out[part], k))

        self._walk(rows, store)
        return clipped

    def sums(self, rows: np.ndarray, step: int, epilogue: Epilogue, out: np.ndarray) -> None:
        """Codes `[rows, C]` to `out [rows, N]`: the epilogue's result for `(sum of the ADC codes) << step`.

        The epilogue's integer holds that sum.
        """
        kind = epilogue.vectors[0].dtype.type
        last = (epilogue.vectors, epilogue.limits, epilogue.scaled, NO_TABLE, bytes_of(out))
        if self.registers is not None:
            registers.sums(np.ascontiguousarray(rows), *self.registers, kind(step), *last)
            return
        if self.vnni:
            arguments = self._vnni_arguments(rows)
            total = np.empty((len(arguments[6]), out.shape[1]), kind)
            _vnni_sums(*arguments, total, kind(step), last)
            return
        total = np.empty((min(self._block, len(rows)), out.shape[1]), kind)

        def add(k: int, acc: np.ndarray, part: slice) -> None:
            count = len(acc)
            if k == 0:
                total[:count] = 0
            _accumulate(acc, self.half[k], self.shift, self.highest, total, count)
            if k == len(self.products) - 1:
                _scale(total, count, kind(step))
                epilogue(total[:count], out[part], False)

        self._walk(rows, add)

    def _vnni_arguments(self, rows: np.ndarray) -> tuple:
        p = self.products[0]
        block = max(TILE_ROWS, min(p.rows, -(-len(rows) // TILE_ROWS) * TILE_ROWS))
        a, acc = np.zeros((block, self.ends[-1]), np.uint8), np.empty((block, p.columns), np.int32)
        x = np.ascontiguousarray(rows).view(np.uint8)
        constants = (self.half, self.shift, self.highest)
        return x, self.inputs, self.packed, self.begins, self.ends, p.widths, a, acc, *constants

    @property
    def _block(self) -> int:
        """Rows at a time; of floats all inputs and one tile's counts share the second-level cache."""
        p, (tiles, outputs) = self.products[0], self.half.shape
        if isinstance(p, Dot):
            return p.rows
        return max(64, 2 * BLOCK_BYTES // (np.dtype(p.real).itemsize * (tiles * self.inputs + outputs)))

    def _walk(self, rows: np.ndarray, take: Callable[[int, np.ndarray, slice], None]) -> None:
        """`take(tile, its counts, which rows)` for block after block, and tile after tile of a block."""
        block, outputs = min(self._block, len(rows)), self.half.shape[1]
        sums = {}
        for start in range(0, len(rows), self._block):
            part = slice(start, min(start + self._block, len(rows)))
            given: dict[type, np.ndarray] = {}
            for k, p in enumerate(self.products):
                here = slice(k * self.inputs, (k + 1) * self.inputs)
                real, accumulator = (p.real, p.real) if isinstance(p, Sgemm) else (p.term, p.sum)
                if real not in given:
                    given[real] = rows[part].astype(real)
                if accumulator not in sums:
                    sums[accumulator] = np.empty((block, outputs), accumulator)
                x, acc = given[real][:, here], sums[accumulator][: part.stop - start]
                if isinstance(p, Sgemm):
                    np.matmul(x, p.parts[0][1], out=acc)
                else:
                    dot(np.ascontiguousarray(x), p.packed, acc)
                take(k, acc, part)
