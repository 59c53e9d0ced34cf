"""The planner: balanced foldings, an interval that is reached or refused, FIFOs no deeper than needed, devices."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bittrue.rtl.dataflow.estimate import DEVICES, Area
from bittrue.rtl.dataflow.fifos import _sized, _smallest
from bittrue.rtl.dataflow.folding import Folding, divisors
from bittrue.rtl.dataflow.network import Network
from bittrue.rtl.dataflow.plan import Plan, natural_interval, plan
from bittrue.rtl.dataflow.stages.linear import LinearStage
from bittrue.rtl.dataflow.stages.photonic_mac import PhotonicMacStage
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from tests.helpers.bundled import grouped
from tests.helpers.exact import exact
from tests.helpers.programs import resmlp, several, spiking, stimulus, two_inputs
from tests.helpers.stage_bench import run

PROGRAMS = {
    "lerp": lambda: resmlp(tokens=4, features=6, channels=8, hidden=12, blocks=1),
    "two blocks": lambda: resmlp(tokens=4, channels=4, hidden=8, blocks=2, nonlinearity="relu"),
    "two inputs": lambda: two_inputs(tokens=4, channels=6),
    "several results": lambda: several(tokens=4, channels=6),
}


@pytest.fixture(params=PROGRAMS)
def program(request) -> Program:
    return PROGRAMS[request.param]()


def matrices(program: Program) -> dict[str, Linear]:
    return {node.name: node.operation for node in program.nodes if isinstance(node.operation, Linear)}


def settled(planned: Plan) -> int:
    """Frames after which the pipeline is full."""
    return planned.estimated_latency // planned.estimated_interval + 5


class TestInterval:
    @pytest.mark.parametrize("wanted", [8, 12, 24, 48, 200])
    def test_is_reached(self, program, wanted):
        planned = plan(program, interval=wanted)
        assert planned.estimated_interval <= wanted
        assert planned.estimated_interval == planned.network.bottleneck
        assert all(element.stage.interval <= wanted for element in planned.network.elements)

    def test_is_reached_by_the_hardware(self):
        """The estimate is what Amaranth's simulator measures, to the cycle."""
        planned = plan(PROGRAMS["lerp"](), interval=12)
        x = stimulus(planned.program, settled(planned), 0)
        result = run(planned, x)
        np.testing.assert_array_equal(result.outputs, planned.program.reference(*x))
        assert (result.latency, result.interval) == (planned.estimated_latency, planned.estimated_interval)
        assert result.interval <= 12

    def test_by_default_is_one_code_a_beat(self, program):
        planned = plan(program)
        assert planned.estimated_interval <= natural_interval(program)
        assert natural_interval(program) == max(kind.size for kind in program.types.values())
        assert set(planned.input_lanes.values()) == {1}

    def test_less_time_costs_more_multipliers(self, program):
        products = []
        for wanted in (8, 24, 48, 10_000):
            folding = plan(program, interval=wanted).folding
            products.append(sum(f.simd * f.pe for f in folding.values()))
        assert products == sorted(products, reverse=True)
        assert products[0] > products[-1] == len(matrices(program))

    def test_impossible_is_refused_with_the_remedy(self, program):
        with pytest.raises(BittrueError, match="interval of 1 cannot be reached"):
            plan(program, interval=1)

    def test_the_remedy_works(self, program):
        """Whoever asks for the interval that the error names is granted it, or told a larger one."""
        wanted, refused = 1, 0
        planned = None
        while planned is None:
            try:
                planned = plan(program, interval=wanted)
            except BittrueError as error:
                named = max(int(number) for number in re.findall(r"(?:least|needs) (\d+)", str(error)))
                refused, wanted = wanted, max(named, wanted)
            if refused == wanted:
                pytest.fail(f"an interval of {wanted} is refused and named as the remedy")
        assert 0 < refused < wanted
        assert planned.estimated_interval <= wanted

    @pytest.mark.parametrize("wanted", [0, -5])
    def test_none_at_all_is_refused(self, wanted):
        with pytest.raises(BittrueError):
            plan(two_inputs(), interval=wanted)

    def test_not_both(self, program):
        with pytest.raises(BittrueError, match="not both"):
            plan(program, interval=48, device="ecp5-85k")


