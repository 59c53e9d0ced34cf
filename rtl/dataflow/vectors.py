"""Where a folded matrix stage keeps what comes in: two vectors, one that fills while the other is multiplied."""

from __future__ import annotations

from dataclasses import replace

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.buffered import Control
from bittrue.rtl.dataflow.stage import Storage, Structure, counting, register, shape_of, valid_chain
from bittrue.rtl.dataflow.structure import BLOCK_LUTS
from bittrue.sim.contract import Format


class Vectors:
    """Two vectors of `words` words of `simd` codes, written some codes at a time, read a word at a time.

    What is written is stored a cycle after it came. A vector is read from two cycles after its last code came, and
    written again from two cycles after its last step; so no word is read in the cycle in which it is written, unless
    its address waits for the weights (not of block RAM).

    One register of address and codes would go to all parts of a word, a long way where they are many. So distributed
    RAM is written from registers that some parts share (`spread`): each takes in what comes when it is the turn of a
    part of its own, so that synthesis does not make one of them all. Where reading waits, what comes does so, too, in a
    register before, and is stored another cycle later.

    Of one word there is no memory: codes gather in one register, and move as a whole to another from which they are
    multiplied. That takes two flip-flops a bit and no LUT, where distributed RAM takes one and a half.
    """

    def __init__(self, fmt: Format, simd: int, words: int, block_luts: int = BLOCK_LUTS):
        self.format, self.simd, self.words = fmt, simd, words
        self.storage = Storage(fmt.bits * simd, 2 << (words - 1).bit_length(), worth=block_luts)

    #: Registers behind the memory that are its own.
    registered = 0
    #: 16x4 distributed RAMs that share registers of what is written.
    SHARE = 16

    def spread(self, lanes: int) -> int:
        """Parts of a word that share registers of what is written; 0 where all do."""
        parts, share = self.simd // lanes, max(1, self.SHARE // -(-lanes * self.format.bits // 4))
        return share if self.style == "distributed" and share < parts else 0

    @property
    def style(self) -> str:
        return self.storage.style if self.words > 1 else "registers"

    @property
    def wraps(self) -> bool:
        """Whether words that are counted come to 0 again by themselves, where the last one is full."""
        return not self.words & (self.words - 1)

    @property
    def bits(self) -> int:
        return self.storage.bits

    def _part(self, codes: int) -> Storage:
        """Distributed RAM of so many codes side by side."""
        return replace(self.storage, width=codes * self.format.bits, worth=max(self.storage.worth, BLOCK_LUTS))

    def structure(self, lanes: int, wait: int) -> Structure:
        """All up to what is read; `lanes` codes come at a time, and addresses wait so many cycles."""
        built, word, parts = Structure(), self.storage.width, self.simd // lanes
        built.select_bits += parts
        if self.words == 1:
            built.registers += wait * lanes * self.format.bits + 2 * parts + 2 * word
            built.registers += (wait - 1) + wait + 1  # that codes are written, that a vector moves on
            return built
        built.count(self.words - 1)
        address = (self.words - 1).bit_length() + 1
        built.registers += wait * address + 2 * parts
        each = lanes * self.format.bits + address
        if share := self.spread(lanes):
            groups = -(-parts // share)
            built.registers += groups * each + (wait > 1) * (lanes * self.format.bits + 3 - self.wraps)
            built.select_bits += groups
        else:
            built.registers += each
        if self.style == "block":
            built.store(self.storage)
        else:
            built.store(self._part(lanes), parts)
        return built

    def build(self, m: Module, control: Control, word: Value, codes: data.View, beats: int, wait: int) -> list[Value]:
        """What is read: the codes of `word` of the vector at hand, two cycles after a step, and `wait` - 1 more.

        `codes` is what comes in; a vector takes `beats` of it.
        """
        shape, lanes = shape_of(self.format), len(codes)
        parts = self.simd // lanes
        share = self.spread(lanes)
        late = wait if self.words == 1 else 1 + (share > 0 and wait > 1)
        written = valid_chain(m, control.write, late - 1)[-1]
        whole = self.words * parts == beats
        wraps = whole and self.wraps
        full = None if wraps else valid_chain(m, control.write_full, late - 1)[-1]
        part = Signal(parts, init=1)  # one bit says which: a comparison for every part would cost more
        with m.If(written):
            m.d.sync += part.eq(part.rotate_left(1))
        if not whole:  # the last word is not full
            with m.If(full):
                m.d.sync += part.eq(1)
        taken = register(m, codes, codes.shape(), name="write_codes", cycles=late - (share > 0))
        enable = Signal(parts, name="write_enable")
        m.d.sync += enable.eq(part & written.replicate(parts))
        if self.words == 1:
            return self._registers(m, control, taken, enable, wait)
        size = (self.words - 1).bit_length()
        at = Signal(counting(self.words), name="word")
        with m.If(written & part[-1]):
            m.d.sync += at.eq(at + 1)
        if not wraps:
            with m.If(full):
                m.d.sync += at.eq(0)
        block = register(m, control.write_block, name="block", cycles=late - 1)
        write_address: Value = Cat(at[:size], block)
        if not share:
            write_address = register(m, write_address, name="write_address")
        address = register(m, Cat(word[:size], control.read_block), name="read_address", cycles=wait)
        result: list[Value] = []
        for first in range(0, parts, share or parts):
            mine: Value = enable[first : first + (share or parts)]
            codes_here, address_here = taken, write_address
            if share:
                codes_here = Signal(codes.shape(), name=f"codes_here{first}", reset_less=True)
                address_here = Signal(size + 1, name=f"address_here{first}", reset_less=True)
                with m.If(part[first : first + share].any()):
                    m.d.sync += [codes_here.eq(taken), address_here.eq(write_address)]
            storage = self.storage if self.style == "block" else self._part(len(mine) * lanes)
            memory = storage.memory(data.ArrayLayout(shape, len(mine) * lanes), apart=wait == 1 or bool(share))
            m.submodules[f"vectors{first}" if share else "vectors"] = memory
            write, read = memory.write_port(granularity=lanes), memory.read_port(domain="sync")
            m.d.comb += [write.addr.eq(address_here), write.en.eq(mine), read.addr.eq(address), read.en.eq(1)]
            m.d.comb += [write.data[k].eq(codes_here[k % lanes]) for k in range(len(mine) * lanes)]
            result += [read.data[k] for k in range(len(mine) * lanes)]
        return result

    def _registers(self, m: Module, control: Control, taken: data.View, enable: Value, wait: int) -> list[Value]:
        """A vector moves on in the last cycle in which it is whole and the one before it is still read."""
        moves = valid_chain(m, control.fresh, wait + 1)[-1]
        lanes, result = len(taken), []
        for k in range(self.simd):
            gathered, held = (
                Signal(shape_of(self.format), name=f"{name}{k}", reset_less=True) for name in ("gathered", "held")
            )
            with m.If(enable[k // lanes]):
                m.d.sync += gathered.eq(taken[k % lanes])
            with m.If(moves):
                m.d.sync += held.eq(gathered)
            result.append(held)
        return result
