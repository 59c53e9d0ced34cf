"""What a stage is built of, and what each of its memories is made of: the numbers that its area is priced from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from amaranth.hdl import Const, Shape, ShapeCastable
from amaranth.lib import data
from amaranth.lib.memory import Memory

#: LUTs that a block RAM is worth, unless a plan says otherwise: what its 36 bits a cycle take in distributed RAM of up
#: to 16 words. Tables take 72 for up to 16 rows, so they stay in blocks.
BLOCK_LUTS = 54
#: Bits of a word and words of a block RAM.
SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))


@dataclass(frozen=True)
class Storage:
    """One memory of a stage and what it is made of: decided here, so that the estimate and the netlist agree.

    Tables go to block RAM from 4,096 bits on, and from 2,048 on if they have more than 256 rows, for LUTs that choose
    among so many are slower than all else; others go to LUTs. Written memories from 2,048 bits or 65 words on, else to
    distributed RAM. What is read without a clock can only be distributed RAM. But shallow, wide memories would take
    blocks for their width alone: where LUTs are so much cheaper that no block saves more than `worth` of them, they
    take LUTs (tables) or, up to 64 words, distributed RAM. Where a plan says that a block is worth less than by
    default, a written memory of any size goes to blocks that save more.

    A written word may have `parted` parts that are written each by itself; `made_of` says the style where something
    else decided it.

    All three are asked for by an attribute: without one yosys makes a block of a memory that is read without a clock
    into a register, and the block's slow output is then in the path. Families without distributed RAM (iCE40) would
    refuse it by name; synthesis for them takes that attribute away (`flow.synth.targets`), and yosys chooses. So that
    their blocks are not wasted, a memory for which it finds one block cheaper than 26 distributed RAMs is a block.
    """

    width: int
    depth: int
    table: bool = False
    clocked: bool = True
    worth: int = BLOCK_LUTS
    parted: int = 1
    made_of: str | None = None

    @property
    def bits(self) -> int:
        return self.width * self.depth

    @property
    def style(self) -> str:
        if self.made_of is not None:
            return self.made_of
        dear = self.luts > self.worth * self._blocks
        if self.table:
            return "block" if self.bits >= (2048 if self.depth > 256 else 4096) and dear else "logic"
        large = self.bits >= 2048 or self._lutrams >= 26 * self._blocks or self.worth < BLOCK_LUTS
        return "block" if self.clocked and (self.depth > 64 or large and dear) else "distributed"

    @property
    def luts(self) -> int:
        """What it takes outside block RAM: of a table a LUT for 16 rows of a bit, and a flip-flop where it is read, for
        that is not in the block then; six LUTs for a distributed RAM."""
        return self.width * (1 + -(-self.depth // 16)) if self.table else 6 * self._lutrams

    def pieces(self, bits: int) -> list[Storage]:
        """A table of codes of so many bits, in at most two memories beside each other.

        Where the last of the blocks beside each other would hold few codes, these go to LUTs.
        """
        wide = self._wide
        if not self.table or self.style != "block" or self._blocks != -(-self.width // wide):
            return [self]
        kept = (self._blocks - 1) * wide // bits * bits
        first = Storage(kept, self.depth, table=True, worth=0)
        rest = Storage(self.width - kept, self.depth, table=True)
        if first.style != "block" or rest.style == "block" or rest.luts > self.worth:
            return [self]
        return [first, rest]

    @property
    def slice(self) -> int:
        """Bits of the words of a deep table that lie in one block, where it is one (see `_slice`); else all."""
        return self._slice if self.style == "block" else self.width

    @property
    def parts(self) -> list[Storage]:
        """The memories that it is made of: slices beside each other, of which the last may be few bits and logic."""
        lows = range(0, self.width, self.slice) if self.slice < self.width else ()
        return [replace(self, width=min(self.slice, self.width - low), worth=0) for low in lows] or [self]

    @property
    def _slice(self) -> int:
        """Bits of a word that lie in a block as deep as the table, where that takes at most a third more blocks than
        those of another shape, one below the other."""
        below = min(-(-self.width // w) * -(-self.depth // d) for w, d in SHAPES)
        apart = self.table and self.depth > SHAPES[0][1] and 3 * -(-self.width // self._wide) <= 4 * below
        return self._wide if apart else self.width

    @property
    def _wide(self) -> int:
        """Bits of a word of a block that is as deep as this memory; all, where no block is."""
        return next((width for width, depth in SHAPES if self.depth <= depth), self.width)

    @property
    def attributes(self) -> dict[str, str]:
        """What makes synthesis follow `style`."""
        return {"rom_style" if self.table else "ram_style": self.style}

    @property
    def _blocks(self) -> int:
        return self._fewest if self._slice == self.width else -(-self.width // self._slice)

    @property
    def _fewest(self) -> int:
        return self._laid[0]

    @property
    def _laid(self) -> tuple[int, int]:
        """The fewest blocks, and words that lie beside each other in them: one of them is chosen when it is read. Where
        words are written, each of their parts has whole bytes of nine bits for itself, or blocks."""

        def laid(wide: int, deep: int) -> tuple[int, int]:
            words, bits = -(-self.depth // deep), self.width
            if not self.table:
                bits = self.parted * -(-bits // self.parted // min(wide, 9)) * min(wide, 9)
            return -(-bits * words // wide), words

        return min(laid(*shape) for shape in SHAPES)

    @property
    def _lutrams(self) -> int:
        return self.parted * -(-self.width // self.parted // 4) * -(-self.depth // 16)

    @property
    def block_rams(self) -> int:
        """18 kbit block RAMs (ECP5 DP16KD), in the best of their shapes."""
        return sum(part._blocks for part in self.parts if part.style == "block")

    @property
    def choices(self) -> int:
        """Words in blocks beyond the one that is read, for each bit of it."""
        return self._laid[1] - 1 if self.style == "block" and self.slice == self.width else 0

    @property
    def lutrams(self) -> int:
        """16x4 distributed RAMs (ECP5 DPR16X4)."""
        return self._lutrams if self.style == "distributed" else 0

    def memory(self, shape, init=(), apart: bool = False) -> Memory:
        """The Amaranth memory, with the attribute that makes synthesis follow `style`.

        Two rows at least: the address of a single one would have no bits.

        apart   whether no word that is used is read in the cycle in which it is written; synthesis is told so
                (`no_rw_check` of yosys): else it would build registers and multiplexers that keep what was read
        """
        told = {"no_rw_check": 1} if apart else {}
        if self.table and isinstance(shape, data.Layout):
            shape, init = _Words(shape), map(_packing(shape), init)
        return Memory(shape=shape, depth=max(self.depth, 2), init=init, attrs=self.attributes | told)


class _Words(ShapeCastable):
    """Words of a table in this layout whose rows are given as numbers: `Layout.const` takes a sixth of the time in
    which a network with many tables becomes Verilog."""

    def __init__(self, layout: data.Layout):
        self.layout = layout

    def as_shape(self) -> Shape:
        return self.layout.as_shape()

    def const(self, init: int | None) -> Const:
        return Const(init or 0, self.layout.size)

    def from_bits(self, raw: int) -> data.Const:
        return self.layout.from_bits(raw)

    def format(self, value: Any, spec: str) -> Any:
        return self.layout.format(self.layout(value), spec)

    def __call__(self, target: Any) -> data.View:
        return self.layout(target)


def _packing(shape: Any) -> Callable[[Any], int]:
    """What makes a number of a row: its fields in two's complement, each at its place."""
    if isinstance(shape, data.Layout):
        packed = [(key, field.offset, _packing(field.shape)) for key, field in shape]
        return lambda row: sum(pack(row[key]) << offset for key, offset, pack in packed)
    mask = (1 << Shape.cast(shape).width) - 1
    return lambda value: int(value) & mask


