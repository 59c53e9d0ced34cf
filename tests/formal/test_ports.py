"""The ports: codes in the bytes of TDATA, whole frames whatever TLAST says, TLAST on the last beat of each."""

from __future__ import annotations

import pytest
from amaranth.hdl import Const, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.bus import framing
from bittrue.rtl.bus.framing import FrameInlet, FrameOutlet
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow.stage import beat, shape_of
from bittrue.rtl.dataflow.top import AxisSignals
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from tests.helpers.formal import Bench, Inside, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
LAYOUT = data.ArrayLayout(2, 1)
#: Few, so that the count is seen to reach its end.
ERROR_BITS = 2
LENGTHS = [1, 2, 3, 8]


# -- codes and bytes ----------------------------------------------------------------------------------------
def packing(fmt: Format, lanes: int) -> Bench:
    b, layout = Bench(), beat(fmt, lanes)
    port = StreamPort("s_axis", TensorType((lanes,), fmt), lanes)
    slave, master = AxisSignals(port), AxisSignals(StreamPort("m_axis", port.tensor, lanes))
    inlet, outlet = FrameInlet(layout, 1), FrameOutlet(layout, 1)
    b.inputs += [slave.tdata, slave.tvalid, slave.tlast, master.tready]
    slave.feed(b.m, inlet)
    master.drain(b.m, outlet)
    b.m.submodules.inlet, b.m.submodules.outlet = inlet, outlet
    codes = [b.free(shape_of(fmt), f"code{k}") for k in range(lanes)]
    b.m.d.comb += [outlet.i.payload[k].eq(code) for k, code in enumerate(codes)]
    b.m.d.comb += outlet.i.valid.eq(b.free(1, "valid"))
    bits = 8 * -(-fmt.bits // 8)
    for k, code in enumerate(codes):
        word, given = (wires.tdata.word_select(k, bits) for wires in (master, slave))
        number, came = ((w.as_signed() if fmt.signed else w) for w in (word, given))
        b.holds(f"a_code_fills_its_bytes_{k}", number == code)
        legal = (came >= fmt.low) & (came <= fmt.high)
        b.holds(f"bytes_become_their_code_{k}", ~legal | (inlet.i.payload.data[k] == came))
    b.holds("the_slave_hands_on", (inlet.i.valid == slave.tvalid) & (inlet.i.payload.last == slave.tlast))
    b.holds("the_master_hands_on", (master.tvalid == outlet.o.valid) & (outlet.o.ready == master.tready))
    b.holds("all_bytes_are_those_of_codes", Const(len(master.tdata) == bits * lanes, 1))
    return b


@pytest.mark.parametrize(
    ("fmt", "lanes"), [("s5", 3), ("u3", 3), ("s8", 2), ("u8", 1), ("u1", 9), ("s12", 3), ("u17", 1)]
)
def test_codes_lie_in_their_bytes(fmt, lanes):
    assert prove(packing(Format.parse(fmt), lanes), 1) == "proved"


# -- frames -------------------------------------------------------------------------------------------------
def inlet(beats: int) -> Bench:
    b = Bench()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "ERROR_BITS", ERROR_BITS)
        inside = Inside(b, dut := FrameInlet(LAYOUT, beats))
    valid, last, ready, code = (b.free(n, name) for n, name in ((1, "valid"), (1, "last"), (1, "ready"), (2, "code")))
    b.m.d.comb += [dut.i.valid.eq(valid), dut.i.payload.last.eq(last), dut.o.ready.eq(ready)]
    b.m.d.comb += dut.i.payload.data.as_value().eq(code)
    taken, moved, out = valid & dut.i.ready, dut.o.valid & ready, dut.o.payload.as_value()

    # Beats that are still missing from the frame at hand; and whether its source has ended it.
    missing, ended = Signal(range(beats + 1), init=beats), Signal()
    over = taken & last
    with b.m.If(moved):
        b.m.d.sync += [missing.eq(Mux(missing == 1, beats, missing - 1)), ended.eq((missing != 1) & (ended | over))]
    b.holds("a_frame_has_so_many_beats", (missing >= 1) & (missing <= beats))
    if beats > 1:
        b.holds("counts_with_the_bench", inside["beat"] == beats - missing)
        b.holds("fills_when_a_frame_was_ended", inside["filling"] == ended)
    b.holds("a_frame_is_ended_within_it", ~ended | (missing < beats))
    b.holds("the_rest_of_an_ended_frame_is_zero", ~ended | (dut.o.valid & (out == 0) & ~dut.i.ready))
    b.holds("others_pass_as_they_are", ended | ((dut.o.valid == valid) & (dut.i.ready == ready) & (out == code)))
    b.holds("wrong_lasts_are_told", dut.failed == (taken & (last != (missing == 1))))
    errors, told = Signal(ERROR_BITS), Signal()
    b.m.d.sync += [told.eq(dut.failed), errors.eq(Mux(errors + told > (1 << ERROR_BITS) - 1, errors, errors + told))]
    b.holds("and_counted", (dut.errors == errors) & (inside["counted"] == told))
    _stays(b, dut.o.valid, ready, out, valid & ~dut.i.ready & ~ended, valid, Value.cast(code))
    return b


