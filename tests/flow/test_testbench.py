"""The monitor of the cocotb testbench, without a simulator: a device of scripted ports, and what is told of it."""

import asyncio
import os
import re
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bittrue.flow.run import result

testbench = pytest.importorskip("bittrue.flow.run.testbench", reason="cocotb and cocotbext-axi are not installed")


class Value(str):
    """Bits as cocotb gives them; X and Z are unknown."""

    @property
    def is_resolvable(self) -> bool:
        return not set(self) & set("XZ")

    def __bool__(self) -> bool:
        return int(self, 2) > 0

    def __int__(self) -> int:
        return int(str(self), 2)


class Dut:
    """Ports that take the values of a script, row by row; a port keeps its value until the script gives another."""

    _name = "bittrue_top"

    def __init__(self, script, **ports: str) -> None:
        self.script, self.wires = iter(script), {}
        for name, value in {"aclk": "0", **ports}.items():
            self.wires[name] = SimpleNamespace(value=Value(value))

    def __getattr__(self, name: str):
        try:
            return self.__dict__["wires"][name]
        except KeyError:
            raise AttributeError(name) from None

    def step(self) -> None:
        for name, value in next(self.script, {}).items():
            self.wires[name].value = Value(value)


PORTS = {"i_tvalid": "0", "i_tready": "1", "o_tvalid": "0", "o_tready": "1", "o_tlast": "0", "o_tdata": "0" * 16}
PORTS |= {"i_framing_errors": "0" * 16}


def job(frames=1, watchdog=100, max_cycles=0, beats=2, **others):
    port = {"prefix": "o", "beats": beats, "bytes": 2}
    source = {"prefix": "i", "beats": 2, "framed": True}
    base = {"frames": frames, "watchdog": watchdog, "max_cycles": max_cycles, "inputs": [source], "outputs": [port]}
    return base | {"weights": None, "writes": [], "ports": {}} | others


def beat(data: int, last: int = 0, valid: str = "1", ready: str = "1") -> dict[str, str]:
    return {"o_tvalid": valid, "o_tready": ready, "o_tlast": str(last), "o_tdata": f"{data:016b}"}


NONE = beat(0, valid="0")


def watch(script, told, monkeypatch, **ports):
    """Run a monitor over a script; each row is what the ports have at one rising edge."""
    kernels = told.pop("kernels", None)
    dut = Dut(script, **PORTS, **ports)
    monitor = testbench.Monitor(dut, told, kernels)

    class Edge:
        def __init__(self, clock) -> None:
            assert clock is dut.aclk

        def __await__(self):
            dut.step()
            return
            yield

    monkeypatch.setattr(testbench, "RisingEdge", Edge)
    asyncio.run(monitor.run())
    return monitor


def test_numbers_are_those_that_people_and_the_compiled_loop_have():
    names = ("DONE", "DEADLOCK", "CYCLE_LIMIT", "BROKEN", "MAX_EVENTS")
    assert [getattr(testbench, name) for name in names] == [getattr(result, name) for name in names]
    loop = Path(result.__file__).with_name("batch_loop.cpp").read_text()
    states = re.search(r"enum State[^{]*\{([^}]*)\}", loop)[1]
    found = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", states)}
    assert found == {"RUNNING": testbench.RUNNING, **{name: getattr(result, name) for name in names[:-1]}}
    words = {"LAST_MISSING": "without TLAST", "LAST_EARLY": "TLAST on", "DATA_CHANGED": "changed", "EXTRA_BEAT": "more"}
    words |= {"VALID_WITHDRAWN": "withdrawn", "VALID_IN_RESET": "reset", "UNKNOWN_BITS": "unknown bits"}
    words |= {"UNKNOWN_READY": "TREADY of an input", "KERNEL_DIFFERS": "HLS kernel"}
    for name, word in words.items():
        assert word in result.EVENTS[getattr(testbench, name)], name


