"""A register map: random legal and illegal accesses against a model in Python, the table, and the SVD file."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from bittrue.rtl.bus.access import END, MEANWHILE, Access, answers, in_order, problems, shown
from bittrue.rtl.bus.lite import Slave, index
from bittrue.rtl.bus.registers import FAULTS, OKAY, SLVERR, Field, Register, RegisterMap, Window, errors
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from tests.helpers.drive import Drive, Lite

TOY = RegisterMap(
    "TOY",
    (
        Register(
            "CONTROL",
            0x00,
            (Field("auto", 0, 1, "rw", "goes on by itself", reset=1), Field("start", 3, 1, "w1s", "goes once")),
        ),
        Register("STATUS", 0x04, (Field("level", 4, 8, "ro", "how much"),), "what goes on"),
        errors("ERRORS", 0x08, Field("LATE", 4, 1, "w1c", "came too late"), description="sticky"),
        Register("DELAY", 0x0C, (Field("DELAY", 0, 12, "rw", "cycles", reset=7, values=(3, 1000)),), idle=True),
        Register("COUNT", 0x10, (Field("COUNT", 0, 32, "rw", "what was counted", hardware=True),)),
        Register("IDENTITY", 0x14, (Field("IDENTITY", 0, 32, "ro", "who it is", reset=0xC0FFEE, constant=True),)),
        Register("EVEN", 0x20, (Field("EVEN", 0, 8, "rw", "an even number"),), checked=True),
    ),
    (
        Window("GRID", 0x100, (3, 5), Format(6), "rw", "codes in rows and columns", idle=True),
        Window("SINK", 0x80, (8,), Format(9, signed=False), "wo", "goes in"),
        Window("SOURCE", 0x40, (4,), Format(16, signed=False), "ro", "comes out", latency=0),
    ),
    errors="ERRORS",
    description="Nothing in particular",
)


class Device:
    """What is behind the slave, in Python: the memories of the windows, and the rule of EVEN."""

    def __init__(self, slave: Slave) -> None:
        self.slave = slave
        self.grid = {(i, j): 0 for i in range(3) for j in range(5)}
        self.sunk: list[tuple[int, int]] = []
        self.reads: list[int] = []
        self.late_until_answered = False

    def step(self, ctx) -> None:
        """Look at what the slave asks for in this cycle, before the clock's edge."""
        slave = self.slave
        if self.late_until_answered:
            ctx.set(slave.errors_late, not ctx.get(slave.axi.bvalid))
        ctx.set(slave.even_refused, ctx.get(slave.written) & 1)
        ctx.set(slave.source.value, 100 + ctx.get(slave.source.read_at))
        if ctx.get(slave.grid.write):
            self.grid[self.place(ctx.get(slave.grid.write_at))] = ctx.get(slave.grid.data)
        if ctx.get(slave.sink.write):
            self.sunk.append((ctx.get(slave.sink.write_at), ctx.get(slave.sink.data)))
        # The word appears in the cycle `latency` = 2 after the one with `read`, and in no other.
        due = self.reads.pop(0) if len(self.reads) == 2 else None
        self.reads.append(ctx.get(slave.grid.read))
        ctx.set(slave.grid.value, self.grid[self.place(ctx.get(slave.grid.read_at))] if due else 0xDEAD)

    @staticmethod
    def place(at: int) -> tuple[int, int]:
        return min(at >> 3, 2), min(at & 7, 4)


class Master:
    """Drives the bus of a slave cycle by cycle, its channels with pauses."""

    def __init__(self, ctx, slave: Slave, device: Device, seed: int) -> None:
        self.ctx, self.device = ctx, device
        self.bus = Lite(slave.axi.__getattribute__, self.cycle, idle=0.4, seed=seed)
        self.drive = Drive(*self.bus.streams, patience=1000)
        self.read, self.write = self.bus.read, self.bus.write

    async def cycle(self) -> None:
        self.drive.set(self.ctx)
        self.drive.see(self.ctx)
        self.device.step(self.ctx)
        await self.ctx.tick()


