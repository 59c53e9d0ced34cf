"""Networks of a user's own: every tensor of the program is that of the integer network, and that follows the floats."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.models.data.sets import Data, Split, load
from bittrue.models.graph.lower import record
from bittrue.models.int8.converted import Converted
from bittrue.models.layers.tensors import TensorClamp, TensorFunction, TensorProduct
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.transpose import Transpose
from tests.helpers.torch_networks import NEWCOMERS, Residual, learn, random_network

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(model: nn.Module, network: Converted, x: torch.Tensor) -> float:
    """Root mean square of what the integers change, as a share of the spread of the float results."""
    with torch.no_grad():
        real = model(x.clone()).double()
    found = torch.from_numpy(network.decode(network.lower()(network.encode(x))))
    if real.ndim == 2 and (real.exp().sum(1) - 1).abs().max() < 1e-5:  # log_softmax at the end
        found = torch.log_softmax(found, 1)
    elif real.ndim == 2 and (real.sum(1) - 1).abs().max() < 1e-5:
        real, found = real.log(), torch.log_softmax(found, 1)
    return float(((found - real).square().mean() / (real - real.mean()).square().mean()).sqrt())


def equal_everywhere(network: Converted, x: torch.Tensor) -> bittrue.Program:
    program, codes = network.lower(), network.encode(x)
    recorded, traced = record(network, codes), program.trace(codes).tensors
    assert recorded.keys() == traced.keys()
    for name, tensor in traced.items():
        assert np.array_equal(recorded[name], tensor), name
    assert np.array_equal(program.reference(codes[:4]), program(codes[:4]))
    return program


@pytest.mark.parametrize("seed", range(54))
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
def kinds(network: Converted) -> list[str]:
    return [type(layer).__name__.removeprefix("Tensor") for layer in network.layers]


def conv_norm(*, padding: int, bias: bool = True):
    return learn(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=padding, bias=bias)), noise(64, 3, 6, 6))


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
    network = bittrue.convert(nn.Sequential(nn.Linear(6, 6), nn.PReLU(6, init=0.3)).eval(), x)
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


def test_gradients_are_those_of_the_functions():
    x = noise(64, 6)
    network = bittrue.convert(nn.Sequential(nn.Linear(6, 5), nn.SiLU()), x, ranges=100.0)
    linear, function = network.layers
    codes = torch.arange(-100.0, 100.0)[:, None].requires_grad_()
    function(codes).sum().backward()
    at = (codes.detach() * linear.target.value).requires_grad_()
    functional.silu(at).sum().backward()
    expected = at.grad * linear.target.value / function.target.value
    assert (codes.grad - expected).abs().max() < 0.02
    before = network.scale.detach().clone()
    linear.zero_grad()
    share = noise(64, 5, seed=2)
    (network(torch.from_numpy(network.encode(x))) * share).mean().backward()
    real = nn.functional.silu(x @ linear.weight.T + linear.bias) / before
    linear.weight.grad, found = None, linear.weight.grad.clone()
    (real * share).mean().backward()
    assert torch.cosine_similarity(found.flatten(), linear.weight.grad.flatten(), 0) > 0.98


def test_weights_that_no_shift_makes_smaller_still_fit():
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, -4, 0, 0], [0, 0, 4, -4]]))
        model.bias.zero_()
    x = noise(64, 4)
    x[:, 1], x[:, 3] = x[:, 0] * 0.99, x[:, 2] * 0.98  # little is left of the sums
    network = bittrue.convert(model, x, bits=2, correct_biases=False)
    layer = network.layers[0]
    assert layer.integers()[0].tolist() == [[1, -1, 0, 0], [0, 0, 1, -1]]
    assert float(layer.source.value) * 4 / float(layer.target.value) == pytest.approx(1)
    equal_everywhere(network, x)


def test_weights_that_torch_parametrises_are_those_of_the_layer():
    x = noise(64, 6)
    model = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)).eval()
    network = bittrue.convert(model, x)
    assert kinds(network) == ["Linear"]
    assert error(model, network, x) < 0.05


def test_an_mlp_reads_a_flat_frame_whatever_the_shape_of_its_images():
    network = bittrue.convert(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval(), noise(64, 3, 2, 2))
    assert kinds(network) == ["Linear"]
    assert network.lower().inputs["x"].shape == (12,)


def test_mixing_tokens_turns_the_tensor():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.channels = nn.Linear(5, 7), nn.Linear(4, 6)

        def forward(self, x):
            return self.channels(self.tokens(x.transpose(1, 2)).transpose(1, 2)).mean(1)

    x = noise(64, 5, 4)
    network = bittrue.convert(model := Mixer().eval(), x)
    equal_everywhere(network, x)
    assert error(model, network, x) < 0.05
    assert kinds(network).count("Transpose") == 1  # the input comes as the first layer wants it


def test_depthwise_is_depthwise_and_groups_are_one_product_with_zeros_that_stay():
    x = noise(64, 4, 6, 6)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1, groups=2), nn.ReLU()).eval()
    network = bittrue.convert(model, x)
    assert kinds(network) == ["Depthwise", "Conv"]
    labels = np.random.default_rng(1).integers(0, 8, 64)
    pooled = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = bittrue.convert(pooled, x)
    network.fit(((x, labels), (x, labels)), Qat(epochs=2, batch=16, lr=1e-2))
    program = equal_everywhere(network, x)
    depthwise = [node for node in program.nodes if isinstance(node.operation, Depthwise)]
    assert len(depthwise) == 1
    product = next(node.operation for node in program.nodes if node.name == "layer0_1")
    assert (product.weight[:4, 2:] == 0).all()
    assert (product.weight[4:, :2] == 0).all()
    assert (product.weight != 0).mean() > 0.4


def test_calls_of_one_module_share_their_weights():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.fc(torch.tanh(self.fc(x)))))

    x = noise(64, 6)
    network = bittrue.convert(model := Twice().eval(), x)
    equal_everywhere(network, x)
    assert error(model, network, x) < 0.08
    first, second = (layer for layer in network.layers if layer.path == "fc")
    assert first.weight is second.weight
    assert first.label != second.label
    assert len([row for row in network.sensitivity(x, np.zeros(64, int), bits=[4]).rows if row[0] == "fc"]) == 1


def test_calls_of_one_module_whose_weights_come_to_differ_have_their_own():
    """The second call reads its channels in another order, which goes into its weights, not into the first's."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x):
            return self.linear(torch.tanh(self.linear(x)).flip(1))

    x = noise(200, 6)
    network = bittrue.convert(model := Twice().eval(), x)
    equal_everywhere(network, x)
    assert error(model, network, x) < 0.05
    first, second = (layer for layer in network.layers if layer.path == "linear")
    assert not torch.equal(first.weight, second.weight)


