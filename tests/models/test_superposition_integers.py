"""Several images in one pass in integers: the converted network is its program bit for bit, in every mode, before and
after it was trained in these integers."""

import numpy as np
import pytest
import torch
from torch import nn

import bittrue
from bittrue.models.graph.lower import record
from bittrue.models.int8.converted import Converted
from bittrue.models.layers.groups import Bundled, Regrouping, Unbundled, circulant
from bittrue.models.superposition import evaluate, integers
from bittrue.models.superposition.networks import Superposition
from bittrue.models.superposition.settings import SuperpositionConvert
from bittrue.models.training import loop
from bittrue.models.training.loop import predict, share
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from tests.helpers.converted import noise
from tests.helpers.superposition import few, network

DATA = few()
CONVERT = SuperpositionConvert()


def settled(**changes) -> Superposition:
    """A network whose normalisations and keys are not what they begin with; 4 x 4 pixels are bound."""
    made = network(DATA, stem_stride=2, **changes)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in made.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
                for values in (layer.weight, layer.bias):
                    values.add_(0.3 * torch.randn(values.shape, generator=generator))
        for name, factor in made.named_parameters():
            if name.endswith(".alpha"):
                factor.fill_(0.5)
        made.train()
        made(torch.from_numpy(made.encode(DATA.train.images[:64])))  # its statistics are those of the data
    return made.eval()


def bundle(program: bittrue.Program):
    (found,) = [node.operation for node in program.nodes if node.operation.stem == "bundle"]
    return found


def held(program: bittrue.Program, n: int) -> dict | None:
    grouping = program.grouping
    return None if grouping is None or grouping.held is None else {grouping.held.name: np.array(n)}


def equal_in_every_mode(network: Converted) -> bittrue.Program:
    """Every tensor of the forward is the program's, and its results are also those of the slow reference; groups that
    are not complete among them."""
    program, rng = network.lower(), np.random.default_rng(4)
    for n in network.modes:
        network.at_a_time = n
        codes = rng.integers(-128, 128, (12, *network.input.shape), dtype=np.int8)
        recorded, traced = record(network, codes), program.trace(codes, held=held(program, n)).tensors
        assert recorded.keys() == traced.keys()
        for name, tensor in traced.items():
            assert np.array_equal(recorded[name], tensor), (n, name)
        for count in (1, 7):
            with torch.no_grad():
                found = network(torch.from_numpy(codes[:count])).numpy()
            assert np.array_equal(found, program(codes[:count], held=held(program, n))), (n, count)
            assert np.array_equal(found, program.reference(codes[:count], held=held(program, n))), (n, count)
    network.at_a_time = network.modes[-1]
    return program


NETWORKS = [
    ({"slots": 2}, None, "shift"),
    ({"slots": 4}, (1, 2, 4), "multiplier"),
    ({"slots": 4, "binding": "MBAT", "kind": "WideISONet"}, (1, 2, 4), "shift"),
    ({"slots": 2, "binding": "None", "skip_init": True}, (1, 2), "shift"),
    ({"slots": 1}, None, "shift"),
    ({"slots": 1, "binding": "None", "kind": "WideISOReLUNet"}, None, "shift"),
]


@pytest.mark.parametrize(("changes", "modes", "requantize"), NETWORKS)
def test_integers_are_their_program_in_every_mode(changes, modes, requantize):
    model = settled(**changes)
    settings = SuperpositionConvert(requantize=requantize)
    made = integers.quantize(model, DATA, settings, modes)
    assert made.modes == (modes or (changes["slots"],))
    program = equal_in_every_mode(made)
    grouping = program.grouping
    if changes["slots"] == 1:
        assert grouping is None
        assert [node.operation.stem for node in program.nodes].count("bundle") == integers.has_keys(model)
    else:
        operation = bundle(program)
        assert isinstance(operation.images, Held) == (len(made.modes) > 1)
        assert grouping.size == grouping.slots == changes["slots"]
        assert operation.circulant == (changes.get("binding") != "MBAT")
    images = DATA.test.images
    for n in made.modes:
        model.at_a_time = made.at_a_time = n
        real = predict(model, images)
        found = made.decode(predict(made, images))
        assert np.sqrt(np.square(found - real).mean() / real.var()) < 0.2  # untrained; with slots exchanged it is 1


def test_slots_share_a_scale():
    """Keys of very different size: the smaller one has as many fewer steps."""
    model = settled(slots=2)
    with torch.no_grad():
        model.binding.weight[1] /= 10
    operation = bundle(integers.quantize(model, DATA, CONVERT).lower())
    real = model.binding.keys.detach().numpy()
    step = np.abs(real).max() / np.abs(operation.keys).max()
    assert np.abs(operation.keys * step - real).max() < step
    assert np.abs(operation.keys[1]).max() < 16


