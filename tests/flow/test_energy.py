"""The energy view: counts against independent ones, energies at published points, toggles against a plain reader."""

import inspect
import json
import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow.cli import main as cli
from bittrue.flow.report import energy
from bittrue.flow.run import toggles
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.systems.fs import energy as spike_energy
from bittrue.flow.systems.fs import figures as spike_figures
from bittrue.flow.systems.fs import spikes
from bittrue.flow.systems.fs.commands import spikes as commands
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import activity, plan
from bittrue.rtl.dataflow.stage import Stage, realisation
from bittrue.rtl.dataflow.stages.add import AddStage
from bittrue.rtl.verilog import emit
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.requantize import Requantize
from tests.helpers import convolutions
from tests.helpers.bundled import grouped, images
from tests.helpers.programs import resmlp, spiking, stimulus

PROGRAM = spiking(shape=(3, 4), halving=True, steps=5, seed=11)
X = stimulus(PROGRAM, 6, 2)


def view(architecture: str, program=PROGRAM, x=X, **options):
    planned = plan(program, interval=1000, architecture=architecture, activity=activity(program, *x), **options)
    return planned, spike_energy.view(planned, x, toggled=0)


class TestEnergies:
    def test_published_points(self):
        assert [energy.addition(bits) for bits in (8, 16, 32)] == [0.03, 0.05, 0.1]
        assert energy.multiplication(8, 8) == pytest.approx(0.2, rel=1e-12)
        assert energy.multiplication(32, 32) == pytest.approx(3.1, rel=1e-12)
        assert energy.memory(64, 8 * 8192) == 10
        assert energy.memory(64, 4 * 8 * 8192) == 20

    def test_grow_with_the_width(self):
        sums = [energy.addition(bits) for bits in range(1, 49)]
        assert sums == sorted(set(sums))
        products = [energy.multiplication(8, bits) for bits in range(1, 33)]
        assert products == sorted(set(products))


@pytest.mark.parametrize("halving", [True, False])
def test_event_driven_layers_read_and_add_for_every_spike_and_no_other(halving):
    program = spiking(shape=(3, 4), halving=halving, steps=5, seed=12)
    x = stimulus(program, 6, 3)
    planned, found = view("events", program, x)
    counted = {layer.name: layer.operations for layer in spikes.count(program, x).synapses}
    rows = [row for row in found["layers"] if isinstance(program[row["name"]], SpikingLinear)]
    assert len(rows) == len(counted) == 4
    for row in rows:
        op = program[row["name"]]
        events = counted[row["name"]] / 6
        assert row["kind"] == "event-driven"
        assert row["synaptic_operations"] == events
        assert row["read_bits"]["weights"] == pytest.approx(8 * events, rel=1e-12)
        assert row["multiplications"] == pytest.approx(0 if op.halving else events, rel=1e-12)
        stage = planned.network.elements[planned.network.made[row["name"]]].stage
        seen = stage.effort(events=events / len(op.weight), moves=0)
        assert seen.additions.total() == pytest.approx(row["additions"], rel=1e-12)


@pytest.mark.parametrize(("told", "worth"), [(None, 1.0), ({}, 1.0), ({"scales": {}}, 1.0), ({"scales": 0.25}, 0.25)])
def test_a_step_of_a_code_is_worth_what_the_program_tells_or_one(told, worth):
    program = spiking(shape=(3, 4), halving=True, steps=5, seed=12)
    node = next(node for node in program.nodes if node.operation.output.events)
    if told is not None:
        program = replace(program, meta={"scales": {node.operands[0]: 0.25}} if told.get("scales") else told)
    x = stimulus(program, 6, 3)
    train = next(train for train in spikes.count(program, x).trains if train.name == node.name)
    seen = (dict(zip(program.inputs, x, strict=True)) | program.trace(*x).tensors)[node.operands[0]].astype(float)
    assert train.scale == worth
    assert train.to_json()["mean"] == pytest.approx(seen.mean() * worth, rel=1e-9)
    assert train.to_json()["deviation"] == pytest.approx(seen.std() * worth, rel=1e-9)


