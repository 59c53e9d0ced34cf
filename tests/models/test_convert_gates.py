"""Gates and sums of tensors with fewer axes, functions of each channel, decisions at the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.arg_max import ArgMax
from bittrue.sim.operations.upsample import Upsample
from tests.helpers.converted import equal_everywhere, error, kinds, noise, seeded  # noqa: F401


class Excite(nn.Module):
    """Squeeze and excite, as it is written in many ways."""

    def __init__(self, way: str):
        super().__init__()
        self.conv, self.way = nn.Conv2d(2, 6, 3, padding=1), way
        self.down, self.up = nn.Linear(6, 3), nn.Linear(3, 6)
        self.conv_down, self.conv_up = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.last = nn.Conv2d(6, 3, 3)

    def forward(self, x):
        x = self.conv(x).relu()
        if self.way == "convolutions":
            s = functional.adaptive_avg_pool2d(x, 1)
            s = torch.sigmoid(self.conv_up(self.conv_down(s).relu()))
        elif self.way == "mean":
            s = functional.hardsigmoid(self.conv_up(self.conv_down(x.mean((2, 3), keepdim=True)).relu()))
        else:
            s = functional.adaptive_avg_pool2d(x, (1, 1)).view(x.size(0), x.size(1))
            s = torch.sigmoid(self.up(functional.relu(self.down(s))))
            s = s[:, :, None, None] if self.way == "linear" else s.view(x.size(0), -1, 1, 1).expand_as(x)
        return self.last(s * x if self.way == "mean" else x * s)


@pytest.mark.parametrize("mode", ["shift", "multiplier"])
@pytest.mark.parametrize("way", ["convolutions", "mean", "linear", "expanded"])
def test_squeeze_and_excite(way, mode):
    x = noise(64, 2, 5, 6)
    network = bittrue.convert(model := Excite(way).eval(), x, requantize=mode)
    program = equal_everywhere(network, x[:8])
    assert error(model, network, x) < 0.06
    (copies,) = [node.operation for node in program.nodes if isinstance(node.operation, Upsample)]
    assert copies.output.size == 5 * 6 * 6
    assert not copies.parts


class Two(nn.Module):
    """Two convolutions of an image, and what is made of their results."""

    def __init__(self, run):
        super().__init__()
        self.a, self.b, self.run = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1), run

    def forward(self, x):
        return self.run(self.a(x), self.b(x))


SMALLER = {
    "a code of each channel": lambda a, b: a + b.mean((2, 3), keepdim=True),
    "a code of each pixel": lambda a, b: a * b[:, 1:2],
    "a code of each row": lambda a, b: a * b.mean(3, keepdim=True),
    "a code of each column": lambda a, b: b.mean(2, keepdim=True) - a,
    "one code": lambda a, b: a + b.mean((1, 2, 3), keepdim=True),
    "one code of each row": lambda a, b: a * b.mean((1, 3), keepdim=True),
    "repeated": lambda a, b: torch.cat([b.mean((2, 3), keepdim=True).expand(-1, -1, a.shape[2], a.shape[3]), a], 1),
    "of a larger image": lambda a, b: functional.pixel_shuffle(a.repeat_interleave(4, 1), 2) * b.mean((2, 3), True),
}


@pytest.mark.parametrize("case", SMALLER)
def test_tensors_with_axes_of_length_one(case):
    run = SMALLER[case]
    if case == "of a larger image":
        run = lambda a, b: functional.interpolate(a, scale_factor=2) * b.mean((2, 3), keepdim=True)  # noqa: E731
    x = noise(64, 2, 4, 5)
    network = bittrue.convert(model := Two(run).eval(), x)
    equal_everywhere(network, x[:8])
    assert error(model, network, x) < 0.06


def test_tokens_are_gated_by_channels_and_by_places():
    class Tokens(nn.Module):
        def __init__(self, axis):
            super().__init__()
            self.a, self.b, self.c, self.axis = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3), axis

        def forward(self, x):
            return self.c(self.a(x) * self.b(x).mean(self.axis, keepdim=True))

    x = noise(64, 5, 4)
    for axis in (1, 2):
        network = bittrue.convert(model := Tokens(axis).eval(), x)
        equal_everywhere(network, x[:8])
        assert error(model, network, x) < 0.06


def test_repeated_tensors_have_the_step_of_what_is_repeated():
    network = bittrue.convert(Two(SMALLER["a code of each pixel"]).eval(), noise(64, 2, 4, 5))
    (copies,) = [layer for layer in network.layers if type(layer).__name__ == "TensorUpsample"]
    gate = next(layer for layer in network.layers if layer.label == "b")
    assert copies.target is gate.target


# -- functions of each channel -------------------------------------------------------------------------------
class Shifted(nn.Module):
    """`max(x - s_c, 0)`, with an s of its own for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.linspace(-0.5, 0.5, channels))

    def forward(self, x):
        return functional.relu(x - self.shift.view(1, -1, *[1] * (x.ndim - 2)))


