"""Matrix stages that read the ring of a window themselves: exact to the cycle, and taken where that takes less."""

from dataclasses import replace

import numpy as np
import pytest

from bittrue.rtl.dataflow.choice import windows_read
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, plan, size_fifos
from bittrue.rtl.dataflow.stages.linear import ConvolutionStage, LinearStage, PackedConvolutionStage, PackedLinearStage
from bittrue.rtl.dataflow.stages.window import WindowStage
from bittrue.rtl.dataflow.windows import Order
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import written
from tests.helpers.flip_flops import flip_flops
from tests.helpers.lengths import long_but
from tests.helpers.sets import codes, drawn, golden
from tests.helpers.stage_bench import StageBench, Written, run
from tests.helpers.stages import batches, exact_to_the_cycle

S4, U4, U1 = Format(4), Format(4, signed=False), Format(1, signed=False)


def window(shape, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1), fmt=INT8, dilation=(1, 1), fill=0) -> Window:
    return Window(TensorType(shape, fmt), kernel, stride, dilation, padding, fill)


def convolution(build: Builder, name: str, x: str, of: Window, outputs: int, bits: int = 8, seed: int = 0) -> str:
    """A window, its rows as vectors, and their product."""
    rng = np.random.default_rng(seed)
    inputs = of.taps * of.input.channels
    w = build.add(f"{name}.window", of, x)
    rows = build.add(f"{name}.rows", Reshape(of.output, (*of.windows, inputs)), w)
    weight = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (outputs, inputs))
    shift = max(0, int(np.abs(weight).sum(1).max() * of.input.format.high).bit_length() - 7)
    requantize = Requantize.example(rng, outputs, 1 << (shift + 7))
    return build.add(name, Linear(build.types[rows], weight, replace(requantize, format=INT8)), rows)


def program(of: Window, outputs: int, bits: int = 8) -> Program:
    build = Builder({"x": of.input})
    return build.program(convolution(build, "y", "x", of, outputs, bits))


#: The window, outputs, folding, and the codes of a beat of the input.
CASES = {
    "a code a beat": (window((4, 5, 2)), 2, Folding(1, 1), 1),
    "words of parts": (window((4, 5, 8)), 4, Folding(8, 2), 2),
    "words of parts in blocks": (window((2, 68, 2), (2, 1), padding=(0, 1, 0, 0)), 1, Folding(2, 1), 1),
    "parts that are no power of two": (window((4, 3, 3)), 4, Folding(3, 4), 1),
    "parts that would take more bytes": (window((3, 16, 8), (2, 2), padding=(0, 0, 0, 0), fmt=S4), 2, Folding(8, 1), 1),
    "a beat of more than a word": (window((4, 4, 4)), 2, Folding(2, 1), 4),
    "taps of a beat": (window((5, 4, 2), (2, 4), (1, 2), (1, 0, 2, 1), dilation=(1, 2), fill=-7), 6, Folding(4, 2), 1),
    "rows of taps": (window((5, 4, 1), (4, 2), (2, 1), (2, 3, 1, 0), dilation=(2, 1), fill=5), 3, Folding(4, 1), 1),
    "a window a beat": (window((4, 3, 2), (2, 2)), 4, Folding(8, 2), 2),
    "a window a cycle": (window((4, 3, 2), (2, 2)), 2, Folding(8, 2), 2),
    "strides": (window((7, 6, 2), stride=(2, 2)), 4, Folding(2, 1), 1),
    "a stride beyond the window": (window((6, 6, 3), (1, 1), (2, 2), (0, 0, 0, 0)), 4, Folding(1, 1), 3),
    "the whole image": (window((3, 3, 2), padding=(0, 0, 0, 0)), 4, Folding(2, 1), 1),
    "a sequence": (window((1, 17, 4), (1, 5), padding=(0, 0, 4, 0)), 4, Folding(4, 1), 1),
    "pairs of products": (window((4, 5, 4)), 4, Folding(4, 2, "packed"), 2),
    "pairs, sums of one step": (window((3, 4, 2), (2, 2)), 4, Folding(8, 4, "packed"), 1),
    "codes of one bit": (window((4, 4, 4), fmt=U1), 2, Folding(4, 2), 1),
    "bits of a ring in blocks": (window((2, 70, 2), (2, 1), padding=(1, 0, 0, 0), fmt=U1), 2, Folding(2, 2), 2),
    "addresses that wait": (window((3, 4, 8), padding=(0, 0, 0, 0), fmt=U4), 24, Folding(8, 3), 4),
    "few addresses that wait": (window((3, 4, 8), padding=(0, 0, 0, 0), fmt=U4), 24, Folding(8, 3), 8),
    "outputs that are many": (window((4, 4, 2)), 8, Folding(2, 8), 2),
}


