"""The flip-flops that a stage says it has are those of its netlist, every one: counted in what yosys is given."""

import gc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Cat, Elaboratable, Fragment, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.bus import framing
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow import stage as stages
from bittrue.rtl.dataflow.estimate import Area, area, estimate
from bittrue.rtl.dataflow.loader import Loader, Words
from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.dataflow.plumbing import Fifo, Narrow, Widen
from bittrue.rtl.dataflow.spikes.events import EventLinearStage
from bittrue.rtl.dataflow.stage import Stage, Storage, beat, realisation
from bittrue.rtl.dataflow.stages.affine import AffineStage
from bittrue.rtl.dataflow.stages.lif import LifStage
from bittrue.rtl.dataflow.stages.linear import LinearStage
from bittrue.rtl.dataflow.stages.photonic_mac import Rails
from bittrue.rtl.dataflow.stages.transpose import TransposeStage
from bittrue.rtl.dataflow.stages.window import WindowStage
from bittrue.rtl.dataflow.structure import Structure
from bittrue.rtl.dataflow.vectors import Vectors
from bittrue.rtl.light.design import PhotonicDesign
from bittrue.rtl.light.jobs import Geometry
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.rtl.parts.noise import NoisePipe
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.noise import Noise
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import written
from tests.helpers.bundled import grouped
from tests.helpers.flip_flops import flip_flops
from tests.helpers.lengths import long_but
from tests.helpers.photonic_programs import photonic_network
from tests.helpers.programs import resmlp, several, spiking, two_inputs
from tests.helpers.sets import network
from tests.helpers.stages import OPERATIONS, planned


@pytest.mark.parametrize("seeds", long_but([range(3), range(3, 12)], range(3)))
@pytest.mark.parametrize("name", OPERATIONS)
def test_flip_flops_are_counted_one_by_one(name, seeds):
    for seed in seeds:
        made, _ = planned(name, seed)
        for element in made.network.elements:
            stage = element.stage
            assert stage.structure().registers == flip_flops(stage), f"seed {seed}: {type(stage).__name__}"


@pytest.mark.parametrize(
    ("storage", "style", "blocks", "distributed"),
    [
        (Storage(73, 56, table=True), "logic", 0, 0),  # 4,088 bits
        (Storage(8, 256, table=True), "logic", 0, 0),
        (Storage(8, 257, table=True), "block", 1, 0),
        (Storage(4, 511, table=True), "logic", 0, 0),  # 2,044 bits
        (Storage(8, 512, table=True), "block", 1, 0),
        (Storage(37, 512, table=True), "block", 2, 0),
        (Storage(4, 16), "distributed", 0, 1),
        (Storage(5, 17), "distributed", 0, 4),
        (Storage(8, 65), "block", 1, 0),
        (Storage(8, 65, clocked=False), "distributed", 0, 10),
        (Storage(64, 32, clocked=False), "distributed", 0, 32),
        (Storage(63, 32), "distributed", 0, 32),  # 2,016 bits
        (Storage(64, 32), "block", 2, 0),
        (Storage(24, 64), "distributed", 0, 24),
        (Storage(28, 64), "block", 1, 0),  # 28 distributed ones
        (Storage(8, 2049), "block", 2, 0),
        (Storage(9, 2048), "block", 1, 0),
    ],
)
def test_what_a_memory_is_made_of(storage, style, blocks, distributed):
    assert (storage.style, storage.block_rams, storage.lutrams) == (style, blocks, distributed)


@pytest.mark.parametrize(
    ("storage", "style"),
    [
        (Storage(256, 8), "distributed"),  # 8 blocks, or 384 LUTs
        (Storage(256, 16), "distributed"),
        (Storage(256, 17), "block"),  # 768 LUTs
        (Storage(256, 17, worth=96), "distributed"),
        (Storage(256, 65, worth=10**6), "block"),  # slow to choose among
        (Storage(512, 16, table=True), "block"),  # 15 blocks, or 1,024 LUTs and flip-flops
        (Storage(512, 32, table=True, worth=102), "block"),
        (Storage(512, 32, table=True, worth=103), "logic"),
    ],
)
def test_a_wide_and_shallow_memory_goes_where_it_is_cheaper(storage, style):
    assert storage.style == style


