"""The flip-flops that a stage says it has are those of its netlist, every one: counted in what yosys is given."""

import re

import pytest
from amaranth.back import rtlil

from bittrue.rtl.dataflow import stage as stages
from bittrue.rtl.dataflow.stage import Stage, Storage
from bittrue.sim.errors import BittrueError
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


@pytest.mark.parametrize(
    ("storage", "style", "blocks", "distributed"),
    [
        (Storage(8, 511, table=True), "logic", 0, 0),  # 4,088 bits
        (Storage(8, 512, table=True), "block", 1, 0),
        (Storage(37, 512, table=True), "block", 2, 0),
        (Storage(4, 16), "distributed", 0, 1),
        (Storage(5, 17), "distributed", 0, 4),
        (Storage(8, 65), "block", 1, 0),
        (Storage(8, 65, clocked=False), "distributed", 0, 10),
        (Storage(64, 32, clocked=False), "distributed", 0, 32),
        (Storage(8, 2049), "block", 2, 0),
        (Storage(9, 2048), "block", 1, 0),
    ],
)
def test_what_a_memory_is_made_of(storage, style, blocks, distributed):
    assert (storage.style, storage.block_rams, storage.lutrams) == (style, blocks, distributed)


@pytest.mark.parametrize(("missing", "raised"), [("nowhere", BittrueError), ("numpy.gone", ModuleNotFoundError)])
def test_a_stage_that_is_absent_is_named_and_one_that_cannot_be_imported_says_why(missing, raised, monkeypatch):
    class Nowhere:
        pass

    Nowhere.__module__ = "mine.nowhere"
    name = missing if "." in missing else f"{stages.STAGES}.{missing}"

    def refuse(_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(stages.importlib, "import_module", refuse)
    with pytest.raises(raised, match="nowhere has no RTL component" if raised is BittrueError else "gone"):
        stages.realisation(Nowhere())
