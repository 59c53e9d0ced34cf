"""Constants of a requantiser that lie beside the weights: the same codes and cycles, and no memory of their own."""

import numpy as np
import pytest

from bittrue.rtl.dataflow.estimate import area
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stages.linear import LinearStage
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from tests.helpers.flip_flops import flip_flops
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import batches, exact_to_the_cycle


def planned(
    bias: int,
    simd: int = 16,
    pe: int = 1,
    outputs: int = 96,
    low: int = -128,
    tokens: int = 1,
    seed: int = 1,
    inputs: int = 64,
    bits: int = 8,
) -> Plan:
    """64 inputs, so that 16 at a time take four blocks of 36 bits a row, and leave 16 of them."""
    rng = np.random.default_rng(seed)
    kind = TensorType((tokens, inputs), Format(8))
    made = Requantize(outputs, rng.integers(8, 12, outputs), bias_acc=rng.integers(-(1 << bias), 1 << bias, outputs))
    weight = rng.integers(low, low + (1 << bits), (outputs, inputs))
    build = Builder({"x": kind})
    build.add("y", Linear(kind, weight, made, Format(bits, signed=low < 0)), "x")
    return plan(build.program("y"), folding={"y": Folding(simd=simd, pe=pe)}, interval=inputs * outputs)


def stage(made: Plan) -> LinearStage:
    (found,) = (element.stage for element in made.network.elements if element.node)
    return found


CASES = {
    "one output": {"bias": 12},
    "two outputs": {"bias": 12, "simd": 16, "pe": 2},
    "unsigned weights": {"bias": 12, "low": 0},
    "several tokens": {"bias": 10, "outputs": 112, "tokens": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_codes_cycles_and_flip_flops(case):
    made = planned(**CASES[case])
    at_hand = stage(made)
    assert at_hand.beside
    assert at_hand.structure().table_bits == 0
    assert at_hand.structure().registers == flip_flops(at_hand)
    bench, rng = StageBench(made), np.random.default_rng(2)
    exact_to_the_cycle(bench, batches(made, rng, 3))
    x = batches(made, rng, 3)
    stalled = bench.run(x, idle=0.3, backpressure=0.4, seed=3)
    np.testing.assert_array_equal(stalled.outputs, made.program.reference(*x))


@pytest.mark.parametrize(
    "case",
    [
        {"bias": 15},  # 16 bits, and two of the shift: two more than the blocks have left
        {"bias": 12, "outputs": 32},  # two rows of 16: a register on the way costs more than the LUTs
        {"bias": 12, "simd": 8},  # two blocks of 36 bits have only 8 left
        {"bias": 12, "simd": 10, "inputs": 20, "low": -8, "bits": 4},  # 36 bits and 4, for which LUTs are no dearer
    ],
)
def test_what_has_no_room_or_no_use_has_a_memory(case):
    at_hand = stage(planned(**case))
    assert not at_hand.beside
    assert at_hand.structure().table_bits > 0
    assert at_hand.structure().registers == flip_flops(at_hand)


def test_blocks_are_no_more_and_multipliers_the_same(monkeypatch):
    beside = stage(planned(12)).structure()
    monkeypatch.setattr(LinearStage, "LUTS", 0)
    alone = stage(planned(12)).structure()
    assert (beside.block_rams, beside.multipliers) == (alone.block_rams, alone.multipliers) == (4, 16)
    assert alone.table_bits == 96 * 16
    counter = 7
    assert area(beside).ff - area(alone).ff == 16 * 6 - counter  # the one at the port is before the wait


@pytest.mark.parametrize("late", [-1, 1])
def test_constants_of_another_beat_are_seen(late, monkeypatch):
    made = planned(12, outputs=112)
    right = LinearStage.beside_wait.fget
    monkeypatch.setattr(LinearStage, "beside_wait", property(lambda self: right(self) + late * self.products.steps))
    x = batches(made, np.random.default_rng(2), 2)
    assert (StageBench(made).run(x).outputs != made.program.reference(*x)).any()
