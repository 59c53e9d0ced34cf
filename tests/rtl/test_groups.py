"""Frames that go in groups, in hardware: codes, and the cycle in which every frame ends, whatever is written when."""

from __future__ import annotations

import re

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from bittrue.rtl.dataflow.estimate import estimate
from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stage import shape_of
from bittrue.rtl.dataflow.stages import bundle, unbundle
from bittrue.rtl.dataflow.structure import Structure
from bittrue.rtl.verilog import emit
from bittrue.sim import groups
from bittrue.sim.contract import Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.bundle import Bundle
from tests.helpers.bundled import changes, grouped, images
from tests.helpers.drive import pack, unpack
from tests.helpers.flip_flops import flip_flops
from tests.helpers.lengths import long_but
from tests.helpers.stage_bench import StageBench, Written


def planned(seed: int, **options) -> Plan:
    program = grouped(seed, **options)
    rng = np.random.default_rng([seed, 1])
    slowest = plan(program).network.bottleneck
    return plan(program, interval=int(rng.integers(slowest // 2, 3 * slowest)))


def written(plan: Plan, sizes: list[int]) -> list[Written]:
    """Every size but the first, which holds as it is, when the group before has begun."""
    starts = np.cumsum([0, *sizes])
    return [Written(int(starts[k]) + 1, plan.pack_set({"images": np.array(n)})) for k, n in enumerate(sizes[1:])]


class TestWritten:
    @pytest.mark.parametrize("seed", long_but(range(5), 0, 1))
    def test_to_the_cycle_with_another_size_in_every_group(self, seed):
        made = planned(seed)
        program, rng = made.program, np.random.default_rng(seed)
        sizes = [program.grouping.size, *(int(n) for n in rng.choice(program.grouping.modes, 7))]
        x, held = images(program, sum(sizes), seed), changes(sizes)
        bench, expected = StageBench(made), program.reference(x, held=held)
        result = bench.run([x], sets=written(made, sizes))
        np.testing.assert_array_equal(result.outputs, expected)
        assert result.output_ends == made.expect(x, held=held).output_ends.tolist()
        stalled = bench.run([x], 0.3, 0.4, seed, written(made, sizes))
        np.testing.assert_array_equal(stalled.outputs, expected)

    @pytest.mark.parametrize("seed", long_but(range(3), 2))
    def test_every_size_by_itself(self, seed):
        """Latency, and cycles between groups, are those of the plan in every mode."""
        made = planned(seed + 20)
        program, bench = made.program, StageBench(made)
        for n, (latency, interval) in made.modes.items():
            frames = n * (latency // made.network.bottleneck + 6)
            x = images(program, frames, n)
            first = program.grouping.size
            result = bench.run([np.concatenate([images(program, first), x])], sets=written(made, [first, n]))
            held = changes([first, *[n] * (frames // n)])
            np.testing.assert_array_equal(
                result.outputs, program.reference(np.concatenate([images(program, first), x]), held=held)
            )
            ends = result.output_ends[0]
            assert ends[-1] - ends[-1 - n] == interval
            alone = made.network.schedule(frames, modes=[n])
            assert (alone.latency, alone.interval) == (latency, interval)

    def test_written_within_a_group_holds_from_the_next_on(self):
        made = planned(3, slots=4)
        program = made.program
        x = images(program, 4 + 4 + 1 + 1)
        words = [Written(after, made.pack_set({"images": np.array(n)})) for after, n in ((2, 1), (3, 4), (5, 1))]
        result = StageBench(made).run([x], sets=words)
        np.testing.assert_array_equal(result.outputs, program.reference(x, held=changes([4, 4, 1, 1])))

    def test_what_divides_no_slots_is_refused_as_it_is_written(self):
        made = planned(4, slots=4)
        with pytest.raises(BittrueError, match="3 is none of its values 1, 2, 4"):
            made.pack_set({"images": np.array(3)})
        x = images(made.program, 8)
        result = StageBench(made).run([x], sets=[Written(1, np.array([3])), Written(1, np.array([5]))])
        assert result.errors == 2
        np.testing.assert_array_equal(result.outputs, made.program.reference(x))  # as it was at first

    def test_few_large_images_cost_what_the_bulk_costs_once(self):
        """Where the bulk dominates, a group of N takes hardly longer than one of a single image."""
        program = grouped(1, slots=4, bulk=12)
        made = plan(program, interval=plan(program).network.bottleneck * 4)
        cycles = {n: interval / n for n, (_, interval) in made.modes.items()}
        assert cycles[4] <= 1.15 / 4 * cycles[1]


@pytest.mark.parametrize(("slots", "size"), [(4, 2), (6, 3)])
def test_flip_flops_are_counted(slots, size):
    """What counts the groups, tells them and lets results pass, beside the stages; blocks of memory take some."""
    network = planned(slots + size, slots=slots, images=size).network
    built = [element.stage.structure() for element in network.elements]
    taken = sum(stage.inside - stage.read_bits for stage in built)
    assert estimate(network, Structure()).ff + taken == flip_flops(Pipeline(network))


def test_what_is_told_lies_in_no_block():
    """A block's slow output would be in the path of those that decide by it, however many groups are on their way."""
    made = planned(1)
    groups, text = made.network.groups, emit(made)
    told = [*(f"sizes{k}" for k in range(len(groups.stages))), *(f"results{k}" for k in range(len(groups.results)))]
    assert len(told) >= 2
    for name in told:
        styles = re.findall(rf'ram_style = "(\w+)" \*\)\s+reg \[\d+:0\] {name} \[', text)
        assert styles == ["distributed"]


@pytest.mark.parametrize(("slots", "size"), long_but([(2, 2), (4, 2), (4, 4), (6, 3), (3, 1)], (4, 2), (3, 1)))
def test_constant_sizes(slots, size):
    made = planned(slots + size, slots=slots, images=size)
    program = made.program
    x = images(program, 6 * size)
    bench, expected = StageBench(made), program.reference(x)
    result = bench.run([x])
    np.testing.assert_array_equal(result.outputs, expected)
    assert result.output_ends == made.expect(x).output_ends.tolist()
    np.testing.assert_array_equal(bench.run([x], 0.2, 0.5, 1).outputs, expected)


def flushed(made: Plan, x: np.ndarray, after: list[int]) -> tuple[np.ndarray, list[int], list[int]]:
    """A run in which a group that is not complete is flushed once so many frames are in; the results that came, what
    waited before each flush, and the count of filled frames at the end."""
    dut, waited, filled = Pipeline(made.network), [], []
    name, kind = next(iter(made.program.inputs.items()))
    lanes = made.network.elements[made.network.made[name]].stage.lanes_in
    beats = x.reshape(len(x), -1, lanes)
    words = [pack(beat, kind.format.bits) for beat in beats.reshape(-1, lanes)]
    out = made.program.output
    width = made.network.elements[made.network.outputs[0]].stage.lanes_out
    control = made.network.groups
    got: list[int] = []

    async def bench(ctx):
        sent, left, quiet = 0, list(after), 0
        ctx.set(dut.outlets[0].ready, 1)
        while quiet < 3000:
            due = left and sent == left[0] * beats.shape[1]
            more = sent < len(words) and not due
            ctx.set(dut.inlet(name).valid, int(more))
            if more:
                ctx.set(dut.inlet(name).payload.as_value(), words[sent])
            if due:
                waited.append(ctx.get(control.waiting))
                left.pop(0)
            ctx.set(control.flush, int(bool(due)))
            await ctx.delay(0)
            taken = more and ctx.get(dut.inlet(name).ready)
            if ctx.get(dut.outlets[0].valid):
                got.append(ctx.get(dut.outlets[0].payload.as_value()))
                quiet = 0
            quiet = 0 if taken else quiet + 1
            sent += bool(taken)
            await ctx.tick()
        filled.append(ctx.get(control.filled))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    codes = np.array([unpack(word, out.format.bits, width, out.format.signed) for word in got]).reshape(-1, *out.shape)
    return codes, waited, filled


@pytest.mark.parametrize("seed", long_but(range(3), 0))
def test_a_group_that_is_not_complete_is_flushed(seed):
    """What lacks is filled with images of code 0, whose results do not come out; nothing else is told apart."""
    made = planned(seed + 40, slots=4, images=4)
    program = made.program
    x = images(program, 7, seed)
    codes, waited, filled = flushed(made, x, [1, 4, 7])
    alone = [program.reference(x[part]) for part in (slice(0, 1), slice(1, 4), slice(4, 7))]
    np.testing.assert_array_equal(codes, np.concatenate(alone))
    assert waited == [1, 3, 3]
    assert filled == [3 + 1 + 1]


def test_without_a_flush_it_waits():
    made = planned(40, slots=4, images=4)
    codes, _, filled = flushed(made, images(made.program, 6), [])
    assert (len(codes), filled) == (4, [0])
    with pytest.raises(BittrueError, match="2 of 4 frames and waits for the others"):
        made.expect(images(made.program, 6))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("r", range(1, 8))
def test_means_are_exact(r, signed):
    """Of every sum that r codes of eight bits, signed or not, can have, in gates."""
    of = Range.of(-128 * r, 127 * r) if signed else Range.of(0, 255 * r)
    m, total, found = Module(), Signal(shape_of(of)), Signal(20)
    m.d.comb += found.eq(unbundle.mean(m, total, r, of))
    seen = []

    async def drive(ctx):
        for v in range(of.low, of.high + 1):
            ctx.set(total, v)
            seen.append(ctx.get(found))

    simulator = Simulator(m)
    simulator.add_testbench(drive)
    simulator.run()
    v = np.arange(of.low, of.high + 1)
    np.testing.assert_array_equal(seen, (2 * v + r) // (2 * r) & (1 << 20) - 1)


@pytest.mark.long
def test_both_architectures_are_the_same():
    """A key that turns gives what its matrix in a memory gives, folded in every way."""
    program = grouped(7, slots=4, turned=True)
    operation = program["bundle"]
    assert isinstance(operation, Bundle)
    x = images(program, 8)
    expected = program.reference(x)
    for name, make in (("parallel", bundle.BundleStage), ("rotating", bundle.RotatingBundleStage)):
        foldings = make.foldings(operation)
        assert {f.architecture for f in foldings} == {name}
        for folding in foldings[:: max(1, len(foldings) // 3)]:
            made = plan(program, interval=4000, folding={"bundle": folding})
            np.testing.assert_array_equal(StageBench(made).run([x]).outputs, expected, err_msg=str(folding))
    anything = grouped(7, slots=4, turned=False)
    with pytest.raises(BittrueError, match="not rotating: its matrices are not those of circular convolutions"):
        plan(anything, interval=4000, architecture={"bundle": "rotating"})


def test_what_is_not_there_yet_is_refused():
    program = grouped(2, slots=2)
    of_groups = type(program)(program.inputs, program.nodes[:5], "back")
    with pytest.raises(BittrueError, match="result 'back' is one of groups"):
        plan(of_groups)
    assert groups.divisors(6) == (1, 2, 3, 6)