def test_a_difference_takes_a_factor_into_its_operand():
    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x):
            return self.left(x) - self.right(x)

    x = noise(64, 6)
    network = bittrue.convert(model := Difference().eval(), x)
    assert sorted(kinds(network)) == ["IntegerAdd", "Linear", "Linear"]
    assert error(model, network, x) < 0.05


def test_an_average_that_is_added_gets_a_step_of_its_own():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.conv = nn.AvgPool2d(3, 1, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.pool(x) + self.conv(x)

    x = noise(64, 2, 5, 5)
    model = Pooled().eval()
    shift, multiplier = (bittrue.convert(model, x, requantize=mode) for mode in ("shift", "multiplier"))
    assert "Affine" in kinds(shift)
    assert "Affine" not in kinds(multiplier)
    for network in (shift, multiplier):
        program = equal_everywhere(network, x)
        assert error(model, network, x) < 0.05
        assert any(isinstance(node.operation, Affine) for node in program.nodes) == (network is shift)


UNEVEN = {
    "linear": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)),
    "conv": lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)),
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Conv2d(8, 4, 1)
    ),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)),
}


@pytest.mark.parametrize("case", UNEVEN)
def test_channels_of_different_size_are_equalised(case):
    model = UNEVEN[case]()
    products = [module for module in model if isinstance(module, nn.Linear | nn.Conv2d)]
    factors = torch.tensor([0.02, 0.05, 0.1, 0.3, 1, 2, 5, 20.0])
    with torch.no_grad():
        products[0].weight *= factors.view(-1, *[1] * (products[0].weight.ndim - 1))
        products[0].bias *= factors
        alone = getattr(products[1], "groups", 1) > 1
        shape = (-1, 1, 1, 1) if alone else (1, -1, *[1] * (products[1].weight.ndim - 2))
        products[1].weight /= factors.view(shape)
    x = noise(128, 6) if case == "linear" else noise(128, 2, 7, 7)
    even, uneven = (bittrue.convert(model, x, equalise_channels=yes) for yes in (True, False))
    equal_everywhere(even, x[:8])
    assert error(model, even, x) < 0.03
    assert error(model, uneven, x) > 2 * error(model, even, x)


