"""What register tiles are made of on a CPU: its vectors, the instruction that multiplies and adds, and how codes leave.

The type of the image says which of them a tile uses (`isa_of`); the loops of a tile are the same for all
(`sim.kernels.tiles`). None of the instructions saturates on what it is given: `vpdpbusd` and `vpmaddwd` add in 32 bits,
and steps whose products `vpmaddubsw` adds in 16 bits are chosen so that no sum leaves them (`sim.kernels.groups`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


@dataclass(frozen=True)
class Isa:
    """What a tile is made for.

    lanes    outputs of a vector
    rows     of a tile
    widest   vectors of outputs of the widest tile
    step     codes of a row in a step, of `image` type
    weight   type of a weight
    flips    whether signed codes are made unsigned
    groups   numbers of steps that are made together, largest first; 1 is the last
    needs    features of the CPU
    """

    lanes: int
    rows: int
    widest: int
    step: int
    image: type
    weight: type
    flips: bool
    groups: tuple[int, ...]
    needs: tuple[str, ...]

    def available(self) -> bool:
        """Whether this CPU, as Numba compiles for it, has what is needed."""
        if config.CPU_FEATURES is not None:  # another CPU is asked for, by NUMBA_CPU_FEATURES
            return all(f"+{name}" in config.CPU_FEATURES.split(",") for name in self.needs)
        try:
            features = llvmlite.binding.get_host_cpu_features()
        except RuntimeError:
            return False
        return all(features.get(name) for name in self.needs)

    @property
    def vector(self) -> ir.VectorType:
        """Sums of the outputs of a vector."""
        return ir.VectorType(I32, self.lanes)

    def chains(self, vectors: int) -> int:  # noqa: ARG002
        """Sums that are kept of every output, added up at the end."""
        return 1

    def add(self, builder: ir.IRBuilder, sums: list[list[Any]], steps: list[Step]) -> list[list[Any]]:
        """The sums of every row and vector, row by row, one a chain, and the products of a group of steps added."""
        made = [list(chains) for chains in sums]
        for k, step in enumerate(steps):
            weights = step.weights()
            for r in range(self.rows):
                code = step.code(r)
                for v, weight in enumerate(weights):
                    chains = made[r * len(weights) + v]
                    at = k % len(chains)
                    chains[at] = self.dot(builder, chains[at], code, weight)
        return made

    def dot(self, builder: ir.IRBuilder, total: Any, code: Any, weight: Any) -> Any:
        """A sum and the products of a step added to it."""
        raise NotImplementedError

    def store(self, builder: ir.IRBuilder, values: list[Any], ends: list[Any], places: list[Any], vectors: int) -> None:
        """Sums, one vector a place, limited to `ends` (splat int32), as bytes at their places, of which so many follow
        each other."""
        raise NotImplementedError


@dataclass(frozen=True)
class Step:
    """The operands of a step, loaded where they are asked for: the weights of each vector, the codes of a row."""

    weights: Callable[[], list[Any]]
    code: Callable[[int], Any]


def pin(builder: ir.IRBuilder, value: Any) -> Any:
    """The value, computed here and from what it was given: sums that LLVM adds up in another order need more registers
    than there are."""
    kind = value.type
    return builder.asm(ir.FunctionType(kind, [kind]), "", "=x,0", [value], side_effect=True)


def call(builder: ir.IRBuilder, name: str, result: Any, *values: Any) -> Any:
    """An instruction of LLVM's on vectors, each taken as the type that it is given with."""
    kinds = [kind for kind, _ in values]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, [builder.bitcast(value, kind) for kind, value in values])


def limit(builder: ir.IRBuilder, value: Any, low: Any, high: Any) -> Any:
    """`min(max(value, low), high)`."""
    value = builder.select(builder.icmp_signed(">", value, low), value, low)
    return builder.select(builder.icmp_signed("<", value, high), value, high)


def splat(builder: ir.IRBuilder, number: Any, kind: ir.VectorType) -> Any:
    """A number in all places of a vector."""
    undefined, zeros = ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, kind.count), None)
    return builder.shuffle_vector(builder.insert_element(undefined, number, I32(0)), undefined, zeros)