class Model:
    """What the accesses to TOY must do, told apart from the RTL."""

    def __init__(self) -> None:
        self.words = {0x00: 1, 0x04: 0x5A0, 0x08: 0, 0x0C: 7, 0x10: 0, 0x14: 0xC0FFEE, 0x20: 0}
        self.grid = {(i, j): 0 for i in range(3) for j in range(5)}
        self.sunk: list[tuple[int, int]] = []
        self.busy = False

    def fault(self, name: str) -> int:
        self.words[0x08] |= 1 << list(FAULTS).index(name)
        return SLVERR

    def cell(self, address: int) -> tuple[int, int] | None:
        row, column = divmod((address - 0x100) >> 2, 8)
        return (row, column) if row < 3 and column < 5 else None

    def write(self, address: int, value: int, strobe: int) -> int:
        signed = value - (1 << 32) if value >> 31 else value
        if address % 4:
            return self.fault("ADDRESS")
        if 0x100 <= address < 0x180:
            if (cell := self.cell(address)) is None:
                return self.fault("ADDRESS")
            if self.busy:
                return self.fault("BUSY")
            if strobe != 0xF or not -32 <= signed < 32:
                return self.fault("VALUE")
            self.grid[cell] = value
            return OKAY
        if 0x80 <= address < 0xA0:
            if strobe != 0xF or value > 511:
                return self.fault("VALUE")
            self.sunk.append(((address - 0x80) >> 2, value))
            return OKAY
        if 0x40 <= address < 0x50 or address in (0x04, 0x14):
            return self.fault("ACCESS")
        if address not in self.words:
            return self.fault("ADDRESS")
        if address == 0x0C and self.busy:
            return self.fault("BUSY")
        legal = {
            0x00: not value & ~0b1001,
            0x08: value < 32,
            0x0C: 3 <= value <= 1000,
            0x10: True,
            0x20: value < 256 and value % 2 == 0,
        }[address]
        if strobe != 0xF or not legal:
            return self.fault("VALUE")
        if address == 0x08:
            self.words[0x08] &= ~value
        elif address == 0x00:
            self.words[0x00] = value & 1 | (self.words[0x00] | value) & 8
        else:
            self.words[address] = value
        return OKAY

    def read(self, address: int) -> tuple[int, int]:
        if address % 4 == 0:
            if 0x100 <= address < 0x180 and (cell := self.cell(address)) is not None:
                return (0, self.fault("BUSY")) if self.busy else (self.grid[cell], OKAY)
            if 0x80 <= address < 0xA0:
                return 0, self.fault("ACCESS")
            if 0x40 <= address < 0x50:
                return 100 + ((address - 0x40) >> 2), OKAY
            if address in self.words:
                return self.words[address], OKAY
        return 0, self.fault("ADDRESS")


def run(script, table: RegisterMap = TOY) -> None:
    slave = Slave(table)
    device = Device(slave)

    async def bench(ctx):
        ctx.set(slave.status_level, 0x5A)
        await script(ctx, slave, device, Master(ctx, slave, device, 3))

    sim = Simulator(slave)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()


def test_random_accesses():
    rng = np.random.default_rng(1)
    counts = dict.fromkeys(("OKAY", *FAULTS), 0)

    async def script(ctx, slave, device, master):
        model = Model()
        for _ in range(1500):
            before = model.words[0x08]
            places = [rng.integers(0, 0x30), 0x0C, rng.integers(0x100, 0x180), rng.integers(0, 1 << TOY.address_bits)]
            address = int(rng.choice(places)) & (~0 if rng.random() < 0.1 else ~3)
            if rng.random() < 0.1:
                model.busy = not model.busy
                ctx.set(slave.busy, model.busy)
            if rng.random() < 0.5:
                assert await master.read(address) == model.read(address), hex(address)
            else:
                corners = (2, 3, 1000, 1001) if address == 0x0C else (-33, -32, 31, 32, 511, 512, 0, 8, 9)
                words = [rng.choice(corners), rng.choice(corners), rng.integers(0, 1100), rng.integers(0, 1 << 32)]
                value = int(rng.choice(words))
                strobe = 0xF if rng.random() < 0.9 else int(rng.integers(0, 15))
                wanted = model.write(address, value & 0xFFFFFFFF, strobe)
                assert await master.write(address, value, strobe) == wanted, hex(address)
            new = model.words[0x08] & ~before
            for bit, fault in enumerate(FAULTS):
                counts[fault] += new >> bit & 1
            counts["OKAY"] += not new
            if rng.random() < 0.2:  # cleared, so that the next fault is seen
                assert await master.write(0x08, 0x1F) == model.write(0x08, 0x1F, 0xF)
        assert device.grid == model.grid
        assert device.sunk == model.sunk
        assert await master.read(0x08) == (model.words[0x08], OKAY)

    run(script)
    assert min(counts.values()) > 20, counts


