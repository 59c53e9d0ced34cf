"""A word that is read while it is written is of no use to anybody: where synthesis is told so, it may be anything.

`test_matrix` proves it of vectors, `test_joins` of FIFOs; here it is proved of the transpose's banks and of the offsets
behind a bus, and seen that the proofs take such a word for unknown.
"""

from __future__ import annotations

import pytest
from amaranth.hdl import Array, Fragment, Mux, Signal, Value
from amaranth.lib.wiring import connect

from bittrue.rtl.bus.lite import Slave
from bittrue.rtl.bus.registers import RegisterMap, Window, errors
from bittrue.rtl.dataflow.stage import realisation, register, shape_of, valid_chain
from bittrue.rtl.dataflow.structure import Storage
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.rtl.light.registers import LATENCY, Offsets
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.transpose import Transpose
from tests.helpers.formal import Bench, Driven, needs_solver, planted, prove, watched
from tests.helpers.lengths import long_but
from tests.helpers.photonic_programs import photonic_network

pytestmark = needs_solver


def collision(apart: bool) -> Bench:
    """Who reads a word in the cycle in which it is written gets the old one."""
    b = Bench()
    b.m.submodules.memory = memory = Storage(2, 4).memory(2, apart=apart)
    write, read, look = memory.write_port(), memory.read_port(domain="sync"), memory.read_port(domain="comb")
    address, old, reads = b.free(2, "address"), Signal(2), Signal()
    b.m.d.comb += [port.addr.eq(address) for port in (write, read, look)]
    b.m.d.comb += [write.data.eq(b.free(2, "data")), write.en.eq(b.free(1, "write")), read.en.eq(1)]
    b.m.d.sync += [old.eq(look.data), reads.eq(1)]
    b.holds("reads_the_old_word", ~reads | (read.data == old))
    return b


def test_a_word_that_is_read_while_it_is_written_is_unknown():
    assert prove(collision(apart=False), 2) == "proved"
    assert prove(collision(apart=True), 2) == "refuted: reads_the_old_word"


