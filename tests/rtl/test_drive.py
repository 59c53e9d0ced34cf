"""The driver of streams sees what a stream must not do, and stalls as often as it is told."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from bittrue.rtl.bus.lite import AxiLite
from tests.helpers.drive import Drive, Lite, Sink, Source, Wires, pack, unpack

WORDS = np.random.default_rng(0).integers(0, 256, 300).tolist()


class Register(wiring.Component):
    """A stream behind one register, with a fault or none."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    def __init__(self, fault: str = ""):
        self.fault = fault
        super().__init__()

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        count, waited = Signal(16), Signal()
        free = ~self.o.valid | self.o.ready
        m.d.comb += self.i.ready.eq(free & ((count < 50) if self.fault == "deadlock" else 1))
        m.d.sync += waited.eq(self.o.valid & ~self.o.ready)
        with m.If(free):
            m.d.sync += self.o.valid.eq(self.i.valid & self.i.ready)
            m.d.sync += [self.o.payload.eq(self.i.payload), count.eq(count + (self.i.valid & self.i.ready))]
        with m.If(waited & ~self.o.ready):
            if self.fault == "changes":
                m.d.sync += self.o.payload.eq(self.o.payload + 1)
            if self.fault == "withdraws":
                m.d.sync += self.o.valid.eq(0)
        return m


def run(fault: str = "", idle: float = 0.0, backpressure: float = 0.0, seed: int = 1) -> tuple[Source, Sink]:
    dut = Register(fault)
    source = Source(Wires.of(dut.i), WORDS, idle=idle, seed=[seed, 0])
    sink = Sink(Wires.of(dut.o), backpressure=backpressure, seed=[seed, 1])
    drive = Drive(source, sink, patience=100)

    async def bench(ctx):
        while len(sink.words) < len(WORDS):
            await drive.cycle(ctx)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return source, sink


@pytest.mark.parametrize(("idle", "backpressure"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.75), (0.3, 0.3)])
def test_what_goes_in_comes_out(idle, backpressure):
    source, sink = run(idle=idle, backpressure=backpressure)
    assert sink.words == WORDS
    cycles = sink.cycles[-1] / len(WORDS)
    slowest = max(1 / (1 - idle), 1 / (1 - backpressure))
    assert slowest <= cycles + 0.2 <= 2 * slowest
    assert (np.array(sink.cycles) > np.array(source.cycles)).all()
    if not idle and not backpressure:
        assert sink.cycles == list(range(1, len(WORDS) + 1))


def test_a_seed_gives_the_same_stalls_and_another_gives_others():
    first, again, other = (run(idle=0.3, backpressure=0.3, seed=seed)[1].cycles for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("changes", "a beat changed while it waited, or was withdrawn"),
        ("withdraws", "a beat changed while it waited, or was withdrawn"),
        ("deadlock", "deadlock: 50 of 300 words went in; 50 words came out"),
    ],
)
def test_a_fault_is_seen(fault, says):
    with pytest.raises(AssertionError, match=says):
        run(fault, backpressure=0.6)


def test_codes_in_words():
    codes = [-128, 127, 0, -1, 5]
    assert unpack(pack(codes, 8), 8, 5, signed=True) == codes
    assert unpack(pack(codes, 8), 8, 5, signed=False) == [128, 127, 0, 255, 5]


def test_an_access_that_nobody_answers(monkeypatch):
    monkeypatch.setattr(Lite, "PATIENCE", 30)
    bus, m = AxiLite(8).create(), Module()
    beat = Signal()
    m.d.sync += beat.eq(~beat)

    async def bench(ctx):
        async def cycle():
            for one in lite.streams:
                one.set(ctx)
            for one in lite.streams:
                one.see(ctx, 0)
            await ctx.tick()

        lite = Lite(lambda name: getattr(bus, name), cycle)
        with pytest.raises(AssertionError, match="an access is not answered"):
            await lite.read(4)

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
