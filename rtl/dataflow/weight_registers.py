"""Sets of weights over AXI4-Lite: registers that hand the words of a set to the loader (`rtl.dataflow.loader`).

The words of a set are written one after the other, each to any address of the window WEIGHTS, and then CONTROL's
`commit` ends the set. While the set before is exchanged (STATUS says not `ready`) writes to both are refused with
SLVERR, and ERRORS says BUSY: nothing is lost, for the word can be written again.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from amaranth.hdl import Elaboratable, Module, Signal, Value

from bittrue.rtl.bus.access import Access
from bittrue.rtl.bus.lite import Slave
from bittrue.rtl.bus.registers import WORD, Field, Register, RegisterMap, Window, errors
from bittrue.rtl.dataflow.loader import COUNT_BITS, Loader, Words
from bittrue.rtl.dataflow.stage import Structure
from bittrue.sim.errors import BittrueError

#: Words of the window: all of them are one, so that a processor can copy an array to ascending addresses.
WINDOW = 256


class Address(IntEnum):
    """Of the registers and of the window, in bytes."""

    CONTROL = 0x00
    STATUS = 0x04
    ERRORS = 0x08
    WORDS = 0x0C
    SETS = 0x10
    WEIGHTS = 0x400


def register_map(words: Words) -> RegisterMap:
    """The map for sets of these words."""
    if words.format.bits > WORD:
        widest = max(words.tables, key=lambda t: t.format.bits).held
        raise BittrueError(
            f"weights over AXI4-Lite: {widest.name!r} ({widest.low}..{widest.high}) needs words of {words.format.bits} "
            f"bits, a register has {WORD}; write them over a stream, or narrow the bounds"
        )
    registers = (
        Register(
            "CONTROL",
            Address.CONTROL,
            (Field("commit", 0, 1, "w1s", "the words since the last commit are a set"),),
            idle=True,
        ),
        Register(
            "STATUS",
            Address.STATUS,
            (
                Field("ready", 0, 1, "ro", "words are taken"),
                Field("refused", 8, COUNT_BITS, "ro", "sets that were refused, up to 255"),
            ),
        ),
        errors(
            "ERRORS",
            Address.ERRORS,
            Field("WEIGHTS", 4, 1, "w1c", "a set was refused: too short, too long, or a value out of its bounds"),
            description="sticky, 1 clears",
        ),
        Register(
            "WORDS", Address.WORDS, (Field("WORDS", 0, 32, "ro", "words of a set", reset=words.count, constant=True),)
        ),
        Register(
            "SETS", Address.SETS, (Field("SETS", 0, COUNT_BITS, "ro", "sets that have taken effect, modulo 256"),)
        ),
    )
    text = "the next word of a set, written to any address of the window"
    window = Window("WEIGHTS", Address.WEIGHTS, (WINDOW,), words.format, "wo", text, idle=True)
    return RegisterMap("WEIGHTS", registers, (window,), errors="ERRORS", description="Weights written at run time")


def write_set(words: Words, values: np.ndarray, frame: int, sets: int) -> tuple[Access, ...]:
    """The accesses that write a set, before frame `frame` of a run goes in, which waits until it has taken effect.

    values  the words of the set;  sets  how many there are with this one
    """
    table = register_map(words)
    window = table.window("WEIGHTS")
    made = [Access("WEIGHTS", window.at(k % WINDOW), int(v), frame=frame) for k, v in enumerate(values)]
    commit = Access("CONTROL", Address.CONTROL, 1, frame=frame)
    # the set takes effect a few cycles after its commit, so there is a read before the one that looks for it
    count = Access("WORDS", Address.WORDS, read=words.count, frame=frame)
    return (*made, commit, count, Access("SETS", Address.SETS, read=sets % (1 << COUNT_BITS), frame=frame))


class WeightRegisters(Elaboratable):
    """The slave, and one word held back so that the last one of a set is known when `commit` comes."""

    def __init__(self, words: Words, loader: Loader):
        self.loader, self.slave = loader, Slave(register_map(words))

    @staticmethod
    def structure(words: Words) -> Structure:
        """The bus's registers and comparisons, and the word held back."""
        built = Structure(registers=2 * WORD + WORD + 2 * 12 + 16 + words.format.bits)
        built.select_bits += WORD + 12
        for _ in range(2):
            built.add(words.format.bits, registered=False)
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.slave = slave = self.slave
        loader, commit = self.loader, slave.control_commit
        refused = hand_over(m, loader, slave.weights, commit)
        m.d.comb += [
            slave.control_commit_done.eq(commit),
            slave.busy.eq(~loader.ready),
            slave.status_ready.eq(loader.ready),
            slave.sets.eq(loader.sets),
            slave.status_refused.eq(loader.errors),
            slave.errors_weights.eq(refused),
        ]
        return m


def hand_over(m: Module, loader: Loader, port: Any, commit: Value, name: str = "") -> Value:
    """Hand the words that are written to a window to a loader, the last one with `commit`; a strobe says that the set
    was refused."""
    word, waiting = Signal(len(loader.word), name=f"{name}word"), Signal(name=f"{name}waiting")
    with m.If(port.write):
        m.d.sync += [word.eq(port.data), waiting.eq(1)]
    with m.Elif(commit):
        m.d.sync += waiting.eq(0)
    m.d.comb += [
        loader.word.eq(word),
        loader.valid.eq(waiting & (port.write | commit)),
        loader.last.eq(commit),
    ]
    return loader.refused | (commit & ~waiting)
