"""Several results: faults in one of their ports, an output that nobody reads, parts that share nothing, refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bittrue.flow.engine.training import read_lowered
from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.result import Beats
from bittrue.flow.verify import verify
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.hls import project
from bittrue.models.formats.nir import write as nir
from bittrue.rtl.dataflow import top
from bittrue.rtl.dataflow.pipeline import Pipeline
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Node, Program
from bittrue.sim.written import written
from tests.helpers.axis_bench import AxisBench
from tests.helpers.exact import exact, exact_compiled
from tests.helpers.flows import with_weight_flipped
from tests.helpers.lengths import long_but
from tests.helpers.photonic_bench import ARRAY
from tests.helpers.photonic_programs import photonic_network
from tests.helpers.programs import several, spiking, stimulus, swapped, two_inputs

PROGRAM = several(tokens=2, channels=2, outputs=2, seed=3)
FRAMES = 9


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(PROGRAM)


def test_members_of_one_result_and_of_several(planned):
    one = Pipeline(plan(spiking(shape=(3, 4), halving=False, steps=2, seed=11)).network)
    several = Pipeline(planned.network)
    assert one.results == ["o"]
    assert several.results == [f"o{k}" for k in range(len(PROGRAM.results))]
    assert several.outlets == [several.o0, several.o1, several.o2, several.o3]


# -- faults of one port ----------------------------------------------------------------------------------------
def spoilt(verilog: str, fault: str) -> str:
    """The Verilog with a fault in the ports of its results."""
    if fault == "swapped":
        return swapped(verilog, "m_axis_sum_tdata", "m_axis_scale_tdata")
    old, new = {
        "dropped": (r"assign m_axis_scale_tlast = .*;", "assign m_axis_scale_tlast = 1'h0;"),
        "held": (r"\.o3__valid\(m_axis_mean_tvalid\)", ".o3__valid()"),
        "stuck": (r"assign m_axis_sum_tdata = .*;", "assign m_axis_sum_tdata = 8'h11;"),
    }[fault]
    text, count = re.subn(old, new, verilog)
    assert count == 1
    if fault == "held":
        text = text.replace(
            "  assign m_axis_mean_tlast", "  assign m_axis_mean_tvalid = 1'h0;\n  assign m_axis_mean_tlast"
        )
    return text


#: What a run says of it.
SAID = {
    "swapped": r"codes differ, the first at frame 0, m_axis_sum\[0, \d\]: expected",
    "dropped": r"m_axis_scale: the last beat of frame 0 came without TLAST",
    "held": rf"deadlock, no handshake .*, m_axis_mean produced 0 of {2 * FRAMES}",
    "stuck": r"codes differ, the first at frame 0, m_axis_sum\[",
}


@pytest.mark.needs("verilator", "g++")
@pytest.mark.parametrize("fault", long_but(SAID, "swapped", "stuck"))
def test_a_fault_of_one_port_is_seen_and_named(planned, fault):
    x = stimulus(PROGRAM, FRAMES, 1)
    rtl = CompiledRtl(spoilt(emit(planned), fault), planned.inputs, planned.outputs, optimize="-O0")
    for stalls in ({}, {"idle": 0.3, "backpressure": 0.3}):
        with pytest.raises(BittrueError, match=SAID[fault]):
            rtl.run(*x, watchdog=2000, **stalls).check(PROGRAM(*x))


@pytest.mark.needs("iverilog")
@pytest.mark.parametrize("fault", long_but(["swapped", "dropped", "held"], "dropped"))
def test_and_in_cocotb(planned, fault, tmp_path):
    x = stimulus(PROGRAM, FRAMES, 1)
    ports = planned.inputs, planned.outputs
    options = {"idle": 0.2, "backpressure": 0.2, "watchdog": 2000, "folder": tmp_path}
    with pytest.raises(BittrueError, match=SAID[fault]):
        cosim.run(spoilt(emit(planned), fault), *ports, x, PROGRAM(*x), "icarus", **options).check(PROGRAM(*x))
    assert "<failure" in (tmp_path / "results.xml").read_text()


@pytest.mark.needs("verilator", "g++")
def test_stalls_of_the_outputs_are_independent(planned):
    """Ports of the same beats wait in different cycles, and a run is repeatable."""
    x = stimulus(PROGRAM, 200, 1)
    rtl = CompiledRtl(emit(planned), planned.inputs, planned.outputs)
    a, b = (rtl.run(*x, backpressure=0.5, stall_seed=4).check(PROGRAM(*x)) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(a.handshakes, b.handshakes, strict=True))
    out, total = a.handshakes[0], a.handshakes[1]
    assert out.shape == total.shape
    assert np.unique(out - total).size > 3


@pytest.mark.long
@pytest.mark.needs("iverilog", "g++")
def test_the_kernel_beside_the_rtl(planned, tmp_path):
    """The HLS kernel gives every result of every frame; a wrong one is told by its port."""
    x = stimulus(PROGRAM, FRAMES, 1)
    ports = planned.inputs, planned.outputs
    project.write(PROGRAM, tmp_path / "right")
    cosim.run(emit(planned), *ports, x, kernel=tmp_path / "right").check(PROGRAM(*x))
    project.write(with_weight_flipped(PROGRAM, "mix"), tmp_path / "wrong")
    run = cosim.run(emit(planned), *ports, x, kernel=tmp_path / "wrong")
    told = " ".join(run.errors)
    assert "m_axis_sum: the HLS kernel beside the RTL gives another word" in told
    assert "m_axis_scale: the HLS" not in told


def test_expected_codes_are_one_array_per_output(planned):
    x = stimulus(PROGRAM, FRAMES, 1)
    run = CompiledRtl(emit(planned), planned.inputs, planned.outputs).run(*x)
    expected = PROGRAM.run(*x)
    assert run.check(expected) is run.check(list(expected)) is run
    with pytest.raises(BittrueError, match=r"4 outputs \(m_axis_out, .*\), codes of 1 are expected; give one array"):
        run.check(expected[0])
    with pytest.raises(BittrueError, match=r"expected outputs of m_axis_sum have shape \(9, 2, 1\)"):
        run.check((expected[0], expected[1][..., :1], *expected[2:]))


# -- an output that nobody reads -------------------------------------------------------------------------------
def driven(planned: Plan) -> tuple[AxisBench, list[Beats], list[int], list[np.ndarray]]:
    """A bench, what goes into it, beats of every output, and their bytes."""
    x = stimulus(planned.program, FRAMES, 1)
    accelerator = top.Accelerator(planned)
    beats = [
        Beats(words.reshape(-1, port.beat_bytes), np.tile(np.arange(port.beats) == port.beats - 1, FRAMES))
        for port, words in ((port, port.pack(codes)) for port, codes in zip(planned.inputs, x, strict=True))
    ]
    results = zip(planned.outputs, planned.program.reference(*x), strict=True)
    words = [port.pack(codes).reshape(-1, port.beat_bytes) for port, codes in results]
    return AxisBench(accelerator, accelerator.slaves, accelerator.masters), beats, list(map(len, words)), words


def test_an_output_that_is_never_ready_spoils_nothing(planned):
    """The others stand still in the end, with right codes so far; read again, all gives all."""
    bench, beats, produced, words = driven(planned)
    for closed in range(len(produced)):
        seen = bench.run(beats, produced, closed=closed)
        assert not len(seen.words[closed])
        for port, got, last, wanted in zip(planned.outputs, seen.words, seen.last, words, strict=True):
            assert len(got) < len(wanted)
            np.testing.assert_array_equal(got, wanted[: len(got)])
            np.testing.assert_array_equal(last, np.arange(len(got)) % port.beats == port.beats - 1)
    seen = bench.run(beats, produced, backpressure=0.8)
    for got, wanted in zip(seen.words, words, strict=True):
        np.testing.assert_array_equal(got, wanted)


# -- parts that share nothing ----------------------------------------------------------------------------------
def apart() -> Program:
    """Two programs side by side, one of which is much quicker."""
    quick, slow = two_inputs(tokens=1, channels=2, outputs=1), spiking(halving=True, steps=3)
    nodes, inputs = [], {}
    for mark, program in (("q", quick), ("s", slow)):
        inputs |= {f"{mark}.{name}": kind for name, kind in program.inputs.items()}
        nodes += [
            Node(f"{mark}.{n.name}", n.operation, tuple(f"{mark}.{operand}" for operand in n.operands))
            for n in program.nodes
        ]
    return Program(inputs, tuple(nodes), (f"q.{quick.result}", f"s.{slow.result}"))


@pytest.mark.long
@pytest.mark.needs("verilator", "g++")
def test_parts_that_share_nothing_go_their_own_way():
    planned = plan(apart())
    quick, slow = (np.diff(ends)[-1] for ends in planned.network.schedule(20).output_ends)
    assert quick < slow == planned.estimated_interval
    exact(planned, 0)
    exact_compiled(planned, emit(planned), stimulus(planned.program, 30, 1))


def test_and_stand_still_alone():
    """An output that is never ready is nothing to the other part."""
    bench, beats, produced, words = driven(plan(apart()))
    for closed in (0, 1):
        seen = bench.run(beats, produced, closed=closed)
        assert not len(seen.words[closed])
        np.testing.assert_array_equal(seen.words[1 - closed], words[1 - closed])


def test_a_set_is_for_one_frame_of_all():
    with pytest.raises(BittrueError, match="falls into parts that share no tensor .*make a program of each part"):
        plan(apart(), weights=["q.mix"])


@pytest.mark.needs("verilator", "g++")
def test_written_weights_in_every_result(tmp_path):
    program = written(several(seed=5))
    counts = {"reference": 20, "compiled": 20, "gxx": 20}
    found = verify.verify(Build(program), stimulus(program, 20, 1), counts, Stalls(0.3, 0.3, 5), tmp_path)
    assert found.problems == []
    assert [row["sets"] for row in found.rows if row["stalls"]] == [3]


# -- what takes one result ---------------------------------------------------------------------------------------
def test_the_photonic_controller_gives_out_one():
    program = photonic_network()
    both = replace(program, results=(program.nodes[0].name, program.result))
    with pytest.raises(BittrueError, match=r"photonic controller: the program has 2 results .*make a program of each"):
        Jobs.of(both, ARRAY)


def test_a_nir_graph_has_one():
    program = spiking(halving=True)
    both = replace(program, results=(program.nodes[0].name, program.result))
    with pytest.raises(BittrueError, match=r"NIR export: the program has 2 results .*expected one; export a program"):
        nir.graph(both)


def test_the_steps_of_a_recipe_score_one(tmp_path):
    PROGRAM.save(tmp_path / "program.npz")
    with pytest.raises(
        BittrueError, match=r"the lowered program has 4 results \(out, sum, scale, mean\).*lower a prog"
    ):
        read_lowered(SimpleNamespace(upstream={"lower": tmp_path}))
