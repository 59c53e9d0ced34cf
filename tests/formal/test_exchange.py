"""Weights written at run time: every frame meets one whole set, the one that holds when it begins, in every stage.

The loader takes any words with any `last`; frames come in on one or two inputs and go through a stage at any pace,
fewer on their way than half of what the exchange counts (`Network` counts that far). A frame is worked on from the
cycle after its begin on, for every input has a FIFO or a width converter before the first stage that holds anything.
"""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Array, Module, Mux, ResetSignal, Signal

from bittrue.rtl.dataflow.loader import SETTLE, Loader, Words
from bittrue.rtl.dataflow.stage import valid_chain
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.sim.held import Held
from tests.helpers.formal import Bench, Inside, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
BITS = 3
LOADER, EXCHANGE = "rtl.dataflow.loader:Loader", "rtl.parts.held:Exchange"


def loaded(b: Bench, tables: list[Table], exchange: Exchange, inputs: int) -> tuple[Loader, Inside]:
    """A loader that is given any words."""
    loader = Loader(Words(tables), [exchange], inputs)
    inside = Inside(b, loader, "loader")
    word, valid, last = (b.free(n, name) for n, name in ((len(loader.word), "word"), (1, "valid"), (1, "last")))
    b.m.d.comb += [loader.word.eq(word), loader.valid.eq(valid), loader.last.eq(last)]
    return loader, inside


def frames(inputs: int, reads: int) -> Bench:
    """A loader and a stage that follows it, for `reads` cycles behind its last read."""
    b, exchange = Bench(), Exchange(BITS)
    table = Table(Held("w", (2,), -2, 1), np.array([[0], [1]]))
    loader, inside = loaded(b, [table], exchange, inputs)
    follower, ends = Module(), b.free(1, "ends")
    chain = exchange.follow(follower, ends, reads)
    stage = Inside(b, follower, "stage")
    port, bank, armed, turn, frame = table.port, exchange.bank, exchange.armed, exchange.turn, stage["exchange_frame"]

    # Frames that have begun on an input and not ended; the one that is ahead counts.
    strobes = [b.free(1, f"begins{k}") for k in range(inputs)]
    counts = [Signal(BITS, name=f"count{k}") for k in range(inputs)]
    for k, (strobe, count) in enumerate(zip(strobes, counts, strict=True)):
        b.m.d.comb += loader.begins[k].eq(strobe)
        b.m.d.sync += count.eq(count + strobe - ends)
        b.assume(~strobe | (count < (1 << BITS - 1) - 1))
        b.assume(~ends | (count != 0))
        b.holds(f"counts_{k}_with_the_bench", (inside[f"entered_{k}"] - frame)[:BITS] == count)
        b.holds(f"half_of_the_numbers_{k}", count < 1 << BITS - 1)
    begins, way = strobes[0], counts[0]
    for strobe, count in zip(strobes[1:], counts[1:], strict=True):
        begins = (begins & (way >= count)) | (strobe & (count >= way))
        way = Mux(way >= count, way, count)

    # Cycles since a reset, in which nothing is left of what was read before it.
    calm = Signal(range(reads + 1))
    b.m.d.sync += calm.eq(Mux(calm == reads, calm, calm + 1))
    waits = [inside[f"accepted_{k + 1}"] for k in range(SETTLE)]
    b.holds("one_exchange_at_a_time", sum([*waits, armed]) == inside["busy"])
    old = (turn - frame)[:BITS]  # frames that still meet the set before
    late = armed & (chain[0] != bank)
    b.holds("old_frames_are_on_their_way", ~late | (old <= way))
    b.holds("with_none_there_are_no_others", ~late | (old != 0) | (way == 0))
    for k, used in enumerate(chain):
        b.holds(f"all_read_one_bank_{k}", armed | (calm < k) | (used == bank))
        if k:
            b.holds(f"and_go_over_in_turn_{k}", (calm < k) | (used != bank) | (chain[k - 1] == bank))
        b.holds(f"what_was_read_{k}_cycles_ago_is_not_written", ~port.write | (calm < k) | (port.bank != used))
    b.holds("goes_over_when_all_have_read", ~exchange.settled | (chain[0] == bank))

    # Some frame: the bank that holds when it begins is the one that the stage reads while it is at hand.
    pick = b.free(1, "pick")
    seen, mine, ahead = Signal(), Signal(), Signal(BITS)
    with b.m.If(seen & ends):
        b.m.d.sync += ahead.eq(ahead - 1)
        with b.m.If(ahead == 0):
            b.m.d.sync += seen.eq(0)
    with b.m.If(~seen & pick & begins):
        b.m.d.sync += [seen.eq(1), mine.eq(bank), ahead.eq(way - ends)]
    b.holds("it_is_on_its_way", ~seen | (ahead < way))
    b.holds("an_old_one_comes_before_the_turn", ~seen | (mine == bank) | (late & (ahead < old)))
    b.holds("a_new_one_does_not", ~seen | (mine != bank) | ~late | (ahead >= old))
    b.holds("it_meets_the_set_of_its_begin", ~(seen & (ahead == 0)) | (chain[0] == mine))
    return b


