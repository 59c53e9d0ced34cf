"""Tops of the photonic system with AXI ports: the controller with its digital twin, or the controller alone."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal
from amaranth.lib.wiring import connect

from bittrue.rtl.bus.framing import FrameInlet, FrameOutlet
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow.top import AxisSignals
from bittrue.rtl.light.controller import PhotonicController
from bittrue.rtl.light.jobs import Geometry
from bittrue.rtl.light.twin import PhotonicTwin
from bittrue.rtl.light.weights import stream_bytes
from bittrue.rtl.verilog import convert
from bittrue.sim.program import Program

#: Prefix of the stream of weights.
WEIGHTS = "s_axis_weights"


class PhotonicSystem(Elaboratable):
    """The controller of `program`, with the twin of the array behind it.

    aclk, aresetn     clock, and reset (active low, synchronous)
    s_axis, m_axis    images and results: `input`, `output`
    s_axis_framing_errors  images whose TLAST is not on the last beat (`rtl.bus.framing`); ERRORS has a bit for it, too
    s_axi             AXI4-Lite registers
    s_axis_weights    with weights="stream" only: the beats of `rtl.light.weights.stream_words` for every batch,
                      TLAST with the last of them
    fe_*              with twin=False: the analogue front end (`rtl.light.ports.FrontEnd`)
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(
        self,
        program: Program,
        geometry: Geometry,
        settling: int = 8,
        weights: str = "memory",
        images: int = 16,
        *,
        twin: bool = True,
        conversion: int = 3,
        dac_cycles: int = 1,
    ):
        self.controller = PhotonicController(program, geometry, settling, weights, images)
        self.jobs = jobs = self.controller.jobs
        self.twin = PhotonicTwin(jobs, settling, conversion, dac_cycles) if twin else None
        self.aclk, self.aresetn = Signal(name="aclk"), Signal(name="aresetn")
        self.input = StreamPort("s_axis", jobs.input, geometry.lanes)
        self.output = StreamPort("m_axis", jobs.output, 1)
        self.slave, self.master = AxisSignals(self.input), AxisSignals(self.output)
        self.registers = {
            name: Signal(member.shape, name=f"s_axi_{name}")
            for name, member in self.controller.registers.signature.members.items()
        }
        self.streamed = weights == "stream"
        if self.streamed:
            width = 8 * stream_bytes(jobs)
            self.weights = [
                Signal(bits, name=f"{WEIGHTS}_{name}")
                for name, bits in (("tdata", width), ("tvalid", 1), ("tready", 1), ("tlast", 1))
            ]
        else:
            self.weights = []
        self.front: list[tuple[Signal, str]] = []  # and the flow of each, In or Out
        if self.twin is None:
            for path, member, value in self.controller.front.signature.flatten(self.controller.front):
                shape = value.as_value().shape() if hasattr(value, "as_value") else value.shape()
                signal = Signal(shape, name="_".join(("fe", *map(str, path))))
                self.front.append((signal, member.flow.name))

    @property
    def ports(self) -> list[Signal]:
        """Of the top, in order."""
        fixed = [self.aclk, self.aresetn, *self.slave.all, *self.master.all, *self.registers.values()]
        return [*fixed, *self.weights, *(signal for signal, _ in self.front)]

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.domains.sync = sync = ClockDomain("sync", local=True)
        m.d.comb += [sync.clk.eq(self.aclk), sync.rst.eq(~self.aresetn)]
        m.submodules.controller = controller = self.controller
        images, results = controller.images_in, controller.results_out
        m.submodules.image_frames = inlet = FrameInlet(images.payload.shape(), self.input.beats)
        m.submodules.result_frames = outlet = FrameOutlet(results.payload.shape(), self.output.beats)
        self.slave.feed(m, inlet)
        connect(m, inlet.o, images)
        connect(m, results, outlet.i)
        self.master.drain(m, outlet)
        m.d.comb += controller.frame_failed.eq(inlet.failed)
        for name, member in controller.registers.signature.members.items():
            inner, outer = getattr(controller.registers, name), self.registers[name]
            m.d.comb += inner.eq(outer) if member.flow.name == "In" else outer.eq(inner)
        if self.streamed:
            tdata, tvalid, tready, tlast = self.weights
            weights = controller.weights_in
            m.submodules.weight_frames = inlet = FrameInlet(weights.payload.shape(), self.jobs.beats)
            connect(m, inlet.o, weights)
            m.d.comb += [
                inlet.i.valid.eq(tvalid),
                tready.eq(inlet.i.ready),
                inlet.i.payload.last.eq(tlast),
                inlet.i.payload.data.eq(tdata),
                controller.weights_failed.eq(inlet.failed),
            ]
        if self.twin is not None:
            m.submodules.twin = self.twin
            connect(m, controller.front, self.twin.front)
        else:
            flat = controller.front.signature.flatten(controller.front)
            for (_, _, value), (outer, flow) in zip(flat, self.front, strict=True):
                inner = value.as_value() if hasattr(value, "as_value") else value
                m.d.comb += inner.eq(outer) if flow == "In" else outer.eq(inner)
        return m


def emit(system: PhotonicSystem) -> str:
    """The Verilog; its top is `bittrue_top`. With its AXI4-Lite inputs low it takes images as they arrive."""
    header = f"// bittrue: photonic controller of program {system.jobs.program.sha256}\n"
    return header + convert(system, system.ports)
