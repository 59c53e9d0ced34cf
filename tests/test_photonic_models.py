"""Photonic networks: the non-negative transformation, activations, optimisers, scenarios, and the price of alpha."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models import storage
from models import train as trainer
from models.data import Data, Split, load
from models.mlp import Mlp
from models.photonic_activations import PhotonicSigmoid, PhotonicSinusoid, ReLUN, activation
from models.photonic_layers import NonNegativeConv2d, NonNegativeLinear, integer_form
from models.photonic_light import price, prices
from models.photonic_net import SimpleMLP, grey, light_codes
from models.photonic_optim import CSGD, NNSGD
from models.photonic_settings import Calibrate, PhotonicPerceptron, PhotonicTrain, architecture, published
from models.photonic_train import compare, regular_of, train
from models.photonic_transform import NonNegativeNetwork, transform
from models.precision import full_precision
from models.resmlp import ResMLP
from models.settings import Network, Perceptron
from sim.errors import BittrueError

F64 = torch.float64


@pytest.fixture(scope="module")
def data():
    return load("digits")


KINDS = ("mixed signs", "zero biases", "rows without negative weights", "large biases", "all negative", "sparse")


def random_layer(rng, kind):
    """Weight [N, K], bias [N] and alpha of a layer of a kind."""
    outputs, inputs = int(rng.integers(1, 40)), int(rng.integers(1, 80))
    weight, bias = rng.normal(size=(outputs, inputs)), rng.normal(size=outputs)
    alpha = float(rng.choice([0.3, 1.0, 1.005, 14.0, 100.0]))
    if kind == "zero biases":
        bias[:] = 0
    elif kind == "rows without negative weights":
        rows = rng.random(outputs) < 0.6
        weight[rows] = abs(weight[rows])
        bias[rng.random(outputs) < 0.5] = 0
    elif kind == "large biases":
        bias *= 10 * alpha * inputs
    elif kind == "all negative":
        weight, bias = -abs(weight), -abs(bias)
    elif kind == "sparse":
        weight[rng.random(weight.shape) < 0.8] = 0
        bias[rng.random(outputs) < 0.5] = 0
    return weight, bias, alpha


class TestThousandLayers:
    @pytest.mark.parametrize("seed", range(20))
    def test_the_float_form_equals_the_signed_layer(self, seed):
        rng = np.random.default_rng([4, seed])
        for trial in range(50):
            weight, bias, alpha = random_layer(rng, KINDS[trial % len(KINDS)])
            w, b = torch.tensor(weight), torch.tensor(bias)
            layer = NonNegativeLinear(w, b, alpha, "layer")
            x = torch.tensor(rng.uniform(0, alpha, size=(16, weight.shape[1])))
            u, z = layer.optical(x), x @ w.T + b
            for light in (layer.weight_positive, layer.weight_negative, layer.bias_hat, layer.shift, u):
                assert (light >= 0).all()
            assert not ((layer.weight_positive > 0) & (layer.weight_negative > 0)).any()
            assert (layer.bias_hat <= 2 * layer.shift).all()
            scale = z.abs().max(0).values  # of each output
            assert ((u - layer.shift - z).abs().max(0).values <= 1e-9 * scale).all()
            signed, back = layer.regular()
            assert torch.equal(signed, w)
            assert (back - b).abs().max() <= 1e-9 * max(float(layer.shift), 1e-300)

    @pytest.mark.parametrize("seed", range(20))
    def test_the_integer_form_is_exact(self, seed):
        rng = np.random.default_rng([5, seed])
        for trial in range(50):
            weight, bias, _ = random_layer(rng, KINDS[trial % len(KINDS)])
            magnitude, top = int(rng.choice([1, 7, 127, 255, 2**15])), int(rng.choice([1, 15, 255, 65535]))
            w = np.rint(weight * magnitude).astype(np.int64)
            b = np.rint(bias * magnitude * top).astype(np.int64)
            form = integer_form(w, b, top)
            q = rng.integers(0, top + 1, size=(16, w.shape[1]))
            q[0], q[1] = 0, top
            u = form.optical(q)
            assert np.array_equal(u - form.shift, q @ w.T + b)
            assert np.array_equal(form.positive - form.negative, w)
            assert min(form.positive.min(), form.negative.min(), form.bias_hat.min(), form.shift, u.min()) >= 0
            assert u.max() <= form.largest < 2**form.adc_bits

    def test_the_largest_sum_is_reached(self):
        rng = np.random.default_rng(6)
        for _ in range(50):
            w, b = rng.integers(-3, 4, size=(3, 4)), rng.integers(-9, 10, size=3)
            form = integer_form(w, b, 3)
            everything = np.array(list(itertools.product(range(4), repeat=4)))
            assert form.optical(everything).max() == form.largest
            assert form.adc_bits == int(np.ceil(np.log2(form.largest + 1)))

    @pytest.mark.parametrize(("w", "b", "top", "needle"), [
        (np.ones((2, 2)), np.zeros(2, int), 3, "float64"),
        (np.ones((2, 2), int), np.zeros(3, int), 3, r"\(3,\)"),
        (np.ones((2, 2), int), np.zeros(2, int), 0, "top"),
        (np.full((1, 4), 2**40), np.zeros(1, int), 2**30, "63 bits"),
    ])  # fmt: skip
    def test_what_is_no_integer_layer_is_refused(self, w, b, top, needle):
        with pytest.raises(BittrueError, match=needle):
            integer_form(w, b, top)

    def test_codes_outside_the_range_are_refused(self):
        form = integer_form(np.ones((1, 2), int), np.zeros(1, int), 15)
        for bad in (-1, 16):
            with pytest.raises(BittrueError, match=r"0\.\.15"):
                form.optical([[bad, 0]])


class TestPublishedExample:
    W = torch.tensor([[0.5, -0.25], [-0.75, -0.5], [0.3, 0.2]], dtype=F64)
    B = torch.tensor([0.1, -0.2, 0.4], dtype=F64)

    def test_worked_example(self):
        layer = NonNegativeLinear(self.W, self.B, 1.0, "layer")
        x = torch.tensor([0.2, 0.9], dtype=F64)
        expected = {"bias_hat": [1.3, 0.0, 1.85], "shift": 1.45}
        for name, value in expected.items():
            assert torch.allclose(getattr(layer, name), torch.tensor(value, dtype=F64), rtol=0, atol=1e-15)
        assert torch.allclose(layer.optical(x), torch.tensor([1.425, 0.65, 2.09], dtype=F64), rtol=0, atol=1e-15)
        assert torch.allclose(layer(x), torch.tensor([-0.025, -0.8, 0.64], dtype=F64), rtol=0, atol=1e-15)

    @pytest.mark.parametrize(("bias", "wrong"), [(0.4, 0.8), (0.0, 2.0)])
    def test_a_row_without_negative_weights_is_right(self, bias, wrong):
        """The published branches lose b~ + b where b~ > 0, and s where b~ = 0."""
        w = torch.tensor([[0.5, 0.25], [-1.5, -0.5]], dtype=F64)
        b = torch.tensor([bias, 0.0], dtype=F64)
        layer, x = NonNegativeLinear(w, b, 1.0, "layer"), torch.tensor([0.3, 0.6], dtype=F64)
        compensated, s = b - layer.weight_negative.sum(1), layer.shift
        branch = torch.where(compensated < 0, s + compensated, s - b.abs())
        branch = torch.where(compensated == 0, -b.abs(), branch)
        z = w @ x + b
        defect = layer.optical(x) - layer.bias_hat + branch - s - z
        assert torch.isclose(defect.abs().max(), torch.tensor(wrong, dtype=F64))
        assert (layer(x) - z).abs().max() < 1e-15

    def test_a_filter_without_negative_weights_and_without_bias_is_right(self):
        weight = torch.tensor([[[[1.0, 2.0]]], [[[-1.0, 0.5]]]], dtype=F64)
        layer = NonNegativeConv2d(weight, None, 2.0, "conv", pads=(1, 1, 0, 0))
        x = torch.rand(2, 1, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(1)) * 2
        assert torch.allclose(layer(x), nn.functional.conv2d(x, weight, padding=(0, 1)), rtol=0, atol=1e-14)


class TestActivations:
    @pytest.mark.parametrize(("x", "y"), [
        (-1, 0.060000), (0, 0.071530), (0.1, 0.252449), (0.145, 0.532500), (0.2, 0.854869), (0.3, 0.996457), (1, 1.005),
    ])  # fmt: skip
    def test_sigmoid_check_values(self, x, y):
        assert round(float(PhotonicSigmoid()(torch.tensor(x, dtype=F64))), 6) == y

    def test_sigmoid_is_the_published_formula(self):
        x = torch.linspace(-2, 4, 601, dtype=F64)
        formula = 1.005 + (0.060 - 1.005) / (1 + torch.exp(torch.clamp(x - 0.145, max=2) / 0.033))
        assert torch.allclose(PhotonicSigmoid()(x), formula, rtol=0, atol=1e-14)

    @pytest.mark.parametrize(("x", "y"), [
        (-3, 0), (0, 0), (0.25, 0.146447), (0.5, 0.5), (0.75, 0.853553), (1, 1), (7, 1),
    ])  # fmt: skip
    def test_sinusoid_check_values(self, x, y):
        assert round(float(PhotonicSinusoid()(torch.tensor(x, dtype=F64))), 6) == y

    def test_relun(self):
        x = torch.tensor([-1.0, 0.0, 3.0, 14.0, 15.0])
        assert ReLUN(14)(x).tolist() == [0, 0, 3, 14, 14]
        for bad in (0, -1, float("nan"), float("inf")):
            with pytest.raises(BittrueError, match="bound"):
                ReLUN(bad)

    @pytest.mark.parametrize("dtype", [torch.float32, F64])
    @pytest.mark.parametrize("function", [PhotonicSigmoid(), PhotonicSinusoid(), ReLUN(3.7)])
    def test_values_and_gradients_stay_in_bounds(self, function, dtype):
        extremes = torch.tensor([-1e30, -1e4, 1e4, 1e30], dtype=dtype)
        x = torch.cat([extremes, torch.linspace(-5, 5, 10001, dtype=dtype)]).requires_grad_()
        y = function(x)
        y.sum().backward()
        assert (y >= 0).all()
        assert not (y > torch.tensor(function.bound, dtype=F64)).any()
        assert x.grad.isfinite().all()

    def test_an_unknown_one_is_named(self):
        with pytest.raises(BittrueError, match="tanh"):
            activation("tanh")


class TestOptimizers:
    def parameters(self, seed, zeros=True):
        generator = torch.Generator().manual_seed(seed)
        p = torch.randn(500, generator=generator)
        if zeros:
            p[::7] = 0
        gradient = torch.randn(500, generator=generator) * 10 ** torch.randint(-3, 6, (500,), generator=generator)
        return nn.Parameter(p), gradient

    @pytest.mark.parametrize(("lr_in", "lr_out"), [(0.63, 0.5), (1.0, 1.0), (100.0, 1.0), (1e-3, 0.1)])
    def test_nnsgd_keeps_signs_and_zeros(self, lr_in, lr_out):
        for seed in range(20):
            p, gradient = self.parameters(seed)
            before = p.detach().clone()
            optimizer = NNSGD([p], lr_in, lr_out)
            for _ in range(10):
                p.grad = gradient
                optimizer.step()
            assert not (torch.sign(p) * torch.sign(before) < 0).any()
            assert (p[before == 0] == 0).all()
            if lr_in == 1e-3:
                moved = (gradient.abs() > 1) & (before != 0)
                assert ((p < before) == (gradient > 0))[moved].all()

    def test_nnsgd_is_its_equation(self):
        p, gradient = self.parameters(3)
        expected = p.detach() - 0.5 * p.detach().abs() * torch.tanh(0.63 * gradient)
        p.grad = gradient
        NNSGD([p], 0.63, 0.5).step()
        assert torch.allclose(p, expected, rtol=0, atol=1e-7)

    def test_csgd_is_its_equation(self):
        p, gradient = self.parameters(3)
        expected = torch.clamp(p.detach() - 0.05 * gradient, min=0)
        p.grad = gradient
        CSGD([p], 0.05).step()
        assert torch.allclose(p, expected, rtol=1e-6, atol=0)
        assert (p >= 0).all()
        assert (p == 0).any()

    def test_csgd_lights_a_dark_rail(self):
        p = nn.Parameter(torch.zeros(1))
        p.grad = torch.tensor([-2.0])
        CSGD([p], 0.5).step()
        assert p.item() == 1

    @pytest.mark.parametrize("make", [
        lambda p: NNSGD(p, 0.5, 1.01), lambda p: NNSGD(p, 0.5, 0.0), lambda p: NNSGD(p, 0.5, float("nan")),
        lambda p: NNSGD(p, -1.0, 0.5), lambda p: CSGD(p, 0.0), lambda p: CSGD(p, float("nan")),
    ])  # fmt: skip
    def test_rates_that_are_none_are_refused(self, make):
        with pytest.raises(BittrueError, match="lr"):
            make([nn.Parameter(torch.ones(1))])

    def test_a_parameter_without_a_gradient_stays(self):
        p = nn.Parameter(-torch.ones(2))
        CSGD([p], 0.1).step()
        NNSGD([p], 0.1, 0.1).step()
        assert p.tolist() == [-1, -1]


CONVOLUTIONS = [
    dict(kernel_size=3),
    dict(kernel_size=3, padding=1),
    dict(kernel_size=(3, 5), padding=(2, 1)),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=3, stride=(1, 3), dilation=(2, 1), padding=2),
    dict(kernel_size=3, groups=2, padding=1),
    dict(kernel_size=1, groups=4),
    dict(kernel_size=(2, 4), padding="same"),
    dict(kernel_size=4, padding="same", dilation=2, groups=2, bias=False),
    dict(kernel_size=3, padding="valid", bias=False),
]


def random_conv(options, inputs=4, outputs=8, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Conv2d(inputs, outputs, **options).double()


def codes_of(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(F64)


def random_images(shape, n=6, seed=1, top=256):
    return np.random.default_rng(seed).integers(0, top, size=(n, *shape)).astype(np.uint8)


class TestConvolution:
    @pytest.mark.parametrize("options", CONVOLUTIONS)
    @pytest.mark.parametrize("zero_pad", [(0, 0, 0, 0), (1, 2, 0, 3)])
    def test_it_equals_the_signed_one(self, options, zero_pad):
        network = nn.Sequential(nn.ZeroPad2d(zero_pad), random_conv(options))
        images = random_images((11, 9, 4))
        twin = transform(network, shape=(11, 9, 4))
        (layer,) = twin.layers
        codes = codes_of(images)
        z, u = network(codes / 255), layer.optical(codes / 255)
        assert z.shape == u.shape
        assert (u >= 0).all()
        assert (twin(codes) - z).abs().max() < 1e-13
        assert all((p >= 0).all() for p in twin.parameters())

    def test_the_complement_is_padded_with_alpha(self):
        """With no light at all, what is detected is the compensation alpha sum W-, the same at every pixel."""
        conv = random_conv(dict(kernel_size=3, padding=1))
        layer = transform(nn.Sequential(conv), shape=(5, 5, 4)).layers[0]
        dark = layer.optical(torch.zeros(1, 4, 5, 5, dtype=F64))
        flat = dark[:, :, :1, :1].expand_as(dark)
        assert torch.allclose(dark, flat, rtol=0, atol=1e-14)
        assert torch.equal(layer.frame(torch.ones(1, 4, 5, 5, dtype=F64))[0, 0, 0], torch.zeros(7, dtype=F64))

    @pytest.mark.parametrize("options", CONVOLUTIONS)
    def test_a_normalisation_is_folded_at_the_borders_too(self, options):
        mean, deviation = (0.49, 0.48, 0.44, 0.6), (0.2, 0.19, 0.2, 0.31)
        network = nn.Sequential(random_conv(options))
        images = random_images((11, 9, 4))
        twin = transform(network, shape=(11, 9, 4), normalization=(mean, deviation))
        m, d = (torch.tensor(v, dtype=F64)[:, None, None] for v in (mean, deviation))
        codes = codes_of(images)
        assert (twin(codes) - network((codes / 255 - m) / d)).abs().max() < 1e-12
        assert (twin.layers[0].optical(codes / 255) >= 0).all()

    @pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
    def test_other_padding_is_refused_by_name(self, mode):
        conv = random_conv(dict(kernel_size=3, padding=1, padding_mode=mode))
        with pytest.raises(BittrueError, match=f"0: padding mode '{mode}'"):
            transform(nn.Sequential(conv), shape=(5, 5, 4))

    def test_a_border_that_is_no_light_is_refused(self):
        conv = random_conv(dict(kernel_size=3, padding=1))
        with pytest.raises(BittrueError, match="layer 0: its padding takes light of"):
            transform(nn.Sequential(conv), shape=(5, 5, 4), normalization=(-0.5, 0.3))
        with pytest.raises(BittrueError, match="crop"):
            transform(nn.Sequential(nn.ZeroPad2d(-1), random_conv(dict(kernel_size=1))), shape=(5, 5, 4))


def trained_norms(network, x):
    """Statistics and parameters of batch normalisation as a training leaves them."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        network.train()
        for _ in range(5):
            network(x)
    return network.eval()


