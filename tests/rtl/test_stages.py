"""Every operation's component, random geometry, lanes and folding: codes, latency and interval are exact."""

import numpy as np
import pytest

from bittrue.rtl.dataflow.plan import Plan, size_fifos
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.stage_bench import run
from tests.helpers.stages import OPERATIONS, batches, exact_to_the_cycle, planned


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("name", OPERATIONS)
class TestComponent:
    def test_unstalled_is_exact_to_the_cycle(self, name, seed):
        exact_to_the_cycle(name, seed)

    def test_stalls_change_nothing(self, name, seed):
        plan, rng = planned(name, seed)
        x = batches(plan, rng, 4)
        for idle, backpressure in ((0.5, 0.0), (0.0, 0.6), (0.3, 0.3)):
            result = run(plan, x, idle, backpressure, seed)
            np.testing.assert_array_equal(result.outputs, plan.program.reference(*x))


@pytest.mark.parametrize(("lanes", "channels"), [(1, 512), (2, 600), (4, 500)])
@pytest.mark.parametrize(("idle", "backpressure"), [(0.0, 0.0), (0.4, 0.4)])
def test_constants_in_block_ram(lanes, channels, idle, backpressure):
    """Many channels: weights and the requantiser's constants are in block RAM, and wait in registers for their beat."""
    rng = np.random.default_rng(channels)
    bounds = {"shift": (0, 12), "bias": (-100, 100), "bias_acc": (-1000, 1000), "multiplier": (1, 9)}
    fields = {name: rng.integers(*ends, channels) for name, ends in bounds.items()}
    kind = TensorType((2, channels), INT8)
    affine = Affine(kind, rng.integers(-128, 128, channels), Requantize(channels, **fields, format=INT8))
    plan = size_fifos(Plan(Program({"x": kind}, (Node("y", affine, ("x",)),), "y"), {}, {"x": lanes}))
    x = batches(plan, rng, 3)
    result = run(plan, x, idle, backpressure, 1)
    np.testing.assert_array_equal(result.outputs, plan.program.reference(*x))
    if not idle:
        assert (result.latency, result.interval) == (plan.estimated_latency, plan.estimated_interval)
