"""Every operation's component, random geometry, lanes and folding: codes, latency and interval are exact."""

import numpy as np
import pytest

from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, size_fifos
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.lengths import long_but
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import OPERATIONS, batches, exact_to_the_cycle, planned


@pytest.mark.parametrize("seed", long_but(range(16), 0))
@pytest.mark.parametrize("name", OPERATIONS)
def test_component(name, seed):
    """Exact to the cycle without stalls; under stalls, nothing but time changes. One simulator does both."""
    plan, rng = planned(name, seed)
    bench, x = StageBench(plan), batches(plan, rng, 6)
    exact_to_the_cycle(bench, x)
    short = batches(plan, rng, 4)
    expected = plan.program.reference(*short)
    for idle, backpressure in ((0.5, 0.0), (0.0, 0.6), (0.3, 0.3)):
        result = bench.run(short, idle, backpressure, seed)
        np.testing.assert_array_equal(result.outputs, expected, err_msg=f"idle {idle}, back-pressure {backpressure}")


@pytest.mark.parametrize(("lanes", "channels"), [(1, 512), (2, 600), (4, 500)])
def test_constants_in_block_ram(lanes, channels):
    """Many channels: weights and the requantiser's constants are in block RAM, and wait in registers for their beat."""
    rng = np.random.default_rng(channels)
    bounds = {"shift": (0, 12), "bias": (-100, 100), "bias_acc": (-1000, 1000), "multiplier": (1, 9)}
    fields = {name: rng.integers(*ends, channels) for name, ends in bounds.items()}
    kind = TensorType((2, channels), INT8)
    affine = Affine(kind, rng.integers(-128, 128, channels), Requantize(channels, **fields, format=INT8))
    plan = size_fifos(Plan(Program({"x": kind}, (Node("y", affine, ("x",)),), "y"), {}, {"x": lanes}))
    bench, x = StageBench(plan), batches(plan, rng, 3)
    exact_to_the_cycle(bench, x)
    np.testing.assert_array_equal(bench.run(x, 0.4, 0.4, 1).outputs, plan.program.reference(*x))


@pytest.mark.parametrize("inputs", [16, 32])
def test_vectors_that_wait_for_weights(inputs):
    """A vector in distributed RAM is read later than weights in block RAM: its word is written again at that time."""
    rng = np.random.default_rng(inputs)
    kind = TensorType((6, inputs), INT8)
    weight = rng.integers(-128, 128, (32, inputs))
    linear = Linear(kind, weight, Requantize(32, shift=rng.integers(8, 12, 32), format=INT8))
    program = Program({"x": kind}, (Node("y", linear, ("x",)),), "y")
    plan = size_fifos(Plan(program, {"y": Folding(16, 2)}, {"x": 16}))
    stage = plan.network.elements[plan.network.made["y"]].stage
    assert stage.address_registers[0] > 1
    bench, x = StageBench(plan), batches(plan, rng, 4)
    exact_to_the_cycle(bench, x)
    np.testing.assert_array_equal(bench.run(x, 0.2, 0.5, 1).outputs, plan.program.reference(*x))
