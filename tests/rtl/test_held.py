"""Weights written at run time in RTL: sets exchanged between frames, under stalls; sets that are refused; area."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from bittrue.rtl.dataflow.loader import Loader, Words
from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.rtl.verilog import emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.mean import Mean
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.lengths import long_but
from tests.helpers.programs import two_inputs
from tests.helpers.sets import KINDS, codes, drawn, golden, network
from tests.helpers.stage_bench import StageBench, Written, run

SEEDS = range(7)
PAIRS = [(kinds, (1, 4) if "spiking" in kinds else (0, 1)) for kinds in KINDS]
#: Seeds, kinds, architectures, and whether there are stalls: matrix products and affines, then the other operations.
CASES = [(seed, (), "parallel", stalled) for seed in SEEDS for stalled in (False, True)]
CASES += [(seed, (), "packed", bool(seed % 2)) for seed in SEEDS[:4]]
CASES += [(seeds[at], kinds, "parallel", bool(at)) for kinds, seeds in PAIRS for at in range(2)]
CASES += [(seeds[at], kinds, "events", bool(at)) for kinds, seeds in PAIRS for at in range(2) if "spiking" in kinds]


#: Some of them: in which sets that are none are told apart.
WHOLE = [*((seed, (), "parallel") for seed in SEEDS[:4]), (1, KINDS[0], "events"), (0, KINDS[2], "parallel")]


def planned(seed: int, architecture: str = "parallel", **options) -> Plan:
    program = network(seed, **options)
    interval = int(np.random.default_rng(seed).choice([1, 8, 30, 200]))
    try:
        return plan(program, interval=interval, weights="written", architecture=architecture)
    except BittrueError:
        interval = None if architecture == "parallel" else 1000
        return plan(program, interval=interval, weights="written", architecture=architecture)


@pytest.mark.parametrize(("seed", "kinds", "architecture", "stalled"), long_but(CASES, *CASES[::12], *CASES[-3:]))
def test_sets_are_exchanged_between_frames(seed, kinds, architecture, stalled):
    """Every frame is worked with the set that had taken effect when it began, and none is late for it."""
    rng = np.random.default_rng([seed, 1])
    p = planned(seed, architecture, kinds=kinds)
    frames = 16
    x = codes(p.program, frames, rng)
    sets = [drawn(p.program, rng, corner) for corner in ("", "high", "low", "both", "")]
    writes = [Written(int(after), p.pack_set(s)) for after, s in zip(np.sort(rng.integers(0, 9, 5)), sets, strict=True)]
    if kinds:  # so many values that short frames would be over before a set is there
        for at, (batch, kind) in enumerate(zip(x, p.program.inputs.values(), strict=True)):
            frames = 16 + 3 * len(writes[0].words) // p.estimated_interval
            x[at] = np.resize(batch, (frames, *kind.shape))
    stalls = {"idle": 0.3, "backpressure": 0.3} if stalled else {}
    result = run(p, x, seed=seed, sets=writes, **stalls)
    expected = golden(p.program, x, result.meets, sets)
    np.testing.assert_array_equal(result.outputs, expected)
    if kinds:
        assert len(set(result.meets)) > 1
        assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(expected, golden(p.program, x, result.meets, sets, p.program.reference))
    assert result.errors == 0
    if not stalled:
        changes = [(at, ([p.program.initial, *sets])[n]) for at, n in enumerate(result.meets)]
        flow = p.expect(*x, held=changes)
        assert result.latency == flow.latency
        assert p.dynamic or flow.latency == p.estimated_latency
        first = result.first - result.latency
        assert [end - first for end in result.ends] == list(flow.ends)


def test_the_exchanges_fall_within_the_run():
    """The tests above would show nothing if every set came before or after the frames."""
    seen = set()
    for seed in SEEDS:
        p = planned(seed)
        rng = np.random.default_rng([seed, 2])
        sets = [drawn(p.program, rng) for _ in range(2)]
        result = run(p, codes(p.program, 16, rng), 0.3, 0.3, seed, [Written(3, p.pack_set(s)) for s in sets])
        seen.add(len(set(result.meets)))
    assert max(seen) == 3


def refused(p: Plan, words: np.ndarray) -> dict[str, Written]:
    """What is made of the words of a set, and is none; the last has one after it."""
    first, last = p.network.words.tables[0].held, p.network.words.tables[-1].held
    high, low = words.copy(), words.copy()
    high[0], low[-1] = first.high + 1, last.low - 1
    twice = np.concatenate([words, words])
    return {
        "a word too few": Written(0, words[:-1]),
        "one word": Written(0, words[:1]),
        "a word too many": Written(0, np.append(words, words[-1])),
        "two sets in one": Written(0, twice),
        "too high": Written(0, high),
        "too low": Written(0, low),
        "ends twice": Written(0, np.append(words[:-1], words), [len(words) - 2, 2 * len(words) - 2]),
    }


@pytest.mark.parametrize(("seed", "kinds", "architecture"), long_but(WHOLE, *WHOLE[1:4]))
def test_what_is_no_whole_set_changes_nothing(seed, kinds, architecture):
    """Too short, too long, out of bounds: counted, the old set stays, and the next one that is right takes effect."""
    rng = np.random.default_rng([seed, 3])
    p = planned(seed, architecture, most=5, kinds=kinds)
    x, right, other = codes(p.program, 12, rng), drawn(p.program, rng), drawn(p.program, rng)
    bench = StageBench(p)
    for name, bad in refused(p, p.pack_set(other)).items():
        result = bench.run(x, 0.2, 0.2, seed, [bad])
        if name == "ends twice":  # the first part is refused, the second is a whole set
            assert result.errors == 1
            np.testing.assert_array_equal(result.outputs, golden(p.program, x, result.meets, [other]), err_msg=name)
            continue
        assert (name, result.errors, set(result.meets)) == (name, 1, {0})
        np.testing.assert_array_equal(result.outputs, p.program(*x), err_msg=name)
        result = bench.run(x, 0.2, 0.2, seed, [bad, bad, Written(2, p.pack_set(right))])
        assert (name, result.errors) == (name, 2)
        np.testing.assert_array_equal(result.outputs, golden(p.program, x, result.meets, [right]), err_msg=name)


def test_a_set_that_is_too_long_by_a_whole_one():
    """However long it goes on, with one table or several: it does not begin anew within a set."""
    for count in (1, 2, 3):
        tables = [Table(Held(f"w{k}", (2,), -8, 7), np.arange(2).reshape(2, 1)) for k in range(count)]
        for length, right in ((2 * count, True), *((n, False) for n in range(2 * count + 1, 14 * count))):
            exchange = Exchange(4)
            loader = Loader(Words(tables), [exchange], 1)
            seen = []

            async def bench(ctx, exchange=exchange, loader=loader, length=length, seen=seen):
                ctx.set(exchange.settled, 1)
                ctx.set(loader.valid, 1)
                for k in range(length):
                    ctx.set(loader.last, k == length - 1)
                    await ctx.tick()
                ctx.set(loader.valid, 0)
                await ctx.tick().repeat(4)
                seen += [ctx.get(loader.sets), ctx.get(loader.errors)]

            sim = Simulator(loader)
            sim.add_clock(1e-6)
            sim.add_testbench(bench)
            sim.run()
            assert seen == [int(right), int(not right)], f"{length} words for {count} tables of 2"


def test_cells_beyond_the_last_row_do_nothing():
    """The last tile lacks rows: what a set has in their place is whatever is sent, within the bounds."""
    rng = np.random.default_rng(0)
    seen = 0
    for seed in range(30):
        program = network(seed, kinds=["photonic"])
        mac = program["photonic0_array"]
        lacking = mac.tiles * mac.rows - mac.input.channels
        if mac.tiles < 2 or not lacking:
            continue
        p = plan(program, weights=["photonic0_array"])
        x, values = codes(p.program, 8, rng), drawn(p.program, rng)
        words = p.pack_set(values)
        assert len(words) == sum(h.size for h in p.program.written.values()) + lacking * len(mac.plus) * (
            "photonic0_array.minus" in p.program.written
        ) + lacking * len(mac.plus)
        other = words.copy()
        for table in p.network.words.tables:
            first = next(row["first"] for row in p.network.words.describe() if row["held"] == table.held.name)
            flat = table.index.reshape(-1)
            again = np.array([entry in flat[:at] for at, entry in enumerate(flat)])
            other[first : first + len(flat)][again] = table.held.high
        assert not np.array_equal(words, other)
        frames = 4 + len(words) // p.estimated_interval
        x = [np.resize(v, (frames, *v.shape[1:])) for v in x]
        result = run(p, x, sets=[Written(0, other)])
        assert result.meets[-1] == 1
        np.testing.assert_array_equal(result.outputs, golden(p.program, x, result.meets, [values]))
        seen += 1
        if seen == 3:
            return
    raise AssertionError("too few arrays whose last tile is short")


@pytest.mark.parametrize("seed", range(2))
def test_with_two_inputs_the_first_beat_of_any_begins_a_frame(seed):
    """Inputs that run apart: every frame meets one set, whichever of its inputs came first."""
    p = plan(two_inputs(), 24, weights="written")
    rng = np.random.default_rng([seed, 4])
    sets = [drawn(p.program, rng) for _ in range(4)]
    writes = [Written(after, p.pack_set(s)) for after, s in zip((0, 3, 5, 8), sets, strict=True)]
    x = codes(p.program, 24, rng)
    result = run(p, x, idle=0.5, backpressure=0.2, seed=seed, sets=writes)
    assert len(set(result.meets)) > 2
    np.testing.assert_array_equal(result.outputs, golden(p.program, x, result.meets, sets))


def test_a_reset_keeps_the_newest_set():
    """Frames on their way are lost, as ever; the counters begin anew; the weights stay what they were."""
    tables = [Table(Held("w", (4,), -8, 7), np.arange(4).reshape(2, 2))]
    exchange = Exchange(4)
    loader = Loader(Words(tables), [exchange], 1)
    seen = {}

    async def bench(ctx):
        ctx.set(exchange.settled, 1)
        for k, word in enumerate((1, 2, 3, -4)):
            ctx.set(loader.word, word & 255)
            ctx.set(loader.valid, 1)
            ctx.set(loader.last, k == 3)
            await ctx.tick()
        ctx.set(loader.valid, 0)
        await ctx.tick().repeat(4)
        seen["before"] = ctx.get(exchange.bank), ctx.get(loader.sets), ctx.get(loader.ready)
        ctx.set(reset.rst, 1)
        await ctx.tick()
        ctx.set(reset.rst, 0)
        await ctx.tick()
        seen["after"] = ctx.get(exchange.bank), ctx.get(loader.sets), ctx.get(loader.ready)

    from amaranth.hdl import ClockDomain, Module

    m = Module()
    m.domains.sync = reset = ClockDomain("sync")
    m.submodules.loader = loader
    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert seen == {"before": (1, 1, 1), "after": (1, 0, 1)}


class TestPlan:
    def test_only_what_is_named_is_written(self):
        program = network(3, kinds=["linear", "affine", "linear"])
        p = plan(program, weights=["linear2"])
        assert set(p.program.written) == {h for h in p.program.written if h.startswith("linear2.")}
        assert p.weights.prefix == "s_axis_weights"
        assert plan(program).weights is None
        with pytest.raises(BittrueError, match=r"weights of 'x' cannot be written; those of linear0, affine1, linear2"):
            plan(program, weights=["x"])

    def test_the_order_of_the_words(self):
        """Operation after operation, in each the weights, then the requantiser's; rows as the memory has them."""
        p = planned(4)
        words, values = p.network.words, p.program.initial
        packed = p.pack_set(values)
        assert len(packed) == words.count == sum(held.size for held in p.program.written.values())
        for row in words.describe():
            part = packed[row["first"] :][: row["rows"] * row["slots"]]
            assert sorted(part) == sorted(values[row["held"]].reshape(-1))
        for node in p.program.nodes:
            if not node.operation.held or node.name not in p.folding:
                continue
            (row,) = (row for row in words.describe() if row["held"] == f"{node.name}.weight")
            folding, weight = p.folding[node.name], values[f"{node.name}.weight"]
            tile = weight[: folding.pe, : folding.simd].reshape(-1)
            np.testing.assert_array_equal(packed[row["first"] :][: row["slots"]], tile)

    def test_a_plan_is_saved_and_loaded(self):
        p = planned(5)
        again = Plan.from_json(p.program, p.to_json())
        assert emit(again) == emit(p)

    @pytest.mark.parametrize(
        ("seed", "kinds", "architecture"),
        [(6, ("linear", "affine", "linear"), "parallel"), *((1, KINDS[1], name) for name in ("parallel", "events"))],
    )
    def test_the_area_of_writing_is_counted(self, seed, kinds, architecture):
        """Two banks, a write port, the loader: more of everything but products."""
        program, interval = network(seed, kinds=kinds), 8 if architecture == "parallel" and seed == 6 else 1000
        constant = plan(program, interval, architecture=architecture).estimate
        held = plan(program, interval, weights="written", architecture=architecture)
        assert held.estimate.lut > constant.lut
        assert held.estimate.ff > constant.ff
        assert held.estimate.dsp == constant.dsp
        assert held.cost_of_writing["lut"] == held.estimate.lut - constant.lut

    def test_both_rails_of_written_cells_are_multiplied(self):
        """A product more for each that the array has; only offsets: none, and a sum for the light of dark inputs."""
        program = network(0, kinds=["photonic"])
        mac = program["photonic0_array"]
        assert mac.minus.any()
        constant, held = plan(program, 1000), plan(program, 1000, weights=["photonic0_array"])
        products = constant.folding["photonic0_array"].simd * constant.folding["photonic0_array"].pe
        assert held.folding == constant.folding
        assert held.estimate.dsp == constant.estimate.dsp + products
        offset = Held("o", mac.offset.shape, 0, 1 << 10)
        nodes = [
            replace(node, operation=replace(mac, offset=offset)) if node.operation is mac else node
            for node in program.nodes
        ]
        offsets = plan(Program(program.inputs, nodes, program.results), 1000)
        assert offsets.estimate.dsp == constant.estimate.dsp
        assert constant.estimate.lut < offsets.estimate.lut <= held.estimate.lut
        assert constant.estimate.ff < min(offsets.estimate.ff, held.estimate.ff)  # a multiplier takes operands
        rng = np.random.default_rng(0)
        x, sets = codes(offsets.program, 12, rng), [drawn(offsets.program, rng)]
        result = run(offsets, x, sets=[Written(2, offsets.pack_set(sets[0]))])
        assert set(result.meets) == {0, 1}
        np.testing.assert_array_equal(result.outputs, golden(offsets.program, x, result.meets, sets))

    def test_a_program_without_held_inputs_has_no_port(self):
        text = emit(plan(network(7)))
        assert "weights_sets" not in text
        assert "s_axis_weights" not in text

    def test_a_stage_without_a_memory_is_refused(self, monkeypatch):
        kind = TensorType((4, 3), INT8)
        mean = Mean(kind, Requantize(3, Held("s", (3,), 1, 4)))
        program = Program({"x": kind}, (Node("y", mean, ("x",)),), "y")
        assert plan(program).network.words.count == 3
        monkeypatch.setattr(RequantizePipe, "tables", property(lambda _: {}, lambda *_: None), raising=False)
        with pytest.raises(BittrueError, match=r"y: the RTL of Mean cannot be written \(s\).*give its stage a memory"):
            plan(program)