def test_ranges_are_those_of_all_modes():
    """With one key for all slots, one image at a time is bound to four times of itself, several to their sum."""
    model = settled(slots=4)
    with torch.no_grad():
        model.binding.weight[1:] = model.binding.weight[:1]
    alone, every = (integers.quantize(model, DATA, CONVERT, modes).lower() for modes in ((4,), (1, 2, 4)))
    (name,) = [node.name for node in every.nodes if node.operation.stem == "bundle"]
    assert every.meta["scales"][name] > 1.1 * alone.meta["scales"][name]


class TestTraining:
    QAT = Qat(epochs=2, batch=16, lr=1e-3, seed=3)

    def fitted(self, changes, modes, **options):
        made = integers.quantize(settled(**changes), DATA, CONVERT, modes)
        return made, integers.fit(made, DATA, self.QAT, **options)

    def test_modes_are_drawn_as_in_floats(self, monkeypatch):
        seen = []
        forward = Converted.forward

        def watch(network, *codes):
            if network.training:
                seen.append((network.at_a_time, len(codes[0])))
            return forward(network, *codes)

        monkeypatch.setattr(Converted, "forward", watch)
        made, history = self.fitted({"slots": 4}, (1, 2, 4), low=1, frequency=0.6)
        expected = []
        for epoch in range(2):
            rng = np.random.default_rng((3, epoch))
            expected += [(1 if rng.random() > 0.6 else 4, 16) for _ in range(6)]
        assert seen == expected
        assert {n for n, _ in seen} == {1, 4}
        assert made.at_a_time == 4
        monkeypatch.undo()
        program = equal_in_every_mode(made)
        assert bundle(program).circulant
        scores = []
        for n in (1, 4):  # what was kept is the best by the mean of both modes
            made.at_a_time = n
            scores.append(share(predict(made, DATA.val.images), DATA.val.labels))
        assert history.accuracy == pytest.approx(np.mean(scores))
        assert history.accuracy == max(history.start, *(epoch.accuracy for epoch in history))

    @pytest.mark.parametrize(("after", "kept"), [((0.5, 0.9), 0), ((0.7, 0.8), 1)])
    def test_what_is_kept_is_the_best_mean_of_the_modes(self, after, kept, monkeypatch):
        """Before the epoch the modes have 0.6 and 0.85."""
        scores = iter((0.6, 0.85, *after))
        monkeypatch.setattr(integers, "accuracy_and_loss", lambda *_: (next(scores), 0.0))
        made = integers.quantize(settled(slots=2), DATA, CONVERT, (1, 2))
        before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
        done = integers.fit(made, DATA, Qat(epochs=1, batch=16, lr=1e-3), low=1, frequency=0.5)
        assert done.kept == kept
        assert done.start == pytest.approx(0.725)
        same = all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
        assert same is (kept == 0)

    @pytest.mark.parametrize(
        ("changes", "trained"),
        [({"binding": "HRR"}, True), ({"train_keys": False}, False), ({"binding": "None"}, False)],
    )
    def test_keys_are_trained_where_they_were(self, changes, trained):
        made = integers.quantize(settled(slots=2, **changes), DATA, CONVERT)
        (layer,) = [layer for layer in made.layers if layer.path == "binding"]
        made(torch.from_numpy(made.encode(DATA.train.images[:4]))).square().sum().backward()
        assert (layer.weight.grad is not None and bool(layer.weight.grad.any())) is trained

    def test_random_pairings(self):
        made = integers.quantize(settled(slots=2), DATA, CONVERT, (1, 2))
        one, two = evaluate.validate(made, DATA.test, made.modes, 3, seed=5)
        assert (len(one.accuracies), len(two.accuracies)) == (1, 3)
        order = evaluate.pairing(64, 5, 1)
        program, codes = made.lower(), made.encode(DATA.test.images)
        found = program(codes[order], held={"images": np.array(2)})
        assert np.array_equal(evaluate.predict(made, DATA.test.images, 2, order)[order], found)
        assert two.accuracies[1] == share(found, DATA.test.labels[order])


class TestKeys:
    @pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 127), (4, -7, 7), (2, -1, 1)])
    def test_widths(self, bits, low, high):
        model = settled(slots=2)
        ((width, made),) = integers.by_key_bits(model, DATA, CONVERT, (2,), [bits])
        operation = bundle(program := made.lower())
        assert (width, operation.weight_format.bits) == (bits, bits)
        assert low <= operation.weight.min()
        assert operation.weight.max() <= high
        assert np.abs(operation.weight).max() > high // 2
        others = [node.operation for node in program.nodes if node.operation.stem == "linear"]
        assert {operation.weight_format.bits for operation in others} == {8}

    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            (0.0, "binding.*: Hrr: the key of slot 1 is zero, so that its sample is lost; draw it anew"),
            (np.nan, "binding.*: Hrr: the key of slot 1 is not finite; train it again"),
        ],
    )
    def test_keys_that_cannot_be_used(self, value, sentence):
        model = settled(slots=2)
        with torch.no_grad():
            model.binding.weight[1] = value
        with pytest.raises(BittrueError, match=sentence):
            integers.quantize(model, DATA, CONVERT)


