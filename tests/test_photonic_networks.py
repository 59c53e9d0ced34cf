"""Networks on a photonic array: conversion, exact-integer training, lowering; every tensor equal to the program's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from flow import recipe, stages, steps
from flow.photonic_energy import ADC_PJ, AMPLIFIER_PJ, DAC_PJ, estimate
from models import qat, storage, train
from models.data import Data, Split, load
from models.integer import Step
from models.lower import lower, record, whole
from models.photonic_convert import calibrate, convert
from models.photonic_integer import (
    FUNCTIONS,
    IntegerPhotonicArray,
    IntegerPhotonicLinear,
    IntegerPhotonicMLP,
    IntegerPhotonicTable,
    operating_range,
)
from models.photonic_lower import emit
from models.photonic_measure import conversions
from models.photonic_net import SimpleMLP
from models.photonic_settings import Array, ArrayNoise, Calibrate, PhotonicPerceptron, PhotonicTrain
from models.photonic_train import train as scenario
from models.photonic_transform import NonNegativeNetwork, transform
from models.settings import Qat
from sim.contract import Format
from sim.errors import BittrueError
from sim.lerp import Lerp
from sim.linear import Linear
from sim.noise import DEVIATION
from sim.program import Builder
from sim.requantize import Requantize

NOISE = ArrayNoise(relative=0.01, photons=3000.0, thermal=0.05)


def pictures(height=5, width=3, channels=2, classes=4, seed=1):
    """Random images with a label that depends on them."""
    rng = np.random.default_rng(seed)

    def split(n):
        images = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        return Split(images, images.reshape(n, -1)[:, :8].sum(1) % classes)

    return Data("pictures", tuple("abcdefgh"[:classes]), split(300), split(60), split(60))


def twin_of(data, activation="sinusoid", hidden=(12, 9), epochs=3, method=None):
    network = PhotonicPerceptron(hidden=hidden, activation=activation)
    settings = PhotonicTrain(epochs=epochs, batch=30, lr=0.1)
    method = method or Calibrate(**({"method": "percentile"} if activation == "relu" else {}))
    return scenario(data, settings, network, method).twin


@pytest.fixture(scope="module")
def data():
    return pictures()


@pytest.fixture(scope="module")
def twin(data):
    return twin_of(data)


def assert_equal_everywhere(network, images):
    """Every tensor of the forward is the program's, in the fast, the traced and the slow execution."""
    program, codes = lower(network), network.encode(images)
    logits = program(codes)
    assert np.array_equal(logits, train.predict(network, images))
    assert np.array_equal(logits[:10], program.reference(codes[:10]))
    recorded, traced = record(network, codes), program.trace(codes)
    assert recorded.keys() == traced.tensors.keys()
    for name, codes_of in traced.tensors.items():
        assert np.array_equal(recorded[name], codes_of), name
    return program, traced


# -- every tensor --------------------------------------------------------------------------------------
ARRAYS = {
    "one tile": ("sinusoid", Array()),
    "full window": ("sinusoid", Array(window="full", rows=8)),
    "tiles": ("sinusoid", Array(rows=7, columns=5)),
    "a row": ("sinusoid", Array(rows=1, adc_bits=10)),
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
    build = Builder(x=lower(network).inputs["x"])
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
    layer = IntegerPhotonicLinear(8, 6, Step(1 / 255), Step(1 / 127), array, 0, None)
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
    source = Step((end - start) / 255)
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


def test_training_repairs_a_coarse_array(data):
    twin = twin_of(data, hidden=(16,), epochs=60)
    network = convert(twin, data, Array(input_bits=5, weight_bits=2, adc_bits=3, rows=8))
    images = Data("p", data.classes, data.train, data.train, data.train)
    before = train.accuracy(network, images.test)
    qat.fit(network, images, Qat(epochs=15, batch=30, lr=3e-3))
    assert train.accuracy(network, images.test) > before + 0.02


# -- cells ---------------------------------------------------------------------------------------------
def array_of(settings, weight=None, layer=0):
    made = IntegerPhotonicArray(12, 10, Step(1.0), Step(1.0), settings, layer)
    rng = np.random.default_rng(5)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(rng.normal(size=(10, 12)) if weight is None else weight))
    return made


def cells_of(settings, layer=0):
    made = array_of(settings, layer=layer)
    with torch.no_grad():
        return made.cells(*made.codes()), made


def test_a_leaking_rail_is_compensated_by_its_code():
    ideal, _ = cells_of(Array(fraction_bits=4))
    leaking, layer = cells_of(Array(extinction_db=20))
    leak = round(0.01 / 0.99 * 255 * 16)
    assert layer.leak == leak
    difference = (leaking.plus - leaking.minus) - (ideal.plus - ideal.minus)
    assert difference.abs().max() < leak + 16  # only weights smaller than the leak are wrong by more than a step
    large = (ideal.plus + ideal.minus) > leak
    assert difference[large].abs().max() <= 16
    assert ((leaking.plus == 0) != (leaking.minus == 0)).all()  # one cell a weight, never dark


