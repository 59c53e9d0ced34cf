"""Neuron sets and the float neuron: published errors, equality with the integer neuron, files, gradients."""

import json
import math

import numpy as np
import pytest
import torch

from bittrue.models.fs import kernels as fs_kernels
from bittrue.models.fs import sets as fs_sets
from bittrue.models.fs.neuron import FsActivation, FsNeuron, Spike, operation
from bittrue.models.fs.sets import PUBLISHED, NeuronSet
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def swish(x):
    return x * sigmoid(x)


# -- published sets ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "function", "low", "high", "printed"),
    [
        ("swish", swish, -2, 2, "2.3940e-03"),
        ("swish", swish, -8, 12, "3.4459e-03"),
        ("swish", swish, -6, 6, "2.8519e-03"),
        ("sigmoid", sigmoid, -10, 10, "1.4376e-04"),
        ("sigmoid", sigmoid, -2, 2, "3.6305e-04"),
    ],
)
def test_published_error_in_the_printed_digits(name, function, low, high, printed):
    x = fs_kernels.grid(low, high)
    assert len(x) == 100_000
    assert x.dtype == np.float32
    assert f"{fs_kernels.mean_squared_error(PUBLISHED[name], function(x), x):.4e}" == printed


@pytest.mark.parametrize(("low", "high", "printed"), [(-10, 10, "9.92e-05"), (-8, 12, "1.191e-04")])
def test_published_relu_error(low, high, printed):
    x = fs_kernels.grid(low, high)
    error = fs_kernels.mean_squared_error(PUBLISHED["relu"], np.maximum(x, 0), x)
    assert f"{error:.{len(printed) - 6}e}" == printed


@pytest.mark.parametrize(("name", "spikes"), [("swish", "4.169"), ("sigmoid", "2.738")])
def test_published_spikes_per_neuron(name, spikes):
    x = fs_kernels.grid(*((-8, 12) if name == "swish" else (-10, 10)))
    counted = fs_kernels.respond(PUBLISHED[name], x).spikes.sum() / len(x)
    assert f"{counted:.3f}" == spikes


def test_published_constants_with_ten_fraction_bits():
    made = PUBLISHED["sigmoid"].integer(10)
    assert made.reset.tolist() == [1696, 1125, 11032, 1391, 1039, 919, 2172, 1736, 3727, -2200, 5241, 0]
    assert made.decode.tolist() == [386, 225, 412, 174, 98, 64, 45, -45, 20, 73, 15, 10]
    assert made.threshold.tolist() == [-9, -955, 1032, -1237, -1832, -2772, -3351, 73, -3809, -557, -3860, -5678]
    assert (made.lowest, made.highest) == (-10240, 10240)


# -- integer = float32 ---------------------------------------------------------------------------------
@pytest.mark.parametrize("fraction_bits", range(2, 13))
@pytest.mark.parametrize("name", ["relu", "swish", "sigmoid"])
def test_integer_neuron_equals_float_neuron_on_every_input(name, fraction_bits):
    """Every code of the valid range and a margin around it: words, decoded values and the number clipped."""
    neuron_set = PUBLISHED[name]
    made = neuron_set.integer(fraction_bits)
    fmt = Format(int(27 * made.unit**-1).bit_length() + 1)
    x = np.arange(int(-16 / made.unit), int(27 / made.unit) + 1)
    assert fmt.holds(x)
    neuron, decode = operation(made, TensorType((1, 1), fmt))
    spikes, clipped = neuron.run(x.astype(fmt.dtype)[:, None, None])
    spikes = spikes[:, 0, :, 0].astype(np.int64)

    same = neuron_set.quantized(fraction_bits)
    values = (x * made.unit).astype(np.float32)
    assert np.array_equal(values.astype(np.float64), x * made.unit)
    found = fs_kernels.respond(same, values)
    np.testing.assert_array_equal(spikes, found.spikes)
    np.testing.assert_array_equal((spikes @ decode) * made.decode_unit, found.values.astype(np.float64))
    assert clipped == found.clipped > 0

    module = FsNeuron(same)
    np.testing.assert_array_equal(module(torch.tensor(values)).numpy(), found.values)
    assert int(module.clipped) == clipped
    assert module.spikes.tolist() == spikes.sum(0).tolist()
    assert module.spikes_per_neuron == spikes.sum() / len(x)


def test_floor_of_the_threshold_loses_nothing():
    """With the unrounded threshold in float64 every decision is the same; with a rounded one it is not."""
    published = PUBLISHED["swish"]
    made = published.integer(4)
    assert not np.array_equal(made.threshold, np.floor(published.T.astype(np.float64) * 16 + 0.5))
    v = np.arange(-200, 220)
    for floor, threshold in zip(made.threshold, published.T.astype(np.float64) * 16, strict=True):
        np.testing.assert_array_equal(v > floor, v > threshold)


