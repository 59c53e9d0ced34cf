"""A stage of shared adders as a whole: every vector that comes in gives the golden simulator's results, in order.

Small matrices of few bits, but every vector in every order, every stall, any reset; the golden results are taken from
the simulator.
"""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Array, Cat, Const

from bittrue.rtl.dataflow.stage import realisation, register, shape_of, valid_chain
from bittrue.sim.contract import Format
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from tests.helpers.formal import Bench, Driven, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
S3, S4, U2 = Format(3), Format(4), Format(2, signed=False)
WEIGHT = np.array([[7, -6, 11], [-3, -6, 0], [7, -6, -5]])
OPERATIONS = {
    "relu": Linear(TensorType((3,), S3), WEIGHT, Requantize(3, [2, 1, 3], [1, -1, 0], [1, 0, -7], format=S4, floor=0)),
    "unsigned codes": Linear(TensorType((3,), U2), WEIGHT, Requantize(3, [2, 0, 3], format=S4)),
    "no saturation": Linear(TensorType((3,), U2), WEIGHT, Requantize(3, 0, format=Format(8))),
    "multipliers": Linear(TensorType((3,), U2), WEIGHT, Requantize(3, [4, 3, 5], multiplier=[5, 3, 7], format=S4)),
    "affine": Affine(TensorType((2,), S4), np.array([-7, 5]), Requantize(2, [2, 1], [0, 2], format=S4)),
}


def matrix(op: Operation) -> tuple[Bench, int]:
    make = realisation(op, "adders")
    (folding,) = make.foldings(op)
    inputs, outputs, fmt = folding.simd, folding.pe, op.input.format
    dut = Driven(stage := make(op, lanes=inputs, simd=inputs, pe=outputs))
    b, depth = dut.b, stage.timing.depth
    vectors = np.stack(np.meshgrid(*[fmt.codes()] * inputs, indexing="ij"), -1).reshape(-1, inputs)
    golden = op.run(vectors.astype(fmt.dtype))[0].astype(int)
    index = Cat(stage.i.payload[k].as_unsigned() ^ (-fmt.low) for k in reversed(range(inputs)))
    due = valid_chain(b.m, stage.i.valid & stage.i.ready, depth - 1)[-1]
    b.holds("pushed_when_due", dut.outlet.push == due)
    shape = shape_of(op.output.format)
    for n in range(outputs):
        table = Array(Const(int(v), shape) for v in golden[:, n])[index]
        expected = register(b.m, table, shape, name=f"expected{n}", cycles=depth - 1)
        b.holds(f"result_{n}_equals_golden", ~due | (dut.outlet.payload[n] == expected))
    return b, depth


@pytest.mark.parametrize("name", OPERATIONS)
def test_equals_golden(name):
    assert prove(*matrix(OPERATIONS[name])) == "proved"


PIPE, STAGE = "rtl.dataflow.adders.pipe", "rtl.dataflow.adders.stage:AdderStage"
FAULTS = {
    "a sign taken for a bit": (f"{PIPE}:_added", "upper.as_signed() if signed else upper", "upper", "relu"),
    "added, not subtracted": (f"{PIPE}:_added", "upper - b if adder.minus_b", "upper + b if adder.minus_b", "relu"),
    "a bit too few": (f"{PIPE}:shape_of_value", "kept.high)", "kept.high >> 1)", "unsigned codes"),
    "another vector's value": (
        f"{PIPE}:AdderPipe.build",
        "return kept[cycle - self.made[value]]",
        "return kept[0]",
        "multipliers",
    ),
    "a shift for another": (f"{STAGE}.elaborate", "zip(sums, shifts", "zip(sums, shifts[::-1]", "relu"),
    "pushed too early": (f"{STAGE}.elaborate", "outlet.push.eq(valid[-1])", "outlet.push.eq(valid[-2])", "affine"),
    "no rounding": (
        "rtl.dataflow.adders.stage:constants",
        "((np.int64(1) << r.shift) >> np.int64(1)) + (r.bias",
        "(r.bias",
        "affine",
    ),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, name = FAULTS[fault]
    with planted(*place):
        assert prove(*matrix(OPERATIONS[name])).startswith("refuted: ")