def test_moves_are_the_cycles_in_which_accumulators_change():
    """Against a plain walk through the beats, as the address-event stream handles them."""
    planned, _ = view("events")
    tensors = PROGRAM.trace(*X).tensors
    for element in planned.network.dynamic:
        stage, node = element.stage, next(n for n in PROGRAM.nodes if n.name == element.node)
        trains = tensors[node.operands[0]].reshape(-1, stage.operation.steps, stage.parts, stage.lanes_in)
        moves = 0
        for train in trains:
            for step, part in np.ndindex(train.shape[:2]):
                count = int(train[step, part].sum())
                final = step == train.shape[0] - 1 and part == train.shape[1] - 1
                waits = final or (stage.doubles and part == 0)
                moves += stage.groups * (count if count else int(waits))
        assert stage.counts(tensors[node.operands[0]]) == {"events": int(trains.sum()), "moves": moves}


def test_parallel_layers_add_and_read_everything_in_every_step():
    planned, found = view("parallel")
    assert [row["name"] for row in found["layers"]] == [node.name for node in PROGRAM.nodes]
    for row in found["layers"]:
        op = PROGRAM[row["name"]]
        if isinstance(op, SpikingLinear):
            products = op.tokens * op.steps * op.weight.size
            stage = planned.network.elements[planned.network.made[row["name"]]].stage
            assert row["read_bits"]["weights"] == (0 if stage.wired else 8 * products)
            spikes_in, outputs = op.tokens * op.steps * op.weight.shape[1], len(op.weight)
            assert row["read_bits"]["values"] == spikes_in * outputs // stage.pe  # once for outputs that share them
            assert products <= row["additions"] <= products + 3 * op.output.size
            assert row["multiplications"] == 0
        if isinstance(op, FsNeuron):
            assert row["additions"] == 2 * op.output.size
            assert row["read_bits"]["state"] == op.output.size * op.membrane.bits


def test_twin_multiplies_densely_and_total_is_the_sum():
    _, found = view("events")
    twin = {row["name"]: row for row in found["twin"]["layers"]}
    for node in PROGRAM.nodes:
        if isinstance(node.operation, SpikingLinear):
            assert twin[node.name]["multiplications"] == node.operation.macs
            assert twin[node.name]["read_bits"]["weights"] == 8 * node.operation.macs
    for part in (found, found["twin"]):
        assert part["total"]["pj"]["total"] == pytest.approx(sum(row["pj"]["total"] for row in part["layers"]))
    json.dumps(found)
    assert "<svg" in spike_figures.energy(found)


def test_not_spiking_is_the_same_in_the_twin():
    program = resmlp()
    planned = plan(program)
    found = spike_energy.view(planned, stimulus(program, 2, 0), toggled=0)
    assert found["total"]["pj"] == found["twin"]["total"]["pj"]
    assert found["total"]["multiplications"] >= program.macs


def test_an_array_of_light_is_referred_to_its_report():
    photonic = PhotonicMac.example(np.random.default_rng(1))
    with pytest.raises(BittrueError, match="the report of a photonic flow estimates it"):
        realisation(photonic)(photonic, lanes=1, simd=1, pe=1).effort()


def test_what_is_not_counted_is_refused(monkeypatch):
    monkeypatch.setattr(AddStage, "effort", Stage.effort)
    with pytest.raises(BittrueError, match="AddStage: what it adds, multiplies and reads is not counted"):
        energy.view(plan(resmlp()), stimulus(resmlp(), 2, 0), toggled=0)


