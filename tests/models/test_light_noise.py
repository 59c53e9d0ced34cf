"""What is not ideal in a photonic array: its cells, and noise, whose words are the program's, image for image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bittrue.models.data.sets import load
from bittrue.models.graph.lower import lower
from bittrue.models.layers.integer import CodeStep
from bittrue.models.light.array import DRIFT, SETTING, TRAINING, IntegerPhotonicArray
from bittrue.models.light.convert import convert
from bittrue.models.light.settings import Array, ArrayNoise, PhotonicPerceptron, PhotonicTrain
from bittrue.models.light.train import train as scenario
from bittrue.models.training import loop as train
from bittrue.models.training import qat
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.noise import DEVIATION
from tests.helpers.photonic_twins import NOISE, assert_equal_everywhere, pictures, twin_of


@pytest.fixture(scope="module")
def data():
    return pictures()


@pytest.fixture(scope="module")
def twin(data):
    return twin_of(data)


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# -- cells ---------------------------------------------------------------------------------------------
def array_of(settings, weight=None, layer=0):
    made = IntegerPhotonicArray(12, 10, CodeStep(1.0), CodeStep(1.0), settings, layer)
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


# -- noise ----------------------------------------------------------------------------------------------
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


def test_factors_of_the_program_are_the_physical_ones():
    noise, full = array_of(Array(noise=NOISE, rows=12)).noise(), 255 * 255
    assert abs(noise.thermal * DEVIATION / (1 << noise.shift) / (0.05 * full) - 1) < 1e-3
    assert abs(noise.shot * DEVIATION / (1 << noise.shift) / math.sqrt(full / 3000) - 1) < 1e-3
    assert abs(noise.relative * DEVIATION / (1 << noise.shift) / 0.01 - 1) < 1e-3


NOISY = {
    "one tile": Array(noise=NOISE),
    "tiles": Array(noise=NOISE, rows=7, columns=5, seed=3),
    "full window": Array(noise=NOISE, window="full", rows=8),
    "two rails": Array(noise=NOISE, rails="two", extinction_db=12, drift=0.02, crosstalk_db=-25, rows=13, columns=4),
    "all but noise": Array(noise=ArrayNoise(thermal=30.0), adc_bits=16, rows=9),
    "wide": Array(noise=NOISE, weight_bits=10, fraction_bits=4, adc_bits=20, sum_bits=12),
    "4 bits": Array(noise=ArrayNoise(photons=20.0), input_bits=4, weight_bits=4, adc_bits=6),
}


@pytest.mark.parametrize("case", NOISY)
@pytest.mark.usefixtures("last_epoch_kept")
def test_with_noise_every_tensor_is_the_programs(data, twin, case):
    network = convert(twin, data, NOISY[case])
    images = np.concatenate([data.test.images] * 10)  # more than are evaluated together
    assert len(images) > train.EVALUATION_BATCH
    program, traced = assert_equal_everywhere(network, images)
    repeated = traced.tensors["layers_0_array"].reshape(10, len(data.test), -1)
    assert not np.array_equal(repeated[0], repeated[1])  # the same pictures in other light
    qat.fit(network, data, Qat(epochs=1, batch=50, lr=1e-2))
    changed, _ = assert_equal_everywhere(network, images)
    assert changed.sha256 != program.sha256


@pytest.mark.parametrize("case", NOISY)
def test_in_training_the_words_are_those_of_images_from_the_upper_half(data, twin, case):
    network = convert(twin, data, NOISY[case]).train()
    program, codes = lower(network), network.encode(data.train.images)
    for first in (0, 12345, DRIFT - TRAINING - len(codes)):
        logits = network(torch.from_numpy(codes), first).detach().numpy()
        assert np.array_equal(logits, program(codes, first=TRAINING + first))
    arrays = [program.trace(codes, first=first).tensors["layers_0_array"] for first in (0, TRAINING)]
    assert not np.array_equal(*arrays)


def test_a_training_draws_every_word_once_and_none_of_an_evaluation(data, twin, monkeypatch):
    drawn, added = {True: [], False: []}, IntegerPhotonicArray.added

    def watched(self, counts, calibrated, first):
        if self.layer == 1:
            drawn[self.training].append(np.arange(first, first + len(counts)))
        return added(self, counts, calibrated, first)

    monkeypatch.setattr(IntegerPhotonicArray, "added", watched)
    network = convert(twin, data, Array(noise=NOISE))
    qat.fit(network, data, Qat(epochs=3, batch=70))
    assert [len(block) for block in drawn[True]] == [70] * 12
    starts = [block[0] for block in drawn[True]]
    assert starts == [epoch * 300 + step * 70 for epoch in range(3) for step in range(4)]
    assert len(np.unique(np.concatenate(drawn[True]))) == 12 * 70
    assert np.array_equal(np.concatenate(drawn[False]), np.tile(np.arange(60), 4))  # once before the first epoch
    assert SETTING > DRIFT >= TRAINING + (DRIFT - TRAINING)


def test_training_with_noise_is_fixed_by_the_seed_of_the_array_and_can_be_interrupted(data, twin, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(report):
        if (report.epoch, report.step) == (3, 2):
            raise Interrupted

    def trained(seed, **more):
        network = convert(twin, data, Array(noise=NOISE, seed=seed))
        qat.fit(network, data, Qat(epochs=4, batch=50, lr=1e-2), **more)
        return state(network)

    torch.manual_seed(1)
    whole = trained(5)
    torch.manual_seed(2)
    with pytest.raises(Interrupted):
        trained(5, checkpoint=tmp_path / "checkpoint.pt", progress=stop)
    assert same(whole, trained(5, checkpoint=tmp_path / "checkpoint.pt"))
    assert not same(whole, trained(6))


def test_there_are_words_for_so_many_images(data, twin):
    network = convert(twin, data, Array(noise=NOISE))
    codes = torch.from_numpy(network.encode(data.test.images))
    network(codes, TRAINING - 60)
    for first in (-1, TRAINING - 59):
        with pytest.raises(BittrueError, match=f"images {first} to .* of a set"):
            network(codes, first)
    with pytest.raises(BittrueError, match="of a training; the generator has words for 2,147,483,646"):
        network.train()(codes, DRIFT - TRAINING - 59)
    for noise, words in (({"photons": 1e-12}, "more than 63 bits"), ({"thermal": 1e8}, "factor of more than 48 bits")):
        with pytest.raises(BittrueError, match=words):
            convert(twin, data, Array(noise=ArrayNoise(**noise)))


def test_noise_changes_nothing_that_is_calibrated(data, twin):
    quiet, noisy = (convert(twin, data, Array(noise=noise, rows=7)) for noise in (ArrayNoise(), NOISE))
    assert same(state(quiet), state(noisy))
    assert (quiet.counts_frames, noisy.counts_frames) == (False, True)


def test_a_copy_under_other_noise(data, twin):
    network = convert(twin, data, Array(noise=NOISE, rows=7))
    programs = [lower(network)] + [
        lower(network.under(*given)) for given in ((), (ArrayNoise(),), (None, 2), (ArrayNoise(thermal=0.5), 2))
    ]
    codes = network.encode(data.test.images)
    results = [program(codes) for program in programs]
    assert programs[0].sha256 == programs[1].sha256
    assert len({result.tobytes() for result in results}) == 4
    quiet = convert(twin, data, Array(rows=7))
    assert np.array_equal(results[2], lower(quiet)(codes))
    seeds = {node.operation.noise.layer for node in programs[0].nodes if hasattr(node.operation, "noise")}
    assert seeds == {0, 1, 2}


def test_gradients_pass_noise_and_stop_where_the_converter_clips():
    layer = array_of(Array(noise=ArrayNoise(thermal=2.0)))
    layer.step.fill_(9)
    x = torch.randint(0, 256, (40, 12), generator=torch.Generator().manual_seed(1)).float().requires_grad_()
    layer(x).sum().backward()
    counts, cells = layer.light(x.detach())
    seen = counts.detach() + layer.added(counts.detach(), cells.calibrated, 0) - layer.window()[0]
    inside = ((seen >= -256) & (seen < 255 * 512 + 256)).double().squeeze(1)
    weight = layer.codes()[0].detach().double()
    assert 0.1 < inside.mean() < 0.9
    assert torch.allclose(x.grad.double(), inside @ weight / 512, rtol=1e-5, atol=1e-5)


def test_a_network_trained_with_noise_bears_it_better():
    digits = load("digits")
    trained = scenario(digits, PhotonicTrain(epochs=15, batch=32, lr=0.2), PhotonicPerceptron(hidden=(32,))).twin
    noise, scores = ArrayNoise(thermal=0.8), []
    for given in (ArrayNoise(), noise):
        network = convert(trained, digits, Array(noise=given))
        qat.fit(network, digits, Qat(epochs=8, batch=64, lr=3e-3))
        heard = [network.under(noise, seed) for seed in range(11, 15)]
        scores.append(np.mean([train.accuracy(one, digits.test) for one in heard]))
    assert scores[1] > scores[0] + 0.03
