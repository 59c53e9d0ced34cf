"""Convolutional networks: reference, golden, RTL and C++ agree, and every frame ends when the plan says."""

import numpy as np
import pytest

from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.dataflow.stage import realisation
from bittrue.rtl.dataflow.stages.upsample import UpsampleStage
from bittrue.rtl.dataflow.stages.window import WindowStage
from bittrue.rtl.dataflow.windows import Order
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.upsample import Upsample
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Builder
from bittrue.sim.requantize import Requantize
from tests.helpers.convolutions import in_hls, in_rtl, network
from tests.helpers.programs import stimulus
from tests.helpers.stage_bench import StageBench

#: Networks of `tests.helpers.convolutions`, which runs any number of them: small ones, of every kind together.
NETWORKS = (0, 2, 5, 7, 13, 19)


@pytest.mark.parametrize("seed", NETWORKS)
def test_random_network(seed):
    in_rtl(network(seed), seed)


@pytest.mark.slow
@pytest.mark.needs("g++")
def test_random_networks_in_the_kernels(tmp_path):
    in_hls(range(8), tmp_path)


def same(shape, kernel=(3, 3), **options):
    pad = tuple(n // 2 for n in kernel for _ in range(2))
    return Window(TensorType(shape, INT8), kernel, padding=pad, **options)


@pytest.mark.parametrize(
    ("window", "lanes", "room"),
    [
        (same((28, 28, 16)), 1, 1024),  # two rows of 448 words, three pixels, and what comes meanwhile
        (same((32, 32, 16)), 1, 2048),  # two rows are 1,024 words: the third needs a second block
        (same((32, 32, 16)), 16, 128),
        (same((8, 8, 64)), 1, 2048),
        (Window(TensorType((1, 128, 6), INT8), (1, 5), padding=(0, 0, 4, 0)), 1, 64),  # a sequence: no whole row
        (Window(TensorType((32, 32, 16), INT8), (2, 2), (2, 2)), 1, 2048),
        (Window(TensorType((4, 4, 2), INT8), (4, 4)), 1, 64),  # the whole image: the next one comes meanwhile
    ],
)
def test_the_ring_is_as_small_as_the_interval_allows(window, lanes, room):
    order = Order(window, lanes)
    stage = WindowStage(window, lanes=lanes, simd=lanes, pe=1)
    beats_in, beats_out = window.input.size // lanes, window.output.size // lanes
    assert order.room == stage.storage.depth == room
    assert order.interval == stage.interval == max(beats_in, beats_out)


@pytest.mark.parametrize(
    ("shape", "factors", "parts", "lanes", "room"),
    [
        ((8, 8, 4), (2, 2), False, 1, 32),  # a row: the next comes while the last copy of this one is given out
        ((8, 8, 4), (2, 1), False, 4, 8),
        ((8, 8, 4), (2, 2), True, 1, 64),  # what comes in is as much as what is given out
        ((8, 8, 4), (1, 2), False, 1, 8),  # no row is repeated: a pixel, and the next one
        ((1, 64, 3), (1, 3), True, 1, 8),
        ((1, 1, 6), (5, 5), False, 1, 16),  # a code for every channel: the next frame's come meanwhile
        ((1, 1, 6), (1, 5), False, 6, 2),
    ],
)
def test_the_ring_of_a_larger_image_is_as_small_as_the_interval_allows(shape, factors, parts, lanes, room):
    stage = UpsampleStage(Upsample(TensorType(shape, INT8), factors, parts), lanes=lanes, simd=lanes, pe=1)
    assert stage.order.room == stage.storage.depth == room
    assert stage.interval == stage.order.interval == stage.operation.output.size // lanes


def test_lanes_follow_from_the_interval():
    window = same((6, 5, 12))
    make = realisation(window)
    for interval, lanes in ((30 * 9 * 12, 1), (30 * 9 * 12 - 1, 2), (30 * 9 * 4, 3), (30 * 9, 12)):
        assert make.fold(window, interval, "conv") == Folding(lanes, 1)
    with pytest.raises(BittrueError, match="conv: with all 12 channels in a beat its windows take 270 cycles"):
        make.fold(window, 269, "conv")
    larger = Upsample(TensorType((3, 2, 6), INT8), (2, 3))
    make = realisation(larger)
    for interval, lanes in ((36 * 6, 1), (36 * 6 - 1, 2), (36, 6)):
        assert make.fold(larger, interval, "up") == Folding(lanes, 1)
    with pytest.raises(BittrueError, match="up: with all 6 channels of a pixel in a beat it takes 36 cycles a frame"):
        make.fold(larger, 35, "up")


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_convolution_keeps_its_multipliers_busy(lanes):
    """Window and matrix stage take turns without a bubble: the interval is that of the products alone."""
    rng = np.random.default_rng(lanes)
    window = same((5, 6, 4))
    build = Builder({"x": window.input})
    taps = build.add("window", window, "x")
    rows = build.add("rows", Reshape(window.output, (5, 6, 36)), taps)
    weight = rng.integers(-128, 128, (8, 36))
    linear = Linear(build.types[rows], weight, Requantize(8, np.full(8, 9), format=INT8))
    program = build.program(build.add("y", linear, rows))
    products = 30 * 8 * 36
    made = plan(program, interval=products // (2 * lanes))
    assert made.estimated_interval == products // (2 * lanes)
    assert made.folding["y"].simd * made.folding["y"].pe == 2 * lanes
    bench, x = StageBench(made), stimulus(program, 4, lanes)
    found = bench.run(x)
    np.testing.assert_array_equal(found.outputs, program.reference(*x))
    assert (found.latency, found.interval) == (made.estimated_latency, made.estimated_interval)


def test_renamed_axes_are_no_stage():
    """A name for the same beats: two readers of one stream, one of them through two renamings."""
    kind = TensorType((2, 3, 4), INT8)
    build = Builder({"x": kind})
    flat = build.add("flat", Reshape(kind, (24,)), "x")
    again = build.add("again", Reshape(build.types[flat], (6, 4)), flat)
    program = build.program(flat, again)
    made = plan(program, interval=6)
    assert [element.name for element in made.network.elements] == ["x_inlet"]
    x = stimulus(program, 4, 0)
    for codes, truth in zip(StageBench(made).run(x).results, program.reference(*x), strict=True):
        np.testing.assert_array_equal(codes, truth)