def test_beats_cycles_and_the_end(monkeypatch):
    """Two beats of input, two of output with a stall; the run ends 64 cycles and the first latency after the last."""
    script = [
        {},
        {"i_tvalid": "1"},
        {},
        {"i_tvalid": "0"},
        beat(0x0102, ready="0"),
        beat(0x0102),
        beat(0xFFFE, 1),
        NONE,
    ]
    seen = watch(script, job(), monkeypatch)
    (outlet,) = seen.outlets
    assert outlet.words.tolist() == [[2, 1], [0xFE, 0xFF]]
    assert outlet.beat_cycles.tolist() == [5, 6]
    assert (outlet.produced, outlet.total) == (2, 2)
    assert seen.accepted == [2]
    assert (seen.begun, seen.meets.tolist(), seen.first_input_cycle) == (1, [0], 1)
    assert (seen.events, seen.event_count, seen.state) == ([], 0, testbench.DONE)
    assert seen.cycles == 6 + 64 + (5 - 1) + 1
    assert seen.all_out
    assert seen.far == "o produced 2 of 2 beats"
    assert seen.framing_errors == [0]


@pytest.mark.parametrize(
    ("rows", "events"),
    [
        ([beat(1), beat(2)], [("LAST_MISSING", 1, 1)]),
        ([beat(1, 1), beat(2, 1)], [("LAST_EARLY", 0, 0)]),
        ([beat(1, ready="0"), beat(3), beat(2, 1)], [("DATA_CHANGED", 1, 0)]),
        ([beat(1, 0, ready="0"), beat(1, 1), beat(2, 1)], [("DATA_CHANGED", 1, 0), ("LAST_EARLY", 1, 0)]),
        ([beat(1, ready="0"), NONE, beat(1), beat(2, 1)], [("VALID_WITHDRAWN", 1, 0)]),
        ([beat(1, ready="0"), NONE, NONE, beat(4), beat(2, 1)], [("VALID_WITHDRAWN", 1, 0)]),
        ([beat(1), beat(2, 1), beat(3), beat(4)], [("EXTRA_BEAT", 2, 2), ("EXTRA_BEAT", 3, 3)]),
        ([{"o_tvalid": "X"}, beat(1), beat(2, 1)], [("UNKNOWN_BITS", 0, 0)]),
        ([beat(1) | {"o_tdata": "000000000000XZ11"}, beat(2, 1)], [("UNKNOWN_BITS", 0, 0)]),
        ([beat(1) | {"o_tlast": "X"}, beat(2, 1)], [("UNKNOWN_BITS", 0, 0)]),
        ([beat(1, ready="0"), beat(1, ready="0"), beat(1), beat(2, 1)], []),
        ([beat(1), beat(2, 1), beat(3, valid="0")], []),
    ],
)
def test_errors_of_the_protocol(rows, events, monkeypatch):
    seen = watch([*rows, NONE], job(), monkeypatch)
    assert seen.events == [(getattr(testbench, name), cycle, at, 0) for name, cycle, at in events]
    assert seen.event_count == len(events)
    if any("X" in str(row.get("o_tdata")) for row in rows):
        assert seen.outlets[0].words[0].tolist() == [3, 0]


def test_only_some_errors_are_listed(monkeypatch):
    seen = watch([beat(1), *[beat(2, 1)] * 30, NONE], job(), monkeypatch)
    assert (len(seen.events), seen.event_count) == (16, 29)


def test_an_output_is_held_to_the_kernel(monkeypatch):
    kernel = lambda frame: np.array([[1 + 2 * frame, 0], [2 + 2 * frame, 0]], np.uint8)  # noqa: E731
    script = [beat(1), beat(2, 1), beat(3), beat(5, 1), NONE]
    seen = watch(script, job(frames=2) | {"kernels": [kernel]}, monkeypatch)
    assert seen.events == [(testbench.KERNEL_DIFFERS, 3, 3, 0)]
    script[3] = beat(4, 1)
    assert watch(script, job(frames=2) | {"kernels": [kernel]}, monkeypatch).event_count == 0


def test_limits(monkeypatch):
    seen = watch([{"i_tvalid": "1"}, {}, {"i_tready": "0"}], job(watchdog=5), monkeypatch)
    assert (seen.state, seen.cycles) == (testbench.DEADLOCK, 1 + 5 + 1)
    assert watch([], job(watchdog=5), monkeypatch).cycles == 6
    seen = watch([{"i_tvalid": "1"}], job(watchdog=5, max_cycles=9, frames=9), monkeypatch)
    assert (seen.state, seen.cycles, seen.begun) == (testbench.CYCLE_LIMIT, 9, 5)
    assert seen.meets.tolist() == [0, 0, 0, 0, 0, -1, -1, -1, -1]
    assert not seen.all_out
    assert seen.far == "o produced 0 of 18 beats"