def outlet(beats: int) -> Bench:
    b, dut = Bench(), FrameOutlet(LAYOUT, beats)
    inside = Inside(b, dut)
    valid, ready, code = (b.free(n, name) for n, name in ((1, "valid"), (1, "ready"), (2, "code")))
    b.m.d.comb += [dut.i.valid.eq(valid), dut.i.payload.as_value().eq(code), dut.o.ready.eq(ready)]
    moved = Signal(range(beats + 1))
    with b.m.If(dut.o.valid & ready):
        b.m.d.sync += moved.eq(Mux(moved + 1 == beats, 0, moved + 1))
    if beats > 1:
        b.holds("counts_with_the_bench", inside["beat"] == moved)
    b.holds("within_a_frame", moved < beats)
    b.holds("last_is_on_the_last", dut.o.payload.last == (moved == beats - 1))
    out = dut.o.payload.data.as_value()
    b.holds("hands_on", (dut.o.valid == valid) & (dut.i.ready == ready) & (out == code))
    whole = dut.o.payload.as_value()
    _stays(b, dut.o.valid, ready, whole, valid & ~dut.i.ready, valid, Value.cast(code))
    return b


def _stays(b: Bench, valid, ready, payload, source_waits, source_valid, source_payload) -> None:
    """What is offered stays until it is taken, if that holds of the source."""
    waits, before = Signal(), Signal.like(payload, name="before")
    stalled, held = Signal(), Signal.like(source_payload, name="source_before")
    b.m.d.sync += [waits.eq(valid & ~ready), before.eq(payload), stalled.eq(source_waits), held.eq(source_payload)]
    b.assume(~stalled | (source_valid & (source_payload == held)))
    b.holds("valid_stays", ~waits | valid)
    b.holds("the_beat_stays", ~waits | (payload == before))


@pytest.mark.parametrize("beats", LENGTHS)
@pytest.mark.parametrize("bench", [inlet, outlet])
def test_frames_are_whole(bench, beats):
    assert prove(bench(beats), 1) == "proved"


INLET, OUTLET = (f"rtl.bus.framing:Frame{side}.elaborate" for side in ("Inlet", "Outlet"))
FAULTS = {
    "bytes in another order": (
        "rtl.dataflow.top:AxisSignals.drain",
        "lane * bits :",
        "0 * bits :",
        packing,
        Format(5),
        2,
    ),
    "a code not extended": (
        "rtl.dataflow.top:AxisSignals.drain",
        ".eq(outlet.o.payload.data[lane])",
        ".eq(outlet.o.payload.data[lane].as_unsigned())",
        packing,
        Format(5),
        1,
    ),
    "another lane": (
        "rtl.dataflow.top:AxisSignals.feed",
        "payload.data[lane]",
        "payload.data[-1 - lane]",
        packing,
        Format(8),
        2,
    ),
    "tready not handed on": (
        "rtl.dataflow.top:AxisSignals.drain",
        "outlet.o.ready.eq(self.tready)",
        "outlet.o.ready.eq(1)",
        packing,
        Format(8),
        1,
    ),
    "no zeros": (INLET, "Mux(filling, 0, self.i.payload.data.as_value())", "self.i.payload.data.as_value()", inlet, 3),
    "takes while it fills": (INLET, "self.o.ready & ~filling", "self.o.ready", inlet, 3),
    "fills a beat less": (INLET, "(filling | early) & ~last", "early & ~last", inlet, 3),
    "a late last is right": (INLET, "self.i.payload.last ^ last", "self.i.payload.last & ~last", inlet, 2),
    "errors come round": (INLET, "counted & ~self.errors.all()", "counted", inlet, 2),
    "a frame too short": (INLET, "self.beats - 1, moved", "self.beats - 2, moved", inlet, 3),
    "last a beat early": (OUTLET, "self.beats - 1, moved", "self.beats - 2, moved", outlet, 3),
    "counts what is not taken": (OUTLET, "self.o.valid & self.o.ready", "self.o.valid", outlet, 3),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, bench, first, second = FAULTS[fault] if FAULTS[fault][3] is packing else (*FAULTS[fault], None)
    with planted(*place):
        made = bench(first) if second is None else bench(first, second)
        assert prove(made, 1, 9).startswith("refuted: ")