@pytest.mark.needs("verilator", "g++")
class TestToggles:
    @pytest.mark.long
    def test_against_a_plain_reader_of_the_waveform(self, tmp_path):
        planned = plan(PROGRAM)
        verilog = emit(planned)
        rows, run = toggles.count(PipelineDesign(planned), verilog, X)
        run.check(PROGRAM(*X))
        waves = tmp_path / "w.vcd"
        CompiledRtl(verilog, planned.inputs, planned.outputs, trace=True).run(*X, waves=waves)
        counts, names = plain(waves.read_text())
        assert len({row.stage for row in rows}) == len(planned.network.elements)
        registers = toggles.clocked(verilog)
        for row in rows:
            scope = f"TOP.bittrue_top.pipeline.{row.stage}"
            inside = {(s, n): c for (s, n), c in names.items() if s == scope or s.startswith(scope + ".")}
            nets = set(inside.values()) - {names["TOP.bittrue_top", "aclk"]}
            held = {c for (s, n), c in inside.items() if n in registers[s.removeprefix("TOP.")]}
            assert row.nets == sum(counts[c] for c in nets)
            assert row.registers == sum(counts[c] for c in held)
            assert 0 < row.registers < row.nets

    def test_registers_are_what_clocked_processes_assign(self):
        verilog = emit(plan(PROGRAM))
        declared = toggles.clocked(verilog)["bittrue_top.pipeline.fire"]
        assert {"z0", "payload", "fires0"} & declared == {"z0"}  # the other two are wires before and behind it
        assert all(
            re.search(rf"reg (signed )?(\[\d+:0\] )?\\?{re.escape(name)} ", verilog)
            or re.search(rf"reg (signed )?(\[\d+:0\] )?\\?{re.escape(name)};", verilog)
            for name in declared
        )

    def test_no_change_no_toggle(self):
        """The same frame again and again toggles less than frames that differ."""
        planned = plan(PROGRAM)
        verilog = emit(planned)
        same = toggles.count(PipelineDesign(planned), verilog, [np.repeat(v[:1], 6, axis=0) for v in X])[0]
        varied = toggles.count(PipelineDesign(planned), verilog, X)[0]
        assert sum(row.registers for row in same) < sum(row.registers for row in varied)

    def test_command(self, tmp_path, capsys):
        PROGRAM.save(tmp_path / "p.npz")
        np.save(tmp_path / "x.npy", X[0])
        with pytest.raises(SystemExit) as stop:
            cli.main(["energy", str(tmp_path / "p.npz"), str(tmp_path / "x.npy"), "--toggles", "2", "--json"])
        assert stop.value.code == 0
        found = json.loads(capsys.readouterr().out)
        assert found["toggles"]["inputs"] == 2
        assert found["toggles"]["registers"] == pytest.approx(sum(s["registers"] for s in found["toggles"]["stages"]))


def test_the_command_says_where_its_energies_are_from(tmp_path, capsys):
    PROGRAM.save(tmp_path / "p.npz")
    np.save(tmp_path / "x.npy", X[0])
    with pytest.raises(SystemExit) as stop:
        cli.main(["energy", str(tmp_path / "p.npz"), str(tmp_path / "x.npy"), "--toggles", "0"])
    assert not stop.value.code
    out = " ".join(capsys.readouterr().out.split())
    assert " ".join(f"energies: {energy.SOURCE}".split()) in out


def test_the_command_counts_as_many_toggles_as_its_functions_by_default():
    said = inspect.signature(commands.energy).parameters["toggles"].default
    for function in (energy.view, spike_energy.view):
        assert inspect.signature(function).parameters["toggled"].default == said


def plain(text: str) -> tuple[dict[str, int], dict[tuple[str, str], str]]:
    """Bit changes of every code out of reset, line by line, and the codes of all names."""
    head, _, body = text.partition("$enddefinitions $end")
    scope, names, widths = [], {}, {}
    for words in map(str.split, head.splitlines()):
        if words[:1] == ["$scope"]:
            scope.append(words[2])
        elif words[:1] == ["$upscope"]:
            scope.pop()
        elif words[:1] == ["$var"]:
            names[".".join(scope), words[4]] = words[3]
            widths[words[3]] = int(words[2])
    values: dict[str, str] = {}
    counts: dict[str, int] = defaultdict(int)
    running = False
    for line in body.splitlines():
        if not line or line[0] not in "01b":
            continue
        value, code = line[1:].split() if line[0] == "b" else (line[0], line[1:])
        value = value.zfill(widths[code])
        if running and code in values:
            counts[code] += sum(a != b for a, b in zip(values[code], value, strict=True))
        values[code] = value
        running |= code == names["TOP.bittrue_top", "aresetn"] and value == "1"
    return counts, names


def kind(rows: int) -> TensorType:
    return TensorType((rows, 4), Format(8))