def test_framing_errors_that_are_unknown(monkeypatch):
    seen = watch([beat(1), beat(2, 1), {"i_framing_errors": "0000000000000101"}], job(), monkeypatch)
    assert seen.framing_errors == [5]
    seen.errors[0].value = Value("000000000000010X")
    assert seen.framing_errors == [-1]
    seen.errors[0] = None
    assert seen.framing_errors == [0]


def test_sets_that_take_effect_and_frames_that_wait_for_them(monkeypatch):
    """Counts of eight bits that wrap; each frame meets what had taken effect when its first beat came."""
    prefix = {"w_tvalid": "0", "w_tready": "0", "weights_sets": "11111111", "weights_errors": "00000000"}
    rows = [{"w_tvalid": "1"}, {"w_tready": "1"}, {}, {"w_tvalid": "0", "weights_sets": "00000001"}]
    rows += [{"i_tvalid": "1", "weights_sets": "0000000X"}, {}, {"i_tvalid": "0", "weights_errors": "00000010"}]
    writes = [{"by": None}, {"by": 3}, {"by": 5}]
    asked = job(watchdog=9, weights={"prefix": "w"}, writes=writes)
    seen = watch([*rows, {"weights_sets": "00000001"}], asked, monkeypatch, **prefix)
    assert (seen.effective, seen.refused, seen.weight_beats) == (257, 2, 2)
    assert seen.meets.tolist() == [257]
    seen.effective, seen.refused = 0, 0
    assert [seen.waits(frame) for frame in (2, 3, 4, 5)] == [False, True, True, True]
    seen.effective, seen.refused = 1, 1
    assert [seen.waits(frame) for frame in (4, 5)] == [False, True]


def test_what_is_written_for_the_run(monkeypatch, tmp_path):
    seen = watch([{"i_tvalid": "1"}, {"i_tvalid": "0"} | beat(7), beat(8), NONE], job(), monkeypatch)
    monkeypatch.setitem(os.environ, "BITTRUE_JOB", str(tmp_path))
    testbench.record(seen, [(1, 2, 3, 4)])
    kept = {name: array.tolist() for name, array in np.load(tmp_path / "result.npz").items()}
    assert kept["words0"] == [[7, 0], [8, 0]]
    assert kept["beat_cycles0"] == [1, 2]
    assert (kept["accepted"], kept["meets"], kept["framing_errors"], kept["weights"]) == ([1], [0], [0], [0, 0])
    assert kept["answers"] == [[1, 2, 3, 4]]
    assert kept["events"] == [[testbench.LAST_MISSING, 2, 1, 0]]
    assert kept["scalars"] == [0, 2 + 64 + 1 + 1, testbench.DONE, 1]


def test_ports_of_the_top():
    wide = {f"{side}_{name}": "0" for side in "io" for name in ("tvalid", "tready", "tlast")}
    wide |= {"aresetn": "0", "i_tdata": "0" * 8, "o_tdata": "0" * 16, "i_framing_errors": "0" * 16, "extra": "000"}
    wanted = job(ports={"extra": 3})
    wanted["inputs"][0]["bytes"] = 1

    class Sized(Dut):
        def __getattr__(self, name):
            wire = super().__getattr__(name)
            return type("Wire", (), {"__len__": lambda _: len(wire.value)})()

    assert testbench.wrong_port(Sized([], **wide), wanted) is None
    for name in wide:
        without = {key: value for key, value in wide.items() if key != name}
        assert testbench.wrong_port(Sized([], **without), wanted) == f"module bittrue_top has no port {name}"
        told = testbench.wrong_port(Sized([], **wide | {name: wide[name] + "0"}), wanted)
        size = len(wide[name])
        assert told == f"module bittrue_top: port {name} is {size + 1} bits wide, {size} were expected"


def test_packets_end_where_tlast_is():
    arrays = {"beats0": np.arange(10, dtype=np.uint8).reshape(5, 2), "last0": np.array([0, 1, 0, 0, 1], bool)}
    assert testbench.sent(arrays, 0) == [bytes([0, 1, 2, 3]), bytes([4, 5, 6, 7, 8, 9])]


def test_pauses_are_those_of_their_seed():
    drawn = list(islice(testbench.pauses("7 source 0", 0.3), 400))
    assert drawn == list(islice(testbench.pauses("7 source 0", 0.3), 400))
    assert 80 < sum(drawn) < 160
    assert drawn != list(islice(testbench.pauses("7 source 1", 0.3), 400))
    assert not any(islice(testbench.pauses("7", 0.0), 99))