@pytest.mark.parametrize(
    ("storage", "bits", "pieces"),
    [
        (Storage(256, 32, table=True), 8, [(248, "block", 7), (8, "logic", 0)]),
        (Storage(512, 64, table=True), 8, [(504, "block", 14), (8, "logic", 0)]),
        (Storage(510, 64, table=True), 5, [(500, "block", 14), (10, "logic", 0)]),
        (Storage(8, 20000, table=True), 8, [(8, "block", 9)]),  # words beside each other
        (Storage(256, 288, table=True), 8, [(256, "block", 8)]),  # 8 bits of 288 rows are 152 LUTs
        (Storage(40, 110, table=True), 8, [(40, "block", 2)]),  # without its last code it would be no block
        (Storage(64, 32, table=True), 8, [(64, "logic", 0)]),
        (Storage(256, 32), 8, [(256, "block", 8)]),
        (Storage(144, 784, table=True), 8, [(144, "block", 8)]),
    ],
)
def test_codes_that_would_take_a_block_of_their_own_go_to_luts(storage, bits, pieces):
    assert [(piece.width, piece.style, piece.block_rams) for piece in storage.pieces(bits)] == pieces


@pytest.mark.parametrize(("missing", "raised"), [("nowhere", BittrueError), ("numpy.gone", ModuleNotFoundError)])
def test_a_stage_that_is_absent_is_named_and_one_that_cannot_be_imported_says_why(missing, raised, monkeypatch):
    class Nowhere:
        pass

    Nowhere.__module__ = "mine.nowhere"
    name = missing if "." in missing else f"{stages.STAGES}.{missing}"

    def refuse(_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(stages.importlib, "import_module", refuse)
    with pytest.raises(raised, match="nowhere has no RTL component" if raised is BittrueError else "gone"):
        stages.realisation(Nowhere())


@pytest.mark.parametrize(("beats", "lanes"), [(1, 1), (1, 3), (2, 1), (5, 2), (8, 3)])
def test_framing_is_counted_one_by_one(beats, lanes):
    port = StreamPort("s_axis", TensorType((beats, lanes), Format(3)), lanes)
    layout = beat(port.tensor.format, lanes)
    inlet, outlet = framing.structure([port], []), framing.structure([], [port])
    assert inlet.registers == flip_flops(framing.FrameInlet(layout, beats))
    assert outlet.registers == flip_flops(framing.FrameOutlet(layout, beats))
    assert inlet.select_bits == (3 * lanes if beats > 1 else 0)  # zeros of a frame that ended early
    assert inlet.counter_bits == outlet.counter_bits + 16
    assert framing.structure([port, port], [port]) == inlet + inlet + outlet


@pytest.mark.parametrize("pe", [1, 2, 6])
@pytest.mark.parametrize("simd", [1, 2, 4])
@pytest.mark.parametrize("written", [False, True])
def test_flip_flops_of_events(simd, pe, written):
    """In every folding, with weights that are constant or written."""
    weight = np.random.default_rng(pe).integers(-8, 8, (6, 4))
    weight = Held("w", (6, 4), -8, 7, weight) if written else weight
    kind = TensorType((3, 2, 4), Format(1, signed=False))
    op = SpikingLinear(kind, weight, np.array([2, 1]), Requantize.example(np.random.default_rng(1), 6, 99), Format(4))
    stage = EventLinearStage(op, lanes=simd, simd=simd, pe=pe)
    stage.exchange = Exchange(stage.exchange_bits)  # as the network gives it
    built = stage.structure()
    assert built.registers == flip_flops(stage)


def test_intervals_of_events_are_the_cycles_of_frames_in_which_everything_spikes():
    kind = TensorType((3, 2, 4), Format(1, signed=False))
    for decode in ([2, 1], [3, 2]):
        op = SpikingLinear(kind, np.ones((6, 4), int), np.array(decode), Requantize(6, 0), Format(4))
        made = [EventLinearStage(op, lanes=f.simd, simd=f.simd, pe=f.pe) for f in EventLinearStage.foldings(op)]
        cycles = {int(stage.work(np.ones((1, *kind.shape), int)).sum()) for stage in made}
        assert EventLinearStage.intervals(op) == cycles


@pytest.mark.parametrize("architecture", ["parallel", "packed"])
def test_flip_flops_of_stages_whose_numbers_are_written(architecture):
    """Weights, biases, multipliers and shifts: what a stage says is in its netlist, one by one."""
    seen = set()
    for seed in range(3):
        program = written(network(seed, most=4, kinds=["linear", "affine", "mean"]))
        made = plan(program, 40, architecture=architecture)
        for element in made.network.elements:
            stage = element.stage
            stage.exchange = Exchange(stage.exchange_bits)  # as the network gives it
            built = stage.structure()
            assert built.registers == flip_flops(stage), f"seed {seed}: {type(stage).__name__}"
            pipe = getattr(stage, "requantize", None)
            seen |= set(getattr(pipe, "tables", {}))
    assert {"shift", "bias"} <= seen


@pytest.mark.parametrize("name", ["Depthwise", "Mean", "Multiply", "TileSum"])
def test_flip_flops_of_every_operation_whose_numbers_are_written(name):
    """Of frames of all lengths: a counter has the bits of the last beat and no more."""
    for seed in range(5):
        op = OPERATIONS[name].example(np.random.default_rng(seed))
        inputs = {f"x{k}": kind for k, kind in enumerate(op.inputs)}
        program = written(Program(inputs, (Node("y", op, tuple(inputs)),), "y"))
        made = plan(program, 400)
        for element in made.network.elements:
            stage = element.stage
            stage.exchange = Exchange(stage.exchange_bits)  # as the network gives it
            assert stage.structure().registers == flip_flops(stage), f"seed {seed}: {type(stage).__name__}"


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("factors", [1, 5])
def test_what_a_requantiser_is_made_of(lanes, factors):
    """A product a lane where there are factors; each lane chooses twice, by its shift and between the ends."""
    r = Requantize(3, np.array([4, 5, 6]), np.arange(3), np.arange(3), np.full(3, factors))
    pipe = RequantizePipe(r, np.full(3, -9000), np.full(3, 9000), lanes)
    built = pipe.structure()
    assert built.multipliers == lanes * (factors > 1)
    choosing = [step for step in pipe.steps if step.kind in ("shift", "saturate")]
    assert len(choosing) == 2
    assert built.select_bits == sum(pipe.lane_range(step, lane).bits for step in choosing for lane in range(lanes))
    assert built.adders == lanes * (len(pipe.steps) - 2 - (factors > 1))


@pytest.mark.parametrize("inputs", [1, 3])
def test_the_loader_of_written_weights_is_counted(inputs):
    """Its counters one by one; of its registers it says the data paths, to a few bits."""
    tables = [Table(Held(f"w{k}", (4,), -5, 5), np.arange(4).reshape(2, 2)) for k in range(3)]
    loader = Loader(Words(tables), [Exchange(3)] * 3, inputs)
    built = loader.structure()
    assert built.counter_bits == 2 + 1 + 1 + 8 + 8 + 3 * inputs  # table, slot, row, sets, errors, frames begun
    assert (built.adders, built.adder_bits) == (2, 2 * 4)
    assert built.registers == built.counter_bits + 3 + 4 + max(t.row_bits for t in tables) + 6 + 8
    assert built.select_bits == 2 * 2 * 4 // 4


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("lanes", [1, 2, 6])
def test_held_constants_of_affine_are_counted_one_by_one(tokens, lanes):
    rng = np.random.default_rng(lanes)
    op = Affine(TensorType((tokens, 6), Format(4)), Held("w", (6,), -4, 3), Requantize.example(rng, 6, 20))
    stage = AffineStage(op, lanes=lanes)
    stage.exchange = Exchange(stage.exchange_bits)  # as the network gives it
    beats, groups = tokens * 6 // lanes, 6 // lanes
    assert stage.structure().registers == flip_flops(stage)
    # the register behind the distributed RAM, which RTLIL has in the memory
    assert stage.structure().read_bits == stage.requantize.structure().read_bits + 3 * lanes
    constant = AffineStage(replace(op, weight=np.arange(6) - 3), lanes=lanes).structure()
    counters = [beats - 1, groups - 1, 255, stage.timing.credits - 1, stage.timing.credits - 1]
    assert stage.structure().counter_bits == (
        sum(last.bit_length() for last in counters)
        + 2 * stage.timing.credits.bit_length()
        + stage.requantize.structure().counter_bits
    )
    assert stage.structure().lutrams > constant.lutrams


def test_rails_reach_what_every_input_can_make_of_them():
    """Of two rails side by side every level of the adder tree has the range of all inputs, no more and no less."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        (a, b), (c, d) = (np.sort(rng.integers(0, 5, (2, 1, 4)), axis=0) for _ in range(2))
        rails = Rails([(a, b), (c, d)], Format(2, signed=False), simd=2, pe=1)
        sums = [
            [p * q + m * (3 - q) for q in range(4) for p in (a[0, k], b[0, k]) for m in (c[0, k], d[0, k])]
            for k in range(4)
        ]
        low, high = [min(s) for s in sums], [max(s) for s in sums]
        both = [Range(min(low[k], low[k + 2]), max(high[k], high[k + 2])) for k in range(2)]
        assert rails.levels[1][0] == both
        assert rails.sums[0] == Range(min(low[0] + low[1], sum(low)), max(high[0] + high[1], sum(high)))
        assert rails.levels[0][0][0] == Range(0, 3 * max(b[0, 0], b[0, 2]))
        assert rails.levels[0][0][1] == Range(0, 3 * max(d[0, 0], d[0, 2]))


@pytest.mark.parametrize(
    "program",
    [
        resmlp(tokens=3, channels=4, features=4, hidden=8, seed=4),
        two_inputs(),
        several(tokens=2, channels=2, outputs=2, seed=3),
        spiking(shape=(3, 4), halving=False, steps=2, seed=11),
    ],
    ids=["residual", "two inputs", "several results", "spiking"],
)
def test_flip_flops_of_a_whole_pipeline(program):
    """Stages, FIFOs and forks together, in the netlist of all of them; blocks take some, ports in LUTs have some."""
    made = plan(program)
    whole, ports = estimate(made.network, Structure()), framing.structure(made.inputs, made.outputs)
    built = [element.stage.structure() for element in made.network.elements]
    taken = sum(stage.inside - stage.read_bits for stage in built)
    assert whole.ff + taken == flip_flops(Pipeline(made.network))
    assert made.estimate.ff == whole.ff + ports.registers
    forks = sum(element.readers > 1 for element in made.network.elements)
    parts = [area(stage) for stage in built]
    assert whole.lut == sum(part.lut for part in parts) + 4 * forks  # valid and ready of both sides
    assert (whole.dsp, whole.bram) == (sum(part.dsp for part in parts), sum(part.bram for part in parts))


def test_what_stands_beside_the_stages_has_no_price_of_a_stage():
    """The loader of written weights, and what counts groups: everything is counted once, and nothing as a stage."""
    found = [
        plan(written(two_inputs())).network,
        plan(grouped(3, slots=2, images=2)).network,
        plan(grouped(3, slots=2)).network,
    ]
    assert [(n.loader is not None, n.groups is not None) for n in found] == [(True, False), (False, True), (True, True)]
    for made in found:
        beside = [part.structure() for part in (made.loader, made.groups) if part is not None]
        parts = [area(element.stage.structure()) for element in made.elements]
        parts += [area(built, stages=0) for built in beside]
        forks = sum(element.readers > 1 for element in made.elements)
        lut, ff, dsp, bram = (sum(getattr(part, kind) for part in parts) for kind in ("lut", "ff", "dsp", "bram"))
        assert estimate(made, Structure()) == Area(lut + 4 * forks, ff + 2 * forks, dsp, bram)


@pytest.mark.parametrize(
    ("inputs", "simd", "pe", "registers"),
    [
        (8, 8, 1, (1, 1)),  # everything in LUTs and distributed RAM
        (64, 8, 1, (1, 2)),  # 4,096 bits of weights in block RAM, whose own register comes first
        (512, 8, 1, (2, 2)),  # the vectors, too: two of 512 codes
        (8, 8, 4, (2, 1)),  # each code goes to four multipliers
    ],
)
def test_registers_between_memories_and_multipliers(inputs, simd, pe, registers):
    rng = np.random.default_rng(inputs)
    kind = TensorType((inputs,), Format(8))
    op = Linear(kind, rng.integers(-128, 128, (8, inputs)), Requantize.example(rng, 8, 24))
    assert LinearStage(op, lanes=8, simd=simd, pe=pe).operand_registers == registers


@pytest.mark.parametrize(("relative", "shot"), [(9, 0), (0, 5), (9, 5)])
def test_adders_of_noise_are_those_of_ciphers_roots_and_sums(relative, shot):
    """27 rounds of 32 bits a cipher; a root's k-th bit takes k + 3; five sums and the clip a lane."""
    lanes, noise = 2, Noise(1, 2, relative, shot, 3, 6)
    pipe = NoisePipe(noise, 200, places=3, outputs=4, lanes=lanes, arrival=1)
    ciphers = lanes + bool(noise.relative)  # the relative one is of the whole image
    root = [3, 4, 5, 6] if noise.shot else []  # of 8 bits
    wide, total = pipe.sum.bits, pipe.total.bits
    built = pipe.structure()
    assert built.adders == 27 * ciphers + lanes * (len(root) + 5)
    assert built.adder_bits == 27 * 32 * ciphers + lanes * (sum(root) + 4 * wide + total)
    assert built.select_bits == 27 * 64 * ciphers + lanes * total
    assert built.multipliers == lanes * (1 + 2 * bool(noise.relative) + 2 * bool(noise.shot))
    bound = noise.bound(200)
    assert (pipe.sum.low, pipe.sum.high) == (min(0, bound.low + 32), bound.high + 32)


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5, 8, 9, 16, 17, 64, 65])
def test_two_vectors_lie_in_as_little_memory_as_addresses_without_sums_allow(words):
    """Each in a block of a power of two of words, the least that holds it: the block's number is the highest bit."""
    depth = Vectors(Format(8), 4, words).storage.depth
    assert depth.bit_count() == 1
    assert depth // 4 < words <= depth // 2