def test_weights_that_are_shared_and_groups_are_left_uneven():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            return self.fc(self.fc(x).relu())

    x = noise(64, 6)
    first, second = bittrue.convert(model := Twice(), x, correct_biases=False).layers
    assert first.weight is second.weight
    assert torch.equal(first.weight, model.fc.weight)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2))
    network = bittrue.convert(model, noise(64, 2, 6, 6), correct_biases=False)
    assert torch.equal(network.layers[0].weight, model[0].weight.flatten(1))


class Takes(nn.Module):
    """A forward of one's own between a layer and another."""

    def __init__(self, first, last, run):
        super().__init__()
        self.first, self.last, self.run = first, last, run

    def forward(self, x):
        return self.last(self.run(self.first(x)))


def gated(y):
    a, b = y.chunk(2, 1)
    return a * b.sigmoid()


PARTS = {
    "gate": (nn.Conv2d(2, 6, 1), nn.Conv2d(3, 3, 1), gated, ["Conv", "Slice", "Slice", "Function", "Multiply", "Conv"]),
    "channels": (nn.Conv2d(2, 5, 1), nn.Conv2d(2, 3, 1), lambda y: y[:, 1:3], ["Conv", "Slice", "Conv"]),
    "several": (nn.Conv2d(2, 5, 1), nn.Conv2d(3, 3, 1), lambda y: torch.cat(y.split([1, 2, 2], 1)[:2], 1), None),
    "rows, columns": (nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), lambda y: y[:, :, 1:-1][..., 2:], None),
    "every second": (nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), lambda y: y[:, :, ::2], None),
    "a pixel": (nn.Conv2d(2, 3, 3), nn.Linear(3, 4), lambda y: y[:, :, -1, -1], None),
}


@pytest.mark.parametrize("mode", ["shift", "multiplier"])
@pytest.mark.parametrize("case", PARTS)
def test_parts_and_products_of_tensors(case, mode):
    first, last, run, expected = PARTS[case]
    x = noise(64, 2, 6, 6)
    model = Takes(first, last, run)
    network = bittrue.convert(model, x, requantize=mode)
    equal_everywhere(network, x[:8])
    assert error(model, network, x) < 0.05
    assert expected is None or kinds(network) == expected


@pytest.mark.parametrize("how", ["add", "mul"])
def test_a_part_is_brought_to_the_axes_of_what_it_is_added_to_or_multiplied_with(how):
    class Cropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.valid = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3, padding=(0, 1))

        def forward(self, x):
            y = self.first(x)
            return getattr(torch, how)(self.valid(y), y[:, :, 1:-1])

    x = noise(64, 2, 6, 6)
    network = bittrue.convert(model := Cropped(), x)
    equal_everywhere(network, x[:8])
    assert error(model, network, x) < 0.05


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_padding_to_the_same_size_is_longer_behind(kernel):
    x = noise(64, 2, 6, 6)
    model = nn.Sequential(nn.Conv2d(2, 3, kernel, padding="same", dilation=(1, 2)), nn.AdaptiveAvgPool2d((3, 2)))
    network = bittrue.convert(model, x)
    assert kinds(network) == ["Conv", "Mean"]
    assert error(model, network, x) < 0.05
    model = nn.Sequential(model[0], nn.AdaptiveMaxPool2d(2))
    assert error(model, bittrue.convert(model, x), x) < 0.05


