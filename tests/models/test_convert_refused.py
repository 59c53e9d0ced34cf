"""What cannot be converted is refused in a sentence: the place in the model, the line of the code, what would work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.sim.errors import BittrueError
from tests.helpers.torch_networks import learn

X = torch.randn(64, 2, 6, 6, generator=torch.Generator().manual_seed(1))


class Model(nn.Module):
    """A forward of one's own, with a convolution `a` and another, `b`."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.run = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), forward

    def forward(self, x):
        return self.run(self, x)


class Inner(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


def changed_and_read(net, x):
    y = net.a(x)
    return functional.relu(y, inplace=True) + y


def alias(net, x):
    y = kept = net.a(x)
    y += x
    return kept * 2


FORWARDS = {
    "depends on data": (
        lambda net, x: net.a(x) if x.sum() > 0 else x,
        r"line \d+ of test_convert_refused.py: .*x.sum\(\)",
    ),
    "its remedy": (lambda net, x: net.a(x) if x.sum() > 0 else x, "take the decision out of forward, or .*torch.where"),
    "numpy": (lambda _, x: torch.from_numpy(np.tanh(x.numpy())), r"line \d+ of .*np.tanh.*name its class in leaves="),
    "number": (lambda net, x: net.a(x) * float(x.max()), r"line \d+ of .*float\(x.max\(\)\).*torch functions"),
    "gate of another shape": (
        lambda net, x: net.a(x).mean(2, keepdim=True) * net.b(x).mean(3, keepdim=True),
        r"mul: the tensors that it multiplies have the shapes \(2, 1, 6\) and \(2, 6, 1\); bring them to one, or",
    ),
    "crop": (lambda net, x: net.a(x)[:, :, 1:3, 1:3], "what it takes does not lie together .*along one axis at a time"),
    "some rows": (lambda net, x: net.a(x)[:, :, [0, 1, 3]], "what it takes does not lie together"),
    "samples turned": (lambda net, x: net.a(x).flip(0), "flip: it mixes samples"),
    "samples": (lambda net, x: net.a(x)[:1], "getitem: it mixes samples"),
    "input in place": (lambda net, x: net.a(x.add_(1)), "it changes the network's input in place; write it without"),
    "changed and read": (
        changed_and_read,
        r"line \d+ of .*inplace=True.*: it changes in place a tensor that is read again",
    ),
    "alias": (alias, "what can be followed of it gives other results than it does itself .*in place"),
    "batch": (lambda net, x: x if len(x) < 10 else net.a(x), "it depends on its data or on the number of samples"),
    "windows beside the image": (
        lambda net, x: functional.conv2d(x, net.a.weight, padding=2),
        r"itself, line \d+ of .*functional.conv2d\(x, .*: window: number 0 .* sees nothing of the image; pad less",
    ),
    "shapes that change": (
        lambda net, x: net.a(x)[:, :, : len(x)],
        "its shapes change with the number of samples; let each sample have a result of its own",
    ),
    "mean of samples": (lambda net, x: net.a(x).mean(0), "mean: it mixes samples"),
    "mixed": (lambda net, x: net.a(x).reshape(-1, 8), "reshape: it mixes samples; .*keep the first axis"),
    "joined samples": (lambda net, x: torch.cat([net.a(x), x]), "cat: it puts samples one after the other"),
    "dropout": (
        lambda net, x: functional.dropout(net.a(x)),
        "drops values in evaluation mode .*training=self.training",
    ),
    "a number among results": (
        lambda net, x: (net.a(x), 3),
        "its forward gives a int among its results; .*module",
    ),
    "results in results": (lambda net, x: (net.a(x), [x, x]), "its forward gives a list among its results"),
    "no result": (lambda *_: (), "its forward gives a NoneType among its results"),
    "a constant result": (lambda net, x: (net.a(x), net.b.bias), "its result number 1 does not depend on the samples"),
    "sums in order": (lambda net, x: net.a(x).cumsum(1), "cumsum: it compares or sums places in order"),
    "places": (lambda net, x: net.a(x) + torch.arange(36.0).view(6, 6), "add: no layer is known for it: .*supported"),
    "shapes": (
        lambda net, x: net.a(x).mean(2, keepdim=True) + net.b(x)[:, :, :, :1],
        r"add: the tensors that it adds have the shapes \(2, 1, 6\) and \(2, 6, 1\); bring them to one, or one",
    ),
    "not finite": (lambda net, x: torch.log(net.a(x)), "its result on the calibration data is not finite"),
}


@pytest.mark.parametrize("case", FORWARDS)
def test_a_forward_that_no_circuit_does(case):
    forward, says = FORWARDS[case]
    with pytest.raises(BittrueError, match=says) as refused:
        bittrue.convert(Model(forward), X.clone())
    assert str(refused.value).startswith("cannot convert Model: ")


SEQUENTIAL = {
    "layer norm": ([nn.LayerNorm(6)], "0: torch.nn.LayerNorm: .*; use batch normalisation"),
    "group norm": ([nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4)], "1: torch.nn.GroupNorm: .*; use batch normalisation"),
    "three axes": (
        [nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 1)],
        "1: torch.nn.Conv3d: it has windows of three axes; use two",
    ),
    "unknown": ([nn.Unfold(2)], "0: torch.nn.Unfold: no layer is known for it"),
    "reflect": (
        [nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")],
        "padding_mode='reflect' is not supported; pad with",
    ),
    "in place": ([nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1)], "0: it changes the network's input in place"),
    "kernel": (
        [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 7)],
        "it does not take samples .*Kernel size: .7 x 7.*; give the calib",
    ),
    "beside": (
        [nn.Conv2d(2, 2, 1, padding=2)],
        "Sequential: 0: window: number 0 .* sees nothing of the image; pad less",
    ),
    "pool beside": ([nn.Conv2d(2, 2, 1), nn.MaxPool2d(2, 9, ceil_mode=True)], None),
    "average": (
        [nn.AvgPool2d(3, 2, 1, count_include_pad=False)],
        "windows that count no padding .*count_include_pad=True",
    ),
    "ceiling": (
        [nn.AvgPool2d(4, 4, ceil_mode=True)],
        "its last windows reach beyond the padding .ceil_mode.*leave it out",
    ),
    "indices": ([nn.MaxPool2d(2, return_indices=True)], "0: .*the places of the maxima .return_indices. are not"),
    "adaptive": ([nn.AdaptiveAvgPool2d(4)], r"\[4, 4\] does not divide \[6, 6\]"),
    "softmax": ([nn.Flatten(), nn.Softmax(1), nn.Linear(72, 2)], "1: torch.nn.Softmax: it is only known at the end"),
    "statistics": ([nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)], "1: .*; let it track its own"),
    "nothing": ([nn.Identity()], "it computes nothing; its result is what goes in"),
    "flat end": ([nn.Conv2d(2, 4, 1), nn.Flatten()], "1: its results are values of an image .*end with a linear layer"),
    "inner": (
        [nn.Conv2d(2, 2, 1), Inner()],
        "line .* of test_convert_refused.py: return x if x.mean.*depends on the values",
    ),
}


