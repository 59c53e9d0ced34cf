"""Frames at the ports: what TLAST means on the way in, and where it comes from on the way out.

Inside a design a stream carries codes alone, and everybody counts: a frame is `beats` beats. `FrameInlet` stands behind
a slave port and holds it to that, `FrameOutlet` stands before a master port and counts for itself. So whatever a source
does with TLAST, every frame inside is whole, and every frame that leaves ends with TLAST. `StreamPort.frames` is the
same rule in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.bus.ports import ERROR_BITS, StreamPort
from bittrue.rtl.dataflow.stage import Structure, advance, counting


def framed(layout: data.Layout) -> data.StructLayout:
    """The beat of a port: its codes (`data`), and TLAST (`last`)."""
    return data.StructLayout({"data": layout, "last": 1})


class FrameInlet(wiring.Component):
    """From a slave port to whole frames, without a cycle of latency.

    layout   of a beat's codes;  beats   of a frame
    i, o     the port's beats with `last`, and the codes
    failed   strobe: TLAST was not on the last beat of a frame, or on an earlier one
    errors   how often that was, since reset, a cycle later; stays at the most that it can count

    `last` on the last beat of a frame is right. Without it the frame counts as complete, and as an error. An earlier
    one is an error, too: zeros make up the rest of the frame, during which nothing is taken from the port, and the next
    beat begins a frame. A `last` that comes late is therefore one that is missing, and a short frame behind it.
    """

    def __init__(self, layout: data.Layout, beats: int):
        self.layout, self.beats = layout, beats
        super().__init__(
            {
                "i": In(stream.Signature(framed(layout))),
                "o": Out(stream.Signature(layout)),
                "failed": Out(1),
                "errors": Out(ERROR_BITS),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        taken, moved, early = Signal(), Signal(), Signal()
        filling = Signal(name="filling") if self.beats > 1 else Const(0)
        last = advance(m, Signal(counting(self.beats), name="beat"), self.beats - 1, moved)
        m.d.comb += [
            self.o.valid.eq(self.i.valid | filling),
            self.i.ready.eq(self.o.ready & ~filling),
            self.o.payload.as_value().eq(Mux(filling, 0, self.i.payload.data.as_value())),
            taken.eq(self.i.valid & self.i.ready),
            moved.eq(self.o.valid & self.o.ready),
            early.eq(taken & self.i.payload.last & ~last),
            self.failed.eq(taken & (self.i.payload.last ^ last)),
        ]
        if self.beats > 1:
            with m.If(moved):
                m.d.sync += filling.eq((filling | early) & ~last)
        counted = Signal(name="counted")  # the handshake is long enough without a counter behind it
        m.d.sync += counted.eq(self.failed)
        with m.If(counted & ~self.errors.all()):
            m.d.sync += self.errors.eq(self.errors + 1)
        return m


class FrameOutlet(wiring.Component):
    """From whole frames to a master port: `last` on every `beats`-th beat, without a cycle of latency.

    layout   of a beat's codes;  beats   of a frame
    i, o     the codes, and the port's beats with `last`
    """

    def __init__(self, layout: data.Layout, beats: int):
        self.layout, self.beats = layout, beats
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(framed(layout)))})

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        moved = Signal()
        last = advance(m, Signal(counting(self.beats), name="beat"), self.beats - 1, moved)
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready),
            self.o.payload.data.eq(self.i.payload),
            self.o.payload.last.eq(last),
            moved.eq(self.o.valid & self.o.ready),
        ]
        return m


def structure(inputs: Sequence[StreamPort], outputs: Sequence[StreamPort]) -> Structure:
    """What the framing of a design is built of: an inlet behind every input, an outlet before every output."""
    built = Structure()
    for port in inputs:
        built.count(port.beats - 1, (1 << ERROR_BITS) - 1)
        built.registers += 1
        if port.beats > 1:
            built.select_bits += port.lanes * port.tensor.format.bits
            built.registers += 1
    for port in outputs:
        built.count(port.beats - 1)
    return built
