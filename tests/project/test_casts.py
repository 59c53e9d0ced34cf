"""Every public place that takes an array refuses what it would have to change, and says what to do about it."""

from __future__ import annotations

import numpy as np
import pytest

import bittrue
from bittrue.models.data import sets
from bittrue.models.data.sets import Data, Split
from bittrue.models.light.layers import integer_form, integer_rails
from bittrue.models.light.network import SimpleMLP, grey, light_codes
from bittrue.models.light.settings import PhotonicPerceptron
from bittrue.models.networks.mlp import Mlp
from bittrue.models.networks.settings import MlpSettings
from bittrue.models.training.loop import predict
from bittrue.sim.contract import Format, round_shift, saturate, wrap
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from tests.helpers.flows import program

PROGRAM = program()
(INPUT,) = PROGRAM.inputs.values()
X = np.zeros((3, *INPUT.shape), INPUT.format.dtype)
PIXELS = np.full((4, 2, 2, 1), 7, np.uint8)
WIDE = PIXELS.astype(np.int64)
LABELS = np.arange(4)
SPLIT = Split(PIXELS, LABELS)
LINE = bittrue.TensorType((4,), Format(8))
ONES = np.ones((4, 4), np.int64)
FOUR = np.arange(4)
S8 = Format(8)
FORM = integer_form(ONES, FOUR, 255)
HELD = Held("w", (4,), -8, 7)


def network(kind, settings):
    return kind(settings, (2, 2, 1), 4)


def affine(shift, bias):
    return Affine(LINE, np.ones(4, np.int64), Requantize(4, shift, bias))


#: A place that takes an array; an array that it takes; the least and the largest number that it takes, None: any.
PLACES = {
    "Split, images": (lambda a: Split(a, LABELS), PIXELS, 0, 255),
    "Split, labels": (lambda a: Split(PIXELS, a), LABELS, None, None),
    "Data, labels": (lambda a: Data("d", tuple("abcd"), Split(PIXELS, a), SPLIT, SPLIT), LABELS, 0, 3),
    "encode": (lambda a: sets.encode(a, 1), WIDE, 0, None),
    "predict": (lambda a: predict(network(Mlp, MlpSettings(hidden=(3,))), a), WIDE, 0, None),
    "predict, light": (lambda a: predict(network(SimpleMLP, PhotonicPerceptron(hidden=(3,))), a), WIDE, 0, None),
    "light_codes": (light_codes, WIDE, 0, None),
    "grey": (grey, np.zeros((1, 2, 2, 3), np.uint8), 0, 255),
    "optical": (FORM.optical, np.zeros((1, 4), np.int64), 0, 255),
    "integer_form, weights": (lambda a: integer_form(a, FOUR, 255), ONES, None, None),
    "integer_form, biases": (lambda a: integer_form(ONES, a, 255), FOUR, None, None),
    "integer_rails": (lambda a: integer_rails(a, ONES, FOUR, 255), ONES, None, None),
    "program": (PROGRAM, X, -128, 127),
    "trace": (PROGRAM.trace, X, -128, 127),
    "verify": (lambda a: bittrue.verify(PROGRAM, [a], counts={}), X, -128, 127),
    "operation": (PROGRAM["embed"], X, -128, 127),
    "reference": (PROGRAM["embed"].reference, X, None, None),
    "held input": (HELD.check, FOUR, -8, 7),
    "held input, initial": (lambda a: Held("w", (4,), -8, 7, a), FOUR, -8, 7),
    "round_shift": (lambda a: round_shift(a, 1), FOUR, None, None),
    "round_shift, shift": (lambda a: round_shift(FOUR, a), FOUR, None, None),
    "saturate": (lambda a: saturate(a, S8), FOUR, None, None),
    "wrap": (lambda a: wrap(a, S8), FOUR, None, None),
}
#: Places that document that they take whole numbers of a float type, too.
WHOLE = {
    "weights": (lambda a: Linear(LINE, a, Requantize(4, FOUR)), ONES, -128, 127),
    "shifts": (lambda a: affine(a, FOUR), FOUR, 0, None),
    "biases": (lambda a: affine(FOUR, a), FOUR, None, None),
}
EVERY = PLACES | WHOLE


def with_first(array, value, dtype):
    other = array.astype(dtype)
    other.flat[0] = value
    return other


