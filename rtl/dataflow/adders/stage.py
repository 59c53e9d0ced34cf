"""The stage of a constant matrix as shared adders: a whole vector in, a whole vector out, one every cycle.

    y = saturate(max(((W x + bias_acc) multiplier + 2^(shift - 1) + bias 2^shift) >> shift, floor))

All but the last two steps is one matrix and one constant, so everything up to the shift, which is wires, is adders that
the outputs share (`rtl.dataflow.adders.solver`). There is no multiplier, no memory and no constant that is read.
"""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Module

from bittrue.rtl.dataflow.adders.pipe import EVERY, AdderPipe
from bittrue.rtl.dataflow.adders.solver import count_terms, least_levels, solve
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.stage import Stage, Structure, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.contract import MAX_BITS, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.requantize import Requantize

#: The name of the architecture.
ADDERS = "adders"
#: Most signed digits of a matrix: some 4,800 random INT8 weights, which take ten seconds and all of an ECP5-85k.
LARGEST = 12_000


def constants(r: Requantize) -> tuple[np.ndarray, np.ndarray]:
    """What is added before and after the multiplication by the multiplier, int64 `[N]` each."""
    after = ((np.int64(1) << r.shift) >> np.int64(1)) + (r.bias << r.shift)
    return (r.bias_acc + after, np.zeros_like(after)) if r.pure_shift else (r.bias_acc, after)


class AdderStage(Stage):
    """A matrix, all of it in every cycle; a subclass says which (`matrix`).

    Latency     the longest row in adders, and 1 for the saturation, by 3; output FIFO 1 cycle
    Throughput  one vector a cycle
    Stall       back-pressure stops the vectors that come in, never the pipeline
    """

    folds = True
    whole_beats = True

    def __init__(self, operation, *, lanes: int, simd: int, pe: int):
        matrix, r = self.matrix(operation), operation.requantize
        if reason := self.refusal(operation):
            raise BittrueError(f"{ADDERS}: {reason}; take another architecture")
        outputs, inputs = matrix.shape
        if (lanes, simd, pe) != (inputs, inputs, outputs):
            raise BittrueError(
                f"{ADDERS}: {lanes} lanes, simd = {simd}, pe = {pe}, but a whole vector goes in and out: "
                f"{inputs} lanes, simd = {inputs}, pe = {outputs}"
            )
        self.operation = operation
        before, after = constants(r)
        low, high = operation.sums
        ends = [((end + before) * r.multiplier + after) >> r.shift for end in (low, high)]
        #: What is left of the requantiser once everything is added and shifted: saturation and floor, one step at most.
        self.clamp = RequantizePipe(Requantize(outputs, 0, format=r.format, floor=r.floor), *ends, outputs)
        self.kept = [Range(int(least), int(most)) for least, most in zip(*ends, strict=True)]
        behind = self.clamp.cycles
        levels = -(-(least_levels(matrix, before) + behind) // EVERY) * EVERY - behind
        graph = solve(matrix, before, operation.input.format, levels, r.multiplier, after)
        self.pipe = AdderPipe(graph, operation.input.format, behind)
        depth = self.pipe.cycles + 1
        self.timing = Blocks(depth=depth, credits=enough_credits(depth), frame=operation.input.tokens)
        super().__init__([(operation.input.format, lanes)], (operation.output.format, outputs))

    @classmethod
    def matrix(cls, operation) -> np.ndarray:
        """The constant matrix of an operation, int64 `[N, K]`; only where none of it is held."""
        raise NotImplementedError

    @classmethod
    def refusal(cls, operation) -> str | None:
        """Why an operation cannot be adders; None where it can."""
        if written := [held.name for held in operation.held.values()]:
            return f"{written[0]!r} is written while it runs, and adders are of constants"
        terms = int(count_terms(cls.matrix(operation)).sum())
        if terms > LARGEST:
            return f"its weights have {terms:,} signed digits to be added, over {LARGEST:,}"
        r, (low, high) = operation.requantize, operation.sums
        before, after = constants(r)
        most = max(int(np.abs((end + before).astype(float) * r.multiplier + after).max()) for end in (low, high))
        if most.bit_length() + 1 > MAX_BITS:
            return f"its sums with what is added to them have {most.bit_length() + 1} bits, over {MAX_BITS}"
        return None

    @classmethod
    def preferred(cls, operation, interval: int) -> bool:
        """Where a cycle a vector is left, every weight would have a multiplier of its own."""
        return operation.weight.size > 1 and interval < 2 * operation.input.tokens

    @classmethod
    def foldings(cls, operation) -> list[Folding]:
        """The only one: everything at once."""
        outputs, inputs = cls.matrix(operation).shape
        return [Folding(inputs, outputs, ADDERS)]

    @classmethod
    def intervals(cls, operation) -> set[int]:
        """One cycle a vector."""
        return {operation.input.tokens}

    @classmethod
    def fold(cls, operation, interval: int, name: str) -> Folding:
        """Everything at once, if a cycle a vector is fast enough."""
        tokens = operation.input.tokens
        if interval < tokens:
            raise BittrueError(
                f"{name}: {tokens} vectors take at least {tokens} cycles a frame, "
                f"so an interval of {interval} cannot be reached"
            )
        return cls.foldings(operation)[0]

    def structure(self) -> Structure:
        built = super().structure() + self.pipe.structure() + self.clamp.structure()
        if not self.clamp.cycles:
            built.registers += sum(kept.bits for kept in self.kept)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every adder, once a vector."""
        effort, graph = Effort(), self.pipe.graph
        for k in range(graph.first, graph.first + len(graph.adders)):
            if bits := self.pipe.sum_bits(k):
                effort.add(bits, self.operation.input.tokens)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        valid = valid_chain(m, go, self.timing.depth - 1)
        sums = self.pipe.build(m, [self.i.payload[k] for k in range(self.lanes_in)])
        shifts = self.operation.requantize.shift.tolist()
        values = [total >> shift for total, shift in zip(sums, shifts, strict=True)]
        if self.clamp.cycles:
            values = self.clamp.build(m, values, valid[self.pipe.cycles - 1])
        else:
            values = [
                register(m, value, shape_of(kept), name=f"y{n}")
                for n, (value, kept) in enumerate(zip(values, self.kept, strict=True))
            ]
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid[-1])]
        m.d.comb += [outlet.payload[n].eq(value) for n, value in enumerate(values)]
        return m