class Threshold(Shifted):
    """`max(x, s_c)`."""

    def forward(self, x):
        return torch.maximum(x, self.shift.view(1, -1, *[1] * (x.ndim - 2)))


@pytest.mark.parametrize("mode", ["shift", "multiplier"])
@pytest.mark.parametrize(
    ("function", "found"),
    [
        (nn.PReLU(3), ["Conv", "Function"]),
        (Shifted(3), ["Conv"]),  # the shift is in the bias, the clamp in the requantiser
        (Threshold(3), ["Conv", "Function"]),
    ],
)
def test_functions_of_each_channel_are_exact(function, found, mode):
    if isinstance(function, nn.PReLU):
        with torch.no_grad():
            function.weight.copy_(torch.tensor([0.1, -0.3, 0.7]))
    x = noise(64, 2, 4, 5)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), function).eval()
    network = bittrue.convert(model, x, requantize=mode, ranges=100.0, equalise_channels=False)
    program = equal_everywhere(network, x[:8])
    assert kinds(network) == found
    assert error(model, network, x) < 0.03
    if len(found) == 2:  # every code of the table is the rounded function of the code's value
        first, table = network.layers
        codes = torch.arange(-128, 128)
        values = (codes * first.target.value).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
        with torch.no_grad():
            real = function(values).squeeze() / table.target.value
        wanted = (real + 0.5).floor().clamp(-128, 127).T
        assert np.array_equal(program[program.result].table(), wanted.numpy())


# -- decisions -----------------------------------------------------------------------------------------------
DECISIONS = {
    "function": lambda y: torch.argmax(y, 1),
    "method": lambda y: y.argmax(dim=1, keepdim=True),
    "behind shares": lambda y: y.softmax(1).argmax(-1),
    "of pixels": lambda y: y[:, :, None, None].expand(-1, -1, 1, 1).argmax(1),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_a_decision_at_the_end(case):
    class Decides(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            return DECISIONS[case](self.fc(x))

    x = noise(200, 6)
    network = bittrue.convert(model := Decides().eval(), x)
    program = equal_everywhere(network, x)
    assert isinstance(program[program.result], ArgMax)
    truth = model(x)
    found = network.decode(program(network.encode(x)))
    assert found.shape == truth.shape
    assert (found == truth.numpy()).mean() > 0.97
    assert network.accuracy(x, truth.flatten()) == (found == truth.numpy()).mean()
    with pytest.raises(BittrueError, match="fit: its result is a decision .argmax., which has no gradient; train it"):
        network.fit(((x, truth), (x, truth)))


def test_classes_of_pixels():
    class Segments(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 1)

        def forward(self, x):
            return self.conv(x).argmax(1)

    x = noise(64, 2, 4, 5)
    network = bittrue.convert(model := Segments().eval(), x)
    program = equal_everywhere(network, x)
    assert program.output.shape == (4, 5, 1)
    assert (network.decode(program(network.encode(x))) == model(x).numpy()).mean() > 0.97


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda a, b: a.argmax(1).float()[:, None] + b, "argmax: it is only known at the end"),
        (lambda a, _: a.argmax(), "argmax: it compares samples with each other; give the axis"),
        (lambda a, _: a.argmax(0), "argmax: it compares samples with each other"),
        (lambda a, b: a * b.mean((2, 3))[:1], "samples"),
        (lambda a, b: a * b.mean((2, 3), keepdim=True).flip(1), "it multiplies lie in different order in a circuit"),
        (
            lambda a, b: a.mean(2, keepdim=True) + b.mean(3, keepdim=True),
            r"have the shapes \(3, 1, 5\) and \(3, 4, 1\)",
        ),
        (lambda a, _: a.mean((2, 3)).expand(2, 2, 3), "expand: it gives a sample .3. more axes; .*unsqueeze"),
    ],
)
def test_what_is_neither(run, says):
    with pytest.raises(BittrueError, match=says):
        bittrue.convert(Two(run).eval(), noise(64, 2, 4, 5))
