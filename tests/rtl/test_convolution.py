"""Convolutional networks: reference, golden, RTL and C++ agree, and every frame ends when the plan says."""

from dataclasses import replace

import numpy as np
import pytest

from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, plan, size_fifos
from bittrue.rtl.dataflow.stage import realisation
from bittrue.rtl.dataflow.stages.upsample import UpsampleStage
from bittrue.rtl.dataflow.stages.window import WindowStage
from bittrue.rtl.dataflow.windows import Order
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.slice import Slice
from bittrue.sim.operations.upsample import Upsample
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.convolutions import in_hls, in_rtl, network
from tests.helpers.flip_flops import flip_flops
from tests.helpers.lengths import long_but
from tests.helpers.programs import stimulus
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import batches, exact_to_the_cycle

#: Networks of `tests.helpers.convolutions`, which runs any number of them: small ones, of every kind together.
NETWORKS = (0, 2, 5, 7, 13, 19)


@pytest.mark.parametrize("seed", NETWORKS)
def test_random_network(seed):
    in_rtl(network(seed), seed)


@pytest.mark.slow
@pytest.mark.needs("g++")
@pytest.mark.long
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


@pytest.mark.parametrize("shape", [(3, 1, 2), (1, 1, 2), (2, 2, 2)])
@pytest.mark.parametrize("factors", [(2, 1), (3, 1), (1, 1), (2, 2), (1, 2)])
def test_a_column_of_pixels_in_a_beat_each_is_repeated(shape, factors):
    """Where nothing counts but how often a row was given out, and where less does."""
    larger, rng = Upsample(TensorType(shape, INT8), factors), np.random.default_rng(0)
    build = Builder({"x": larger.input})
    program = build.program(build.add("y", larger, "x"))
    made = size_fifos(Plan(program, {"y": Folding(2, 1)}, {"x": 2}))
    bench = StageBench(made)
    exact_to_the_cycle(bench, batches(made, rng, 4))
    x = batches(made, rng, 4)
    np.testing.assert_array_equal(bench.run(x, 0.3, 0.4, 1).outputs, program.reference(*x))


def test_lanes_follow_from_the_interval():
    window = same((6, 5, 12))
    make = realisation(window)
    for interval, lanes in ((30 * 9 * 12, 1), (30 * 9 * 12 - 1, 2), (30 * 9 * 4, 3), (30 * 9, 12)):
        assert make.fold(window, interval, "conv") == Folding(lanes, 1)
    for interval, lanes in ((269, 36), (90, 36), (89, 108), (30, 108)):  # a row of taps, a window
        assert make.fold(window, interval, "conv") == Folding(lanes, 1)
    message = "conv: with a pixel in and a window out in every cycle it takes 30 cycles a frame, more than 29"
    with pytest.raises(BittrueError, match=message):
        make.fold(window, 29, "conv")
    larger = Upsample(TensorType((3, 2, 6), INT8), (2, 3))
    make = realisation(larger)
    for interval, lanes in ((36 * 6, 1), (36 * 6 - 1, 2), (36, 6)):
        assert make.fold(larger, interval, "up") == Folding(lanes, 1)
    with pytest.raises(BittrueError, match="up: with all 6 channels of a pixel in a beat it takes 36 cycles a frame"):
        make.fold(larger, 35, "up")


WIDE = Window(TensorType((3, 9, 2), INT8), (2, 4), (1, 2), (1, 2), (1, 0, 2, 1), -7)
HIGH = Window(TensorType((9, 4, 1), INT8), (4, 2), (2, 1), (2, 1), (2, 3, 1, 0), 5)


@pytest.mark.parametrize("window", [WIDE, HIGH, *range(4)], ids=str)
def test_beats_of_several_taps(window):
    """Any geometry, a part of a row of taps, whole rows or a whole window in a beat: exact to the cycle."""
    rng = np.random.default_rng(seed := window if isinstance(window, int) else 9)
    while isinstance(window, int) or window.taps < 3 or window.output.size > 1200:
        window = Window.example(rng)
    channels = window.input.channels
    build = Builder({"x": window.input})
    flat = (*window.windows, window.taps * channels)
    program = build.program(build.add("rows", Reshape(window.output, flat), build.add("y", window, "x")))
    spanning = [f for f in WindowStage.foldings(window) if f.simd > channels]
    assert spanning[-1].simd == window.taps * channels
    for folding in spanning:
        made = size_fifos(Plan(program, {"y": folding}, {"x": channels}))
        assert made.estimated_interval == max(window.input.size // channels, window.output.size // folding.simd), (
            f"{window} {folding}"
        )
        bench, x = StageBench(made), batches(made, rng, 5)
        exact_to_the_cycle(bench, x)
        np.testing.assert_array_equal(bench.run(x, 0.3, 0.4, seed).outputs, program.reference(*x))
        stage = made.network.elements[-1].stage
        assert stage.structure().registers == flip_flops(stage)