@pytest.mark.parametrize("case", SEQUENTIAL)
def test_a_module_that_no_circuit_does(case):
    layers, says = SEQUENTIAL[case]
    if says is None:  # just allowed
        assert bittrue.convert(nn.Sequential(*layers).eval(), X)
        return
    with pytest.raises(BittrueError, match=says) as refused:
        bittrue.convert(nn.Sequential(*layers).eval(), X.clone())
    assert str(refused.value).startswith("cannot convert Sequential: ")


def test_a_module_that_is_no_function_of_each_value_is_none_as_a_leaf():
    class Own(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return torch.from_numpy(self.function(x.numpy()))

    model = nn.Sequential(nn.Conv2d(2, 2, 1), Own(np.tanh))
    assert bittrue.convert(model, X, leaves=(Own,)).layers[1].path == "1"
    model = nn.Sequential(nn.Conv2d(2, 2, 1), Own(lambda v: v - v.mean(1, keepdims=True)))
    with pytest.raises(BittrueError, match="1, .*: Own: no layer is known for it|1: Own: no layer is known for it"):
        bittrue.convert(model, X, leaves=(Own,))


# -- statistics and data -------------------------------------------------------------------------------------
def norm() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return learn(nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)), X)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("running_var", float("nan"), "running_var of channel 2 is nan"),
        ("running_var", -1.0, "running_var of channel 2 is -1"),
        ("running_mean", float("inf"), "running_mean of channel 2 is inf"),
        ("weight", float("nan"), "weight of channel 2 is nan"),
        ("running_var", 0.0, r"channel 2 was constant when it was trained \(its running_var is 0\) and is not on"),
    ],
)
def test_statistics_of_a_channel_that_are_none(name, value, says):
    model = norm()
    getattr(model[1], name).data[2] = value
    with pytest.raises(BittrueError, match=f"cannot convert Sequential: 1: .*{says}"):
        bittrue.convert(model, X)


