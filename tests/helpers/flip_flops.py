"""The registers of a component, counted in its netlist."""

from __future__ import annotations

import re

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

CELL = re.compile(r"cell \$\w*dff\w* \S+\n.*?\\WIDTH (\d+)\n", re.DOTALL)


def flip_flops(stage: Elaboratable) -> int:
    """Bits of the registers in Amaranth's RTLIL of a stage, before anything is optimised away."""
    return sum(int(width) for width in CELL.findall(rtlil.convert(stage)))
