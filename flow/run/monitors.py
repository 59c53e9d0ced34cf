"""Counters in the compiled RTL: how many events, ones of one-bit codes, pass each probe of a design that carries any.

A counter is a module bound to the probe's instance (IEEE 1800, `bind`), so the design stays as it was emitted. It adds
the ones of every beat that passes (valid and ready at the rising edge of `clk`, out of reset) and hands its total to
the batch loop when the simulation ends. A program without events gets none and pays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from bittrue.rtl.design import TOP, Design, Probe


def of(design: Design) -> tuple[Probe, ...]:
    """The probes of events (`TensorType.events`), in the program's order."""
    return tuple(probe for probe in design.probes if design.program.types[probe.node].events)


def verilog(monitors: Sequence[Probe]) -> str:
    """SystemVerilog that binds the counters; counter k reports by `bittrue_ones(k, total)` when `final` blocks run."""
    if not monitors:
        return ""
    lines = [
        "/* verilator tracing_off */",
        "module bittrue_ones_monitor #(parameter int INDEX = 0, parameter int LANES = 1)",
        "    (input clk, input rst, input [LANES-1:0] payload, input valid, input ready);",
        '  import "DPI-C" function void bittrue_ones(input int index, input longint total);',
        "  longint total = 0;",
        "  always @(posedge clk)",
        "    if (!rst && valid && ready) total <= total + 64'($countones(payload));",
        "  final bittrue_ones(INDEX, total);",
        "endmodule",
    ]
    for index, probe in enumerate(monitors):
        lines.append(
            f"bind \\{'.'.join((TOP, *probe.path))} bittrue_ones_monitor #(.INDEX({index}), .LANES({probe.lanes})) "
            f"ones_monitor (.clk(clk), .rst(rst), .payload({probe.payload}), .valid({probe.valid}), "
            f".ready({probe.ready}));"
        )
    return "\n".join(lines) + "\n"