def cnn(function, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), function()),
            nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(6, 8, 3, padding="same", groups=2, bias=False), nn.BatchNorm2d(8), function()),
            nn.AvgPool2d(2, padding=1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(32, 12),
            nn.BatchNorm1d(12),
            function(),
            nn.Linear(12, 5),
        ]
        return nn.Sequential(*layers).double()


class TestNetworks:
    @pytest.mark.parametrize("function", [PhotonicSigmoid, PhotonicSinusoid, nn.ReLU, nn.Sigmoid, lambda: ReLUN(2.0)])
    def test_a_convolutional_network_with_everything(self, function):
        mean, deviation = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
        images = random_images((12, 12, 3), n=40)
        m, d = (torch.tensor(v, dtype=F64)[:, None, None] for v in (mean, deviation))
        x = (codes_of(images) / 255 - m) / d
        network = trained_norms(cnn(function), x)
        before = copy.deepcopy(network.state_dict())
        method = Calibrate(method="constant", alpha=1000.0) if function is nn.ReLU else Calibrate()
        twin = transform(network, method, shape=(12, 12, 3), normalization=(mean, deviation))
        with torch.no_grad():
            expected, logits = network(x), twin(torch.from_numpy(twin.encode(images)))
        assert (logits - expected).abs().max() < 1e-9 * expected.abs().max()
        assert [layer.name for layer in twin.layers] == ["0.0", "2.0", "7", "10"]
        assert all((p >= 0).all() for p in twin.parameters())
        assert sum(count["above"] for count in twin.counts()) == 0
        assert [count["seen"] for count in twin.counts()] == [40 * n for n in (432, 216, 32, 12)]
        after = network.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)

    @pytest.mark.parametrize("norm", [True, False])
    @pytest.mark.parametrize("name", ["relu", "sigmoid"])
    def test_an_int8_mlp_with_its_signed_inputs(self, data, norm, name):
        settings = Perceptron(hidden=(12, 9), nonlinearity=name, norm=norm)
        network = Mlp.for_data(settings, data, 1).double()
        codes = torch.from_numpy(network.encode(data.train.images))
        if norm:
            trained_norms(network, codes)
        network.eval()
        method = Calibrate(method="percentile", percentile=100.0, images=2000)
        twin = transform(network, method, images=data.train.images)
        assert float(twin.layers[0].alpha) == 1
        with torch.no_grad():
            expected = network(codes)
            logits = twin(torch.from_numpy(twin.encode(data.train.images)))
        assert (logits - expected).abs().max() < 1e-11
        assert not any(count["above"] for count in twin.counts())

    @pytest.mark.parametrize("dtype", [torch.float32, F64])
    @pytest.mark.parametrize("name", ["sigmoid", "sinusoid"])
    def test_a_simple_mlp(self, data, name, dtype):
        network = SimpleMLP.for_data(PhotonicPerceptron(activation=name), data, 1).to(dtype)
        twin = transform(network)
        bound = 1.005 if name == "sigmoid" else 1.0
        assert [float(layer.alpha) for layer in twin.layers] == [1.0, bound, bound]
        result = compare(network, twin, data.test)
        assert (result.images, result.agree, result.others, result.above) == (450, 450, (), 0)
        assert result.regular == result.twin
        assert 0 < result.difference < 1e-12

    def test_alpha_stays_itself_in_float32(self, data):
        network = SimpleMLP.for_data(PhotonicPerceptron(activation="sigmoid"), data, 1)
        with torch.no_grad():
            network.hidden[0].bias.fill_(9.0)  # every output at its upper end
        twin = transform(network).float().double()
        assert float(twin.layers[1].alpha) == 1.005
        for converted in (twin, copy.deepcopy(twin).float()):
            converted.reset()
            converted(torch.from_numpy(converted.encode(data.test.images)))
            assert converted.counts()[1]["above"] == 0
            assert converted.layers[0].bias_hat.dtype == converted(torch.zeros(1, 64)).dtype

    @pytest.mark.parametrize("make", ["mlp", "cnn"])
    def test_files(self, make, tmp_path):
        images = random_images((12, 12, 3))
        if make == "cnn":
            twin = transform(cnn(lambda: ReLUN(2.0)), shape=(12, 12, 3), gain=2, normalization=(0.4, 0.2))
        else:
            network = PhotonicPerceptron(hidden=(7,), grey=True)
            twin = transform(SimpleMLP(network, (12, 12, 3), 4))
        back = storage.load(storage.save(twin, tmp_path / "twin"), NonNegativeNetwork)
        codes = torch.from_numpy(twin.encode(images))
        assert np.array_equal(back.encode(images), twin.encode(images))
        assert torch.equal(back(codes), twin(codes))
        assert back.counts() == twin.counts()
        again = storage.load(storage.save(twin.float(), tmp_path / "single"), NonNegativeNetwork)
        assert torch.equal(again.float()(codes), twin(codes))

    def test_a_regular_network_in_a_file(self, tmp_path):
        network = SimpleMLP(PhotonicPerceptron(hidden=(5, 4), activation="sigmoid"), (3, 3, 1), 3, 16)
        back = storage.load(storage.save(network, tmp_path / "regular"), SimpleMLP)
        codes = torch.from_numpy(network.encode(random_images((3, 3, 1))))
        assert torch.equal(back(codes), network(codes))

    def test_codes(self):
        images = np.array([0, 1, 15, 16, 255], np.uint8).reshape(1, 5, 1, 1)
        assert light_codes(images).ravel().tolist() == [0, 1, 15, 16, 255]
        assert light_codes(images, 16).ravel().tolist() == [0, 16, 240, 255, 255]
        colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
        assert grey(colours[None, :, None]).ravel().tolist() == [0, 255, 76, 150, 29]
        with pytest.raises(BittrueError, match="float64"):
            light_codes(np.zeros((1, 2, 2, 1)))
        with pytest.raises(BittrueError, match="-3"):
            light_codes(np.full((1, 2, 2, 1), -3))
        with pytest.raises(BittrueError, match="1 channels"):
            SimpleMLP(PhotonicPerceptron(grey=True), (2, 2, 1), 2)

    def test_the_published_architecture(self):
        network = SimpleMLP(architecture("fashion-mnist"), (28, 28, 1), 10)
        assert sum(p.numel() for p in network.parameters()) == 100_710
        deviation = float(network.hidden[0].weight.detach().std())
        assert abs(deviation / np.sqrt(2 / (784 + 100)) - 1) < 0.02
        assert SimpleMLP(architecture("cifar10"), (32, 32, 3), 10).features == 1024