#: Operations whose rows are alike, of so many rows.
ROWS = {
    "Add": lambda n: Add(kind(n), kind(n), Format(8)),
    "Affine": lambda n: Affine(kind(n), np.arange(4), Requantize(4, 3)),
    "Lerp": lambda n: Lerp(kind(n), np.arange(5)[None]),
    "Linear": lambda n: Linear(kind(n), np.arange(12).reshape(3, 4), Requantize(3, 3)),
    "Multiply": lambda n: Multiply(kind(n), kind(n), Requantize(4, 3)),
}


@pytest.mark.parametrize("name", ROWS)
def test_twice_the_rows_are_twice_the_effort(name):
    one, two = (realisation(op)(op, **FOLDED.get(name, {"lanes": 2})).effort() for op in map(ROWS[name], (3, 6)))
    for each, both in ((one.additions, two.additions), (one.multiplications, two.multiplications)):
        assert both == {width: 2 * times for width, times in each.items()}
    assert [(t.purpose, t.size, t.read, t.written) for t in two.memory] == [
        (t.purpose, t.size, 2 * t.read, 2 * t.written) for t in one.memory
    ]
    assert one.additions.total() + one.multiplications.total() > 0


FOLDED = {"Linear": {"lanes": 1, "simd": 1, "pe": 1}}


def test_a_value_between_two_knots_takes_a_product_and_two_sums():
    op = ROWS["Lerp"](3)
    effort = realisation(op)(op, lanes=2).effort()
    assert (effort.multiplications.total(), effort.additions.total()) == (3 * 4, 2 * 3 * 4)


def test_what_is_done_for_a_group_is_shared():
    """By its images; what is done for each is not."""
    found = {}
    for n in (1, 4):
        p = grouped(1, slots=4, images=n)
        layers = energy.view(plan(p), [images(p, 8)], toggled=0)["layers"]
        found[n] = {row["name"]: (row["multiplications"], row["pj"]["multiplications"]) for row in layers}
    for name in ("stem", "classes"):
        assert found[4][name] == found[1][name]
    for name in ("wide", "unbind"):
        assert found[4][name] == pytest.approx(tuple(value / 4 for value in found[1][name]))


def test_one_plan_counts_every_size_of_group():
    """As plans for one size each do, but for widths of the sums and keys of all sizes."""
    p = grouped(1, slots=4)
    made, x = plan(p), [images(p, 8)]
    found = {n: energy.view(made, x, toggled=0, size=n) for n in (1, 2, 4)}
    assert found[4] == energy.view(made, x, toggled=0)
    each = {n: {row["name"]: row for row in view["layers"]} for n, view in found.items()}
    for name in ("stem", "classes"):
        assert each[1][name] == each[2][name] == each[4][name]
    for name in ("wide", "join", "unbind", "apart"):
        for n in (2, 4):
            assert n * each[n][name]["pj"]["total"] == pytest.approx(each[1][name]["pj"]["total"])
    own = [energy.view(plan(grouped(1, slots=4, images=n)), x, toggled=0) for n in (2, 4)]
    for n, alone in zip((2, 4), own, strict=True):
        assert found[n]["total"]["multiplications"] == pytest.approx(alone["total"]["multiplications"])
        assert found[n]["total"]["additions"] == pytest.approx(alone["total"]["additions"])
    with pytest.raises(BittrueError, match="an inference with 3 at a time cannot be counted: the plan has no groups"):
        energy.view(made, x, toggled=0, size=3)
    with pytest.raises(BittrueError, match="with 2 at a time cannot be counted: toggles are those of groups as"):
        energy.view(made, x, toggled=1, size=2)
    with pytest.raises(BittrueError, match="with 1 at a time"):
        energy.view(plan(resmlp()), stimulus(resmlp(), 2, 0), toggled=0, size=1)


def test_windows_that_have_no_stage_of_their_own():
    """Axes that are only named otherwise are no layer, nor is a window within the stage of its product."""
    p = convolutions.network(3)
    seen = {}
    for rings in (False, True):
        made = plan(p, rings=rings)
        layers = energy.view(made, stimulus(p, 2, 0), toggled=0)["layers"]
        assert [row["name"] for row in layers] == [e.node for e in made.network.elements if e.node]
        seen[rings] = {row["name"]: row["multiplications"] for row in layers}
    assert len(seen[True]) < len(seen[False]) < len(p.nodes)
    assert {name: count for name, count in seen[False].items() if name in seen[True]} == seen[True]
