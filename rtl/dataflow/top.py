"""The accelerator with AXI4-Stream ports."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal

from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow.loader import COUNT_BITS
from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan


class AxisSignals:
    """The wires of one AXI4-Stream port, by their standard names."""

    def __init__(self, port: StreamPort):
        self.port = port
        self.tdata = Signal(port.width, name=f"{port.prefix}_tdata")
        self.tvalid = Signal(name=f"{port.prefix}_tvalid")
        self.tready = Signal(name=f"{port.prefix}_tready")
        self.tlast = Signal(name=f"{port.prefix}_tlast")

    @property
    def all(self) -> list[Signal]:
        return [self.tdata, self.tvalid, self.tready, self.tlast]


class Accelerator(Elaboratable):
    """A planned program between AXI4-Stream ports.

    aclk, aresetn        clock and synchronous reset, active low
    s_axis_*             one slave port per program input (`s_axis_<name>_*` when there are several)
    m_axis_*             the master port
    s_axis_weights_*     where weights are written: one value a word, TLAST on the last of a set (`rtl.dataflow.loader`)
    weights_sets         sets that have taken effect, modulo 2^8: a frame meets the set of the cycle in which it begins
    weights_errors       sets that were refused, up to 255: too short, too long, or a value out of its bounds

    Each code takes whole bytes, sign-extended, lane 0 lowest; TLAST ends each frame. `tvalid` waits for no `tready`.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.aclk, self.aresetn = Signal(name="aclk"), Signal(name="aresetn")
        self.slaves = [AxisSignals(port) for port in plan.inputs]
        self.master = AxisSignals(plan.output)
        self.weights = None if plan.weights is None else AxisSignals(plan.weights)
        self.sets, self.errors = (Signal(COUNT_BITS, name=f"weights_{name}") for name in ("sets", "errors"))

    @property
    def ports(self) -> list[Signal]:
        ports = [self.aclk, self.aresetn, *(s for axis in (*self.slaves, self.master) for s in axis.all)]
        return ports if self.weights is None else [*ports, *self.weights.all, self.sets, self.errors]

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.domains.sync = sync = ClockDomain("sync", local=True)
        m.d.comb += [sync.clk.eq(self.aclk), sync.rst.eq(~self.aresetn)]
        m.submodules.pipeline = pipeline = Pipeline(self.plan.network)
        for axis, name in zip(self.slaves, self.plan.program.inputs, strict=True):
            i = pipeline.inlet(name)
            bits = 8 * axis.port.code_bytes
            m.d.comb += [i.valid.eq(axis.tvalid), axis.tready.eq(i.ready), i.payload.last.eq(axis.tlast)]
            m.d.comb += [i.payload.data[k].eq(axis.tdata[k * bits : (k + 1) * bits]) for k in range(axis.port.lanes)]
        if self.weights is not None:
            loader = pipeline.loader
            m.d.comb += [loader.word.eq(self.weights.tdata), loader.valid.eq(self.weights.tvalid)]
            m.d.comb += [loader.last.eq(self.weights.tlast), self.weights.tready.eq(loader.ready)]
            m.d.comb += [self.sets.eq(loader.sets), self.errors.eq(loader.errors)]
        axis, o = self.master, pipeline.o
        bits = 8 * axis.port.code_bytes
        m.d.comb += [axis.tvalid.eq(o.valid), o.ready.eq(axis.tready), axis.tlast.eq(o.payload.last)]
        m.d.comb += [axis.tdata[k * bits : (k + 1) * bits].eq(o.payload.data[k]) for k in range(axis.port.lanes)]
        return m