class TestCalibration:
    def network(self):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(),
                                 nn.Linear(30, 3), nn.LogSoftmax(1)).double()  # fmt: skip

    def test_a_percentile_and_the_inputs_above_it(self):
        network, images = self.network(), random_images((4, 4, 1), n=200)
        twin = transform(network, Calibrate(method="percentile", percentile=90), images=images, shape=(4, 4, 1))
        twin(torch.from_numpy(twin.encode(images)))
        with torch.no_grad():
            x = network[:3](codes_of(images) / 255)
            alpha = float(np.percentile(x.numpy(), 90))
            clipped = network[3:5](x.clamp(max=alpha))
        counts = twin.counts()
        assert abs(counts[1]["alpha"] - alpha) < 1e-12
        assert counts[1]["above"] == int((x > alpha).sum()) > 0
        assert counts[1]["seen"] == x.numel()
        assert abs(counts[2]["alpha"] - float(np.percentile(clipped.numpy(), 90))) < 1e-12
        assert counts[0] == {"name": "1", "alpha": 1.0, "above": 0, "seen": 3200}
        twin(torch.from_numpy(twin.encode(images)))
        assert twin.counts()[1]["above"] == 2 * counts[1]["above"]
        twin.reset()
        assert [count["seen"] for count in twin.counts()] == [0, 0, 0]
        twin.train()
        twin(torch.from_numpy(twin.encode(images)))
        assert [count["seen"] for count in twin.counts()] == [0, 0, 0]

    def test_alpha_itself_is_not_above_alpha(self):
        layer = NonNegativeLinear(torch.ones(1, 4), None, 1.005, "first").eval()
        x = torch.tensor([0.0, 1.005, 1.0051, 7.0])
        assert torch.allclose(layer(x), torch.tensor([3 * 1.005]))
        assert (layer.above, layer.seen) == (2, 4)

    def test_a_layer_and_the_relu_in_front_are_a_bounded_relu(self):
        network, images = self.network(), random_images((4, 4, 1), n=50)
        twin = transform(network, Calibrate(method="constant", alpha=0.2), shape=(4, 4, 1))
        bounded = copy.deepcopy(network)
        bounded[2] = bounded[4] = ReLUN(0.2)
        codes = torch.from_numpy(twin.encode(images))
        expected = bounded[:6](codes.double() / 255)
        assert torch.allclose(twin(codes), expected, rtol=0, atol=1e-13)
        assert not torch.allclose(twin(codes), network[:6](codes.double() / 255), rtol=0, atol=1e-3)
        assert twin.counts()[1]["above"] > 0

    @pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
    def test_alpha_is_positive(self, alpha):
        with pytest.raises(BittrueError, match="layer first: alpha is"):
            NonNegativeLinear(torch.ones(1, 1), None, alpha, "first")

    def test_a_dead_layer_is_refused(self):
        network = self.network()
        with torch.no_grad():
            network[1].bias.fill_(-1e3)
        with pytest.raises(BittrueError, match=r"layer 3: percentile 99\.9 .* is 0"):
            transform(network, Calibrate(method="percentile"), images=random_images((4, 4, 1)), shape=(4, 4, 1))

    def test_what_is_missing_is_said(self):
        with pytest.raises(BittrueError, match="layer 3: a ReLU has no largest value"):
            transform(self.network(), shape=(4, 4, 1))
        for images in (None, random_images((4, 4, 1))[:0]):
            with pytest.raises(BittrueError, match="needs images"):
                transform(self.network(), Calibrate(method="percentile"), images=images, shape=(4, 4, 1))
        with pytest.raises(BittrueError, match="give the shape"):
            transform(self.network())

    @pytest.mark.parametrize("values", [
        {"method": "constant"}, {"method": "bound", "alpha": 3.0}, {"method": "constant", "alpha": 0.0},
        {"percentile": 101.0}, {"method": "percentile", "images": 0}, {"unknown": 1},
    ])  # fmt: skip
    def test_settings_are_checked(self, values):
        with pytest.raises(ValidationError):
            Calibrate(**values)


