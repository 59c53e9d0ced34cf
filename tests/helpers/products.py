"""Programs of one matrix product, of formats that share a multiplier or do not."""

from __future__ import annotations

import numpy as np

from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize

S8, U8 = Format(8), Format(8, signed=False)
#: Of weights and of codes.
FORMATS = [(S8, S8), (S8, U8), (Format(4), U8), (Format(5), Format(3)), (U8, S8)]


def program(weight: np.ndarray, weight_format: Format, code: Format, tokens: int, rng=None) -> Program:
    """One product whose sums come out as they are, or are requantised to 8 bits."""
    kind = TensorType((tokens, weight.shape[1]), code)
    whole = Requantize(len(weight), 0, format=Format(20))
    if rng is not None:
        whole = Requantize(len(weight), rng.integers(0, 9, len(weight)), bias=rng.integers(-99, 99, len(weight)))
    return Program({"x": kind}, (Node("y", Linear(kind, weight, whole, weight_format), ("x",)),), "y")