def sets() -> Bench:
    """A loader alone: a set takes effect when it has every value, none more, and each within its bounds."""
    b, exchange = Bench(), Exchange(BITS)
    shapes = [(2, 1, (-3, 2)), (1, 2, (0, 5)), (2, 2, (-1, 1))]  # rows, values of a row, bounds
    tables = [
        Table(Held(f"w{k}", (rows * slots,), *ends), np.arange(rows * slots).reshape(rows, slots))
        for k, (rows, slots, ends) in enumerate(shapes)
    ]
    loader, inside = loaded(b, tables, exchange, 1)
    b.m.d.comb += exchange.settled.eq(b.free(1, "settled"))
    places = [
        (k, row, slot) for k, (rows, slots, _) in enumerate(shapes) for row in range(rows) for slot in range(slots)
    ]
    ends = [shapes[k][2] for k, _, _ in places]
    total = len(places)
    came, right = Signal(range(total + 2)), Signal(init=1)  # words of the set at hand, one too many at most
    taken, word = loader.valid & loader.ready, loader.word.as_signed()
    low, high = (Array([*(e[k] for e in ends), 0, 0])[came] for k in range(2))
    fits = right & (came < total) & (word >= low) & (word <= high)
    whole = taken & loader.last & fits & (came == total - 1)
    with b.m.If(taken):
        b.m.d.sync += [came.eq(Mux(came > total, came, came + 1)), right.eq(fits)]
        with b.m.If(loader.last):
            b.m.d.sync += [came.eq(0), right.eq(1)]
    b.holds("counts_to_one_too_many", came <= total + 1)
    b.holds("good_so_far", inside["good"] == right)
    for name, k in {"table": 0, "row": 1, "slot": 2}.items():
        number = Array([*(place[k] for place in places), *([len(shapes)] * 2 if not k else [0, 0])])[came]
        b.holds(f"{name}_of_the_next_word", inside[name] == number)
    b.holds("all_others_are_refused", loader.refused == (taken & loader.last & ~whole))

    # What a set that is whole does, and nothing else: the banks are exchanged, so many cycles later.
    due, bank, counted = valid_chain(b.m, whole, SETTLE), Signal(reset_less=True), Signal(8, reset_less=True)
    b.m.d.sync += [bank.eq(exchange.bank ^ (due[-1] & ~ResetSignal())), counted.eq(loader.sets + due[-1])]
    calm = Signal()
    b.m.d.sync += calm.eq(1)
    b.holds("banks_change_for_a_whole_set_alone", ~calm | (exchange.bank == bank))
    b.holds("and_it_is_counted", ~calm | (loader.sets == counted))
    for k in range(SETTLE):
        b.holds(f"waits_{k + 1}", inside[f"accepted_{k + 1}"] == due[k + 1])
    return b


def test_a_whole_set_takes_effect():
    assert prove(sets(), 2) == "proved"


FRAMES = {"one input": (1, 2), "two inputs": (2, 2), "a long stage": (1, 5)}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_meets_one_set(name):
    assert prove(frames(*FRAMES[name]), 2) == "proved"


CHOICE = "(now | (frame_ends & next_one))"
FAULTS = {
    "over a frame early": (f"{EXCHANGE}.follow", "now.eq(frame ==", "now.eq(following ==", "one input"),
    "over at once": (f"{EXCHANGE}.follow", f"(self.armed & {CHOICE})", "self.armed", "one input"),
    "a cycle late": (f"{EXCHANGE}.follow", CHOICE, "now", "one input"),
    "over before the end": (f"{EXCHANGE}.follow", "(frame_ends & next_one)", "next_one", "one input"),
    "only the last is asked": (f"{EXCHANGE}.follow", "used in chain)", "used in chain[-1:])", "a long stage"),
    "the last is not asked": (f"{EXCHANGE}.follow", "used in chain)", "used in chain[:1])", "a long stage"),
    "turn before the begin": (f"{LOADER}.elaborate", "after.append(behind)", "after.append(count)", "one input"),
    "the slower input counts": (f"{LOADER}.elaborate", "ahead[-1], newest", "~ahead[-1], newest", "two inputs"),
    "ready before all went over": (f"{LOADER}.elaborate", "m.Elif(armed & settled)", "m.Elif(armed)", "one input"),
    "written to the bank in use": (f"{LOADER}.elaborate", "idle.eq(~bank)", "idle.eq(bank)", "one input"),
}  # fmt: skip


WHOLE = {
    "words of the last table alone": ("last_table & row_last", "row_last"),
    "a word too few": ("last_table & row_last & slot_last & fits", "last_table & row_last & fits"),
    "the last is not looked at": ("slot_last & fits & good", "slot_last & good"),
    "a bound too low": ("word >= _of(table, self.words.lows)", "word >= _of(table, self.words.lows) - 1"),
    "what was wrong is forgotten": ("good.eq(good & fits & ~over)", "good.eq(fits & ~over)"),
    "begins where the last ended": ("[slot.eq(0), row.eq(0), table.eq(0)", "[row.eq(0), table.eq(0)"),
}


@pytest.mark.parametrize("fault", WHOLE)
def test_fault_of_the_loader_is_found(fault):
    with planted(f"{LOADER}.elaborate", *WHOLE[fault]):
        assert prove(sets(), 2, 12).startswith("refuted: ")


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, name = FAULTS[fault]
    with planted(*place):
        assert prove(frames(*FRAMES[name]), 2, 16).startswith("refuted: ")
