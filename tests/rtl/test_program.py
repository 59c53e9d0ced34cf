"""Whole programs in RTL: equal to the golden simulator bit for bit, and exact to the cycle, over random geometries.

Three executions of one pipeline: Amaranth's own simulator (no build, so many geometries), Verilator's C++ in the
batch loop (many frames), and cocotb under Icarus and Verilator (an independent AXI4-Stream driver).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bittrue.flow.run import cosim
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, divisors, plan
from bittrue.rtl.verilog import emit
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from tests.helpers.exact import exact, exact_compiled, settled
from tests.helpers.lengths import long_but
from tests.helpers.programs import AWKWARD, awkward, often_several, resmlp, segment, several, stimulus, two_inputs

SIMULATORS = [pytest.param("icarus", marks=pytest.mark.needs("iverilog")), "verilator"]


def random_foldings(program: Program, rng: np.random.Generator) -> dict[str, Folding]:
    """Any divisors for every matrix stage, balanced or not; some pairs of outputs share multipliers."""
    found = {}
    for node in program.nodes:
        if isinstance(node.operation, Linear):
            outputs, inputs = node.operation.weight.shape
            simd, pe = int(rng.choice(divisors(inputs))), int(rng.choice(divisors(outputs)))
            found[node.name] = Folding(simd, pe, "parallel" if pe % 2 else str(rng.choice(["parallel", "packed"])))
    return found


def random_program(seed: int) -> tuple[Program, np.random.Generator]:
    rng = np.random.default_rng([7, seed])
    program = resmlp(
        tokens=int(rng.choice([1, 2, 3, 4])),
        features=int(rng.integers(1, 7)),
        channels=int(rng.integers(1, 7)),
        hidden=int(rng.integers(1, 9)),
        classes=int(rng.integers(1, 5)),
        nonlinearity=["lerp", "relu"][seed % 2],
        segments=int(2 ** rng.integers(0, 9)),
        seed=seed,
    )
    return often_several(program, np.random.default_rng([8, seed])), rng


class TestTheProgramsAreAlive:
    """What the rest of this file compares would be equal too easily if every code were 0 or saturated."""

    @pytest.mark.parametrize(
        "program",
        [resmlp(tokens=8, channels=8, hidden=12, blocks=2), resmlp(channels=8, nonlinearity="relu"), two_inputs()],
        ids=["lerp", "relu", "two inputs"],
    )
    def test_codes_spread_and_few_saturate(self, program):
        trace = program.trace(*stimulus(program, 64, 0))
        for name, codes in trace.tensors.items():
            if name not in program.inputs:
                assert len(np.unique(codes)) >= 40, name
                assert trace.saturation[name] <= 0.05 * codes.size, name

    def test_segments_are_the_program(self):
        program = resmlp(blocks=2)
        (x,) = stimulus(program, 8, 0)
        expected = program(x)
        for start, stop in pairwise(("x", *program.meta["boundaries"], "classifier")):
            x = segment(program, start, stop)(x)
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("seed", long_but(range(12), *range(3)))
def test_random_geometry_and_folding(seed):
    program, rng = random_program(seed)
    exact(plan(program, folding=random_foldings(program, rng)), seed)


@pytest.mark.parametrize("interval", long_but([12, 24, 36, 72], 24, 72))
def test_planned_intervals(interval):
    planned = plan(resmlp(tokens=4, channels=6, features=4, hidden=6, seed=1), interval=interval)
    assert planned.estimated_interval <= interval
    exact(planned, interval)


def test_two_blocks():
    exact(plan(resmlp(tokens=2, channels=3, hidden=4, blocks=2, seed=2)), 2)


@pytest.mark.parametrize("seed", range(2))
def test_several_inputs(seed):
    program = two_inputs(seed=seed)
    folding = random_foldings(program, np.random.default_rng(seed)) if seed else None
    exact(plan(program, folding=folding), seed)


def test_random_programs_have_one_and_several_results():
    counts = [len(random_program(seed)[0].results) for seed in range(12)]
    assert set(counts) == {1, 2, 3, 4}


@pytest.mark.parametrize("interval", [None, 6, 30])
def test_several_results(interval):
    """Every output begins and ends every frame when the plan says, the early ones before the last."""
    program = several(seed=interval or 0)
    planned = plan(program, interval=interval)
    assert [port.prefix for port in planned.outputs] == ["m_axis_out", "m_axis_sum", "m_axis_scale", "m_axis_mean"]
    assert [port.tensor for port in planned.outputs] == list(program.outputs.values())
    exact(planned, 0)
    first = planned.network.schedule(settled(planned)).first
    assert first[2] < first[1] < first[0] <= first.max() == planned.estimated_latency


@pytest.mark.parametrize("interval", [6, 15, 30])
def test_outputs_are_no_burden_to_each_other(interval):
    """The last ends its frames when it would alone, and every other its first frame when it would alone.

    One that is read further ends it when it would with FIFOs that never fill, for a slow reader may hold it up.
    """
    program = several()
    planned = plan(program, interval=interval)
    found = planned.network.schedule(settled(planned))
    free = planned.network.schedule(len(found.ends), dict.fromkeys(planned.fifos, 1000))
    for k, name in enumerate(program.results):
        needed, nodes = {name}, []
        for node in reversed(program.nodes):
            if node.name in needed:
                needed |= set(node.operands)
                nodes.insert(0, node)
        inputs = {name: kind for name, kind in program.inputs.items() if name in needed}
        alone = plan(Program(inputs, nodes, name), interval=interval)
        ends = alone.network.schedule(len(found.ends)).ends
        expected = free.output_ends[k, 0] if program.readers[name] else ends[0]
        assert found.output_ends[k, 0] == expected, name
        if name == "out":
            np.testing.assert_array_equal(found.ends, ends)


@pytest.mark.parametrize("names", long_but(AWKWARD, "marks"))
def test_names_that_are_no_identifiers(names):
    planned = plan(awkward(names, seed=2))
    prefixes = {"parts": ["o", "o_"], "words": ["self", "class"], "marks": ["__1", "1_x"]}[names]
    assert [port.prefix for port in planned.inputs] == [f"s_axis_{prefix}" for prefix in prefixes]
    exact(planned, 0)
    exact_compiled(planned, emit(planned), stimulus(planned.program, 30, 1))


# -- compiled: many frames ----------------------------------------------------------------------------------
COMPILED = {
    "lerp": lambda: plan(resmlp(tokens=8, features=4, channels=8, hidden=12, segments=64, seed=3)),
    "relu-folded": lambda: plan(
        resmlp(tokens=4, features=6, channels=6, hidden=12, blocks=2, nonlinearity="relu", seed=4), interval=48
    ),
    "two-inputs": lambda: plan(two_inputs(tokens=5, channels=6, outputs=7, seed=5)),
    "several-results": lambda: plan(several(tokens=5, channels=6, outputs=7, seed=5), interval=60),
}


@pytest.mark.parametrize("name", long_but(COMPILED, "lerp", "two-inputs"))
def test_compiled_equals_golden(name):
    planned = COMPILED[name]()
    exact_compiled(planned, emit(planned), stimulus(planned.program, 300, 1))


# -- cocotb: an independent driver --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def small() -> Plan:
    return plan(resmlp(tokens=2, features=2, channels=3, hidden=4, seed=6))


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize(
    ("idle", "backpressure"), long_but([(0.0, 0.0), (0.4, 0.0), (0.0, 0.5), (0.3, 0.3)], (0.3, 0.3))
)
def test_cocotb_equals_golden(small, simulator, idle, backpressure):
    x = stimulus(small.program, 2 * settled(small), 2)
    expected = small.program(*x)
    stalls = {"idle": idle, "backpressure": backpressure, "seed": 11}
    result = cosim.run(emit(small), small.inputs, small.outputs, x, expected, simulator, **stalls).check(expected)
    if not idle and not backpressure:
        assert (result.latency, result.interval) == (small.estimated_latency, small.estimated_interval)


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("make", long_but([two_inputs, several], several))
def test_cocotb_with_several_ports(make, simulator):
    planned = plan(make(tokens=2, channels=2, outputs=2, seed=8))
    x = stimulus(planned.program, 6, 3)
    expected = planned.program(*x)
    verilog = emit(planned)
    ports = planned.inputs, planned.outputs
    plain = cosim.run(verilog, *ports, x, expected, simulator).check(expected)
    promised = planned.network.schedule(len(x[0]))
    np.testing.assert_array_equal(plain.output_end_cycles - plain.first_input_cycle, promised.output_ends)
    assert plain.latency == planned.estimated_latency
    cosim.run(verilog, *ports, x, expected, simulator, idle=0.3, backpressure=0.3, seed=1).check(expected)
