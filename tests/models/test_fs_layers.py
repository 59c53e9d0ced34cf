"""Layers of FS-neurons: spikes, rounding, exact sums, valid range and both gradients, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bittrue.models.fs.convert import convert, relu_set
from bittrue.models.fs.layers import IntegerEncode, IntegerSpikingLinear, Neurons
from bittrue.models.fs.neuron import FsNeuron
from bittrue.models.fs.sets import PUBLISHED, NeuronSet
from bittrue.models.fs.settings import Convert
from bittrue.models.layers.integer import CodeStep
from bittrue.models.networks.mlp import Mlp
from bittrue.models.training import qat
from bittrue.models.training.settings import Qat
from tests.helpers.fs_networks import MLPS, SMALL, pictures, trained


def layers_of(network):
    """The layers of a network by their paths."""
    return {layer.path: layer for layer in network.layers}


@pytest.mark.parametrize("name", ["relu", "swish", "sigmoid"])
def test_spikes_are_those_of_the_float_neuron(name):
    neurons = Neurons(PUBLISHED[name], Convert(fraction_bits=9))
    layer, unit = neurons.layer(neurons.unit()), neurons.integers.unit
    quantized = PUBLISHED[name] if PUBLISHED[name].binary else PUBLISHED[name].quantized(9)
    v = torch.arange(layer.lowest - 50, layer.highest + 51, dtype=torch.float32)[:, None]
    assert torch.equal(layer(v), FsNeuron(quantized).train_of(v * unit).float())
    assert layer.outside(v) == 100


def test_the_rounding_makes_an_unbiased_relu_or_the_published_one():
    x = torch.linspace(-3, 30, 4001, dtype=torch.float64)
    for rounding, expected in (
        ("nearest", lambda u: (x / u + 0.5).floor().clamp(0, 31)),
        ("published", lambda u: ((x / u).ceil() - 1).clamp(0, 31)),
    ):
        neurons = Neurons(relu_set(5), Convert(rounding=rounding))
        u, layer = neurons.integers.unit, neurons.layer(neurons.unit())
        rounded = (x / u).ceil() if neurons.round_up else (x / u + 0.5).floor() + neurons.offset
        worth = layer.decode.double() @ layer(rounded[:, None].float()).double()
        assert torch.equal(worth[:, 0], expected(u))


def test_values_for_neurons_in_their_own_unit_are_rounded_plus_one():
    data = pictures(4, 4, 1)
    layer = layers_of(convert(trained(Mlp, SMALL, data), data, Convert()))["hidden.1"]
    spikes_in = torch.tensor(np.random.default_rng(3).integers(0, 2, (200, 10, 24)))
    with torch.no_grad():
        weight, shift, _ = (t.long() for t in layer.integers())
        sums = torch.einsum("nc,btc,t->bn", weight, spikes_in, 2 ** torch.arange(9, -1, -1))
        bias = torch.floor(layer.bias / layer.target.value + 0.5).long()
        expected = ((sums + 2 ** (shift - 1)) >> shift) + bias + 1
        assert torch.equal(layer(spikes_in.float()).long(), expected.clamp(-2048, 2047))


def test_sums_are_rounded_up_exactly():
    rng = np.random.default_rng(2)
    layer = IntegerSpikingLinear(
        7, 5, CodeStep(1.0), CodeStep(3.0), 14, np.array([4, 2, 1]), weight_bits=6, round_up=True
    )
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rng.normal(size=(5, 7))))
        layer.bias.copy_(torch.tensor(rng.normal(size=5) * 9))
        weight, shift, bias = (t.long() for t in layer.integers())
        spikes = torch.tensor(rng.integers(0, 2, (200, 3, 7)))
        sums = torch.einsum("nc,btc,t->bn", weight, spikes, torch.tensor([4, 2, 1]))
        expected = -torch.div(-sums, 2**shift, rounding_mode="floor") + bias
        assert torch.equal(layer(spikes.float()).long(), expected)


def test_codes_become_their_bits():
    layer = IntegerEncode(CodeStep(), 8)
    codes = torch.arange(-128, 128, dtype=torch.float32)[:, None]
    spikes = layer(codes)
    assert spikes.shape == (256, 8, 1)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(layer.decode @ spikes, codes)


@pytest.mark.parametrize("name", ["relu", "swish"])
def test_the_gradient_straight_through_is_that_of_the_function(name):
    neurons = Neurons(PUBLISHED[name], Convert(fraction_bits=8))
    layer = neurons.layer(neurons.unit())
    v = torch.arange(layer.lowest, layer.highest + 9.0)[:, None].requires_grad_()
    (layer.decode @ layer(v)).sum().backward()
    x = ((v.detach() - neurons.offset) * neurons.integers.unit).requires_grad_()
    {"relu": nn.ReLU(), "swish": nn.SiLU()}[name](x).sum().backward()
    inside = v.detach() <= layer.highest
    assert torch.allclose(v.grad, x.grad * inside, atol=1e-5)
    assert 0 < int((~inside).sum()) < len(v)


@pytest.mark.parametrize("name", ["relu", "swish"])
def test_the_triangular_gradient_is_that_of_the_float_neuron(name):
    neurons = Neurons(PUBLISHED[name], Convert(fraction_bits=8, gradient="triangular"))
    layer, unit = neurons.layer(neurons.unit()), neurons.integers.unit
    quantized = PUBLISHED[name] if PUBLISHED[name].binary else PUBLISHED[name].quantized(8)
    v = torch.arange(max(layer.lowest, -400) + 1.0, layer.highest)[:, None].requires_grad_()
    (layer.decode @ layer(v)).sum().backward()
    x = (v.detach() * unit).requires_grad_()
    FsNeuron(quantized)(x).sum().backward()
    assert torch.allclose(v.grad, x.grad, rtol=1e-3, atol=1e-4)
    assert float(v.grad.abs().max()) > 0.5


@pytest.mark.usefixtures("last_epoch_kept")
def test_scales_that_are_given_are_never_learned():
    data = pictures(4, 4, 1)
    network = convert(trained(Mlp, MLPS["swish"][0], data), data, Convert())
    layers = layers_of(network)
    unit, source, target = layers["neurons.0"].unit.log, layers["hidden.0"].source.log, layers["classifier"].target.log
    before = [log.clone() for log in (unit, source, target)]
    qat.fit(network, data, Qat(epochs=1, batch=50, learn_scales=True, scale_lr=0.1))
    assert [bool(old == new) for old, new in zip(before, (unit, source, target), strict=True)] == [True, True, False]


def test_a_set_with_a_narrow_range_clips_on_both_sides():
    narrow = NeuronSet(
        "narrow", *(PUBLISHED["swish"].h, PUBLISHED["swish"].d, PUBLISHED["swish"].T), -0.5, 0.5, "swish"
    )
    neurons = Neurons(narrow, Convert(fraction_bits=5))
    layer = neurons.layer(neurons.unit())
    low, high = layer.format.low, layer.format.high
    assert (layer.lowest, layer.highest) == (-16, 16)
    assert layer.outside(torch.tensor([[low, -17.0, -16.0, 16.0, 17.0, high]])) == 4
