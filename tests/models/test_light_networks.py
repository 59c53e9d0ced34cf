"""Networks on a photonic array: conversion, exact-integer training, lowering; every tensor equal to the program's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bittrue.flow.systems.light.energy import ADC_PJ, AMPLIFIER_PJ, DAC_PJ, estimate
from bittrue.models.data.sets import Data
from bittrue.models.graph.lower import lower
from bittrue.models.layers.integer import CodeStep
from bittrue.models.layers.lowering import whole
from bittrue.models.light.convert import calibrate, convert
from bittrue.models.light.integer import (
    FUNCTIONS,
    IntegerPhotonicLinear,
    IntegerPhotonicMLP,
    IntegerPhotonicTable,
    operating_range,
)
from bittrue.models.light.measure import conversions
from bittrue.models.light.network import SimpleMLP
from bittrue.models.light.settings import Array, ArrayNoise, Calibrate, PhotonicPerceptron
from bittrue.models.light.transform import NonNegativeNetwork, transform
from bittrue.models.training import loop as train
from bittrue.models.training import qat, storage
from bittrue.models.training.settings import Qat
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from tests.helpers.photonic_twins import NOISE, assert_equal_everywhere, pictures, twin_of


@pytest.fixture(scope="module")
def data():
    return pictures()


@pytest.fixture(scope="module")
def twin(data):
    return twin_of(data)


# -- every tensor --------------------------------------------------------------------------------------
ARRAYS = {
    "one tile": ("sinusoid", Array()),
    "full window": ("sinusoid", Array(window="full", rows=8)),
    "tiles": ("sinusoid", Array(rows=7, columns=5)),
    "a row": ("sinusoid", Array(rows=1, adc_bits=10)),
    "24 bits": ("sinusoid", Array(rows=4, adc_bits=24)),
    "4 bits": ("sinusoid", Array(input_bits=4, weight_bits=4, adc_bits=4, sum_bits=5)),
    "1 bit": ("sinusoid", Array(input_bits=1, weight_bits=1, adc_bits=1)),
    "wide": ("sigmoid", Array(weight_bits=10, adc_bits=20, sum_bits=12, rows=9)),
    "relu": ("relu", Array(rows=16)),
    "leaking": ("sigmoid", Array(extinction_db=15, rows=11)),
    "two rails": ("sinusoid", Array(rails="two", extinction_db=10, weight_error=0.01, fraction_bits=2)),
    "everything": (
        "sinusoid",
        Array(extinction_db=20, crosstalk_db=-20, weight_error=0.02, drift=0.01, rows=13, columns=4, fraction_bits=6),
    ),
    "everything, full": ("relu", Array(extinction_db=20, crosstalk_db=-25, drift=0.02, window="full", rails="two")),
}


@pytest.mark.parametrize("case", ARRAYS)
@pytest.mark.usefixtures("last_epoch_kept")
def test_every_tensor_before_and_after_training(data, case):
    activation, array = ARRAYS[case]
    network = convert(twin_of(data, activation), data, array)
    program, _ = assert_equal_everywhere(network, data.test.images)
    kinds = [type(node.operation).__name__ for node in program.nodes]
    assert kinds == ["PhotonicMac", "TileSum", "Lerp"] * 2 + ["PhotonicMac", "TileSum"]
    qat.fit(network, data, Qat(epochs=1, batch=50, lr=1e-2, learn_scales=case == "tiles"))
    changed, traced = assert_equal_everywhere(network, data.test.images)
    assert changed.sha256 != program.sha256
    alive = "layers_0_array" if case == "1 bit" else "tables_1"
    assert len(np.unique(traced.tensors[alive])) > 1  # equal, and not because nothing happens


def wide_linear_program(network):
    """The same network of `sim.Linear` layers, from its real parameters and the equations alone."""
    build = Builder({"x": lower(network).inputs["x"]})
    name, array = "x", network.array
    for k, layer in enumerate(network.layers):
        s_x, s_y = layer.array.source.value.item(), layer.sum.target.value
        scaled = (layer.array.weight * (layer.array.source.value / s_y)).detach().numpy()
        largest = (1 << array.weight_bits) - 1
        e = np.floor(np.log2(largest / np.abs(scaled).max(1).astype(np.float32))).astype(np.int64)
        assert s_x > 0
        weight = np.clip(np.floor(np.abs(scaled * 2.0 ** e[:, None]) + 0.5), 0, largest) * np.sign(scaled)
        bias = (layer.sum.bias.detach().double().numpy() - layer.sum.start) / float(s_y)
        fmt = Format(array.sum_bits, signed=layer.sum.signed)
        requantize = Requantize(len(e), e, bias_acc=np.floor(bias * 2.0**e + 0.5).astype(np.int64), format=fmt)
        linear = Linear(build.types[name], weight.astype(np.int64), requantize, Format(array.weight_bits + 1))
        name = build.add(f"linear_{k}", linear, name)
        if k < len(network.tables):
            knots = whole(network.tables[k].integers())[None]
            table = Lerp(build.types[name], knots, Format(array.input_bits, signed=False))
            name = build.add(f"table_{k}", table, name)
    return build.program(name)


@pytest.mark.parametrize(
    "array",
    [
        Array(adc_bits=24, window="full", rows=7),
        Array(adc_bits=24, window="full", rails="two", columns=3),
        Array(adc_bits=22, window_percentile=100, rows=9),
    ],
)
def test_a_wide_converter_makes_a_linear_layer_bit_for_bit(data, twin, array):
    network = convert(twin, data, array)
    program = lower(network)
    assert all(node.operation.shift == 0 for node in program.nodes if type(node.operation).__name__ == "PhotonicMac")
    codes = network.encode(data.test.images)
    extremes = np.concatenate([codes, np.zeros_like(codes[:1]), np.full_like(codes[:1], 255)])
    assert np.array_equal(program(extremes), wide_linear_program(network)(extremes))
    narrow = lower(convert(twin, data, array.model_copy(update={"adc_bits": 6})))
    assert not np.array_equal(narrow(extremes), wide_linear_program(network)(extremes))


def test_leakage_on_two_rails_moves_nothing_but_the_pedestal(data, twin):
    ideal = convert(twin, data, Array(adc_bits=24, window="full", rails="two", fraction_bits=4))
    leaking = convert(twin, data, Array(adc_bits=24, window="full", rails="two", extinction_db=12))
    codes = ideal.encode(data.test.images)
    assert np.array_equal(lower(ideal)(codes), lower(leaking)(codes))
    assert (lower(leaking)["layers_0_array"].pedestal > lower(ideal)["layers_0_array"].pedestal).all()


def test_a_full_window_clips_nothing_at_any_input(data, twin):
    program = lower(convert(twin, data, Array(window="full", adc_bits=5, rows=6)))
    weight = program["layers_0_array"].weight
    assert not program["layers_0_array"].offset.any()  # from darkness up
    worst = np.concatenate([np.where(weight > 0, 255, 0), np.where(weight < 0, 255, 0)])
    traced = program.trace(worst)
    assert traced.saturation["layers_0_array"] == 0
    assert traced.tensors["layers_0_array"].max() > 15  # and the window is not twice as wide as it must be


def test_a_pedestal_window_clips_its_percentile(data, twin):
    images = data.train.images
    network = convert(twin, data, Array(window_percentile=90, adc_bits=8, rows=8))
    layer = network.layers[0].array
    x = network.input(torch.from_numpy(network.encode(images)))
    counts = layer.light(x)[0].detach().double()
    low, shift = layer.window()
    half = 2.0 ** (shift - 1)
    outside = ((counts < low - half) | (counts >= low + 2.0 ** (8 + shift) - half)).double().mean()
    narrower = (counts - low - 2.0 ** (7 + shift) + half).abs() >= 2.0 ** (6 + shift)
    assert narrower.double().mean() > 0.1  # half the window would not do
    assert 0 < outside < 0.12
    with pytest.raises(BittrueError, match="no window without light"):
        calibrate(network, images[:0])


# -- gradients -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("array", [Array(rows=3), Array(rows=3, extinction_db=15, crosstalk_db=-25), Array(rows=16)])
def test_gradients_go_straight_through_and_stop_where_the_converter_clips(array):
    torch.manual_seed(3)
    layer = IntegerPhotonicLinear(8, 6, CodeStep(1 / 255), CodeStep(1 / 127), array, 0, None)
    with torch.no_grad():
        layer.array.weight.copy_(torch.randn(6, 8) * 0.2)
    layer.array.step.fill_(16)  # a window so wide that nothing is clipped
    x = torch.randint(0, 256, (20, 8)).float().requires_grad_()
    dy = torch.randn(20, 6)
    layer(x).backward(dy)
    y_inside = (layer(x).detach().abs() < 127).float()
    expected = (dy * y_inside).T @ x.detach() * 127 / 255
    assert torch.allclose(layer.array.weight.grad, expected, rtol=1e-3, atol=1e-3)
    assert torch.allclose(layer.sum.bias.grad, (dy * y_inside).sum(0) * 127, rtol=1e-4)
    if array.exact:
        weight = layer.array.codes()[0].detach() * 2.0 ** -layer.array.shift()[:, None]
        assert torch.allclose(x.grad, (dy * y_inside) @ weight, rtol=1e-3, atol=1e-4)
    layer.array.centre.fill_(1e4)  # now everything lies below the window
    layer.zero_grad()
    layer(x).backward(dy)
    assert not layer.array.weight.grad.any()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tables_are_the_function_and_so_are_their_gradients(function):
    alpha = 1.5 if function == "relu" else getattr(FUNCTIONS[function], "bound", 1.0)
    start, end = operating_range(function, alpha, 255)
    source = CodeStep((end - start) / 255)
    table = IntegerPhotonicTable(function, alpha, source, 8, start, 8)
    codes = torch.arange(256.0, requires_grad=True)
    y = table(codes)
    z = (start + codes.detach().double() * source.value.double()).requires_grad_()
    real = FUNCTIONS[function]()(z).clamp(0, alpha)
    assert torch.equal(y.detach(), torch.floor(real.detach() / alpha * 255 + 0.5).float())
    darkest = 0 if function != "sigmoid" else round(0.060 / 1.005 * 255)
    assert (y[0], y[255]) == (darkest, 255)  # nothing of the function lies beyond its codes
    y.sum().backward()
    real.sum().backward()
    assert torch.allclose(codes.grad.double(), z.grad * source.value.item() * 255 / alpha, atol=2e-3)


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 1.0, 1e6])
def test_the_range_of_a_relu_is_found_at_any_alpha(alpha):
    start, end = operating_range("relu", alpha, 255)
    assert abs(start) < 0.01 * alpha
    assert abs(end - alpha) < 0.01 * alpha


@pytest.mark.parametrize(("function", "alpha"), [("sigmoid", 0.05), ("logistic", 1e-5)])
def test_an_alpha_below_the_function_is_refused(function, alpha):
    with pytest.raises(BittrueError, match=f"alpha {alpha:g}: below it the activation '{function}' has no two values"):
        operating_range(function, alpha, 255)


def test_training_repairs_a_coarse_array(data):
    twin = twin_of(data, hidden=(16,), epochs=60)
    network = convert(twin, data, Array(input_bits=5, weight_bits=2, adc_bits=3, rows=8))
    images = Data("p", data.classes, data.train, data.train, data.train)
    before = train.accuracy(network, images.test)
    qat.fit(network, images, Qat(epochs=15, batch=30, lr=3e-3))
    assert train.accuracy(network, images.test) > before + 0.02


# -- what is reported ----------------------------------------------------------------------------------
def test_conversions_are_counted_from_the_trace(data, twin):
    network = convert(twin, data, Array(window_percentile=80, adc_bits=6, rows=7))
    codes = np.concatenate([network.encode(data.train.images)] * 2)  # more than one block
    program = lower(network)
    traced = program.trace(codes)
    for row, wide in zip(
        conversions(network, program, codes),
        conversions(fine := convert(twin, data, Array(adc_bits=14, weight_bits=10)), lower(fine), codes),
        strict=True,
    ):
        seen = traced.tensors[row.name]
        assert row.used == len(np.unique(seen))
        assert row.spread == np.mean([len(np.unique(seen[:, k, n])) for k, n in np.ndindex(seen.shape[1:])])
        assert row.clipped == traced.saturation[row.name] > 0
        assert row.values == seen.size
        assert 0 < row.light < 1
        assert 5 < row.sqnr_db < wide.sqnr_db
    assert wide.sqnr_db > 50
    with pytest.raises(BittrueError, match="no inputs"):
        conversions(network, program, codes[:0])


def test_the_energy_is_counted_from_the_geometry():
    made = estimate((100, 70, 10), Array(rows=64, columns=64, adc_bits=9), 4)
    assert made["conversions"] == {"inputs": 2 * (100 * 2 + 70), "cells": 7700, "samples": 2 * 70 + 2 * 10}
    assert math.isclose(made["photonic_pj"]["converters"], 160 * (2 * ADC_PJ + AMPLIFIER_PJ))
    assert math.isclose(made["photonic_pj"]["weight_dacs"], 7700 * DAC_PJ / 4)
    assert "light" not in made["photonic_pj"]
    assert math.isclose(made["int8_pj"]["products"], 7700 * (0.2 + 0.1))  # 8 bits by 8, and a sum of 32 bits
    assert made["int8_pj"]["weights"] == made["photonic_pj"]["weights"] > 0
    assert math.isclose(made["photonic_pj"]["digital"], 160 * 0.1 + made["int8_pj"]["digital"])
    tables = [estimate((100, *hidden, 10), Array())["int8_pj"]["digital"] for hidden in ((), (70,), (70, 140))]
    assert tables[0] == 0 < tables[1]  # a hidden value is looked up once
    assert math.isclose(tables[2], 3 * tables[1])
    for side in ("photonic", "int8"):
        assert math.isclose(made[f"{side}_total_pj"], sum(made[f"{side}_pj"].values()))
    once = estimate((100, 70, 10), Array(rows=64, columns=64, adc_bits=9), 1)["photonic_pj"]
    assert math.isclose(once["weight_dacs"], 4 * made["photonic_pj"]["weight_dacs"])
    assert math.isclose(once["weights"], 4 * made["photonic_pj"]["weights"])
    lit = estimate((100, 70, 10), Array(noise=ArrayNoise(photons=1000)))["photonic_pj"]["light"]
    assert math.isclose(lit, (200 + 70) * 64 * 1000 * 1.2815779e-19 / 0.8 / 0.2 * 1e12, rel_tol=1e-4)


# -- files and bad input -------------------------------------------------------------------------------
def test_a_file_holds_the_whole_network(data, twin, tmp_path):
    for array in (Array(rows=7), ARRAYS["everything"][1], Array(noise=NOISE, window="full")):
        network = convert(twin, data, array)
        back = storage.load(storage.save(network, tmp_path / "network.pt"), IntegerPhotonicMLP)
        assert lower(back).sha256 == lower(network).sha256


def test_codes_of_fewer_bits_are_the_nearest(data, twin):
    images = data.test.images
    codes = convert(twin, data, Array(input_bits=3)).encode(images)
    assert np.array_equal(codes, np.floor(images.reshape(len(images), -1) / 255 * 7 + 0.5))


def test_the_network_stays_as_it_is(data, twin):
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    convert(twin, data, Array())
    assert all(torch.equal(before[name], value) for name, value in twin.state_dict().items())


def test_what_is_no_photonic_mlp_is_refused_with_its_place(data, twin):
    with pytest.raises(BittrueError, match="cannot put a SimpleMLP on a photonic array; make it non-negative"):
        convert(SimpleMLP.for_data(PhotonicPerceptron(hidden=(4,)), data, 1), data, Array())
    convolution = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9, 4))
    made = transform(convolution, Calibrate(method="constant", alpha=2), shape=(5, 3, 2))
    with pytest.raises(
        BittrueError, match=r"stages.0 \(NonNegativeConv2d\): .*convolutions and pools are not supported"
    ):
        convert(made, data, Array())
    headless = NonNegativeNetwork(list(twin.stages)[:-1], twin.shape)
    with pytest.raises(BittrueError, match="ends with a linear layer"):
        convert(headless, data, Array())
    with pytest.raises(BittrueError, match="light is not negative"):
        convert(twin, data, Array()).encode(data.test.images.astype(np.int64) - 1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rows": 0}, "rows"),
        ({"rows": 1 << 16}, "rows"),
        ({"columns": 1 << 16}, "columns"),
        ({"columns": 0}, "columns"),
        ({"input_bits": 0}, "input_bits"),
        ({"input_bits": 9}, "input_bits"),
        ({"weight_bits": 0}, "weight_bits"),
        ({"adc_bits": 25}, "adc_bits"),
        ({"window": "half"}, "pedestal"),
        ({"rails": "three"}, "two"),
        ({"extinction_db": -3}, "extinction_db"),
        ({"crosstalk_db": 0}, "crosstalk_db"),
        ({"weight_error": -0.1}, "weight_error"),
        ({"seed": -1}, "seed"),
        ({"noise": {"photons": 0}}, "photons"),
        ({"noise": {"relative": 0.1, "rin_db_per_hz": -150, "bandwidth_hz": 1e9}}, "the same noise twice"),
        ({"noise": {"rin_db_per_hz": -150}}, "needs bandwidth_hz"),
        ({"noise": {"current_a_per_rthz": 1e-12}}, "needs bandwidth_hz and power_w"),
        ({"noise": {"power_w": 1e-6}}, "`power_w` alone makes no noise"),
        ({"noise": {"rin_db_per_hz": -90, "bandwidth_hz": 1e9}}, "of 1 times the signal, and at 1 no signal is left"),
    ],
)
def test_settings_name_what_is_wrong(values, says):
    with pytest.raises(ValidationError, match=says):
        Array(**values)


def test_rows_without_an_input_cost_nothing(data, twin):
    """An array far larger than the network has the codes of one that just holds it, and needs no more memory."""
    small = convert(twin, data, Array(rows=1000, noise=ArrayNoise(thermal=0.1)))
    large = convert(twin, data, Array(rows=65535, noise=ArrayNoise(thermal=0.1)))
    codes = torch.from_numpy(small.encode(data.test.images))
    assert large.layers[0].array.light(codes)[0].shape == small.layers[0].array.light(codes)[0].shape
    assert torch.equal(large(codes), small(codes))
    assert np.array_equal(lower(large)(codes.numpy()), lower(small)(codes.numpy()))


def test_windows_follow_the_scales(data, twin):
    network = convert(twin, data, Array(rows=7))
    layer = network.layers[-1].array
    (low, shift), per_unit = layer.window(), layer.counts_per_unit()
    middle = (low + ((layer.high << shift) >> 1)) / per_unit
    with torch.no_grad():
        layer.target.log.add_(0.9)
        layer.weight.mul_(0.7)
    (low, _), per_unit = layer.window(), layer.counts_per_unit()
    assert torch.allclose((low + ((layer.high << shift) >> 1)) / per_unit, middle, atol=1e-4)
