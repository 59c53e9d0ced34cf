"""Sum over the tiles of a photonic array: one running sum per output, results as the last tile passes."""

from __future__ import annotations

from bittrue.rtl.dataflow.stage import realises
from bittrue.rtl.dataflow.sums import SumStage
from bittrue.sim.operations.tile_sum import TileSum


@realises(TileSum)
class TileSumStage(SumStage):
    """`acc[n] = sum_k code[k, n] << shift`, `y[n] = requantize(acc[n])`, token by token.

    The codes are added up as they are: the step of the converter is the same for all, and costs wires only.

    Latency     (tiles - 1) * N / lanes + depth cycles
    Throughput  one input beat a cycle, N / lanes output beats a token
    """

    def __init__(self, operation: TileSum, *, lanes: int):
        super().__init__(operation, lanes=lanes, terms=operation.tiles, frame=operation.tokens, step=operation.shift)
