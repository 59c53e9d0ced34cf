"""Held inputs in hardware: memories of two banks, and the exchange of one set for the other between two frames.

A `Table` is a memory that holds every value of a held input twice. The stage reads one bank while the next set is
written to the other. An `Exchange` tells a stage from which frame on it reads the other bank; the stage counts the
frames that it is through with, so that each frame meets one set in every stage, wherever it is in the pipeline.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, ResetSignal, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.stage import Storage, Structure, register, shape_of
from bittrue.rtl.parts.rom import Ram
from bittrue.sim.contract import Format
from bittrue.sim.held import Held


class Table:
    """The memory of a held input: in each of two banks `rows` rows of `slots` values, one row a cycle.

    held    the input
    index   int64 `[rows, slots]`: which of its entries (flat) lies in a slot; row after row this is also the order in
            which the values of a set come. An entry may lie in several slots, and then comes for each
    base    what a stored value is less than the held one
    negated  the held value is stored with its sign turned

    Values are written one after the other: `shift` takes the `value` into a register of a row, then `write` stores that
    row at `row` of the `bank`. A table that is `scattered` is written value by value, in any order: `write` stores the
    `value` at `slot` of `row`, two cycles later; each slot has a write enable of its own in place of that register. Of
    one bank (`banks`) the one that is read is the one that is written.
    """

    def __init__(self, held: Held, index: np.ndarray, base: int = 0, negated: bool = False):
        self.held, self.index, self.base, self.negated = held, index, base, negated
        self.format = Format.covering(*(int(self.stored(end)) for end in (held.low, held.high)))
        rows, slots = index.shape
        self.row_bits = (rows - 1).bit_length()
        self.storage = Storage(self.format.bits * slots, (1 << self.row_bits) + rows)
        self.scattered, self.banks = False, 2

    def scatter(self, banks: int = 2) -> None:
        """Have it written value by value, before anything is built. What it is made of stays what it was."""
        self.scattered, self.banks = True, banks
        depth = self.rows if banks == 1 else self.storage.depth
        self.storage = replace(self.storage, depth=depth, parted=self.slots, made_of=self.storage.style)

    @property
    def rows(self) -> int:
        return self.index.shape[0]

    @property
    def slots(self) -> int:
        return self.index.shape[1]

    def stored(self, value: Any) -> Any:
        """What is stored of a held value."""
        return (-value if self.negated else value) - self.base

    @cached_property
    def port(self) -> TablePort:
        """Its write port."""
        return TablePort(self)

    def structure(self, early: bool = False) -> Structure:
        """The row that is written, the memory, and a register before distributed RAM or behind block RAM."""
        row, block = self.format.bits * self.slots, self.storage.style == "block"
        built = Structure(registers=self.format.bits + self.slots + self.row_bits + 1 if self.scattered else row)
        if not early:
            built.registers += row if block else self.row_bits + 1
        built.store(self.storage)
        if self.base or self.negated:
            built.add(self.format.bits, registered=False)
        return built

    def build(self, m: Module, name: str, address: Value, early: bool = False) -> data.View:
        """The values of a row, two cycles after its `address`; one cycle where a register follows (`early`)."""
        port, bits = self.port, self.format.bits
        content = self.stored(self.held.initial.reshape(-1)[self.index])  # type: ignore[union-attr]
        m.submodules[f"{name}_table"] = memory = Ram(self.storage, shape_of(self.format), content)
        block = self.storage.style == "block"
        if self.scattered:
            value = register(m, self.stored(port.value)[:bits], name=f"{name}_value")
            enables = Signal(self.slots, name=f"{name}_enables")
            m.d.sync += enables.eq(Cat(port.write & (port.slot == k) for k in range(self.slots)))
            where = register(m, self.address(port.row, port.bank), name=f"{name}_place")
            m.d.comb += [memory.write_addr.eq(where), memory.write.eq(enables)]
            m.d.comb += memory.write_data.as_value().eq(value.replicate(self.slots))
        else:
            row = Signal(bits * self.slots, name=f"{name}_written", reset_less=True)
            with m.If(port.shift):
                m.d.sync += row.eq(Cat(row, self.stored(port.value)[:bits])[bits:])
            m.d.comb += [
                memory.write_addr.eq(self.address(port.row, port.bank)),
                memory.write_data.as_value().eq(row),
                memory.write.eq(port.write),
            ]
        m.d.comb += [
            memory.addr.eq(address if block or early else register(m, address, name=f"{name}_address")),
        ]
        return register(m, memory.data, memory.data.shape(), name=f"{name}_row") if block and not early else memory.data

    def address(self, row: Value, bank: Value) -> Value:
        """Where a row of a bank lies."""
        if self.banks == 1:
            return row[: self.row_bits]
        return Cat(row[: self.row_bits], bank)


class TablePort:
    """What a table is written through."""

    def __init__(self, table: Table):
        shape = shape_of(Format.covering(table.held.low, table.held.high, signed=True))
        self.value = Signal(shape, name="written_value")
        self.shift = Signal(name="written_shift")
        self.write = Signal(name="written_write")
        self.row = Signal(max(1, table.row_bits), name="written_row")
        self.slot = Signal(max(1, (table.slots - 1).bit_length()), name="written_slot")
        self.bank = Signal(name="written_bank")


class Exchange:
    """When a stage goes over to the other bank.

    bank     the one that holds for frame `turn` and those after it
    turn     number of that frame, modulo 2^bits; more frames than that are never on their way
    armed    an exchange is under way
    settled  (from the stage) nothing of the stage reads the other bank any more
    """

    def __init__(self, bits: int):
        self.bits = bits
        self.bank = Signal(name="exchange_bank")
        self.turn = Signal(bits, name="exchange_turn")
        self.armed = Signal(name="exchange_armed")
        self.settled = Signal(name="exchange_settled")

    @staticmethod
    def structure(bits: int, reads: int) -> Structure:
        built = Structure(registers=1 + reads)
        built.count((1 << bits) - 1)
        built.add(bits, registered=False)
        built.select_bits += 2 * (bits // 2) + 2
        return built

    def follow(self, m: Module, frame_ends: Value, reads: int) -> list[Signal]:
        """The bank of the frame at hand, and what it was 1, 2, ... `reads` cycles ago.

        `frame_ends` is high in the cycle in which the stage reads for a frame for the last time; `reads` cycles after
        that nothing is read for it any more. A reset ends every frame on its way: then the newest set holds.
        """
        frame = Signal(self.bits, name="exchange_frame")
        now, next_one = Signal(name="exchange_now"), Signal(name="exchange_next")
        following = Signal(self.bits, name="exchange_following")
        m.d.comb += following.eq(frame + 1)
        with m.If(frame_ends):
            m.d.sync += frame.eq(following)
        # That a frame ends is known late: both comparisons are made by then. (No frame is on its way when the first
        # holds; a choice between them would be made one comparison of a choice by synthesis.)
        m.d.comb += [now.eq(frame == self.turn), next_one.eq(following == self.turn)]
        bank = Signal(name="bank", reset_less=True)
        with m.If(ResetSignal() | (self.armed & (now | (frame_ends & next_one)))):
            m.d.sync += bank.eq(self.bank)
        chain = [bank]
        for k in range(reads):
            chain.append(register(m, chain[-1], name=f"bank_{k + 1}"))
        # All of them: soon after a reset the last may still be one from before it, and equal by chance.
        m.d.comb += self.settled.eq(Cat(used == self.bank for used in chain).all())
        return chain
