"""Matrix product, folded: `simd` inputs times `pe` outputs a cycle, input vector double-buffered."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value

from bittrue.rtl.dataflow.buffered import Control
from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.folded import FoldedStage
from bittrue.rtl.dataflow.stage import Structure, advance, counting, realises, register, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.held import Exchange
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.operations.linear import Linear


@realises(Linear)
class LinearStage(FoldedStage):
    """`y[n] = requantize(sum_k weight[n, k] x[k])`, one vector of K codes after the other.

    Latency     K / lanes + K / simd - 1 + depth cycles to the first output beat; depth = memory 1, operand register 1,
                product 1, log2(simd) adders, accumulator (when folded) 1, requantiser, output FIFO 1
    Throughput  one vector every max(K / lanes, (N / pe) * (K / simd)) cycles, no bubble
    Stall       back-pressure stops the issue of steps, never the pipeline
    """

    def __init__(self, operation: Linear, *, lanes: int, simd: int, pe: int):
        outputs, inputs = operation.weight.shape
        self.products = self.products_of(operation, lanes, simd, pe)
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, pe)
        depth = self.front_depth + self.requantize.cycles + 1
        self.timing = Blocks(
            beats_in=inputs // lanes,
            beats_out=outputs // pe,
            steps=self.products.steps,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth, self.products.steps),
            frame=operation.input.tokens,
        )
        super().__init__(operation, lanes=lanes, simd=simd, pe=pe, output=(operation.output.format, pe))
        weights = [] if self.weight_table is None else [self.weight_table]
        self.tables = [*weights, *self.requantize.tables.values()]

    def structure(self) -> Structure:
        built = super().structure() + self.requantize.structure()
        if self.tables:
            built += Exchange.structure(self.exchange_bits, self.front_depth)
            built.count(self.timing.frame - 1, self.timing.beats_out - 1)
            built.registers += (self.front_depth - 2) * (self.timing.beats_out - 1).bit_length()
        return built

    def follow(self, m: Module, control: Control) -> tuple[Signal, Value]:
        """The bank of the step at hand, and the row of the requantiser's tables two cycles before each sum."""
        block, group = Signal(counting(self.timing.frame)), Signal(counting(self.timing.beats_out))
        ends = control.release & advance(m, block, self.timing.frame - 1, control.release)
        advance(m, group, self.timing.beats_out - 1, control.issue)
        banks = self.exchange.follow(m, ends, self.front_depth)
        ahead = self.front_depth - 2
        late = register(m, group, name="group_late", cycles=ahead)
        bits = (self.timing.beats_out - 1).bit_length()
        return banks[0], Cat(late[:bits], banks[ahead])

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A product and an addition each; single bits choose weights, so that nothing is multiplied."""
        op, effort = self.operation, Effort()
        (n, c), bits, vectors = op.weight.shape, op.input.format.bits, op.input.tokens
        if not self.choosing:
            effort.multiply(bits, op.weight_format.bits, op.macs)
        effort.add(width(*op.sums), op.macs)
        if not self.wired:
            effort.access("weights", self.weights.bits, vectors * n * c * op.weight_format.bits)
        effort.access("values", self.vectors.bits, vectors * c * bits * (n // self.pe), vectors * c * bits)
        effort.requantize(self.requantize, vectors)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        bank, row = self.follow(m, control) if self.tables else (None, None)
        sums = self.sums(m, control, bank)
        issued = valid_chain(m, control.issue, self.timing.depth - 1)
        result = self.requantize.build(m, sums, issued[self.front_depth - 1], held=row)
        m.d.comb += outlet.push.eq(issued[self.timing.depth - 1])
        m.d.comb += [outlet.payload[p].eq(result[p]) for p in range(self.pe)]
        return m
