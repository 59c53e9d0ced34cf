"""The two ends of the photonic controller: images wait in two banks, results leave one code at a time."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.photonic_jobs import Jobs
from rtl.stage import Outlet, Storage, beat, counting, enough_credits, register, shape_of, valid_chain


class ImageBuffer(wiring.Component):
    """Two images: one is worked on while the next one comes in.

    i           beats of `lanes` codes, `last` on the last beat of an image; an image of another length is dropped
    arrived     strobe: an image is complete
    failed      strobe: an image was too short or too long; the next one starts after its `last`
    release     strobe: the older image is not needed any more
    address     word of the older image to read; `word` is there a cycle later
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs):
        self.lanes, self.beats = jobs.geometry.lanes, jobs.input.channels // jobs.geometry.lanes
        self.bits = (self.beats - 1).bit_length()
        self.layout = data.ArrayLayout(shape_of(jobs.codes), self.lanes)
        super().__init__(
            {
                "i": In(stream.Signature(beat(jobs.codes, self.lanes))),
                "arrived": Out(1),
                "failed": Out(1),
                "release": In(1),
                "address": In(max(1, self.bits)),
                "word": Out(self.layout),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.images = memory = Storage(self.layout.size, 2 << self.bits).memory(self.layout)
        write, read = memory.write_port(), memory.read_port(domain="sync")
        full, into, out_of, skipping = Signal(2), Signal(), Signal(), Signal()
        at = Signal(counting(self.beats))
        go, last, complete = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~Array(full)[into]),
            go.eq(self.i.valid & self.i.ready),
            last.eq(at == self.beats - 1),
            complete.eq(go & ~skipping & last & self.i.payload.last),
            self.arrived.eq(complete),
            self.failed.eq(go & ~skipping & (last ^ self.i.payload.last)),
            write.addr.eq(Cat(at[: self.bits], into)),
            write.data.eq(self.i.payload.data),
            write.en.eq(go & ~skipping),
            read.addr.eq(Cat(self.address[: self.bits], out_of)),
            read.en.eq(1),
            self.word.eq(read.data),
        ]
        with m.If(go):
            m.d.sync += at.eq(at + 1)
            with m.If(last | self.i.payload.last | skipping):
                m.d.sync += at.eq(0)
            with m.If(self.i.payload.last):
                m.d.sync += skipping.eq(0)
            with m.Elif(last):
                m.d.sync += skipping.eq(1)
        with m.If(complete):
            m.d.sync += [into.eq(~into), full.bit_select(into, 1).eq(1)]
        with m.If(self.release):
            m.d.sync += [out_of.eq(~out_of), full.bit_select(out_of, 1).eq(0)]
        return m


class ResultBuffer(wiring.Component):
    """The results of two images: one leaves while the next one is made.

    write, group, codes   the codes of a group of outputs
    finish                strobe, after the last write of an image
    free                  there is room for an image
    o                     one code a beat, `last` with the last of an image
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs):
        self.lanes, self.size, self.format = jobs.geometry.lanes, jobs.output.size, jobs.output.format
        self.groups = jobs.layers[-1].groups
        self.bits = (self.groups - 1).bit_length()
        self.layout = data.ArrayLayout(shape_of(self.format), self.lanes)
        super().__init__(
            {
                "write": In(1),
                "group": In(counting(self.groups)),
                "codes": In(self.layout),
                "finish": In(1),
                "free": Out(1),
                "o": Out(stream.Signature(beat(self.format, 1))),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.results = memory = Storage(self.layout.size, 2 << self.bits).memory(self.layout)
        m.submodules.outlet = outlet = Outlet(self.o.payload.shape(), enough_credits(2))
        write, read = memory.write_port(), memory.read_port(domain="sync")
        full, into, out_of = Signal(2), Signal(), Signal()
        at = Signal(counting(self.size))
        lane_bits = (self.lanes - 1).bit_length()
        last = Signal()
        m.d.comb += [
            self.free.eq(~Array(full)[into]),
            write.addr.eq(Cat(self.group[: self.bits], into)),
            write.data.eq(self.codes),
            write.en.eq(self.write),
            outlet.issue.eq(outlet.available & Array(full)[out_of]),
            last.eq(at == self.size - 1),
            read.addr.eq(Cat(at[lane_bits:][: self.bits], out_of)),
            read.en.eq(1),
        ]
        with m.If(self.finish):
            m.d.sync += [into.eq(~into), full.bit_select(into, 1).eq(1)]
        with m.If(outlet.issue):
            m.d.sync += at.eq(at + 1)
            with m.If(last):
                m.d.sync += [at.eq(0), out_of.eq(~out_of), full.bit_select(out_of, 1).eq(0)]
        lane = register(m, at[:lane_bits], name="lane") if lane_bits else 0
        code = register(m, Array(read.data[k] for k in range(self.lanes))[lane], shape_of(self.format), name="code")
        m.d.comb += [
            outlet.push.eq(valid_chain(m, outlet.issue, 2)[2]),
            outlet.payload.data[0].eq(code),
            outlet.payload.last.eq(register(m, last, name="last_at", cycles=2)),
            self.o.valid.eq(outlet.o.valid),
            self.o.payload.eq(outlet.o.payload),
            outlet.o.ready.eq(self.o.ready),
        ]
        return m
