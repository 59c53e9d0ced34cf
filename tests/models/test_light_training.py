"""Training of photonic networks: activations, optimisers, scenarios, and true float32 throughout."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bittrue.models.data.sets import Data, Split, load
from bittrue.models.light.activations import PhotonicSigmoid, PhotonicSinusoid, ReLUN, activation
from bittrue.models.light.network import SimpleMLP
from bittrue.models.light.optim import CSGD, NNSGD
from bittrue.models.light.settings import (
    Calibrate,
    PhotonicPerceptron,
    PhotonicTrain,
    architecture,
    published,
)
from bittrue.models.light.train import compare, regular_of, train
from bittrue.models.light.transform import transform
from bittrue.models.training import loop as trainer
from bittrue.models.training.precision import full_precision
from bittrue.sim.errors import BittrueError
from tests.helpers.lengths import long_but

F64 = torch.float64


@pytest.fixture(scope="module")
def data():
    return load("digits")


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


class TestScenarios:
    def quick(self, scenario, optimizer="nnsgd", name="sinusoid", **changes):
        settings = published("digits", name, scenario, optimizer)
        epochs = {"transform": (8, 0), "post": (4, 4), "scratch": (0, 8)}[scenario]
        given = {"epochs": epochs[0], "non_negative_epochs": epochs[1]} | changes
        return settings.model_copy(update=given)

    @pytest.mark.parametrize("name", long_but(["sinusoid", "sigmoid"], "sinusoid"))
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
        assert (len(outcome.history or ()), len(outcome.non_negative_history or ())) == (first, second)
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
            train(
                data,
                self.quick("transform", lr=1e30),
                PhotonicPerceptron(activation="relu"),
                Calibrate(method="percentile"),
            )

    def test_calibrations_that_mean_nothing_are_refused(self, data):
        with pytest.raises(BittrueError, match="nothing is trained yet"):
            train(data, self.quick("scratch"), calibrate=Calibrate(method="percentile"))
        for scenario in ("transform", "post"):
            with pytest.raises(BittrueError, match="ReLU has no bound"):
                train(data, self.quick(scenario), PhotonicPerceptron(activation="relu"))

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
        monkeypatch.setattr(trainer, "accuracy_and_loss", lambda *_: seen.append(precisions()) or (0.0, 0.0))
        train(load("digits"), PhotonicTrain(epochs=1, batch=256))
        assert seen == [["ieee"] * len(SWITCHES)] * 2  # before the epoch and after it
