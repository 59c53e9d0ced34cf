"""Every refusal has a neighbour that is just allowed: both are tried, so that a bound cannot move by one."""

import re

import numpy as np
import pytest

from bittrue.sim import threads
from bittrue.sim.contract import INT8, Format, Range, check_bits
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.noise import Noise
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.concat import Concat
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.slice import Slice
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.operations.upsample import Upsample
from bittrue.sim.operations.window import Window
from bittrue.sim.requantize import Requantize

FOUR = Format(4, signed=False)
TWO = TensorType((2,), INT8)
ONE = np.ones((1, 1), int)
TIMES = TensorType((3, 1), INT8)
MOST_NOISE = (1 << 47) - 1 - (1 << 40)


def code(value):
    return TensorType((1,), INT8).check(np.array([[value]]), "x")


def lif(keep=1, shift=0, guard=0):
    return Lif(TensorType((1, 1), Format(1)), None, None, np.array([keep]), shift, guard)


def lerp(bits, knots, value=0):
    return Lerp(TensorType((1,), Format(bits)), np.full((1, knots), value))


def mac(rows=1, bits=4, shift=0, cell=1, offset=((0,), (0,)), noise=None, tokens=1):
    kind = TensorType((tokens, 2), FOUR)
    cells = np.full((1, 2), cell)
    return PhotonicMac(kind, cells, cells, rows, bits, shift, np.array(offset), FOUR, noise)


def cells(plus, minus, fmt=FOUR, held=FOUR):
    return PhotonicMac(TensorType((2,), fmt), np.array(plus), np.array(minus), 1, 4, 0, np.zeros(1, int), held, None)


def weighted(weight):
    return SpikingLinear(TensorType((2, 2), SPIKE), np.array(weight), np.array([2, 1]), Requantize(1, 0), Format(4))


def ranges(low=0, high=0, **options):
    r = Requantize(1, np.array(20), multiplier=np.array(1 << 20), **options)
    return r.ranges(np.array([low]), np.array([high]), "x")


def noise(**options):
    return Noise(**{"seed": 0, "layer": 0, "relative": 1, "shot": 0, "thermal": 0, "shift": 0, **options})


def fs(steps=1, value=0, **limits):
    return FsNeuron(TWO, np.full(steps, value), np.zeros(steps, int), **limits)


def spiking(shape=(2, 1), weight=1, decode=(2, 1), outputs=1):
    kind = TensorType(shape, SPIKE)
    return SpikingLinear(kind, np.full((1, shape[-1]), weight), np.array(decode), Requantize(outputs, 0), Format(4))


def window(shape=(3, 4, 1), kernel=(2, 2), stride=(1, 1), dilation=(1, 1), padding=(0, 0, 0, 0), fill=0):
    return Window(TensorType(shape, INT8), kernel, stride, dilation, padding, fill)


def depthwise(weight=1, taps=2, channels=2):
    return Depthwise(TensorType((2, 2), INT8), np.full((taps, channels), weight), Requantize(2, 0))


def of_channels(*bias):
    """Two sums of up to 2^46 in magnitude, with these numbers added behind the shift."""
    ends = np.full(len(bias), 1 << 46)
    return Requantize(len(bias), 0, np.array(bias)).ranges(-ends, ends, "x")


WIDE = TensorType((2,), Format(24))
WEIGHTS = Format(43)


def requantize(floor=None, **numbers):
    return Requantize(1, **{"shift": 0, **numbers}, format=Format(4), floor=floor)


