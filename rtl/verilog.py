"""Verilog text of a plan: plain Verilog that yosys, Icarus, Verilator and vendor tools read; same plan, same bytes."""

from __future__ import annotations

import os

from rtl.plan import Plan
from rtl.top import Accelerator

TOP = "bittrue_top"


def emit(plan: Plan) -> str:
    """The Verilog of the accelerator; its top module is `bittrue_top`."""
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    from amaranth.back import verilog

    top = Accelerator(plan)
    text = verilog.convert(top, name=TOP, ports=top.ports, emit_src=False, strip_internal_attrs=True)
    header = (
        f"// bittrue: program {plan.program.sha256}\n"
        f"// interval {plan.estimated_interval} cycles, latency {plan.estimated_latency} cycles\n"
    )
    return header + text