class TestRefused:
    @pytest.mark.parametrize(("value", "needle"), [
        (-1e-9, "layer first: an input is -1e-09"), (float("nan"), "layer first: an input is NaN"),
        (float("inf"), "layer first: an input is inf"), (float("-inf"), "layer first: an input is -inf"),
    ])  # fmt: skip
    @pytest.mark.parametrize("training", [True, False])
    def test_inputs_that_are_no_light(self, value, needle, training):
        layer = NonNegativeLinear(torch.ones(2, 3), None, 1.0, "first").train(training)
        x = torch.full((4, 3), 0.5)
        x[2, 1] = value
        with pytest.raises(BittrueError, match=needle):
            layer(x)

    def test_an_empty_batch_passes(self):
        assert NonNegativeLinear(torch.ones(2, 3), None, 1.0, "first")(torch.zeros(0, 3)).shape == (0, 2)

    def test_a_network_that_diverged(self):
        network = SimpleMLP(PhotonicPerceptron(hidden=(4,)), (2, 2, 1), 2)
        with torch.no_grad():
            network.classifier.weight[0, 0] = float("nan")
        with pytest.raises(BittrueError, match="layer classifier: a weight or bias is not finite"):
            transform(network)

    @pytest.mark.parametrize(("modules", "needle"), [
        ([nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2)], "1: a SiLU .* negative values"),
        ([nn.Linear(4, 4), nn.GELU()], "1: a GELU .* negative values"),
        ([nn.Linear(4, 4), nn.Linear(4, 2)], "1: its inputs are sums of either sign"),
        ([nn.Linear(4, 4), nn.LogSoftmax(1), nn.Linear(4, 2)], "1: a LogSoftmax"),
        ([nn.BatchNorm1d(4), nn.Linear(4, 2)], "0: batch normalisation is folded only"),
        ([nn.Linear(4, 4), PhotonicSigmoid(), nn.BatchNorm1d(4)], "2: batch normalisation is folded only"),
        ([nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)], "1: batch normalisation without running"),
        ([nn.Linear(4, 4), nn.BatchNorm1d(3)], "1: it normalises 3"),
        ([nn.Linear(4, 4), nn.LayerNorm(4)], "1: a LayerNorm"),
        ([nn.ZeroPad2d(1), nn.Linear(4, 4)], "zero padding is taken only"),
        ([nn.Conv1d(1, 1, 3, padding=1)], "0: a Conv1d"),
        ([nn.AvgPool2d(2, divisor_override=1)], "0: a pool with a divisor"),
        ([nn.Flatten()], "no linear"),
    ])  # fmt: skip
    def test_modules(self, modules, needle):
        with pytest.raises(BittrueError, match=needle):
            transform(nn.Sequential(*modules), shape=(2, 2, 1))

    def test_a_network_with_signed_residuals(self):
        network = ResMLP.for_data(Network(patch=4, embed=8, blocks=1, terms=3, grid_points=9), load("digits"), 1)
        with pytest.raises(BittrueError, match="a ResMLP cannot be made non-negative"):
            transform(network)

    def test_normalisations(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
        for bad in ((0.5, 0.0), (0.5, -1.0), ((0.5, 0.5), 1.0), (float("nan"), 1.0)):
            with pytest.raises(BittrueError, match="normalisation"):
                transform(network, shape=(2, 2, 3), normalization=bad)
        pooled = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 4))
        with pytest.raises(BittrueError, match="0: it stands between the normalised inputs"):
            transform(pooled, shape=(2, 2, 3), normalization=(0.5, 0.2))
        with pytest.raises(BittrueError, match="knows its images"):
            transform(SimpleMLP(PhotonicPerceptron(), (2, 2, 1), 2), shape=(2, 2, 1))

    def test_a_normalisation_per_channel_in_a_linear_layer(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()
        images = random_images((2, 2, 3))
        m, d = (torch.tensor(v, dtype=F64) for v in ((0.1, 0.5, 0.9), (0.2, 0.3, 1.4)))
        twin = transform(network, shape=(2, 2, 3), normalization=(m, d))
        x = (codes_of(images) / 255 - m[:, None, None]) / d[:, None, None]
        assert (twin(codes_of(images)) - network(x)).abs().max() < 1e-13


class TestScenarios:
    def quick(self, scenario, optimizer="nnsgd", name="sinusoid", **changes):
        settings = published("digits", name, scenario, optimizer)
        epochs = {"transform": (8, 0), "post": (4, 4), "scratch": (0, 8)}[scenario]
        given = {"epochs": epochs[0], "non_negative_epochs": epochs[1]} | changes
        return settings.model_copy(update=given)

    @pytest.mark.parametrize("name", ["sinusoid", "sigmoid"])
    @pytest.mark.parametrize(("scenario", "optimizer"), [
        ("transform", "nnsgd"), ("post", "nnsgd"), ("post", "csgd"), ("scratch", "nnsgd"), ("scratch", "csgd"),
    ])  # fmt: skip
    def test_it_learns_and_both_networks_agree(self, data, scenario, optimizer, name):
        first, second = {"transform": (20, 0), "post": (10, 10), "scratch": (0, 20)}[scenario]
        settings = self.quick(scenario, optimizer, name, epochs=first, non_negative_epochs=second)
        outcome = train(data, settings)
        result = outcome.agreement
        assert result.twin > 0.9
        assert result.images == result.agree == len(data.test)
        assert result.regular == result.twin
        assert result.above == 0
        assert 0 < result.difference < 1e-11  # two computations, not one
        assert all((p >= 0).all() for p in outcome.twin.parameters())
        assert (len(outcome.history), len(outcome.non_negative_history)) == (first, second)
        assert (outcome.before is not None) == (scenario == "post")
        assert next(outcome.twin.parameters()).dtype == next(outcome.regular.parameters()).dtype == F64

    def test_from_scratch_the_weights_keep_their_rails(self, data):
        settings = self.quick("scratch", "nnsgd", non_negative_epochs=3)
        start = transform(SimpleMLP.for_data(architecture("digits"), data, settings.seed))
        outcome = train(data, settings)
        for before, after in zip(start.layers, outcome.twin.layers, strict=True):
            assert not ((after.weight_positive > 0) & (before.weight_positive == 0)).any()
            assert not ((after.weight_negative > 0) & (before.weight_negative == 0)).any()
            assert not torch.equal(before.weight_positive, after.weight_positive)
            assert torch.equal(before.shift.float().double(), after.shift)

    def test_a_relu_network(self, data):
        settings = published("digits", "relu").model_copy(update={"epochs": 8, "lr": 0.1})
        outcome = train(data, settings, PhotonicPerceptron(activation="relu"), Calibrate(method="percentile"))
        counts = outcome.twin.counts()
        assert outcome.agreement.regular > 0.85
        assert all(0 < count["alpha"] < 14 for count in counts)
        assert outcome.agreement.above > 0

    def test_the_comparison_is_one(self, data):
        """A twin that is not the network's is found out, image by image."""
        network = SimpleMLP.for_data(architecture("digits"), data, 1)
        twin = transform(network)
        with torch.no_grad():
            twin.layers[-1].bias_hat[3] += 0.2
        result = compare(network, twin, data.test)
        a = network.double()(torch.from_numpy(network.encode(data.test.images))).argmax(1)
        b = twin(torch.from_numpy(twin.encode(data.test.images))).argmax(1)
        assert result.others == tuple(np.flatnonzero((a != b).numpy()).tolist())
        assert result.agree == len(data.test) - len(result.others) < len(data.test)
        assert abs(result.difference - 0.18) < 1e-12  # 0.2, less its share of the mean of 10
        with pytest.raises(BittrueError, match="no images"):
            compare(network, twin, Split(data.test.images[:0], data.test.labels[:0]))

    def test_the_way_back(self, data):
        network = SimpleMLP.for_data(architecture("digits"), data, 1)
        other = SimpleMLP.for_data(architecture("digits"), data, 2)
        back = regular_of(transform(network), other)
        for name, p in network.double().named_parameters():
            assert (p - back.get_parameter(name)).abs().max() < 1e-14

    @pytest.mark.parametrize("scenario", ["transform", "post", "scratch"])
    def test_an_interrupted_run_goes_on_to_the_same_weights(self, data, scenario, tmp_path):
        settings = self.quick(scenario, shuffle=True)

        class Interrupted(Exception):
            pass

        def stop(report):
            second = report.stage != "train" or scenario == "transform"
            if report.epoch == 3 and report.step == 5 and second:
                raise Interrupted

        with pytest.raises(Interrupted):
            train(data, settings, folder=tmp_path, progress=stop)
        steps = []
        resumed = train(data, settings, folder=tmp_path, progress=lambda report: steps.append(report.epoch))
        assert min(steps) == 3
        whole = train(data, settings)
        for a, b in zip(resumed.twin.parameters(), whole.twin.parameters(), strict=True):
            assert torch.equal(a, b)
        with pytest.raises(BittrueError, match="other settings"):
            train(data, settings.model_copy(update={"lr": 0.3, "lr_in": 0.2}), folder=tmp_path)

    def test_the_seed_is_all_that_is_random(self, data):
        settings = self.quick("transform", epochs=2, shuffle=True)
        before = torch.random.get_rng_state()
        runs = [train(data, settings.model_copy(update={"seed": seed})).agreement for seed in (1, 1, 2)]
        assert torch.equal(torch.random.get_rng_state(), before)
        assert runs[0] == runs[1] != runs[2]

    def test_the_last_batch_may_be_smaller(self, data):
        few = Split(data.train.images[:70], data.train.labels[:70])
        small = Data(data.name, data.classes, few, data.val, data.test, data.gain)
        seen = []
        train(small, self.quick("transform", epochs=1, batch=32), progress=lambda report: seen.append(report.steps))
        assert seen == [3, 3, 3]

    def test_a_training_that_diverges_says_so(self, data):
        with pytest.raises(BittrueError, match="diverged"):
            train(data, self.quick("transform", lr=1e30), PhotonicPerceptron(activation="relu"))

    def test_calibrations_that_mean_nothing_are_refused(self, data):
        with pytest.raises(BittrueError, match="nothing is trained yet"):
            train(data, self.quick("scratch"), calibrate=Calibrate(method="percentile"))
        with pytest.raises(BittrueError, match="ReLU has no bound"):
            train(data, self.quick("post"), PhotonicPerceptron(activation="relu"))

    def test_published_settings(self):
        sinusoid = published("fashion-mnist")
        assert (sinusoid.epochs, sinusoid.non_negative_epochs, sinusoid.batch, sinusoid.lr) == (50, 0, 256, 0.16)
        post = published("fashion-mnist", "sigmoid", "post", "csgd")
        assert (post.epochs, post.non_negative_epochs, post.lr, post.clip_lr) == (5, 5, 0.01, 0.0027)
        scratch = published("mnist", "sinusoid", "scratch")
        assert (scratch.lr_in, scratch.lr_out, scratch.epochs, scratch.non_negative_epochs) == (1, 1, 0, 50)
        assert not scratch.shuffle
        assert published("cifar10", "sigmoid", "post").epochs == 15

    @pytest.mark.parametrize("given", [
        ("svhn",), ("mnist", "tanh"), ("mnist", "relu", "post"), ("mnist", "sigmoid", "none"),
    ])  # fmt: skip
    def test_unpublished_settings(self, given):
        with pytest.raises(BittrueError, match="no "):
            published(*given)

    @pytest.mark.parametrize("values", [
        {"scenario": "scratch"}, {"scenario": "post"}, {"non_negative_epochs": 3}, {"epochs": 0}, {"lr_out": 1.5},
        {"batch": 0}, {"clip_lr": 0.0},
    ])  # fmt: skip
    def test_settings_are_checked(self, values):
        with pytest.raises(ValidationError):
            PhotonicTrain(**values)


SWITCHES = [("cuda", "matmul"), ("cudnn", "conv"), ("cudnn", "rnn"), ("mkldnn", "matmul"), ("mkldnn", "conv")]


def precisions():
    return [getattr(getattr(torch.backends, backend), part).fp32_precision for backend, part in SWITCHES]


class TestPrecision:
    @pytest.fixture
    def reduced(self):
        """Everything that makes float32 less than it is."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            yield
        torch.set_float32_matmul_precision(before)

    @pytest.mark.usefixtures("reduced")
    def test_within_it_is_full_and_afterwards_as_it_was(self):
        before = precisions()
        assert set(before) & {"tf32", "bf16"}
        with full_precision():
            assert precisions() == ["ieee"] * len(SWITCHES)
            assert not torch.is_autocast_enabled("cpu")
        assert precisions() == before
        assert torch.is_autocast_enabled("cpu")
        with pytest.raises(ZeroDivisionError), full_precision():
            1 / 0  # noqa: B018
        assert precisions() == before

    def test_training_and_comparison_are_the_same_under_reduced_precision(self, request):
        data, settings = load("digits"), PhotonicTrain(scenario="post", epochs=1, non_negative_epochs=1, batch=32)
        plain = train(data, settings)
        request.getfixturevalue("reduced")
        states = []
        other = train(
            data, settings, progress=lambda _: states.append((*precisions(), torch.is_autocast_enabled("cpu")))
        )
        assert set(states) == {("ieee",) * len(SWITCHES) + (False,)}
        for a, b in zip(plain.twin.parameters(), other.twin.parameters(), strict=True):
            assert torch.equal(a, b)
        assert plain.agreement == other.agreement
        # and it would have made a difference
        codes = torch.from_numpy(plain.twin.encode(data.test.images))
        single = copy.deepcopy(plain.twin).float()
        with full_precision():
            full = single(codes)
        assert not torch.equal(single(codes).float(), full)

    def test_validation_between_epochs_is_full_too(self, monkeypatch):
        seen = []
        monkeypatch.setattr(trainer, "accuracy", lambda *_: seen.append(precisions()) or 0.0)
        train(load("digits"), PhotonicTrain(epochs=1, batch=256))
        assert seen == [["ieee"] * len(SWITCHES)]


class TestLightPrice:
    def random_layer(self, alpha, inputs=64, outputs=64):
        rng = np.random.default_rng(1)
        weight = torch.tensor(rng.normal(size=(outputs, inputs)) * np.sqrt(2 / inputs))
        x = torch.tensor(np.minimum(np.maximum(rng.normal(size=(2000, inputs)), 0), alpha))
        return NonNegativeLinear(weight, None, alpha, "layer"), x

    @pytest.mark.parametrize(("alpha", "power"), [(4, 5.0), (14, 17), (25, 31), (100, 127)])
    def test_power_is_the_published_model(self, alpha, power):
        layer, x = self.random_layer(alpha)
        result = price(layer, x, float(alpha)).power
        assert abs(result / power - 1) < 0.05  # published for another draw of the weights
        positive, negative = layer.weight_positive.detach(), layer.weight_negative.detach()
        bright = ((x @ positive.T) + (alpha - x) @ negative.T).mean() / (x @ (positive + negative).T).mean()
        assert abs(result - float(bright)) < 1e-9

    def test_power_is_what_is_detected(self):
        layer, x = self.random_layer(4.0)
        weight, bias = layer.regular()
        result = price(layer, x, 4.0)
        lit = layer.optical(x).detach()
        differential = (x @ weight.abs().T).mean()
        assert abs(result.power_with_bias - float(lit.mean() / differential)) < 1e-9
        assert abs(result.power - float((lit - layer.bias_hat.detach()).mean() / differential)) < 1e-9
        z = x @ weight.T + bias
        pedestal = 4 * layer.weight_negative.detach().sum(1).mean() / z.square().mean().sqrt()
        assert abs(result.pedestal - float(pedestal)) < 1e-9

    @pytest.mark.parametrize(("bits", "adc"), [(8, 22), (4, 14)])
    def test_converter_bits_of_a_full_layer(self, bits, adc):
        layer = NonNegativeLinear(torch.ones(3, 64, dtype=F64), None, 1.0, "layer")
        result = price(layer, torch.ones(1, 64, dtype=F64), 1.0, bits, bits)
        assert result.adc_bits == result.fine_adc_bits == adc
        assert result.fine_input_bits == bits

    def test_another_alpha_of_the_same_step_costs_bits(self):
        layer, x = self.random_layer(2.0)
        near, far = price(layer, x, 2.0), price(layer, x, 16.0)
        assert (near.fine_input_bits, far.fine_input_bits) == (8, 11)
        assert far.fine_adc_bits == near.fine_adc_bits + 3
        assert far.power > 6 * near.power
        assert price(layer, x, 1.0).above == float((x > 1).double().mean())

    def test_of_a_network_and_of_other_alphas(self):
        images = random_images((12, 12, 3))
        twin = transform(cnn(PhotonicSigmoid), shape=(12, 12, 3))
        before = twin.counts()
        own = prices(twin, images)
        assert [p.name for p in own] == ["0.0", "2.0", "7", "10"]
        assert [p.alpha for p in own] == [1.0, 1.005, 1.005, 1.005]
        other = prices(twin, images, {"7": 14.0})
        assert other[2].power > 10 * own[2].power
        assert [a == b for a, b in zip(own, other, strict=True)] == [True, True, False, True]
        assert twin.counts() == before

    def test_what_has_no_price(self):
        images = random_images((12, 12, 3))
        twin = transform(cnn(PhotonicSigmoid), shape=(12, 12, 3))
        for given, needle in (
            ({"alphas": {"x": 1.0}}, "no layer is named x"), ({"alphas": {"7": 0.0}}, "layer 7: alpha"),
            ({"input_bits": 0}, "0 input bits"), ({"weight_bits": 17}, "17 weight bits"),
        ):  # fmt: skip
            with pytest.raises(BittrueError, match=needle):
                prices(twin, images, **given)
        with pytest.raises(BittrueError, match="some images"):
            prices(twin, images[:0])
        with pytest.raises(BittrueError, match="all its weights are 0"):
            price(NonNegativeLinear(torch.zeros(1, 1, dtype=F64), None, 1.0, "a"), torch.ones(1, 1, dtype=F64), 1.0)
