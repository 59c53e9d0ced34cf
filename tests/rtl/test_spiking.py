"""Spiking programs in RTL: both architectures, alone and mixed, to the cycle; what planner and verify say of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow.verify.backends import Build, Stalls
from bittrue.flow.verify.judged import mean_interval
from bittrue.flow.verify.verify import verify
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, activity, plan, size_fifos
from bittrue.rtl.dataflow.spikes.events import EventLinearStage
from bittrue.rtl.dataflow.stages.spiking_linear import SpikingLinearStage
from bittrue.rtl.verilog import emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear
from tests.helpers.flip_flops import flip_flops
from tests.helpers.lengths import long_but
from tests.helpers.programs import spiking, stimulus
from tests.helpers.stage_bench import StageBench

ARCHITECTURES = {
    "parallel": "parallel",
    "events": "events",
    "mixed": {"embed": "events", "left": "events", "block.layer": "parallel"},
}


def exact(planned: Plan, built: Plan | None = None, frames: int = 8, seed: int = 0) -> None:
    """Codes, latency and the end of every frame as the schedule has them for these very frames; codes with stalls."""
    x = stimulus(planned.program, frames, seed)
    expected = planned.program.reference(*x)
    bench = StageBench(built or planned)
    plain = bench.run(x)
    np.testing.assert_array_equal(plain.outputs, expected)
    promised = planned.expect(*x)
    assert plain.latency == promised.latency
    assert [end - plain.first + plain.latency for end in plain.ends] == promised.ends.tolist()
    stalled = bench.run([v[:4] for v in x], idle=0.3, backpressure=0.4, seed=seed)
    np.testing.assert_array_equal(stalled.outputs, expected[:4])


def planned_for(program, architecture: str, interval: int | None = None) -> Plan:
    spikes = activity(program, *stimulus(program, 8, 0))
    return plan(program, interval=interval, architecture=ARCHITECTURES[architecture], activity=spikes)


@pytest.mark.parametrize("shape", [(6,), (3, 4)], ids=["vector", "tokens"])
@pytest.mark.parametrize("halving", long_but([True, False], False), ids=["halving", "products"])
@pytest.mark.parametrize("architecture", long_but(ARCHITECTURES, "mixed"))
def test_networks_are_exact(architecture, halving, shape):
    program = spiking(shape=shape, halving=halving)
    planned = planned_for(program, architecture)
    layers = {node.name for node in program.nodes if isinstance(node.operation, SpikingLinear)}
    chosen = ARCHITECTURES[architecture]
    for element in planned.network.elements:
        if element.node in layers:
            name = chosen if isinstance(chosen, str) else chosen.get(element.node, "parallel")
            assert type(element.stage) is (EventLinearStage if name == "events" else SpikingLinearStage)
    assert planned.dynamic == (architecture != "parallel")
    assert planned.estimate.dsp == 0 or not halving
    exact(planned)


@pytest.mark.parametrize(("channels", "lanes", "block"), [(33, 1, True), (66, 2, True), (32, 1, False)])
@pytest.mark.parametrize("kind", ["neurons", "words"])
def test_many_values_wait_in_block_ram(kind, channels, lanes, block):
    """A read with the clock comes a cycle later; no word in use is read while it is written."""
    values = TensorType((2, channels), Format(5))
    build, steps = Builder({"x": values}), np.array([8, 4, 2])
    build.add("z", FsNeuron(values, steps, steps) if kind == "neurons" else Encode(values), "x")
    made = size_fifos(Plan(build.program("z"), {"z": Folding(lanes, lanes)}, {"x": lanes}))
    (stage,) = (element.stage for element in made.network.elements if element.node)
    assert (stage.kept.style == "block") == block
    assert stage.structure().registers == flip_flops(stage)
    exact(made, frames=3)


@pytest.mark.parametrize("interval", [24, 48, 200])
def test_wanted_intervals_are_reached(interval):
    program = spiking(halving=True)
    planned = planned_for(program, "parallel", interval)
    assert planned.estimated_interval <= interval
    exact(planned)


def test_the_bound_holds_when_everything_spikes():
    """Without data a plan states the most that there can be; no frame takes longer."""
    program = spiking(halving=False)
    planned = planned_for(program, "events")
    x = stimulus(program, 12, 1)
    promised = planned.expect(*x)
    assert promised.latency <= planned.estimated_latency
    assert mean_interval(promised.ends) < planned.estimated_interval
    assert np.diff(planned.network.schedule(12).ends)[-1] == planned.estimated_interval


def test_a_plan_is_read_back_with_its_architecture():
    program = spiking(halving=True)
    planned = planned_for(program, "mixed")
    again = Plan.from_json(program, planned.to_json())
    assert again.folding == planned.folding
    assert again.folding["embed"].architecture == "events"


class TestErrors:
    def test_unknown_architecture(self):
        with pytest.raises(BittrueError, match="no architecture 'serial'; choose one of .*events"):
            plan(spiking(halving=True), architecture={"left": "serial"})

    def test_unknown_operation(self):
        with pytest.raises(BittrueError, match="no operation is named 'nowhere'"):
            plan(spiking(halving=True), architecture={"nowhere": "events"})

    def test_too_many_events(self):
        with pytest.raises(BittrueError, match="events a frame do not fit an interval of 20"):
            plan(spiking(halving=True), interval=20, architecture={"left": "events"})

    @pytest.mark.parametrize(("simd", "pe"), [(4, 1), (5, 2), (0, 1)])
    def test_folding_that_does_not_divide(self, simd, pe):
        with pytest.raises(BittrueError, match="left: spiking_linear: .* does not divide"):
            plan(spiking(halving=True), folding={"left": Folding(simd, pe, "events")})


class TestVerify:
    @pytest.mark.long
    def test_a_schedule_that_is_not_kept_is_a_problem(self, tmp_path):
        """The plan of one folding, the Verilog of another: the codes are right, the cycles are not."""
        program = spiking(halving=True)
        planned = planned_for(program, "events")
        x = stimulus(program, 40, 2)
        honest = verify(PipelineDesign(planned), x, {"compiled": None}, Stalls(), tmp_path / "honest")
        assert honest.problems == []
        assert honest.rows[0]["interval"] == honest.rows[0]["estimated_interval"]
        slow = planned.folding["embed"]
        other = dict(planned.folding) | {"embed": replace(slow, pe=1 if slow.pe > 1 else 5)}
        folded = plan(program, folding=other)
        found = verify(
            Build(program, design=PipelineDesign(planned), verilog=emit(folded)),
            x,
            {"compiled": None},
            Stalls(),
            tmp_path,
        )
        assert found.rows[0]["mismatches"] == 0
        assert any("the schedule says" in problem for problem in found.problems)


class TestMutations:
    """Each thing broken in the hardware is seen."""

    @pytest.fixture
    def planned(self) -> Plan:
        return planned_for(spiking(halving=True), "mixed")

    def element(self, planned: Plan, node: str):
        return next(e.stage for e in planned.network.elements if e.node == node)

    def test_threshold(self, planned):
        op = self.element(planned, "fire").operation
        changed = op.threshold.copy()
        changed[0] //= 2
        self.element(planned, "fire").operation = replace(op, threshold=changed)
        with pytest.raises(AssertionError):
            exact(planned, frames=40)

    def test_weight_of_an_event(self, planned):
        op = self.element(planned, "left").operation
        changed = op.weight.copy()
        changed[0, 0] ^= 1
        self.element(planned, "left").operation = replace(op, weight=changed)
        with pytest.raises(AssertionError):
            exact(planned, frames=40)

    def test_a_doubling_too_few(self, planned):
        self.element(planned, "embed").doubles = False
        with pytest.raises(AssertionError):
            exact(planned)

    def test_sign_of_the_first_step(self, planned):
        self.element(planned, "embed").accumulators.signed_steps = False
        with pytest.raises(AssertionError):
            exact(planned)

    def test_work_counted_wrong(self, planned, monkeypatch):
        monkeypatch.setattr(EventLinearStage, "work", lambda self, z: np.ones(z.size // self.lanes_in, int))
        with pytest.raises(AssertionError):
            exact(planned)