def test_a_forward_may_look_at_shapes_and_take_defaults():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 3)

        def forward(self, x, twice=False, *, scale=1.0):
            assert (x.shape[1], x.ndim, len(x.shape)) == (2, 4, 4)
            n, c, h, w = x.size()
            for _ in range(x.dim() - 2):
                x = x * scale + 0.0
            x = x.view(n, c * h * w) if x.dtype == torch.float32 else x
            return self.fc(x if not twice else x + x)

    x = noise(64, 2, 3, 2)
    network = bittrue.convert(model := Looks().eval(), x)
    assert kinds(network) == ["Linear"]
    assert error(model, network, x) < 0.05


@pytest.mark.parametrize("mode", ["shift", "multiplier"])
def test_a_large_bias_and_a_dead_channel_are_as_fine_as_others(mode):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).eval()
    with torch.no_grad():
        model[0].bias[1], model[0].weight[2], model[0].bias[2] = 30.0, 0.0, 7.3
        model[2].bias -= model[2].weight[:, 1] * 30 + model[2].weight[:, 2] * 7.3
    x = noise(64, 6)
    network = bittrue.convert(model, x, requantize=mode, ranges=100.0, equalise_channels=False)
    program = equal_everywhere(network, x)
    hidden = program.trace(network.encode(x)).tensors["layer0"] * float(network.layers[0].target.value)
    assert np.abs(hidden - model[1](model[0](x)).detach().numpy()).max() < 0.5  # a step is 30 / 127 or so
    assert np.abs(hidden[:, 2] - 7.3).max() < 0.13


def test_corrected_biases_leave_no_mean_error():
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(24, 4))
    x = noise(256, 2, 6, 6).abs()
    with torch.no_grad():
        real = model(x).double()

    def bias(correct: bool) -> float:
        network = bittrue.convert(model, x, bits=3, correct_biases=correct)
        return float((torch.from_numpy(network.decode(network.lower()(network.encode(x)))) - real).mean(0).abs().mean())

    assert bias(True) < 0.5 * bias(False)


# -- the newcomers' four, end to end -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def digits():
    return load("digits")


def values(images):
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 16


def trained(name: str, data: Data, epochs: int = 6) -> nn.Module:
    model = NEWCOMERS[name]()
    x, labels = values(data.train.images), torch.from_numpy(data.train.labels.copy())
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", NEWCOMERS)
def test_what_newcomers_try_keeps_its_accuracy_and_trains(name, digits):
    model = trained(name, digits)
    x, labels = values(digits.test.images), digits.test.labels
    floats = float((model(x).argmax(1).numpy() == labels).mean())
    assert floats > 0.85
    network = bittrue.convert(model, digits, preprocess=values)
    program = equal_everywhere(network, x[:40])
    golden = float((program(network.encode(digits.test.images)).argmax(1) == labels).mean())
    assert golden == network.accuracy(x, labels) == network.accuracy(digits.test.images, labels)
    assert golden >= floats - 0.01
    coarse = bittrue.convert(model, digits, bits={"": 8} | {path: 3 for path in _paths(network)[1:]}, preprocess=values)
    assert [layer.weight_bits for layer in coarse.layers if isinstance(layer, TensorProduct)][:2] == [8, 3]
    history = coarse.fit(digits, Qat(epochs=1, batch=64, lr=1e-3, learn_scales=True))
    assert history.accuracy >= history.start
    assert len(history) == 1
    equal_everywhere(coarse, x[:20])


def _paths(network: Converted) -> list[str]:
    return list(dict.fromkeys(layer.path for layer in network.layers if isinstance(layer, TensorProduct)))


def test_the_sensitivity_of_every_layer_is_a_table(digits):
    network = bittrue.convert(trained("mlp-norm", digits), digits, preprocess=values)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = network.sensitivity(digits.test.images, digits.test.labels, bits=(4, 2))
    assert {(path, bits) for path, bits, _ in found.rows} == {(p, b) for p in ("1", "4", "8") for b in (4, 2)}
    accuracy = {(path, bits): value for path, bits, value in found.rows}
    assert found.accuracy == network.accuracy(digits.test.images, digits.test.labels)
    assert accuracy["1", 2] < accuracy["1", 4] <= found.accuracy + 0.02
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [layer.weight_bits for layer in network.layers] == [8, 8, 8]
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "4", "bits", "2", "bits"]
    assert len(lines) == 5


