"""The two ends of the photonic controller: images wait in a ring, results leave one code at a time."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Outlet, Storage, advance, beat, counting, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import enough_credits
from bittrue.rtl.light.jobs import Jobs

#: Cycles from the issue of a result to its being pushed: memory, register, choice of the lane.
LEAVING = 3


def _advanced(position, steps, size: int):
    """A position in a ring, so many steps (at most its size) further."""
    further = position + steps
    return Mux(further >= size, further - size, further)


class ImageBuffer(wiring.Component):
    """Images of two batches: one batch is worked on while the next one comes in.

    i           beats of `lanes` codes, as many as an image has, then the next one's
    arrived     images that are complete and not yet released
    release     strobe: the oldest `count` images are not needed any more
    image       which of the oldest images is read, from two cycles before its first `address` on
    address     word of it to read; `word` is there a cycle later
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, images: int):
        self.lanes, self.beats = jobs.geometry.lanes, jobs.input.channels // jobs.geometry.lanes
        self.bits = (self.beats - 1).bit_length()
        self.slots = 2 * images
        self.layout = data.ArrayLayout(shape_of(jobs.codes), self.lanes)
        super().__init__(
            {
                "i": In(stream.Signature(beat(jobs.codes, self.lanes))),
                "arrived": Out(range(self.slots + 1)),
                "release": In(1),
                "count": In(range(images + 1)),
                "image": In(counting(images)),
                "address": In(max(1, self.bits)),
                "word": Out(self.layout),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        # What is read are images that are complete, what is written one that is not among them.
        storage = Storage(self.layout.size, self.slots << self.bits)
        m.submodules.images = memory = storage.memory(self.layout, apart=True)
        write, read = memory.write_port(), memory.read_port(domain="sync")
        arrived, room = Signal.like(self.arrived), Signal(init=1)
        into, oldest, slot = (Signal(counting(self.slots), name=name) for name in ("into", "oldest", "slot"))
        at = Signal(counting(self.beats))
        go, complete = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(room),
            go.eq(self.i.valid & self.i.ready),
            complete.eq(go & advance(m, at, self.beats - 1, go)),
            self.arrived.eq(arrived),
            write.addr.eq(Cat(at[: self.bits], into)),
            write.data.eq(self.i.payload),
            write.en.eq(go),
            read.addr.eq(Cat(self.address[: self.bits], slot)),
            read.en.eq(1),
            self.word.eq(read.data),
        ]
        left = Signal.like(arrived)
        m.d.comb += left.eq(arrived + complete - Mux(self.release, self.count, 0))
        m.d.sync += [
            arrived.eq(left),
            room.eq(left != self.slots),
            slot.eq(_advanced(oldest, self.image, self.slots)),
        ]
        with m.If(complete):
            m.d.sync += into.eq(_advanced(into, 1, self.slots))
        with m.If(self.release):
            m.d.sync += oldest.eq(_advanced(oldest, self.count, self.slots))
        return m


class ResultBuffer(wiring.Component):
    """The results of two batches: one leaves while the next one is made.

    write, image, group, codes   the codes of a group of outputs of an image of the batch
    finish                       strobe, after the last write of a batch of `count` images
    free                         there is room for a batch
    o                            one code a beat
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, images: int):
        self.lanes, self.size, self.format = jobs.geometry.lanes, jobs.output.size, jobs.output.format
        self.groups, self.images = jobs.layers[-1].groups, images
        self.group_bits, self.image_bits = (self.groups - 1).bit_length(), (images - 1).bit_length()
        self.layout = data.ArrayLayout(shape_of(self.format), self.lanes)
        super().__init__(
            {
                "write": In(1),
                "image": In(counting(images)),
                "group": In(counting(self.groups)),
                "codes": In(self.layout),
                "finish": In(1),
                "count": In(range(images + 1)),
                "free": Out(1),
                "o": Out(stream.Signature(beat(self.format, 1))),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        storage = Storage(self.layout.size, 2 << (self.image_bits + self.group_bits))
        m.submodules.results = memory = storage.memory(self.layout, apart=True)  # a bank is read when it is whole
        m.submodules.outlet = outlet = Outlet(self.o.payload.shape(), enough_credits(LEAVING + 1))
        write, read = memory.write_port(), memory.read_port(domain="sync")
        full, into, out_of = Signal(2), Signal(), Signal()
        finals = [Signal(counting(self.images), name=f"final{k}") for k in range(2)]  # last image of a bank
        at, image = Signal(counting(self.size)), Signal(counting(self.images))
        lane_bits = (self.lanes - 1).bit_length()
        last = Signal()
        m.d.comb += [
            self.free.eq(~Array(full)[into]),
            write.addr.eq(Cat(self.group[: self.group_bits], self.image[: self.image_bits], into)),
            write.data.eq(self.codes),
            write.en.eq(self.write),
            outlet.issue.eq(outlet.available & Array(full)[out_of]),
            last.eq(at == self.size - 1),
            read.addr.eq(Cat(at[lane_bits:][: self.group_bits], image[: self.image_bits], out_of)),
            read.en.eq(1),
        ]
        with m.If(self.finish):
            m.d.sync += [into.eq(~into), full.bit_select(into, 1).eq(1), Array(finals)[into].eq(self.count - 1)]
        with m.If(outlet.issue):
            m.d.sync += at.eq(at + 1)
            with m.If(last):
                m.d.sync += [at.eq(0), image.eq(image + 1)]
                with m.If(image == Array(finals)[out_of]):
                    m.d.sync += [image.eq(0), out_of.eq(~out_of), full.bit_select(out_of, 1).eq(0)]
        lane = register(m, at[:lane_bits], name="lane", cycles=LEAVING - 1) if lane_bits else 0
        word = register(m, read.data, name="word")
        code = register(m, Array(word[k] for k in range(self.lanes))[lane], shape_of(self.format), name="code")
        m.d.comb += [
            outlet.push.eq(valid_chain(m, outlet.issue, LEAVING)[-1]),
            outlet.payload[0].eq(code),
            self.o.valid.eq(outlet.o.valid),
            self.o.payload.eq(outlet.o.payload),
            outlet.o.ready.eq(self.o.ready),
        ]
        return m