@pytest.mark.parametrize("name", long_but(CASES, *[*CASES][::2]))
def test_exact_to_the_cycle(name):
    """Codes with and without stalls, latency and the end of every frame, and every flip-flop."""
    of, outputs, folding, lanes = CASES[name]
    made = size_fifos(Plan(program(of, outputs), {"y": replace(folding, ring=True)}, {"x": lanes}))
    stage = made.network.elements[-1].stage
    assert isinstance(stage, PackedConvolutionStage if folding.architecture == "packed" else ConvolutionStage)
    products = int(np.prod(of.windows)) * (outputs // folding.pe) * (of.taps * of.input.channels // folding.simd)
    assert stage.interval == max(of.input.size // stage.lanes_in, products)
    assert stage.structure().registers == flip_flops(stage)
    rng = np.random.default_rng(len(name))
    bench, x = StageBench(made), batches(made, rng, 3)
    exact_to_the_cycle(bench, x)
    np.testing.assert_array_equal(bench.run(x, 0.3, 0.4, 1).outputs, made.program.reference(*x))


def stage_of(name: str) -> ConvolutionStage:
    of, outputs, folding, lanes = CASES[name]
    stage = Plan(program(of, outputs), {"y": replace(folding, ring=True)}, {"x": lanes}).network.elements[-1].stage
    assert isinstance(stage, ConvolutionStage)
    return stage


@pytest.mark.parametrize(
    ("name", "lanes", "parts", "style", "waits"),
    [
        ("words of parts", 2, 4, "distributed", 1),
        ("words of parts in blocks", 1, 2, "block", 1),
        ("parts that are no power of two", 3, 1, "distributed", 1),
        ("parts that would take more bytes", 8, 1, "block", 1),
        ("a beat of more than a word", 2, 1, "distributed", 1),
        ("taps of a beat", 1, 2, "distributed", 1),
        ("bits of a ring in blocks", 2, 1, "block", 1),
        ("addresses that wait", 4, 2, "distributed", 2),
        ("few addresses that wait", 8, 1, "distributed", 2),
    ],
)
def test_what_a_ring_is_made_of(name, lanes, parts, style, waits):
    stage = stage_of(name)
    found = stage.lanes_in, stage.order.parts, stage.vectors.style, stage.address_registers[0]
    assert found == (lanes, parts, style, waits)


def test_layers_that_are_all_busy_lose_no_cycle():
    """What one gives comes evenly to the next, which has as much work: its ring holds what comes while it waits."""
    build = Builder({"x": TensorType((7, 6, 2), INT8)})
    x = convolution(build, "a", "x", window((7, 6, 2), (1, 2), padding=(0, 0, 0, 1)), 5)
    strided = window((7, 6, 5), (1, 2), (3, 1), (0, 0, 0, 0), dilation=(2, 1))
    p = build.program(convolution(build, "b", x, strided, 28))
    made = size_fifos(Plan(p, {"a": Folding(1, 1, ring=True), "b": Folding(5, 1, ring=True)}, {"x": 1}))
    first, *_, second = (e.stage for e in made.network.elements[1:])
    assert first.interval == second.interval == made.estimated_interval == 42 * 5 * 4 == 15 * 28 * 2
    assert second.order.room == 32
    exact_to_the_cycle(StageBench(made), batches(made, np.random.default_rng(1), 3))


def test_a_ring_has_room_for_what_comes_evenly():
    of = window((5, 3, 1), (1, 2), (3, 3), (0, 1, 1, 0), dilation=(2, 1))
    alone, again = Order(of, 1), Order(of, 1, repeat=8)
    assert (alone.room, again.room) == (16, 32)
    assert (alone.interval, again.interval) == (15, 8 * 2 * 2)
    parts = Order(window((8, 8, 4)), 4, 1, 16)
    assert (parts.parts, parts.most, parts.supply) == (4, 4 * parts.room, 256)


@pytest.mark.parametrize(("folding", "stalled"), [(Folding(4, 1), False), (Folding(4, 2, "packed"), True)])
def test_weights_that_are_written(folding, stalled):
    """Every frame is worked with the set that had taken effect when it began."""
    rng = np.random.default_rng(5)
    p = written(program(window((3, 3, 4), (2, 2), padding=(0, 1, 1, 0)), 4))
    made = size_fifos(Plan(p, {"y": replace(folding, ring=True)}, {"x": 2}))
    frames = 14
    x, sets = codes(p, frames, rng), [drawn(p, rng, corner) for corner in ("", "high", "low")]
    writes = [Written(after, made.pack_set(s)) for after, s in zip((0, 2, 5), sets, strict=True)]
    result = run(made, x, seed=3, sets=writes, **({"idle": 0.3, "backpressure": 0.3} if stalled else {}))
    assert len(set(result.meets)) > 2
    np.testing.assert_array_equal(result.outputs, golden(p, x, result.meets, sets))
    assert result.errors == 0
    for element in made.network.elements:
        assert element.stage.structure().registers == flip_flops(element.stage)


# -- the choice --------------------------------------------------------------------------------------------
def layer(outputs: int = 16) -> Program:
    return program(window((32, 32, 16)), outputs)


def test_it_is_taken_where_it_takes_less():
    """Two blocks of vectors go, and one more is in the words of the ring: nothing else grows."""
    p = layer()
    apart, made = plan(p, interval=294912, rings=False), plan(p, interval=294912)
    assert made.folding == {"y": Folding(8, 1, ring=True)}
    assert apart.folding == {"y.window": Folding(1, 1), "y": Folding(8, 1)}
    assert made.estimated_interval == apart.estimated_interval == 294912
    assert made.estimate.bram == apart.estimate.bram - 1
    assert made.estimate.dsp == apart.estimate.dsp
    assert made.estimate.lut < apart.estimate.lut
    assert made.estimated_latency < apart.estimated_latency
    assert [row["kind"] for row in made.stages()] == ["widen", "convolution"]


def test_it_is_not_taken_where_taps_are_read_side_by_side_from_copies_of_the_ring():
    p = layer()
    made, forced = plan(p, interval=16384), plan(p, interval=16384, rings=True)
    assert made.folding["y"] == Folding(144, 1)
    assert forced.folding == {"y": Folding(144, 1, ring=True)}
    assert forced.estimate.bram > made.estimate.bram


def test_a_folding_that_was_asked_for_stays():
    p = layer()
    asked = plan(p, interval=294912, folding={"y": Folding(4, 2)})
    assert asked.folding == {"y.window": Folding(1, 1), "y": Folding(4, 2)}
    asked = plan(p, interval=294912, folding={"y": Folding(4, 2, ring=True)}, rings=False)
    assert asked.folding == {"y": Folding(4, 2, ring=True)}
    asked = plan(p, interval=294912, folding={"y.window": Folding(2, 1)})
    assert asked.folding["y.window"] == Folding(2, 1)
    assert not asked.folding["y"].ring


def test_a_plan_is_read_again_and_its_windows_are_not_probed():
    p = layer(4)
    made = plan(p, interval=294912)
    again = Plan.from_json(p, made.to_json())
    assert again.folding == made.folding
    assert [e.name for e in again.network.elements] == ["x_inlet", "y"]
    assert [probe.node for probe in PipelineDesign(again).probes] == ["y"]
    assert [probe.node for probe in PipelineDesign(plan(p, 294912, rings=False)).probes] == [
        *("y.window", "y.rows", "y")
    ]


def test_windows_that_one_node_reads_as_whole_vectors():
    of = window((4, 4, 2))
    build = Builder({"x": of.input})
    y = convolution(build, "y", "x", of, 2)
    assert windows_read(build.program(y)) == {"y": ["y.window", "y.rows"]}
    assert windows_read(build.program(y, "y.window")) == {}  # it is a result, too
    z = build.add("z", build.program(y)["y"], "y.rows")
    assert windows_read(build.program(y, z)) == {}
    other = Builder({"x": of.input})
    w = other.add("w", of, "x")  # a vector for every tap
    single = Linear(other.types[w], np.ones((3, 2), int), Requantize(3, np.full(3, 2), format=INT8))
    assert windows_read(other.program(other.add("y", single, w))) == {}


def test_what_cannot_read_a_ring_is_refused():
    of = window((4, 4, 2))
    p = program(of, 3)
    for architecture in ("paired", "adders"):
        with pytest.raises(BittrueError, match="y: it has no ring to read: .* plan it with ring=False"):
            _ = Plan(p, {"y": Folding(2, 1, architecture, ring=True)}, {"x": 1}).network
    with pytest.raises(BittrueError, match="y: window: simd = 3 is none of 1, 2, 6, 18, channels or whole taps"):
        _ = Plan(p, {"y": Folding(3, 1, ring=True)}, {"x": 1}).network
    linear = p["y"]
    with pytest.raises(BittrueError, match="window: its 8 codes are no vectors of 18"):
        ConvolutionStage(linear, window=window((4, 4, 2), (2, 2)), lanes=1, simd=2, pe=1)
    with pytest.raises(BittrueError, match="window: its 18 codes are no vectors of 18 codes s8: they are s4"):
        ConvolutionStage(linear, window=window((4, 4, 2), fmt=S4), lanes=1, simd=2, pe=1)
    with pytest.raises(BittrueError, match="window: beats of 3 codes are no parts of the words of its ring"):
        ConvolutionStage(linear, window=of, lanes=3, simd=2, pe=1)


def test_a_ring_is_read_for_every_group_of_outputs():
    """What energy is told: codes written once, read as often as a window sees them and there are groups of outputs."""
    of, outputs, folding, _ = CASES["words of parts"]
    stage = stage_of("words of parts")
    (values,) = [t for t in stage.effort().memory if t.purpose == "values"]
    assert (values.read, values.written) == (of.output.size * 8 * outputs // folding.pe, of.input.size * 8)
    apart = WindowStage(of, lanes=2, simd=2, pe=1), LinearStage(stage.operation, lanes=2, simd=8, pe=2)
    both = [t for s in apart for t in s.effort().memory if t.purpose == "values"]
    assert sum(t.read for t in both) == values.read + of.output.size * 8
    assert stage.effort().additions == apart[1].effort().additions
    assert PackedLinearStage.convolved is PackedConvolutionStage
