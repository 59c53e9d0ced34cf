"""A harness for place and route: a design with more pins than the package, its values shifted through a few pads."""

from collections.abc import Mapping

from bittrue.sim.errors import BittrueError

#: The harness's module.
NAME = "bittrue_pins"

#: What a design's clock is called.
CLOCKS = ("aclk", "clk")


def clock(ports: Mapping[str, dict]) -> str:
    """The name of the design's clock; what cannot be put into a harness is refused."""
    inputs = [name for name, port in ports.items() if port["direction"] == "input"]
    clocks = [name for name in inputs if name in CLOCKS]
    if len(clocks) != 1 or any(port["direction"] == "inout" for port in ports.values()):
        raise BittrueError(
            "synth: a design with more pins than the package needs one clock named aclk or clk and no inout pins; "
            f"this one has the inputs {', '.join(inputs)}"
        )
    return clocks[0]


def around(top: str, ports: Mapping[str, dict], clock: str) -> str:
    """Verilog around a design with more pins than the package: inputs from a shift register, outputs into a parity.

    Every input is a register and every output ends in one, so that the paths from and to the design are timed.
    """
    lines, low = [], {"input": 0, "output": 0}
    for name, port in ports.items():
        if name != clock:
            way, width = port["direction"], len(port["bits"])
            lines.append(f"    .{name}({'shift' if way == 'input' else 'out'}[{low[way]} +: {width}]),")
            low[way] += width
    return "\n".join(
        [
            f"module {NAME}(input {clock}, input serial, output reg parity);",
            f"  reg [{low['input'] - 1}:0] shift;",
            f"  wire [{low['output'] - 1}:0] out;",
            f"  reg [{low['output'] - 1}:0] held;",
            f"  always @(posedge {clock}) begin",
            "    shift <= {shift, serial};",
            "    held <= out;",
            "    parity <= ^held;",
            "  end",
            f"  {top} design (",
            *lines,
            f"    .{clock}({clock})",
            "  );",
            "endmodule",
            "",
        ]
    )
