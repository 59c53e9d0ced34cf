"""A tile of `sim.kernels.channel_tiles`, as LLVM IR: weighted sums of the taps of some windows, channel by channel.

The taps of each channel are interleaved by unpacking vectors of four taps, so that `vpdpbusd` (AVX512-VNNI), which
multiplies four unsigned bytes with four signed ones and adds the products, adds the taps of one channel. A vector holds
64 channels of a window, 32 of two windows, or 16 of four.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from bittrue.sim.kernels.isa import I8, I16, I32, I64, call, limit, looped, splat, unpack

#: Channels of the 128 bits within which vectors are unpacked, and how many of these a vector has.
LANE, LANES = 16, 4
#: Taps of a step.
TAPS = 4

_BYTES, _WORDS, _SUMS = (ir.VectorType(kind, LANES * LANE // size) for kind, size in ((I8, 1), (I16, 2), (I32, 4)))


def arranged(channels: np.ndarray, lanes: int) -> np.ndarray:
    """Numbers of channels `[..., 16 lanes]` in the order of a vector's sums, `[..., 4, lane, j]`: the k-th vector of
    sums has channels `16 p + 4 k + j` in the j-th number of lane p, windows one after the other."""
    split = channels.reshape(*channels.shape[:-1], lanes, 4, LANE // 4)
    return np.concatenate([np.moveaxis(split, -3, -2)] * (LANES // lanes), axis=-2)


class ByteTile:
    """The instructions of one tile, as they are written: vectors of `LANES / lanes` windows each.

    bases   of every window its first byte; codes xor `turn` are unsigned
    """

    def __init__(self, builder: ir.IRBuilder, lanes: int, bases: Sequence[Any], turn: Any) -> None:
        self.builder, self.bases, self.together = builder, bases, LANES // lanes
        self.turn = splat(builder, turn, _BYTES)
        self.part = ir.VectorType(I8, LANE * lanes)

    def load(self, base: Any, offset: Any, kind: ir.VectorType) -> Any:
        pointer = self.builder.bitcast(self.builder.gep(base, [offset]), kind.as_pointer())
        return self.builder.load(pointer, align=1)

    def tap(self, vector: int, behind: Any) -> Any:
        """The codes of a tap of the windows of a vector."""
        windows = self.bases[vector * self.together :][: self.together]
        parts = [self.load(base, behind, self.part) for base in windows]
        while len(parts) > 1:
            count = 2 * parts[0].type.count
            both = ir.Constant(ir.VectorType(I32, count), list(range(count)))
            parts = [self.builder.shuffle_vector(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return self.builder.xor(parts[0], self.turn)

    def sums(self, reach: Any, weight: Any, steps: Any) -> list[Any]:
        """Sums of every vector of windows, four vectors each, from so many steps: `reach` of taps, and weights."""
        builder = self.builder
        vectors = len(self.bases) // self.together

        def body(step: Any, carried: list[Any]) -> list[Any]:
            tap = builder.mul(step, I64(TAPS))
            far = [builder.load(builder.gep(reach, [builder.add(tap, I64(k))])) for k in range(TAPS)]
            byte = builder.mul(tap, I64(LANE * LANES))
            by = [self.load(weight, builder.add(byte, I64(LANE * LANES * k)), _BYTES) for k in range(4)]
            made: list[Any] = []
            for vector in range(vectors):
                taps = [self.tap(vector, behind) for behind in far]
                for upper in (0, 1):
                    pairs = [builder.bitcast(unpack(builder, *taps[k : k + 2], upper), _WORDS) for k in (0, 2)]
                    for k in (0, 1):
                        at = len(made)
                        values = ((_SUMS, carried[at]), (_SUMS, unpack(builder, *pairs, k)), (_SUMS, by[at % 4]))
                        made.append(call(builder, "llvm.x86.avx512.vpdpbusd.512", _SUMS, *values))
            return made

        return looped(builder, steps, [ir.Constant(_SUMS, None)] * (4 * vectors), body)

    def store(self, sums: Sequence[Any], numbers: Any, ends: Sequence[Any], places: Sequence[Any]) -> None:
        """The sums, requantised, limited to `ends`, as bytes at the place of every window."""
        builder = self.builder
        number = [self.load(numbers, I64(_SUMS.count * k), _SUMS) for k in range(12)]
        low, high = (splat(builder, end, _WORDS) for end in ends)
        byte = ir.Constant(_WORDS, [255] * _WORDS.count)
        for first in range(0, len(sums), 4):
            values = [
                builder.ashr(builder.add(builder.mul(total, number[k]), number[4 + k]), number[8 + k])
                for k, total in enumerate(sums[first : first + 4])
            ]
            words = [
                call(builder, "llvm.x86.avx512.packssdw.512", _WORDS, *((_SUMS, value) for value in values[k : k + 2]))
                for k in (0, 2)
            ]
            halves = [(_WORDS, builder.and_(limit(builder, half, low, high), byte)) for half in words]
            packed = call(builder, "llvm.x86.avx512.packuswb.512", _BYTES, *halves)
            size = self.part.count
            for k in range(self.together):
                order = ir.Constant(ir.VectorType(I32, size), list(range(size * k, size * (k + 1))))
                part = builder.shuffle_vector(packed, packed, order)
                place = places[first // 4 * self.together + k]
                builder.store(part, builder.bitcast(place, self.part.as_pointer()), align=1)
