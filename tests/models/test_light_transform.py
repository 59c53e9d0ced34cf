"""Transformation of whole networks: what is folded, how alpha is found, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bittrue.models.data.sets import load
from bittrue.models.light.activations import PhotonicSigmoid, PhotonicSinusoid, ReLUN
from bittrue.models.light.layers import NonNegativeLinear
from bittrue.models.light.network import SimpleMLP, grey, light_codes
from bittrue.models.light.settings import Calibrate, PhotonicPerceptron, architecture
from bittrue.models.light.train import compare
from bittrue.models.light.transform import NonNegativeNetwork, transform
from bittrue.models.networks.mlp import Mlp
from bittrue.models.networks.resmlp import ResMLP
from bittrue.models.networks.settings import MlpSettings, ResMLPSettings
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError
from tests.helpers.photonic_twins import cnn, codes_of, random_images

F64 = torch.float64


@pytest.fixture(scope="module")
def data():
    return load("digits")


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
        settings = MlpSettings(hidden=(12, 9), nonlinearity=name, norm=norm)
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
        by_data, images = Calibrate(method="percentile"), random_images((4, 4, 1))
        with pytest.raises(BittrueError, match=r"1: it takes 16 inputs, but images of shape \(4, 5, 1\) have 20"):
            transform(self.network(), Calibrate(method="constant", alpha=2.0), shape=(4, 5, 1))
        with pytest.raises(BittrueError, match=r"takes images of shape \(2, 8, 1\), those .* have \(4, 4, 1\)"):
            transform(self.network(), by_data, images=images, shape=(2, 8, 1))

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
        network = ResMLP.for_data(ResMLPSettings(patch=4, embed=8, blocks=1, terms=3, grid_points=9), load("digits"), 1)
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
