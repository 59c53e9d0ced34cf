"""The requantiser equals its formula for every accumulator and every constant that can occur, in any order of beats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.stage import register, shape_of
from bittrue.rtl.parts.held import Table
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.contract import INT8, Format
from bittrue.sim.held import Held, bounds
from bittrue.sim.requantize import Requantize
from tests.helpers.formal import Bench, Inside, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
MODULE = "rtl.parts.requantize"


@dataclass(frozen=True)
class Case:
    """A requantiser, its lanes, and the accumulators that it may meet."""

    requantize: Requantize
    low: int
    high: int
    lanes: int = 1


def held(name: str, low: int, high: int, channels: int) -> Held:
    return Held(name, (channels,), low, high)


U4, S5 = Format(4, signed=False), Format(5)
CASES = {
    "clamp only": Case(Requantize(1, 0), -1000, 1000),
    "nothing to do": Case(Requantize(1, 0), -128, 127),
    "shift": Case(Requantize(1, 9), -(1 << 22), 1 << 22),
    "widest": Case(Requantize(1, 37), -(1 << 46), (1 << 46) - (1 << 37) - 1),
    "relu": Case(Requantize(1, 5, 3, -77, format=INT8, floor=0), -30000, 30000),
    "unsigned": Case(Requantize(1, 3, -2, format=U4), -300, 300),
    "never negative": Case(Requantize(1, 4, 0, format=U4), 0, 5000),
    "multiplier": Case(Requantize(1, 12, 5, -333, 201), -40000, 40000),
    "wide multiplier": Case(Requantize(1, 31, -4, 0, 40503), -(1 << 21), 1 << 21),
    "by channel": Case(Requantize(3, [0, 5, 13], [1, -7, 20], [-4, 100, 2222], format=S5), -70000, 70000),
    "multiplier by channel": Case(Requantize(3, [0, 3, 9], [1, -7, 20], [-4, 10, 22], [1, 7, 29]), -900, 900),
    "two lanes": Case(Requantize(4, [3, 3, 6, 3], [0, 1, 0, 9], [0, 0, 5, 0], floor=-3), -9000, 9000, 2),
    "held shift": Case(Requantize(1, held("s", 2, 9, 1), 0), -70000, 70000),
    "held shift from 0": Case(Requantize(1, held("s", 0, 9, 1), 4, format=U4), -70000, 70000),
    "held biases": Case(Requantize(1, 4, held("b", -600, 600, 1), held("a", -500, 700, 1)), -9000, 9000),
    "held multiplier": Case(Requantize(1, 5, 2, 3, held("f", 1, 7, 1), floor=-5), -300, 300),
    "all held": Case(
        Requantize(1, held("s", 1, 5, 1), held("b", -9, 9, 1), held("a", -5, 7, 1), held("f", 1, 3, 1)), -150, 150
    ),
}


def formula(r: Requantize, acc: Value, numbers: dict[str, Value]) -> Value:
    """The equation of `Requantize`, as wide as Amaranth makes it: no width, no order of steps is that of the RTL."""
    scaled = (acc + numbers["bias_acc"]) * numbers["multiplier"]
    shift = numbers["shift"].as_unsigned()
    half = (Const(1) << shift) >> 1
    rounded = (scaled + half) >> shift
    y = rounded + numbers["bias"]
    y = Mux(y < r.low, r.low, y)
    return Mux(y > r.format.high, r.format.high, y)


def bench(case: Case) -> tuple[Bench, int, int]:
    """Beats with gaps, any accumulators in their range and any held numbers within their bounds."""
    r, b = case.requantize, Bench()
    ends = (np.full(r.channels, case.low), np.full(r.channels, case.high))
    pipe = RequantizePipe(r, *ends, case.lanes)
    groups = r.channels // case.lanes
    dut = Module()
    early = b.free(1, "early")
    accs = [b.free(shape_of(Format.covering(case.low, case.high, signed=True)), f"acc{k}") for k in range(case.lanes)]
    for acc in accs:
        b.assume((acc >= case.low) & (acc <= case.high))
    drawn: dict[str, list[Value]] = {}

    def build(self: Table, m: Module, name: str, address: Value, early: bool = False) -> data.View:  # noqa: ARG001
        """In place of the memory: any stored values of held numbers within their bounds."""
        values = []
        for k in range(self.slots):
            value = b.free(shape_of(Format.covering(self.held.low, self.held.high, signed=True)), f"{name}_held{k}")
            b.assume((value >= self.held.low) & (value <= self.held.high))
            values.append(value)
        drawn[self.held.name] = values
        layout = data.ArrayLayout(shape_of(self.format), self.slots)
        row = Signal(layout)
        for k, value in enumerate(values):
            m.d.comb += row[k].eq(self.stored(value))
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "build", build)
        codes = pipe.build(dut, accs, early, held=Const(0))
    results = [Signal(shape_of(r.format), name=f"result{k}") for k in range(case.lanes)]
    dut.d.comb += [result.eq(code) for result, code in zip(results, codes, strict=True)]
    inside = Inside(b, dut)

    # Which channels a beat has: the bench counts for itself.
    group, at = Signal(range(max(2, groups))), Signal(range(max(2, groups)))
    with b.m.If(early):
        b.m.d.sync += [at.eq(group), group.eq(Mux(group == groups - 1, 0, group + 1))]
    if "requantize_group" in inside.signals:
        b.holds("counts_with_the_bench", inside["requantize_group"] == group)
    b.holds("group_is_legal", (group < groups) & (at < groups))
    valid = Signal()
    b.m.d.sync += valid.eq(early)

    def later(value: Value, name: str) -> Value:
        return register(b.m, Value.cast(value), name=name, cycles=pipe.cycles)

    for lane, result in enumerate(results):
        numbers = {}
        for name in ("shift", "bias", "bias_acc", "multiplier"):
            given = getattr(r, name)
            if isinstance(given, Held):
                numbers[name] = drawn[given.name][lane]
            else:
                shape = shape_of(Format.covering(*bounds(given), signed=True))
                numbers[name] = Value.cast(Array(Const(int(v), shape) for v in given[lane :: case.lanes])[at])
        expected = later(formula(r, accs[lane], numbers), f"expected{lane}")
        due = later(valid, f"due{lane}")
        b.holds(f"equals_the_formula_{lane}", ~due | (result == expected))
    return b, pipe.cycles + 2, pipe.cycles + groups + 1


@pytest.mark.parametrize("name", long_but(CASES, *[*CASES][::2]))
def test_equals_the_formula(name):
    assert prove(*bench(CASES[name])) == "proved"


#: Where a fault is planted, the text it replaces and what stands there then; and a case whose proof must notice.
FAULTS = {
    "no half before": ("__init__", "r.bias_acc + half[0] if joined", "r.bias_acc if joined", "shift"),
    "no half after": (
        "__init__",
        'self.numbers["after"] = half[0]',
        'self.numbers["after"] = 0 * half[0]',
        "multiplier",
    ),
    "a sum too narrow": ("__init__", 'add("bias", low + least, high + most)', 'add("bias", low, high)', "held biases"),
    "a product too narrow": (
        "__init__",
        "high * least, high * most)",
        "high * least, high * least)",
        "held multiplier",
    ),
    "no clamp above": ("__init__", " or high.max() > r.format.high", "", "never negative"),
    "a clamp one too high": ("outside", "1).bit_length() - 1", "1).bit_length()", "clamp only"),
    "a constant too early": ("build", "cycles=position\n", "cycles=max(position - 1, 0)\n", "by channel"),
    "half of another shift": ("_half", "[: most + 1]", "[:most]", "held shift"),
    "a shift cut": ("build", "step.amount + 2]", "step.amount + 1]", "by channel"),
    "a clamp below by too few bits": ("outside", "negative & ~rest.all()", "negative & ~rest.any()", "clamp only"),
    "a floor forgotten": ("outside", "under = negative\n", "under = Const(0, 1)\n", "relu"),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    where, right, wrong, name = FAULTS[fault]
    with planted(f"{MODULE}:{where if where == 'outside' else f'RequantizePipe.{where}'}", right, wrong):
        assert prove(*bench(CASES[name])) == "refuted: equals_the_formula_0"


def test_another_order_of_channels_is_found():
    with planted(f"{MODULE}:_in_order", "Mux(group == groups - 1", "Mux(group == groups - 2"):
        assert prove(*bench(CASES["by channel"])).startswith("refuted: ")
