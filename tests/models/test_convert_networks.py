"""What networks of one's own may be made of: gradients, shared weights, equalised channels, parts, padding, biases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.models.training.settings import Qat
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.depthwise import Depthwise
from tests.helpers.converted import conv_norm, equal_everywhere, error, kinds, noise, seeded  # noqa: F401


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


def test_a_factor_that_several_products_read_goes_into_all_of_them():
    class Scaled(nn.Module):
        """What comes in is scaled and moved, and read by layers of two kinds; one of them pads, the other does not."""

        def __init__(self, offset):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, padding=1)
            self.offset = offset

        def forward(self, x):
            x = x * 0.25 + self.offset
            return self.a(x).mean((2, 3)) + self.b(x).mean((2, 3))

    x = noise(64, 3, 5, 5)
    for offset, affines in ((0.0, 0), (0.5, 1)):  # an offset would be missing around the image
        model = Scaled(offset).eval()
        network = bittrue.convert(model, x, requantize="multiplier")
        program = equal_everywhere(network, x)
        assert sum(isinstance(node.operation, Affine) for node in program.nodes) == affines
        assert error(model, network, x) < 0.03