def test_crosstalk_stays_within_the_columns_of_a_tile():
    plain, _ = cells_of(Array(fraction_bits=8))
    crossed, _ = cells_of(Array(crosstalk_db=-20, columns=4, fraction_bits=8))
    for rail in ("plus", "minus"):
        given, got = getattr(plain, rail), getattr(crossed, rail)
        expected = torch.zeros_like(given)
        for n in range(10):
            expected[n] += 0.98 * given[n]
            for other in (n - 1, n + 1):
                if 0 <= other < 10 and other // 4 == n // 4:
                    expected[n] += 0.01 * given[other]
        assert (got - expected).abs().max() <= 0.5 + 1e-6


def test_errors_of_setting_are_drawn_once_and_drift_escapes_the_calibration():
    first, layer = cells_of(Array(weight_error=0.02, fraction_bits=6, seed=7))
    again, _ = cells_of(Array(weight_error=0.02, fraction_bits=6, seed=7))
    other, _ = cells_of(Array(weight_error=0.02, fraction_bits=6, seed=8))
    deeper, _ = cells_of(Array(weight_error=0.02, fraction_bits=6, seed=7), layer=1)
    assert torch.equal(first.plus, again.plus)
    assert not torch.equal(first.plus, other.plus)
    assert not torch.equal(first.plus, deeper.plus)
    errors = layer._drawn()[0].numpy() / (255 << 6)
    assert abs(errors.std() / 0.02 - 1) < 0.2
    assert abs(errors.mean()) < 0.005
    assert torch.equal(first.pedestal, first.calibrated)
    drifted, _ = cells_of(Array(drift=0.02, fraction_bits=6, seed=7))
    still, _ = cells_of(Array(fraction_bits=6, seed=7))
    assert torch.equal(drifted.calibrated, still.pedestal)
    assert not torch.equal(drifted.pedestal, drifted.calibrated)
    for cells in (first, other, drifted):
        assert min(cells.plus.min(), cells.minus.min()) >= 0
        assert max(cells.plus.max(), cells.minus.max()) <= 255 << 6


# -- noise ---------------------------------------------------------------------------------------------
def test_physical_units_become_ratios():
    made = ArrayNoise(rin_db_per_hz=-150, bandwidth_hz=1e9).factors
    assert math.isclose(made.relative, 1e-3)
    assert (made.photons, made.thermal) == (math.inf, 0)
    light = {"power_w": 1e-6, "wavelength_m": 1.55e-6, "quantum_efficiency": 0.5}
    energy = 6.62607015e-34 * 299792458 / 1.55e-6
    assert math.isclose(ArrayNoise(integration_s=1e-9, **light).factors.photons, 0.5 * 1e-15 / energy)
    thermal = ArrayNoise(current_a_per_rthz=1e-12, bandwidth_hz=1e8, **light).factors.thermal
    assert math.isclose(thermal, 1e-12 * 1e4 / (0.5 * 1.602176634e-19 / energy * 1e-6))
    assert ArrayNoise(thermal=0.1).on
    assert not ArrayNoise().on


def test_noise_in_training_has_the_deviations_of_the_golden_noise():
    layer = array_of(Array(noise=NOISE, rows=12))
    torch.manual_seed(1)
    light = torch.tensor([0.0, 40000.0, 400000.0, 2000000.0]).repeat(4000, 1)[:, None, :]
    got = layer._noise(light * 0, light).numpy()[:, 0]
    noise = layer.noise()
    u = light.numpy().astype(np.int64)[:, 0]
    image = np.arange(len(u))[:, None]
    exact = noise.added(u, image, np.zeros((1, 1), np.int64), 1 + np.arange(4)[None]) - u
    for k in range(1, 4):
        assert abs(got[:, k].std() / exact[:, k].std() - 1) < 0.05
        assert abs(got[:, k].mean()) < 0.05 * got[:, k].std()
    assert got[:, 0].min() >= 0
    full = 255 * 255
    assert abs(noise.thermal * DEVIATION / (1 << noise.shift) / (0.05 * full) - 1) < 1e-3
    assert abs(noise.shot * DEVIATION / (1 << noise.shift) / math.sqrt(full / 3000) - 1) < 1e-3


