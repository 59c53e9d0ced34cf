"""Other axes for the same codes in the same order: the stream itself."""

from __future__ import annotations

from bittrue.rtl.dataflow.stage import Stage, realises
from bittrue.sim.operations.reshape import Reshape


@realises(Reshape)
class ReshapeStage(Stage):
    """`y.flat[k] = x.flat[k]`: nothing is built; whoever reads the result reads the operand's stream."""

    wires = True
