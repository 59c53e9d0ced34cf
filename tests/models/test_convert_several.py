"""Networks of several inputs and several results: converted, trained, lowered, as RTL and as C++ kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bittrue
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from tests.helpers import torch_graphs
from tests.helpers.converted import noise, seeded  # noqa: F401
from tests.helpers.torch_networks import learn


class Heads(nn.Module):
    """An image and what else is known of it, in; classes and a position out."""

    def __init__(self, gives=lambda classes, place: (classes, place)):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.known, self.classes, self.place = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(4, 2)
        self.gives = gives

    def forward(self, image, known, scale=1.0):
        seen = self.norm(self.conv(image)).relu().mean((2, 3))
        both = seen + self.known(known) * scale
        return self.gives(self.classes(both).softmax(1), self.place(both))


def data(count: int = 96):
    return noise(count, 2, 5, 5), noise(count, 3, seed=2)


def heads(gives=lambda classes, place: (classes, place)) -> Heads:
    model = Heads(gives)
    learn(model.conv, torch.zeros(1, 2, 5, 5))
    model.norm.train()
    with torch.no_grad():
        for _ in range(60):
            model.norm(model.conv(data()[0]))
    return model.eval()


def equal_everywhere(network, x):
    """Every tensor of the integer forward in torch is that of the program."""
    from bittrue.models.graph.lower import record

    program, codes = network.lower(), network.encode(x)
    few = [part[:4] for part in codes]
    recorded, traced = record(network, *codes), program.trace(*codes).tensors
    assert recorded.keys() == traced.keys()
    for name, tensor in traced.items():
        assert np.array_equal(recorded[name], tensor), name
    for truth, fast in zip(program.reference(*few), program.run(*few), strict=True):
        assert np.array_equal(truth, fast)
    return program


@pytest.mark.parametrize("mode", ["shift", "multiplier"])
def test_inputs_are_named_as_the_arguments_and_results_come_in_order(mode):
    model, x = heads(), data()
    network = bittrue.convert(model, x, requantize=mode)
    program = equal_everywhere(network, x)
    assert {name: kind.shape for name, kind in program.inputs.items()} == {"image": (5, 5, 2), "known": (3,)}
    assert program.results == ("classes", "place")
    found = network.decode(program.run(*network.encode(x)))
    with torch.no_grad():
        classes, place = (part.numpy() for part in model(*x))
    assert np.abs(found[1] - place).max() < 0.05 * np.abs(place).max() + 0.02
    shares = torch.from_numpy(found[0]).softmax(1).numpy()
    assert np.abs(shares - classes).max() < 0.03
    assert [p.shape for p in network(*map(torch.from_numpy, network.encode(x)))] == [(96, 5), (96, 2)]


def test_samples_and_results_by_name():
    model = heads(lambda classes, place: {"classes": classes, "place": place})
    image, known = data()
    network = bittrue.convert(model, {"known": known, "image": image})
    codes = network.encode({"image": image, "known": known})
    for one, other in zip(codes, network.encode((image, known)), strict=True):
        assert np.array_equal(one, other)
    assert list(network.decode(network.lower().run(*codes))) == ["classes", "place"]


def test_both_heads_are_trained():
    x = data(128)
    truth = (x[0].mean((1, 2, 3)) + 0.3 * x[1][:, 0] > 0).numpy().astype(int), (x[1][:, 1] > 0).numpy().astype(int)
    network = bittrue.convert(heads(), x)
    start = network.accuracy(x, truth)

    def right() -> list[float]:
        found = network.decode(network.lower().run(*network.encode(x)))
        return [float((part.argmax(1) == at).mean()) for part, at in zip(found, truth, strict=True)]

    before = right()
    assert start == pytest.approx(np.mean(before))
    history = network.fit(((x, truth), (x, truth)), Qat(epochs=12, batch=16, lr=3e-2))
    assert history.start == start
    assert network.accuracy(x, truth) == history.accuracy > start + 0.1
    assert min(right()) > 0.85
    equal_everywhere(network, x)
    rows = network.sensitivity(x, truth, bits=[2]).rows
    assert [path for path, _, _ in rows] == ["conv", "mean_scale", "known", "classes", "place"]


RESULTS = {
    "the same twice": (lambda net, x, y: (net.a(x) + y, (net.a(x) + y).relu(), net.a(x)), 3),
    "a result with a factor behind it": (lambda net, x, y: (h := net.a(x + y), net.b(h * 2 - 1)), 2),
    "a result with a clamp behind it": (lambda net, x, y: (h := net.a(x + y), h.relu()), 2),
    "a result that is read again": (lambda net, x, y: (h := net.a(x), net.b(h + y)), 2),
    "one tensor, twice": (lambda net, x, y: (h := net.a(x) + y, h), 2),
    "what went in": (lambda net, x, y: [net.a(x) + y, y], 2),
    "two views": (lambda net, x, y: ((h := net.a(x) + y).flatten(1).unflatten(1, h.shape[1:]), h), 2),
    "parts": (lambda net, x, y: (net.a(x) + y).chunk(2, 1), 2),
    "images": (lambda net, x, y: (net.a(x) * y, nn.functional.interpolate(net.b(y), scale_factor=2)), 2),
    "inputs alone": (lambda _, x, y: x + y, 1),
}


class Two(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.a, self.b, self.run = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), run

    def forward(self, x, y):
        return self.run(self, x, y)


@pytest.mark.parametrize("case", RESULTS)
def test_what_a_forward_gives(case):
    run, count = RESULTS[case]
    x = noise(48, 2, 3, 4), 0.5 * noise(48, 2, 3, 4, seed=5)
    network = bittrue.convert(model := Two(run), x)
    program = network.lower()
    assert len(program.results) == count
    codes = network.encode(x)
    found, given = program.run(*codes), network(*map(torch.from_numpy, codes))
    for codes, result in zip(found, given if count > 1 else [given], strict=True):
        assert np.array_equal(result.detach().numpy(), codes)
    real = model(*x)
    decoded = network.decode(found if count > 1 else found[0])
    for one, truth in zip(decoded if count > 1 else [decoded], real if count > 1 else [real], strict=True):
        assert one.shape == truth.shape
        assert np.abs(one - truth.detach().numpy()).max() < 0.06 * float(truth.detach().abs().max())


@pytest.mark.needs("g++", "verilator")
@pytest.mark.slow
def test_a_verified_design_of_two_inputs_and_two_results(tmp_path):
    x = data(12)
    network = bittrue.convert(heads(), x)
    program = network.lower()
    codes = network.encode(x)
    found = bittrue.verify(program, list(codes), {"reference": 4, "compiled": None, "gxx": None}, folder=tmp_path)
    assert found.problems == []
    assert {(row["backend"], row["mismatches"]) for row in found.rows} == {("rtl", 0), ("hls", 0)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((noise(8, 2, 5, 5),), r"it does not take samples of \[2, 5, 5\].*missing 1 required.*inputs in a tuple"),
        ((noise(8, 2, 5, 5), noise(9, 3)), "calibration: there are 8 of image, 9 of known; give as many samples"),
        ((noise(8, 2, 5, 5), torch.zeros(8, 3)), "calibration: input 'known': every value is 0"),
        ((noise(8, 2, 5, 5), noise(8, 3) * float("nan")), "calibration: input 'known': a value is not finite"),
        (
            {"image": noise(8, 2, 5, 5), "other": noise(8, 3)},
            "the inputs are image, known, got samples of image, other",
        ),
        (tuple(noise(8, 3) for _ in range(4)), r"its forward takes 3 tensors \(image, known, scale\).*are 4; give"),
    ],
)
def test_calibration_data_that_do_not_fit_the_inputs(given, says):
    with pytest.raises(BittrueError, match=says):
        bittrue.convert(heads(), given)


def test_what_does_not_fit_several_inputs_and_results_is_refused():
    x = data(16)
    network = bittrue.convert(heads(), x, input_range=(4.0, 2.0))
    assert [float(entry.scale) * 127 for entry in network.inputs] == pytest.approx([4, 2])
    with pytest.raises(BittrueError, match="input_range has 3 values for 2 inputs; give one for each"):
        bittrue.convert(heads(), x, input_range=(1.0, 2.0, 3.0))
    with pytest.raises(BittrueError, match=r"the network has 2 inputs \(image, known\), got samples of 1; give theirs"):
        network.encode(x[0])
    with pytest.raises(BittrueError, match=r"encode: samples are \[n, 2, 5, 5\] and \[n, 3\], got \[16, 3\] and"):
        network.encode(x[::-1])
    with pytest.raises(BittrueError, match="fit: the network has 2 results, got labels of 1"):
        network.fit(((x, np.zeros(16, int)), (x, np.zeros(16, int))))
    with pytest.raises(BittrueError, match="decode: the network has 2 results, got codes of 1"):
        network.decode(np.zeros((16, 5)))
    with pytest.raises(BittrueError, match="cannot convert Two: what it gives does not depend on its input 'y'; leave"):
        bittrue.convert(Two(lambda net, x, _: net.a(x)), (noise(8, 2, 3, 3), noise(8, 2, 3, 3)))
    with pytest.raises(BittrueError, match="cannot convert Two: .*it changes the network's input in place"):
        bittrue.convert(Two(lambda net, x, y: net.a(x) + y.mul_(2)), (noise(8, 2, 3, 3), noise(8, 2, 3, 3)))


#: Of `tests.helpers.torch_graphs`, which converts any number of them: one or two inputs, one to three results.
GRAPHS = (1, 3, 6, 10)


@pytest.mark.parametrize("seed", GRAPHS)
def test_random_modules_are_their_programs_and_follow_the_floats(seed):
    assert torch_graphs.check(seed) < torch_graphs.FAR
