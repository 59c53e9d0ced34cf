"""Spiking fully connected layer, parallel: weights of the spiking inputs are added, time step by time step."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Array, Const, Module, Mux, Signal, Value

from bittrue.rtl.dataflow.buffered import Control
from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.folded import FoldedStage
from bittrue.rtl.dataflow.spikes.accumulate import Accumulators
from bittrue.rtl.dataflow.spikes.events import EventLinearStage  # noqa: F401  (the other architecture of the same operation)
from bittrue.rtl.dataflow.stage import Structure, counting, counting_bits, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.contract import Format, Range
from bittrue.sim.operations.spiking_linear import SpikingLinear


@realises(SpikingLinear)
class SpikingLinearStage(FoldedStage):
    """`acc[n] = sum_t decode[t] * sum_i weight[n, i] z[t, i]`, `y[n] = requantize(acc[n])`: adders on spikes.

    A block is one time step; its sums join the accumulators of all outputs, and the last step of a train gives the
    output. So a step is worked on while the neurons before are making the next. Where every step is worth half of the
    one before, `acc = 2 * acc + S` and there is no multiplier; otherwise one per output lane.

    Latency     (K - 1) * max(C / lanes, (N / pe) * (C / simd)) + C / lanes + C / simd - 1 + depth cycles; depth =
                address 1, memory 1, operand register 1, choice 1, log2(simd) adders, running sum (when folded) 1,
                product (with other worths) 2, accumulator 1, requantiser, output FIFO 1
    Throughput  one train every K * max(C / lanes, (N / pe) * (C / simd)) cycles, no bubble
    """

    def __init__(self, operation: SpikingLinear, *, lanes: int, simd: int, pe: int, block_luts: int | None = None):
        self.block_luts = self.block_luts if block_luts is None else block_luts
        outputs, inputs = operation.weight.shape
        self.lay_out(operation, self.products_of(operation, lanes, simd, pe), simd, pe)
        self.accumulators = Accumulators(operation, pe, self.products.steps)
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, pe)
        self.worth_cycles = 0 if operation.halving else 2
        arrival = self.front_depth + self.worth_cycles + 1
        depth = arrival + self.requantize.cycles + 1
        self.timing = Blocks(
            beats_in=inputs // lanes,
            beats_out=outputs // pe,
            steps=self.products.steps,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth, self.products.steps),
            frame=operation.input.tokens,
            gather=operation.steps,
        )
        super().__init__(
            lanes=lanes,
            output=(operation.output.format, pe),
            tables=self.requantize.tables,
            arrival=arrival,
        )

    def structure(self) -> Structure:
        built = super().structure() + self.accumulators.structure() + self.requantize.structure()
        groups, at = self.timing.beats_out, self.front_depth + self.worth_cycles
        built.count(groups - 1)
        built.registers += (groups == 1) + at * (counting_bits(groups) + 2 + self.accumulators.signed_steps)
        if not self.operation.halving:
            built.registers += (self.front_depth + 1) * Format.covering(self.operation.decode, signed=True).bits
        if self.worth_cycles:
            for p in range(self.pe):
                built.multipliers += 1
                built.registers += self.step_range(p).bits + self.product_range(p).bits
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """All weights are added in every step, spike or not; then the sum of the step joins the accumulator."""
        op, effort = self.operation, Effort()
        (n, c), steps, step_bits = op.weight.shape, op.tokens * op.steps, width(*op.step_sums)
        held = self.accumulators.bits
        effort.add(step_bits, steps * n * (c - 1))
        effort.add(held // n, steps * n)
        if not op.halving:
            effort.multiply(step_bits, Format.covering(op.decode, signed=True).bits, steps * n)
        if not self.wired:
            effort.access("weights", self.weights.bits, steps * n * c * op.weight_format.bits)
        effort.access("values", self.vectors.bits, steps * c * (n // self.pe), steps * c)
        effort.access("state", held, steps * held, steps * held)
        effort.requantize(self.requantize, op.tokens)
        return effort

    def step_range(self, lane: int) -> Range:
        """Exact range of a lane's sum of one time step."""
        low, high = self.operation.step_sums
        return Range.of(low[lane :: self.pe], high[lane :: self.pe])

    def product_range(self, lane: int) -> Range:
        """Exact range of that sum times what a spike is worth."""
        step = self.step_range(lane)
        every = np.outer(self.operation.decode, [step.low, step.high])
        return Range.of(every, every)

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        issued = valid_chain(m, control.issue, self.timing.depth - 1)
        bank, row = self.follow(m, control, issued)
        sums = self.sums(m, control, bank)
        totals = self.totals(m, control, sums)
        result = self.requantize.build(m, totals, issued[self.arrival - 1], held=row)
        m.d.comb += outlet.push.eq(issued[self.timing.depth - 1])
        m.d.comb += [outlet.payload[p].eq(result[p]) for p in range(self.pe)]
        return m

    def totals(self, m: Module, control: Control, sums: list[Value]) -> list[Value]:
        """The accumulators over time, `worth_cycles` + 1 after the sums of a step."""
        op, groups, at = self.operation, self.timing.beats_out, self.front_depth + self.worth_cycles
        group, done = Signal(counting(groups), name="group"), Signal()
        m.d.comb += done.eq(control.advance & (control.step == self.timing.steps - 1))
        with m.If(done):
            m.d.sync += group.eq(Mux(group == groups - 1, 0, group + 1))
        terms = list(sums)
        if not op.halving:
            worth = Array(int(d) for d in op.decode)[control.turn]
            shape = shape_of(Format.covering(op.decode, signed=True))
            factor = register(m, worth, shape, name="worth", cycles=self.front_depth + 1)
            for p in range(self.pe):
                held = register(m, terms[p], shape_of(self.step_range(p)), name=f"held{p}")
                terms[p] = register(m, held * factor, shape_of(self.product_range(p)), name=f"product{p}")
        falls = Array(int(d < 0) for d in op.decode)[control.turn]
        return self.accumulators.build(
            m,
            terms,
            valid=valid_chain(m, done, at)[at],
            early=(early := register(m, group, name="group_at", cycles=at - 1)),
            group=register(m, early, name="group_now"),
            clear=register(m, control.turn == 0, name="clear", cycles=at),
            double=Const(int(op.halving)),
            falls=register(m, falls, 1, name="falls", cycles=at) if self.accumulators.signed_steps else Const(0),
        )
