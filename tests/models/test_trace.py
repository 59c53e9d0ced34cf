"""Any forward of integer layers is lowered, in whatever way its layers are called."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import bittrue.models
from bittrue.models.fs.convert import relu_set
from bittrue.models.fs.layers import IntegerEncode, IntegerFsNeuron, IntegerSpikingLinear, Neurons, TensorSpikingLinear
from bittrue.models.fs.settings import Convert
from bittrue.models.graph.lower import lower
from bittrue.models.layers.embedding import IndexInput, TensorEmbedding
from bittrue.models.layers.given import GivenConv
from bittrue.models.layers.groups import Regrouping, TensorBundle, TensorUnbundle
from bittrue.models.layers.integer import (
    CodeStep,
    IntegerAdd,
    IntegerInput,
    IntegerLayer,
    IntegerLinear,
)
from bittrue.models.layers.tensors import (
    TensorAffine,
    TensorClamp,
    TensorFunction,
    TensorInput,
    TensorLayer,
    TensorLinear,
    TensorMap,
    TensorProduct,
    TensorTable,
    TensorTranspose,
)
from bittrue.models.layers.windows import (
    Reading,
    TensorArgMax,
    TensorConcat,
    TensorConv,
    TensorDepthwise,
    TensorMaximum,
    TensorMean,
    TensorMultiply,
    TensorReshape,
    TensorSlice,
    TensorUpsample,
)
from bittrue.models.light.array import IntegerPhotonicArray
from bittrue.models.light.integer import IntegerLightInput, IntegerPhotonicTable, IntegerTileSum
from bittrue.models.light.settings import Array
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.add import Add
from tests.helpers.lowered import assert_equal, randomised

TOKENS, CHANNELS = 4, 3


def step():
    return CodeStep(1 / 128)


def photonic():
    array = IntegerPhotonicArray(CHANNELS, 2, CodeStep(1 / 255), CodeStep(0.01), Array(), 0)
    return IntegerLightInput(CHANNELS, 8), array


def neuron(parameters=None):
    neurons = Neurons(parameters or relu_set(4), Convert())
    return neurons.layer(neurons.unit())


READING = Reading((3, 2), (2, 1), padding=(1, 0, 0, 1))
PAIRS = Regrouping(2, [2])
PRODUCT, WIDTHS = (step(), step(), 8, ""), {"weight_bits": 8, "input_bits": 8}


def flat():
    return TensorInput((TOKENS, CHANNELS), step(), 8)


def image():
    return TensorInput((5, 4, CHANNELS), step(), 8)


def parameters(*shape):
    return nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape[0]))


def bundle(outputs):
    weight, bias = nn.Parameter(torch.zeros(2, outputs, CHANNELS)), nn.Parameter(torch.zeros(outputs))
    return TensorBundle(PAIRS, torch.arange(CHANNELS), weight, bias, *PRODUCT, **WIDTHS)


#: One layer of every kind behind an input: what the codes go through, layer after layer, the last being of that kind.
LAYERS = {
    IntegerLinear: lambda: [IntegerInput(CHANNELS), IntegerLinear(CHANNELS, 5, step(), step(), 8)],
    IntegerAdd: lambda: [flat(), IntegerAdd(step(), 8)],
    IntegerEncode: lambda: [IntegerInput(CHANNELS), IntegerEncode(step(), 8)],
    IntegerFsNeuron: lambda: [IntegerInput(CHANNELS), IntegerLinear(CHANNELS, CHANNELS, step(), step(), 6), neuron()],
    IntegerSpikingLinear: lambda: [
        IntegerInput(CHANNELS),
        IntegerEncode(step(), 8),
        IntegerSpikingLinear(CHANNELS, 4, step(), step(), 8, np.array([-128, 64, 32, 16, 8, 4, 2, 1])),
    ],
    TensorSpikingLinear: lambda: [
        flat(),
        IntegerEncode(step(), 8),
        TensorSpikingLinear(
            *parameters(4, CHANNELS), step(), step(), 8, "", decode=-(2 ** np.arange(8)[::-1]), weight_bits=8
        ),
    ],
    IntegerPhotonicArray: lambda: [*photonic()],
    IntegerTileSum: lambda: [*photonic(), IntegerTileSum(photonic()[1], CodeStep(0.01), 8, 0.0, signed=True)],
    IntegerPhotonicTable: lambda: [
        IntegerLightInput(CHANNELS, 8),
        IntegerPhotonicTable("relu", 1.0, CodeStep(1 / 255), 8, 0.0, 8),
    ],
    TensorLinear: lambda: [flat(), TensorLinear(*parameters(4, CHANNELS), *PRODUCT, **WIDTHS)],
    TensorAffine: lambda: [flat(), TensorAffine(*parameters(CHANNELS, 1), *PRODUCT, **WIDTHS)],
    TensorFunction: lambda: [flat(), TensorFunction(lambda v: v.sin()[None], CodeStep(1 / 64), step(), 8, "", 8)],
    TensorTable: lambda: [flat(), TensorTable(lambda v: v.sin().expand(CHANNELS, -1), step(), step(), 8, 8, "")],
    TensorClamp: lambda: [flat(), TensorClamp((-0.5, 0.25), step(), 8, "")],
    TensorTranspose: lambda: [flat(), TensorTranspose(step(), 8, "")],
    TensorReshape: lambda: [flat(), TensorReshape((CHANNELS, TOKENS), step(), 8, "")],
    TensorSlice: lambda: [flat(), TensorSlice(1, 3, step(), 8, "")],
    TensorUpsample: lambda: [image(), TensorUpsample((2, 1), False, step(), 8, "")],
    TensorMultiply: lambda: [flat(), TensorMultiply(step(), step(), None, 8, "", shift=6)],
    TensorConcat: lambda: [flat(), TensorConcat(step(), 8, "")],
    TensorArgMax: lambda: [flat(), TensorArgMax(CodeStep(1.0), 8, "")],
    TensorConv: lambda: [image(), TensorConv(READING, *parameters(4, 6 * CHANNELS), *PRODUCT, **WIDTHS)],
    GivenConv: lambda: [
        image(),
        GivenConv(READING, *parameters(4, 6 * CHANNELS), *PRODUCT, gain=torch.arange(1.0, 5), unit=0.2, **WIDTHS),
    ],
    TensorEmbedding: lambda: [IndexInput((TOKENS,), 3), TensorEmbedding(torch.arange(24.0).view(6, 4), step(), 8, "")],
    TensorDepthwise: lambda: [image(), TensorDepthwise(READING, *parameters(CHANNELS, 6), *PRODUCT, **WIDTHS)],
    TensorMaximum: lambda: [image(), TensorMaximum(READING, step(), 8, "")],
    TensorBundle: lambda: [flat(), bundle(5)],
    TensorUnbundle: lambda: [flat(), bundle(6), TensorUnbundle(PAIRS, step(), 8, "")],
    TensorMean: lambda: [image(), TensorMean(READING, 6, 6, step(), None, 8, "", shift=2)],
}

INPUTS = {IntegerInput, IntegerLightInput, IndexInput, TensorInput}
BASES = {TensorLayer, TensorMap, TensorProduct}


class Inner(nn.Module):
    """A module within the network, which is given the tensors in one argument or the other."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, given=(), *, by_name=None):
        return self.layer(**by_name) if by_name else self.layer(*given)


