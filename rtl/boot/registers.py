"""The AXI4-Lite registers of an accelerator that boots: the boot, and sets of weights in its place.

The words of a set go to the window WEIGHTS and those of the generator's own to GENERATOR, as with an accelerator that
is only written (`rtl.dataflow.weight_registers`). Whatever starts something is refused with SLVERR, and ERRORS says
BUSY, while a boot or an exchange is under way.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Elaboratable, Module, Signal

from bittrue.rtl.boot.machine import BootMachine
from bittrue.rtl.bus.lite import Slave
from bittrue.rtl.bus.registers import WORD, Field, Register, RegisterMap, Window, errors
from bittrue.rtl.dataflow.loader import COUNT_BITS, Loader, Words
from bittrue.rtl.dataflow.structure import Structure
from bittrue.rtl.dataflow.weight_registers import WINDOW, hand_over
from bittrue.sim.errors import BittrueError


class Address(IntEnum):
    """Of the registers and of the windows, in bytes."""

    CONTROL = 0x00
    STATUS = 0x04
    ERRORS = 0x08
    WORDS = 0x0C
    SETS = 0x10
    PAUSE = 0x14
    BOOTS = 0x18
    CYCLES = 0x1C
    FOUND = 0x20
    EXPECTED = 0x24
    GENERATOR_WORDS = 0x28
    WEIGHTS = 0x400
    GENERATOR = 0x800


def register_map(words: Words | None, own: Words | None, expected: int) -> RegisterMap:
    """The map.

    words     of a set of the accelerator, None where it is written by boots alone;  own  of a set of the generator,
              None where it has constants
    expected  checksum of the weights that the generator makes at first
    """
    for given in (words, own):
        if given is not None and given.format.bits > WORD:
            raise BittrueError(
                f"boot: words of {given.format.bits} bits do not fit a register of {WORD}; narrow the bounds of "
                "what is held"
            )

    def number(name: str, text: str, bits: int = 32, **options) -> Register:
        idle = options.pop("idle", False)
        return Register(name, Address[name], (Field(name, 0, bits, description=text, **options),), idle=idle)

    control = [Field("start", 0, 1, "w1s", "a boot; the weights hold from the next frame on when it is over")]
    told = [
        Field("ready", 0, 1, "ro", "frames are taken"),
        Field("busy", 1, 1, "ro", "a boot is under way"),
        Field("wrong", 2, 1, "ro", "the checksum of the last boot was wrong; no frame is taken until another is right"),
        Field("idle", 3, 1, "ro", "no boot and no exchange is under way: words and a start are taken"),
    ]
    faults = [Field("CHECKSUM", 4, 1, "w1c", "the weights that a boot made are not those that were expected")]
    rows, windows = [], []
    if words is not None:
        control.append(Field("commit", 1, 1, "w1s", "the words since the last commit are a set"))
        faults.append(Field("WEIGHTS", 5, 1, "w1c", "a set was refused: too short, too long, or out of its bounds"))
        rows.append(number("WORDS", "words of a set", access="ro", reset=words.count, constant=True))
        text = "the next word of a set, written to any address of the window"
        windows.append(Window("WEIGHTS", Address.WEIGHTS, (WINDOW,), words.format, "wo", text, idle=True))
    if own is not None:
        control.append(Field("commit_generator", 2, 1, "w1s", "the same of the generator's words"))
        faults.append(Field("GENERATOR", 6, 1, "w1c", "likewise a set of the generator"))
        rows.append(number("GENERATOR_WORDS", "words of its set", access="ro", reset=own.count, constant=True))
        text = "the next word of a set of the generator, likewise"
        windows.append(Window("GENERATOR", Address.GENERATOR, (WINDOW,), own.format, "wo", text, idle=True))
    registers = (
        Register("CONTROL", Address.CONTROL, tuple(control), idle=True),
        Register("STATUS", Address.STATUS, tuple(told)),
        errors("ERRORS", Address.ERRORS, *faults, description="sticky, 1 clears"),
        number("SETS", "sets that have taken effect, of boots and of the bus, modulo 256", COUNT_BITS, access="ro"),
        number("PAUSE", "1: no frame begins while a boot is under way; 0: they go on with the weights of before", 1),
        number("BOOTS", "boots that were right", access="ro"),
        number("CYCLES", "of the last one", access="ro"),
        number("FOUND", "CRC-32 of the weights of the last boot", access="ro"),
        number("EXPECTED", "what it has to be", reset=expected, idle=True),
        *rows,
    )
    return RegisterMap("BOOT", registers, tuple(windows), errors="ERRORS", description="Weights generated at boot")


class BootRegisters(Elaboratable):
    """The slave, in front of the machine and of the loaders.

    ready  frames are taken;  hold  no frame begins while a boot is under way
    """

    def __init__(self, table: RegisterMap, machine: BootMachine, loader: Loader, own: Loader | None, banks: int):
        self.slave = Slave(table)
        self.machine, self.loader, self.own, self.banks = machine, loader, own, banks
        self.ready, self.hold = Signal(name="ready"), Signal(name="hold")

    @staticmethod
    def structure(table: RegisterMap) -> Structure:
        built = Structure(registers=2 * WORD + WORD + 2 * 12 + 16 + 2 * 10 + WORD + 8)
        built.select_bits += 4 * WORD + 12
        built.registers += sum(window.format.bits for window in table.windows)
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.slave = slave = self.slave
        machine, loader, own = self.machine, self.loader, self.own
        settling = loader.settling if own is None else loader.settling | own.settling
        busy = machine.busy | settling | slave.control_start
        if self.banks == 1:  # what is written is what is read
            m.d.comb += self.hold.eq(1)
        else:
            m.d.comb += self.hold.eq(slave.pause)
            m.d.comb += slave.control_commit_done.eq(slave.control_commit)
            m.d.comb += slave.errors_weights.eq(hand_over(m, loader, slave.weights, slave.control_commit))
        if own is not None:
            commit = slave.control_commit_generator
            m.d.comb += slave.control_commit_generator_done.eq(commit)
            m.d.comb += slave.errors_generator.eq(hand_over(m, own, slave.generator, commit, "generator_"))
        m.d.comb += [
            slave.busy.eq(busy),
            machine.ask.eq(slave.control_start),
            slave.control_start_done.eq(machine.taken),
            machine.expected.eq(slave.expected),
            slave.status_ready.eq(self.ready),
            slave.status_busy.eq(machine.busy),
            slave.status_wrong.eq(machine.wrong),
            slave.status_idle.eq(~busy),
            slave.errors_checksum.eq(machine.failed),
            slave.sets.eq(loader.sets),
            slave.boots.eq(machine.boots),
            slave.cycles.eq(machine.cycles),
            slave.found.eq(machine.last),
        ]
        return m
