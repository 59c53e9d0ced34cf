"""The state machine of a boot: reset, generate, ready; and what a wrong checksum leads to."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.boot.scatter import LATENCY
from bittrue.rtl.dataflow.loader import SETTLE
from bittrue.rtl.dataflow.structure import Structure

#: Bits of the counters of boots and of cycles.
COUNT_BITS = 32
#: Cycles from the one in which the samples start to their first beat; and from the last code that is taken to `ready`:
#: its place, the checksum's comparison, the end of the set, its exchange.
LEAD, TAIL = 1, LATENCY + SETTLE + 2


class BootMachine(wiring.Component):
    """Starts a boot after reset and when it is asked for one, and says what came of it.

    auto      whether a boot starts by itself after reset
    ask       level: a boot is wanted; it starts when the one before is over and `idle`;  taken  strobe: it starts
    idle      nothing that a boot needs is under way: no exchange, and where there is one bank no frame
    start     strobe: samples and checksum begin
    done      strobe: the last code has its place;  finish  strobe: the set is whole
    exchanged strobe: a set, whoever wrote it, has taken effect
    found, expected   checksums
    busy      a boot is under way
    loaded    what is held may be used: a boot was right, or a set came over the bus since
    failed    strobe: the checksum is wrong;  wrong  it was, in the last boot
    boots     that were right, modulo 2^32;  cycles  of the last one, from `start` to `ready`;  last  its checksum

    A boot whose checksum is wrong ends without an exchange, and nothing is `loaded` any more. A reset ends any boot.
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, auto: bool = True):
        self.auto = auto
        super().__init__(
            {
                **{name: In(1) for name in ("ask", "idle", "done", "exchanged")},
                **{name: Out(1) for name in ("taken", "start", "finish", "busy", "loaded", "failed", "wrong")},
                **{name: In(32) for name in ("found", "expected")},
                **{name: Out(COUNT_BITS) for name in ("boots", "cycles")},
                "last": Out(32),
            }
        )

    @staticmethod
    def structure() -> Structure:
        built = Structure(registers=32 + 8)
        built.count(*[(1 << COUNT_BITS) - 1] * 2)
        built.add(32, registered=False)
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        wanted = Signal(init=self.auto, name="wanted")
        equal = Signal(name="equal")
        m.d.sync += equal.eq(self.found == self.expected)
        with m.If(self.busy):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        with m.If(self.exchanged):
            m.d.sync += self.loaded.eq(1)
        with m.FSM():
            with m.State("WAIT"):
                with m.If((wanted | self.ask) & self.idle):
                    m.d.comb += [self.start.eq(1), self.taken.eq(~wanted)]
                    m.d.sync += [wanted.eq(0), self.busy.eq(1), self.cycles.eq(1), self.wrong.eq(0)]
                    m.next = "GENERATE"
            with m.State("GENERATE"), m.If(self.done):
                m.next = "CHECK"  # the checksum has come before the place, the comparison comes with it
            with m.State("CHECK"):
                m.d.sync += self.last.eq(self.found)
                with m.If(equal):
                    m.d.comb += self.finish.eq(1)
                    m.next = "EXCHANGE"
                with m.Else():
                    m.d.comb += self.failed.eq(1)
                    m.d.sync += [self.busy.eq(0), self.loaded.eq(0), self.wrong.eq(1)]
                    m.next = "WAIT"
            with m.State("EXCHANGE"), m.If(self.exchanged):
                m.d.sync += [self.busy.eq(0), self.boots.eq(self.boots + 1)]
                m.next = "WAIT"
        return m