def by_name(layer, xs):
    return dict(zip(inspect.signature(layer.forward).parameters, xs, strict=False))


FORMS = {
    "by position": lambda net, xs: net.layer(*xs),
    "by keyword": lambda net, xs: net.layer(**by_name(net.layer, xs)),
    "by keyword, the last first": lambda net, xs: net.layer(**dict(reversed(by_name(net.layer, xs).items()))),
    "the first by position": lambda net, xs: net.layer(xs[0], **dict(list(by_name(net.layer, xs).items())[1:])),
    "a module with a list": lambda net, xs: net.inner(list(xs)),
    "a module with a list by keyword": lambda net, xs: net.inner(given=tuple(xs)),
    "a module with a dictionary": lambda net, xs: net.inner(by_name=by_name(net.layer, xs)),
}


class Network(nn.Module):
    def __init__(self, chain, call):
        super().__init__()
        self.start, *before, self.layer = chain
        self.before = nn.ModuleList(before)
        self.inner = Inner(self.layer)
        self.call = call

    def forward(self, codes):
        x = self.start(codes)
        for layer in self.before:
            x = layer(x)
        two = isinstance(self.layer, IntegerAdd | TensorConcat | TensorMultiply)
        return self.call(self, [x, self.start(codes)] if two else [x])


