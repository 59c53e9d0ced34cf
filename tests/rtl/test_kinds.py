"""Stages that read and give out in other ways than blocks, any number of operands and readers: to the cycle."""

from __future__ import annotations

import numpy as np
import pytest

from bittrue.rtl.dataflow.plan import Plan, plan, size_fifos
from bittrue.rtl.dataflow.schedule import simulate
from bittrue.rtl.dataflow.timing import Blocks
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.cycles import by_cycles
from tests.helpers.kinds import KINDS, Moved
from tests.helpers.lengths import long_but
from tests.helpers.programs import stimulus
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import batches, exact_to_the_cycle


def alone(kind: str, seed: int) -> tuple[Plan, np.random.Generator]:
    """A stage of this kind, with nothing before or behind it but its inputs' converters."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    operation = Moved.example(rng)
    while operation.kind != kind:
        operation = Moved.example(rng)
    inputs = {f"x{k}": kind for k, kind in enumerate(operation.inputs)}
    lanes = int(np.gcd.reduce([kind.channels for kind in operation.inputs]))
    program = Program(inputs, (Node("y", operation, tuple(inputs)),), "y")
    return size_fifos(Plan(program, {}, dict.fromkeys(inputs, lanes))), rng


@pytest.mark.parametrize("seed", long_but(range(6), *range(3)))
@pytest.mark.parametrize("kind", KINDS)
class TestAlone:
    def test_to_the_cycle_and_right_under_stalls(self, kind, seed):
        planned, rng = alone(kind, seed)
        bench = StageBench(planned)
        exact_to_the_cycle(bench, batches(planned, rng, 6))
        x = batches(planned, rng, 4)
        for idle, backpressure in ((0.5, 0.0), (0.0, 0.6), (0.3, 0.3)):
            result = bench.run(x, idle, backpressure, seed)
            np.testing.assert_array_equal(result.outputs, planned.program.reference(*x))

    def test_what_the_stage_says_of_itself(self, kind, seed):
        """Its latency and interval are those of the cycle-by-cycle handshake of it alone."""
        planned, _ = alone(kind, seed)
        stage = planned.network.elements[planned.network.made["y"]].stage
        timing, beats = stage.timing, planned.program.output.size // stage.lanes_out
        reads = [~k for k in range(timing.operands)]
        truth = by_cycles([timing], [reads], timing.supply, [(0, beats)], 6)
        (first,), (ends,) = truth.first, truth.ends
        assert (stage.latency, stage.interval) == (first, ends[-1] - ends[-2])


class Growing:
    """A program under construction; weights are random, shifts bring sums back into range."""

    def __init__(self, seed: int, **inputs: TensorType):
        self.rng = np.random.default_rng(seed)
        self.build = Builder(inputs)

    def add(self, name: str, operation, *operands: str) -> str:
        return self.build.add(name, operation, *operands)

    def linear(self, name: str, x: str, outputs: int) -> str:
        kind = self.build.types[x]
        shift = np.full(outputs, 5)
        requantize = Requantize(outputs, shift, np.zeros(outputs, np.int64), format=INT8)
        return self.add(name, Linear(kind, self.rng.integers(-128, 128, (outputs, kind.channels)), requantize), x)

    def moved(self, name: str, kind: str, *operands: str) -> str:
        return self.add(name, Moved(kind, *(self.build.types[k] for k in operands)), *operands)

    def transpose(self, name: str, x: str) -> str:
        return self.add(name, Transpose(self.build.types[x]), x)

    def sum(self, name: str, a: str, b: str) -> str:
        return self.add(name, Add(self.build.types[a], self.build.types[b]), a, b)

    def mean(self, name: str, x: str) -> str:
        kind = self.build.types[x]
        requantize = Requantize(
            kind.channels, np.full(kind.channels, 2), np.zeros(kind.channels, np.int64), format=INT8
        )
        return self.add(name, Mean(kind, requantize), x)


def rows(seed: int) -> Program:
    """Windows of rows, as a convolution reads them, then fewer and then more rows."""
    grow = Growing(seed, x=TensorType((10, 4), INT8))
    x = grow.linear("first", "x", 6)
    x = grow.linear("second", grow.moved("window", "window", x), 4)
    x = grow.moved("pool", "pool", x)
    x = grow.linear("third", grow.moved("upsample", "upsample", x), 4)
    return grow.build.program(grow.mean("mean", grow.moved("window2", "window", x)))


def branches(kind: str, seed: int) -> Program:
    """Three branches of one tensor, of which one takes a frame, joined by an operation of three operands."""
    grow = Growing(seed, x=TensorType((6, 6), INT8))
    x = grow.linear("first", "x", 6)
    a = grow.transpose("back", grow.linear("tokens", grow.transpose("turn", x), 6))
    b = grow.linear("narrow", x, 6 if kind == "sum" else 4)
    return grow.build.program(grow.linear("last", grow.moved("join", kind, a, b, x), 5))


def readers(count: int) -> Program:
    """One tensor with so many readers, which are added up."""
    grow = Growing(count, x=TensorType((3, 4), INT8))
    x = grow.linear("first", "x", 4)
    parts = [grow.linear(f"part{k}", x, 4) for k in range(count - 1)]
    total = x
    for k, part in enumerate(parts):
        total = grow.sum(f"sum{k}", total, part)
    return grow.build.program(total)


PROGRAMS = {
    "rows": lambda: rows(0),
    "concat": lambda: branches("concat", 1),
    "held": lambda: branches("held", 2),
    "three operands": lambda: branches("sum", 3),
    "nine readers": lambda: readers(9),
    "seventeen readers": lambda: readers(17),
}


@pytest.mark.long
@pytest.mark.parametrize("name", long_but(PROGRAMS, *[name for name in PROGRAMS if "seventeen" not in name]))
@pytest.mark.parametrize("interval", long_but([200, 480], 200))
def test_in_a_network(name, interval):
    """Planned, FIFOs and all; every frame ends when the plan says, and codes are right under stalls."""
    program = PROGRAMS[name]()
    planned = plan(program, interval=interval)
    frames = planned.estimated_latency // planned.estimated_interval + 5
    bench = StageBench(planned)
    x = stimulus(program, frames, 1)
    result = bench.run(x)
    np.testing.assert_array_equal(result.outputs, program.reference(*x))
    assert (result.latency, result.interval) == (planned.estimated_latency, planned.estimated_interval)
    assert result.ends == planned.network.schedule(frames).ends.tolist()
    few = [v[:4] for v in x]
    stalled = bench.run(few, idle=0.3, backpressure=0.4, seed=1)
    np.testing.assert_array_equal(stalled.outputs, program.reference(*few))


def test_as_many_readers_as_anybody_wants():
    """The schedule of a fork with 40 readers, against the handshake."""
    stages = [Blocks(), *(Blocks(depth=1 + k % 7, credits=8) for k in range(40)), Blocks(operands=40)]
    reads = [[~0], *([0] for _ in range(40)), list(range(1, 41))]
    found = simulate(stages, reads, [5], [(41, 5)], 4)
    assert found.output_ends.tolist() == by_cycles(stages, reads, [5], [(41, 5)], 4).ends
