"""What joins stages: FIFOs, width converters and forks."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.buffered import BufferedStage
from bittrue.rtl.dataflow.stage import Stage, Storage, Structure, beat, counting, register, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.contract import Format


class Fifo(BufferedStage):
    """Holds up to `entries` beats (and as many as its output FIFO), for block RAM.

    Latency 4 cycles; one beat a cycle from 2 entries on.
    """

    def __init__(self, fmt: Format, lanes: int, entries: int, frame: int):
        self.format = fmt
        self.timing = Blocks(blocks=entries, depth=3, credits=enough_credits(3), frame=frame)
        self.storage = Storage(beat(fmt, lanes).size, entries)
        super().__init__([(fmt, lanes)], (fmt, lanes))

    def structure(self) -> Structure:
        built = super().structure()
        built.store(self.storage)
        built.registers += self.storage.width
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        m.submodules.memory = memory = self.storage.memory(self.i.payload.shape(), apart=True)
        write, read = memory.write_port(), memory.read_port(domain="sync")
        m.d.comb += [
            write.addr.eq(control.write_block),
            write.data.eq(self.i.payload),
            write.en.eq(control.write),
            read.addr.eq(control.read_block),
            read.en.eq(1),
            outlet.push.eq(valid_chain(m, control.issue, 2)[-1]),
            outlet.payload.eq(register(m, read.data, self.i.payload.shape(), name="read")),
        ]
        return m


class Narrow(BufferedStage):
    """One beat of `lanes_in` codes into several of `lanes_out`; latency 3 cycles."""

    def __init__(self, fmt: Format, lanes_in: int, lanes_out: int, frame: int):
        self.format = fmt
        ratio = lanes_in // lanes_out
        self.timing = Blocks(beats_out=ratio, blocks=2, depth=2, credits=enough_credits(2), frame=frame)
        super().__init__([(fmt, lanes_in)], (fmt, lanes_out))

    def structure(self) -> Structure:
        built = super().structure()
        word = self.i.payload.shape().size
        built.registers += 2 * word + self.o.payload.shape().size
        built.select_bits += word
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        ratio = self.timing.beats_out
        held = Array(Signal(self.i.payload.shape(), name=f"held{k}", reset_less=True) for k in range(2))
        with m.If(control.write):
            m.d.sync += held[control.write_block].eq(self.i.payload)
        chosen = Signal(self.i.payload.shape())
        m.d.comb += chosen.eq(held[control.read_block])
        for lane in range(self.lanes_out):
            parts = Array(chosen[k * self.lanes_out + lane] for k in range(ratio))
            m.d.comb += outlet.payload[lane].eq(register(m, parts[control.word], chosen[0].shape(), name=f"y{lane}"))
        m.d.comb += outlet.push.eq(valid_chain(m, control.issue, 1)[-1])
        return m


class Widen(Stage):
    """Several beats of `lanes_in` codes into one of `lanes_out`."""

    def __init__(self, fmt: Format, lanes_in: int, lanes_out: int, frame: int):
        self.format = fmt
        ratio = lanes_out // lanes_in
        self.timing = Blocks(beats_in=ratio, depth=1, credits=enough_credits(1), frame=frame)
        super().__init__([(fmt, lanes_in)], (fmt, lanes_out))

    def structure(self) -> Structure:
        built = super().structure()
        built.count(self.timing.beats_in - 1)
        built.registers += self.o.payload.shape().size - self.i.payload.shape().size + (self.timing.beats_in == 1)
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        ratio, lanes = self.timing.beats_in, self.lanes_in
        part = Signal(counting(ratio))
        complete = Signal()
        m.d.comb += complete.eq(part == ratio - 1)
        with m.If(go):
            m.d.sync += part.eq(part + 1)
            with m.If(complete):
                m.d.sync += part.eq(0)
        codes = []
        for k in range(ratio - 1):
            held = [Signal(self.i.payload[j].shape(), name=f"held{k}_{j}", reset_less=True) for j in range(lanes)]
            with m.If(go & (part == k)):
                m.d.sync += [held[j].eq(self.i.payload[j]) for j in range(lanes)]
            codes += held
        codes += [self.i.payload[j] for j in range(lanes)]
        m.d.comb += [outlet.issue.eq(go & complete), outlet.push.eq(go & complete)]
        m.d.comb += [outlet.payload[lane].eq(v) for lane, v in enumerate(codes)]
        return m


class Fork(wiring.Component):
    """One stream to several readers; each takes the beat when it is ready, and `valid` waits for nobody."""

    def __init__(self, fmt: Format, lanes: int, readers: int):
        payload = stream.Signature(beat(fmt, lanes))
        super().__init__({"i": In(payload), "o": Out(payload).array(readers)})
        self.readers = readers

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        done = Signal(self.readers)
        taken = Signal(self.readers)
        for k, reader in enumerate(self.o):
            m.d.comb += [
                reader.payload.eq(self.i.payload),
                reader.valid.eq(self.i.valid & ~done[k]),
                taken[k].eq(done[k] | reader.ready),
            ]
        m.d.comb += self.i.ready.eq(taken.all())
        with m.If(self.i.valid):
            m.d.sync += done.eq(0)
            with m.If(~taken.all()):
                m.d.sync += done.eq(taken)
        return m
