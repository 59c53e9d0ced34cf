"""A program shows itself: short, whatever its size, and without a way for a name to become markup."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bittrue.sim import describe
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize


def chain(length: int, size: int = 4, name: str = "layer", **inputs: TensorType) -> Program:
    """So many square matrices in a row."""
    rng = np.random.default_rng(0)
    build = Builder({"x": TensorType((2, size), INT8), **inputs})
    y = "x"
    for k in range(length):
        matrix = Linear(build.types[y], rng.integers(-9, 9, (size, size)), Requantize(size, [7]))
        y = build.add(f"{name}{k}", matrix, y)
    return build.program(y)


def test_every_operation_has_a_line_with_its_figures():
    program = chain(3)
    lines = repr(program).splitlines()
    assert lines[0] == "Program x s8[2x4] to layer2 s8[2x4]"
    assert lines[1].split() == ["operation", "kind", "reads", "gives", "accumulator", "MACs", "weights"]
    for k, line in enumerate(lines[2:5]):
        bits = str(program[f"layer{k}"].accumulator.bits)
        reads = f"layer{k - 1}" if k else "x"
        assert line.split() == [f"layer{k}", "linear", reads, "s8[2x4]", bits, "bits", "32", "20"]
    assert lines[5].startswith("3 operations, 96 MACs, 60 weights, sha256 ")


@pytest.mark.parametrize(("length", "size"), [(1, 2), (5, 256), (24, 8), (25, 8), (300, 4)])
def test_it_is_short_whatever_its_size(length, size):
    program = chain(length, size)
    shown = repr(program)
    assert len(shown) < 4000
    assert max(map(len, shown.splitlines())) <= 100
    assert len(shown.splitlines()) <= describe.ROWS + 4
    assert f"layer{length - 1} " in shown
    assert (f"... {length - describe.ROWS:,} more" in shown) == (length > describe.ROWS)
    assert repr(program.nodes[0]).startswith("Node('layer0', Linear to s8[2x")
    assert len(repr(program.nodes[0])) < 100


def test_figures_stand_at_the_right_and_words_at_the_left():
    page = ET.fromstring(chain(3)._repr_html_())
    for row in page.iter("tr"):
        sides = [cell.get("style") for cell in row]
        assert sides == ["text-align:left"] * 5 + ["text-align:right"] * 2
    heads, *lines = repr(chain(3)).splitlines()[1:5]
    for column in ("operation", "kind", "reads", "gives", "accumulator"):
        assert all(line[heads.index(column) - 1] == " " != line[heads.index(column)] for line in lines)
    for column in ("MACs", "weights"):
        at = heads.index(column) + len(column)
        assert all(line[at - 1] != " " == f"{line} "[at] for line in lines)


def test_html_is_well_formed_and_says_the_same():
    program = chain(30)
    page = ET.fromstring(program._repr_html_())
    rows = [[cell.text or "" for cell in row] for row in page.iter("tr")]
    assert len(rows) == 31
    bits = program["layer0"].accumulator.bits
    assert rows[1] == ["layer0", "linear", "x", "s8[2x4]", f"{bits} bits", "32", "20"]
    for row in page.iter("tr"):  # numbers to the right, all else to the left
        sides = [cell.attrib["style"].removeprefix("text-align:") for cell in row]
        assert sides == ["left"] * 5 + ["right"] * 2
    assert page.find("b").text == repr(program).splitlines()[0]
    assert re.search("30 operations, 960 MACs", "".join(page.itertext()))


def test_names_are_only_text():
    program = chain(1, name="<script>alert('&')</script>\n")
    page = program._repr_html_()
    assert "<script" not in page
    assert ET.fromstring(page).find(".//tbody/tr/td").text == "<script>alert('&')</script> 0"
    assert len(repr(program).splitlines()) == 4


def test_long_names_several_inputs_and_results():
    kind = TensorType((2, 4), INT8)
    build = Builder({"a" * 50: kind, "b": kind})
    build.add("sum", Add(kind, kind), "a" * 50, "b")
    build.add("turn", Transpose(kind), "b")
    lines = repr(build.program("sum", "turn")).splitlines()
    assert lines[0] == f"Program {'a' * 31}… s8[2x4], b s8[2x4] to sum s8[2x4], turn s8[4x2]"
    assert "a" * 32 not in "\n".join(lines)
