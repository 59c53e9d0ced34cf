"""The largest code of each channel over the taps of a window."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Value

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Structure, realises
from bittrue.rtl.dataflow.sums import RunningStage, codes
from bittrue.sim.operations.maximum import Maximum


@realises(Maximum)
class MaximumStage(RunningStage):
    """`y[..., c] = max_t x[..., t, c]`.

    Latency     (T - 1) * C / lanes + depth cycles; depth = code 1, largest 1, output FIFO 1
    Throughput  one input beat a cycle, C / lanes output beats a vector
    """

    def __init__(self, operation: Maximum, *, lanes: int):
        super().__init__(
            operation,
            lanes=lanes,
            terms=operation.terms,
            totals=[operation.accumulator] * lanes,
            frame=operation.output.tokens,
        )

    def structure(self) -> Structure:
        built = super().structure()
        built.registers += self.lanes_in * self.operation.input.format.bits
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """A comparison for each code."""
        op, effort = self.operation, Effort()
        bits = op.input.format.bits
        effort.add(bits, op.input.size)
        effort.access("state", op.input.channels * bits, op.input.size * bits, op.input.size * bits)
        return effort

    def terms_of(self, m: Module, go: Value, bank: Value | None) -> Sequence[Value]:  # noqa: ARG002
        return codes(self, m)

    def following(self, first: Value, before: Value, term: Value) -> Value:
        # The sign of a difference is a bit of a sum; a comparison would have to take a carry out of its chain.
        return Mux(first | (before - term)[-1], term, before)
