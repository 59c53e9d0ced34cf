"""What a network's own forward may be: calls, names, several tensors; anything else is refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bittrue.models.graph.lower import lower, record
from bittrue.models.layers.integer import CodeStep, IntegerAdd, IntegerInput, IntegerLinear
from bittrue.sim.errors import BittrueError
from tests.helpers.lowered import assert_equal, randomised

CHANNELS = 3


def step():
    return CodeStep(1 / 128)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = IntegerInput(CHANNELS)
        self.layer = IntegerLinear(CHANNELS, CHANNELS, step(), step(), 8)
        self.other = IntegerLinear(CHANNELS, CHANNELS, step(), step(), 8)
        self.again = IntegerInput(CHANNELS)
        self.add = IntegerAdd(step(), 8)


def own(forward):
    return randomised(type("Own", (Base,), {"forward": forward})())


@pytest.mark.parametrize(
    ("forward", "operations"),
    [
        (lambda self, codes, mask=None: self.layer(self.start(codes) if mask is None else mask), 1),
        (lambda self, codes, first=0, *, times=2: self.layer(self.start(codes)) if first == 0 < times else None, 1),
        (lambda self, codes, **more: self.layer(self.start(codes), **more), 1),
        (lambda self, *codes: self.layer(self.start(*codes)), 1),
        (lambda self, codes: self.add(self.layer(self.start(codes)), self.start(codes)), 2),
        (lambda self, codes: self.layer(self.layer(self.layer(self.start(codes)))), 3),
        (lambda self, codes: (self.other(self.start(codes)), self.layer(self.start(codes)))[1], 1),
    ],
)
def test_what_a_forward_may_be(forward, operations):
    network = own(forward)
    program = lower(network)
    assert len(program.nodes) == operations
    assert_equal(network, program)


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (
            lambda self, codes, more: self.add(self.start(codes), self.start(more)),
            "one IntegerInput for each tensor of codes.*start is another",
        ),
        (lambda self, codes, _: self.layer(self.start(codes)), "it takes 2 tensors and reads 1 of them; leave"),
        (lambda self: self.layer(self.start(torch.zeros(1, 3))), "cannot lower Own"),
        (lambda self, codes: [self.layer(self.start(codes))], "its forward gives a list"),
        (lambda self, codes: (self.layer(self.start(codes)), 1), "its forward gives a int in a tuple"),
        (lambda self, codes: (self.layer(self.start(codes)), codes), "the tensor that enters it in a tuple"),
        (lambda self, codes: {"logits": self.layer(self.start(codes))}, "its forward gives a dict"),
        (lambda *_: None, "its forward gives a NoneType"),
        (lambda _, codes: codes, "its forward gives the tensor that enters it"),
        (lambda self, codes: self.start(codes), "its forward gives the tensor that enters it"),
        (
            lambda self, codes: self.layer(codes),
            r"layer \(IntegerLinear\) reads the network's codes; .*no IntegerInput",
        ),
        (lambda self, codes: self.add(self.start(codes), codes), r"add \(IntegerAdd\) reads the network's codes"),
        (lambda self, codes: self.add(self.start(codes), self.again(codes)), "one IntegerInput.*again is another"),
        (lambda self, codes: self.layer(self.start(self.start(codes))), "one IntegerInput"),
    ],
)
def test_other_forwards_are_refused_with_a_sentence(forward, says):
    with pytest.raises(BittrueError, match=says):
        lower(own(forward))


def test_a_forward_may_take_and_give_several_tensors():
    """In the order of its arguments, whatever the order in which it reads them."""

    def forward(self, codes, more):
        second = self.again(more)
        total = self.add(self.layer(self.start(codes)), second)
        return self.other(second), total

    network = own(forward)
    program = lower(network)
    assert list(program.inputs) == ["x_2", "x"]
    assert program.results == ("other", "add")
    rng = np.random.default_rng(1)
    codes = [rng.integers(-128, 128, (20, CHANNELS)).astype(np.int8) for _ in range(2)]
    recorded, traced = record(network, *codes), program.trace(*codes).tensors
    assert recorded.keys() == traced.keys()
    for name, values in traced.items():
        assert np.array_equal(recorded[name], values), name
    assert np.array_equal(traced["x_2"], codes[0])


def test_names_do_not_collide():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = IntegerInput(CHANNELS)
            names = ("x", "a", "a_2", "a_3", "self", "start")
            self.layers = nn.ModuleDict({name: IntegerLinear(CHANNELS, CHANNELS, step(), step(), 8) for name in names})
            self.x = IntegerLinear(CHANNELS, CHANNELS, step(), step(), 8)

        def forward(self, codes):
            x = self.x(self.start(codes))
            for name in ("a", "a_3", "a", "a_2", "a", "x", "self", "start"):
                x = self.layers[name](x)
            return self.x(x)

    network = randomised(Named())
    program = lower(network, self="said", model="also", result=3)
    assert {"self": "said", "model": "also", "result": 3}.items() <= program.meta.items()
    assert [node.name.removeprefix("layers_") for node in program.nodes] == [
        *("x_2", "a", "a_3", "a_2", "a_2_2", "a_4", "x", "self", "start", "x_3")
    ]
    assert_equal(network, program)


@pytest.mark.parametrize("name", ["scales", "functions"])
def test_meta_that_lowering_finds_is_not_given(name):
    with pytest.raises(BittrueError, match=f"lower: '{name}' of the program's meta"):
        lower(own(lambda self, codes: self.layer(self.start(codes))), **{name: {}})