# -- networks of one's own -------------------------------------------------------------------------------
class Turned(Bundled):
    """Circular convolutions with keys."""

    def __init__(self, slots: int, channels: int) -> None:
        super().__init__(slots)
        self.keys = nn.Parameter(noise(slots, channels, seed=5))

    def matrices(self):
        return circulant(self.keys)


class Triple(nn.Module):
    """Three slots, of vectors or of what has places behind its channels; `mixed` adds a sample to its group."""

    def __init__(self, mixed: bool = False, places: bool = False) -> None:
        super().__init__()
        kind = nn.Conv1d if places else nn.Linear
        more = (1,) if places else ()
        self.first, self.together = kind(5, 6, *more), Turned(3, 6)
        self.middle, self.apart, self.last = kind(6, 12, *more), Unbundled(3), kind(4, 2, *more)
        self.mixed = mixed

    def forward(self, x):
        x = self.first(x).relu()
        z = self.together(x)
        z = z + x if self.mixed else z
        return self.last(self.apart(self.middle(z).relu()))


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("modes", [None, (1, 3)])
def test_a_network_of_ones_own(modes, places):
    x = noise(90, 5, 4) if places else noise(90, 5)
    made = bittrue.convert(Triple(places=places), x, modes=modes)
    program = equal_in_every_mode(made)
    assert program.grouping.slots == 3
    assert made.modes == (modes or (3,))
    assert bundle(program).circulant


def test_a_set_is_predicted_in_whole_groups(monkeypatch):
    """Batches of evaluation are no multiple of three; the groups are those of the program's run all the same."""
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 4)
    made = bittrue.convert(Triple(), noise(90, 5))
    x = noise(13, 5, seed=9)
    assert np.array_equal(predict(made, x), made.lower()(made.encode(x)))


def test_means_of_three_copies_are_rounded_half_up():
    """All sums of three codes that there can be, against whole numbers."""
    layer = bittrue.convert(Triple(), noise(90, 5), modes=(1, 3)).layers[-2]
    sums = np.arange(-384, 382)
    first = np.clip(sums, -128, 127)
    second = np.clip(sums - first, -128, 127)
    codes = np.stack([first, second, sums - first - second], 1).astype(np.float32)
    with layer.regrouping.at(1):
        found = layer(torch.from_numpy(np.repeat(codes, 4, 1))).numpy()
    assert np.array_equal(found[:, 0], (2 * sums + 3) // 6)
    assert layer.regrouping.size == 3


class TestRefused:
    @pytest.mark.parametrize(
        ("modes", "sentence"),
        [
            ((2,), "modes: 2 images do not fill 3 slots evenly; give one of 1, 3"),
            ((1, 2), "modes: 1, 2 are not all numbers that divide 3 slots; give all of 1, 3, or one of them"),
            ((), "modes: none is given; give one number that divides 3 slots, or all of them"),
        ],
    )
    def test_modes(self, modes, sentence):
        with pytest.raises(BittrueError, match=f"cannot convert Triple: {sentence}"):
            bittrue.convert(Triple(), noise(90, 5), modes=modes)

    def test_modes_of_samples_that_stay_alone(self):
        with pytest.raises(BittrueError, match="modes are those of a model whose samples go in groups, and its stay"):
            bittrue.convert(nn.Linear(3, 2), noise(20, 3), modes=(1,))

    def test_parts_that_differ(self):
        model = Triple()
        model.apart.at_a_time = 1
        with pytest.raises(BittrueError, match="together, apart have other slots or samples at a time; give all the"):
            bittrue.convert(model, noise(90, 5))

    def test_few_samples(self):
        with pytest.raises(BittrueError, match="calibration: 5 samples are too few for groups of 3; give a hundred"):
            bittrue.convert(Triple(), noise(5, 5))

    def test_a_sample_that_meets_its_group(self):
        with pytest.raises(BittrueError, match="line .* of test_superposition_integers.py"):
            bittrue.convert(Triple(mixed=True), noise(90, 5))

    def test_numbers_that_integers_are_not_made_for(self):
        made = bittrue.convert(Triple(), noise(90, 5))
        for n in (1, 2, 4):
            with pytest.raises(BittrueError, match=f"{n} samples at a time are not what these integers are made for"):
                made.at_a_time = n
        with pytest.raises(BittrueError, match="2 samples do not go together in a network whose samples stay alone"):
            bittrue.convert(nn.Linear(3, 2), noise(20, 3)).at_a_time = 2
        assert Regrouping(3, (1, 3)).size == 3

    @pytest.mark.parametrize(
        ("settings", "options", "sentence"),
        [
            (Qat(batch=15), {}, "fit: a batch of 15 images is no multiple of 2, the images of one pass; take 14"),
            (Qat(batch=16), {"low": 1, "frequency": 0.5}, "fit: 1 images at a time are not what these integers are"),
        ],
    )
    def test_trainings(self, settings, options, sentence):
        made = integers.quantize(settled(slots=2), DATA, CONVERT)
        with pytest.raises(BittrueError, match=sentence):
            integers.fit(made, DATA, settings, **options)
