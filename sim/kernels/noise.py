"""Noise on counts of light, fast and exact: the words of many sites at a time, then their effect on the counts.

A block of rows draws all its words together, so that the rounds of the cipher run over long arrays whatever the number
of outputs; only the sites whose numbers are used are drawn. All of it stays in the first-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bittrue.sim.kernels.jit import jit
from bittrue.sim.noise import MEAN, ROUNDS, Noise

#: Sites that a block of rows has, about: two words and a count of each stay in the first-level cache.
TOGETHER = 1024
#: Words of a vector, and sites that are encrypted at a time.
LANES, SITES = 16, 64


_WORD, _INDEX = ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_WORD, LANES)


def _all(value: int) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


def _byte_sum(builder: ir.IRBuilder, words: Any) -> Any:
    """The sums of the bytes of the words, less their mean."""
    pairs = _all(0x00FF00FF)
    two = builder.add(builder.and_(words, pairs), builder.and_(builder.lshr(words, _all(8)), pairs))
    return builder.sub(builder.add(builder.and_(two, _all(0xFFFF)), builder.lshr(two, _all(16))), _all(MEAN))


@intrinsic
def _draw(typingctx, high, low, start, keys):  # noqa: ARG001
    """Encrypts the blocks (high, low) from `start` on, `SITES` of them, and leaves the byte sums of their words.

    Plain LLVM vectors, which LLVM cuts to what the CPU has; several are under way to hide the latency of the rounds.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        start = arguments[2]
        high, low, keys = (
            context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 1, 3)
        )

        def places(words: Any) -> list[Any]:
            at = [builder.gep(words, [builder.add(start, _INDEX(LANES * v))]) for v in range(SITES // LANES)]
            return [builder.bitcast(pointer, _VECTOR.as_pointer()) for pointer in at]

        def rotated(words: Any, left: int) -> Any:
            return builder.or_(builder.shl(words, _all(left)), builder.lshr(words, _all(32 - left)))

        where = places(high) + places(low)
        half = len(where) // 2
        before = [builder.load(pointer, align=4) for pointer in where]
        entry, loop = builder.block, builder.append_basic_block("rounds")
        done = builder.append_basic_block("rounds.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        number = builder.phi(_INDEX)
        words = [builder.phi(_VECTOR) for _ in where]
        key = builder.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), builder.load(builder.gep(keys, [number])), _WORD(0)
        )
        key = builder.shuffle_vector(key, key, _all(0))
        after = list(words)
        for v in range(half):
            x, y = words[v], words[half + v]
            x = builder.xor(builder.add(rotated(x, 24), y), key)
            after[v], after[half + v] = x, builder.xor(rotated(y, 3), x)
        following = builder.add(number, _INDEX(1))
        number.add_incoming(_INDEX(0), entry)
        number.add_incoming(following, loop)
        for phi, first, last in zip(words, before, after, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(last, loop)
        builder.cbranch(builder.icmp_signed("<", following, _INDEX(ROUNDS)), loop, done)
        builder.position_at_end(done)
        for pointer, value in zip(where, after, strict=True):
            builder.store(_byte_sum(builder, value), pointer, align=4)
        return context.get_dummy_value()

    return types.void(high, low, types.int64, keys), generate


@jit
def _noisy(u, row, factors, first, tile, tokens, tiles, keys, high, low, out):
    """`max(u + n, 0)` of the rows from `row` on, int64 `out [rows, N]`; `high`, `low` uint32 take their words."""
    relative, shot, thermal, shift = factors
    outputs, half = u.shape[1], (1 << shift) >> 1
    begin = outputs if shot == 0 and thermal == 0 else 0
    sites = outputs + (relative != 0) - begin
    rows, used = out.shape[0], out.shape[0] * sites
    images, places = high[:used].reshape(rows, sites), low[:used].reshape(rows, sites)
    image, token = first + row // tokens, row % tokens
    for r in range(rows):
        base = (token * tiles + tile) * (outputs + 1) + begin
        for c in range(sites):
            images[r, c], places[r, c] = np.uint32(image), np.uint32(base + c)
        token += 1
        if token == tokens:
            image, token = image + 1, 0
    for start in range(0, used, SITES):
        _draw(high, low, start, keys)
    g1, g2 = images.view(np.int32), places.view(np.int32)
    for r in range(rows):
        common = relative * np.int64(g1[r, sites - 1]) if relative else 0
        if shot:
            for c in range(outputs):
                count = np.int64(u[row + r, c])
                n = count * common + shot * np.int64(np.sqrt(np.float64(count))) * np.int64(g1[r, c])
                out[r, c] = max(count + ((n + thermal * np.int64(g2[r, c]) + half) >> shift), 0)
        elif thermal:
            for c in range(outputs):
                count = np.int64(u[row + r, c])
                n = count * common + thermal * np.int64(g2[r, c])
                out[r, c] = max(count + ((n + half) >> shift), 0)
        else:
            for c in range(outputs):
                count = np.int64(u[row + r, c])
                out[r, c] = max(count + ((count * common + half) >> shift), 0)


@jit
def _buffers(rows, outputs):
    block = min(rows, max(1, TOGETHER // (outputs + 1)))
    words = np.zeros((2, -(-block * (outputs + 1) // SITES) * SITES), np.uint32)
    return block, words[0], words[1], np.empty((block, outputs), np.int64)


@jit
def _counts(u, factors, first, tile, tokens, tiles, keys):
    block, high, low, out = _buffers(*u.shape)
    for row in range(0, u.shape[0], block):
        part = out[: u.shape[0] - row]
        _noisy(u, row, factors, first, tile, tokens, tiles, keys, high, low, part)
        for r in range(part.shape[0]):
            for c in range(u.shape[1]):
                u[row + r, c] = part[r, c]


@jit
def _codes(u, factors, first, tile, tokens, tiles, keys, offset, shift, highest, codes):
    block, high, low, out = _buffers(*u.shape)
    half, clipped = (1 << shift) >> 1, 0
    for row in range(0, u.shape[0], block):
        part = out[: u.shape[0] - row]
        _noisy(u, row, factors, first, tile, tokens, tiles, keys, high, low, part)
        for r in range(part.shape[0]):
            beyond = 0
            for c in range(u.shape[1]):
                v = (part[r, c] - offset[c] + half) >> shift
                code = min(max(v, 0), highest)
                beyond += v != code
                codes[row + r, tile, c] = code
            clipped += beyond
    return clipped


def _drawn(noise: Noise, tile: int, tokens: int, tiles: int) -> tuple:
    factors = tuple(np.int64(v) for v in (noise.relative, noise.shot, noise.thermal, noise.shift))
    return factors, noise.first, tile, tokens, tiles, noise.keys


def add_noise(u: np.ndarray, noise: Noise, tile: int, tokens: int, tiles: int) -> None:
    """Noise on the counts int64 `[images * tokens, N]` of a tile, in place."""
    if len(u):
        _counts(u, *_drawn(noise, tile, tokens, tiles))


def noisy_codes(
    u: np.ndarray, noise: Noise, tile: int, tokens: int, offset: np.ndarray, shift: int, highest: int, codes: np.ndarray
) -> int:
    """`codes [images * tokens, tiles, N]` of a tile from its counts `[images * tokens, N]` without noise.

    Returns how many were clipped to 0..highest.
    """
    if not len(u):
        return 0
    drawn = _drawn(noise, tile, tokens, codes.shape[1])
    return int(_codes(u, *drawn, offset, np.int64(shift), np.int64(highest), codes))
