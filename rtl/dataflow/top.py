"""The accelerator with AXI4-Stream ports."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal
from amaranth.lib.wiring import In, connect

from bittrue.rtl.bus.framing import FrameInlet, FrameOutlet
from bittrue.rtl.bus.lite import AxiLite
from bittrue.rtl.bus.ports import ERROR_BITS, StreamPort
from bittrue.rtl.dataflow.groups import Groups
from bittrue.rtl.dataflow.loader import COUNT_BITS
from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan
from bittrue.rtl.dataflow.weight_registers import WeightRegisters
from bittrue.rtl.design import BUS, Port


def group_ports(groups: Groups | None) -> tuple[Port, ...]:
    """The ports beside the streams where frames go in groups (`rtl.dataflow.groups`)."""
    if groups is None:
        return ()
    return (
        Port("groups_flush", "input", 1),
        Port("groups_waiting", "output", len(groups.waiting)),
        Port("groups_filled", "output", len(groups.filled)),
    )


class AxisSignals:
    """The wires of one AXI4-Stream port, by their standard names, and the count of framing errors of a slave port."""

    def __init__(self, port: StreamPort):
        self.port = port
        self.tdata = Signal(port.width, name=port.tdata)
        self.tvalid = Signal(name=port.tvalid)
        self.tready = Signal(name=port.tready)
        self.tlast = Signal(name=port.tlast)
        self.framing_errors = Signal(ERROR_BITS, name=port.framing_errors) if port.counts_errors else None

    @property
    def all(self) -> list[Signal]:
        wires = [self.tdata, self.tvalid, self.tready, self.tlast]
        return wires if self.framing_errors is None else [*wires, self.framing_errors]

    def feed(self, m: Module, inlet: FrameInlet) -> None:
        """Connect a slave port to its inlet."""
        bits = 8 * self.port.code_bytes
        m.d.comb += [
            inlet.i.valid.eq(self.tvalid),
            self.tready.eq(inlet.i.ready),
            inlet.i.payload.last.eq(self.tlast),
            self.framing_errors.eq(inlet.errors),
        ]
        for lane in range(self.port.lanes):
            m.d.comb += inlet.i.payload.data[lane].eq(self.tdata[lane * bits : (lane + 1) * bits])

    def drain(self, m: Module, outlet: FrameOutlet) -> None:
        """Connect a master port to its outlet."""
        bits = 8 * self.port.code_bytes
        m.d.comb += [
            self.tvalid.eq(outlet.o.valid),
            outlet.o.ready.eq(self.tready),
            self.tlast.eq(outlet.o.payload.last),
        ]
        for lane in range(self.port.lanes):
            m.d.comb += self.tdata[lane * bits : (lane + 1) * bits].eq(outlet.o.payload.data[lane])


class Accelerator(Elaboratable):
    """A planned program between AXI4-Stream ports.

    aclk, aresetn        clock and synchronous reset, active low
    s_axis_*             one slave port per program input (`s_axis_<name>_*` when there are several)
    m_axis_*             the master port (one for every result, `m_axis_<name>_*`, when there are several)
    s_axis_framing_errors  for every slave port, by its prefix: how often TLAST was wrong (`rtl.bus.framing`)
    s_axis_weights_*     where weights are written: one value a word, TLAST on the last of a set (`rtl.dataflow.loader`)
    s_axi_*              in place of that stream: AXI4-Lite (`rtl.dataflow.weight_registers`)
    weights_sets         sets that have taken effect, modulo 2^8: a frame meets the set of the cycle in which it begins
    weights_errors       sets that were refused, up to 255: too short, too long, or a value out of its bounds
    groups_flush         where frames go in groups: a strobe fills one that is not complete with frames of code 0
    groups_waiting       frames that wait for the rest of their group;  groups_filled  those of code 0, modulo 2^8

    Each code takes whole bytes, sign-extended, lane 0 lowest; TLAST ends each frame. `tvalid` waits for no `tready`.
    Of several outputs each gives its beats as they are made. One that is not ready holds up the stage that makes it,
    once their FIFOs are full those before it, and so what else these feed; parts that share nothing go on. Who reads
    all outputs at the same time, each at any pace, gets all frames; who waits for the end of one before reading another
    may wait for ever.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.aclk, self.aresetn = Signal(name="aclk"), Signal(name="aresetn")
        self.slaves = [AxisSignals(port) for port in plan.inputs]
        self.masters = [AxisSignals(port) for port in plan.outputs]
        self.weights = None if plan.weights is None else AxisSignals(plan.weights)
        self.lite: dict[str, Signal] = {}
        if plan.registers is not None:
            members = AxiLite(plan.registers.address_bits).members
            self.lite = {name: Signal(member.shape, name=f"{BUS}_{name}") for name, member in members.items()}
        self.sets, self.errors = (Signal(COUNT_BITS, name=f"weights_{name}") for name in ("sets", "errors"))
        self.grouped = {port.name: Signal(port.width, name=port.name) for port in group_ports(plan.network.groups)}

    @property
    def ports(self) -> list[Signal]:
        ports = [self.aclk, self.aresetn, *(s for axis in (*self.slaves, *self.masters) for s in axis.all)]
        if self.plan.network.words is None:
            return [*ports, *self.grouped.values()]
        written = self.lite.values() if self.weights is None else self.weights.all
        return [*ports, *written, self.sets, self.errors, *self.grouped.values()]

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.domains.sync = sync = ClockDomain("sync", local=True)
        m.d.comb += [sync.clk.eq(self.aclk), sync.rst.eq(~self.aresetn)]
        m.submodules.pipeline = pipeline = Pipeline(self.plan.network)
        for axis, name in zip(self.slaves, self.plan.program.inputs, strict=True):
            stream = pipeline.inlet(name)
            inlet = FrameInlet(stream.payload.shape(), axis.port.beats)
            m.submodules[f"{axis.port.prefix}_frames"] = inlet
            axis.feed(m, inlet)
            connect(m, inlet.o, stream)
        if self.weights is not None:
            loader = pipeline.loader
            m.d.comb += [loader.word.eq(self.weights.tdata), loader.valid.eq(self.weights.tvalid)]
            m.d.comb += [loader.last.eq(self.weights.tlast), self.weights.tready.eq(loader.ready)]
        elif self.lite:
            m.submodules.registers = registers = WeightRegisters(self.plan.network.words, pipeline.loader)
            axi = registers.slave.axi
            for name, member in axi.signature.members.items():
                wire, here = self.lite[name], getattr(axi, name)
                m.d.comb += here.eq(wire) if member.flow == In else wire.eq(here)
        if self.plan.network.words is not None:
            m.d.comb += [self.sets.eq(pipeline.loader.sets), self.errors.eq(pipeline.loader.errors)]
        groups = self.plan.network.groups
        if groups is not None:
            m.d.comb += groups.flush.eq(self.grouped["groups_flush"])
            m.d.comb += [self.grouped[f"groups_{name}"].eq(getattr(groups, name)) for name in ("waiting", "filled")]
        for axis, stream in zip(self.masters, pipeline.outlets, strict=True):
            outlet = FrameOutlet(stream.payload.shape(), axis.port.beats)
            m.submodules[f"{axis.port.prefix}_frames"] = outlet
            connect(m, stream, outlet.i)
            axis.drain(m, outlet)
        return m