def test_what_the_design_changes():
    async def script(ctx, slave, _, master):
        assert (ctx.get(slave.control_auto), ctx.get(slave.control_start), ctx.get(slave.delay)) == (1, 0, 7)
        assert await master.write(0x00, 0b1000) == OKAY
        assert (ctx.get(slave.control_auto), ctx.get(slave.control_start)) == (0, 1)
        assert await master.write(0x00, 0) == OKAY  # a 0 takes no command back
        assert await master.read(0x00) == (0b1000, OKAY)
        ctx.set(slave.control_start_done, 1)
        await master.cycle()
        ctx.set(slave.control_start_done, 0)
        assert await master.read(0x00) == (0, OKAY)
        ctx.set(slave.count_next, 41)
        ctx.set(slave.count_set, 1)
        await master.cycle()
        ctx.set(slave.count_set, 0)
        assert await master.read(0x10) == (41, OKAY)
        ctx.set(slave.errors_late, 1)
        await master.cycle()
        ctx.set(slave.errors_late, 0)
        assert await master.write(0x08, 0x0F) == OKAY
        assert await master.read(0x08) == (0x10, OKAY)
        assert await master.write(0x08, 0x10) == OKAY
        assert await master.read(0x08) == (0, OKAY)

    run(script)


def test_a_part_of_a_register_that_is_only_read():
    """It tells what goes on beside what is written, and what is written there is of no account."""
    control, *others = TOY.registers
    control = replace(control, fields=(*control.fields, Field("level", 4, 4, "ro", "how much")))

    async def script(ctx, slave, _, master):
        for level, written in ((9, 0x60), (6, 0x91), (0, 0xF0)):
            ctx.set(slave.control_level, level)
            assert await master.write(0x00, written) == OKAY
            assert ctx.get(slave.control_auto) == written & 1
            assert await master.read(0x00) == (level << 4 | written & 1, OKAY)

    run(script, replace(TOY, registers=(control, *others)))


def test_an_error_in_the_cycle_of_its_clearing_stays():
    async def script(ctx, slave, device, master):
        device.late_until_answered = True
        assert await master.write(0x08, 0x10) == OKAY  # it is cleared in the cycle before the answer
        assert ctx.get(slave.errors_late) == 0
        assert await master.read(0x08) == (0x10, OKAY)

    run(script)


def test_addresses_of_a_window():
    grid = TOY.window("GRID")
    assert (grid.at_bits, grid.span, grid.at(2, 3)) == (5, 0x80, 0x100 + 4 * (2 * 8 + 3))
    assert [len(part) for part in index(grid, Slave(TOY).grid.write_at)] == [2, 3]
    with pytest.raises(BittrueError, match=r"window GRID: no word \(3, 0\); its dimensions are \(3, 5\)"):
        grid.at(3, 0)


@pytest.mark.parametrize(("last", "bits"), [(0, 3), (4, 3), (8, 4), (12, 4), (16, 5), (28, 5), (32, 6)])
def test_an_address_has_the_bits_of_the_last_byte(last, bits):
    assert RegisterMap("M", (Register("R", last, (Field("a"),)),)).address_bits == bits
    assert RegisterMap("M", ()).address_bits == 3


# -- documents ---------------------------------------------------------------------------------------------
def test_table():
    rows = TOY.markdown().splitlines()
    assert len(rows) == 2 + len(TOY.registers) + len(TOY.windows)
    assert rows[2] == ("| `0x00` | CONTROL | rw | bit 0 `auto`: goes on by itself; bit 3 `start`: goes once |")
    assert rows[5] == "| `0x0C` | DELAY | rw | cycles |"
    assert rows[-1] == "| `0x100` to `0x17F` | GRID (3 x 5) | rw | codes in rows and columns |"


