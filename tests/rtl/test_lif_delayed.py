"""Neurons whose reset comes a step later, in every length of the stage's loop: codes and cycles."""

import numpy as np
import pytest

from bittrue.rtl.dataflow.plan import Plan, size_fifos
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lif import Lif
from bittrue.sim.program import Node, Program
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import batches, exact_to_the_cycle


@pytest.mark.parametrize("keep", ["leak", "none", "all"])
@pytest.mark.parametrize(("groups", "lanes"), [(1, 2), (2, 2), (3, 1), (5, 2)])
def test_delayed_reset(groups, lanes, keep):
    rng = np.random.default_rng([groups, lanes])
    channels = groups * lanes
    decays = {"leak": rng.integers(1, 9, channels), "none": [8], "all": [0]}[keep]
    kind = TensorType((9, channels), Format(5))
    threshold, reset = rng.integers(0, 20, channels), rng.integers(1, 25, channels)
    op = Lif(kind, threshold, reset, decays, 3, 1, subtract=True, delayed=True)
    program = Program({"x": kind}, (Node("y", op, ("x",)),), "y")
    planned = size_fifos(Plan(program, {}, {"x": lanes}))
    bench, x = StageBench(planned), batches(planned, rng, 6)
    assert 0.1 < program(*x).mean() < 0.9
    exact_to_the_cycle(bench, x)
    np.testing.assert_array_equal(bench.run(x, 0.3, 0.3, 1).outputs, program.reference(*x))