class TestFolding:
    @pytest.mark.parametrize("wanted", [8, 11, 12, 48, 1000])
    def test_fewest_multipliers(self, wanted):
        """Against all foldings, tried one by one."""
        for name, operation in matrices(PROGRAMS["lerp"]()).items():
            outputs, inputs = operation.weight.shape
            legal = [
                (s, p) for s in range(1, inputs + 1) for p in range(1, outputs + 1) if not (inputs % s or outputs % p)
            ]
            cycles = {f: operation.input.tokens * (inputs // f[0]) * (outputs // f[1]) for f in legal}
            found = LinearStage.fold(operation, wanted, name)
            assert cycles[found.simd, found.pe] <= wanted
            assert found.simd * found.pe == min(s * p for s, p in legal if cycles[s, p] <= wanted)

    def test_fixed_by_hand(self, program):
        name = next(iter(matrices(program)))
        outputs, inputs = matrices(program)[name].weight.shape
        for simd, pe in ((1, 1), (inputs, 1), (1, outputs), (inputs, outputs)):
            planned = plan(program, interval=1000, folding={name: Folding(simd, pe)})
            assert planned.folding[name] == Folding(simd, pe)
            others = plan(program, interval=1000).folding
            assert all(planned.folding[k] == others[k] for k in others if k != name)

    @pytest.mark.parametrize(("simd", "pe"), [(5, 1), (1, 5), (0, 1), (16, 1), (1, -1)])
    def test_what_does_not_divide_is_refused(self, simd, pe):
        """The error names the node and what would divide."""
        program = PROGRAMS["lerp"]()
        name = "block0.channel.linear1"
        outputs, inputs = matrices(program)[name].weight.shape
        with pytest.raises(BittrueError) as error:
            plan(program, folding={name: Folding(simd, pe)})
        assert name in str(error.value)
        wrong = inputs if simd < 1 or inputs % simd else outputs
        assert ", ".join(map(str, divisors(wrong))) in str(error.value)

    def test_an_unknown_node_is_refused(self, program):
        with pytest.raises(BittrueError, match="'nowhere' is no stage that can be folded") as error:
            plan(program, folding={"nowhere": Folding(1, 1)})
        assert all(name in str(error.value) for name in matrices(program))

    def test_a_node_without_matrix_is_refused(self):
        with pytest.raises(BittrueError, match="'scale' is no stage that can be folded"):
            plan(two_inputs(), folding={"scale": Folding(1, 1)})


class TestFifos:
    @pytest.mark.parametrize("wanted", [12, 24, None])
    def test_none_can_be_shallower(self, program, wanted):
        """One entry less, in any FIFO, and some frame ends in another cycle."""
        planned = plan(program, interval=wanted)
        frames = settled(planned)
        chosen = planned.network.schedule(frames)
        assert (chosen.latency, chosen.interval) == (planned.estimated_latency, planned.estimated_interval)
        # A residual needs one, two separate inputs do not; one of these needs it to give out what is made of it early.
        assert bool(planned.fifos) == (len(program.inputs) == 1 or len(program.results) > 1)
        for edge, entries in planned.fifos.items():
            less = planned.network.schedule(frames, {**planned.fifos, edge: entries - 1})
            assert not less.keeps(chosen), edge

    def test_deeper_changes_nothing(self, program):
        planned = plan(program)
        frames = settled(planned)
        chosen = planned.network.schedule(frames)
        for edge, entries in planned.fifos.items():
            more = planned.network.schedule(frames, {**planned.fifos, edge: 10 * entries})
            assert more.keeps(chosen), edge

    def test_one_entry_less_is_slower_in_hardware(self):
        """Not in the schedule alone: Amaranth's simulator ends some frame later, and the codes stay right."""
        planned = plan(PROGRAMS["lerp"](), interval=24)
        (edge, entries), *_ = planned.fifos.items()
        x = stimulus(planned.program, settled(planned), 0)
        assert entries > 1
        good = run(planned, x)
        shallow = run(replace(planned, fifos={**planned.fifos, edge: entries - 1}), x)
        np.testing.assert_array_equal(shallow.outputs, good.outputs)
        assert shallow.ends != good.ends
        assert all(late >= early for late, early in zip(shallow.ends, good.ends, strict=True))

    @pytest.mark.parametrize("most", [1, 2, 3, 17, 64])
    def test_smallest(self, most):
        """The search for a depth, for every answer and every guess."""
        for answer in range(1, most + 1):
            for guess in range(1, most + 1):
                assert _smallest(lambda n, answer=answer: n >= answer, most, guess) == answer


class TestSpeed:
    @pytest.mark.long
    def test_sixty_stages_and_a_million_cycles(self):
        """Planned in seconds, FIFOs and all: time goes by beats and not by cycles."""
        program = resmlp(tokens=16, features=8, channels=64, hidden=1024, blocks=5)
        start = time.process_time()
        planned = plan(program, interval=1_000_000)
        assert time.process_time() - start < 30
        assert len(planned.network.elements) >= 60
        assert 500_000 < planned.estimated_interval <= 1_000_000
        assert len(planned.fifos) >= 5

    def test_a_stage_is_made_once(self, program, monkeypatch):
        """For all intervals that are tried for a device, and all depths of FIFOs; once more for the plan itself."""
        made = []
        init = LinearStage.__init__

        def counted(self, operation, **options):
            made.append((id(operation), tuple(sorted(options.items()))))
            init(self, operation, **options)

        monkeypatch.setattr(LinearStage, "__init__", counted)
        plan(program, device="ecp5-25k")
        assert 1 <= max(Counter(made).values()) <= 2


class TestFile:
    def test_round_trip(self, program):
        planned = plan(program, interval=24)
        again = Plan.from_json(program, json.loads(json.dumps(planned.to_json())))
        assert again.to_json() == planned.to_json()
        assert (again.folding, again.fifos, again.input_lanes) == (planned.folding, planned.fifos, planned.input_lanes)
        assert (again.inputs, again.outputs) == (planned.inputs, planned.outputs)
        assert [row["name"] for row in again.stages()] == [row["name"] for row in planned.stages()]
        assert again.network.schedule(settled(again)).latency == planned.estimated_latency

    def test_another_program_is_refused(self):
        value = plan(two_inputs(seed=0)).to_json()
        with pytest.raises(BittrueError, match="another program; plan again"):
            Plan.from_json(two_inputs(seed=1), value)

    def test_the_same_program_plans_the_same(self, program):
        assert plan(program, interval=24).to_json() == plan(program, interval=24).to_json()


class TestDevice:
    def test_the_plan_fits(self, program):
        planned = plan(program, device="ecp5-25k")
        assert not planned.estimate.over(DEVICES["ecp5-25k"])

    def test_a_larger_device_is_never_slower(self, program):
        intervals = [plan(program, device=name).estimated_interval for name in ("ecp5-25k", "ecp5-45k", "ecp5-85k")]
        assert intervals == sorted(intervals, reverse=True)

    @pytest.mark.parametrize("architecture", ["parallel", "events"])
    def test_where_everything_fits_it_is_the_quickest(self, architecture):
        """As quick as the first interval that can be asked for at all."""
        program = spiking(shape=(2, 3), halving=True, steps=3, seed=11)
        planned = plan(program, device="ecp5-85k", architecture=architecture)
        for interval in range(1, 200):
            try:
                first = plan(program, interval=interval, architecture=architecture)
            except BittrueError:
                continue
            break
        assert planned.estimated_interval == first.estimated_interval
        assert {f.architecture for f in planned.folding.values()} == {"parallel", architecture}

    def test_a_smaller_device_costs_time(self, program, monkeypatch):
        """Half the area of the quickest plan on a large device: a plan that fits, and takes longer."""
        quick = plan(program, device="ecp5-85k")
        area = quick.estimate
        monkeypatch.setitem(DEVICES, "half", replace(area, dsp=area.dsp // 2, lut=10**6, ff=10**6))
        slower = plan(program, device="half")
        assert slower.estimate.dsp <= area.dsp // 2
        assert slower.estimated_interval > quick.estimated_interval

    def test_too_small_is_refused(self, program, monkeypatch):
        monkeypatch.setitem(DEVICES, "tiny", Area(10, 10, 0, 0))
        with pytest.raises(BittrueError, match=r"does not fit tiny: lut \d+ of 10, ff \d+ of 10"):
            plan(program, device="tiny")

    def test_an_unknown_device_is_refused(self, program):
        with pytest.raises(BittrueError, match="no device 'abacus'; known are ecp5-25k"):
            plan(program, device="abacus")


def test_a_plan_says_what_a_block_ram_is_worth():
    """A layer of 256 bits of weights a cycle, 32 rows deep: in blocks, or in LUTs where a block is worth as many."""
    rng = np.random.default_rng(1)
    kind = TensorType((1, 32), INT8)
    build = Builder({"x": kind})
    build.add("y", Linear(kind, rng.integers(-128, 128, (32, 32)), Requantize(32, 9)), "x")
    program = build.program("y")
    blocks, luts = plan(program, interval=32), plan(program, interval=32, block_luts=96)
    assert (blocks.estimate.bram, luts.estimate.bram) == (7, 0)  # of the eighth block's 4 bits, a code in LUTs
    assert luts.estimate.lut > blocks.estimate.lut
    again = Plan.from_json(program, json.loads(json.dumps(luts.to_json())))
    assert again.folding == luts.folding
    assert again.estimate == luts.estimate
    for planned in (blocks, luts):
        exact(planned, 1)


def test_what_a_block_ram_is_worth_counts_for_what_fits_a_device(monkeypatch):
    """A device without block RAM has room for a layer only where its weights go to LUTs."""
    rng = np.random.default_rng(1)
    kind = TensorType((1, 32), INT8)
    build = Builder({"x": kind})
    build.add("y", Linear(kind, rng.integers(-128, 128, (32, 32)), Requantize(32, 9)), "x")
    program = build.program("y")
    monkeypatch.setitem(DEVICES, "bare", replace(DEVICES["ecp5-25k"], bram=0))
    with pytest.raises(BittrueError, match="does not fit bare"):
        plan(program, device="bare")
    fitting = plan(program, device="bare", block_luts=1000)
    assert fitting.estimate.bram == 0
    assert not fitting.estimate.over(DEVICES["bare"])


@pytest.mark.parametrize("channels", [6, 8])
@pytest.mark.parametrize("interval", [1, 2, 3, 4, 8, 12, 24])
def test_a_photonic_array_is_folded_for_the_input_that_feeds_it(channels, interval):
    """The fewest products within the interval; among all, those that the slowest fast enough stream feeds as it is."""
    cells = np.ones((4, channels), int)
    op = PhotonicMac(TensorType((channels,), Format(4, signed=False)), cells, cells, channels, 8, 0, 0)
    fitting = [f for f in PhotonicMacStage.foldings(op) if PhotonicMacStage.cycles(op, f) <= interval]
    if not fitting:
        with pytest.raises(BittrueError):
            PhotonicMacStage.fold(op, interval, "x")
        return
    stream = min(n for n in divisors(channels) if n * interval >= channels)
    fed = [f for f in fitting if f.simd % stream == 0] or fitting
    found = PhotonicMacStage.fold(op, interval, "x")
    assert found in fed
    assert found.simd * found.pe == min(f.simd * f.pe for f in fed)


def test_activity_of_what_has_no_events_changes_no_plan():
    """The fastest that the device holds is one that every stage reaches, whatever is said of ones."""
    program = resmlp(tokens=3, channels=4, features=4, hidden=8, seed=4)
    plain, told = (plan(program, device="ecp5-85k", activity=seen) for seen in (None, {"x": 0.5}))
    assert plain.estimated_interval == plain.network.bottleneck > 4
    assert told.folding == plain.folding
    assert told.estimated_interval == plain.estimated_interval


@pytest.mark.parametrize("seed", range(6))
def test_depths_of_any_size_of_groups_are_those_of_each_alone(seed, monkeypatch):
    """What one size needs is tried first for the others, and taken only where it is the least there too. With these
    every group of that size ends as with FIFOs that never fill, and with a place less in any of them one does not."""
    made = plan(grouped(seed, slots=4, bulk=3, most=20), interval=6000)
    bare = replace(made, fifos={})
    runs = []
    schedule = Network.schedule
    monkeypatch.setattr(Network, "schedule", lambda *a, **k: runs.append(k.get("modes")) or schedule(*a, **k))
    alone = [_sized(bare, None, n) for n in (1, 2, 4)]
    apart, runs[:] = len(runs), []
    assert {edge: max(one.fifos.get(edge, 0) for one in alone) for edge in made.fifos} == made.fifos
    for told in (1, 10_000):  # whatever is tried first
        answers = dict.fromkeys([(4 * made.program.types["bundle"].size, way) for way in range(2000)], told)
        assert _sized(bare, None, 2, answers).fifos == alone[1].fifos
    known: dict = {}
    runs[:] = []
    assert [_sized(bare, None, n, known).fifos for n in (1, 2, 4)] == [one.fifos for one in alone]
    assert len(runs) < apart
    for n, one in zip((1, 2, 4), alone, strict=True):
        network, frames = one.network, 12 * n
        never_full = network.schedule(frames, dict.fromkeys(one.fifos, 10_000), modes=[n])
        assert network.schedule(frames, modes=[n]).keeps(never_full)
        for edge, depth in one.fifos.items():
            assert depth == 1 or not network.schedule(frames, {edge: depth - 1}, modes=[n]).keeps(never_full)