@dataclass
class Structure:
    """What a stage is built of, counted from the same numbers its hardware is made from; `rtl.dataflow.estimate`
    prices it.

    adder_bits, adders   bits and number of adders
    select_bits          bits of multiplexers and clamps
    counter_bits         bits of counters and their comparisons
    table_bits           bits of tables in LUTs
    lutrams              16x4 distributed RAMs
    block_rams           18 kbit block RAMs
    multipliers          products
    registers            flip-flops
    inside               those of them that multipliers and block RAMs of an ECP5 take in
    read_bits            flip-flops at the read ports of memories in LUTs, which are not among `registers`
    """

    adder_bits: int = 0
    adders: int = 0
    select_bits: int = 0
    counter_bits: int = 0
    table_bits: int = 0
    lutrams: int = 0
    block_rams: int = 0
    multipliers: int = 0
    registers: int = 0
    inside: int = 0
    read_bits: int = 0

    def add(self, bits: int, registered: bool = True) -> None:
        """An adder of so many bits, with its register."""
        self.adder_bits += bits
        self.adders += 1
        self.registers += bits if registered else 0

    def select(self, bits: int) -> None:
        """A registered multiplexer or clamp."""
        self.select_bits += bits
        self.registers += bits

    def count(self, *lasts: int) -> None:
        """Counters that run from 0 to each of these."""
        bits = sum(last.bit_length() for last in lasts)
        self.counter_bits += bits
        self.registers += bits

    def store(self, storage: Storage, copies: int = 1) -> None:
        """Memories; a block takes the register of what is read from it, what is read from LUTs has one at the port."""
        self.block_rams += copies * storage.block_rams
        self.lutrams += copies * storage.lutrams
        for part in storage.parts:
            if part.style == "block":
                self.inside += copies * part.width
                self.select_bits += copies * part.choices * part.width
            elif storage.clocked:
                self.read_bits += copies * part.width
            if part.style == "logic":
                self.table_bits += copies * part.bits

    def __add__(self, other: Structure) -> Structure:
        return Structure(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
