"""A tile of `sim.kernels.channel_tiles`, as LLVM IR: weighted sums of the taps of some windows, channel by channel.

Two taps are interleaved, channel by channel, as words, and `vpmaddwd` (AVX2) or `vpdpwssd` (AVX512-VNNI) multiplies
them with their weights and adds. Interleaving puts channels out of order, which packing the sums puts right again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from bittrue.sim.kernels.isa import I8, I16, I32, I64, call, limit, looped, splat, unpack

#: Taps of a step.
TAPS = 2


def arranged(channels: np.ndarray, lanes: int) -> np.ndarray:
    """Numbers of channels `[..., 16 lanes]` in the order of the sums, `[..., 2, p, j]`: the k-th vector of sums has
    channels `8 p + 4 k + j`."""
    return np.moveaxis(channels.reshape(*channels.shape[:-1], 2 * lanes, 2, 4), -3, -2)


class WordTile:
    """The instructions of one tile, as they are written.

    lanes   1 (AVX2) or 2 (AVX512), of sixteen channels
    bases   of every window its first code; codes are `kind`, whose bytes are signed
    """

    def __init__(self, builder: ir.IRBuilder, lanes: int, bases: Sequence[Any], kind: ir.IntType) -> None:
        self.builder, self.bases, self.wide = builder, bases, lanes == 2
        count = 8 * lanes
        self.sum, self.words, self.bytes = (ir.VectorType(k, n * count) for k, n in ((I32, 1), (I16, 2), (I8, 2)))
        self.kind = kind

    def load(self, base: Any, offset: Any, kind: ir.VectorType) -> Any:
        pointer = self.builder.bitcast(self.builder.gep(base, [offset]), kind.as_pointer())
        return self.builder.load(pointer, align=1)

    def tap(self, base: Any, behind: Any) -> Any:
        """The codes of a tap of a window, as words."""
        codes = self.load(base, behind, ir.VectorType(self.kind, self.words.count))
        return codes if self.kind == I16 else self.builder.sext(codes, self.words)

    def add(self, total: Any, pair: Any, by: Any) -> Any:
        values = ((self.words, pair), (self.words, by))
        if self.wide:
            values = tuple((self.sum, value) for _, value in values)
            return call(self.builder, "llvm.x86.avx512.vpdpwssd.512", self.sum, (self.sum, total), *values)
        return self.builder.add(total, call(self.builder, "llvm.x86.avx2.pmadd.wd", self.sum, *values))

    def sums(self, reach: Any, weight: Any, steps: Any) -> list[Any]:
        """Sums of every window, two vectors each, from so many steps: `reach` of their taps, and weights."""
        builder, count = self.builder, self.words.count

        def body(step: Any, carried: list[Any]) -> list[Any]:
            tap = builder.mul(step, I64(TAPS))
            at = builder.mul(tap, I64(count))
            by = [self.load(weight, builder.add(at, I64(count * k)), self.words) for k in (0, 1)]
            far = [builder.load(builder.gep(reach, [builder.add(tap, I64(k))])) for k in (0, 1)]
            made: list[Any] = []
            for r, base in enumerate(self.bases):
                taps = [self.tap(base, behind) for behind in far]
                made += [self.add(carried[2 * r + k], unpack(builder, *taps, k), by[k]) for k in (0, 1)]
            return made

        return looped(builder, steps, [ir.Constant(self.sum, None)] * (2 * len(self.bases)), body)

    def store(self, sums: Sequence[Any], numbers: Any, ends: Sequence[Any], places: Sequence[Any]) -> None:
        """The sums, requantised, limited to `ends`, as bytes at the place of every window."""
        builder, count = self.builder, self.sum.count
        number = [self.load(numbers, I64(count * k), self.sum) for k in range(6)]
        low, high = (splat(builder, end, self.words) for end in ends)
        pack = "llvm.x86.avx512.packssdw.512" if self.wide else "llvm.x86.avx2.packssdw"
        for r, place in enumerate(places):
            values = [
                builder.ashr(builder.add(builder.mul(sums[2 * r + k], number[k]), number[2 + k]), number[4 + k])
                for k in (0, 1)
            ]
            packed = limit(builder, call(builder, pack, self.words, *((self.sum, v) for v in values)), low, high)
            builder.store(builder.trunc(packed, self.bytes), builder.bitcast(place, self.bytes.as_pointer()), align=1)
