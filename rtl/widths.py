"""Operands of one width: what Verilog would extend by itself is extended in the text, so that linters see it meant.

Amaranth takes off every extension of an operand, also one that the source writes, and gives yosys cells such as a sum
of 9 and 2 bits, which become `$signed(a) + $signed(b)`: right by Verilog's rules, and a warning of every linter. Here
the narrower operand of a sum, a difference or a comparison becomes `{ sign, ..., b }` or `{ 0, ..., b }`, in the RTLIL
between the two: one place for every design, and no bit of hardware, since synthesis drops copies of the sign and zeros.
"""

from __future__ import annotations

import re

#: Cells whose operands have one width in Verilog.
_CELL = re.compile(
    r"^  cell \$(?P<kind>add|sub|lt|le|eq|ne|ge|gt) \S+\n"
    r"    parameter \\A_SIGNED (?P<signed>[01])\n"
    r"    parameter \\B_SIGNED (?P=signed)\n"
    r"    parameter \\A_WIDTH (?P<a_width>\d+)\n"
    r"    parameter \\B_WIDTH (?P<b_width>\d+)\n"
    r"    parameter \\Y_WIDTH (?P<y_width>\d+)\n"
    r"    connect \\A (?P<a>.+)\n"
    r"    connect \\B (?P<b>.+)\n",
    re.MULTILINE,
)
_CONSTANT = re.compile(r"(?P<width>\d+)'(?P<bits>[01]+)")
_SLICE = re.compile(r"(?P<name>[\\$]\S+) \[(?P<high>\d+)(?::\d+)?\]")


def explicit(rtlil: str) -> str:
    """The RTLIL with the operands of every sum, difference and comparison extended to the wider of the two.

    Those of a sum or difference have, beside that, no more than one bit less than the result.
    """

    def widened(cell: re.Match[str]) -> str:
        text, wide = cell[0], max(int(cell["a_width"]), int(cell["b_width"]))
        if cell["kind"] in ("add", "sub"):
            wide = max(wide, int(cell["y_width"]) - 1)
        for port in "ab":
            width, operand = int(cell[f"{port}_width"]), cell[port]
            if width < wide:
                longer = extended(operand, wide - width, signed=cell["signed"] == "1")
                text = text.replace(f"connect \\{port.upper()} {operand}\n", f"connect \\{port.upper()} {longer}\n")
                text = text.replace(f"\\{port.upper()}_WIDTH {width}\n", f"\\{port.upper()}_WIDTH {wide}\n")
        return text

    return _CELL.sub(widened, rtlil)


def extended(operand: str, more: int, *, signed: bool) -> str:
    """An operand of RTLIL (a constant, a slice, or `{ ... }` of them, the highest first) with so many bits more."""
    if not operand.strip("{ }"):
        return f"{more}'{'0' * more}"
    inner = operand[2:-2] if operand.startswith("{") else operand
    if constant := _CONSTANT.match(inner):
        sign = constant["bits"][0] if signed else "0"
        longer = f"{int(constant['width']) + more}'{sign * more}{constant['bits']}"
        inner = longer + inner[constant.end() :]
        return f"{{ {inner} }}" if operand.startswith("{") else inner
    if not signed:
        return f"{{ {more}'{'0' * more} {inner} }}"
    first = _SLICE.match(inner)
    if first is None:
        raise ValueError(f"RTLIL in a form that Amaranth is not known to write: {operand}")
    sign = f"{first['name']} [{first['high']}] "
    return f"{{ {sign * more}{inner} }}"
