"""Training of networks that take several images in one pass: each published rule, restarts, the guard."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bittrue.models.data.sets import Data, Split, load
from bittrue.models.superposition import evaluate
from bittrue.models.superposition import train as training
from bittrue.models.superposition.networks import Superposition
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError
from tests.helpers.superposition import STEPS, network, same, settings, state
from tests.helpers.superposition import few as make_few


@pytest.fixture(scope="module")
def few():
    return make_few()


@pytest.fixture
def watched(monkeypatch):
    """What goes into the network in training: for each update the codes, and the images of a pass."""
    seen = []
    forward = Superposition.forward

    def watch(self, codes):
        if self.training:
            seen.append((codes.clone(), self.at_a_time))
        return forward(self, codes)

    monkeypatch.setattr(Superposition, "forward", watch)
    return seen


def without_a_task(monkeypatch):
    """The logits do not matter: what is left are penalties and weight decay."""
    monkeypatch.setattr(training, "cross_entropy", lambda logits, _: 0 * logits.sum())


# -- the whole -------------------------------------------------------------------------------------------
def test_it_learns_two_images_in_one_pass():
    data = load("digits")
    model = network(data)
    done = training.fit(model, data, settings(epochs=2, batch=32, lr=0.1, low=1, frequency=0.8))
    modes = evaluate.validate(model, data.test, (1, 2), 2)
    assert modes[0].mean > 0.85
    assert modes[1].mean > 0.75
    assert [one.accuracy for one in done.history] == [f["Accuracy/validation_at_capacity"] for f in done.figures]
    assert done.history.kept == len(done.history) == 2
    assert done.history.start < 0.4 < done.history[-1].accuracy
    assert done.figures[-1]["Accuracy/validation_at_sup_low"] > 0.75
    assert done.history[-1].loss < done.history[0].loss / 2
    assert model.at_a_time == 2
    assert not model.training


HARD = {"epochs": 3, "mixup": 1.0, "augment": "flip-reflect", "low": 1, "frequency": 0.5, "isometry_every": 4}


def test_the_seed_and_nothing_else_decides(few):
    before = torch.random.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        model = network(few)
        training.fit(model, few, settings(**HARD | {"seed": seed, "epochs": 1}))
        found.append(state(model))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_training_goes_on_where_it_was_interrupted(few, tmp_path, epoch):
    def interrupt(report):
        if (report.epoch, report.step) == (epoch, 4):
            raise Interrupted

    whole, parted, place = network(few), network(few), tmp_path / "checkpoint.pt"
    expected = training.fit(whole, few, settings(**HARD))
    with pytest.raises(Interrupted):
        training.fit(parted, few, settings(**HARD), checkpoint=place, progress=interrupt)
    parted, logged = network(few), []
    done = training.fit(parted, few, settings(**HARD), checkpoint=place, log=lambda *told: logged.append(told))
    assert same(state(whole), state(parted))
    assert done.figures == expected.figures
    assert [one.accuracy for one in done.history] == [one.accuracy for one in expected.history]
    assert logged == list(enumerate(expected.figures, 1))


def test_a_checkpoint_of_another_training(few, tmp_path):
    place = tmp_path / "checkpoint.pt"
    training.fit(network(few), few, settings(epochs=1), checkpoint=place)
    sentence = (
        f"checkpoint {place}: its network differs from this one: width is 1 there and 2 here, slots is 2 there and 4"
    )
    with pytest.raises(BittrueError, match=f"{sentence} here; delete it to start anew, or give back the network"):
        training.fit(network(few, width=2, slots=4), few, settings(epochs=1), checkpoint=place)
    with pytest.raises(BittrueError, match="left by a run with other settings; delete it to start anew"):
        training.fit(network(few), few, settings(epochs=1, lr=0.01), checkpoint=place)
    with pytest.raises(BittrueError, match="left by a run with other initial parameters"):
        training.fit(network(few, seed=2), few, settings(epochs=1), checkpoint=place)
    content = storage.read(place, "checkpoint")
    storage.write(place, "checkpoint", {k: v for k, v in content.items() if k not in ("bittrue", "version", "cycle")})
    with pytest.raises(BittrueError, match=r"it does not fit \('cycle'\); delete it"):
        training.fit(network(few), few, settings(epochs=1), checkpoint=place)


def test_a_checkpoint_whose_keys_are_lost(few, tmp_path):
    place = tmp_path / "checkpoint.pt"
    training.fit(network(few), few, settings(epochs=1), checkpoint=place)
    content = storage.read(place, "checkpoint")
    content["model"]["binding.weight"][1, 3] = math.nan
    storage.write(place, "checkpoint", {k: v for k, v in content.items() if k not in ("bittrue", "version")})
    with pytest.raises(BittrueError, match="binding.weight: the key of slot 1 is not finite; take the file of"):
        training.fit(network(few), few, settings(epochs=1), checkpoint=place)


# -- the published rules ---------------------------------------------------------------------------------
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_an_epoch_sees_the_images_once_for_every_slot(few, watched, slots):
    """N batches in one: as many updates whatever N is, each of N times the images."""
    model = network(few, slots=slots)
    training.fit(model, few, settings(epochs=1))
    assert [len(codes) for codes, _ in watched] == [16 * slots] * STEPS
    seen = torch.cat([codes for codes, _ in watched]).flatten(1)
    expected = torch.from_numpy(model.encode(few.train.images)).float().flatten(1).repeat(slots, 1)
    assert sorted(seen.tolist()) == sorted(expected.tolist())
    halves = seen.split(len(few.train))
    assert len({tuple(half.flatten().tolist()) for half in halves}) == slots  # each time in another order


def test_rate_and_momentum_go_through_one_cycle(few):
    seen, lr, total = [], 0.05, 20 * 1
    model = network(few)
    run = training._Run(model, few, settings(epochs=20, batch=96), None)

    def watch(optimizer, *_):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))

    run.optimizer.register_step_pre_hook(watch)
    run.go(None, None, None)
    top = 0.3 * total - 1

    def between(first, last, share):
        return last + (first - last) * (1 + math.cos(math.pi * share)) / 2

    for number, (rate, momentum) in enumerate(seen):
        if number <= top:
            expected = between(lr / 25, lr, number / top), between(0.95, 0.85, number / top)
        else:
            share = (number - top) / (total - 1 - top)
            expected = between(lr, lr / 25e4, share), between(0.85, 0.95, share)
        assert (rate, momentum) == pytest.approx(expected)
    assert len(seen) == total


def test_another_mode_has_its_share_of_the_updates(few, watched):
    done = training.fit(network(few, slots=4), few, settings(epochs=10, batch=48, low=2, frequency=0.75))
    modes = [n for _, n in watched]
    assert set(modes) == {2, 4}
    assert 1 <= modes.count(2) <= 11  # of 20, 5 expected
    assert {len(codes) for codes, _ in watched} == {48 * 4}
    assert "Accuracy/validation_at_sup_low" in done.figures[0]
    watched.clear()
    training.fit(network(few, slots=4), few, settings(epochs=1))
    assert {n for _, n in watched} == {4}


def test_mixup_mixes_images_and_losses_alike(few, watched, monkeypatch):
    """Each image of a batch with another one, all with one share l; the loss is l times that of the labels."""
    calls = []

    def values(logits, labels):
        calls.append(labels.clone())
        return 0 * logits.sum() + len(calls) % 2  # 1 for the labels, 0 for those of the others

    monkeypatch.setattr(training, "cross_entropy", values)
    shares = []
    options = settings(epochs=1, mixup=1.0, isometry_penalty=0.0, key_penalty=0.0)
    run = training._Run(network(few, slots=1), few, options, None)
    run._epoch(0, lambda p: shares.append(p.loss * p.step))
    shares = np.diff([0.0, *shares])
    images = [codes for codes, _ in watched]
    own, swapped = calls[::2], calls[1::2]
    watched.clear()
    calls.clear()
    training._Run(network(few, slots=1), few, settings(epochs=1), None)._epoch(0, None)
    plain = [codes for codes, _ in watched]
    assert torch.equal(torch.cat(own), torch.cat(calls))
    assert np.ptp(shares) > 0.2
    for mixed, batch, share, labels, theirs in zip(images, plain, shares, own, swapped, strict=True):
        assert 0 <= share <= 1
        rest = (mixed - share * batch).flatten(1)
        others = ((1 - share) * batch).flatten(1)
        partners = torch.cdist(rest.double(), others.double()).min(1)
        assert partners.values.max() < 0.05
        assert sorted(partners.indices.tolist()) == list(range(len(batch)))
        assert torch.equal(theirs, labels[partners.indices])


def test_activations_do_not_decay(few, monkeypatch):
    without_a_task(monkeypatch)
    model = network(few)
    before = state(model)
    training.fit(model, few, settings(epochs=1, weight_decay=0.1, isometry_penalty=0.0, key_penalty=0.0))
    after = state(model)
    slopes = [name for name in before if "function" in name and name.endswith("weight")]
    assert len(slopes) == 6
    assert all(torch.equal(before[name], after[name]) for name in slopes)
    for name in ("bulk.0.conv1.weight", "binding.weight", "classifier.weight"):
        assert after[name].norm() < 0.999 * before[name].norm()


def test_penalties_are_trained_for(few, monkeypatch):
    without_a_task(monkeypatch)
    off = {"isometry_penalty": 0.0, "key_penalty": 0.0, "weight_decay": 0.0, "epochs": 3}
    for name in ("isometry_penalty", "key_penalty"):
        model = network(few)
        before = model.isometry_penalty().item(), model.binding.penalty().item()
        training.fit(model, few, settings(**off | {name: {"isometry_penalty": 1e-2, "key_penalty": 1.0}[name]}))
        after = model.isometry_penalty().item(), model.binding.penalty().item()
        changed = [a < 0.9 * b for a, b in zip(after, before, strict=True)]
        assert changed == [name == "isometry_penalty", name == "key_penalty"]


def test_a_penalty_of_every_fourth_update_counts_four_times(few, monkeypatch):
    """The network hardly moves, so that every gradient is that of where it began."""
    without_a_task(monkeypatch)
    seen = []
    for every in (1, 4):
        options = settings(
            epochs=1, key_penalty=0.0, weight_decay=0.0, isometry_penalty=1e-4, isometry_every=every, lr=1e-9
        )
        model = network(few)
        run = training._Run(model, few, options, None)
        gradients = []
        weight = model.bulk[0].conv1.weight
        run.optimizer.register_step_pre_hook(
            lambda *_, gradients=gradients, weight=weight: gradients.append(weight.grad.clone())
        )
        run._epoch(0, None)
        seen.append(gradients)
    assert [bool(g.any()) for g in seen[1]] == [True, False, False, False, True, False]
    torch.testing.assert_close(seen[1][0], 4 * seen[0][0])


@pytest.mark.parametrize(("factor", "finite"), [(math.nan, False), (math.inf, False), (1e5, True)])
def test_the_guard_leaves_an_update_out(few, monkeypatch, factor, finite):
    """The second update of the second epoch has a gradient that is not finite, or that is far too long."""
    real, calls, states, model = training.cross_entropy, [], [], network(few)

    def broken(logits, labels):
        calls.append(None)
        return real(logits, labels) * (factor if len(calls) == STEPS + 2 else 1)

    monkeypatch.setattr(training, "cross_entropy", broken)
    parameters = dict(model.named_parameters())
    done = training.fit(
        model, few, settings(), progress=lambda _: states.append({n: p.detach().clone() for n, p in parameters.items()})
    )
    unchanged = [same(a, b) for a, b in zip(states, states[1:], strict=False)]
    assert [number for number, still in enumerate(unchanged, 1) if still] == [STEPS + 1]
    first, second = done.figures
    assert (first["GradientSkippedFraction"], first["GradientNonfiniteFraction"]) == (0, 0)
    assert second["GradientSkippedFraction"] == pytest.approx(1 / STEPS)
    assert second["GradientNonfiniteFraction"] == (0 if finite else pytest.approx(1 / STEPS))
    assert math.isfinite(second["GradientNorm/Total"])


def test_a_guard_measures_by_the_epoch_before(few):
    """Nothing is too long in the first epoch; afterwards a small factor leaves all out, which is said."""
    with pytest.raises(BittrueError, match=r"no update of epoch 2 had a usable gradient \(0 of 6 were not finite\)"):
        training.fit(network(few), few, settings(guard=1e-3))


def test_a_training_that_diverges_says_so(few, monkeypatch):
    monkeypatch.setattr(training, "cross_entropy", lambda logits, _: logits.sum() * math.nan)
    with pytest.raises(BittrueError, match=r"epoch 1 .* \(6 of 6 were not finite\), .* use a smaller learning rate"):
        training.fit(network(few), few, settings())


def test_a_final_training_takes_the_validation_images(few, watched, monkeypatch):
    judged = []
    monkeypatch.setattr(training, "judge", lambda _, split, *__: judged.append(split) or (0.5, 1.0))
    training.fit(network(few, slots=1), few, settings(epochs=1, batch=8, final=True))
    assert len(watched) == (96 + 40) // 8
    assert all(split is few.test for split in judged)


def test_settings_that_cannot_be(few):
    with pytest.raises(ValidationError, match="frequency below 1 leaves updates to another mode; name it as low"):
        settings(frequency=0.5)
    with pytest.raises(BittrueError, match="low = 3 does not divide the 4 slots; take one that does"):
        training.fit(network(few, slots=4), few, settings(low=3, frequency=0.5))
    empty = Data("empty", few.classes, few.train, Split(few.val.images[:0], few.val.labels[:0]), few.test, few.gain)
    with pytest.raises(BittrueError, match="data set empty has 96 training images and 0 to tell each epoch of"):
        training.fit(network(few), empty, settings())
    assert settings(low=1, frequency=0.8).trained(4) == (1, 4)
    assert settings(low=1).trained(4) == (4,)
    assert settings(low=2, frequency=0.0).trained(4) == (2,)
