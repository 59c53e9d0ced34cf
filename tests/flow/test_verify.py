"""The figures of a verification against numbers by hand, and every sentence about what is not as promised."""

import re

import numpy as np
import pytest
import typer

from bittrue.flow.engine import registry
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.synth import harness
from bittrue.flow.verify.backends import BACKENDS
from bittrue.flow.verify.judged import mean_interval, problems, unverified
from bittrue.hls import host
from bittrue.sim.errors import BittrueError


@pytest.mark.parametrize(
    ("ends", "interval"),
    [
        ([], None),
        ([7], None),
        ([7, 30], None),
        ([7, 30, 40], 10),  # from the second to the third
        ([3, 10, 20, 40, 70], 25),  # 50 cycles for the two frames behind the third
        ([3, 10, 20, 40, 71], 26),  # 51 / 2: half to even
        ([0, 1, 2, 10, 20, 33], 12),  # 23 / 2 from the fourth to the sixth
        ([0, 1, 2, 10, 20, 31], 10),
    ],
)
def test_mean_interval_is_that_of_the_second_half(ends, interval):
    assert mean_interval(np.array(ends)) == interval


ROW = {
    "backend": "rtl",
    "simulator": "icarus",
    "stalls": False,
    "mismatches": 0,
    "values": 40,
    "errors": [],
    "divergence": None,
    "events": None,
    "interval": 12,
    "estimated_interval": 12,
    "latency": 30,
    "estimated_latency": 30,
}


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({}, []),
        ({"mismatches": 1}, ["rtl/icarus: 1 of 40 values differ"]),
        ({"mismatches": 2, "divergence": {"text": "here"}}, ["2 of 40 values differ; first divergence: here"]),
        ({"errors": ["a", "b"], "stalls": True}, ["rtl/icarus with stalls: a; b"]),
        ({"schedule": "frame 3 is late"}, ["rtl/icarus: frame 3 is late"]),
        ({"events": {"n": {"rtl": 4, "golden": 5}}}, ["4 events left n, in the golden simulator 5"]),
        ({"events": {"n": {"rtl": 5, "golden": 5}}}, []),
        ({"interval": 13}, ["interval is 13 cycles, the design promised 12"]),
        ({"interval": 11}, ["interval is 11 cycles, the design promised 12"]),
        ({"latency": 29}, ["latency is 29 cycles, the design promised 30"]),
        ({"latency": 31, "interval": 1}, ["interval is 1 cycles", "latency is 31 cycles"]),
        ({"design": "mine", "mismatches": 1}, ["mine/icarus: 1 of 40"]),
    ],
)
def test_what_is_not_as_promised_is_said(changed, sentences):
    found = problems([ROW | changed], {"mismatches": 0, "values": 9})
    assert len(found) == len(sentences)
    for sentence, part in zip(found, sentences, strict=True):
        assert part in sentence


def test_a_wrong_golden_run_is_said():
    assert problems([], {"mismatches": 1, "values": 9}) == ["golden: 1 of 9 values differ from the reference"]
    assert problems([], None) == []


@pytest.mark.parametrize(("inputs", "outputs", "which"), [([], ["o"], "input"), (["i"], [], "output")])
def test_rtl_without_ports_is_refused(inputs, outputs, which, tmp_path):
    with pytest.raises(BittrueError, match=f"the RTL has no {which} port"):
        CompiledRtl("module top; endmodule\n", inputs, outputs, tmp_path)


@pytest.mark.parametrize("absent", ["find_compiler", "find_headers"])
def test_each_tool_of_a_back_end_is_asked_for(absent, monkeypatch):
    def refuse():
        raise BittrueError(f"{absent}: not here")

    assert BACKENDS["gxx"].missing() is None
    monkeypatch.setattr(host, absent, refuse)
    assert BACKENDS["gxx"].missing() == f"{absent}: not here"


RTL, NO_TOOL = {"backend": "rtl"}, {"backend": "rtl", "reason": "no tool"}


@pytest.mark.parametrize(
    ("rows", "skipped", "golden", "sentences"),
    [
        ([], [], None, ["nothing was verified: no back end was given any image; name some"]),
        ([], [], {"equal": True}, []),
        ([RTL], [], None, []),
        ([], [NO_TOOL], None, ["the RTL was not verified: no tool"]),
        ([], [NO_TOOL], {"equal": True}, ["the RTL was not verified: no tool"]),
        ([RTL], [NO_TOOL], None, []),  # another one could
        ([], [{"reason": "no tool"}, NO_TOOL], None, ["the RTL was not verified: no tool"]),  # of older reports
        ([RTL], [{"backend": "hls", "reason": "no g++"}], None, ["the HLS kernels were not verified: no g++"]),
    ],
)
def test_what_was_not_verified_is_told(rows, skipped, golden, sentences):
    assert unverified(rows, skipped, golden) == sentences


@pytest.mark.parametrize(
    ("ports", "name"),
    [
        ({"aclk": "input", "x": "input", "y": "output"}, "aclk"),
        ({"x": "input", "clk": "input"}, "clk"),
        ({"x": "input", "y": "output"}, None),
        ({"aclk": "input", "clk": "input"}, None),
        ({"clk": "output"}, None),
        ({"clk": "input", "pad": "inout"}, None),
    ],
)
def test_a_harness_needs_one_clock_and_no_inout(ports, name):
    described = {port: {"direction": way, "bits": [1]} for port, way in ports.items()}
    if name:
        assert harness.clock(described) == name
    else:
        with pytest.raises(BittrueError, match="one clock named aclk or clk"):
            harness.clock(described)


def test_a_harness_has_a_bit_for_every_pin_and_no_other():
    ways = {"x": ("input", 5), "aclk": ("input", 1), "y": ("output", 3), "go": ("input", 1), "z": ("output", 7)}
    ports = {name: {"direction": way, "bits": [2] * width} for name, (way, width) in ways.items()}
    text = harness.around("design", ports, "aclk")
    declared = {name: int(high) + 1 for high, name in re.findall(r"\[(\d+):0\] (\w+);", text)}
    assert declared == {"shift": 5 + 1, "out": 3 + 7, "held": 3 + 7}
    taken: dict[str, list[int]] = {"shift": [], "out": []}
    for port, wire, low, width in re.findall(r"\.(\w+)\((\w+)\[(\d+) \+: (\d+)\]\)", text):
        assert (wire, int(width)) == ({"input": "shift", "output": "out"}[ways[port][0]], ways[port][1])
        taken[wire] += range(int(low), int(low) + int(width))
    assert {wire: sorted(bits) for wire, bits in taken.items()} == {"shift": [*range(6)], "out": [*range(10)]}
    assert ".aclk(aclk)" in text


def test_every_system_brings_its_commands():
    brought = {}
    for name, system in registry.systems().items():
        app = typer.Typer()
        system.register(app)
        brought[name] = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert "import-headers" in brought["lerp-psa"]
    assert all(brought[name] for name in ("fs", "lerp-psa"))