@pytest.mark.parametrize(
    ("kernel", "lanes"),
    [((3, 3), [1, 2, 4, 12, 36]), ((2, 6), [1, 2, 4, 8, 12, 24, 48]), ((4, 1), [1, 2, 4, 8, 16]), ((1, 1), [1, 2, 4])],
)
def test_taps_of_a_beat_are_parts_of_a_row_or_rows(kernel, lanes):
    window = Window(TensorType((7, 7, 4), INT8), kernel)
    assert [folding.simd for folding in WindowStage.foldings(window)] == lanes
    with pytest.raises(BittrueError, match=f"window: simd = 20 is none of {', '.join(map(str, lanes))}"):
        WindowStage(window, lanes=4, simd=20, pe=1)
    if lanes[-1] > 4:
        with pytest.raises(BittrueError, match="window: it takes 4 codes in every beat, not 2"):
            WindowStage(window, lanes=2, simd=lanes[-1], pe=1)


@pytest.mark.parametrize("lanes", long_but([1, 2, 4, 18, 36], 4, 18))
def test_a_convolution_keeps_its_multipliers_busy(lanes):
    """Window and matrix stage take turns without a bubble: the interval is that of the products alone, also where a
    row of taps comes in a beat."""
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


def test_a_matrix_takes_in_what_its_window_gives():
    """Four codes a beat are the fewest that a window of four channels gives within 12 cycles; three would do for the
    product, but a converter to them would take all of 36."""
    window = same((5, 6, 4))
    build = Builder({"x": window.input})
    rows = build.add("rows", Reshape(window.output, (5, 6, 36)), build.add("window", window, "x"))
    linear = Linear(build.types[rows], np.ones((1, 36), int), Requantize(1, [9], format=INT8))
    made = plan(build.program(build.add("y", linear, rows)), interval=30 * 12, rings=False)
    assert made.folding == {"window": Folding(4, 1), "y": Folding(4, 1)}
    assert made.estimated_interval <= 30 * 12


def test_a_result_has_beats_of_one_token():
    """A window that is a result itself: a row of taps in a beat inside, and at the port a tap."""
    window = Window(TensorType((4, 4, 2), INT8), (3, 3))
    program = Program({"x": window.input}, (Node("y", window, ("x",)),), "y")
    made = size_fifos(Plan(program, {"y": Folding(6, 1)}, {"x": 2}))
    assert made.outputs[0].lanes == 2
    assert made.estimated_interval == 4 * 9
    exact_to_the_cycle(StageBench(made), batches(made, np.random.default_rng(1), 5))
    with pytest.raises(BittrueError, match="an interval of 16 cycles cannot be reached: y_result_narrow needs 36"):
        plan(program, interval=16)


@pytest.mark.parametrize("depth", [1, 2])
def test_parts_that_wait_for_each_other_end_when_the_plan_says(depth):
    """What is dropped waits for a credit like what is kept, so that the cycles are those of the schedule."""
    kind = TensorType((5, 6), INT8)
    build = Builder({"x": kind})
    parts = [build.add(name, Slice(kind, at, at + 3), "x") for name, at in (("a", 0), ("b", 3))]
    product = Multiply(*(build.types[part] for part in parts), Requantize(3, np.full(3, 7), format=INT8))
    y = build.add("y", product, *parts)
    total = Add(build.types[y], build.types["a"], INT8, (build.types["b"],))
    program = build.program(build.add("z", total, y, *parts))
    made = plan(program, interval=30)
    made = replace(made, fifos=dict.fromkeys(made.fifos, depth))
    x, flow = stimulus(program, 5, 0), made.network.schedule(5)
    found = StageBench(made).run(x)
    np.testing.assert_array_equal(found.outputs, program.reference(*x))
    assert [end - found.began for end in found.ends] == flow.ends.tolist()


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
