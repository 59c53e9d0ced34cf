"""Where a folded matrix stage keeps what comes in: two vectors, one that fills while the other is multiplied."""

from __future__ import annotations

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

    Of one word there is no memory: codes gather in one register, and move as a whole to another from which they are
    multiplied. That takes two flip-flops a bit and no LUT, where distributed RAM takes one and a half.
    """

    def __init__(self, fmt: Format, simd: int, words: int, block_luts: int = BLOCK_LUTS):
        self.format, self.simd, self.words = fmt, simd, words
        self.storage = Storage(fmt.bits * simd, 2 << (words - 1).bit_length(), worth=block_luts)

    @property
    def style(self) -> str:
        return self.storage.style if self.words > 1 else "registers"

    @property
    def bits(self) -> int:
        return self.storage.bits

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
        built.registers += lanes * self.format.bits + (1 + wait) * address + 2 * parts
        if self.style == "block":
            built.store(self.storage)
        else:
            built.store(Storage(lanes * self.format.bits, self.storage.depth, worth=self.storage.worth), parts)
        return built

    def build(self, m: Module, control: Control, word: Value, codes: data.View, beats: int, wait: int) -> list[Value]:
        """What is read: the codes of `word` of the vector at hand, two cycles after a step, and `wait` - 1 more.

        `codes` is what comes in; a vector takes `beats` of it.
        """
        shape, lanes = shape_of(self.format), len(codes)
        parts = self.simd // lanes
        late = wait if self.words == 1 else 1
        written = valid_chain(m, control.write, late - 1)[-1]
        full = valid_chain(m, control.write_full, late - 1)[-1] if self.words * parts != beats else None
        part = Signal(parts, init=1)  # one bit says which: a comparison for every part would cost more
        with m.If(written):
            m.d.sync += part.eq(part.rotate_left(1))
        if full is not None:  # the last word is not full
            with m.If(full):
                m.d.sync += part.eq(1)
        taken = register(m, codes, codes.shape(), name="write_codes", cycles=late)
        enable = Signal(parts, name="write_enable")
        m.d.sync += enable.eq(part & written.replicate(parts))
        if self.words == 1:
            return self._registers(m, control, taken, enable, wait)
        size = (self.words - 1).bit_length()
        at = Signal(counting(self.words), name="word")
        with m.If(control.write & part[-1]):
            m.d.sync += at.eq(at + 1)
        with m.If(control.write_full):
            m.d.sync += at.eq(0)
        m.submodules.vectors = vectors = self.storage.memory(data.ArrayLayout(shape, self.simd), apart=wait == 1)
        write, read = vectors.write_port(granularity=lanes), vectors.read_port(domain="sync")
        m.d.comb += write.addr.eq(register(m, Cat(at[:size], control.write_block), name="write_address"))
        m.d.comb += [write.data[k].eq(taken[k % lanes]) for k in range(self.simd)]
        m.d.comb += write.en.eq(enable)
        address = Cat(word[:size], control.read_block)
        m.d.comb += [read.addr.eq(register(m, address, name="read_address", cycles=wait)), read.en.eq(1)]
        return [read.data[k] for k in range(self.simd)]

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
