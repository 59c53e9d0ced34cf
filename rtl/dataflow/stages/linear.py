"""Matrix product, folded: `simd` inputs times `pe` outputs a cycle, input vector double-buffered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Module, Value

from bittrue.rtl.dataflow.adders.stage import ADDERS, AdderStage
from bittrue.rtl.dataflow.buffered import Steps
from bittrue.rtl.dataflow.cells import Cells
from bittrue.rtl.dataflow.convolved import Convolved
from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.folded import FoldedStage
from bittrue.rtl.dataflow.packed import Packed
from bittrue.rtl.dataflow.paired import Paired
from bittrue.rtl.dataflow.stage import Storage, Structure, realises, register, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, Timing, enough_credits
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.operations.linear import Linear


@realises(Linear)
class LinearStage(FoldedStage):
    """`y[n] = requantize(sum_k weight[n, k] x[k])`, one vector of K codes after the other.

    Latency     K / lanes + K / simd - 1 + depth cycles to the first output beat; depth = address 1, memory 1,
                operand registers 1 to 3, product 1, log2(simd) adders, accumulator (when folded) 1, requantiser,
                output FIFO 1
    Throughput  one vector every max(K / lanes, (N / pe) * (K / simd)) cycles, no bubble
    Stall       back-pressure stops the issue of steps, never the pipeline
    """

    def __init__(self, operation: Linear, *, lanes: int, simd: int, pe: int, block_luts: int | None = None):
        self.block_luts = self.block_luts if block_luts is None else block_luts
        self.lay_out(operation, self.products_of(operation, lanes, simd, pe), simd, pe)
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, self.given_at_once)
        self.beside = self._constants_beside()
        depth = self.front_depth + self.requantize.cycles + 1
        self.timing = self.moves(lanes, depth)
        super().__init__(
            lanes=lanes,
            output=(operation.output.format, self.given_at_once),
            tables=self.requantize.tables,
            arrival=self.front_depth + self.turns - 1,
        )

    def moves(self, lanes: int, depth: int) -> Timing:
        """Its timing, where a beat that comes has so many codes."""
        outputs, inputs = self.operation.weight.shape
        return Blocks(
            beats_in=self.together * inputs // lanes,
            beats_out=outputs // self.pe,
            steps=self.products.steps,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth, self.products.steps, self.turns),
            frame=self.operation.input.tokens // self.together,
            each=self.turns,
        )

    def structure(self) -> Structure:
        built = super().structure() + self.requantize.structure(beside=self.beside)
        built.registers += self.beside_wait * self.cells[0].beside_bits
        return built

    #: LUTs of a bit of a table of constants, for every 16 of its rows, that a register on its way is worth.
    LUTS = 2

    def _constants_beside(self) -> bool:
        """Whether the constants of the requantiser lie in what the blocks of the weights have left.

        A table of its own would take a LUT for 16 rows of a bit. From the blocks they come with the weights, and wait
        for the sum in registers; so they lie there if those are fewer than `LUTS` times the LUTs.
        """
        bits, words = self.requantize.words
        cells, rows = self.cells[0], -(-len(words) // 16)
        if type(cells) is not Cells or self.turns > 1 or self.together > 1 or not bits:
            return False
        if Storage(bits, len(words), table=True).style == "block" or self.beside_wait > self.LUTS * rows:
            return False
        return cells.take(bits, [word for word in words for _ in range(self.products.steps)])

    @property
    def beside_wait(self) -> int:
        """Cycles that what is read beside the weights of a step waits for their sum."""
        return self.front_depth - self.address_registers[1] - self.operand_registers[1] - 1

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A product and an addition each; single bits choose weights, so that nothing is multiplied."""
        op, effort = self.operation, Effort()
        (n, c), bits, vectors = op.weight.shape, op.input.format.bits, op.input.tokens
        if not self.choosing:
            effort.multiply(bits, op.weight_format.bits, op.macs)
        effort.add(width(*op.sums), op.macs)
        if not self.wired:
            effort.access("weights", self.weights.bits, vectors // self.together * n * c * op.weight_format.bits)
        self.access(effort)
        effort.requantize(self.requantize, vectors)
        return effort

    def access(self, effort: Effort) -> None:
        """A vector is written once, and read for every group of outputs."""
        (n, c), vectors = self.operation.weight.shape, self.operation.input.tokens
        codes = vectors * c * self.operation.input.format.bits
        effort.access("values", self.vectors.bits, codes * (n // self.pe), codes)

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        issued = valid_chain(m, self.given(m, control), self.timing.depth - 1)
        bank, row = self.follow(m, control, issued)
        sums = self.in_turn(m, self.sums(m, control, bank), issued[self.front_depth])
        which = self.which(m, issued)
        told = {"which": which, "held": row}
        if self.beside:
            beside = self.cells[0].beside
            told["row"] = register(m, Value.cast(beside), name="constants", cycles=self.beside_wait)
        result = self.requantize.build(m, sums, issued[self.front_depth - 1], **told)
        m.d.comb += outlet.push.eq(issued[self.timing.depth - 1])
        m.d.comb += [outlet.payload[p].eq(code) for p, code in enumerate(result)]
        return m

    def which(self, m: Module, issued: Sequence[Value]) -> Value | None:  # noqa: ARG002
        """Two cycles before each output beat, which of a vector's it is, where they do not come in order."""
        return None

    def given(self, m: Module, control: Steps) -> Value:  # noqa: ARG002
        """Whether an output beat is issued, or is its turn behind another."""
        return control.issue

    def in_turn(self, m: Module, sums: Sequence[Value], at_hand: Value) -> Sequence[Value]:  # noqa: ARG002
        """The sums of the output beat that is `at_hand`."""
        return sums


@realises(Linear, "packed")
class PackedLinearStage(Packed, LinearStage):
    """The same with two products in a multiplier (`rtl.dataflow.packed`): `simd` inputs, `pe` / 2 pairs of outputs.

    A beat has `pe` / 2 codes, and two of them come one behind the other, but `pe` where a sum takes one step.

    Latency     as of the other, and 1 more where a sum takes one step
    Multiplier  signed, 25x18 for INT8
    """


class ConvolutionStage(Convolved, LinearStage):
    """The same for the windows of an image, which it reads from the ring of pixels itself (`rtl.dataflow.convolved`).

    Latency     until the first window's last pixel has come, K / simd - 1 + depth cycles more
    Throughput  one window every (N / pe) * (K / simd) cycles, and no beat of the image a cycle is too fast for it
    """


LinearStage.convolved = ConvolutionStage


class PackedConvolutionStage(Convolved, PackedLinearStage):
    """The same with two products in a multiplier."""


PackedLinearStage.convolved = PackedConvolutionStage


@realises(Linear, "paired")
class PairedLinearStage(Paired, LinearStage):
    """The same with two vectors at once, two products in a multiplier (`rtl.dataflow.paired`); another stage behind it
    puts their outputs in order.

    Latency     2 K / lanes + steps - 1 + depth cycles
    Throughput  two vectors every max(2 K / lanes, (N / pe) * steps) cycles, steps = K / simd, rounded up
    Multiplier  signed, 25x18 for INT8
    """

    convolved = None  # two vectors at once are two windows at once

    def effort(self, **seen: float) -> Effort:
        """Outputs are written and read once more."""
        effort = super().effort(**seen)
        bits = self.operation.output.size * self.operation.output.format.bits
        effort.access("values", self.behind.storage.bits, bits, bits)
        return effort


@realises(Linear, ADDERS)
class AdderLinearStage(AdderStage):
    """The same as adders that the outputs share, a vector a cycle (`rtl.dataflow.adders`).

    Latency     a third of the adders of the longest row, and of one more for the saturation, rounded up; output FIFO 1
    """

    @classmethod
    def matrix(cls, operation: Linear) -> np.ndarray:
        return operation.weight
