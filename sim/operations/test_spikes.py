"""Spike trains: words, decoding, fused and step by step executions, errors."""

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.encode import SPIKE, Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.requantize import Requantize


def test_encode_is_worth_its_code():
    for fmt in (Format(8), Format(5, signed=False), Format(1, signed=False)):
        op = Encode(TensorType((2,), fmt))
        codes = fmt.codes().repeat(2).reshape(-1, 2)
        np.testing.assert_array_equal((op(codes) * op.decode[:, None]).sum(1), codes)


def test_relu_neuron_is_successive_approximation():
    steps = 6
    powers = np.int64(1) << np.arange(steps - 1, -1, -1)
    op = FsNeuron(TensorType((1,), Format(9)), powers, powers)
    codes = Format(9).codes()[:, None]
    expected = np.clip(codes - 1, 0, 2**steps - 1)
    np.testing.assert_array_equal((op(codes) * powers[:, None]).sum(1), expected)
    np.testing.assert_array_equal(op.words[:, None], expected)


def test_membrane_and_extreme_thresholds():
    """Thresholds outside the membrane's range always or never fire, in the fast execution as in the reference."""
    kind = TensorType((3,), Format(6))
    x = Format(6).codes().repeat(3).reshape(-1, 3).astype(np.int8)
    for threshold in ([-(1 << 20), 5], [1 << 20, 5], [-40000, 40000], [-32768, 0], [-32769, 0]):
        op = FsNeuron(kind, np.array(threshold), np.array([7, 0]))
        np.testing.assert_array_equal(op.run(x)[0], op.reference(x))
    assert (FsNeuron(kind, np.array([-40]), np.array([3])).membrane.low) == -35


def network(rng, steps=5, decode=None, bits=7):
    values = Format(bits)
    build = Builder({"x": TensorType((3, 8), values)})
    neuron = FsNeuron(build.types["x"], rng.integers(-20, 40, steps), rng.integers(-10, 30, steps), -50, 50)
    spikes = build.add("fire", neuron, "x")
    decode = rng.integers(-9, 60, steps) if decode is None else decode
    weight = rng.integers(-128, 128, (6, 8))
    layer = SpikingLinear(build.types[spikes], weight, decode, Requantize(6, np.full(6, 9)))
    return build.program(build.add("layer", layer, spikes))


@pytest.mark.parametrize("seed", range(5))
def test_fused_equals_step_by_step(seed):
    rng = np.random.default_rng(seed)
    program = network(rng)
    x = rng.integers(-64, 64, (50, 3, 8)).astype(np.int8)
    assert len(program._steps) == 1  # neuron and layer run as one
    trace = program.trace(x)
    assert trace.tensors["fire"].shape == (50, 3, 5, 8)
    assert trace.saturation["fire"] == np.count_nonzero(np.abs(x.astype(int)) > 50)
    np.testing.assert_array_equal(program(x), trace.tensors["layer"])
    np.testing.assert_array_equal(program(x), program.reference(x))


def test_a_changed_weight_shows_in_both_executions():
    rng = np.random.default_rng(3)
    program = network(rng)
    x = rng.integers(-64, 64, (50, 3, 8)).astype(np.int8)
    node = program.nodes[1]
    weight = node.operation.weight.copy()
    weight[0, 0] ^= 64
    build = Builder(program.inputs)
    build.add("fire", program["fire"], "x")
    build.add(
        "layer", SpikingLinear(program.types["fire"], weight, node.operation.decode, node.operation.requantize), "fire"
    )
    other = build.program("layer")
    assert (other(x) != program(x)).any()
    assert (other.trace(x).tensors["layer"] != program.trace(x).tensors["layer"]).any()


def test_errors_name_the_bound():
    kind = TensorType((4,), Format(8))
    for threshold, reset, text in (
        ([1, 2], [1], "2 thresholds and 1 resets"),
        ([], [], "at least one step"),
        ([1] * 33, [1] * 33, "at most 32"),
        ([1 << 31], [1], "beyond 2\\^30"),
        ([0.5], [1], "parameters are integers"),
        ([np.nan], [1], "parameters are integers"),
    ):
        with pytest.raises(BittrueError, match=text):
            FsNeuron(kind, np.array(threshold), np.array(reset))
    with pytest.raises(BittrueError, match="valid range"):
        FsNeuron(kind, np.array([1]), np.array([1]), -200, 100)
    with pytest.raises(BittrueError, match="no spike train"):
        SpikingLinear(kind, np.ones((2, 4), int), np.ones(1, int), Requantize(2, np.array(0)))
    with pytest.raises(BittrueError, match="steps of the input"):
        SpikingLinear(TensorType((3, 4), SPIKE), np.ones((2, 4), int), np.ones(2, int), Requantize(2, np.array(0)))
