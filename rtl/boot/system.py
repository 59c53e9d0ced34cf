"""The accelerator that boots: the pipeline of a generator that writes what that of the accelerator holds; ports."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockDomain, Const, Elaboratable, Module, Signal
from amaranth.lib.wiring import In, connect

from bittrue.rtl.boot.machine import BootMachine
from bittrue.rtl.boot.places import Section
from bittrue.rtl.boot.registers import BootRegisters
from bittrue.rtl.boot.scatter import Scatter
from bittrue.rtl.boot.sequence import Samples
from bittrue.rtl.bus.framing import FrameInlet, FrameOutlet
from bittrue.rtl.bus.lite import AxiLite
from bittrue.rtl.bus.registers import RegisterMap
from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan
from bittrue.rtl.dataflow.stage import Structure, advance, counting
from bittrue.rtl.dataflow.top import AxisSignals
from bittrue.rtl.design import BUS


class BootedAccelerator(Elaboratable):
    """Generator, link and accelerator between AXI ports.

    aclk, aresetn     clock, and reset (active low, synchronous)
    s_axis_*, m_axis_*  frames and results of the accelerator, as of one that does not boot; `tready` is low until what
                      is held may be used
    s_axi_*           AXI4-Lite (`rtl.boot.registers`)

    generator    plan of the generator, its results a code a beat;  accelerator  plan of what it writes to, whose held
                 inputs are written value by value
    samples      one for each input of the generator;  sections  where their codes go
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(
        self,
        generator: Plan,
        accelerator: Plan,
        samples: list[Samples],
        sections: list[Section],
        table: RegisterMap,
        auto: bool = True,
    ):
        self.generator, self.accelerator, self.samples = generator, accelerator, samples
        self.table, self.banks = table, accelerator.scatter
        self.words = accelerator.network.words
        assert self.words is not None
        made = generator.program.output
        self.scatter = Scatter(sections, self.words.tables, made.format, made.size)
        self.machine = BootMachine(auto)
        self.aclk, self.aresetn = Signal(name="aclk"), Signal(name="aresetn")
        self.slaves = [AxisSignals(port) for port in accelerator.inputs]
        self.masters = [AxisSignals(port) for port in accelerator.outputs]
        members = AxiLite(table.address_bits).members
        self.lite = {name: Signal(member.shape, name=f"{BUS}_{name}") for name, member in members.items()}

    @property
    def ports(self) -> list[Signal]:
        """Of the top, in order."""
        streams = [signal for axis in (*self.slaves, *self.masters) for signal in axis.all]
        return [self.aclk, self.aresetn, *streams, *self.lite.values()]

    def structure(self) -> Structure:
        """All but the two pipelines and the framing."""
        built = self.scatter.structure() + self.machine.structure() + BootRegisters.structure(self.table)
        for one in self.samples:
            built += one.structure()
        for port in self.accelerator.inputs:
            built.count(port.beats - 1)
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.domains.sync = sync = ClockDomain("sync", local=True)
        m.d.comb += [sync.clk.eq(self.aclk), sync.rst.eq(~self.aresetn)]
        m.submodules.generator = generator = Pipeline(self.generator.network)
        m.submodules.pipeline = pipeline = Pipeline(self.accelerator.network)
        m.submodules.scatter, m.submodules.machine = scatter, machine = self.scatter, self.machine
        loader, own = pipeline.loader, generator.loader
        m.submodules.registers = registers = BootRegisters(self.table, machine, loader, own, self.banks)
        axi = registers.slave.axi
        for name, member in axi.signature.members.items():
            wire, here = self.lite[name], getattr(axi, name)
            m.d.comb += here.eq(wire) if member.flow == In else wire.eq(here)

        for k, (name, samples) in enumerate(zip(self.generator.program.inputs, self.samples, strict=True)):
            m.submodules[f"samples_{k}"] = samples
            connect(m, samples.o, generator.inlet(name))
            m.d.comb += samples.start.eq(machine.start)
        connect(m, generator.o, scatter.i)
        m.d.comb += [
            scatter.start.eq(machine.start),
            machine.done.eq(scatter.done),
            machine.found.eq(scatter.sum),
            machine.exchanged.eq(loader.exchanged),
            loader.boot.eq(machine.busy),
            loader.finish.eq(machine.finish),
            loader.put.eq(scatter.put),
            loader.put_table.eq(scatter.table),
            loader.put_row.eq(scatter.row),
            loader.put_slot.eq(scatter.slot),
            loader.put_value.eq(scatter.value),
        ]

        # Frames that have begun go through; others begin only when what is held may be used.
        may = Signal(name="may_begin")
        still = machine.busy | machine.ask if self.banks == 1 else machine.busy
        m.d.comb += [may.eq(machine.loaded & ~(registers.hold & still)), registers.ready.eq(may)]
        entered = [Signal(loader.bits, name=f"{axis.port.prefix}_entered") for axis in self.slaves]
        for k, (axis, name) in enumerate(zip(self.slaves, self.accelerator.program.inputs, strict=True)):
            stream, prefix = pipeline.inlet(name), axis.port.prefix
            m.submodules[f"{prefix}_frames"] = inlet = FrameInlet(stream.payload.shape(), axis.port.beats)
            axis.feed(m, inlet)
            passes, moved, inside = (Signal(name=f"{prefix}_{what}") for what in ("passes", "moved", "inside"))
            last = advance(m, Signal(counting(axis.port.beats), name=f"{prefix}_beat"), axis.port.beats - 1, moved)
            with m.If(moved):
                m.d.sync += inside.eq(~last)
            with m.If(moved & ~inside):
                m.d.sync += entered[k].eq(entered[k] + 1)
            # of several inputs one may be ahead: the others bring the frames that it has begun
            ahead = [(other - entered[k])[: loader.bits] for other in entered if other is not entered[k]]
            behind = Cat((count != 0) & ~count[-1] for count in ahead).any() if ahead else Const(0)
            m.d.comb += [
                passes.eq(may | inside | behind),
                moved.eq(stream.valid & stream.ready),
                stream.payload.eq(inlet.o.payload),
                stream.valid.eq(inlet.o.valid & passes),
                inlet.o.ready.eq(stream.ready & passes),
            ]
        left = []
        for axis, stream in zip(self.masters, pipeline.outlets, strict=True):
            outlet = FrameOutlet(stream.payload.shape(), axis.port.beats)
            m.submodules[f"{axis.port.prefix}_frames"] = outlet
            connect(m, stream, outlet.i)
            axis.drain(m, outlet)
            count = Signal(loader.bits, name=f"{axis.port.prefix}_left")
            with m.If(outlet.o.valid & outlet.o.ready & outlet.o.payload.last):
                m.d.sync += count.eq(count + 1)
            left.append(count)
        settling = loader.settling if own is None else loader.settling | own.settling
        idle = ~settling
        if self.banks == 1:
            idle = idle & Cat(a == b for a in entered for b in left).all()
        m.d.comb += machine.idle.eq(idle)
        return m
