"""The photonic system as Verilog: in cocotb under both simulators, and compiled."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.systems.light.cosim import Access, Answer, run
from bittrue.rtl.bus.registers import OKAY, SLVERR
from bittrue.rtl.light.registers import Address, Errors
from bittrue.rtl.light.system import PhotonicSystem, emit
from bittrue.sim.errors import BittrueError
from tests.helpers.photonic_bench import ARRAY
from tests.helpers.photonic_programs import images, photonic_network

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
SIMULATORS = [pytest.param("icarus", marks=needs_icarus), "verilator"]


@pytest.mark.parametrize("weights", ["memory", "stream"])
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_cocotb_with_all_buses(simulator, weights, tmp_path):
    program = photonic_network(noise=True)
    system = PhotonicSystem(program, ARRAY, settling=3, weights=weights, images=4)
    jobs = system.jobs
    wanted = jobs.offsets.copy()
    wanted[2, 1] += 9
    x = images(program, 6)
    golden = jobs.with_offsets(wanted)(x, first=40)
    assert not np.array_equal(golden, program(x))
    address = system.controller.map.window("CALIBRATION").at(2, 1)
    before = [
        Access(Address.IMAGE, 40),
        Access(Address.SETTLING, 7),
        Access(address, int(wanted[2, 1])),
        Access(address),
        Access(Address.SETTLING, 2),
        Access(Address.BATCH, 3),
        Access(Address.ERRORS),
        Access(Address.ERRORS, 1 << Errors.VALUE),
    ]
    # The first of these may still find an idle controller; it writes what is there already.
    during = [Access(Address.SETTLING, 7), Access(Address.STATUS), Access(Address.PROGRAM, 1), Access(0x30)]
    after = [Access(Address.FRAMES), Access(Address.IMAGE), Access(Address.ERRORS)]
    done = run(
        system,
        x,
        golden,
        simulator,
        idle=0.3,
        backpressure=0.3,
        seed=5,
        folder=tmp_path,
        before=before,
        during=during,
        after=after,
    )
    done.run.check(golden)
    assert [a.response for a in done.before] == [OKAY, OKAY, OKAY, OKAY, SLVERR, OKAY, OKAY, OKAY]
    assert done.before[3].value == wanted[2, 1]
    assert done.before[6].value == 1 << Errors.VALUE
    turns = len(done.during) // len(during)
    assert turns > 10
    assert [a.response for a in done.during[2::4]] == [SLVERR] * turns == [a.response for a in done.during[3::4]]
    assert SLVERR in [a.response for a in done.during[0::4]]
    flags = 1 << Errors.ADDRESS | 1 << Errors.ACCESS | 1 << Errors.BUSY
    assert done.after == (Answer(OKAY, 6), Answer(OKAY, 46), Answer(OKAY, flags))


@pytest.mark.parametrize("noise", [False, True])
def test_compiled(noise):
    program = photonic_network((12, 9, 6), 4, noise=noise, seed=6)
    system = PhotonicSystem(program, ARRAY, settling=2)
    x = images(program, 200)
    compiled = CompiledRtl(emit(system, registers=False), [system.input], system.output)
    compiled.run(x).check(program(x))
    compiled.run(x, stall_seed=3, idle=0.3, backpressure=0.5).check(program(x))


def test_compiled_mutation_is_caught():
    program = photonic_network(noise=True)
    system = PhotonicSystem(program, ARRAY)
    text = emit(system, registers=False)
    word = re.search(r"( weights\[0\] = 12'h)(\w+);", text)
    broken = text.replace(word[0], f"{word[1]}{int(word[2], 16) ^ 4:03x};")
    x = images(program, 200)
    assert broken != text
    with pytest.raises(BittrueError, match="expected"):
        CompiledRtl(broken, [system.input], system.output).run(x).check(program(x))
