"""The flip-flops that a stage says it has are those of its netlist, every one: counted in what yosys is given."""

import re

import pytest
from amaranth.back import rtlil

from bittrue.rtl.dataflow.stage import Stage
from tests.helpers.stages import OPERATIONS, planned

CELL = re.compile(r"cell \$\w*dff\w* \S+\n.*?\\WIDTH (\d+)\n", re.DOTALL)


def flip_flops(stage: Stage) -> int:
    """Bits of the registers in Amaranth's RTLIL of a stage, before anything is optimised away."""
    return sum(int(width) for width in CELL.findall(rtlil.convert(stage)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_flip_flops_are_counted_one_by_one(name):
    for seed in range(12):
        plan, _ = planned(name, seed)
        for element in plan.network.elements:
            stage = element.stage
            assert stage.structure().registers == flip_flops(stage), f"seed {seed}: {type(stage).__name__}"
