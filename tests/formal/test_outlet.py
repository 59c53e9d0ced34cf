"""The output FIFO of every stage and its credits: no credit too many, no beat lost, doubled or out of order.

What is assumed of a stage is what `test_stages` proves of each: it issues only with a credit, and pushes what it
issued, once. When it pushes is left open.
"""

from __future__ import annotations

import pytest
from amaranth.hdl import Array, Mux, Signal
from amaranth.lib import data

from bittrue.rtl.dataflow.stage import Outlet
from tests.helpers.formal import Bench, Inside, modulo, needs_solver, planted, prove, watched
from tests.helpers.lengths import long_but

pytestmark = needs_solver
WHERE = "rtl.dataflow.stage:Outlet.elaborate"


def outlet(credits: int, bits: int, at_once: int = 1) -> Bench:
    b = Bench()
    layout = data.ArrayLayout(bits, 1)
    with watched(b) as memories:
        inside = Inside(b, dut := Outlet(layout, credits, at_once))
    (words,) = memories
    issue, push, ready = (b.free(1, name) for name in ("issue", "push", "ready"))
    payload = b.free(layout.size, "payload")
    b.m.d.comb += [
        dut.issue.eq(issue),
        dut.push.eq(push),
        dut.payload.as_value().eq(payload),
        dut.o.ready.eq(ready),
    ]
    issued = Mux(issue, at_once, 0)
    pending = Signal(range(credits + 1))  # issued, and not yet pushed
    b.m.d.sync += pending.eq(pending + issued - push)
    b.assume(~issue | dut.available)
    b.assume(~push | (pending + issued > 0))
    spare, beyond, head, tail = (inside[name] for name in ("spare", "beyond", "head", "tail"))
    free, level = spare + at_once, beyond + 1
    pop = dut.o.valid & ready

    b.holds("no_credit_is_made_or_lost", free + level + pending == credits)
    b.holds("credits_are_in_range", (free >= 0) & (free <= credits) & (pending <= credits))
    b.holds("beats_are_in_range", (level >= 0) & (level <= credits))
    b.holds("available_says_that_there_are_enough", dut.available == (free >= at_once))
    b.holds("no_overflow", ~push | (level != credits))
    b.holds("valid_says_that_there_is_a_beat", dut.o.valid == (level != 0))
    b.holds("places_are_in_range", (head < credits) & (tail < credits))
    b.holds("tail_is_behind_head", tail == modulo(head + level, credits))

    # Some beat, at whatever time it is pushed: it comes when those before it have left, once.
    pick = b.free(1, "pick")
    seen, place, code = Signal(), Signal(range(credits)), Signal(layout.size)
    ahead = Signal(range(credits + 1))
    with b.m.If(seen & pop):
        b.m.d.sync += ahead.eq(ahead - 1)
        with b.m.If(ahead == 0):
            b.m.d.sync += seen.eq(0)
    with b.m.If(~seen & pick & push):
        b.m.d.sync += [seen.eq(1), place.eq(tail), code.eq(payload), ahead.eq(level - pop)]
    b.holds("it_lies_there", ~seen | ((place < credits) & (Array(words)[place] == code)))
    b.holds("it_is_among_those_held", ~seen | ((ahead < level) & (place == modulo(head + ahead, credits))))
    now = dut.o.payload.as_value()
    b.holds("it_comes_in_its_turn", ~(seen & (ahead == 0)) | (dut.o.valid & (now == code)))

    # What is offered stays until it is taken; what is pushed is offered in the next cycle.
    waits, pushed, before = Signal(), Signal(), Signal(layout.size)
    b.m.d.sync += [waits.eq(dut.o.valid & ~ready), pushed.eq(push), before.eq(now)]
    b.holds("valid_stays", ~waits | dut.o.valid)
    b.holds("the_beat_stays", ~waits | (now == before))
    b.holds("a_pushed_beat_is_offered_next", ~pushed | dut.o.valid)
    return b


KINDS = [(2, 1), (2, 3), (3, 1), (5, 2), (8, 1), (13, 4), (2, 1, 2), (5, 2, 2), (8, 1, 3)]


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_order_and_credits(kind):
    assert prove(outlet(*kind), 1) == "proved"


FAULTS = {
    "a credit comes back with no beat": ("self.issue ^ pop", "self.issue ^ self.o.ready"),
    "a credit is kept": ("self.issue ^ pop", "self.issue ^ (pop & (head != 0))"),
    "a credit more than room": ("+ 1), init=self.credits - self.at_once", "+ 2), init=self.credits - self.at_once + 1"),
    "available with the last credit gone": ("~spare[-1]", "~spare[-1] | (spare == -1)"),
    "head turns too early": ("head.eq(_wrap(head, last))", "head.eq(_wrap(head, last - 1))"),
    "tail turns too late": ("tail.eq(_wrap(tail, last))", "tail.eq(_wrap(tail, last + 1))"),
    "written at the head": ("write.addr.eq(tail)", "write.addr.eq(head)"),
    "valid with two beats": ("~beyond[-1]", "(beyond > 0)"),
    "leaves with no reader": ("self.o.valid & self.o.ready", "self.o.valid"),
    "a credit for two beats": ("Mux(self.issue, self.at_once, 0)", "self.issue", 2),
    "two beats with one credit left": ("~spare[-1]", "(spare + 2 > 0)", 2),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    right, wrong, *at_once = FAULTS[fault]
    with planted(WHERE, right, wrong):
        assert prove(outlet(3, 2, *at_once), 1, 10).startswith("refuted: ")