def test_svd_says_the_same():
    """Parsed by another reader: every register, field and word of a window is where the map has it."""
    assert TOY.svd().startswith("<?xml version='1.0' encoding=")
    assert TOY.svd().endswith("</device>\n")
    root = ET.fromstring(TOY.svd())
    assert root.tag == "device"
    assert [e.tag for e in root] == ["name", "version", "description", "addressUnitBits", "width", "peripherals"]
    (peripheral,) = root.iter("peripheral")
    assert int(peripheral.findtext("addressBlock/size"), 0) == 1 << TOY.address_bits
    base, found = int(peripheral.findtext("baseAddress"), 0), {}

    def walk(element: ET.Element, offset: int, path: tuple[int, ...]) -> None:
        offset += int(element.findtext("addressOffset"), 0)
        count, step = int(element.findtext("dim", "1"), 0), int(element.findtext("dimIncrement", "0"), 0)
        for k in range(count):
            at, here = offset + k * step, (*path, k) if element.find("dim") is not None else path
            if element.tag == "register":
                found[at] = (element, here)
            for child in element:
                if child.tag in ("register", "cluster"):
                    walk(child, at, here)

    for child in peripheral.find("registers"):
        walk(child, base, ())
    words = {w.at(*np.unravel_index(k, w.dimensions)): w for w in TOY.windows for k in range(np.prod(w.dimensions))}
    assert set(found) == {r.address for r in TOY.registers} | set(words)
    for address, window in words.items():
        element, path = found[address]
        assert window.at(*path) == address
        assert int(element.findtext("fields/field/bitWidth")) == window.format.bits
        assert element.findtext("access") == {"rw": "read-write", "wo": "write-only", "ro": "read-only"}[window.access]
    writes = {"w1s": "oneToSet", "w1c": "oneToClear"}
    for register in TOY.registers:
        element, _ = found[register.address]
        assert element.findtext("name") == register.name
        assert int(element.findtext("resetValue"), 0) == register.reset
        fields = {field.findtext("name"): field for field in element.iter("field")}
        assert list(fields) == [field.name for field in register.fields]
        for field in register.fields:
            entry = fields[field.name]
            assert (int(entry.findtext("bitOffset")), int(entry.findtext("bitWidth"))) == (field.low, field.bits)
            assert entry.findtext("description") == (field.description or field.name)  # the schema wants one
            assert entry.findtext("access") == ("read-only" if field.access == "ro" else "read-write")
            assert entry.findtext("modifiedWriteValues") == writes.get(field.access)
            legal = entry.find("writeConstraint/range")
            assert (None if legal is None else tuple(int(e.text) for e in legal)) == field.values


def test_svd_of_a_map_without_a_description():
    """The schema wants one that is not empty: the name then."""
    root = ET.fromstring(RegisterMap("BARE", TOY.registers[:2]).svd("2.1"))
    assert [root.findtext(part) for part in ("name", "version", "description")] == ["BARE", "2.1", "BARE"]
    assert root.findtext("peripherals/peripheral/description") == "BARE"


# -- maps that are none ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Field("1st"), "field '1st': a name has letters"),
        (lambda: Field("a", access="rx"), "field a: no access 'rx'; use ro, rw, w1s or w1c"),
        (lambda: Field("a", 30, 4), "field a: bits 30 to 33 are not in a word"),
        (lambda: Field("a", 31, 2), "field a: bits 31 to 32 are not in a word"),
        (lambda: Field("a", -1, 2), "field a: bits -1 to 0 are not in a word"),
        (lambda: Field("a", 0, 0), "field a: bits 0 to -1 are not in a word"),
        (lambda: Field("a", bits=2, values=(-1, 3)), "field a: values -1 to 3 do not fit 2 bits"),
        (lambda: Field("a", bits=2, values=(3, 2)), "field a: values 3 to 2 do not fit 2 bits"),
        (lambda: Field("a", bits=4, values=(2, 4), reset=1), "its value after reset, 1, is not 2 to 4"),
        (lambda: Field("a", bits=4, values=(2, 4), reset=5), "its value after reset, 5, is not 2 to 4"),
        (lambda: Register("R", -4, (Field("a"),)), "register R: its address -0x4 is no multiple of 4"),
        (lambda: Register("R", 0, (Field("a"), Field("a", 1))), "register R: it needs fields, each with a name of"),
        (lambda: Register("R", 0, (Field("a", 0, 3), Field("b", 2))), "register R: field b overlaps another one"),
        (lambda: Window("W", 0, (), Format(4)), "window W: dimensions (); each is at least 1"),
        (lambda: Window("W", 0, (3, 0), Format(4)), "window W: dimensions (3, 0); each is at least 1"),
        (lambda: Window("W", 0, (3,), Format(4), "w1s"), "window W: access 'w1s', latency 2; use rw, wo or ro"),
        (lambda: Window("W", 0, (3,), Format(4), latency=-1), "window W: access 'rw', latency -1"),
        (lambda: RegisterMap("M", (Register("R", 8, (Field("a"),)),))["S"], "no register 'S'; it has R"),
        (lambda: RegisterMap("M", ()).window("S"), "register map M: no window 'S'"),
        (lambda: Window("W", 0, (3,), Format(4)).at(3), "window W: no word (3,); its dimensions are (3,)"),
        (lambda: Window("W", 0, (3,), Format(4)).at(-1), "window W: no word (-1,); its dimensions are (3,)"),
        (lambda: Window("W", 0, (3,), Format(4)).at(1, 1), "window W: no word (1, 1); its dimensions are (3,)"),
        (lambda: Field("a", bits=2, values=(0, 4)), "field a: values 0 to 4 do not fit 2 bits"),
        (lambda: Field("a", bits=4, values=(2, 4)), "its value after reset, 0, is not 2 to 4"),
        (lambda: Register("R", 2, (Field("a"),)), "register R: its address 0x2 is no multiple of 4"),
        (lambda: Register("R", 0, (Field("a"), Field("b"))), "register R: field b overlaps another one"),
        (lambda: Register("R", 0, ()), "register R: it needs fields"),
        (lambda: Window("W", 0x24, (3,), Format(4)), "no multiple of its size 0x10"),
        (lambda: Window("W", 0, (4,), Format(33)), "codes of s33 do not fit a word"),
        (
            lambda: RegisterMap("M", (Register("R", 0x10, (Field("a"),)),), (Window("W", 0, (8,), Format(4)),)),
            "register map M: W and R overlap at 0x10",
        ),
        (lambda: RegisterMap("M", (Register("R", 0, (Field("a"),)), Register("r", 4, (Field("a"),)))), "twice"),
        (lambda: RegisterMap("M", (Register("R", 0, (Field("a"),)),), errors="R"), "make it with `errors`"),
    ],
)
def test_refused(make, words):
    with pytest.raises(BittrueError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field("a", 28, 4),
        lambda: Field("a", 31, 1),
        lambda: Field("a", 0, 32),
        lambda: Field("a", bits=2, values=(0, 3)),
        lambda: Field("a", bits=2, values=(2, 2), reset=2),
        lambda: Field("a", bits=4, values=(2, 4), reset=2),
        lambda: Field("a", bits=4, values=(2, 4), reset=4),
        lambda: Register("R", 4, (Field("a", 0, 2), Field("b", 2))),
        lambda: Window("W", 0x20, (1,), Format(32)),
        lambda: Window("W", 0x20, (3, 2), Format(4), "wo", latency=0),
        lambda: RegisterMap("M", (Register("R", 0x20, (Field("a"),)),), (Window("W", 0, (8,), Format(4)),)),
        lambda: RegisterMap("M", (Register("R", 0, (Field("a"),)), Register("S", 4, (Field("a"),)))),
    ],
)
def test_what_is_just_allowed_is_made(make):
    make()


