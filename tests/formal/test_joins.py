"""What joins stages: every beat goes on, once, in order, whole: FIFO, narrowing, widening, forks.

Where a beat is pushed into the output FIFO, the proof ends: what becomes of it there is that of `test_outlet`.
"""

from __future__ import annotations

import pytest
from amaranth.hdl import Array, Cat, Mux, Signal

from bittrue.rtl.dataflow.plumbing import Fifo, Fork, Narrow, Widen
from bittrue.rtl.dataflow.stage import register, valid_chain
from bittrue.sim.contract import Format
from tests.helpers.formal import Bench, Driven, Inside, modulo, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
U1, U2 = Format(1, signed=False), Format(2, signed=False)


def parts(stage: Fifo | Narrow) -> Bench:
    """A buffered join: some beat that comes in goes out in its parts, after all before it and before all behind it."""
    dut = Driven(stage)
    b, c, end, t, held = dut.b, dut.control, dut.outlet, stage.timing, dut.held()
    code = stage.i.payload.as_value()
    b.holds("parts_are_in_range", c.word < t.beats_out)
    b.holds("nothing_is_begun_before_it_came", (held != 0) | (c.word == 0))

    pick = b.free(1, "pick")
    seen, place, kept = Signal(), Signal(range(t.blocks)), Signal(len(code))
    ahead, part = Signal(range(t.blocks + 1)), Signal(range(t.beats_out + 1))
    mine = seen & (ahead == 0) & end.issue
    with b.m.If(~seen & pick & c.write):
        b.m.d.sync += [seen.eq(1), place.eq(c.write_block), kept.eq(code), ahead.eq(held - c.release), part.eq(0)]
    with b.m.If(seen & c.release):
        b.m.d.sync += ahead.eq(ahead - 1)
    with b.m.If(mine):
        b.m.d.sync += part.eq(part + 1)
        with b.m.If(part == t.beats_out - 1):
            b.m.d.sync += seen.eq(0)
    kept_here = dut.memories[0] if isinstance(stage, Fifo) else [dut.inside[f"held{k}"] for k in range(2)]
    there = Array(kept_here)[place]
    b.holds("it_lies_there", ~seen | ((place < t.blocks) & (there == kept)))
    b.holds("it_is_among_those_held", ~seen | ((ahead < held) & (place == modulo(c.read_block + ahead, t.blocks))))
    b.holds("its_parts_follow_each_other", ~seen | (part == Mux(ahead == 0, c.word, 0)))
    b.holds("it_is_whole_before_it_is_given_up", ~(seen & (ahead == 0) & c.release) | (part == t.beats_out - 1))
    size = len(code) // t.beats_out
    expected = register(b.m, kept.word_select(part, size), name="expected", cycles=t.depth - 1)
    due = valid_chain(b.m, mine, t.depth - 1)[-1]
    b.holds("its_parts_are_pushed", ~due | (end.push & (end.payload.as_value() == expected)))
    return b


def widened(stage: Widen) -> Bench:
    """Every beat that is pushed consists of those that came in since the last, in their order."""
    dut = Driven(stage)
    b, inside, end, ratio, code = dut.b, dut.inside, dut.outlet, stage.timing.beats_in, stage.i.payload.as_value()
    go = stage.i.valid & stage.i.ready
    at, kept = Signal(range(ratio)), [Signal(len(code), name=f"kept{k}") for k in range(ratio - 1)]
    with b.m.If(go):
        b.m.d.sync += at.eq(Mux(at == ratio - 1, 0, at + 1))
        for k, into in enumerate(kept):
            with b.m.If(at == k):
                b.m.d.sync += into.eq(code)
    b.holds("counts_with_the_bench", (inside["part"] == at) & (at < ratio))
    for k, was in enumerate(kept):
        holds = Cat(inside[f"held{k}_{j}"] for j in range(stage.lanes_in))
        b.holds(f"part_{k}_is_held", (at <= k) | (holds == was))
    b.holds("pushes_when_it_is_whole", end.push == (go & (at == ratio - 1)))
    b.holds("pushes_what_came_in", ~end.push | (end.payload.as_value() == Cat(*kept, code)))
    return b