BAD = {
    "fractions": lambda a: a.astype(np.float64) + 0.25,
    "halves of float16": lambda a: a.astype(np.float16) + np.float16(0.5),
    "not a number": lambda a: with_first(a, np.nan, np.float32),
    "infinite": lambda a: with_first(a, np.inf, np.float64),
    "huge float": lambda a: with_first(a, 1e300, np.float64),
    "complex": lambda a: a.astype(complex),
    "text": lambda a: a.astype(str),
    "objects": lambda a: a.astype(float).astype(object),
}


@pytest.mark.parametrize("place", EVERY)
def test_what_fits_is_taken(place):
    take, good, low, high = EVERY[place]
    take(good)
    for value in (low, high):
        if value is not None:
            take(with_first(good, value, good.dtype))


@pytest.mark.parametrize("place", EVERY)
@pytest.mark.parametrize("kind", BAD)
def test_what_is_of_another_kind_is_refused(place, kind):
    take, good, *_ = EVERY[place]
    with pytest.raises(BittrueError, match=r"float|complex|object|<U"):
        take(BAD[kind](good))


@pytest.mark.parametrize("place", PLACES)
def test_floats_are_refused_though_they_are_whole(place):
    take, good, *_ = PLACES[place]
    with pytest.raises(BittrueError, match="float64"):
        take(good.astype(np.float64))


@pytest.mark.parametrize("place", WHOLE)
def test_whole_floats_as_parameters_keep_their_values(place):
    take, good, *_ = WHOLE[place]
    kept, made = take(good), take(good.astype(np.float64))
    assert np.array_equal(kept.reference(FOUR[None]), made.reference(FOUR[None]))


@pytest.mark.parametrize("place", [name for name, (*_, low, high) in EVERY.items() if (low, high) != (None, None)])
def test_the_first_number_that_does_not_fit_is_refused(place):
    take, good, low, high = EVERY[place]
    for value in (None if low is None else low - 1, None if high is None else high + 1):
        if value is not None:
            with pytest.raises(BittrueError):
                take(with_first(good, value, np.int64))


@pytest.mark.parametrize("place", [name for name in EVERY if not name.startswith(("encode", "predict", "light_codes"))])
def test_numbers_beyond_int64_are_refused(place):
    """As unsigned numbers they would wrap to negative ones. (Codes of images are clipped, by their definition.)"""
    take, good, *_ = EVERY[place]
    with pytest.raises(BittrueError):
        take(with_first(np.maximum(good, 0), 2**63, np.uint64))


def test_a_split_says_what_to_do():
    with pytest.raises(BittrueError, match=r"float64 of -4\.\.3\.9; scale them to 0\.\.255 and round, for"):
        Split(np.array([-4.0, 3.9, 0, 0]).reshape(1, 2, 2, 1), LABELS[:1])
    with pytest.raises(BittrueError, match=r"one-hot rows give labels.argmax\(1\)"):
        Split(PIXELS, np.eye(4))
    with pytest.raises(BittrueError, match=r"got \(4, 2, 2\) and \(4,\); give grey images a last axis of 1"):
        Split(PIXELS[..., 0], LABELS)
    with pytest.raises(BittrueError, match="one label for each image"):
        Split(PIXELS, LABELS[:3])
    with pytest.raises(BittrueError, match=r"labels of val are 0\.\.3, but there are 3 classes"):
        Data("d", tuple("abc"), Split(PIXELS[:3], LABELS[:3]), SPLIT, SPLIT)
    with pytest.raises(BittrueError, match="bring all to one size"):
        Data("d", tuple("abcd"), SPLIT, SPLIT, Split(np.zeros((1, 2, 3, 1), np.uint8), LABELS[:1]))


@pytest.mark.parametrize("shape", [(2.5,), ("4",), (None,)])
def test_axes_are_whole_numbers(shape):
    with pytest.raises(BittrueError, match="axes of a shape are whole numbers"):
        bittrue.TensorType(shape, S8)
    with pytest.raises(BittrueError, match="axes of a shape are whole numbers"):
        Held("w", shape, 0, 1)


def test_the_index_of_an_image_is_a_whole_number():
    with pytest.raises(BittrueError, match=r"index of the first image is a whole number, not 1\.5"):
        PROGRAM(X, first=1.5)
