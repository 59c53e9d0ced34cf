"""Verilog text of a plan: plain Verilog that yosys, Icarus, Verilator and vendor tools read; same plan, same bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from amaranth.hdl import Elaboratable, Signal

from bittrue.rtl.dataflow.plan import Plan
from bittrue.rtl.dataflow.top import Accelerator
from bittrue.rtl.design import TOP

#: The register that yosys reads in every `always @*` to have it run at time 0, when none of its inputs changes.
_STARTER = re.compile(r"^  reg (\\\$auto\$verilog_backend\S+ ) = 0;$", re.MULTILINE)


def emit(plan: Plan) -> str:
    """The Verilog of the accelerator; its top module is `bittrue_top`."""
    top = Accelerator(plan)
    header = (
        f"// bittrue: program {plan.program.sha256}\n"
        f"// interval {plan.estimated_interval} cycles, latency {plan.estimated_latency} cycles\n"
    )
    return header + convert(top, top.ports)


def convert(top: Elaboratable, ports: Sequence[Signal], name: str = TOP) -> str:
    """The Verilog of any top, whose module gets this name; same design, same bytes."""
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    from amaranth.back import verilog

    text = verilog.convert(top, name=name, ports=list(ports), emit_src=False, strip_internal_attrs=True)
    # Its initial value alone is no event where declarations are initialised before any process starts (IEEE 1800, as
    # in Icarus with -g2012): the process would wait and give X. A nonblocking assignment comes after all have started.
    text = _STARTER.sub(r"  reg \1 = 0;\n  initial \1 <= 1;", text)
    return "/* verilator lint_off INITIALDLY */ // meant: processes that wait at time 0 are to see a change\n" + text