def forked(readers: int) -> Bench:
    """Each reader has every beat once, whenever it is ready, and the next one only when all have had it."""
    b, dut = Bench(), Fork(U2, 1, readers)
    inside = Inside(b, dut)
    valid, code = b.free(1, "valid"), b.free(2, "code")
    b.m.d.comb += [dut.i.valid.eq(valid), dut.i.payload.as_value().eq(code)]
    waits, before = Signal(), Signal(2)
    b.m.d.sync += [waits.eq(valid & ~dut.i.ready), before.eq(code)]
    b.assume(~waits | (valid & (code == before)))
    had = [Signal(name=f"had{k}") for k in range(readers)]
    has = []
    for k, out in enumerate(dut.o):
        ready = b.free(1, f"ready{k}")
        b.m.d.comb += out.ready.eq(ready)
        takes = out.valid & ready
        has.append(had[k] | takes)
        b.m.d.sync += had[k].eq(has[k] & ~(valid & dut.i.ready))
        b.holds(f"counts_with_the_bench_{k}", inside["done"][k] == had[k])
        b.holds(f"offered_once_and_to_him_alone_{k}", out.valid == (valid & ~had[k]))
        b.holds(f"the_beat_is_whole_{k}", out.payload.as_value() == code)
        offered = Signal(name=f"offered{k}")
        b.m.d.sync += offered.eq(out.valid & ~ready)
        b.holds(f"it_stays_{k}", ~offered | (out.valid & (out.payload.as_value() == before)))
    b.holds("goes_on_when_all_had_it", ~valid | (dut.i.ready == Cat(has).all()))
    return b


JOINS = {
    "fifo of 2": lambda: parts(Fifo(U2, 1, 2, 4)),
    "fifo of 5": lambda: parts(Fifo(U1, 2, 5, 1)),
    "narrow to a half": lambda: parts(Narrow(U2, 2, 1, 1)),
    "narrow to a third": lambda: parts(Narrow(U1, 6, 2, 3)),
    "widen to double": lambda: widened(Widen(U2, 1, 2, 1)),
    "widen to triple": lambda: widened(Widen(U1, 2, 6, 3)),
    "fork to 2": lambda: forked(2),
    "fork to 3": lambda: forked(3),
}


@pytest.mark.parametrize("name", JOINS)
def test_beats_go_on_in_order(name):
    assert prove(JOINS[name](), 4) == "proved"


PLUMBING = "rtl.dataflow.plumbing"
CONTROL = "rtl.dataflow.buffered:BufferedStage.control"
FAULTS = {
    "read where it is written": (
        f"{PLUMBING}:Fifo.elaborate",
        "read.addr.eq(control.read",
        "read.addr.eq(control.write",
        "fifo of 2",
    ),
    "written when it is full": (
        f"{PLUMBING}:Fifo.elaborate",
        "write.en.eq(control.write)",
        "write.en.eq(self.i.valid)",
        "fifo of 5",
    ),
    "an old word": (
        f"{PLUMBING}:Fifo.elaborate",
        "register(m, read.data",
        "register(m, register(m, read.data, name='r')",
        "fifo of 2",
    ),
    "given up a part early": (
        CONTROL,
        "word, t.beats_out * t.steps - 1",
        "word, t.beats_out * t.steps - 2",
        "narrow to a third",
    ),
    "parts in another order": (
        f"{PLUMBING}:Narrow.elaborate",
        "for k in range(ratio))",
        "for k in reversed(range(ratio)))",
        "narrow to a half",
    ),
    "a held block overwritten": (
        f"{PLUMBING}:Narrow.elaborate",
        "m.If(control.write)",
        "m.If(self.i.valid)",
        "narrow to a half",
    ),
    "a part overwritten": (f"{PLUMBING}:Widen.elaborate", "go & (part == k)", "go & (part >= k)", "widen to triple"),
    "parts do not begin anew": (
        f"{PLUMBING}:Widen.elaborate",
        "m.d.sync += part.eq(0)",
        "m.d.sync += part.eq(1)",
        "widen to triple",
    ),
    "a reader has it twice": (
        f"{PLUMBING}:Fork.elaborate",
        "m.d.sync += done.eq(taken)",
        "m.d.sync += done.eq(done)",
        "fork to 2",
    ),
    "a reader is forgotten": (
        f"{PLUMBING}:Fork.elaborate",
        "taken.all())\n    with",
        "taken.any())\n    with",
        "fork to 3",
    ),
    "valid waits for ready": (
        f"{PLUMBING}:Fork.elaborate",
        "self.i.valid & ~done[k]",
        "self.i.valid & ~done[k] & reader.ready",
        "fork to 2",
    ),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, name = FAULTS[fault]
    with planted(*place):
        assert prove(JOINS[name](), 4, 12).startswith("refuted: ")
