"""The noise of the array's digital twin, one number after the other: small, and for every layer of a program.

The equations are those of `sim.noise`. Here one round of the cipher is done in a cycle, and one bit of the root.
"""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.photonic_jobs import Jobs
from rtl.photonic_ports import INDEX_BITS
from rtl.stage import counting, register, shape_of
from sim.contract import Format, Range, round_shift
from sim.noise import MEAN, ROUNDS

WORD = 32


class SerialNoise(wiring.Component):
    """`y = max(u + n, 0)` for one count at a time, or g0 for a site.

    start          strobe: take `light`, `site`, `image`, `layer`; `common` says that only g0 is wanted
    ready          y is there and g0 was kept; the next one may start
    y              the count with its noise; with no noise in the layer, the count
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs):
        self.jobs = jobs
        self.noises = [layer.mac.noise for layer in jobs.layers]
        self.count_bits = max(1, jobs.light.high.bit_length())
        self.root_bits = -(-self.count_bits // 2)
        bounds = [
            (noise.bound(layer.mac.light.high), noise.shift, layer.mac.light.high)
            for noise, layer in zip(self.noises, jobs.layers, strict=True)
            if noise is not None
        ]
        sums = [Range(b.low, b.high + (1 << shift)) for b, shift, _ in bounds]
        self.sum = sums[0]
        self.most = jobs.light.high
        for wide, (bound, shift, high) in zip(sums, bounds, strict=True):
            self.sum |= wide
            self.most = max(self.most, high + int(round_shift(np.int64(bound.high), shift)))
        sites = max(layer.mac.tiles * (layer.outputs + 1) for layer in jobs.layers) + jobs.geometry.columns
        super().__init__(
            {
                "start": In(1),
                "common": In(1),
                "light": In(self.count_bits),
                "site": In(counting(sites)),
                "image": In(INDEX_BITS),
                "layer": In(counting(len(jobs.layers))),
                "ready": Out(1),
                "y": Out(max(1, self.most.bit_length())),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        factors = self.factors(m)
        at = Signal(range(ROUNDS + 1))
        x, y = Signal(WORD, name="high"), Signal(WORD, name="low")
        common = Signal()
        key = self.key(m, at)
        rotated = Signal(WORD)
        m.d.comb += rotated.eq((x.rotate_right(8) + y) ^ key)
        light, size = Signal(self.count_bits), self.root(m)
        g0 = Signal(shape_of(Range(-MEAN, MEAN)))
        g1, g2 = (
            register(m, gaussian(word), shape_of(Range(-MEAN, MEAN)), name=name)
            for word, name in ((x, "g1"), (y, "g2"))
        )
        drift = register(m, factors.relative * register(m, light * g0, name="proportional"), name="drift")
        shot = register(m, factors.shot * register(m, size * g1, name="grain"), name="shot")
        thermal = register(m, factors.thermal * register(m, g2, name="g2_held"), name="thermal")
        shift = factors.shift
        half = Mux(shift == 0, 0, Const(1) << (shift - (shift != 0))[: len(shift)])
        total = register(m, drift + shot + thermal + half, shape_of(self.sum), name="total")
        noisy = register(m, light + (total >> shift), shape_of(self.sum | Range(0, 2 * self.most)), name="noisy")
        m.d.sync += self.y.eq(Mux(noisy < 0, 0, noisy))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.ready.eq(~self.start)
                with m.If(self.start):
                    m.d.sync += [x.eq(self.image + factors.first), y.eq(self.site), common.eq(self.common)]
                    m.d.sync += [light.eq(self.light), at.eq(0)]
                    m.next = "ROUNDS"
            with m.State("ROUNDS"):
                m.d.sync += [x.eq(rotated), y.eq(y.rotate_left(3) ^ rotated), at.eq(at + 1)]
                with m.If(at == ROUNDS - 1):
                    m.d.sync += at.eq(0)
                    m.next = "SUMS"
            with m.State("SUMS"):  # the bytes, two products, the sum, the count, the clip: one cycle each
                m.d.sync += at.eq(at + 1)
                with m.If(common & (at == 1)):
                    m.d.sync += g0.eq(g1)
                    m.next = "IDLE"
                with m.Elif(at == 7):
                    m.next = "IDLE"
        return m

    def factors(self, m: Module) -> data.View:
        """The factors of the layer."""
        names = ("relative", "shot", "thermal", "shift", "first")
        rows = [{name: int(getattr(noise, name)) if noise else 0 for name in names} for noise in self.noises]
        layout = data.StructLayout({name: shape_of(Format.covering(*(row[name] for row in rows))) for name in names})
        m.submodules.factors = rom = Memory(shape=layout, depth=max(2, len(rows)), init=rows)
        port = rom.read_port(domain="comb")
        m.d.comb += port.addr.eq(self.layer)
        return port.data

    def key(self, m: Module, at: Signal) -> Value:
        """The key of the round at hand."""
        rows = []
        for noise in self.noises:
            rows += [int(key) for key in noise.keys] if noise else [0] * ROUNDS
            rows += [0] * (32 - ROUNDS)
        m.submodules.keys = rom = Memory(shape=WORD, depth=len(rows), init=rows)
        port = rom.read_port(domain="comb")
        m.d.comb += port.addr.eq(Cat(at[:5], self.layer))
        return port.data

    def root(self, m: Module) -> Signal:
        """`floor(sqrt(light))`, one digit a cycle from the start on; it needs fewer cycles than the cipher."""
        digits = 2 * self.root_bits
        left, rest, size = Signal(digits), Signal(self.root_bits + 2), Signal(self.root_bits)
        busy = Signal(range(self.root_bits + 1))
        brought, trial = Signal(self.root_bits + 2), Signal(self.root_bits + 3)
        m.d.comb += [brought.eq(Cat(left[-2:], rest)), trial.eq(brought - Cat(Const(1, 2), size))]
        with m.If(self.start & ~self.common):
            m.d.sync += [left.eq(self.light), rest.eq(0), size.eq(0), busy.eq(self.root_bits)]
        with m.Elif(busy != 0):
            fits = ~trial[-1]
            m.d.sync += [
                left.eq(left << 2),
                rest.eq(Mux(fits, trial, brought)),
                size.eq(Cat(fits, size)),
                busy.eq(busy - 1),
            ]
        return size


def gaussian(word: Value) -> Value:
    """The sum of the four bytes less its mean."""
    return sum((word[shift : shift + 8] for shift in (0, 8, 16, 24)), Const(-MEAN))
