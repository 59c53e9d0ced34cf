"""Training of generators: each published rule, restarts, fine-tuning."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bittrue.models.data.sets import load
from bittrue.models.nern import evaluate, losses, original, train
from bittrue.models.nern.batches import Batches
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.optimisers import Ranger, clip, optimiser, rate
from bittrue.models.nern.settings import Original
from bittrue.models.nern.target import Target
from bittrue.models.networks.convolution import Convolution
from bittrue.models.networks.settings import ConvolutionSettings
from bittrue.models.training import storage
from bittrue.models.training.loop import accuracy
from bittrue.sim.errors import BittrueError
from tests.helpers.generated import Small, few, generate, nern, optim, resnet, small_target, target


@pytest.fixture(scope="module")
def data():
    return few()


def begun(of: Target, settings=None, seed: int = 1) -> Generator:
    return Generator.for_target(settings or nern(), of, seed=seed)


def state(generator: Generator) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in generator.state_dict().values()]


def same(a: list, b: list) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# -- losses ----------------------------------------------------------------------------------------------
def test_the_published_check_of_distillation():
    made, original = torch.tensor([[2.0, 0, -1]]), torch.tensor([[1.0, 1, 0]])
    assert losses.DISTILLATION["StableKLDivLoss"](made, original).item() == pytest.approx(0.462425, abs=1e-6)


def test_distillation_by_its_equation():
    rng = np.random.default_rng(0)
    made, original = rng.standard_normal((2, 4, 5)) * 3

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    p, q, warm = softmax(original), softmax(made), [softmax(x / 2) for x in (original, made)]
    expected = {
        "KLDivLoss": (p * np.log(p / q)).sum() / 4,
        "StableKLDivLoss": (p * np.log(p / (q + 1e-4))).sum() / 4,
        "MultiStableKLDivLoss": ((p + 1e-4) * np.log((p + 1e-4) / (q + 1e-4))).sum() / 4,
        "TempStableKLDivLoss": 4 * (warm[0] * np.log(warm[0] / (warm[1] + 1e-4))).sum() / 4,
    }
    assert expected.keys() == losses.DISTILLATION.keys()
    for name, value in expected.items():
        found = losses.DISTILLATION[name](torch.from_numpy(made), torch.from_numpy(original))
        assert found.item() == pytest.approx(value, rel=1e-9)


def test_attention_by_its_equation():
    """Two maps of three samples, the second counted twice."""
    rng = np.random.default_rng(1)
    maps = [(rng.standard_normal((3, c, 4, 4)), rng.standard_normal((3, c, 4, 4)), n) for c, n in ((2, 1), (5, 2))]

    def over(loss):
        return sum(times * loss(b.reshape(3, -1), a.reshape(3, -1)) for b, a, times in maps)

    def rows(x):
        return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-3)

    expected = {
        "L2BatchedAttentionLoss": over(lambda b, a: ((rows(a) - rows(b)) ** 2).sum()) / 3,
        "L2AttentionLoss": over(lambda b, a: ((a / np.linalg.norm(a) - b / (np.linalg.norm(b) + 1e-3)) ** 2).sum()),
        "SPAttentionLoss": over(lambda b, a: ((rows(a @ a.T) - rows(b @ b.T)) ** 2).sum()) / 9,
    }
    assert expected.keys() == losses.ATTENTION.keys()
    made, of = ([(torch.from_numpy(m[k]), m[2]) for m in maps] for k in (0, 1))
    for name, value in expected.items():
        assert losses.ATTENTION[name](made, of).item() == pytest.approx(value, rel=1e-9)


def test_reconstruction_by_its_equation():
    rng = np.random.default_rng(2)
    pairs = [(rng.standard_normal(shape), rng.standard_normal(shape)) for shape in ((2, 3, 3, 3), (4, 1, 1, 1))]
    made, of = ([torch.from_numpy(pair[k]) for pair in pairs] for k in (0, 1))
    squares = [((a - b) ** 2) for a, b in pairs]
    whole = np.concatenate([s.ravel() for s in squares])
    assert losses.RECONSTRUCTION["L2Loss"](made, of).item() == pytest.approx(math.sqrt(whole.mean()))
    assert losses.RECONSTRUCTION["MSELoss"](made, of).item() == pytest.approx(np.mean([s.mean() for s in squares]))
    same = [one.clone().requires_grad_() for one in of]
    losses.l2(same, of).backward()
    assert all(torch.isfinite(one.grad).all() for one in same)  # where nothing is left to be learned, too


def test_smoothness_by_its_equation():
    rng = np.random.default_rng(3)
    wide, point = rng.standard_normal((3, 2, 3, 3)), rng.standard_normal((2, 3, 1, 1))

    def cos(a, b):
        return (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)

    def far(a, b, length=None):
        return np.linalg.norm(a / (length or np.linalg.norm(a)) - b)

    pairs = [(wide[f, 0], wide[f, 1]) for f in range(3)] + [
        (wide[f, c], wide[f + 1, c]) for f in (0, 1) for c in (0, 1)
    ]
    points = [(point[f, c], point[f, c + 1]) for f in (0, 1) for c in (0, 1)]
    points += [(point[0, c], point[1, c]) for c in range(3)]
    distance = sum(far(*pair, np.linalg.norm(point)) for pair in points)
    given = [torch.from_numpy(wide), torch.from_numpy(point)]
    assert losses.cosine_smoothness(given).item() == pytest.approx(sum(cos(*pair) for pair in pairs) - distance)
    assert losses.l2_smoothness(given).item() == pytest.approx(sum(far(*pair) for pair in pairs) + distance)


# -- which kernels are learned from ----------------------------------------------------------------------
def drawn(method: str, steps: int, size: int | None = 100, of: Target | None = None):
    batches = Batches(nern(weights_batch_method=method, weights_batch_size=size), of or target())
    torch.manual_seed(3)
    return [batches.next() for _ in range(steps)]


def test_batches_of_layers():
    of, starts = target(), target().starts
    assert drawn("all", 2) == [None, None]
    layers = [(int(b[0]), len(b)) for b in drawn("sequential_layer", 8)]
    assert layers == [(starts[k], of.layers[k].kernels) for k in (1, 2, 3, 4, 5, 6, 0, 1)]
    found = {int(b[0]) for b in drawn("random_layer", 60)}
    assert found == set(starts[:-1])


def test_random_batches():
    for batch in drawn("random_batch", 4):
        assert len(set(batch.tolist())) == 100
    assert len(drawn("random_batch", 1, None)[0]) == len(drawn("random_batch", 1, 10_000)[0]) == 8_208
    every = drawn("random_batch_without_replacement", 84)
    first = torch.cat(every[:83])
    assert sorted(first.tolist()) == list(range(8_208))  # 82 of 100, and the 8 that are left
    assert [len(b) for b in every[80:]] == [100, 100, 8, 100]


def test_weighted_batches_are_a_fifth_and_draw_by_length():
    of = Target(Small(), keep=("large",))
    with torch.no_grad():
        of.network.first.weight.mul_(0)
        of.network.first.weight[2] = 50
    batches = drawn("random_weighted_batch", 400, 20, of)
    weighted = [b for b in batches if len(set(b.tolist())) < 20]
    assert 0.12 < len(weighted) / 400 < 0.28
    counts = torch.bincount(torch.cat(weighted), minlength=of.kernels) / (20 * len(weighted))
    torch.testing.assert_close(counts, of.norms() / of.norms().sum(), atol=0.02, rtol=0)
    assert not counts[[0, 1, 3]].any()


def test_only_the_batch_has_a_gradient(data):
    """All kernels are generated, and the loss is of all; of one that is there twice it counts twice, as published."""
    of = target()
    generator = begun(of, nern(weights_batch_method="random_batch"))
    run = train._Run(generator, of, data, optim(), generate(), False, "cpu")
    which = torch.tensor([3, 8_000, 3])
    made = run._generated(which)
    torch.testing.assert_close(made, generator.kernels())
    weights = torch.randn_like(made)
    (made * weights).sum().backward()
    found = generator.final.bias.grad.clone()
    torch.testing.assert_close(found, 2 * weights[3] + weights[8_000])


def test_the_loss_of_the_batch_alone(data):
    of = Target(Small(), keep=("large",))
    of.network.encode = lambda images: images.copy()
    for kind in ("L2Loss", "MSELoss"):
        generator = begun(of, nern(sampling_mode="max", reconstruction_loss_type=kind))
        run = train._Run(generator, of, data, optim(), generate(), False, "cpu")
        which = torch.tensor([1, 5, 9, 31])
        parts = zip(of.split(generator.kernels(), "max"), of.weights(), strict=True)
        first, depthwise, point = ((a - b).detach().flatten(0, 1).flatten(1) ** 2 for a, b in parts)
        mean = torch.cat([first[1], depthwise[1], point[1], point[23]]).mean()
        torch.testing.assert_close(run._of_batch(which), mean.sqrt() if kind == "L2Loss" else mean)


# -- optimisers ------------------------------------------------------------------------------------------
def test_ranger_by_its_equations():
    """RAdam with decoupled decay, momentum alone in the first five steps; every sixth the slow weights follow by half.

    Written out in float64, for a matrix and a vector, with and without centred gradients.
    """
    rng = np.random.default_rng(4)
    for centred in (False, True):
        start, lr, decay = [rng.standard_normal((3, 4)), rng.standard_normal(3)], 0.05, 0.1
        parameters = [nn.Parameter(torch.from_numpy(x.copy())) for x in start]
        optimizer = Ranger(parameters, lr, centred, betas=(0.5, 0.999), weight_decay=decay)
        p, slow = [x.copy() for x in start], [x.copy() for x in start]
        m, v = ([np.zeros_like(x) for x in start] for _ in range(2))
        longest = 2 / (1 - 0.999) - 1
        for t in range(1, 20):
            gradients = [rng.standard_normal(x.shape) for x in start]
            for parameter, g in zip(parameters, gradients, strict=True):
                parameter.grad = torch.from_numpy(g.copy())
            optimizer.step()
            n = longest - 2 * t * 0.999**t / (1 - 0.999**t)
            for k, g in enumerate(gradients):
                g = g - g.mean(1, keepdims=True) if centred and g.ndim > 1 else g
                m[k], v[k] = 0.5 * m[k] + 0.5 * g, 0.999 * v[k] + 0.001 * g * g
                p[k] = p[k] - lr * decay * p[k]
                if n > 5:
                    r = (n - 4) / (longest - 4) * (n - 2) / n * longest / (longest - 2)
                    size = math.sqrt((1 - 0.999**t) * r) / (1 - 0.5**t)
                    p[k] = p[k] - lr * size * m[k] / (np.sqrt(v[k]) + 1e-5)
                else:
                    p[k] = p[k] - lr / (1 - 0.5**t) * m[k]
                if t % 6 == 0:
                    slow[k] = slow[k] + 0.5 * (p[k] - slow[k])
                    p[k] = slow[k].copy()
                assert parameters[k].detach().numpy() == pytest.approx(p[k], rel=1e-6, abs=1e-9)
        again = Ranger([nn.Parameter(q.detach().clone()) for q in parameters], lr, centred, betas=(0.5, 0.999))
        again.load_state_dict(optimizer.state_dict())
        assert torch.equal(
            again.state[again.param_groups[0]["params"][1]]["slow"], optimizer.state[parameters[1]]["slow"]
        )


def test_the_other_optimisers():
    p = [nn.Parameter(torch.ones(2))]
    sgd, adamw, adadelta = (optimiser(p, optim(optimizer_type=name)) for name in ("sgd", "adamw", "adadelta"))
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.9, 1e-3)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.5, 0.999)
    assert isinstance(adadelta, torch.optim.Adadelta)
    assert isinstance(optimiser(p, optim()), Ranger)
    assert not optimiser(p, optim()).centred
    assert optimiser(p, optim(ranger_use_gc=True)).centred
    optimiser(p, optim(optimizer_type="sgd", momentum=0.0))  # torch takes no Nesterov without momentum


def test_schedules_as_published():
    """Against torch's own, stepped as published: behind every `step_interval`th step while above the least rate."""
    p = [nn.Parameter(torch.ones(1))]
    for settings in (
        optim(min_lr=1e-4),
        optim(lr_scheduler_type="exponential", min_lr=1e-4),
        optim(lr_scheduler_type="exponential", min_lr=1e-4, gamma=0.8, step_interval=3),
        optim(lr_scheduler_type="exponential", min_lr=1e-4, step_interval=0),
    ):
        steps, optimizer = 250, torch.optim.SGD(p, settings.lr)
        interval = settings.step_interval or steps // 100
        if settings.lr_scheduler_type == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, settings.min_lr)
        else:
            gamma = settings.gamma or (settings.min_lr / settings.lr) ** (interval / steps)
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
        for step in range(steps):
            assert rate(settings, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
            optimizer.step()
            if step % interval == 0 and settings.min_lr < schedule.get_last_lr()[-1]:
                schedule.step()


def test_gradients_are_cut_parameter_by_parameter():
    p = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    p[0].grad, p[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    clip(p, optim(max_gradient_norm=1.0))
    assert p[0].grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-4)
    assert p[1].grad.tolist() == pytest.approx([0.3, 0.4])
    clip(p, optim(max_gradient=0.35))
    assert p[0].grad.tolist() == pytest.approx([0.35, 0.35])
    assert p[1].grad.tolist() == pytest.approx([0.3, 0.35])


# -- the whole -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained():
    """A plain network of two convolutions that knows the digits."""
    data = load("digits")
    model = Convolution.for_data(ConvolutionSettings(kind="plain", widths=(8, 8)), data, 1)
    original.fit(model, data, Original(epochs=6, batch=64, lr=1e-2, seed=1))
    return Target(model), data


def test_a_generator_learns_a_network(trained):
    """Reconstruction alone, then distillation."""
    of, data = trained
    assert accuracy(of.network, data.test) > 0.85
    assert of.kernels == 8 + 64
    weights = {"attention_loss_weight": 1e-3, "distillation_loss_weight": 1e-1}
    shared = weights | {"hidden_layer_size": 64, "distillation_loss_type": "StableKLDivLoss"}
    length = {"epochs": None, "num_iterations": 240, "loss_warmup_iterations": 160, "warmup_on_batch": True}
    told: dict[int, dict[str, float]] = {}
    settings = nern("crossfilter", **shared, weights_batch_method="random_weighted_batch", weights_batch_size=48)
    generator = evaluate.begin(settings, of, seed=1)
    before = evaluate.rms(of, generator)
    run = generate(**length, eval_epochs_interval=None, batch_size=64)
    done = train.fit(generator, of, data, optim(optimizer_type="adamw"), run, log=told.__setitem__)
    assert done.accuracy == pytest.approx(evaluate.accuracy(of, generator, data.val))
    assert not generator.training
    assert evaluate.accuracy(of, generator, data.test) > 0.7 > 0.3 > done.history.start
    assert evaluate.rms(of, generator) < 0.5 * before
    warm, cold = told[141], told[201]
    assert (warm["attention_loss"], warm["distillation_loss"]) == (0, 0)
    terms = 1e-3 * cold["attention_loss"] + 1e-1 * cold["distillation_loss"]
    assert cold["loss"] == pytest.approx(cold["reconstruction_loss"] + terms, rel=1e-5)
    assert cold["distillation_loss"] > 0
    errors = evaluate.errors(of, generator)
    assert [e.path for e in errors] == [layer.path for layer in of.layers]
    assert all(0 < e.differences < e.weights for e in errors)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("method", ["random_batch_without_replacement", "random_weighted_batch"])
def test_a_training_goes_on_where_it_was_interrupted(data, tmp_path, method):
    settings = nern(weights_batch_method=method, attention_loss_weight=1e-3)
    length = generate(
        epochs=3, loss_warmup_iterations=2, eval_loss_window_size=2, eval_loss_window_interval=1, augment="flip-shift"
    )

    def interrupt(report):
        if (report.epoch, report.step) == (3, 2):
            raise Interrupted

    of, place = small_target(), tmp_path / "checkpoint.pt"
    whole, parted, again = (begun(of, settings) for _ in range(3))
    before = torch.random.get_rng_state()
    expected = train.fit(whole, of, data, optim(), length)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(Interrupted):
        train.fit(parted, of, data, optim(), length, checkpoint=place, progress=interrupt)
    done = train.fit(again, of, data, optim(), length, checkpoint=place)
    assert same(state(whole), state(again))
    assert (done.step, done.accuracy, done.greedy) == (expected.step, expected.accuracy, expected.greedy)
    assert [e.loss for e in done.history] == [e.loss for e in expected.history]
    assert expected.greedy > 0
    with pytest.raises(BittrueError, match="left by a run with other settings; delete it to start anew, or give back"):
        train.fit(begun(of, settings), of, data, optim(lr=0.1), length, checkpoint=place)
    with pytest.raises(BittrueError, match="left by a run with other initial parameters"):
        train.fit(begun(of, settings, 2), of, data, optim(), length, checkpoint=place)
    content = storage.read(place, "checkpoint")
    storage.write(place, "checkpoint", {k: v for k, v in content.items() if k not in ("bittrue", "version", "window")})
    with pytest.raises(BittrueError, match=r"it does not fit \('window'\); delete it to start anew"):
        train.fit(begun(of, settings), of, data, optim(), length, checkpoint=place)


def test_when_it_is_evaluated_and_what_is_kept(data, monkeypatch, tmp_path):
    """After epochs, after steps, at the end, and greedily where a loss is the least of a full window."""
    of, rights, seen = small_target(), iter([0.1, 0.3, 0.2, 0.5, 0.5, 0.4]), []

    def judge(_, generator, __):
        seen.append(state(generator))
        return next(rights)

    monkeypatch.setattr(train, "accuracy", judge)
    generator = begun(of)
    intervals = {"eval_iterations_interval": 4, "eval_epochs_interval": 2}
    intervals |= {"save_epochs_interval": 1, "save_iterations_interval": 5}
    length = generate(epochs=None, num_iterations=8, **intervals)
    done = train.fit(generator, of, data, optim(), length, folder=tmp_path)
    # at first, after step 4, after epoch 2 (step 6), after step 8, at the end of all
    assert len(seen) == 5
    assert (done.history.start, done.accuracy, done.step, done.history.kept) == (0.1, 0.5, 8, 3)
    assert [e.accuracy for e in done.history] == [0.1, 0.2, 0.5]
    assert same(state(generator), seen[3])
    names = ["generator-epoch-1.pt", "generator-epoch-2.pt", "generator-epoch-3.pt", "generator-step-5.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_greedy_evaluations(data, monkeypatch):
    of, values, steps = small_target(), iter([5.0, 4.0, 6.0, 3.0, 3.5, 3.0]), []
    zero = torch.zeros((), requires_grad=True)
    monkeypatch.setattr(train._Run, "_compared", lambda *_: (zero + next(values), zero * 0))
    monkeypatch.setattr(
        train._Run,
        "_evaluate",
        lambda self, _: steps.append(self.done) or self.best.update(state=self.generator.state_dict()),
    )
    window = {"eval_loss_window_size": 3, "eval_loss_window_interval": 2}
    length = generate(epochs=None, num_iterations=12, eval_epochs_interval=None, **window)
    values = iter([value for value in (5.0, 4.0, 6.0, 3.0, 3.5, 3.0) for _ in (0, 1)])
    done = train.fit(begun(of), of, data, optim(), length)
    # samples at steps 0, 2, 4, ..; the window of 3 is full from 4 on; 3.0 is the least at 6, and as small at 10
    assert steps == [6, 10, 12]
    assert done.greedy == 2


def test_data_free(data, monkeypatch):
    """Values from -2 to 2 instead of images; a step whose loss is not a number is left out."""
    of, seen = small_target(), []
    forward = Target.run

    def watch(self, weights, codes, others=None):
        seen.append(codes)
        return forward(self, weights, codes, others)

    monkeypatch.setattr(Target, "run", watch)
    train.fit(begun(of), of, data, optim(), generate(epochs=1, use_random_data=True))
    values = torch.cat([codes.flatten() / 128 for codes in seen if codes.dtype.is_floating_point])
    assert values.numel() == 96 * 64
    assert (-2 <= values).all()
    assert (values < 2).all()
    assert values.mean().abs() < 0.1
    assert values.std() == pytest.approx(4 / math.sqrt(12), rel=0.05)
    kd = train.losses.DISTILLATION["KLDivLoss"]
    calls = iter([math.nan, 1.0, 1.0])
    monkeypatch.setitem(train.losses.DISTILLATION, "KLDivLoss", lambda *at: kd(*at) * next(calls))
    done = train.fit(begun(of), of, data, optim(), generate(epochs=1), random_data=True)
    assert math.isfinite(done.history[0].loss)
    monkeypatch.setitem(train.losses.DISTILLATION, "KLDivLoss", lambda *at: kd(*at) * math.nan)
    with pytest.raises(
        BittrueError, match="no step of epoch 1 had a loss that is a number; use a smaller learning rate"
    ):
        train.fit(begun(of), of, data, optim(), generate(epochs=1), random_data=True)
    with pytest.raises(
        BittrueError, match="the loss is nan in step 1, so the training diverged; use a smaller learning"
    ):
        train.fit(begun(of), of, data, optim(), generate(epochs=1))


def test_a_classifier_of_its_own(data):
    of, settings = small_target(), nern(reconstruction_loss_weight=0.0, distillation_loss_weight=1.0)
    generator = evaluate.begin(settings, of, seed=1, learn_classifier=True)
    before = of.network.classifier.weight.clone()
    assert torch.equal(generator.classifier_weight, before)
    train.fit(generator, of, data, optim(optimizer_type="adamw"), generate(learn_fc_layer=True))
    assert torch.equal(of.network.classifier.weight, before)
    assert not torch.equal(generator.classifier_weight, before)
    logits = evaluate.predict(of, generator, data.test.images)
    generator.classifier_weight.data.mul_(0)
    bias = np.broadcast_to(of.network.classifier.bias.detach().numpy(), (64, 10))
    assert evaluate.predict(of, generator, data.test.images) == pytest.approx(bias)
    assert not np.allclose(logits, bias)
    with pytest.raises(BittrueError, match="learn_fc_layer: the target has no linear layer; leave the key out"):
        Generator.for_target(nern(), Target(nn.Sequential(nn.Conv2d(1, 2, 3))), learn_classifier=True)


def test_fine_tuning_from_a_file(data, tmp_path):
    of, path = small_target(), tmp_path / "generator.pt"
    first = evaluate.begin(nern("infilter"), of, seed=1)
    train.fit(first, of, data, optim(), generate(epochs=1))
    storage.save(first, path)
    settings = nern("infilter", init="checkpoint", checkpoint_path=path, distillation_loss_weight=0.5)
    again = evaluate.begin(settings, of, seed=7)
    assert same(state(first), state(again))
    assert again.settings.distillation_loss_weight == 0.5
    assert again.settings.checkpoint_path is None
    train.fit(again, of, data, optim(optimizer_type="adamw"), generate(epochs=1))
    for changes, sentence in (
        ({"hidden_layer_size": 13}, "nern.hidden_layer_size is 12 there and 13 here; give back what it was made with"),
        ({"act_layer": "elu"}, "nern.act_layer is relu there and elu here"),
        ({"embeddings": nern("crossfilter").embeddings}, "permute_mode is infilter there and crossfilter here"),
        (
            {"embeddings": nern(None).embeddings.model_copy(update={"base": 0.8})},
            "nern.embeddings.base is 0.76 there and 0.8",
        ),
    ):
        with pytest.raises(BittrueError, match=sentence):
            evaluate.begin(settings.model_copy(update=changes), of, seed=1)
    with pytest.raises(BittrueError, match=f"generator {path}: it was trained for another original of the same layers"):
        evaluate.begin(settings, small_target(3), seed=1)
    with pytest.raises(
        BittrueError, match="it has no classifier of its own, and learn_fc_layer is true; let both agree"
    ):
        evaluate.begin(settings, of, seed=1, learn_classifier=True)


def test_a_smooth_original(trained):
    """Kernels beside each other are drawn together; of the loss on validation images it is no part."""
    _, data = trained
    kinds = {}
    for kind, factor in (("none", 0.0), ("Cosine", 1e-3), ("L2", 1e-3)):
        model = resnet(stem_stride=2)
        history = original.fit(
            model, data, Original(epochs=1, batch=64, lr=4e-3, smoothness=kind, smoothness_factor=factor)
        )
        weights = Target(model).weights()
        kinds[kind] = (losses.cosine_smoothness(weights).item(), losses.l2_smoothness(weights).item(), history)
    assert kinds["Cosine"][0] > kinds["none"][0] + 500
    assert kinds["L2"][1] < kinds["none"][1] - 100
    assert all(0 < history[0].validation_loss < 5 for _, _, history in kinds.values())


def test_data_without_images(data):
    from bittrue.models.data.sets import Data

    empty = Data("none", data.classes, data.train, type(data.val)(data.val.images[:0], data.val.labels[:0]), data.test)
    with pytest.raises(BittrueError, match="has 96 training and 0 validation images; give some of both"):
        train.fit(begun(small_target()), small_target(), empty, optim(), generate())
