"""Sum over the tokens: one running sum per channel, results as the last token passes."""

from __future__ import annotations

from bittrue.rtl.dataflow.stage import realises
from bittrue.rtl.dataflow.sums import SumStage
from bittrue.sim.operations.mean import Mean


@realises(Mean)
class MeanStage(SumStage):
    """`y[..., c] = requantize(sum_t x[..., t, c])`.

    Latency     (T - 1) * C / lanes + depth cycles
    Throughput  one input beat a cycle, C / lanes output beats a sum
    """

    def __init__(self, operation: Mean, *, lanes: int):
        super().__init__(operation, lanes=lanes, terms=operation.terms, frame=operation.output.tokens)