def test_decode_may_have_its_own_fraction_bits():
    made = PUBLISHED["sigmoid"].integer(6, decode_fraction_bits=12)
    assert made.decode.tolist() == PUBLISHED["sigmoid"].integer(12).decode.tolist()
    assert made.reset.tolist() == PUBLISHED["sigmoid"].integer(6).reset.tolist()
    assert (made.unit, made.decode_unit) == (2**-6, 2**-12)


@pytest.mark.parametrize("name", ["swish", "sigmoid"])
def test_membrane_reach_is_exact(name):
    made = PUBLISHED[name].integer(6)
    v = np.arange(made.lowest, made.highest + 1)
    reach = np.abs(v).max()
    for threshold, reset in zip(made.threshold, made.reset, strict=True):
        v = v - reset * (v > threshold)
        reach = max(reach, np.abs(v).max())
    assert fs_sets.membrane_reach(made) == reach


# -- ReLU in its own unit ------------------------------------------------------------------------------
def test_relu_in_its_own_unit_is_successive_approximation():
    relu = PUBLISHED["relu"]
    made = relu.own_unit()
    assert made.unit == 25 / 1024
    assert made.highest == 1024
    fmt = Format(12)
    codes = fmt.codes()
    neuron, decode = operation(made, TensorType((1, 1), fmt))
    spikes = neuron.reference(codes[:, None, None])[:, 0, :, 0].astype(np.int64)
    np.testing.assert_array_equal(spikes @ decode, np.clip(codes - 1, 0, 1023))
    np.testing.assert_array_equal(neuron.words, np.clip(codes - 1, 0, 1023))


def test_relu_in_its_own_unit_is_the_float_neuron():
    """Random values, every multiple of the unit, and the floats next to each: code = ceil(x / u)."""
    relu = PUBLISHED["relu"]
    unit = np.float32(25 / 1024)
    steps = np.arange(-1100, 1100, dtype=np.float32) * unit
    drawn = np.random.default_rng(0).uniform(-30, 30, 100_000).astype(np.float32)
    x = np.concatenate([drawn, steps, np.nextafter(steps, np.float32(99)), np.nextafter(steps, np.float32(-99))])
    words = fs_kernels.respond(relu, x).words
    codes = np.ceil(x.astype(np.float64) / float(unit)).astype(np.int64)
    np.testing.assert_array_equal(words, np.clip(codes - 1, 0, 1023))


@pytest.mark.parametrize("name", ["swish", "sigmoid"])
def test_only_binary_sets_have_their_own_unit(name):
    with pytest.raises(BittrueError, match=r"do not halve.*integer\(fraction_bits\)"):
        PUBLISHED[name].own_unit()


# -- the module ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_module_equals_the_kernel_and_its_train_decodes(name):
    x = np.random.default_rng(1).uniform(-20, 30, (50, 7)).astype(np.float32)
    module = FsNeuron(PUBLISHED[name])
    y = module(torch.tensor(x))
    found = fs_kernels.respond(PUBLISHED[name], x)
    np.testing.assert_array_equal(y.numpy(), found.values)
    train = module.train_of(torch.tensor(x))
    assert train.shape == (50, module.steps, 7)
    np.testing.assert_array_equal(train.numpy().transpose(0, 2, 1), found.spikes.astype(bool))
    assert int(module.inputs) == x.size
    module.reset_counts()
    assert (int(module.inputs), int(module.clipped), int(module.spikes.sum())) == (0, 0, 0)


def test_strict_refuses_what_would_be_clipped():
    module = FsNeuron(PUBLISHED["sigmoid"], strict=True)
    module(torch.tensor([-10.0, 10.0]))
    with pytest.raises(BittrueError, match=r"1 of 2 inputs lie outside its valid range -10\.\.10"):
        module(torch.tensor([0.0, 10.01]))