def test_a_channel_that_is_constant_in_training_and_here_is_a_constant():
    model = norm()
    with torch.no_grad():
        model[0].weight[2] = 0
        model[1].running_mean[2], model[1].running_var[2] = model[0].bias[2], 0.0
    network = bittrue.convert(model, X)
    found = network.decode(network.lower()(network.encode(X)))[:, 2]
    np.testing.assert_allclose(found, float(model[1].bias[2]), atol=0.03)


@pytest.mark.parametrize("factor", [255, 1 / 100])
def test_data_of_another_scale_than_those_of_the_training(factor):
    with pytest.raises(
        BittrueError, match="cannot convert Sequential: 1: .*standard deviation.*give them as the model"
    ):
        bittrue.convert(norm(), X * factor)
    assert bittrue.convert(norm(), X * 2)  # just allowed


def test_what_a_normalisation_began_with_is_none_of_the_training():
    """After five batches more than half of its statistics are still the mean 0 and the variance 1 of the beginning."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(X[0].numel(), 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        model[1].weight *= 0.05
        for _ in range(5):
            model(X)
    model.eval()
    assert bittrue.convert(model, X)
    with pytest.raises(BittrueError, match=r"cannot convert Sequential: 2: .*standard deviation"):
        bittrue.convert(model, X * 3000)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (X[:1], "calibration: 1 sample is too few"),
        (X[:0], "calibration: samples have a first axis .* none is empty"),
        (X * float("nan"), "calibration: a value is not finite"),
        (X * 0, "calibration: every value is 0"),
        (X.long(), "calibration: samples are floats, .*int64"),
        (np.zeros((9, 6), np.uint8), r"calibration: images of uint8 are .*got \[9, 6\]"),
        (None, "calibration: samples are an array or a tensor"),
        ("digits", "calibration: samples are an array or a tensor"),
        (X[:, :1], r"it does not take samples of \[1, 6, 6\].*give the calibration data as the model takes them"),
        (X.flatten(1), r"it does not take samples of \[72\]"),
    ],
)
def test_data_that_are_none(data, says):
    with pytest.raises(BittrueError, match=says):
        bittrue.convert(nn.Conv2d(2, 2, 1), data)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bits": 1}, "bits: a width is 2 to 8 bits, not 1"),
        ({"bits": 9}, "bits: a width is 2 to 8 bits, not 9"),
        ({"bits": {"0": True}}, "bits of '0': a width is 2 to 8 bits, not True"),
        ({"bits": {"1": 4}}, "bits: '1' is no layer with weights; those are 0"),
        ({"activation_bits": 16}, "activation_bits: a width is 2 to 8 bits, not 16"),
        ({"requantize": "float"}, "requantize is 'shift' or 'multiplier', not 'float'"),
        ({"ranges": 12}, "ranges is 'mse' or a percentile above 50"),
        ({"ranges": "max"}, "ranges is 'mse' or a percentile above 50"),
        ({"input_range": 0}, "input_range is the largest magnitude of a value, above 0; not 0"),
        ({"input_range": float("inf")}, "input_range is the largest"),
    ],
)
def test_options_that_are_none(options, says):
    with pytest.raises(BittrueError, match=says):
        bittrue.convert(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()), X, **options)


def test_what_is_no_module_is_refused():
    with pytest.raises(BittrueError, match="cannot convert function: it is no torch module"):
        bittrue.convert(lambda x: x, X)


def test_codes_are_made_of_samples_like_those_of_the_calibration():
    network = bittrue.convert(nn.Conv2d(2, 2, 1), X, input_range=4.0)
    assert np.abs(network.encode(X * 1e-3)).max() <= 1
    assert set(np.unique(network.encode(X.sign() * 4))) == {-127, 127}
    most = X.clamp(-1, 1)
    most.view(-1)[: most.numel() // 2] = 99.0  # half of the values, just allowed
    assert network.encode(most).max() == 127
    with pytest.raises(BittrueError, match="encode: values reach .*, and codes 4; scale them as the cal"):
        network.encode(X * 2550)
    with pytest.raises(BittrueError, match=r"encode: samples are \[n, 2, 6, 6\], got \[64, 6, 6, 2\]"):
        network.encode(X.permute(0, 2, 3, 1))
    with pytest.raises(BittrueError, match="sensitivity: bits: a width is 2 to 8 bits, not 0"):
        network.sensitivity(X, np.zeros(64, int), bits=(4, 0))
