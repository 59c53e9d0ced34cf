"""Spike words from codes: one bit of every lane a cycle, most significant first."""

from __future__ import annotations

from amaranth.hdl import Array, Module

from bittrue.rtl.dataflow.spikes.train import SpikeTrainStage
from bittrue.rtl.dataflow.stage import Structure, realises, register, valid_chain
from bittrue.sim.operations.encode import Encode


@realises(Encode)
class EncodeStage(SpikeTrainStage):
    """`z[t] = bit K - 1 - t of x`.

    Latency     C / lanes + 3 cycles to the first output beat, and 1 more with values in block RAM
    Throughput  one vector every K * C / lanes cycles
    """

    @property
    def cycles(self) -> int:
        return self.reading + 1

    def structure(self) -> Structure:
        built = super().structure()
        for _ in range(self.lanes_in):
            built.select_bits += self.operation.steps // 2
        built.registers += self.lanes_in
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        values = self.values(m, control)
        for lane, x in enumerate(values.codes):
            bits = Array(x[self.operation.steps - 1 - t] for t in range(self.operation.steps))
            m.d.comb += outlet.payload[lane].eq(register(m, bits[values.step], name=f"z{lane}"))
        m.d.comb += outlet.push.eq(valid_chain(m, control.issue, self.cycles)[-1])
        return m