def kinds(base=IntegerLayer):
    for module in pkgutil.walk_packages(bittrue.models.__path__, "bittrue.models."):
        importlib.import_module(module.name)
    pending, found = [base], set()
    while pending:
        found.update(new := pending.pop().__subclasses__())
        pending += new
    return {kind for kind in found if kind.__module__.startswith("bittrue.")}


def test_there_is_a_case_for_every_layer_and_every_layer_lowers_itself():
    assert kinds() == {*LAYERS, *INPUTS, *BASES}
    assert all(kind.emit is not IntegerLayer.emit for kind in LAYERS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_every_layer_may_be_called_in_every_way(kind, form):
    network = randomised(Network(LAYERS[kind](), FORMS[form]))
    program = lower(network)
    assert type(network.layer) is kind
    assert program.sha256 == lower(randomised(Network(LAYERS[kind](), FORMS["by position"]))).sha256
    assert_equal(network, program)


def test_a_dialect_is_lowered_without_its_import():
    """The layers are all that a network brings along."""
    code = """
from torch.nn import Sequential
from bittrue.models.graph.lower import lower
from bittrue.models.fs.layers import IntegerEncode, IntegerSpikingLinear, Neurons
from bittrue.models.fs.sets import find
from bittrue.models.fs.settings import Convert
from bittrue.models.layers.integer import CodeStep, IntegerInput
from bittrue.models.light.integer import IntegerPhotonicMLP
from bittrue.models.light.settings import Array
neurons, start = Neurons(find("relu"), Convert()), IntegerInput(4)
unit, encoder = neurons.unit(), IntegerEncode(start.target, 8)
first = IntegerSpikingLinear(4, 3, start.target, unit, neurons.bits, encoder.decode.numpy().astype(int))
last = IntegerSpikingLinear(3, 2, unit, CodeStep(), 8, neurons.integers.decode)
spikes = Sequential(start, encoder, first, neurons.layer(unit), last)
light = IntegerPhotonicMLP((4, 3, 2), ("relu",), (1.0, 1.0), Array(), (2, 2, 1))
print(len(lower(spikes).nodes), len(lower(light).nodes))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["4", "5"], done.stderr


# -- layers of one's own -------------------------------------------------------------------------------
class Total(IntegerLayer):
    """The sum of any number of tensors, given in one list or dictionary."""

    def __init__(self):
        super().__init__(CodeStep(1 / 128), 8)

    def forward(self, xs, more=()):
        values = [*(xs.values() if isinstance(xs, dict) else xs), *more]
        total = values[0]
        for value in values[1:]:
            total = (total + value).clamp(self.low, self.high)
        return total

    def emit(self, lowering, name, first, *others):
        total = first
        for k, other in enumerate(others):
            made = f"{name}.{k}" if k < len(others) - 1 else name
            total = lowering.add(
                made, Add(lowering.type(total), lowering.type(other), INT8), total, other, scale=self.scale
            )
        return total


@pytest.mark.parametrize(
    "call",
    [
        lambda total, a, b, c: total([a, b, c]),
        lambda total, a, b, c: total((a, (b, c))[0:1] + (b, c)),
        lambda total, a, b, c: total(xs=[a, b, c]),
        lambda total, a, b, c: total({"q": a, "p": b}, [c]),
        lambda total, a, b, c: total(more=(b, c), xs=[a]),
    ],
    ids=["list", "tuple", "keyword", "dictionary and list", "keywords turned"],
)
def test_tensors_in_lists_and_dictionaries_are_operands(call):
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.total = IntegerInput(CHANNELS), Total()
            self.b = IntegerLinear(CHANNELS, CHANNELS, step(), step(), 8)
            self.c = IntegerLinear(CHANNELS, CHANNELS, step(), step(), 8)

        def forward(self, codes):
            a = self.start(codes)
            return call(self.total, a, self.b(a), self.c(a))

    network = randomised(Three())
    program = lower(network)
    assert [(node.name, node.operands) for node in program.nodes[2:]] == [
        ("total.0", ("x", "b")),
        ("total", ("total.0", "c")),
    ]
    codes = np.random.default_rng(1).integers(-128, 128, (20, CHANNELS)).astype(np.int8)
    assert np.array_equal(program(codes), network(torch.from_numpy(codes)).detach().numpy())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda add, x: add([x, x]), r"layer add \(IntegerAdd\): it is called with other arguments .*missing.*'y'"),
        (lambda add, x: add(x), r"layer add \(IntegerAdd\): .*missing.*'y'"),
        (lambda add, x: add(x, x, x), r"layer add \(IntegerAdd\): .*too many positional"),
        (lambda add, x: add(x, z=x), r"layer add \(IntegerAdd\): .*"),
        (lambda add, x: add(x, 3), r"layer add \(IntegerAdd\): its argument 'y' is given 3"),
        (lambda add, x: add(x, None), r"its argument 'y' is given None"),
        (lambda add, x: add(x, [x, x]), r"layer add \(IntegerAdd\): it cannot be lowered with 3 tensors"),
        (lambda add, x: add(x, [x, 1.5]), r"its argument 'y' is given \[.*1.5\]"),
        (lambda add, x: add(x, x + 1), "cannot lower 'add' in the forward of"),
        (lambda add, x: add(x, torch.relu(x)), "cannot lower 'relu' in the forward of"),
        (lambda add, x: add(x, x.abs()), "cannot lower 'abs' in the forward of"),
        (lambda add, x: add(x, x.shape[0]), "cannot lower 'getattr' in the forward of"),
        (lambda add, x: add(x, torch.ones(1)), "cannot lower .* in the forward of"),
        (lambda add, x: (x.abs_(), add(x, x))[1], "cannot lower 'abs_' in the forward of"),  # its result is not read
        (lambda add, x: add(*x), "its forward depends on its data"),
        (lambda add, x: add(x, x.numpy().astype(int)), "cannot lower 'numpy'|cannot be followed"),
        (lambda add, x: add(x, np.add(x, 1)), "cannot be followed with codes alone"),
        (lambda add, x: add(x, int(x)), "cannot be followed with codes alone|depends on its data"),
        (lambda add, x: add.nothing(x), "cannot be followed with codes alone .*AttributeError.*nothing"),
        (lambda _, x: IntegerAdd(step(), 8)(x, x), "cannot be followed.*registered in it"),
    ],
)
def test_other_calls_are_refused_with_a_sentence(call, says):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.add = IntegerInput(CHANNELS), IntegerAdd(step(), 8)

        def forward(self, codes):
            return call(self.add, self.start(codes))

    with pytest.raises(BittrueError, match=says):
        lower(Own())


def test_arguments_that_are_no_tensors_are_those_that_a_layer_takes_anyway():
    def network(call):
        return Network([*photonic()], lambda net, xs: call(net.layer, *xs))

    assert_equal(n := randomised(network(lambda layer, x: layer(x, 0))), lower(n))
    assert_equal(n := randomised(network(lambda layer, x: layer(first=0, x=x))), lower(n))
    with pytest.raises(BittrueError, match=r"layer layer \(IntegerPhotonicArray\): its argument 'first' is given 7"):
        lower(network(lambda layer, x: layer(x, first=7)))