@pytest.mark.parametrize("seed", range(8))
def test_ranges_of_a_requantiser_whose_numbers_are_written_are_those_of_their_ends(seed):
    """Of every step up to the shift, and of the last, by channel: reached at both ends and no wider."""
    rng = np.random.default_rng(seed)
    ends = lambda low, high: np.sort(rng.integers(low, high, 2)).tolist()  # noqa: E731
    held = {"bias_acc": ends(-9, 10), "multiplier": ends(1, 12), "bias": ends(-5, 6)}
    low, high = np.sort(rng.integers(-40, 41, (2, 3)), axis=0)
    numbers = {name: Held(name, (3,), *bounds) for name, bounds in held.items()}
    pipe = RequantizePipe(Requantize(3, 2, **numbers, format=Format(24)), low, high, 1)
    first = np.array([[acc + b for acc in (low, high)] for b in held["bias_acc"]]).reshape(-1, 3)
    product = np.concatenate([first * m for m in held["multiplier"]])
    last = np.concatenate([((product + 2) >> 2) + b for b in held["bias"]])
    by_kind = {step.kind: (step.low.tolist(), step.high.tolist()) for step in pipe.steps}
    for kind, values in {"before": first, "multiply": product, "after": product + 2, "bias": last}.items():
        if kind in by_kind:
            assert by_kind[kind] == (values.min(axis=0).tolist(), values.max(axis=0).tolist()), kind
    assert {"multiply", "after"} <= set(by_kind)
    assert "saturate" not in by_kind


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_frames_are_counted_twice_as_far_as_any_can_be_on_their_way(depth):
    """Which of two comes first is told by the sign of a difference. Here nothing is taken at the end of a pipeline,
    whose frames are of one beat."""
    build, kind = Builder({"x": TensorType((2,), INT8)}), TensorType((2,), INT8)
    tensor = "x"
    for k in range(depth):
        tensor = build.add(f"y{k}", Affine(kind, np.array([3, 5]), Requantize(2, 3)), tensor)
    network = plan(build.program(tensor), interval=1, weights="written").network
    dut, taken = Pipeline(network), 0

    async def bench(ctx):
        nonlocal taken
        ctx.set(dut.i0.valid, 1)
        for _ in range(200):
            taken += ctx.get(dut.i0.ready)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert taken > 2 * depth
    for element in network.elements:
        assert 1 << element.stage.exchange_bits > 2 * taken