def reset_bits(stage: Elaboratable) -> int:
    """Bits of the registers of a stage that a reset sets."""
    waiting, found = [Fragment.get(stage, None)], {}
    while waiting:
        fragment = waiting.pop()
        waiting += [sub[0] for sub in fragment.subfragments]
        found |= {id(s): s for line in fragment.statements.get("sync", ()) for s in line._lhs_signals()}
    return sum(len(signal) for signal in found.values() if not signal.reset_less)


@pytest.mark.parametrize(
    "make",
    [
        lambda fmt: Fifo(fmt, 2, 5, 4),
        lambda fmt: Narrow(fmt, 6, 2, 3),
        lambda fmt: Widen(fmt, 2, 6, 3),
        lambda fmt: realisation(Transpose(TensorType((4, 6), fmt)))(Transpose(TensorType((4, 6), fmt)), lanes=2),
        lambda fmt: realisation(Maximum(TensorType((4, 6), fmt)))(Maximum(TensorType((4, 6), fmt)), lanes=2),
        lambda fmt: realisation(add(fmt))(add(fmt), lanes=2),
        lambda fmt: realisation(curve(fmt))(curve(fmt), lanes=2),
    ],
    ids=["fifo", "narrow", "widen", "transpose", "maximum", "add", "lerp"],
)
def test_codes_are_in_registers_without_a_reset(make):
    """What a reset sets is control: it is no more where codes are wider."""
    assert reset_bits(make(Format(4))) == reset_bits(make(Format(7))) > 0


