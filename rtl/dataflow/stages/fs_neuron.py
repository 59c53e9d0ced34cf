"""The FS-neuron bank: a membrane, a comparator and a subtractor for each lane."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.spikes.train import SpikeTrainStage
from bittrue.rtl.dataflow.stage import Structure, counting_bits, realises, register, shape_of, valid_chain
from bittrue.rtl.parts.state import rests, state, structure
from bittrue.sim.contract import Format
from bittrue.sim.operations.fs_neuron import FsNeuron


@realises(FsNeuron)
class FsNeuronStage(SpikeTrainStage):
    """`v = clip(x)`, then per time step `z[t] = v > threshold[t]`, `v -= reset[t] * z[t]`; no multiplier.

    Latency     C / lanes + 4 cycles to the first output beat, 1 more from 5 groups on, 1 more with values in block RAM
    Throughput  one vector every K * C / lanes cycles: a new value every K cycles per neuron
    State       the membranes of the C / lanes groups of channels, in distributed RAM (registers for one group)
    """

    @property
    def spread(self) -> int:
        """Cycles that a membrane takes to be compared and reset, where so many groups leave it the time; else 0."""
        return 2 if rests(self.groups, cycles=2) else 0

    @property
    def cycles(self) -> int:
        return self.reading + (3 if self.spread else 2)

    @property
    def clips(self) -> tuple[bool, bool]:
        """Whether values above `highest` and below `lowest` come."""
        op, fmt = self.operation, self.operation.input.format
        return op.highest < fmt.high, op.lowest > fmt.low

    @property
    def thresholds(self) -> np.ndarray:
        """The thresholds, those that the membrane never or always passes moved to its ends."""
        return np.clip(self.operation.threshold, self.operation.membrane.low - 1, self.operation.membrane.high)

    def structure(self) -> Structure:
        built = super().structure()
        op, bits = self.operation, self.operation.membrane.bits
        for _ in range(self.lanes_in):
            built.select_bits += 2 * op.input.format.bits * any(self.clips) + 2 * bits
            built.registers += op.input.format.bits + sum(self.clips)
            built.add(bits, registered=False)
            built.add(bits, registered=False)
        constants = sum(Format.covering(values, signed=True).bits for values in (self.thresholds, op.reset))
        built.registers += self.lanes_in + constants + 1 + counting_bits(self.groups)
        if self.spread:
            built.registers += 3 * self.lanes_in * bits + constants
        return built + structure(self.lanes_in * bits, self.groups, self.spread)

    def effort(self, **seen: float) -> Effort:
        """A comparison and a reset in every step; the values are held while their steps are given out."""
        op, effort = self.operation, super().effort(**seen)
        effort.add(op.membrane.bits, 2 * op.output.size)
        moved = op.output.size * op.membrane.bits
        effort.access("state", op.input.channels * op.membrane.bits, moved, moved)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        values = self.values(m, control)
        op = self.operation
        moving = valid_chain(m, control.issue, self.cycles)

        # One cycle later: constants of the step, values, and whether each is to be clipped.
        def constant(name: str, array: np.ndarray) -> Signal:
            fmt = Format.covering(array, signed=True)
            return register(m, Array(int(v) for v in array)[values.step], shape_of(fmt), name=name)

        threshold = constant("threshold", self.thresholds)
        reset = constant("reset", op.reset)
        first = register(m, values.step == 0, name="first")
        where = register(m, values.group, name="where")
        above, below = self.clips
        clipped = []
        for lane, x in enumerate(values.codes):
            value: Value = register(m, x, name=f"value{lane}")
            if above:
                value = Mux(register(m, x > op.highest, name=f"above{lane}"), op.highest, value)
            if below:
                value = Mux(register(m, x < op.lowest, name=f"below_lowest{lane}"), op.lowest, value)
            clipped.append(value)

        # The membranes: compared and reset within a cycle, or in a cycle each.
        membrane = shape_of(op.membrane)
        layout = data.ArrayLayout(membrane, self.lanes_in)
        held, after = state(
            m, "membranes", layout, self.groups, values.group, where, moving[self.reading + 1], self.spread
        )
        if self.spread:
            threshold = register(m, threshold, name="threshold_then")
            reset = register(m, reset, name="reset_then")
        for lane in range(self.lanes_in):
            v, z = Signal(membrane, name=f"v{lane}"), Signal(name=f"fires{lane}")
            before = Mux(first, clipped[lane], held[lane])
            below: Value = v - reset
            m.d.comb += [
                v.eq(register(m, before, membrane, name=f"before{lane}") if self.spread else before),
                z.eq(v > threshold),
            ]
            spike = register(m, z, name=f"z{lane}")
            if self.spread:
                below = register(m, below, membrane, name=f"below{lane}")
                m.d.comb += after[lane].eq(Mux(spike, below, register(m, v, name=f"kept{lane}")))
            else:
                m.d.comb += after[lane].eq(Mux(z, below, v))
            m.d.comb += outlet.payload[lane].eq(spike)
        m.d.comb += outlet.push.eq(moving[-1])
        return m