#: What, how it is made, what is refused, and the nearest that is allowed.
LIMITS = {
    "no axis": (lambda shape: TensorType(shape, INT8), (), (1,)),
    "one empty axis": (lambda shape: TensorType(shape, INT8), (0,), (1,)),
    "an empty axis before another": (lambda shape: TensorType(shape, INT8), (0, 3), (1, 3)),
    "an empty axis after another": (lambda shape: TensorType(shape, INT8), (3, 0), (3, 1)),
    "format without bits": (Format, 0, 1),
    "widest format": (Format, 49, 48),
    "formats whose codes are listed": (lambda bits: Format(bits).codes(), 17, 16),
    "range": (lambda low: Range(low, 3), 4, 3),
    "widest intermediate": (lambda most: check_bits(most, "x"), float(1 << 47), float((1 << 47) - 1)),
    "lowest code": (code, -129, -128),
    "highest code": (code, 128, 127),
    "a negative shift": (lambda n: requantize(shift=n), -1, 0),
    "largest shift": (lambda n: requantize(shift=n), 48, 47),
    "least multiplier": (lambda n: requantize(multiplier=n), 0, 1),
    "lowest floor": (requantize, -9, -8),
    "highest floor": (requantize, 8, 7),
    "channels of the requantiser": (lambda n: Linear(TWO, np.ones((1, 2)), Requantize(n, 0)), 2, 1),
    "lowest weight": (lambda w: Linear(TWO, np.full((1, 2), w), Requantize(1, 0)), -129, -128),
    "highest weight": (lambda w: Linear(TWO, np.full((1, 2), w), Requantize(1, 0)), 128, 127),
    "a low weight beside others": (lambda w: Linear(TWO, np.array([[w, 3]]), Requantize(1, 0)), -129, -128),
    "a high weight beside others": (lambda w: Linear(TWO, np.array([[3, w]]), Requantize(1, 0)), 128, 127),
    "a low factor beside others": (lambda w: Affine(TWO, np.array([w, 3]), Requantize(2, 0)), -129, -128),
    "a high factor beside others": (lambda w: Affine(TWO, np.array([3, w]), Requantize(2, 0)), 128, 127),
    "a low weight of a spike beside others": (lambda w: spiking((2, 2), [w, 3]), -9, -8),
    "a high weight of a spike beside others": (lambda w: spiking((2, 2), [3, w]), 8, 7),
    "fewest knots": (lambda n: lerp(3, n), 1, 2),
    "most knots": (lambda n: lerp(3, n), 17, 9),
    "knots between powers of two": (lambda n: lerp(3, n), 4, 5),
    "widest code of a table": (lambda bits: lerp(bits, 3), 17, 16),
    "lowest knot": (lambda value: lerp(3, 3, value), -129, -128),
    "highest knot": (lambda value: lerp(3, 3, value), 128, 127),
    "axes of a transpose": (lambda shape: Transpose(TensorType(shape, INT8)), (1, 2, 3), (2, 3)),
    "axes of an image": (lambda shape: window(shape), (3, 4), (3, 4, 1)),
    "axes of a kernel": (lambda kernel: window(kernel=kernel), (2, 2, 2), (2, 2)),
    "a kernel without taps": (lambda n: window(kernel=(n, 1)), 0, 1),
    "a stride of nothing": (lambda n: window(stride=(1, n)), 0, 1),
    "a dilation of nothing": (lambda n: window(dilation=(n, 1)), 0, 1),
    "a negative padding": (lambda n: window(padding=(0, n, 0, 0)), -1, 0),
    "lowest fill": (lambda n: window(fill=n), -129, -128),
    "highest fill": (lambda n: window(fill=n), 128, 127),
    "kernel rows": (lambda n: window(kernel=(n, 1)), 4, 3),
    "kernel columns": (lambda n: window(kernel=(1, n)), 5, 4),
    "kernel rows of a padded image": (lambda n: window(kernel=(n, 1), padding=(1, 1, 0, 0)), 6, 5),
    "kernel columns beside rows above": (lambda n: window(kernel=(4, n), padding=(3, 0, 0, 0)), 5, 4),
    "kernel columns beside rows below": (lambda n: window(kernel=(4, n), padding=(0, 3, 0, 0)), 5, 4),
    "kernel rows beside columns": (lambda n: window(kernel=(n, 3), padding=(0, 0, 2, 2)), 4, 3),
    "kernel columns of a padded image": (lambda n: window(kernel=(1, n), padding=(0, 0, 1, 1)), 7, 6),
    "rows between taps": (lambda n: window(dilation=(n, 1)), 3, 2),
    "windows above the image": (lambda n: window(padding=(n, 0, 0, 0)), 2, 1),
    "windows behind the image": (lambda n: window(padding=(0, 0, 0, n)), 2, 1),
    "windows whose taps miss the image": (
        lambda n: window((1, 4, 1), (2, 1), (2, 1), (2, 1), (n, 4 - n, 0, 0)),  # rows -1 and 1, of one row
        1,
        2,
    ),
    "codes of a reshape": (lambda n: Reshape(TensorType((2, 3), INT8), (n,)), 5, 6),
    "an empty axis of a reshape": (lambda n: Reshape(TensorType((2, 3), INT8), (n, 6)), 0, 1),
    "axes of a maximum": (lambda shape: Maximum(TensorType(shape, INT8)), (3,), (1, 3)),
    "axes of a mean": (lambda shape: Mean(TensorType(shape, INT8), Requantize(3, 0)), (3,), (1, 3)),
    "channels of a mean": (lambda n: Mean(TensorType((2, 3), INT8), Requantize(n, 0)), 1, 3),
    "outputs of tiles": (lambda n: TileSum(TensorType((1, 3), INT8), 0, Requantize(n, 0)), 1, 3),
    # 510 is the most that is drawn, 15 the brightest light; with a step of the shift on top it has to fit 48 bits
    "noise of the light": (
        lambda n: mac(noise=Noise(0, 0, n, shift=40)),
        MOST_NOISE // (510 * 15) + 1,
        MOST_NOISE // (510 * 15),
    ),
    "noise of the photons": (
        lambda n: mac(noise=Noise(0, 0, 0, n, shift=40)),  # by the root of the light
        MOST_NOISE // (510 * 3) + 1,
        MOST_NOISE // (510 * 3),
    ),
    "noise of the receiver": (lambda n: mac(noise=Noise(0, 0, 0, 0, n, 40)), MOST_NOISE // 510 + 1, MOST_NOISE // 510),
    "sites of noise": (lambda n: mac(tokens=n, noise=Noise(0, 0, 1)), 1 << 30, (1 << 30) - 1),
    "lowest of a held weight": (lambda n: Linear(TWO, Held("w", (1, 2), n, 3), Requantize(1, 0)), -129, -128),
    "highest of a held weight": (lambda n: Linear(TWO, Held("w", (1, 2), -3, n), Requantize(1, 0)), 128, 127),
    "rows of factors": (lambda w: Affine(TWO, np.array(w), Requantize(2, 0)), [[1, 1]], [1, 1]),
    "factors of the channels": (lambda w: Affine(TWO, np.array(w), Requantize(2, 0)), [1], [1, 1]),
    "channels of a scaling": (lambda n: Affine(TWO, np.ones(2, int), Requantize(n, 0)), 3, 2),
    "a row of weights": (lambda w: Linear(TWO, np.array(w), Requantize(1, 0)), [1, 1], [[1, 1]]),
    "weights of the inputs": (lambda w: Linear(TWO, np.array(w), Requantize(1, 0)), [[1]], [[1, 1]]),
    "a row of knots": (lambda k: Lerp(TWO, np.array(k)), [1, 1], [[1, 1]]),
    "knots of the channels": (lambda k: Lerp(TWO, np.array(k)), [[1, 1]] * 3, [[1, 1]] * 2),
    "rows of values of a neuron": (lambda k: Lif(TIMES, None, None, np.array(k)), [[1]], [1]),
    "a delayed reset by a value": (
        lambda subtract: Lif(TIMES, np.array([1]), np.array([1]), np.array([1]), subtract=subtract, delayed=True),
        False,
        True,
    ),
    "a delayed reset without threshold": (
        lambda t: Lif(TIMES, t, t, np.array([1]), subtract=True, delayed=True),
        None,
        np.array([1]),
    ),
    "steps of a neuron": (lambda shape: Lif(TensorType(shape, INT8), None, None, np.array([1])), (1,), (1, 1)),
    "a row of cells": (lambda c: cells(c, c), [1, 1], [[1, 1]]),
    "cells of both rails": (lambda c: cells(c, [[1, 1]]), [[1, 1], [1, 1]], [[1, 1]]),
    "cells of the inputs": (lambda c: cells(c, c), [[1]], [[1, 1]]),
    "light below nothing": (lambda fmt: cells([[1, 1]], [[1, 1]], fmt), Format(4), FOUR),
    "tiles of the offsets": (lambda values: mac(offset=values), ((0,),) * 3, ((0,),) * 2),
    "a row of weights of spikes": (lambda w: weighted(w), [1, 1], [[1, 1]]),
    "weights of spikes": (lambda w: weighted(w), [[1]], [[1, 1]]),
    "values of a requantiser": (lambda n: Requantize(3, np.ones(n, int)), 2, 3),
    "rows of a requantiser": (lambda v: Requantize(2, np.array(v)), [[1, 1]], [1, 1]),
    "held values of a requantiser": (lambda n: Requantize(2, 0, bias=Held("b", (n,), 0, 1)), 3, 2),
    "axes of a batch": (lambda shape: TWO.check(np.zeros(shape, np.int8), "x"), (2,), (1, 2)),
    "channels of a batch": (lambda shape: TWO.check(np.zeros(shape, np.int8), "x"), (1, 3), (1, 2)),
    "a fill that is no number": (lambda fill: window(fill=fill), True, 1),
    "a fill between codes": (lambda fill: window(fill=fill), 1.0, np.int64(1)),
    "bits that are no number": (Format, 4.0, 4),
    "threads": (threads.check, 0, 1),
    "most threads": (threads.check, 1025, 1024),
    "threads that are no number": (threads.check, True, 1),
    "lowest weight of a tap": (depthwise, -129, -128),
    "highest weight of a tap": (depthwise, 128, 127),
    "taps of a channel": (lambda n: depthwise(taps=n), 3, 2),
    "channels of taps": (lambda n: depthwise(channels=n), 1, 2),
    "channels of weighted taps": (
        lambda n: Depthwise(TensorType((2, 2), INT8), np.ones((2, 2), int), Requantize(n, 0)),
        3,
        2,
    ),
    "no branch": (lambda n: Concat((TWO,) * n), 0, 1),
    "formats of branches": (lambda bits: Concat((TWO, TensorType((5,), Format(bits)))), 7, 8),
    "axes of branches": (lambda shape: Concat((TensorType((2, 2), INT8), TensorType(shape, INT8))), (1, 2), (2, 1)),
    "shapes of a sum": (lambda n: Add(TWO, TWO, INT8, (TensorType((n,), INT8),)), 3, 2),
    "shapes of a product": (lambda n: Multiply(TWO, TensorType((n,), INT8), Requantize(2, 0)), 1, 2),
    "channels of a product": (lambda n: Multiply(TWO, TWO, Requantize(n, 0)), 1, 2),
    "widest product": (
        lambda bits: Multiply(TensorType((1,), Format(24)), TensorType((1,), Format(bits)), Requantize(1, 0)),
        25,
        24,
    ),
    "first channel of a slice": (lambda n: Slice(TWO, n, 2), -1, 0),
    "last channel of a slice": (lambda n: Slice(TWO, 1, n), 3, 2),
    "an empty slice": (lambda n: Slice(TWO, n, 1), 1, 0),
    "axes of a larger image": (lambda shape: Upsample(TensorType(shape, INT8), (1, 1)), (2, 2), (1, 2, 2)),
    "a factor of nothing": (lambda n: Upsample(TensorType((1, 1, 1), INT8), (1, n)), 0, 1),
    "factors of a larger image": (lambda factors: Upsample(TensorType((1, 1, 1), INT8), factors), (2,), (2, 2)),
    "channels that are pixels": (lambda n: Upsample(TensorType((1, 1, n), INT8), (2, 3), True), 5, 6),
    "limits that cross": (lambda low: Clamp(TWO, low, 5, INT8), 6, 5),
    "limit below the codes": (lambda low: Clamp(TWO, low, 5, INT8), -129, -128),
    "limit above the codes": (lambda high: Clamp(TWO, 0, high, INT8), 128, 127),
    "limit above the results": (lambda high: Clamp(TWO, 0, high, Format(4)), 8, 7),
    "axes of tiles": (lambda shape: TileSum(TensorType(shape, INT8), 0, Requantize(3, 0)), (3,), (1, 3)),
    "a negative step of the converter": (lambda n: TileSum(TensorType((1, 1), SPIKE), n, Requantize(1, 0)), -1, 0),
    "largest step of the converter": (lambda n: TileSum(TensorType((1, 1), SPIKE), n, Requantize(1, 0)), 41, 40),
    "light and what is taken off it": (
        lambda n: PhotonicMac(TensorType((1,), Format(46, signed=False)), ONE, ONE, 1, 4, 0, n * ONE, FOUR),
        1 << 46,
        (1 << 46) - 1,
    ),
    "rows of a tile": (lambda n: mac(rows=n, offset=0), 0, 1),
    "fewest bits of an ADC": (lambda n: mac(bits=n), 0, 1),
    "most bits of an ADC": (lambda n: mac(bits=n), 25, 24),
    "a negative shift of an ADC": (lambda n: mac(shift=n), -1, 0),
    "largest shift of an ADC": (lambda n: mac(shift=n), 41, 40),
    "a cell that takes light away": (lambda n: mac(cell=n), -1, 0),
    "widest open cell": (lambda n: mac(cell=n), 16, 15),
    "offsets of the tiles": (lambda values: mac(offset=values), ((0, 0), (0, 0)), ((0,), (0,))),
    "no step": (fs, 0, 1),
    "most steps": (fs, 33, 32),
    "a threshold that is no row": (lambda t: FsNeuron(TWO, np.array(t), np.array([1])), 1, [1]),
    "a reset that is no row": (lambda r: FsNeuron(TWO, np.array([1]), np.array(r)), 1, [1]),
    "rows of thresholds": (lambda t: FsNeuron(TWO, np.array(t), np.array([1])), [[1]], [1]),
    "rows of resets": (lambda r: FsNeuron(TWO, np.array([1]), np.array(r)), [[1]], [1]),
    "as many resets": (lambda r: FsNeuron(TWO, np.array([1]), np.array(r)), [1, 1], [1]),
    "largest threshold": (lambda n: fs(1, n), (1 << 30) + 1, 1 << 30),
    "least threshold": (lambda n: fs(1, n), -(1 << 30) - 1, -(1 << 30)),
    "lowest that is not clipped": (lambda n: fs(lowest=n), -129, -128),
    "highest that is not clipped": (lambda n: fs(highest=n), 128, 127),
    "limits of a neuron that cross": (lambda n: fs(lowest=n, highest=3), 4, 3),
    "axes of a spike train": (lambda shape: spiking(shape, decode=(1,)), (1,), (1, 1)),
    "worths of the steps": (lambda worths: spiking(decode=worths), (4, 2, 1), (2, 1)),
    "highest weight of a spike": (lambda w: spiking(weight=w), 8, 7),
    "lowest weight of a spike": (lambda w: spiking(weight=w), -9, -8),
    "outputs of a spiking layer": (lambda n: spiking(outputs=n), 2, 1),
    "axes of time": (lambda shape: Lif(TensorType(shape, INT8), None, None, np.array([1])), (1, 3, 1), (3, 1)),
    "threshold without reset": (lambda reset: Lif(TIMES, np.array([1]), reset, np.array([1])), None, np.array([0])),
    "a membrane that changes its sign": (lambda n: lif(n, 2), -1, 0),
    "a membrane that grows": (lambda n: lif(n, 2), 5, 4),
    "a negative shift of a decay": (lambda n: lif(0, n), -1, 0),
    "largest shift of a decay": (lambda n: lif(1, n), 21, 20),
    "a negative guard": (lambda n: lif(guard=n), -1, 0),
    "largest guard": (lambda n: lif(guard=n), 33, 32),
    "values of a neuron's channels": (lambda n: Lif(TensorType((1, 3), INT8), None, None, np.ones(n)), 2, 3),
    "bounds of a held input": (lambda low: Held("w", (2,), low, 3), 4, 3),
    "least of a held input": (lambda n: Held("w", (2,), -3, 3).check(np.array([n, 0])), -4, -3),
    "most of a held input": (lambda n: Held("w", (2,), -3, 3).check(np.array([0, n])), 4, 3),
    "a held bias before a product": (lambda n: ranges(bias_acc=Held("b", (1,), -n, 0)), (1 << 27) - 1, (1 << 27) - 2),
    "a held bias, above": (lambda n: ranges(bias_acc=Held("b", (1,), 0, n)), (1 << 27) - 1, (1 << 27) - 2),
    "a sum before a product": (lambda n: ranges(-n, 0), (1 << 27) - 1, (1 << 27) - 2),
    "a result of the first channel, above": (lambda n: of_channels(n, 0), 1 << 46, (1 << 46) - 1),
    "a result of the first channel, below": (lambda n: of_channels(n, 0), -(1 << 46), 1 - (1 << 46)),
    "a result of the last channel, above": (lambda n: of_channels(0, n), 1 << 46, (1 << 46) - 1),
    "a result of the last channel, below": (lambda n: of_channels(0, n), -(1 << 46), 1 - (1 << 46)),
    # what is refused has sums of 2^64, which 64 bits take for 0
    "sums that would wrap": (lambda w: Linear(WIDE, np.full((1, 2), w), Requantize(1, 0), WEIGHTS), 1 << 40, 1 << 22),
    "sums of taps that would wrap": (
        lambda w: Depthwise(TensorType((2, 1), Format(24)), np.full((2, 1), w), Requantize(1, 0), WEIGHTS),
        1 << 40,
        1 << 22,
    ),
    "products that would wrap": (lambda w: Affine(WIDE, np.full(2, w), Requantize(2, 0), WEIGHTS), 1 << 41, 1 << 23),
    "light that would wrap": (
        lambda w: cells([[w, w]], [[w, w]], Format(24, signed=False), Format(42, signed=False)),
        (1 << 40) + (1 << 16) + 1,  # times 2^24 - 1: 2^64 and some more
        1 << 23,
    ),
    "a negative seed": (lambda n: noise(seed=n), -1, 0),
    "largest seed": (lambda n: noise(seed=n), 1 << 64, (1 << 64) - 1),
    "a negative layer": (lambda n: noise(layer=n), -1, 0),
    "largest layer": (lambda n: noise(layer=n), 1 << 32, (1 << 32) - 1),
    "a negative factor": (lambda n: noise(relative=5, shot=n), -1, 0),
    "largest factor": (lambda n: noise(thermal=n), 1 << 48, (1 << 48) - 1),
    "a negative shift of noise": (lambda n: noise(shift=n), -1, 0),
    "largest shift of noise": (lambda n: noise(shift=n), 41, 40),
    "a negative image": (lambda n: noise(first=n), -1, 0),
    "last image": (lambda n: noise(first=n), 1 << 32, (1 << 32) - 1),
    "a negative deviation": (lambda v: Noise.from_physics(0, 0, relative=v), -1e-9, 0.0),
    "endless deviation": (lambda v: Noise.from_physics(0, 0, thermal=v), np.inf, 1.0),
    "no photon": (lambda v: Noise.from_physics(0, 0, photons=v), 0.0, 1.0),
    "a shift from physics": (lambda n: Noise.from_physics(0, 0, shift=n), 41, 40),
}


#: Sentences that speak of something else than the number that was given.
WITHOUT_NUMBERS = {
    "windows above the image",
    "windows behind the image",
    "windows whose taps miss the image",
    "no branch",
    "widest product",
    "worths of the steps",
}


def numbers(value) -> set[str]:
    """The whole numbers in what was given, as a sentence has them; of arrays it has the shape."""
    parts = value if isinstance(value, tuple) else (value,)
    return {str(n) for n in parts if isinstance(n, int) and not isinstance(n, bool) and abs(n) < 1 << 24}


@pytest.mark.parametrize("what", LIMITS)
def test_what_is_just_too_much_is_refused_and_what_is_just_not_is_made(what):
    make, refused, allowed = LIMITS[what]
    make(allowed)
    with pytest.raises(BittrueError) as told:
        make(refused)
    said = set(re.findall(r"-?\d+", str(told.value)))
    assert numbers(refused) <= said or what in WITHOUT_NUMBERS, str(told.value)


def test_the_width_that_is_needed_is_told():
    for magnitude, bits in ((1 << 47, 49), ((1 << 48) - 1, 49), (1 << 48, 50)):
        with pytest.raises(BittrueError, match=f"x: the result needs {bits} bits and at most 48 are supported"):
            check_bits(float(magnitude), "x")