def add(fmt: Format) -> Add:
    return Add(TensorType((3, 6), fmt), TensorType((3, 6), fmt), fmt)


def curve(fmt: Format) -> Lerp:
    return Lerp(TensorType((3, 6), fmt), np.arange(5)[None] % 4, fmt)


class Alone(wiring.Component):
    """Noise on counts that come from nowhere."""

    def __init__(self, pipe: NoisePipe) -> None:
        self.pipe, bits = pipe, pipe.count_bits * pipe.lanes
        super().__init__({"issue": In(1), "counts": In(bits), "noisy": Out(pipe.result.bits * pipe.lanes)})

    def elaborate(self, platform):  # noqa: ARG002
        m, bits = Module(), self.pipe.count_bits
        counts = [self.counts.word_select(lane, bits) for lane in range(self.pipe.lanes)]
        m.d.comb += self.noisy.eq(Cat(*self.pipe.build(m, self.issue, counts)))
        return m


@pytest.mark.parametrize("arrival", [1, 31, 75])
@pytest.mark.parametrize("kinds", [(9, 5, 3), (9, 0, 0), (0, 0, 3)])
def test_flip_flops_of_noise(kinds, arrival):
    """Counts that come long before the words that are drawn for them, with them, and long after."""
    pipe = NoisePipe(Noise(1, 2, *kinds, shift=6), 200, places=3, outputs=4, lanes=2, arrival=arrival)
    assert pipe.structure().registers == flip_flops(Alone(pipe))


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_membrane_is_chosen_where_it_fires_and_where_it_is_read_back(subtract, lanes):
    op = Lif(TensorType((2, 4), Format(3)), np.full(4, 4), np.full(4, 2), np.full(4, 3), 2, 0, subtract)
    v, m, product, kept = op.ranges
    built = LifStage(op, lanes=lanes).structure()
    inlet = Stage.structure(LifStage(op, lanes=lanes))
    assert built.select_bits - inlet.select_bits == lanes * (m.bits + kept.bits)
    assert built.adders - inlet.adders == lanes * (3 + subtract)
    assert built.adder_bits - inlet.adder_bits == lanes * (2 * v.bits + product.bits + subtract * m.bits)
    assert built.multipliers == lanes