# -- accesses ----------------------------------------------------------------------------------------------
def test_wrong_answers_are_told():
    accesses = in_order(
        [
            Access("STATUS", 4, frame=MEANWHILE),
            Access("COUNT", 16, read=3, frame=END),
            Access("IDENTITY", 20, read=0xC0FFEE),
            Access("IDENTITY", 20, 1, SLVERR),
            Access("DELAY", 12, 9, frame=2),
        ]
    )
    assert [(a.name, a.phase) for a in accesses] == [
        ("IDENTITY", "before"),
        ("IDENTITY", "before"),
        ("DELAY", "before number 2 of"),
        ("COUNT", "after"),
        ("STATUS", "during"),
    ]
    right = [(0, OKAY, 0xC0FFEE, 5), (1, SLVERR, 0, 9), (4, OKAY, 1, 12), (4, OKAY, 0, 16), (2, OKAY, 0, 20)]
    right += [(3, OKAY, 3, 30)]
    found = answers(accesses, right)
    assert problems(accesses, found) == []
    rows = [tuple(row.items()) for row in shown(found)]
    keys = ("phase", "register", "wrote", "times", "response", "read")
    assert rows == [
        tuple(zip(keys, row, strict=True))
        for row in (
            ("before", "IDENTITY", None, 1, OKAY, 0xC0FFEE),
            ("before", "IDENTITY", 1, 1, SLVERR, None),
            ("during", "STATUS", None, 2, OKAY, 1),
            ("before number 2 of", "DELAY", 9, 1, OKAY, None),
            ("after", "COUNT", None, 1, OKAY, 3),
        )
    ]
    wrong = [(0, OKAY, 0xC0FFEF, 5), (1, OKAY, 0, 9), (2, SLVERR, 0, 20)]
    assert problems(accesses, answers(accesses, wrong)) == [
        "AXI4-Lite: IDENTITY is 0xc0ffef, not 0xc0ffee",
        "AXI4-Lite: a write to IDENTITY was answered OKAY, not SLVERR",
        "AXI4-Lite: a write to DELAY was answered SLVERR, not OKAY",
        "AXI4-Lite: a read of COUNT after the frames was not answered",
    ]