def test_gradient_is_the_triangle_of_the_scaled_membrane():
    """Against the definition written with torch: z + surrogate(s) - surrogate(s) without gradient."""
    v = torch.tensor([-3.0, -0.5, 0.0, 0.4, 0.6, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    upstream = torch.arange(1.0, 8.0, dtype=torch.float64)
    found = torch.autograd.grad(Spike.apply(v, threshold), (v, threshold), upstream)
    scaled = (v - threshold) / (v.abs() + 1)
    surrogate = torch.where(scaled > 0, scaled - scaled**2 / 2, scaled + scaled**2 / 2)  # its slope is 1 - |s|
    surrogate = torch.where(scaled.abs() < 1, surrogate, surrogate.detach())
    expected = torch.autograd.grad(surrogate, (v, threshold), upstream)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert (found[0] != 0).any()


def test_training_through_the_spikes_improves_the_set():
    torch.manual_seed(0)
    x = torch.linspace(-8, 12, 2000)
    module = FsNeuron(PUBLISHED["swish"], trainable=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        loss = torch.mean((torch.nn.functional.silu(x) - module(x)) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.97 * losses[0]
    kept = module.trained_set("mine")
    assert kept.h.tolist() == module.h.tolist() != PUBLISHED["swish"].h.tolist()
    assert (kept.low, kept.high) == (-8, 13.8)


def test_activation_scales_input_and_output():
    x = torch.linspace(-60, 60, 1001)
    activation = FsActivation(PUBLISHED["relu"], scale=4.0)
    np.testing.assert_array_equal(
        activation(x).numpy(), 4 * fs_kernels.respond(PUBLISHED["relu"], x.numpy() / 4).values
    )
    assert int(activation.neuron.clipped) == 0
    activation.rescale(0.5)
    activation(x)
    assert int(activation.neuron.clipped) == int((x > 12.5).sum())
    again = FsActivation(PUBLISHED["relu"])
    again.load_state_dict(activation.state_dict())
    assert float(again.scale) == 0.5
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(BittrueError, match="not a positive number"):
            activation.rescale(scale)


# -- files and bad input -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_file_keeps_every_bit(name, tmp_path):
    neuron_set = PUBLISHED[name]
    again = fs_sets.find(neuron_set.save(tmp_path / "set.json"))
    for array in ("h", "d", "T"):
        assert getattr(again, array).tobytes() == getattr(neuron_set, array).tobytes()
    assert (again.low, again.high) == (neuron_set.low, neuron_set.high)
    assert (again.name, again.function, again.source) == (name, neuron_set.function, neuron_set.source)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"h": [1.0]}, "1 values of h for 12 steps"),
        ({"h": [], "d": [], "T": [], "steps": 0}, "0 steps; expected 1 to 32"),
        ({"d": [math.nan] * 12}, r"d\[0\] is nan; expected finite float32"),
        ({"T": [1e39] * 12}, r"T\[0\] is 1e\+39; expected finite float32"),
        ({"T": ["1"] * 12}, "T must be a list of numbers"),
        ({"T": [True] * 12}, "T must be a list of numbers"),
        ({"version": 2}, "version 2, and only 1 is known"),
        ({"format": "other"}, "is not a neuron set"),
        ({"range": [1, 1]}, "valid range 1..1 is empty"),
        ({"range": [0]}, "'range' must be two numbers"),
        ({"range": [math.nan, 1]}, "'range' must be two numbers"),
    ],
)
def test_a_bad_file_costs_one_sentence(change, sentence, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(PUBLISHED["sigmoid"].to_json() | change))
    with pytest.raises(BittrueError, match=sentence) as error:
        fs_sets.load(path)
    assert "bad.json" in str(error.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(BittrueError, match="cannot be read"):
        fs_sets.load(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"format": "bittrue')
    with pytest.raises(BittrueError, match="is not JSON"):
        fs_sets.load(tmp_path / "cut.json")
    (tmp_path / "part.json").write_text('{"format": "bittrue neuron set", "version": 1, "name": "x", "steps": 1}')
    with pytest.raises(BittrueError, match="has no h, d, T, range"):
        fs_sets.load(tmp_path / "part.json")


def test_an_unknown_name_is_answered_with_a_near_one():
    with pytest.raises(BittrueError, match=r"did you mean 'swish'\? .*bittrue fit"):
        fs_sets.find("swich")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (([1.0], [1.0, 2.0], [1.0]), "1 of h, 2 of d, 1 of T"),
        (([], [], []), "0 steps"),
        (([0.0] * 33,) * 3, "33 steps; expected 1 to 32"),
        (([math.nan], [0.0], [0.0]), r"h\[0\] is nan"),
        (([0.0], [0.0], [math.inf]), r"T\[0\] is inf"),
        (([[0.0]], [0.0], [0.0]), "h must be a list of numbers"),
    ],
)
def test_a_bad_set_costs_one_sentence(arrays, sentence):
    with pytest.raises(BittrueError, match=sentence):
        NeuronSet("bad", *(np.array(a, dtype=np.float64) for a in arrays))


@pytest.mark.parametrize(
    ("name", "bits", "sentence"),
    [
        ("relu", 20, "20 fraction bits the valid range reaches 26214400, .* at most 19"),
        ("sigmoid", 21, "21 fraction bits a reset reaches 22594506, .* at most 20"),
        ("swish", 24, "24 fraction bits; expected an integer of 0 to 23"),
        ("swish", -1, "-1 fraction bits"),
        ("swish", 2.5, "2.5 fraction bits"),
    ],
)
def test_fraction_bits_beyond_what_float32_holds(name, bits, sentence):
    with pytest.raises(BittrueError, match=sentence):
        PUBLISHED[name].integer(bits)


def test_a_set_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        PUBLISHED["swish"].h[0] = 1
