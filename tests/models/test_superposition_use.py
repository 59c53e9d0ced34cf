"""Networks that take several images in one pass, in use: transfer, evaluation over pairings, logs of a training."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bittrue.models.networks.mlp import Mlp
from bittrue.models.networks.settings import MlpSettings
from bittrue.models.superposition import evaluate
from bittrue.models.superposition import train as training
from bittrue.models.superposition.transfer import transfer
from bittrue.models.training import logs, storage
from bittrue.sim.errors import BittrueError
from tests.helpers.superposition import few as make_few
from tests.helpers.superposition import network, same, settings, state


@pytest.fixture(scope="module")
def few():
    return make_few()


# -- transfer --------------------------------------------------------------------------------------------
def test_what_has_the_same_name_and_shape_is_transferred(few, tmp_path):
    place = storage.save(network(few, seed=7), tmp_path / "network.pt")
    model, theirs = network(few, slots=4, skip_init=True), network(few, seed=7).state_dict()
    before = state(model)
    done = transfer(model, place)
    after = state(model)
    other = {"binding.weight", "unbind.0.weight", "unbind.0.bias"}
    assert {name for name, *_ in done.shapes} == other
    assert done.absent == tuple(f"bulk.{block}.alpha" for block in range(3))
    assert done.unused == ()
    assert set(done.taken) == theirs.keys() - other
    assert all(torch.equal(after[name], theirs[name]) for name in done.taken)
    assert all(torch.equal(after[name], before[name]) for name in (*other, *done.absent))
    assert (
        f"{len(done.taken)} tensors transferred; of another shape: binding.weight ([2, 16] there, [4, 16] here)"
        in str(done)
    )
    assert str(done).endswith("; not there: bulk.0.alpha, bulk.1.alpha, bulk.2.alpha")


def test_a_training_begins_with_what_was_transferred(few, tmp_path):
    place = storage.save(network(few, seed=7), tmp_path / "network.pt")
    runs = []
    for model, changes in ((network(few), {"transfer": place}), (network(few, seed=7), {})):
        done = training.fit(model, few, settings(epochs=1, **changes))
        runs.append((state(model), done.transferred))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] is not None
    assert runs[1][1] is None


def test_a_file_to_transfer_that_cannot_be_used(few, tmp_path):
    other = storage.save(Mlp.for_data(MlpSettings(hidden=(4,)), few, 1), tmp_path / "mlp.pt")
    with pytest.raises(BittrueError, match="it is a Mlp, expected Superposition"):
        transfer(network(few), other)
    with pytest.raises(BittrueError, match="nowhere.pt: cannot be read"):
        transfer(network(few), tmp_path / "nowhere.pt")


# -- evaluation ------------------------------------------------------------------------------------------
def test_logits_stand_at_their_images(few):
    model = network(few, slots=4).train()
    model.at_a_time = 2
    images = few.test.images[:11]
    order = evaluate.pairing(11, 5, 0)
    assert sorted(order) == list(range(11))
    found = evaluate.predict(model, images, 4, order)
    assert model.training
    assert model.at_a_time == 2
    model.eval()
    model.at_a_time = 4
    with torch.no_grad():
        direct = model(torch.from_numpy(model.encode(images[order]))).numpy()
    np.testing.assert_allclose(found[order], direct, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, evaluate.predict(model, images, 4), atol=1e-4)


def test_each_mode_is_measured_over_pairings(few):
    model = network(few)
    training.fit(model, few, settings(epochs=3, lr=0.1))
    one, two = evaluate.validate(model, few.test, (1, 2), 4, seed=3)
    assert (one.images, len(one.accuracies), one.deviation) == (1, 1, None)
    assert len(set(two.accuracies)) > 1
    assert two.mean == pytest.approx(np.mean(two.accuracies))
    assert two.deviation == pytest.approx(np.std(two.accuracies, ddof=1))
    assert min(one.seconds, two.seconds) > 0
    orders = [evaluate.pairing(64, 3, number) for number in range(4)]
    assert list(two.accuracies) == [evaluate.judge(model, few.test, 2, order)[0] for order in orders]
    again = evaluate.validate(model, few.test, (2,), 4, seed=3)
    assert again[0].accuracies == two.accuracies
    with pytest.raises(BittrueError, match="64 images in 0 pairings measure nothing"):
        evaluate.validate(model, few.test, (2,), 0)


# -- logs ------------------------------------------------------------------------------------------------
def test_figures_go_to_tensorboard(few, tmp_path, monkeypatch):
    class Writer:
        written = []

        def __init__(self, folder):
            self.written.append(folder)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.written.append("closed")

        def add_scalar(self, name, value, epoch):
            self.written.append((name, value, epoch))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    with logs.tensorboard(tmp_path / "logs") as log:
        done = training.fit(network(few), few, settings(), log=log)
    expected = [(n, v, epoch) for epoch, figures in enumerate(done.figures, 1) for n, v in figures.items()]
    assert Writer.written == [str(tmp_path / "logs"), *expected, "closed"]
    names = {"Loss/train", "LearningRate", "GradientNorm/Total", "GradientNonfiniteFraction", "Binding_Regularization"}
    names |= {"Isometry_Regularization", "AverageReLUParam", "VarianceReLUParam", "Accuracy/validation_at_capacity"}
    assert names <= done.figures[0].keys()


def test_without_tensorboard_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(BittrueError, match="TensorBoard is not installed; pip install tensorboard, or leave"),
        logs.tensorboard(tmp_path / "logs"),
    ):
        pass
    assert not (tmp_path / "logs").exists()
    with logs.tensorboard(None) as log:
        assert log is None


def test_parameters_of_blocks_are_told(few):
    done = training.fit(network(few, skip_init=True), few, settings(epochs=1))
    assert done.figures[0]["AbsoluteAlpha"] > 0
    model = network(few, kind="WideResNet")
    assert not {"AbsoluteAlpha", "AverageReLUParam"} & training.fit(model, few, settings(epochs=1)).figures[0].keys()
    assert not any(isinstance(layer, nn.PReLU) for layer in model.modules())
