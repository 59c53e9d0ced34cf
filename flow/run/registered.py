"""The design behind a register of its reset: a top of which Verilator makes a faster simulator of the same cycles.

What depends on a port of the top is worked out anew in every evaluation, twice a cycle, before the rising edge and with
it. In RTL that is written by yosys the next value of every register depends on the reset, so that with `aresetn` as a
port this is nearly the whole design; behind a register it is not. The design meets the end of a reset one cycle later,
and the batch loop waits for it (`RESET_REGISTERED`).
"""

from __future__ import annotations

import re

from bittrue.rtl.design import TOP

#: Name of the module around the design.
BENCH = "bittrue_bench"


def behind_register(verilog: str) -> str | None:
    """Verilog of the module `bittrue_bench` around the design, with ports of the same names.

    None where the ports of `bittrue_top` are not declared in lines of their own, as yosys writes them.
    """
    module = re.search(rf"^module {TOP}\(([^)]*)\);$(.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if module is None:
        return None
    declared = re.findall(r"^ *((input|output) (?:\[\d+:\d+\] )?(\S+));$", module[2], re.MULTILINE)
    directions = {name: direction for _, direction, name in declared}
    names = [name.strip() for name in module[1].split(",")]
    if set(names) != set(directions) or directions.get("aresetn") != "input":
        return None
    bound = ", ".join(f".{name}({'reset_register' if name == 'aresetn' else name})" for name in names)
    lines = [
        "",  # behind whatever the text ends with
        f"module {BENCH}({', '.join(line for line, _, _ in declared)});",
        "  reg reset_register;",
        "  always @(posedge aclk) reset_register <= aresetn;",
        f"  {TOP} {TOP}({bound});",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"
