"""The photonic system as Verilog: in cocotb under both simulators, and compiled."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.rtl import readback
from bittrue.rtl.bus.access import END, MEANWHILE, Access
from bittrue.rtl.bus.registers import SLVERR
from bittrue.rtl.design import load
from bittrue.rtl.light.design import PhotonicDesign
from bittrue.rtl.light.jobs import Geometry
from bittrue.rtl.light.registers import Address, Errors
from bittrue.sim.errors import BittrueError
from tests.helpers.lengths import long_but
from tests.helpers.photonic_bench import ARRAY
from tests.helpers.photonic_programs import images, photonic_network

SIMULATORS = [pytest.param("icarus", marks=pytest.mark.needs("iverilog")), "verilator"]


@pytest.mark.parametrize("weights", long_but(["memory", "stream"], "stream"))
@pytest.mark.parametrize("simulator", ["compiled", SIMULATORS[0], pytest.param(SIMULATORS[1], marks=pytest.mark.long)])
def test_all_buses(simulator, weights, tmp_path):
    program = photonic_network(noise=True)
    design = PhotonicDesign(program, ARRAY, settling=3, weights=weights, images=4)
    wanted = design.jobs.offsets.copy()
    wanted[2, 1] += 9
    x = images(program, 6)
    golden = design.jobs.with_offsets(wanted)(x, first=40)
    assert not np.array_equal(golden, program(x))
    place = design.map.window("CALIBRATION").at(2, 1)
    flags = 1 << Errors.ADDRESS | 1 << Errors.ACCESS | 1 << Errors.BUSY
    accesses = [
        Access("IMAGE", Address.IMAGE, 40),
        Access("SETTLING", Address.SETTLING, 7),
        Access("CALIBRATION", place, int(wanted[2, 1])),
        Access("CALIBRATION", place, read=int(wanted[2, 1])),
        Access("SETTLING", Address.SETTLING, 2, SLVERR),
        Access("BATCH", Address.BATCH, 3),
        Access("ERRORS", Address.ERRORS, read=1 << Errors.VALUE),
        Access("ERRORS", Address.ERRORS, 1 << Errors.VALUE),
        Access("BATCH", Address.BATCH, 4, SLVERR, frame=1),  # the first image is at work
        Access("STATUS", Address.STATUS, frame=MEANWHILE),
        Access("PROGRAM", Address.PROGRAM, 1, SLVERR, frame=MEANWHILE),
        Access("nothing", 0x30, response=SLVERR, frame=MEANWHILE),
        Access("FRAMES", Address.FRAMES, read=6, frame=END),
        Access("IMAGE", Address.IMAGE, read=46, frame=END),
        Access("ERRORS", Address.ERRORS, read=flags, frame=END),
    ]
    stalls = {"idle": 0.3, "backpressure": 0.3}
    if simulator == "compiled":
        run = CompiledRtl.of(design).run(x, stall_seed=5, **stalls, accesses=accesses)
    else:
        place = {"simulator": simulator, "folder": tmp_path, "seed": 5}
        run = cosim.of(design, [x], expected=golden, **place, **stalls, accesses=accesses)
    run.check(golden)
    made = [answer.access.frame for answer in run.answers]
    assert made.count(MEANWHILE) > 30
    assert len(made) - made.count(MEANWHILE) == 12
    assert [a.cycle for a in run.answers] == sorted(a.cycle for a in run.answers)


@pytest.mark.parametrize(
    "simulator",
    [
        "compiled",
        pytest.param("icarus", marks=[pytest.mark.needs("iverilog"), pytest.mark.long]),
        pytest.param("verilator", marks=pytest.mark.long),
    ],
)
def test_a_wrong_answer_is_an_error(simulator, tmp_path):
    program = photonic_network()
    design = PhotonicDesign(program, ARRAY)
    accesses = [
        Access("FRAMES", Address.FRAMES, read=3, frame=END),
        Access("PROGRAM", Address.PROGRAM, 1),
        Access("ERRORS", Address.ERRORS, read=1 << Errors.ACCESS),
    ]
    x = images(program, 2)
    if simulator == "compiled":
        run = CompiledRtl.of(design).run(x, accesses=accesses)
    else:
        run = cosim.of(design, [x], simulator=simulator, folder=tmp_path, accesses=accesses)
    assert run.mismatches(program(x)) == 0
    assert run.errors == (
        "AXI4-Lite: a write to PROGRAM was answered SLVERR, not OKAY",
        "AXI4-Lite: FRAMES is 0x2, not 0x3",
    )


@pytest.mark.parametrize("noise", long_but([False, True], True))
@pytest.mark.parametrize("weights", long_but(["memory", "stream"], "stream"))
def test_compiled(noise, weights):
    """With stalls exact; without, every frame ends in the cycle that is foretold."""
    program = photonic_network((12, 9, 6), 4, noise=noise, seed=6)
    design = PhotonicDesign(program, ARRAY, settling=2, weights=weights, images=5)
    x = images(program, 200)
    compiled = CompiledRtl.of(design)
    compiled.run(x, stall_seed=3, idle=0.3, backpressure=0.5).check(program(x))
    run = compiled.run(x).check(program(x))
    promised = design.expect(x)
    assert run.latency == promised.latency == design.latency
    assert (run.frame_end_cycles - run.first_input_cycle).tolist() == promised.ends.tolist()


@pytest.mark.parametrize(
    ("sizes", "geometry", "settling", "capacity", "noise"),
    [
        ((10, 7, 5), Geometry(4, 4, 2), 1, 1, False),
        pytest.param((20, 5), Geometry(4, 2, 1), 1, 7, False, marks=pytest.mark.long),
        ((8, 9, 3), Geometry(2, 8, 2), 20, 3, True),
        # results leave slower than they are made
        pytest.param((16, 64), Geometry(16, 64, 16), 1, 4, False, marks=pytest.mark.long),
    ],
)
def test_every_frame_ends_when_foretold(sizes, geometry, settling, capacity, noise):
    program = photonic_network(sizes, geometry.rows, noise=noise)
    design = PhotonicDesign(program, geometry, settling, images=capacity)
    x = images(program, 60)
    run = CompiledRtl.of(design).run(x).check(program(x))
    assert (run.frame_end_cycles - run.first_input_cycle).tolist() == design.expect(x).ends.tolist()
    assert run.latency == design.latency


def test_compiled_mutation_is_caught():
    program = photonic_network(noise=True)
    design = PhotonicDesign(program, ARRAY)
    text = design.verilog()
    word = re.search(r"( weights\[0\] = 12'h)(\w+);", text)
    broken = text.replace(word[0], f"{word[1]}{int(word[2], 16) ^ 4:03x};")
    x = images(program, 200)
    assert broken != text
    with pytest.raises(BittrueError, match="expected"):
        CompiledRtl.of(design, broken).run(x).check(program(x))


@pytest.mark.long
def test_a_design_is_read_back_and_says_what_it_is():
    program = photonic_network()
    for options in ({}, {"weights": "stream"}, {"twin": False, "settling": 3}):
        design = PhotonicDesign(program, ARRAY, **options)
        again = load(program, json.loads(json.dumps(design.to_json())))
        assert again.verilog() == design.verilog()
        readback.check(again, design.verilog())
    with pytest.raises(BittrueError, match="alone it does not run"):
        design.expect(images(program, 1))
    with pytest.raises(BittrueError, match="made for another program"):
        load(photonic_network(seed=5), design.to_json())
