"""Saturation, rounding and tables: a stage that works on every code by itself gives what the golden simulator gives.

Every code of the input's format, in every channel, in any order of arrivals and stalls; the golden result of each is
taken from the simulator, not from a formula written again.
"""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Array, Cat, Const, Mux, Signal

from bittrue.rtl.dataflow.stage import realisation, register, shape_of, valid_chain
from bittrue.sim.contract import Format
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.requantize import Requantize
from tests.helpers.formal import Bench, Driven, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
RNG = np.random.default_rng(5)
S3, S4, S5, U3, U4 = Format(3), Format(4), Format(5), Format(3, False), Format(4, False)


def kind(fmt: Format, channels: int = 1) -> TensorType:
    return TensorType((1, channels), fmt)


OPERATIONS = {
    "add, saturating": (Add(kind(S4), kind(S4), S4), 1),
    "add, signs mixed": (Add(kind(S3, 2), kind(U4, 2), U3), 2),
    "add, no saturation": (Add(kind(S3), kind(U3), S5), 1),
    "clamp": (Clamp(kind(S5), -3, 6, S4), 1),
    "clamp to nothing below 0": (Clamp(kind(S4, 2), 0, 5, U3), 2),
    "lerp, shared": (Lerp(kind(S5), RNG.integers(-8, 8, (1, 5)), S4), 1),
    "lerp, by channel": (Lerp(kind(S4, 3), RNG.integers(-16, 16, (3, 5)), S5), 1),
    "lerp, with a multiplier": (Lerp(kind(Format(6), 2), RNG.integers(-16, 16, (2, 3)), S5), 2),
    "lerp, a table": (Lerp(kind(U4), RNG.integers(0, 16, (1, 17)), U4), 1),
    "affine": (Affine(kind(S4), np.array([-7]), Requantize(1, 2, 1, 3, format=S3)), 1),
    "affine, by channel": (
        Affine(
            kind(S4, 3), np.array([5, -7, 3]), Requantize(3, [0, 2, 3], [1, 0, -2], multiplier=[1, 3, 2], format=S4)
        ),
        1,
    ),
}


def golden(operation: Operation) -> np.ndarray:
    """The result for every code, or pair of codes, int64 `[codes, channels]`; the first operand counts fastest."""
    grids = np.meshgrid(*(t.format.codes() for t in operation.inputs), indexing="ij")
    x = [
        np.broadcast_to(grid.ravel(order="F")[:, None, None], (grid.size, *t.shape)).astype(t.format.dtype)
        for grid, t in zip(grids, operation.inputs, strict=True)
    ]
    return operation.run(*x)[0][:, 0].astype(np.int64)


def values(operation: Operation, lanes: int) -> tuple[Bench, int]:
    dut = Driven(stage := realisation(operation)(operation, lanes=lanes))
    b, end, depth = dut.b, dut.outlet, stage.timing.depth
    channels, table = operation.output.channels, golden(operation)
    groups = channels // lanes
    go = Cat(*(operand.valid & operand.ready for operand in stage.operands)).all()
    group = Signal(range(max(2, groups)), name="group")
    with b.m.If(go):
        b.m.d.sync += group.eq(Mux(group == groups - 1, 0, group + 1))
    ago = [group]  # what it was so many cycles ago: a requantiser counts when the products come to it
    for k in range(1, getattr(stage, "arrival", 2)):
        ago.append(Signal(range(max(2, groups)), name=f"group_{k}"))
        b.m.d.sync += ago[k].eq(ago[k - 1])
    after = ago[-1]
    b.holds("group_is_legal", Cat(*(g < groups for g in ago)).all())
    for name, same in {"group": after, "weight_group": group, "requantize_group": after}.items():
        if name in dut.inside.signals:
            b.holds(f"{name}_counts_with_the_bench", dut.inside[name] == same)
    due = valid_chain(b.m, go, depth - 1)[-1]
    b.holds("pushed_when_due", end.push == due)
    for lane in range(lanes):
        shape = shape_of(operation.output.format)
        index = Cat(
            operand.payload[lane].as_unsigned() ^ (-fmt.format.low)
            for operand, fmt in zip(stage.operands, operation.inputs, strict=True)
        )
        rows = [Array(Const(int(v), shape) for v in table[:, c])[index] for c in range(lane, channels, lanes)]
        expected = register(b.m, Array(rows)[group], shape, name=f"expected{lane}", cycles=depth - 1)
        b.holds(f"equals_golden_{lane}", ~due | (end.payload[lane] == expected))
    return b, depth


@pytest.mark.parametrize("name", OPERATIONS)
def test_equals_golden(name):
    assert prove(*values(*OPERATIONS[name])) == "proved"


STAGES = "rtl.dataflow.stages"
FAULTS = {
    "wraps": (f"{STAGES}.add:AddStage.elaborate", "total > fmt.high", "total > 2 * fmt.high", "add, saturating"),
    "saturates too low": (
        f"{STAGES}.add:AddStage.elaborate",
        "total < fmt.low",
        "total <= fmt.low + 1",
        "add, signs mixed",
    ),
    "a bound forgotten": (f"{STAGES}.clamp:ClampStage.elaborate", "Mux(x < lowest, lowest, x)", "x", "clamp"),
    "rounds down": (
        f"{STAGES}.lerp:LerpStage.elaborate",
        "(product + (1 << (f - 1))) >> f",
        "product >> f",
        "lerp, shared",
    ),
    "a bit of the rest lost": (
        f"{STAGES}.lerp:LerpStage.elaborate",
        "for k in range(f))",
        "for k in range(f - 1))",
        "lerp, by channel",
    ),
    "another channel": (
        f"{STAGES}.lerp:LerpStage.elaborate",
        "groups - 1, valid[1]",
        "groups - 1, valid[2]",
        "lerp, by channel",
    ),
    "an old rest": (
        f"{STAGES}.lerp:LerpStage.elaborate",
        'rest{lane}", cycles=2',
        'rest{lane}", cycles=3',
        "lerp, with a multiplier",
    ),
    "the sign": (f"{STAGES}.lerp:LerpStage.elaborate", "^ (-op.input.format.low)", "", "lerp, by channel"),
    "weights out of step": (
        f"{STAGES}.affine:AffineStage.elaborate",
        "lanes_in, go)",
        "lanes_in, valid[1])",
        "affine, by channel",
    ),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, name = FAULTS[fault]
    with planted(*place):
        bench, steps = values(*OPERATIONS[name])
        assert prove(bench, steps, 12).startswith("refuted: ")
