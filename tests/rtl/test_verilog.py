"""The emitted Verilog as text: the same bytes every time, read back, linted, read by others; mutations are caught."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bittrue.rtl import readback
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.verilog import TOP, emit
from bittrue.sim.errors import BittrueError
from tests.helpers.lengths import long_but
from tests.helpers.lint import verilator_says
from tests.helpers.programs import resmlp, two_inputs
from tests.helpers.stages import OPERATIONS
from tests.helpers.stages import planned as random_plan

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "lerp": lambda: resmlp(seed=1),
    "relu": lambda: resmlp(channels=8, hidden=12, blocks=2, nonlinearity="relu"),
    "two inputs": two_inputs,
}


@pytest.fixture(scope="module", params=PROGRAMS)
def emitted(request) -> tuple[Plan, str]:
    planned = plan(PROGRAMS[request.param]())
    return planned, emit(planned)


@pytest.fixture(scope="module")
def small() -> tuple[Plan, str]:
    planned = plan(two_inputs())
    return planned, emit(planned)


class TestDeterminism:
    SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:]
from tests.helpers.programs import resmlp
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
sys.stdout.write(emit(plan(resmlp(tokens=3, channels=5, segments=4, seed=3))))
"""

    def text(self, hashseed: str, folder: Path) -> bytes:
        """The Verilog that a process of its own writes, started in `folder`."""
        command = [sys.executable, "-c", self.SCRIPT, str(ROOT), str(ROOT / "tests")]
        environment = os.environ | {"PYTHONHASHSEED": hashseed}
        return subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True).stdout

    def test_two_processes_write_the_same_bytes(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        one, two = self.text("1", tmp_path), self.text("2", tmp_path / "elsewhere")
        assert len(one) > 10_000
        assert one == two

    def test_nothing_of_the_machine_is_in_the_text(self, emitted):
        _, verilog = emitted
        today = datetime.date.today()
        for word in (str(ROOT), str(Path.home()) + os.sep, sys.prefix, f"{today:%Y-%m-%d}", f"{today:%b %e}", ".py:"):
            assert word not in verilog, word
        assert not re.search(r"\d\d:\d\d:\d\d", verilog)
        assert "src = " not in verilog

    def test_another_program_writes_other_text(self):
        one, two = (emit(plan(two_inputs(seed=seed))) for seed in (0, 1))
        assert one != two


class TestReadback:
    def test_the_plan_is_found(self, emitted):
        planned, verilog = emitted
        design = readback.check(PipelineDesign(planned), verilog)
        assert {port.name for port in design.ports} >= {"aclk", "aresetn", "m_axis_tdata", "m_axis_tready"}
        assert design.instances["pipeline"] == f"{TOP}.pipeline"
        for element in planned.network.elements:
            assert design.instances[f"pipeline.{element.name}"] == f"{TOP}.pipeline.{element.name}"

    def test_every_instance_is_counted(self, emitted):
        """slang, which shares nothing with pyverilog, finds the same hierarchy."""
        import pyslang

        planned, verilog = emitted
        compilation = pyslang.ast.Compilation()
        compilation.addSyntaxTree(pyslang.syntax.SyntaxTree.fromText(verilog))
        paths = {}

        def visit(symbol):
            if isinstance(symbol, pyslang.ast.InstanceSymbol):
                paths[symbol.hierarchicalPath.replace("\\", "").replace(" ", "")] = symbol.definition.name

        compilation.getRoot().visit(visit)
        assert paths.pop(TOP) == TOP
        design = readback.read(verilog)
        assert {f"{TOP}.{path}": module for path, module in design.instances.items()} == paths

    def test_widths_of_two_byte_codes(self, small):
        planned, verilog = small
        ports = {port.name: port for port in readback.read(verilog).ports}
        assert str(ports["m_axis_tdata"]) == "output m_axis_tdata, 16 bits"
        assert str(ports["s_axis_a_tready"]) == "output s_axis_a_tready, 1 bit"

    @pytest.mark.parametrize("listed", [True, False])
    def test_ports_have_their_direction_in_the_list_or_in_the_body(self, listed):
        kinds = ("input [7:0] a", "output b", "inout [2:0] c")
        text = f"module {TOP}({', '.join(kinds)});" if listed else f"module {TOP}(a, b, c); {'; '.join(kinds)};"
        ports = readback.read(f"{text} endmodule").ports
        assert [str(port) for port in ports] == ["input a, 8 bits", "output b, 1 bit", "inout c, 3 bits"]

    def test_lanes_widen_tdata(self):
        planned = plan(two_inputs(), interval=3)
        assert planned.inputs[0].width == 32
        readback.check(PipelineDesign(planned), emit(planned))

    def test_lines_keep_their_numbers(self, small):
        _, verilog = small
        assert len(readback.plain(verilog).splitlines()) == len(verilog.splitlines())

    def test_attributes_go_and_what_looks_like_one_stays(self):
        text = '(* keep = "x)" *) wire a; // (* no *)\nalways @(*) b = "(* s *)"; wire \\c(*d ; (* e,\nf *) reg g;'
        expected = ' wire a; // (* no *)\nalways @(*) b = "(* s *)"; wire \\c(*d ; \n reg g;'
        assert readback.plain(text) == expected

    def test_a_plan_of_other_lanes_is_refused(self, small):
        planned, verilog = small
        other = replace(planned, input_lanes={"a": 4, "b": 4})
        with pytest.raises(BittrueError, match="s_axis_a_tdata, 8 bits instead of input s_axis_a_tdata, 32 bits"):
            readback.check(PipelineDesign(other), verilog)


class TestMutations:
    """Damage that a hand, a tool or a wrong plan could do to the text; the unharmed text passes every time."""

    def refused(self, small, pattern: str, replacement: str, message: str, count: int = 0) -> None:
        planned, verilog = small
        damaged, places = re.subn(pattern, replacement, verilog, count=count, flags=re.MULTILINE)
        assert places
        with pytest.raises(BittrueError, match=message):
            readback.check(PipelineDesign(planned), damaged)

    def test_a_renamed_port(self, small):
        self.refused(small, r"\bs_axis_a_tvalid\b", "s_axis_a_valid", "no port input s_axis_a_tvalid")

    def test_a_narrowed_tdata(self, small):
        message = "m_axis_tdata, 15 bits instead of output m_axis_tdata, 16 bits"
        self.refused(small, r"\[15:0\] m_axis_tdata\b", "[14:0] m_axis_tdata", message)

    def test_a_turned_port(self, small):
        message = "output aresetn, 1 bit instead of input aresetn"
        self.refused(small, r"^  input aresetn;", "  output aresetn;", message)

    def test_a_port_without_direction(self, small):
        self.refused(small, r"^  input aresetn;\n", "", "port aresetn of bittrue_top")

    def test_a_new_port(self, small):
        self.refused(
            small, rf"^module {TOP}\((.*)\);$", rf"module {TOP}(extra, \1);\n  input extra;", "port input extra"
        )

    def test_a_bound_that_is_no_number(self, small):
        self.refused(small, r"^  output \[15:0\] m_axis_tdata;", "  output [N:0] m_axis_tdata;", "port m_axis_tdata")

    @pytest.mark.parametrize("instance", ["scale", "sum", "mix", "b_inlet"])
    def test_a_removed_instance(self, small, instance):
        self.refused(small, rf"^  \S+  {instance} \([^;]*\);\n", "", f"no instance pipeline.{instance}")

    def test_a_renamed_instance(self, small):
        message = "no instance pipeline.scale; instance pipeline.scala"
        self.refused(small, r"^(  \S+  )scale \(", r"\1scala (", message)

    def test_a_removed_module(self, small):
        pattern = r"^module \\bittrue_top\.pipeline\.scale .*?\n(?:.*\n)*?endmodule\n"
        self.refused(small, pattern, "", "pipeline.scale of the emitted Verilog: it has no module", count=1)

    def test_a_removed_pipeline(self, small):
        self.refused(small, r"^  \S+  pipeline \([^;]*\);\n", "", "no instance pipeline.a_inlet")

    def test_another_top(self, small):
        self.refused(small, rf"^module {TOP}\(", "module other(", f"no module {TOP}")

    def test_a_torn_file(self, small):
        planned, verilog = small
        with pytest.raises(BittrueError, match="cannot be read back"):
            readback.check(PipelineDesign(planned), verilog[: len(verilog) // 2])

    def test_a_syntax_error_names_its_line(self, small):
        planned, verilog = small
        lines = verilog.splitlines()
        number = next(k for k, line in enumerate(lines) if line.startswith("  assign")) + 1
        lines.insert(number, "  assign = 1;")
        with pytest.raises(BittrueError, match=f"line:{number + 1}:"):
            readback.check(PipelineDesign(planned), "\n".join(lines))
        readback.check(PipelineDesign(planned), verilog)

    def test_a_missing_fork(self):
        planned = plan(resmlp(seed=1))
        verilog = emit(planned)
        (fork, *_) = [e.name for e in planned.network.elements if e.readers > 1]
        self.refused((planned, verilog), rf"^  \S+  {fork}_fork \([^;]*\);\n", "", f"no instance pipeline.{fork}_fork")


class TestLint:
    FRAME = """
module sub(a, o);
  input [7:0] a;
  wire [7:0] a;
  output [7:0] o;
  wire [7:0] o;
  assign o = a;
endmodule
module top(x, s, y, wide, bit1);
  input [7:0] x;
  wire [7:0] x;
  input signed [7:0] s;
  wire signed [7:0] s;
  output [7:0] y;
  wire [7:0] y;
  output [8:0] wide;
  wire [8:0] wide;
  output bit1;
  wire bit1;
  {statement}
endmodule
"""

    def test_no_warning(self, emitted):
        _, verilog = emitted
        assert readback.lint(verilog) == []

    @pytest.mark.parametrize("interval", [1, 4, 12])
    def test_no_warning_at_other_foldings(self, interval):
        program = two_inputs()
        folding = {"mix": Folding(4, 4 // min(interval, 4)), "out": Folding(2, 1)}
        assert readback.lint(emit(plan(program, interval=12, folding=folding))) == []

    @pytest.mark.parametrize(
        "statement",
        [
            "assign y = x + 8'h01;",
            "assign wide = $signed(x) + $signed(s);",
            "assign wide = x[3:0] + x;",
            "sub u(.a(x), .o(y));",
        ],
    )
    def test_good_statements_pass(self, statement):
        assert readback.lint(self.FRAME.format(statement=statement)) == []

    @pytest.mark.parametrize(
        ("statement", "option"),
        [
            ("assign y = wide;", "width-trunc"),
            ("assign wide = x;", "width-expand"),
            ("assign wide = s;", "width-expand"),
            ("wire signed [7:0] t; assign t = x;", "sign-conversion"),
            ("assign wide = $signed(x[3:0]);", "width-expand"),
            ("assign y = $signed(x) + s[7:0];", "arith-op-mismatch"),
            ("assign y = x + s;", "arith-op-mismatch"),
            ("assign bit1 = s < x;", "sign-compare"),
            ("sub u(.a(x), .o(wide));", "port-width-expand"),
            ("sub u(.a(wide), .o(y));", "port-width-trunc"),
            ("sub u(.a(x));", "unconnected-output-port"),
            ("assign y = forgotten;", "error"),
            ("assign forgotten = x[0];", "implicit-net"),
            ("assign y = ;", "error"),
        ],
    )
    def test_bad_statements_are_named_with_their_line(self, statement, option):
        lines = readback.lint(self.FRAME.format(statement=statement))
        assert any(line.startswith(f"20: {option}: ") for line in lines), lines

    def test_a_narrowed_net_is_seen(self, small):
        """The net between two stages, one bit too narrow: legal Verilog, and every tool would build it."""
        _, verilog = small
        module = verilog.index("\nmodule \\bittrue_top.pipeline (")
        head, body = verilog[:module], verilog[module:]
        net = re.search(r"^  \S+  sum \([^;]*\.i1__payload\((\S+) ?\)", body, flags=re.MULTILINE)[1]
        declaration = f"wire [7:0] {net}"
        assert declaration in body
        body = body.replace(declaration, f"wire [6:0] {net}", 1)
        assert any("port-width-expand" in line for line in readback.lint(head + body))

    def test_a_forgotten_sign_is_seen(self, small):
        """One operand of a signed sum read as unsigned makes the whole sum unsigned."""
        _, verilog = small
        damaged, places = re.subn(r"\$signed\((\w+)\) \+ \$signed", r"\1 + $signed", verilog, count=1)
        assert places == 1
        assert any("arith-op-mismatch" in line for line in readback.lint(damaged))

    @pytest.mark.parametrize("seed", long_but(range(2), 1))
    @pytest.mark.parametrize("name", long_but(OPERATIONS, *[*OPERATIONS][::2]))
    def test_every_operation_of_random_geometry(self, name, seed, tmp_path):
        """Read back, no warning of slang and Verilator, and no vector of no bits: `[-1:0]` would be two."""
        planned, _ = random_plan(name, seed)
        verilog = emit(planned)
        readback.check(PipelineDesign(planned), verilog)
        assert readback.lint(verilog) == []
        assert "[-1:0]" not in verilog
        assert verilator_says(verilog, tmp_path) == ""


@pytest.mark.needs("iverilog")
class TestTemplate:
    def test_the_instance_fits_the_design(self, emitted, tmp_path):
        planned, verilog = emitted
        template = readback.template(readback.check(PipelineDesign(planned), verilog), instance="mine")
        assert "mine" in template
        assert readback.lint(f"{verilog}\nmodule harness;\n{template}endmodule\n") == []
        for port in readback.read(verilog).ports:
            assert f".{port.name}({port.name})" in template
        (tmp_path / "design.v").write_text(verilog)
        (tmp_path / "harness.v").write_text(f"module harness;\n{template}endmodule\n")
        command = ["iverilog", "-t", "null", "-Wall", "-s", "harness", "harness.v", "design.v"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "harness.v" not in result.stderr


class TestOtherReaders:
    @pytest.mark.needs("iverilog")
    def test_icarus(self, emitted, tmp_path):
        (tmp_path / "design.v").write_text(emitted[1])
        command = ["iverilog", "-t", "null", "-g2005", "-s", TOP, "design.v"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")

    @pytest.mark.needs("verilator")
    def test_verilator(self, emitted, tmp_path):
        assert verilator_says(emitted[1], tmp_path) == ""


def test_it_is_emitted_where_the_home_is_not_writable(tmp_path):
    """Amaranth's yosys keeps its machine code in the cache, and ends where it cannot."""
    code = (
        "from amaranth.hdl import Module, Signal; from bittrue.rtl.verilog import convert\n"
        "m, a, b = Module(), Signal(), Signal(); m.d.comb += b.eq(a); print(convert(m, [a, b]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    environment |= {"HOME": "/dev/null", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "module bittrue_top" in done.stdout, done.stderr
