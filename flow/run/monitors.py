"""Counters in the compiled RTL: how many events, ones of one-bit codes, leave each stage that makes any.

A counter is a module bound to the stage's instance (IEEE 1800, `bind`), so the design stays as it was emitted. It adds
the ones of every beat that passes (valid and ready at the rising edge of `clk`, out of reset) and hands its total to
the batch loop when the simulation ends. A program without events gets none and pays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bittrue.rtl.dataflow.plan import Plan
from bittrue.rtl.verilog import TOP


@dataclass(frozen=True)
class Monitor:
    """A stage to watch: the node whose result it makes, its instance in the pipeline, and the codes of a beat."""

    node: str
    instance: str
    lanes: int


def of_plan(plan: Plan) -> tuple[Monitor, ...]:
    """A monitor for every node of the plan's program whose result is events (`TensorType.events`), in its order."""
    found = []
    for node in plan.program.nodes:
        if plan.program.types[node.name].events:
            element = plan.network.elements[plan.network.made[node.name]]
            found.append(Monitor(node.name, element.name, element.stage.lanes_out))
    return tuple(found)


def verilog(monitors: Sequence[Monitor]) -> str:
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
    for index, monitor in enumerate(monitors):
        lines.append(
            f"bind \\{TOP}.pipeline.{monitor.instance} bittrue_ones_monitor #(.INDEX({index}), "
            f".LANES({monitor.lanes})) ones_monitor (.clk(clk), .rst(rst), .payload(o__payload), .valid(o__valid), "
            ".ready(o__ready));"
        )
    return "\n".join(lines) + "\n"