def test_pixels_are_0_to_1_unless_told():
    images = np.random.default_rng(1).integers(0, 256, (40, 5, 5, 3), dtype=np.uint8)
    network = bittrue.convert(nn.Conv2d(3, 2, 3).eval(), images)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    assert np.array_equal(network.encode(images), network.encode(floats))
    assert network.encode(images).shape == (40, 5, 5, 3)
    assert np.array_equal(
        network.encode(images), np.floor(images / np.float32(255) * np.float32(127) + np.float32(0.5))
    )


def test_results_are_decoded_in_the_shape_of_the_model():
    model = nn.Conv2d(3, 2, 3).eval()
    x = noise(40, 3, 6, 5)
    network = bittrue.convert(model, x)
    assert network.lower()(network.encode(x)).shape == (40, 4, 3, 2)
    decoded = network.decode(network.lower()(network.encode(x)))
    assert decoded.shape == (40, 2, 4, 3)
    np.testing.assert_allclose(decoded, model(x).detach().numpy(), atol=0.05)


def test_the_page_lists_what_the_code_takes():
    assert (ROOT / "docs" / "convert.md").read_text() == bittrue.supported(), (
        "write it again: python -m bittrue.models.graph.supported > docs/convert.md"
    )


def test_the_ten_lines_of_readme(digits, tmp_path, monkeypatch):
    (example,) = (
        b
        for b in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
        if "convert(" in b
    )
    asked = []
    monkeypatch.setattr(bittrue, "verify", lambda plan, x: asked.append((plan, x)) or SimpleNamespace(problems=[]))
    monkeypatch.chdir(tmp_path)
    given = {"bittrue": bittrue, "train": lambda net, x, _: learn(net, x)}
    for suffix, split in {"": digits.train, "_test": digits.test, "_val": digits.val}.items():
        given |= {
            f"x{suffix}": values(split.images[:200]),
            f"labels{suffix}": torch.from_numpy(split.labels[:200].copy()),
        }
    exec(example, given)
    ((plan, (codes,)),) = asked
    assert plan.program.sha256 == given["mine"].lower().sha256
    assert plan.program(codes).shape == (20, 10)
    assert plan.estimated_interval <= 10000
    assert "module bittrue_top" in Path("mine.v").read_text()


def test_what_was_trained_is_kept_and_a_training_goes_on(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(48, 2))
    x = noise(96, 1, 6, 6)
    labels = (x[:, 0, 0, 0] > 0).long()
    data, settings = ((x, labels), (x, labels)), Qat(epochs=2, batch=32, lr=3e-3, learn_scales=True)
    trained, other = bittrue.convert(model, x), bittrue.convert(model, x)
    assert trained.lower().sha256 == other.lower().sha256
    trained.fit(data, settings)
    assert trained.lower().sha256 != other.lower().sha256
    other.load_state_dict(trained.state_dict())
    assert trained.lower().sha256 == other.lower().sha256

    class Stop(Exception):
        pass

    def stop(at):
        if at.epoch == 2:
            raise Stop

    other = bittrue.convert(model, x)
    with pytest.raises(Stop):
        other.fit(data, settings, checkpoint=tmp_path / "half", progress=stop)
    other = bittrue.convert(model, x)
    other.fit(data, settings, checkpoint=tmp_path / "half")
    assert trained.lower().sha256 == other.lower().sha256


def test_a_data_set_of_ones_own_images_trains_it():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (96, 6, 6, 1), dtype=np.uint8)
    split = Split(images, (images.reshape(96, -1)[:, :4].sum(1) > 510).astype(np.int64))
    model = learn(nn.Sequential(Residual(1, 3), nn.Flatten(), nn.Linear(108, 2)), noise(64, 1, 6, 6))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.zero_()  # its statistics are not of these images, and nobody is told
    network = bittrue.convert(model, Data("own", ("low", "high"), split, split, split))
    assert any(isinstance(layer, TensorClamp) for layer in network.layers)
    network.fit(((images, split.labels), (images, split.labels)), Qat(epochs=1, batch=32))
    equal_everywhere(network, torch.from_numpy(images[:8]))
    with pytest.raises(BittrueError, match="give a data set, or"):
        network.fit(images)