def unpack(builder: ir.IRBuilder, a: Any, b: Any, upper: int) -> Any:
    """Elements of two vectors in turn: of each 128 bits the lower half (0) or the upper one (1)."""
    count, each = a.type.count, 128 // a.type.element.width
    begins = range(each // 2 * upper, count, each)
    order = [begin + k + which for begin in begins for k in range(each // 2) for which in (0, count)]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, count), order))


def looped(
    builder: ir.IRBuilder, steps: Any, begun: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]
) -> list[Any]:
    """Values after so many steps, one at least, of which each makes those of the next: `body(step, values)`."""
    before, loop, done = builder.block, *(builder.append_basic_block(f"looped.{name}") for name in ("loop", "done"))
    builder.branch(loop)
    builder.position_at_end(loop)
    step, carried = builder.phi(I64), [builder.phi(value.type) for value in begun]
    made = list(body(step, carried))
    following, last = builder.add(step, I64(1)), builder.block
    for phi, first, then in zip((step, *carried), (I64(0), *begun), (following, *made), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, last)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
    builder.position_at_end(done)
    return made


class Vnni(Isa):
    """`vpdpbusd`: four unsigned bytes by four signed ones, added to 32 bits."""

    def chains(self, vectors: int) -> int:
        return 2 if vectors == 1 else 1  # enough to hide its latency

    def dot(self, builder: ir.IRBuilder, total: Any, code: Any, weight: Any) -> Any:
        kind = self.vector
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", kind, (kind, total), (kind, code), (kind, weight))

    def store(
        self,
        builder: ir.IRBuilder,
        values: list[Any],
        ends: list[Any],
        places: list[Any],
        vectors: int,  # noqa: ARG002
    ) -> None:
        kind = ir.VectorType(I8, self.lanes)
        for value, place in zip(values, places, strict=True):
            codes = builder.trunc(limit(builder, value, *ends), kind)
            builder.store(codes, builder.bitcast(place, kind.as_pointer()), align=1)


class Avx2(Isa):
    """What both kinds of AVX2 have in common: sixteen registers, and bytes that leave by packing."""

    words = ir.VectorType(I16, 16)

    def multiply(self, builder: ir.IRBuilder, a: Any, b: Any) -> Any:
        """`vpmaddwd`: pairs of words, their products added to 32 bits."""
        return call(builder, "llvm.x86.avx2.pmadd.wd", self.vector, (self.words, a), (self.words, b))

    def store(self, builder: ir.IRBuilder, values: list[Any], ends: list[Any], places: list[Any], vectors: int) -> None:
        """Four vectors are packed into 32 bytes, of which each has its eight; limits are those of words by then."""
        kind, bytes_ = self.vector, ir.VectorType(I8, 32)
        indices = lambda *at: ir.Constant(ir.VectorType(I32, len(at)), list(at))  # noqa: E731
        low, high = (builder.trunc(builder.shuffle_vector(v, v, indices(*[0] * 16)), self.words) for v in ends)
        byte = ir.Constant(self.words, [255] * 16)
        for first in range(0, len(values), 4):
            four = [values[min(first + k, len(values) - 1)] for k in range(4)]
            pairs = [
                call(builder, "llvm.x86.avx2.packssdw", self.words, (kind, a), (kind, b))
                for a, b in (four[:2], four[2:])
            ]
            a, b = (builder.and_(limit(builder, pair, low, high), byte) for pair in pairs)
            packed = call(builder, "llvm.x86.avx2.packuswb", bytes_, (self.words, a), (self.words, b))
            packed = builder.bitcast(packed, kind)  # the low halves of the four, then the high ones
            packed = builder.bitcast(builder.shuffle_vector(packed, packed, indices(0, 4, 1, 5, 2, 6, 3, 7)), bytes_)
            here = places[first : first + 4]
            for k in range(0, len(here), vectors):
                part = builder.shuffle_vector(packed, packed, indices(*range(8 * k, 8 * (k + vectors))))
                builder.store(part, builder.bitcast(here[k], part.type.as_pointer()), align=1)


class Words(Avx2):
    """Codes and weights of 16 bits."""

    def dot(self, builder: ir.IRBuilder, total: Any, code: Any, weight: Any) -> Any:
        return pin(builder, builder.add(total, self.multiply(builder, code, weight)))


class Bytes(Avx2):
    """`vpmaddubsw`: pairs of unsigned codes and signed weights, their products added to 16 bits, those of a group of
    steps also, which are then widened by `vpmaddwd` with ones."""

    def add(self, builder: ir.IRBuilder, sums: list[list[Any]], steps: list[Step]) -> list[list[Any]]:
        bytes_, one = ir.VectorType(I8, 32), ir.Constant(self.words, [1] * 16)
        groups: list[Any] = [None] * len(sums)
        for step in steps:
            weights = step.weights()
            for r in range(self.rows):
                code = step.code(r)
                for v, weight in enumerate(weights):
                    at = r * len(weights) + v
                    values = ((bytes_, code), (bytes_, weight))
                    pair = call(builder, "llvm.x86.avx2.pmadd.ub.sw", self.words, *values)
                    groups[at] = pair if groups[at] is None else pin(builder, builder.add(groups[at], pair))
        return [
            [builder.add(total, self.multiply(builder, group, one))]
            for (total,), group in zip(sums, groups, strict=True)
        ]


VNNI = Vnni(16, 8, 3, 4, np.uint8, np.int8, True, (2, 1), ("avx512vnni", "avx512f", "avx512bw"))
WORDS = Words(8, 6, 2, 2, np.int16, np.int16, False, (4, 2, 1), ("avx2",))
BYTES = Bytes(8, 3, 2, 4, np.int8, np.int8, False, (4, 3, 2, 1), ("avx2",))
ISAS = (VNNI, WORDS, BYTES)


def isa_of(image: types.Array) -> Isa:
    """What tiles on an image of this type are made for."""
    return next(isa for isa in ISAS if types.Array is type(image) and str(image.dtype) == np.dtype(isa.image).name)
