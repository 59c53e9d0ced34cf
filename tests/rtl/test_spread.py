"""Vectors in distributed RAM that many parts of a word are written to: registers of their own for some of them each."""

import numpy as np
import pytest

from bittrue.rtl.dataflow import vectors
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stages.linear import LinearStage
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from tests.helpers.flip_flops import flip_flops
from tests.helpers.formal import planted
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import batches, exact_to_the_cycle


def planned(bits: int, inputs: int, simd: int, outputs: int, lanes: int = 1, seed: int = 1) -> Plan:
    rng = np.random.default_rng(seed)
    kind = TensorType((2, inputs), Format(bits))
    made = Requantize(outputs, 8, bias_acc=rng.integers(-99, 99, outputs))
    build = Builder({"x": kind})
    build.add("y", Linear(kind, rng.integers(-128, 128, (outputs, inputs)), made), "x")
    interval = 2 * max(inputs // lanes, outputs * inputs // simd)
    return plan(build.program("y"), folding={"y": Folding(simd=simd, pe=1)}, interval=interval)


def stage(made: Plan) -> LinearStage:
    (found,) = (element.stage for element in made.network.elements if element.node)
    return found


#: Arguments, the parts that share registers, and whether reading waits.
CASES = {
    "two words": ((8, 32, 16, 32), 8, True),
    "the last group is not full": ((8, 60, 20, 24), 8, True),
    "narrow codes": ((3, 64, 32, 16), 16, True),
    "reading does not wait": ((8, 32, 16, 4), 8, False),
}


@pytest.mark.parametrize("case", CASES)
def test_codes_cycles_and_flip_flops(case):
    arguments, share, waits = CASES[case]
    made = planned(*arguments)
    at_hand = stage(made)
    wait, _ = at_hand.address_registers
    assert (at_hand.vectors.spread(at_hand.lanes_in), wait > 1) == (share, waits)
    assert at_hand.structure().registers == flip_flops(at_hand)
    bench, rng = StageBench(made), np.random.default_rng(2)
    exact_to_the_cycle(bench, batches(made, rng, 3))
    x = batches(made, rng, 3)
    stalled = bench.run(x, idle=0.3, backpressure=0.4, seed=3)
    np.testing.assert_array_equal(stalled.outputs, made.program.reference(*x))


@pytest.mark.parametrize("bits", [1, 3, 4, 5, 8, 11, 16, 17])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_as_many_share_registers_as_sixteen_memories_allow(bits, lanes):
    """A distributed RAM has four bits: one part more would be beyond sixteen of them, and one part shares always."""
    for simd in (4, 16, 64, 128):
        made = vectors.Vectors(Format(bits), simd, 4)
        share, each = made.spread(lanes), -(-lanes * bits // 4)
        if made.style == "distributed" and simd // lanes > max(1, 16 // each):
            assert share == 1 or share * each <= 16
            assert (share + 1) * each > 16
        else:
            assert share == 0


FAULTS = {
    "another address": ("address_here.eq(write_address)", "address_here.eq(0)", True),
    "taken in for one part": ("share].any()", "share][0]", True),
    "taken in for one part at once": ("share].any()", "share][0]", False),
    "the turn of the part before": ("m.If(part[first :", "m.If(enable[first :", False),
    "the turn of the part before, where reading waits": ("m.If(part[first :", "m.If(enable[first :", True),
    "words are counted as they come": ("written & part[-1]", "control.write & part[-1]", True),
    "codes do not wait": ("cycles=late - (share > 0)", "cycles=0", True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault):
    right, wrong, waits = FAULTS[fault]
    made = planned(8, 32, 16, 32 if waits else 4)
    x = batches(made, np.random.default_rng(2), 6)  # the first frames are of one code alone
    with planted("rtl.dataflow.vectors:Vectors.build", right, wrong):
        assert (StageBench(made).run(x, idle=0.5, seed=3).outputs != made.program.reference(*x)).any()


@pytest.mark.parametrize(("simd", "share"), [(32, 8), (8, 0), (9, 8), (256, 8)])
def test_who_shares(simd, share):
    """Up to 16 distributed RAMs share, two of a code of 8 bits each."""
    assert vectors.Vectors(Format(8), simd, 3).spread(1) == share