def test_noise_belongs_to_training_and_to_the_program(data, twin):
    quiet, noisy = (convert(twin, data, Array(noise=noise)) for noise in (ArrayNoise(), NOISE))
    codes = torch.from_numpy(quiet.encode(data.test.images))
    with torch.no_grad():
        assert torch.equal(quiet(codes), noisy(codes))
        noisy.train()
        assert not torch.equal(noisy(codes), noisy(codes))
        noisy.eval()
    programs = lower(quiet), lower(noisy)
    assert not np.array_equal(programs[0](codes.numpy()), programs[1](codes.numpy()))
    assert np.array_equal(programs[1](codes.numpy())[:10], programs[1].reference(codes.numpy()[:10]))
    seeds = {node.operation.noise.layer for node in programs[1].nodes if hasattr(node.operation, "noise")}
    assert seeds == {0, 1, 2}
    before = [p.detach().clone() for p in noisy.parameters()]
    qat.fit(noisy, data, Qat(epochs=1, batch=50, lr=1e-2))
    assert all(p.isfinite().all() for p in noisy.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, noisy.parameters(), strict=True))


def test_a_network_trained_with_noise_bears_it_better():
    digits = load("digits")
    trained = scenario(digits, PhotonicTrain(epochs=15, batch=32, lr=0.2), PhotonicPerceptron(hidden=(32,))).twin
    noise, scores = ArrayNoise(thermal=0.8), []
    for given in (ArrayNoise(), noise):
        network = convert(trained, digits, Array(noise=given))
        qat.fit(network, digits, Qat(epochs=8, batch=64, lr=3e-3))
        for layer in network.layers:
            layer.array.array = Array(noise=noise)
        logits = lower(network)(network.encode(digits.test.images))
        scores.append(float((logits.argmax(1) == digits.test.labels).mean()))
    assert scores[1] > scores[0] + 0.03


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
    ],
)
def test_settings_name_what_is_wrong(values, says):
    with pytest.raises(ValidationError, match=says):
        Array(**values)


# -- the flow ------------------------------------------------------------------------------------------
QUICK = ["network.hidden=[16,12]", "train.epochs=3", "finetune.epochs=1", "beside.full_scale=converted"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["train.scenario=post", "train.non_negative_epochs=2", "train.optimizer=csgd", "array.window=full"],
        ["train.scenario=scratch", "train.epochs=null", "train.non_negative_epochs=3", "array.rows=20"],
        ["array.noise={relative: 0.01, photons: 1.0e+4}", "array.extinction_db=20"],
    ],
)
def test_the_flow_from_recipe_to_golden(tmp_path, more):
    made = recipe.load("photonic-mlp-digits", QUICK + more)
    outcomes = {o.step: o for o in steps.run(stages.steps(made), made, tmp_path, until="simulate")}
    trained, found = outcomes["train"].result, outcomes["quantize"].result
    assert trained["agreement"]["agree"] == trained["agreement"]["images"] == 450
    assert outcomes["simulate"].result["mismatches_with_network"] == 0
    assert outcomes["simulate"].result["accuracy"] == found["accuracy"]
    saturation = outcomes["simulate"].result["saturation"]
    assert {row["name"]: row["clipped"] for row in found["converters"]} == {
        name: count for name, count in saturation.items() if name.endswith("_array")
    }
    assert ("full_scale" in found) == (made.array.window == "pedestal")
    assert found["noise"] == made.array.noise.on
    assert ("accuracy_without_noise" in found) == made.array.noise.on
    assert [row["name"] for row in found["light"]] == ["hidden.0", "hidden.1", "classifier"]
    assert [row["images_per_load"] for row in found["energy"]] == [1, 256]


@pytest.mark.parametrize("name", [name for name in recipe.shipped() if name.startswith("photonic-")])
@pytest.mark.parametrize("which", ["transform", "post", "scratch"])
def test_a_scenario_alone_is_enough(name, which):
    made = recipe.load(name, [f"train.scenario={which}"])
    settings = made.train.settings(made.dataset.name, made.network.activation)
    assert (settings.epochs > 0, settings.non_negative_epochs > 0) == (which != "scratch", which != "transform")
    assert (made.array.rows, made.array.columns, made.array.adc_bits, made.array.noise.on) == (64, 64, 8, False)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("array.adc_bit=8", "did you mean 'array.adc_bits'"),
        ("array.noise.photon=8", "did you mean 'array.noise.photons'"),
        ("array.rows=0", "array.rows = 0 is not usable"),
        ("train.scenario=posts", "did you mean 'post'"),
        ("train.epochs=0", "scenario transform: `epochs` is 0"),
        ("network.activation=swish", "network.activation = 'swish' is not usable"),
        ("dataset.name=cifar100", "no photonic settings for the data set 'cifar100'"),
    ],
)
def test_a_recipe_says_what_is_wrong(override, says):
    with pytest.raises(BittrueError, match=says):
        recipe.load("photonic-mlp-digits", [override])


def test_the_array_has_an_operation():
    assert emit.dispatch(IntegerPhotonicArray) is not emit.dispatch(object)


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
