"""The memory of the weights of a folded matrix stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from amaranth.hdl import Cat, Const, Module, Value

from bittrue.rtl.dataflow.products import fold_rows
from bittrue.rtl.dataflow.stage import Storage, Structure, register, shape_of
from bittrue.rtl.dataflow.structure import BLOCK_LUTS
from bittrue.rtl.parts.held import Table
from bittrue.rtl.parts.rom import Rom
from bittrue.sim.contract import Format
from bittrue.sim.held import Held, Parameter


class Cells:
    """The memory of a matrix: a row of `pe` times `simd` weights a step, constant or held.

    weight  int64 `[N, K]`, or a held input of which `index` `[N, K]` says which (flat) entry lies where
    fmt     what a weight is handed over in
    wire    the rows of a constant matrix are wires, where there is only one
    block_luts  LUTs that a block RAM is worth
    """

    def __init__(
        self,
        weight: Parameter,
        fmt: Format,
        simd: int,
        pe: int,
        index: np.ndarray | None = None,
        wire: bool = False,
        block_luts: int = BLOCK_LUTS,
    ):
        self.format, self.simd, self.pe = fmt, simd, pe
        self.table: Table | None = None
        if isinstance(weight, Held):
            index = np.arange(weight.size).reshape(weight.shape) if index is None else index
            rows = fold_rows(index, simd, pe)
            self.table = Table(weight, rows.reshape(len(rows), -1))
            self.storage = self.table.storage
        else:
            rows = self.rows = self.folded(weight)
            self.storage = Storage(fmt.bits * simd * pe, len(rows), table=True, worth=block_luts)
        self.wired = wire and len(rows) == 1 and self.table is None
        self.beside_bits, self.beside_codes = 0, np.zeros((len(rows), 0), np.int64)
        self.beside: Value | None = None

    def folded(self, weight: np.ndarray) -> np.ndarray:
        """The rows of a constant matrix, `[rows, pe, simd]`."""
        return fold_rows(weight, self.simd, self.pe)

    def take(self, bits: int, words: Sequence[int]) -> bool:
        """Keep a word of so many bits beside each row, where the blocks have room for it; whether they have.

        What is read of it is `beside`, with the weights, behind as many registers.
        """
        codes, each = -(-bits // self.format.bits), self.format.bits
        wider = replace(self.storage, width=self.storage.width + codes * each)
        alone = [storage.pieces(self.code_bits) == [storage] for storage in (self.storage, wider)]
        if self.table is not None or self.storage.style != "block" or not all(alone):
            return False
        if wider.style != "block" or wider.block_rams > self.storage.block_rams or wider.slice < wider.width:
            return False
        pieces = [[(word >> k * each) & ((1 << each) - 1) for k in range(codes)] for word in words]
        self.beside_codes = np.array(pieces, np.int64).reshape(len(words), codes)
        if self.format.signed:
            self.beside_codes -= (self.beside_codes >> (each - 1)) << each
        self.storage, self.beside_bits = wider, bits
        return True

    def structure(self, addresses: int, registers: int) -> Structure:
        """The memory, its address registers, and registers for the weights of a row."""
        built = Structure()
        if self.wired:
            return built
        built.registers += registers * (self.simd * self.pe * self.format.bits + self.beside_bits)
        built.inside -= self.beside_codes.shape[1] * self.format.bits - self.beside_bits
        built.registers += addresses * max(1, (self.storage.depth - 1).bit_length())
        if self.table is not None:
            return built + self.table.structure(early=True)
        for piece in self.storage.pieces(self.code_bits):
            built.store(piece)
        return built

    @property
    def stored(self) -> np.ndarray:
        """What the rows hold, `[rows, codes]`."""
        return np.concatenate([self.rows.reshape(len(self.rows), -1), self.beside_codes], axis=1)

    @property
    def code_bits(self) -> int:
        """Bits of what lies side by side in a row."""
        return self.format.bits

    def build(
        self, m: Module, name: str, word: Value, bank: Value | None, addresses: int, registers: int
    ) -> list[list[Value]]:
        """The weights `[pe][simd]` of the row `word`, behind so many registers of its address and of what is read.

        Held ones are those of the `bank`.
        """
        shape, places = shape_of(self.format), [(p, k) for p in range(self.pe) for k in range(self.simd)]
        if self.wired:
            flat: list[Value] = [Const(int(self.rows[0, p, k]), shape) for p, k in places]
        else:
            if self.table is not None:
                where = register(m, self.table.address(word, bank), name=f"{name}_address", cycles=addresses)
                row = self.table.build(m, name, where, early=True)
            else:
                m.submodules[name] = memory = Rom(self.storage, shape, self.stored)
                m.d.comb += memory.addr.eq(register(m, word, name=f"{name}_address", cycles=addresses))
                row = memory.data
                beside = Cat(memory.data[k] for k in range(len(places), self.stored.shape[1]))[: self.beside_bits]
                self.beside = register(m, beside, name=f"{name}_beside", cycles=registers) if self.beside_bits else None
            flat = [
                register(m, row[i], shape, name=f"{name[0]}{p}_{k}", cycles=registers)
                for i, (p, k) in enumerate(places)
            ]
        return [flat[p * self.simd : (p + 1) * self.simd] for p in range(self.pe)]