@pytest.mark.parametrize(("lanes", "chosen"), [(1, 0), (2, 2 * 2 * 8), (4, 2 * 4 * 8 * 3)])
def test_codes_are_turned_on_their_way_into_a_transpose_and_out_of_it(lanes, chosen):
    """Each lane takes any of them: a choice less than there are, for each bit, on both sides."""
    stage = TransposeStage(Transpose(TensorType((4, 8), Format(8))), lanes=lanes)
    assert stage.structure().select_bits - Stage.structure(stage).select_bits == chosen


@pytest.mark.parametrize("padding", [0, 1])
def test_a_window_chooses_codes_only_where_some_lie_outside(padding):
    """Of every code of a beat, each of its bits; and the next number, negated, where it changes from window
    to window."""
    op = Window(TensorType((6, 6, 2), Format(5)), (3, 3), padding=(padding,) * 4)
    for folding in WindowStage.foldings(op):
        stage = WindowStage(op, lanes=min(folding.simd, 2), simd=folding.simd, pe=1)
        numbers = [table for table in stage.ring.steps() if len(np.unique(table)) > 1]
        negated = (1 + int(table.max() - 1).bit_length() for table in numbers)
        wanted = sum(negated) + padding * folding.simd * 5
        assert stage.structure().select_bits == wanted


def test_what_is_only_looked_at_goes_without_a_word():
    """Planning makes stages, and designs their parts, that are never elaborated; Amaranth would warn of each, once
    anything was elaborated."""
    flip_flops(framing.FrameInlet(beat(Format(3), 1), 1))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plan(resmlp())
        plan(written(resmlp()))
        PhotonicDesign(photonic_network(), Geometry(4, 4, 2))
        gc.collect()
    assert [str(one.message) for one in said] == []
