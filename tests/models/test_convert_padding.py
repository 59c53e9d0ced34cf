"""Zeros around images and sequences, as modules and functions of their own: they become the windows' padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.window import Window
from tests.helpers.converted import equal_everywhere, error, noise, seeded  # noqa: F401


class Padded(nn.Module):
    """Pads by a module or a function, in front of a layer."""

    def __init__(self, pad, layer):
        super().__init__()
        self.pad = pad
        self.layer = layer

    def forward(self, x):
        return self.layer(self.pad(x))


CASES = {
    "causal": ((3, 17), nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(3, 5, 3, dilation=2), (0, 0, 4, 0)),
    "sequence": ((3, 9), nn.ZeroPad1d((0, 2)), nn.Conv1d(3, 5, 3), (0, 0, 0, 2)),
    "image": ((3, 7, 9), nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(3, 5, 3), (0, 1, 1, 2)),
    "both": ((3, 7, 9), nn.ConstantPad2d((1, 0, 2, 0), 0), nn.Conv2d(3, 5, 5, padding=1), (3, 1, 2, 1)),
    "function": ((3, 7, 9), lambda x: functional.pad(x, (2, 0, 0, 1, 0, 0)), nn.Conv2d(3, 5, 3), (0, 1, 2, 0)),
    "average": ((3, 6, 6), lambda x: functional.pad(x, (1, 1)), nn.AvgPool2d((2, 4)), (0, 0, 1, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_zeros_become_padding_of_what_reads_them(case):
    shape, pad, layer, expected = CASES[case]
    x = noise(48, *shape) + 1  # not around 0, so that zeros are told from what is seen
    model = Padded(pad, layer).eval()
    network = bittrue.convert(model, x)
    program = equal_everywhere(network, x)
    assert error(model, network, x) < 0.02
    (window,) = (n.operation for n in program.nodes if isinstance(n.operation, Window))
    assert window.padding == expected


def test_every_reader_pads_for_itself_and_what_is_cut_off_again_is_a_part():
    class Chomped(nn.Module):
        """A causal convolution as it is often written: padded on both sides, and cut; beside one of one sample."""

        def __init__(self):
            super().__init__()
            self.pad = nn.ConstantPad1d((2, 2), 0.0)
            self.a, self.b = nn.Conv1d(3, 4, 3, bias=False), nn.Conv1d(3, 4, 3, bias=False)

        def forward(self, x):
            y = self.pad(x)
            return (torch.relu(self.a(y)) + self.b(y))[..., :-2]

    x = noise(48, 3, 11)
    model = Chomped().eval()
    network = bittrue.convert(model, x)
    program = equal_everywhere(network, x)
    assert error(model, network, x) < 0.03
    assert [n.operation.padding for n in program.nodes if isinstance(n.operation, Window)] == [(0, 0, 2, 2)] * 2


def test_a_normalisation_in_front_of_zeros_keeps_its_offset_out_of_them():
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.bias.fill_(2.0)
        norm.num_batches_tracked += 1
    model = nn.Sequential(norm, nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3)).eval()
    x = noise(48, 3, 5, 5)
    network = bittrue.convert(model, x)
    equal_everywhere(network, x)
    assert error(model, network, x) < 0.02


REFUSED = {
    "value": (nn.ConstantPad2d(1, 0.5), "0: torch.nn.ConstantPad2d: it pads with other than zeros; pad with zeros"),
    "negative": (nn.ZeroPad2d((-1, 0, 0, 0)), "it cuts off places .*; take a part by a slice"),
    "reflection": (nn.ReflectionPad2d(1), "torch.nn.ReflectionPad2d: no layer is known for it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_zero_around_an_image_is_refused(case):
    layer, says = REFUSED[case]
    with pytest.raises(BittrueError, match=says):
        bittrue.convert(nn.Sequential(layer, nn.Conv2d(3, 4, 3)).eval(), noise(16, 3, 6, 6))


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda _, x: functional.pad(x, (0, 0, 0, 0, 1, 0)), "pad: it pads other axes than .*; .*torch.cat"),
        (lambda m, x: functional.max_pool2d(functional.pad(m.c(x), (1, 1)), 2), "line .* zeros around .*0, 0, 1, 1"),
        (lambda m, x: functional.pad(m.c(x), (1, 1)), "zeros around an image .*give the padding to what reads it"),
        (lambda _, x: functional.pad(x, (1, 1), mode="circular"), "it pads with other than zeros"),
    ],
    ids=["channels", "maximum", "result", "circular"],
)
def test_zeros_that_no_window_takes_are_refused(forward, says):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return forward(self, x)

    with pytest.raises(BittrueError, match=says):
        bittrue.convert(Model().eval(), noise(16, 3, 6, 6))