def transposed(tokens: int, channels: int, lanes: int) -> tuple[Bench, int, int]:
    """Every frame comes out transposed, whatever comes in meanwhile."""
    op = Transpose(TensorType((tokens, channels), Format(1, signed=False)))
    stage = realisation(op)(op, lanes=lanes)
    dut = Driven(stage)
    b, c, end, held = dut.b, dut.control, dut.outlet, dut.held()
    beats, row, down = tokens * channels // lanes, channels // lanes, tokens // lanes
    b.holds("counts_are_in_range", (c.word < beats) & (c.write_beat < beats))
    b.holds("nothing_is_begun_before_it_came", (held != 0) | (c.word == 0))
    b.holds("a_full_memory_begins_with_a_block", (held != 2) | (c.write_beat == 0))
    written, read = c.write_block * beats, c.read_block * beats

    # Counters of the stage, by the beat that is written and by the one that is read.
    where = {"where": written + c.write_beat}
    of_written = {
        "write_column": [k % row for k in range(beats)],
        "write_turn": [k // row % lanes for k in range(beats)],
    }
    of_read = {"group": [w % down for w in range(beats)], "channel_turn": [w // down % lanes for w in range(beats)]}
    where["base"] = read + Array(w % down * lanes * row + w // down // lanes for w in range(beats))[c.word]
    where["corner"] = read + Array(w // down // lanes for w in range(beats))[c.word]
    where |= {name: Array(values)[c.write_beat] for name, values in of_written.items()}
    where |= {name: Array(values)[c.word] for name, values in of_read.items()}
    for name, value in where.items():
        if name in dut.inside.signals:  # one that stays at 0 is not driven
            b.holds(f"{name}_is_where_it_should_be", dut.inside[name] == value)

    # What came in, and where it lies.
    bit = shape_of(op.input.format)
    codes = [[Signal(bit, name=f"code{n}_{k}", reset_less=True) for k in range(tokens * channels)] for n in range(2)]
    for n in range(2):
        for k, code in enumerate(codes[n]):
            token, channel = divmod(k, channels)
            with b.m.If(c.write & (c.write_block == n) & (c.write_beat == k // lanes)):
                b.m.d.sync += code.eq(stage.i.payload[k % lanes])
            bank = dut.memories[(token + channel) % lanes]
            b.holds(f"code_{k}_of_block_{n}_lies_in_its_bank", bank[n * beats + token * row + channel // lanes] == code)

    due = valid_chain(b.m, c.issue, stage.timing.depth - 1)[-1]
    for lane in range(lanes):
        places = [(w % down * lanes + lane) * channels + w // down for w in range(beats)]
        mine = [Array(codes[n][place] for place in places)[c.word] for n in range(2)]
        expected = Mux(c.read_block, mine[1], mine[0])
        expected = register(b.m, expected, bit, name=f"expected{lane}", cycles=stage.timing.depth - 1)
        b.holds(f"lane_{lane}_is_transposed", ~due | (end.payload[lane] == expected))
    return b, stage.timing.depth + 1, 3 * beats + stage.timing.depth


SIZES = {"one lane": (2, 3, 1), "two lanes": (2, 4, 2), "more tokens": (4, 2, 2), "all at once": (2, 2, 2)}


@pytest.mark.parametrize("name", SIZES)
def test_transposes(name):
    bench, steps, _ = transposed(*SIZES[name])
    assert prove(bench, steps) == "proved"


STAGE = "rtl.dataflow.stages.transpose:TransposeStage.elaborate"
FAULTS = {
    "another corner": (STAGE, "corner + 1, corner", "corner + 2, corner", "one lane"),
    "the other block": (STAGE, "control.read_block == 0, beats, 0", "control.read_block == 0, 0, beats", "one lane"),
    "read in the cycle of the write": (STAGE, "apart = lanes == 1 or", "apart = True or", "all at once"),
    "banks not turned": (
        STAGE,
        'register(m, turn, name="turned", cycles=3)',
        'register(m, turn, name="turned", cycles=2)',
        "two lanes",
    ),
    "written over what is read": (
        "rtl.dataflow.buffered:BufferedStage.control",
        "room.eq(after != t.blocks)",
        "room.eq(1)",
        "one lane",
    ),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, name = FAULTS[fault]
    with planted(*place):
        bench, steps, first = transposed(*SIZES[name])
        assert prove(bench, steps, first).startswith("refuted: ")


def offsets() -> Bench:
    """Whatever comes over the bus, a read gives the offset that is held when it is carried out."""
    b = Bench()
    jobs = Jobs.of(photonic_network((2, 4), rows=2), Geometry(2, 4, 2))
    window = Window("GRID", 0x40, (len(jobs.work), 4), jobs.offset, idle=True, latency=LATENCY)
    table = RegisterMap("TOY", (errors("ERRORS", 0x00),), (window,), errors="ERRORS")
    b.m.submodules.slave = slave = Slave(table)
    with watched(b) as memories:
        dut = Offsets(jobs, window)
        b.m.submodules.offsets = Fragment.get(dut, None)
    connect(b.m, slave.grid, dut.bus)
    for name in ("awaddr", "awvalid", "wdata", "wstrb", "wvalid", "bready", "araddr", "arvalid", "rready"):
        member = getattr(slave.axi, name)
        b.m.d.comb += member.eq(b.free(len(member), name))
    busy = b.free(1, "busy")
    b.m.d.comb += [slave.busy.eq(busy), dut.busy.eq(busy), dut.address.eq(b.free(len(dut.address), "address"))]
    b.holds("no_word_is_read_while_it_is_written", ~(slave.grid.read & slave.grid.write))
    entry, lane = dut.place(slave.grid.read_at)
    held = Array(Value.cast(word) for word in memories[0])[entry].word_select(lane, jobs.offset.bits)
    read = valid_chain(b.m, slave.grid.read, window.latency)[-1]
    value = slave.grid.value[: jobs.offset.bits]
    b.holds("gives_what_is_held", ~read | (value == register(b.m, held, name="held", cycles=window.latency)))
    return b


SLAVE, OFFSETS = "rtl.bus.lite:Slave.read_channel", "rtl.light.registers:Offsets.elaborate"
BEHIND_A_BUS = {
    "read and written at once": (SLAVE, "compared & ~writes", "compared"),
    "a word of another": (OFFSETS, "entry, lane = self.place(bus.read_at)", "entry, lane = self.place(bus.write_at)"),
    "a word too early": (OFFSETS, 'name="offsets_read")', 'name="offsets_read", cycles=0)'),
}


def test_offsets_are_what_was_written():
    assert prove(offsets(), 5) == "proved"


@pytest.mark.parametrize("fault", BEHIND_A_BUS)
def test_fault_behind_a_bus_is_found(fault):
    with planted(*BEHIND_A_BUS[fault]):
        assert prove(offsets(), 5, 14).startswith("refuted: ")
