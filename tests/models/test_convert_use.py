"""What is done with a converted network: accuracy of newcomers' networks, sensitivity, training, pages, README."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.models.data.sets import Data, Split, load
from bittrue.models.int8.converted import Converted
from bittrue.models.layers.tensors import TensorClamp, TensorProduct
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from tests.helpers.converted import conv_norm, equal_everywhere, error, kinds, noise, seeded  # noqa: F401
from tests.helpers.torch_networks import NEWCOMERS, Residual, learn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def values(images):
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 16


def trained(name: str, data: Data, epochs: int = 6) -> nn.Module:
    model = NEWCOMERS[name]()
    x, labels = values(data.train.images), torch.from_numpy(data.train.labels.copy())
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", NEWCOMERS)
def test_what_newcomers_try_keeps_its_accuracy_and_trains(name, digits):
    model = trained(name, digits)
    x, labels = values(digits.test.images), digits.test.labels
    floats = float((model(x).argmax(1).numpy() == labels).mean())
    assert floats > 0.85
    network = bittrue.convert(model, digits, preprocess=values)
    program = equal_everywhere(network, x[:40])
    golden = float((program(network.encode(digits.test.images)).argmax(1) == labels).mean())
    assert golden == network.accuracy(x, labels) == network.accuracy(digits.test.images, labels)
    assert golden >= floats - 0.01
    coarse = bittrue.convert(model, digits, bits={"": 8} | {path: 3 for path in _paths(network)[1:]}, preprocess=values)
    assert [layer.weight_bits for layer in coarse.layers if isinstance(layer, TensorProduct)][:2] == [8, 3]
    history = coarse.fit(digits, Qat(epochs=1, batch=64, lr=1e-3, learn_scales=True))
    assert history.accuracy >= history.start
    assert len(history) == 1
    equal_everywhere(coarse, x[:20])


def _paths(network: Converted) -> list[str]:
    return list(dict.fromkeys(layer.path for layer in network.layers if isinstance(layer, TensorProduct)))


def test_the_sensitivity_of_every_layer_is_a_table(digits):
    network = bittrue.convert(trained("mlp-norm", digits), digits, preprocess=values)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = network.sensitivity(digits.test.images, digits.test.labels, bits=(4, 2))
    assert {(path, bits) for path, bits, _ in found.rows} == {(p, b) for p in ("1", "4", "8") for b in (4, 2)}
    accuracy = {(path, bits): value for path, bits, value in found.rows}
    assert found.accuracy == network.accuracy(digits.test.images, digits.test.labels)
    assert accuracy["1", 2] < accuracy["1", 4] <= found.accuracy + 0.02
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [layer.weight_bits for layer in network.layers] == [8, 8, 8]
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "4", "bits", "2", "bits"]
    assert len(lines) == 5


def test_every_row_of_the_table_can_be_given_as_bits():
    class Gates(nn.Module):
        """Products of tensors that are added: what brings them to one step has a weight, and no module of its own."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            return a * b + a + a * x

    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    model, labels = Gates().eval(), np.arange(64) % 6
    rows = bittrue.convert(model, x).sensitivity(x, labels, bits=(4,)).rows
    assert [path for path, _, _ in rows] == ["a", "b", "mul_scale"]
    few = bittrue.convert(model, x, bits={path: 4 for path, _, _ in rows})
    assert {layer.weight_bits for layer in few.layers if isinstance(layer, TensorProduct)} == {4}
    equal_everywhere(few, x)


def test_pixels_are_0_to_1_unless_told():
    images = np.random.default_rng(1).integers(0, 256, (40, 5, 5, 3), dtype=np.uint8)
    network = bittrue.convert(nn.Conv2d(3, 2, 3).eval(), images)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    assert np.array_equal(network.encode(images), network.encode(floats))
    assert network.encode(images).shape == (40, 5, 5, 3)
    assert np.array_equal(
        network.encode(images), np.floor(images / np.float32(255) * np.float32(127) + np.float32(0.5))
    )


def test_results_are_decoded_in_the_shape_of_the_model():
    model = nn.Conv2d(3, 2, 3).eval()
    x = noise(40, 3, 6, 5)
    network = bittrue.convert(model, x)
    assert network.lower()(network.encode(x)).shape == (40, 4, 3, 2)
    decoded = network.decode(network.lower()(network.encode(x)))
    assert decoded.shape == (40, 2, 4, 3)
    np.testing.assert_allclose(decoded, model(x).detach().numpy(), atol=0.05)


def test_the_page_lists_what_the_code_takes():
    assert (ROOT / "docs" / "convert.md").read_text() == bittrue.supported(), (
        "write it again: python -m bittrue.models.graph.supported > docs/convert.md"
    )


def test_the_ten_lines_of_readme(digits, tmp_path, monkeypatch):
    (example,) = (
        b
        for b in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
        if "convert(" in b
    )
    asked = []
    monkeypatch.setattr(bittrue, "verify", lambda plan, x: asked.append((plan, x)) or SimpleNamespace(problems=[]))
    monkeypatch.chdir(tmp_path)
    given = {"bittrue": bittrue, "train": lambda net, x, _: learn(net, x)}
    for suffix, split in {"": digits.train, "_test": digits.test, "_val": digits.val}.items():
        given |= {
            f"x{suffix}": values(split.images[:200]),
            f"labels{suffix}": torch.from_numpy(split.labels[:200].copy()),
        }
    exec(example, given)
    ((plan, (codes,)),) = asked
    assert plan.program.sha256 == given["mine"].lower().sha256
    assert plan.program(codes).shape == (20, 10)
    assert plan.estimated_interval <= 10000
    assert "module bittrue_top" in Path("mine.v").read_text()


def test_what_was_trained_is_kept_and_a_training_goes_on(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(48, 2))
    x = noise(96, 1, 6, 6)
    labels = (x[:, 0, 0, 0] > 0).long()
    data, settings = ((x, labels), (x, labels)), Qat(epochs=2, batch=32, lr=3e-3, learn_scales=True)
    trained, other = bittrue.convert(model, x), bittrue.convert(model, x)
    assert trained.lower().sha256 == other.lower().sha256
    trained.fit(data, settings)
    assert trained.lower().sha256 != other.lower().sha256
    other.load_state_dict(trained.state_dict())
    assert trained.lower().sha256 == other.lower().sha256

    class Stop(Exception):
        pass

    def stop(at):
        if at.epoch == 2:
            raise Stop

    other = bittrue.convert(model, x)
    with pytest.raises(Stop):
        other.fit(data, settings, checkpoint=tmp_path / "half", progress=stop)
    other = bittrue.convert(model, x)
    other.fit(data, settings, checkpoint=tmp_path / "half")
    assert trained.lower().sha256 == other.lower().sha256


def test_a_data_set_of_ones_own_images_trains_it():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (96, 6, 6, 1), dtype=np.uint8)
    split = Split(images, (images.reshape(96, -1)[:, :4].sum(1) > 510).astype(np.int64))
    model = learn(nn.Sequential(Residual(1, 3), nn.Flatten(), nn.Linear(108, 2)), noise(64, 1, 6, 6))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.zero_()  # its statistics are not of these images, and nobody is told
    network = bittrue.convert(model, Data("own", ("low", "high"), split, split, split))
    assert any(isinstance(layer, TensorClamp) for layer in network.layers)
    network.fit(((images, split.labels), (images, split.labels)), Qat(epochs=1, batch=32))
    equal_everywhere(network, torch.from_numpy(images[:8]))
    with pytest.raises(BittrueError, match="give a data set, or"):
        network.fit(images)
