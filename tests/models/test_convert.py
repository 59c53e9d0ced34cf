"""Networks of a user's own: every tensor of the program is that of the integer network, and that follows the floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.models.layers.tensors import TensorFunction
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.transpose import Transpose
from tests.helpers.converted import conv_norm, equal_everywhere, error, kinds, noise, seeded  # noqa: F401
from tests.helpers.lengths import long_but
from tests.helpers.torch_networks import learn, random_network


@pytest.mark.parametrize("seed", long_but(range(54), *range(24)))
def test_random_networks_are_their_programs_and_follow_the_floats(seed):
    model, shape = random_network(seed)
    x = noise(64, *shape, seed=seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = bittrue.convert(model, x, requantize=("shift", "multiplier")[seed % 2])
    equal_everywhere(network, x[:12])
    assert error(model, network, x) < 0.08
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_few_bits_of_weights_and_tensors_are_exact_as_well(bits):
    model, shape = random_network(4)
    x = noise(64, *shape)
    network = bittrue.convert(model, x, bits=bits, activation_bits=bits + 1)
    program = equal_everywhere(network, x)
    assert {kind.format.bits for kind in program.types.values()} == {bits + 1}


# -- what becomes of each thing -------------------------------------------------------------------------
def test_normalisation_goes_into_what_is_behind_it_unless_that_pads():
    x = noise(64, 3, 6, 6)
    network = bittrue.convert(conv_norm(padding=0), x)
    assert kinds(network) == ["Conv"]
    network = bittrue.convert(model := conv_norm(padding=1), x)
    assert kinds(network) == ["Affine", "Conv"]
    assert error(model, network, x) < 0.05


def test_normalisation_goes_into_what_is_in_front_of_it():
    x = noise(64, 3, 6, 6)
    model = learn(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), x)
    network = bittrue.convert(model, x)
    assert kinds(network) == ["Conv", "Maximum"]
    assert network.layers[0].relu


def test_a_clamp_at_0_is_fused_a_limit_is_a_clamp_and_other_functions_are_tables():
    x = noise(64, 6)
    for function, expected in {
        nn.ReLU(): ["Linear"],
        nn.ReLU6(): ["Linear"],  # nothing here reaches 6
        nn.Hardtanh(0, 0.3): ["Linear"],  # codes end there
        nn.Hardtanh(-0.2, 0.3): ["Linear", "Clamp"],
        nn.Dropout(0.4): ["Linear"],
        nn.LeakyReLU(0.2): ["Linear", "Function"],
        nn.GELU(): ["Linear", "Function"],
    }.items():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 5), function).eval()
        network = bittrue.convert(model, x)
        assert kinds(network) == expected, function
        assert error(model, network, x) < 0.05
        assert network.layers[0].relu == (
            getattr(function, "min_val", 0) == 0 and expected == ["Linear"] and not isinstance(function, nn.Dropout)
        )


def test_a_table_is_exact_at_every_code():
    x = noise(64, 6)
    network = bittrue.convert(nn.Sequential(nn.Linear(6, 6), nn.PReLU(6, init=0.3)).eval(), x, equalise_channels=False)
    (function,) = (layer for layer in network.layers if isinstance(layer, TensorFunction))
    codes = np.arange(-128, 128)
    step, target = float(function.source.value), float(function.target.value)
    real = np.where(codes < 0, 0.3, 1.0) * step * codes / target
    surely = np.abs(real % 1 - 0.5) > 1e-3  # halves may be rounded either way in other floats
    assert surely.mean() > 0.9
    table = function.integers().detach().numpy()
    assert table.shape == (6, 256)
    assert (table == np.clip(np.floor(real + 0.5), -128, 127))[:, surely].all()


def test_channels_of_a_flattened_image_are_read_where_they_are():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)).eval()
    x = noise(64, 2, 6, 6)
    network = bittrue.convert(model, x)
    assert error(model, network, x) < 0.05
    operations = [type(node.operation) for node in network.lower().nodes]
    assert operations.count(Reshape) == 2  # patches; what is flattened
    assert Transpose not in operations


def test_channels_that_are_shuffled_are_read_where_they_are():
    class Shuffled(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.first, self.last = nn.Conv2d(2, 6, 1), last

        def forward(self, x):
            y = self.first(x)
            return self.last(y.view(-1, 2, 3, 6, 6).transpose(1, 2).reshape(-1, 6, 6, 6))

    x = noise(64, 2, 6, 6)
    for last in (nn.Conv2d(6, 4, 3), nn.Conv2d(6, 6, 3, groups=6), nn.MaxPool2d(2), nn.PReLU(6), nn.BatchNorm2d(6)):
        model = learn(Shuffled(last), x)
        if isinstance(last, nn.PReLU):
            last.weight.data = torch.linspace(-0.5, 1, 6)
        network = bittrue.convert(model, x)
        equal_everywhere(network, x[:4])
        assert error(model, network, x) < 0.05, last


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True)])
def test_around_the_image_nothing_is_larger_than_the_least(pool):
    x = -noise(64, 2, 6, 6).abs() - 1
    network = bittrue.convert(nn.Sequential(pool, nn.Conv2d(2, 2, 1)), x)
    program = equal_everywhere(network, x)
    pooled = program.trace(network.encode(x)).tensors["layer0"] * network.input.scale
    np.testing.assert_allclose(pooled, pool(x).permute(0, 2, 3, 1), atol=0.51 * network.input.scale)


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d((1, 3), (2, 1), (0, 1)), nn.AvgPool2d(2, divisor_override=3)],
)
@pytest.mark.parametrize("mode", ["shift", "multiplier"])
def test_averages_are_as_fine_as_their_codes(pool, mode):
    x = noise(64, 2, 6, 6)
    network = bittrue.convert(pool, x, requantize=mode, ranges=100.0)
    equal_everywhere(network, x[:4])
    found, real = network.decode(network.lower()(network.encode(x))), pool(x).numpy()
    step = max(float(network.scale), 2 * network.input.scale * 0.5)
    assert np.abs(found - real).max() < 1.5 * step
    assert float(network.scale) < 2.2 * np.abs(real).max() / 127


def test_a_normalisation_of_what_others_read_as_well_stays():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.other = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + self.other(y)

    x = noise(64, 2, 6, 6)
    network = bittrue.convert(model := learn(Shared(), x), x)
    assert error(model, network, x) < 0.05
    assert "Affine" in kinds(network)


def test_what_a_clamp_cuts_off_takes_no_room():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x):
            return functional.relu(self.left(x) + self.right(x))

    model = Cut()
    with torch.no_grad():
        model.left.bias -= 1
        model.right.bias -= 1
    x = noise(256, 6)
    real = model(x)
    network = bittrue.convert(model, x, ranges=100.0)
    assert float((model.left(x) + model.right(x)).min()) < -3 * float(real.max())
    branch = max(float(layer(x).abs().max()) for layer in (model.left, model.right))
    assert float(network.scale) == pytest.approx(max(branch, float(real.max())) / 127, rel=1e-4)


@pytest.mark.parametrize("mode", ["shift", "multiplier"])
@pytest.mark.parametrize("inputs", [100, 6000])
def test_sums_that_float32_does_not_hold_are_exact(inputs, mode):
    x = noise(40, inputs)
    network = bittrue.convert(nn.Linear(inputs, 3), x, requantize=mode)
    layer = network.layers[0]
    codes = (
        torch.randint(100, 128, (40, inputs)).float() * layer.weight[0].detach().sign()
    )  # far beyond the calibration
    weight, bias, shift, _ = (v.detach() for v in layer.integers())
    expected = codes.numpy().astype(np.int64) @ weight.numpy().astype(np.int64).T + bias.numpy().astype(np.int64)
    assert (np.abs(expected).max() > 1 << 24) == (inputs > 100)
    assert np.array_equal(layer.sums(codes, weight, bias, shift).numpy().astype(np.int64), expected)


def test_what_is_decided_by_keeps_its_whole_range_and_others_what_was_asked_for():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanhshrink(), nn.Linear(8, 3))
    x = noise(500, 6)
    x[0] *= 30
    network = bittrue.convert(model, x, ranges=99.0)
    assert float(network.scale) == pytest.approx(float(model(x).abs().max()) / 127, rel=1e-5)
    hidden = float(model[0](x).abs().max()) / 127
    assert float(network.layers[0].target.value) < 0.5 * hidden
    whole = bittrue.convert(model, x, ranges=100.0)
    assert float(whole.layers[0].target.value) == pytest.approx(hidden, rel=1e-5)
