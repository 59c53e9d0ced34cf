"""Training: seeds, checkpoints that resume to the same weights, divergence, files, settings."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bittrue.models.data.sets import Split, load
from bittrue.models.int8.quantize import post_training
from bittrue.models.light import train as light
from bittrue.models.light.network import SimpleMLP
from bittrue.models.light.settings import PhotonicPerceptron, published
from bittrue.models.light.transform import transform
from bittrue.models.networks.mlp import Mlp
from bittrue.models.networks.resmlp import ResMLP
from bittrue.models.networks.settings import Quantize, ResMLPSettings
from bittrue.models.training import loop as train
from bittrue.models.training import qat, storage
from bittrue.models.training.settings import Qat, Train
from bittrue.sim.errors import BittrueError

NETWORK = ResMLPSettings(patch=4, embed=8, blocks=1, terms=3, grid_points=9)
TRAIN = Train(epochs=3, batch=200, lr=5e-3)


@pytest.fixture(scope="module")
def data():
    return load("digits")


def network(data, seed=1, **changes):
    return ResMLP.for_data(NETWORK.model_copy(update=changes), data, seed)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Interrupted(Exception):
    pass


def interrupt_in(epoch):
    def progress(report):
        if report.epoch == epoch and report.step == 2:
            raise Interrupted

    return progress


def test_the_seed_fixes_parameters_and_training(data):
    before = torch.random.get_rng_state()
    models = [network(data, seed) for seed in (1, 1, 2)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train.fit(model, data, TRAIN.model_copy(update={"seed": seed}))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(state(models[0]), state(models[1]))
    assert not same(state(models[0]), state(models[2]))


def test_weights_do_not_depend_on_the_threads_that_there_are(data):
    before, seen, found = torch.get_num_threads(), [], []
    for there, asked in ((1, 1), (2, 1), (1, 2)):
        model = network(data)
        torch.set_num_threads(there)
        try:
            settings = TRAIN.model_copy(update={"epochs": 1, "threads": asked})
            train.fit(model, data, settings, progress=lambda _: seen.append(torch.get_num_threads()))
            assert torch.get_num_threads() == there
        finally:
            torch.set_num_threads(before)
        found.append(state(model))
    assert seen == [1] * 10 + [2] * 5
    assert same(found[0], found[1])
    assert not same(found[0], found[2])  # if it is, this test would see nothing


def test_every_epoch_sees_all_images_in_another_order(data):
    seen = []

    def loss(logits, labels):
        if logits.requires_grad:  # not those of the validation
            seen.append(labels.clone())
        return logits.sum() * 0

    model = network(data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    train.optimize(model, data, Train(batch=399), optimizer, epochs=2, stage="test", loss=loss)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert not torch.equal(first, second)
    for order in (first, second):
        assert np.array_equal(order.sort().values.numpy(), np.sort(data.train.labels))


def test_training_learns_and_reports(data):
    model, reports = network(data), []
    start = train.accuracy(model, data.val)
    history = train.fit(model, data, TRAIN.model_copy(update={"epochs": 20}), progress=reports.append)
    assert len(history) == 20
    assert history[-1].loss < history[0].loss / 1.5
    assert history.start == start
    assert history[history.kept - 1].accuracy == history.accuracy == train.accuracy(model, data.val) > max(0.5, start)
    assert [(r.epoch, r.step) for r in reports] == [(e, s) for e in range(1, 21) for s in range(1, 6)]
    assert (reports[0].epochs, reports[0].steps, reports[0].last) == (20, 5, None)
    assert reports[-1].last == history[-2]


def float_training(data):
    """A network and, by a factor on its learning rate in each epoch, its training."""
    model = network(data)

    def run(factors, **options):
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        settings = Train(batch=200)
        schedule = lambda share: factors[int(share * len(factors))]  # noqa: E731
        given = {"epochs": len(factors), "stage": "train", "schedule": schedule}
        return train.optimize(model, data, settings, optimizer, **given, **options)

    return model, run


def integer_training(data):
    float_model = network(data)
    train.fit(float_model, data, TRAIN.model_copy(update={"epochs": 12}))
    model = post_training(float_model, data, Quantize())

    def run(factors, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(qat, "cosine", lambda share: factors[int(share * len(factors))])
            return qat.fit(model, data, Qat(epochs=len(factors), batch=200, lr=1e-3), **options)

    return model, run


def light_training(data):
    model = SimpleMLP.for_data(PhotonicPerceptron(hidden=(16,)), data, 1)

    def run(factors, **options):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        settings = published("digits", "sinusoid")
        schedule = lambda share: factors[int(share * len(factors))]  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(light, "optimize", partial(train.optimize, schedule=schedule))
            return light.descend(model, data, settings, optimizer, len(factors), "train", **options)

    return model, run


def non_negative_training(data):
    model = transform(SimpleMLP.for_data(PhotonicPerceptron(hidden=(16,)), data, 1)).float()

    def run(factors, **options):
        optimizer = light.non_negative_optimizer(model, published("digits", "sinusoid", "scratch", "csgd"))
        schedule = lambda share: factors[int(share * len(factors))]  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(light, "optimize", partial(train.optimize, schedule=schedule))
            settings = published("digits", "sinusoid", "scratch", "csgd")
            return light.descend(model, data, settings, optimizer, len(factors), "train", **options)

    return model, run


TRAININGS = [float_training, integer_training, light_training, non_negative_training]


@pytest.mark.parametrize("training", TRAININGS)
def test_the_best_epoch_on_validation_images_is_kept(data, training):
    """Two epochs that learn, then one with a rate that ruins everything: the last must not be what is left."""
    model, run = training(data)
    start, value = train.accuracy(model, data.val), state(model)
    history = run([1, 1, 1e4])
    scores = [(history.start, 0), *((epoch.accuracy, k) for k, epoch in enumerate(history, 1))]
    best = max(score for score, _ in scores)
    assert history.start == start
    assert history[2].accuracy < best == history.accuracy == train.accuracy(model, data.val)
    assert (best, history.kept) in scores
    assert same(state(model), value) == (history.kept == 0)


@pytest.mark.parametrize("training", TRAININGS)
def test_what_a_training_began_with_is_kept_where_no_epoch_does_better(data, training):
    model, run = training(data)
    run([1] * 6)  # something that can be ruined
    before = state(model)
    history = run([1e4, 1e4])
    assert history.kept == 0
    assert max(epoch.accuracy for epoch in history) < history.start == history.accuracy
    assert same(state(model), before)


def test_of_equal_accuracies_the_smaller_loss_is_kept(data):
    few = Split(data.val.images[:12], data.val.labels[:12])  # so that many epochs have the same accuracy
    data = replace(data, val=few)
    model = network(data)
    history = train.fit(model, data, TRAIN.model_copy(update={"epochs": 30}))
    best = max(epoch.accuracy for epoch in history)
    losses = {k: epoch.validation_loss for k, epoch in enumerate(history, 1) if epoch.accuracy == best}
    assert len(losses) > 2
    assert history.kept == min(losses, key=losses.get)
    logits = torch.from_numpy(train.predict(model, few.images))
    found = torch.nn.functional.cross_entropy(logits, torch.from_numpy(few.labels.copy()))
    assert float(found) == losses[history.kept]


def test_an_interruption_after_the_best_epoch_loses_nothing(data, tmp_path):
    factors = [1, 1e4, 1e4]
    whole, run = float_training(data)
    full = run(factors)
    assert full.kept == 1
    stopped, run = float_training(data)
    with pytest.raises(Interrupted):
        run(factors, checkpoint=tmp_path / "c", progress=interrupt_in(3))
    resumed, run = float_training(data)
    history = run(factors, checkpoint=tmp_path / "c")
    assert (history.kept, history.start) == (full.kept, full.start)
    assert same(state(whole), state(resumed))


def test_without_validation_images_a_training_is_refused(data):
    none = replace(data, val=Split(data.val.images[:0], data.val.labels[:0]))
    with pytest.raises(BittrueError, match="train: the data set digits has no validation images.*give some of the"):
        train.fit(network(data), none, TRAIN)


@pytest.mark.parametrize("nonlinearity", ["relu", "lerp_psa"])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_interrupted_training_ends_with_the_same_weights(data, tmp_path, nonlinearity, epoch):
    whole = network(data, nonlinearity=nonlinearity)
    full = train.fit(whole, data, TRAIN)
    path = tmp_path / "float.ckpt"
    with pytest.raises(Interrupted):
        train.fit(network(data, nonlinearity=nonlinearity), data, TRAIN, checkpoint=path, progress=interrupt_in(epoch))
    assert path.exists() == (epoch > 1)
    resumed = network(data, nonlinearity=nonlinearity)
    history = train.fit(resumed, data, TRAIN, checkpoint=path)
    assert same(state(whole), state(resumed))
    assert [(e.loss, e.accuracy) for e in history] == [(e.loss, e.accuracy) for e in full]
    again = network(data, nonlinearity=nonlinearity)
    assert train.fit(again, data, TRAIN, checkpoint=path) == history  # nothing left to do
    assert same(state(whole), state(again))


@pytest.mark.parametrize("learn_scales", [False, True])
def test_an_interrupted_qat_ends_with_the_same_integers(data, tmp_path, learn_scales):
    settings = Qat(epochs=2, batch=200, learn_scales=learn_scales)
    float_model = network(data)
    train.fit(float_model, data, TRAIN)
    whole, stopped, resumed = (post_training(float_model, data, Quantize()) for _ in range(3))
    start = state(whole)
    qat.fit(whole, data, settings)
    path = tmp_path / "qat.ckpt"
    with pytest.raises(Interrupted):
        qat.fit(stopped, data, settings, checkpoint=path, progress=interrupt_in(2))
    qat.fit(resumed, data, settings, checkpoint=path)
    assert same(state(whole), state(resumed))
    moved = {name for name, tensor in state(whole).items() if not torch.equal(tensor, start[name])}
    assert any(name.endswith("knots") for name in moved)
    assert any(name.endswith("log") for name in moved) == learn_scales
    assert "inputs.0.target.log" not in moved


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    path = tmp_path / "float.ckpt"
    short = TRAIN.model_copy(update={"epochs": 1})
    train.fit(network(data), data, short, checkpoint=path)
    with pytest.raises(BittrueError, match=r"float.ckpt: it was left by a run with other settings; delete it"):
        train.fit(network(data), data, TRAIN, checkpoint=path)
    with pytest.raises(BittrueError, match="other initial parameters"):
        train.fit(network(data, seed=2), data, short, checkpoint=path)


def test_damaged_and_foreign_files_are_refused_and_no_pickle_is_run(data, tmp_path):
    path = tmp_path / "float.ckpt"
    short = TRAIN.model_copy(update={"epochs": 1})
    train.fit(network(data), data, short, checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BittrueError, match=r"float.ckpt: damaged or not written by bittrue"):
        train.fit(network(data), data, short, checkpoint=path)
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(BittrueError, match="damaged or not written by bittrue"):
        train.fit(network(data), data, short, checkpoint=path)
    storage.save(network(data), path)
    with pytest.raises(BittrueError, match="not a bittrue checkpoint file"):
        train.fit(network(data), data, short, checkpoint=path)
    with pytest.raises(BittrueError, match="it is a ResMLP, expected Mlp"):
        storage.load(path, Mlp)
    with pytest.raises(BittrueError, match="cannot be read"):
        storage.load(tmp_path / "absent.pt", ResMLP)


def test_a_checkpoint_is_written_whole_or_not_at_all(data, tmp_path, monkeypatch):
    path = tmp_path / "float.ckpt"
    train.fit(network(data), data, TRAIN.model_copy(update={"epochs": 1}), checkpoint=path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(BittrueError, match="disk full"):
        storage.save(network(data), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["float.ckpt"]


def test_networks_come_back_from_their_files(data, tmp_path):
    model = network(data, nonlinearity="psa")
    train.fit(model, data, TRAIN.model_copy(update={"epochs": 1}))
    back = storage.load(storage.save(model, tmp_path / "model.pt"), ResMLP)
    assert same(state(model), state(back))
    images = data.test.images[:50]
    assert np.array_equal(train.predict(model, images), train.predict(back, images))


def test_an_integer_network_comes_back_from_what_it_was_made_of_and_its_state(data, tmp_path):
    model, settings = network(data, nonlinearity="psa"), Quantize(bits=6, segments=16)
    train.fit(model, data, TRAIN.model_copy(update={"epochs": 1}))
    integer = post_training(model, data, settings)
    qat.fit(integer, data, Qat(epochs=1, batch=200, learn_scales=True))
    torch.save(integer.state_dict(), tmp_path / "state.pt")
    back = post_training(model, data, settings)
    assert not same(state(integer), state(back))
    back.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert same(state(integer), state(back))
    images = data.test.images[:50]
    assert np.array_equal(train.predict(integer, images), train.predict(back, images))


def test_a_diverging_training_says_so(data):
    with pytest.raises(BittrueError, match="diverged; use a smaller learning rate"):
        train.fit(network(data, nonlinearity="relu"), data, Train(epochs=5, batch=400, lr=1e30))


def test_a_gpu_gives_the_same_integers():
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    data = load("digits")
    model = network(data)
    train.fit(model, data, TRAIN, device="cuda")
    integer = post_training(model, data, Quantize())
    qat.fit(integer, data, Qat(epochs=1, batch=200), device="cuda")
    on_cpu = train.predict(integer, data.test.images)
    on_gpu = train.predict(integer.to("cuda"), data.test.images)
    assert np.array_equal(on_cpu, on_gpu)


@pytest.mark.parametrize(
    ("settings", "values", "says"),
    [
        (ResMLPSettings, {"patches": 2}, "patches"),
        (ResMLPSettings, {"nonlinearity": "gelu"}, "lerp_psa"),
        (Train, {"epochs": 0}, "epochs"),
        (Train, {"lr": float("nan")}, "lr"),
        (Quantize, {"segments": 48}, "power of two"),
        (Quantize, {"bits": 9}, "bits"),
        (Quantize, {"percentiles": ()}, "at least one"),
        (Quantize, {"percentiles": (101,)}, "percentiles"),
        (Qat, {"learn_scale": True}, "learn_scale"),
    ],
)
def test_settings_name_what_is_wrong(settings, values, says):
    with pytest.raises(ValidationError, match=says):
        settings(**values)


def test_a_patch_that_does_not_tile_is_refused(data):
    with pytest.raises(BittrueError, match="patch 3 does not tile images of 8 x 8"):
        network(data, patch=3)
