"""The price of alpha: light, and bits of the converter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bittrue.models.data.sets import Split, load
from bittrue.models.graph.lower import lower
from bittrue.models.light.activations import PhotonicSigmoid
from bittrue.models.light.alpha import compare_alphas
from bittrue.models.light.convert import convert
from bittrue.models.light.layers import NonNegativeLinear
from bittrue.models.light.measure import conversions
from bittrue.models.light.network import SimpleMLP
from bittrue.models.light.price import price, prices
from bittrue.models.light.settings import Array, Calibrate, PhotonicPerceptron, PhotonicTrain
from bittrue.models.light.train import train
from bittrue.models.light.transform import transform
from bittrue.models.training.loop import accuracy
from bittrue.sim.errors import BittrueError
from tests.helpers.photonic_twins import cnn, random_images

F64 = torch.float64


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


@pytest.fixture(scope="module")
def data():
    return load("digits")


@pytest.fixture(scope="module")
def network(data):
    settings = PhotonicTrain(epochs=15, batch=32, lr=0.1)
    return train(data, settings, PhotonicPerceptron(activation="relu"), Calibrate(method="percentile")).regular


class TestAlphas:
    def test_alpha_from_data_costs_less_than_the_published(self, network, data):
        seen = []
        found = compare_alphas(network, data, progress=lambda what, *_: seen.append(what))
        assert [cost.alpha for cost in found] == [None, 14, 25, 100]
        assert seen == ["alpha from data", "alpha 14", "alpha 25", "alpha 100"]
        for less, more in itertools.pairwise(found):
            for a, b in zip(less.layers, more.layers, strict=True):
                assert a.alpha < b.alpha
                assert a.price.power < b.price.power
                assert a.price.pedestal < b.price.pedestal
                assert a.price.fine_adc_bits < b.price.fine_adc_bits
                assert a.full.sqnr_db > b.full.sqnr_db + 3
                assert b.pedestal.sqnr_db > b.full.sqnr_db
        assert found[0].accuracy_full > found[-1].accuracy_full + 0.2
        assert min(cost.accuracy_pedestal for cost in found) > found[0].accuracy_float - 0.04

    def test_it_is_the_sum_of_its_parts(self, network, data):
        array = Array(rows=20, adc_bits=7, images=200)
        own, given = compare_alphas(network, data, array, alphas=[5.0], percentile=99, images=90)
        calibrate = Calibrate(method="percentile", percentile=99, images=200)
        calibrated = transform(network, calibrate, images=data.train.images)
        twin = transform(network, Calibrate(method="constant", alpha=5.0))
        split = Split(data.test.images[:90], data.test.labels[:90])
        names = [layer.name for layer in calibrated.layers[1:]]
        assert [layer.name for layer in own.layers] == [layer.name for layer in given.layers] == names
        assert [layer.alpha for layer in own.layers] == [float(layer.alpha) for layer in calibrated.layers[1:]]
        assert [layer.price for layer in own.layers] == prices(calibrated, split.images)[1:]
        at = prices(calibrated, split.images, dict.fromkeys(names, 5.0))[1:]
        assert [layer.price for layer in given.layers] == at
        assert (own.accuracy_float, given.accuracy_float) == (accuracy(calibrated, split), accuracy(twin, split))
        for window in ("pedestal", "full"):
            integer = convert(twin, data, array.model_copy(update={"window": window}))
            codes = integer.encode(split.images)
            rows = conversions(integer, lower(integer), codes)[1:]
            assert [getattr(layer, window) for layer in given.layers] == rows
            assert getattr(given, f"accuracy_{window}") == accuracy(integer, split)

    def test_what_has_no_alphas_to_compare(self, network, data):
        with pytest.raises(BittrueError, match="450 test images, not 451"):
            compare_alphas(network, data, images=451)
        with pytest.raises(BittrueError, match="a sinusoid has a bound"):
            compare_alphas(SimpleMLP.for_data(PhotonicPerceptron(), data, 1), data)
