"""The rule of a non-negative layer: linear, convolutional, in floats and in integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from bittrue.models.light.layers import NonNegativeConv2d, NonNegativeLinear, integer_form
from bittrue.models.light.transform import transform
from bittrue.sim.errors import BittrueError
from tests.helpers.photonic_twins import codes_of, random_images

F64 = torch.float64


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
