"""Booting in RTL: samples from counters and memories, places of codes, the whole of it, resets, faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from bittrue.rtl.boot.design import BootDesign, boot, written_target
from bittrue.rtl.boot.fit import fit
from bittrue.rtl.boot.places import locate, sections
from bittrue.rtl.boot.registers import Address
from bittrue.rtl.boot.sequence import Samples
from bittrue.rtl.dataflow.estimate import DEVICES
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import intervals, plan
from bittrue.rtl.parts.held import Table
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operation import TensorType
from bittrue.sim.sequence import counted, runs
from bittrue.sim.system import Link, System
from tests.helpers.booted import GENERATOR, NETWORK, coordinates, places, system
from tests.helpers.lengths import long_but
from tests.helpers.sets import codes


class TestSamples:
    """What goes into the generator."""

    SHAPES = ([(4, 2), (4, 4)], [(3, 1)], [(1, 5), (2, 5), (2, 5)])

    def test_runs_are_found(self):
        found = runs(coordinates([(4, 2), (4, 4)]))
        assert [(r.first.tolist(), r.sizes.tolist()) for r in found] == [([0, 0, 0], [1, 4, 2]), ([1, 0, 0], [1, 4, 4])]
        assert [r.sizes.tolist() for r in runs(coordinates([(2, 5), (2, 5)]))] == [[2, 2, 5]]
        backwards = coordinates([(4, 4)])[::-1]
        assert len(runs(backwards)) == 16
        assert counted(backwards) is None

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_runs_are_the_samples(self, shapes):
        samples = coordinates(shapes)
        np.testing.assert_array_equal(np.concatenate([run.samples for run in runs(samples)]), samples)
        assert sum(map(len, runs(samples))) == len(samples)

    @pytest.mark.parametrize("shapes", SHAPES)
    @pytest.mark.parametrize(("kind", "lanes", "first"), [((1,), 1, 1), ((3,), 1, 0), ((3,), 3, 0), ((1,), 1, 0)])
    @pytest.mark.parametrize("order", ["counted", "drawn"])
    def test_what_is_offered(self, shapes, kind, lanes, first, order):
        """Every beat in order, whatever the reader does; nothing before a start or behind the end; again."""
        samples = coordinates(shapes)
        rng = np.random.default_rng(0)
        if order == "drawn":
            samples = rng.permutation(samples)
        size = int(np.prod(kind))
        expected = samples[:, first : first + size].reshape(-1, lanes)
        dut = Samples(TensorType(kind, Format(4, signed=False)), lanes, samples, first)
        assert (dut.runs is None) == (order == "drawn" and counted(samples) is None)
        seen: list[list[int]] = []

        async def bench(ctx):
            for pause in (0.0, 0.5):
                await ctx.tick().repeat(3)
                assert not ctx.get(dut.o.valid)
                ctx.set(dut.start, 1)
                await ctx.tick()
                ctx.set(dut.start, 0)
                count = 0
                while count < len(expected):
                    ready = rng.random() >= pause
                    ctx.set(dut.o.ready, ready)
                    assert ctx.get(dut.o.valid)
                    if ready:
                        seen.append([ctx.get(dut.o.payload[k]) for k in range(lanes)])
                        count += 1
                    await ctx.tick()
                ctx.set(dut.o.ready, 1)

        sim = Simulator(dut)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.run()
        assert seen == 2 * expected.tolist()


class TestPlaces:
    """From a word a sample to table, row and slot."""

    @pytest.mark.parametrize("filters", [1, 4, 6, 70])
    @pytest.mark.parametrize("channels", [1, 3, 4, 6])
    def test_every_folding_has_its_arithmetic(self, filters, channels):
        """All that divide: with and without a carry from slots into rows."""
        inputs, bits = 9 * channels, set()
        where = places([(filters, channels)], np.random.default_rng(filters))
        held = Held("w", (filters, inputs), -8, 7)
        for simd in (n for n in range(1, inputs + 1) if inputs % n == 0):
            for pe in (n for n in range(1, filters + 1) if filters % n == 0 and n < 8):
                index = np.arange(held.size).reshape(filters // pe, pe, inputs // simd, simd)
                table = Table(held, index.transpose(0, 2, 1, 3).reshape(-1, pe * simd))
                located = locate([table], [held], where)
                (found,) = sections([table], where, located)
                np.testing.assert_array_equal(found.places, located, err_msg=f"simd {simd}, pe {pe}")
                np.testing.assert_array_equal(
                    table.index[located[:, :, 1], located[:, :, 2]], where, err_msg="located is what it says"
                )
                bits.add(sum(found.bits))
        least = (filters * channels - 1).bit_length()
        assert bits <= {least, least + 1}  # packed; one more where a number of kernels is no power of two

    def test_sections_are_layers(self):
        s = system(0)
        target = plan(s.programs[NETWORK])
        tables = replace(target, scatter=2).network.words.tables
        located = locate(tables, s.held(s.links[0]), s.links[0].places)
        found = sections(tables, s.links[0].places, located)
        assert [(part.first, len(part), part.bits) for part in found] == [(0, 8, (2, 1)), (8, 16, (2, 2))]

    def test_codes_that_go_nowhere(self):
        """Those of one row of a kernel, as where a 1x1 kernel is made of the middle of nine codes."""
        held = Held("w", (4, 3), -8, 7)
        where = np.full((12, 9), -1)
        where[np.random.default_rng(0).permutation(12), 4] = np.arange(12)
        table = Table(held, np.arange(12).reshape(4, 3))
        located = locate([table], [held], where)
        (found,) = sections([table], where, located)
        assert found.tables == (-1,) * 4 + (0,) + (-1,) * 4
        np.testing.assert_array_equal(found.places[:, 4], located[:, 4])

    def test_what_has_no_arithmetic_is_refused(self):
        held = Held("w", (4, 9), -8, 7)
        where = np.arange(36).reshape(4, 9)
        where[2] = np.random.default_rng(0).permutation(where[2])
        table = Table(held, np.arange(36).reshape(4, 9))
        with pytest.raises(BittrueError, match="samples from 0 on go to places that follow no pattern"):
            sections([table], where, locate([table], [held], where))
        twice = Table(held, np.zeros((1, 36), np.int64))
        with pytest.raises(BittrueError, match="'w' lies in several places"):
            locate([twice], [held], where)
        with pytest.raises(BittrueError, match="no memory for 'w'"):
            locate([], [held], where)


class Top:
    """The whole design in Amaranth's simulator, its clock driven by hand."""

    def __init__(self, design: BootDesign) -> None:
        self.design, self.top = design, design.top

    def run(self, script) -> None:
        async def bench(ctx):
            self.ctx = ctx
            await script(self)

        sim = Simulator(self.top)
        sim.add_testbench(bench)
        sim.run()

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self.ctx.set(self.top.lite[name] if name in self.top.lite else getattr(self.top, name), value)

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.set(aclk=1)
            await self.ctx.delay(5e-7)
            self.set(aclk=0)
            await self.ctx.delay(5e-7)

    @property
    def open(self) -> bool:
        return bool(self.ctx.get(self.top.slaves[0].tready))

    async def reset(self, cycles: int = 2) -> None:
        self.set(aresetn=0)
        await self.tick(cycles)
        self.set(aresetn=1)

    async def until_open(self, most: int) -> int:
        """Cycles from now to the first in which frames are taken."""
        for cycle in range(most):
            if self.open:
                return cycle
            await self.tick()
        return most

    async def read(self, address: Address) -> int:
        self.set(araddr=int(address), arvalid=1, rready=1)
        while not self.ctx.get(self.top.lite["arready"]):
            await self.tick()
        await self.tick()
        self.set(arvalid=0)
        while not self.ctx.get(self.top.lite["rvalid"]):
            await self.tick()
        value = self.ctx.get(self.top.lite["rdata"])
        await self.tick()
        return value

    async def write(self, address: Address, value: int) -> int:
        self.set(awaddr=int(address), awvalid=1, wdata=value, wstrb=15, wvalid=1, bready=1)
        while not (self.ctx.get(self.top.lite["awready"]) and self.ctx.get(self.top.lite["wready"])):
            await self.tick()
        await self.tick()
        self.set(awvalid=0, wvalid=0)
        while not self.ctx.get(self.top.lite["bvalid"]):
            await self.tick()
        answer = self.ctx.get(self.top.lite["bresp"])
        await self.tick()
        return answer

    async def frame(self, x: np.ndarray) -> list[int]:
        """One frame in, its result out."""
        (port,), (out,) = self.top.slaves, self.top.masters
        words = self.design.inputs[0].pack(x[None])[0]
        seen: list[int] = []
        sent, self_ready = 0, 1
        self.ctx.set(out.tready, self_ready)
        for _ in range(3000):
            self.ctx.set(port.tvalid, sent < len(words))
            if sent < len(words):
                self.ctx.set(port.tdata, int.from_bytes(bytes(words[sent]), "little"))
                self.ctx.set(port.tlast, sent == len(words) - 1)
            taken, given = self.ctx.get(port.tready & port.tvalid), self.ctx.get(out.tvalid)
            if given:
                bits = 8 * self.design.outputs[0].code_bytes
                value = self.ctx.get(out.tdata)
                for lane in range(self.design.outputs[0].lanes):
                    code = value >> bits * lane & (1 << bits) - 1
                    seen.append(code - (code >> bits - 1 << bits))
            sent += taken
            await self.tick()
            if len(seen) == self.design.program.output.size:
                return seen
        raise AssertionError("no result")


def small(banks: int = 2, **options) -> BootDesign:
    """The second layer has 18 inputs in rows of 9, so that the codes of half of its kernels carry into the next row."""
    options |= {"generator": {"interval": 60}, "accelerator": {"interval": 500, "folding": {"conv1": Folding(9, 1)}}}
    design = boot(system(1, 1, ((2, 1), (2, 2)), side=3), banks=banks, **options)
    (section,) = (s for s in design.sections if s.wrap == 9 and s.first)
    assert section.parts[1][:, 2].max() + section.steps[:, 1].max() >= 9
    return design


@pytest.mark.parametrize("banks", long_but([1, 2], 2))
def test_reset_generate_ready_and_again(banks):
    """Frames are refused until the boot is over, to the cycle; then results are right; a boot that a reset interrupts
    starts anew; a start boots again; a wrong checksum is an error, and no frame is taken until a boot is right."""
    design = small(banks)
    (x,) = codes(design.program, 2, np.random.default_rng(0))
    expected = design.program(x)
    assert not np.array_equal(expected, design.accelerator.program(x))

    async def script(top: Top):
        await top.reset()
        assert await top.until_open(9999) == design.boot_cycles
        assert await top.frame(x[0]) == expected[0].tolist()
        assert await top.read(Address.CYCLES) == design.boot_cycles
        for part in (3, 7):  # in the middle of it, twice
            await top.reset()
            await top.tick(part * design.boot_cycles // 10)
            assert not top.open
        await top.reset(1)
        assert await top.until_open(9999) == design.boot_cycles
        assert await top.frame(x[1]) == expected[1].tolist()
        assert await top.read(Address.BOOTS) == 1

        assert await top.write(Address.CONTROL, 1) == 0
        await top.tick()
        assert top.open == (banks == 2)  # with two banks frames go on
        assert await top.read(Address.STATUS) >> 1 & 1
        assert await top.write(Address.CONTROL, 1) == 2  # not while it boots
        await top.tick(design.boot_cycles + 20)  # and until nothing reads the weights of before
        assert await top.read(Address.BOOTS) == 2
        assert await top.read(Address.STATUS) == 0b1001
        assert await top.frame(x[0]) == expected[0].tolist()

        assert await top.write(Address.EXPECTED, design.checksum ^ 1 << 31) == 0
        assert await top.write(Address.CONTROL, 1) == 0
        await top.tick(design.boot_cycles + 20)
        assert not top.open
        assert await top.read(Address.STATUS) == 0b1100
        assert await top.read(Address.ERRORS) == 0b11000  # it was busy, and the checksum
        assert await top.read(Address.FOUND) == design.checksum
        assert await top.read(Address.BOOTS) == 2
        await top.tick(2 * design.boot_cycles)
        assert not top.open
        assert await top.write(Address.EXPECTED, design.checksum) == 0
        assert await top.write(Address.CONTROL, 1) == 0
        await top.tick(design.boot_cycles + 20)
        assert await top.read(Address.STATUS) == 0b1001
        assert await top.frame(x[1]) == expected[1].tolist()

    Top(design).run(script)


def test_without_a_boot_it_waits_for_a_set_or_a_start():
    design = small(auto=False)
    (x,) = codes(design.program, 1, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    values = {name: rng.integers(-128, 128, held.shape) for name, held in design.program.written.items()}
    words = design.pack_set(values)

    async def script(top: Top):
        await top.reset()
        await top.tick(2 * design.boot_cycles)
        assert not top.open
        for k, word in enumerate(words):
            assert await top.write(Address.WEIGHTS + 4 * (k % 5), int(word) & 0xFFFFFFFF) == 0
        assert await top.write(Address.CONTROL, 2) == 0
        await top.tick(4)
        assert top.open
        assert await top.frame(x[0]) == design.program(x, held=values)[0].tolist()
        for word in words[:3]:  # a set that a boot breaks off is none
            assert await top.write(Address.WEIGHTS, int(word) & 0xFFFFFFFF) == 0
        assert await top.write(Address.CONTROL, 1) == 0
        await top.tick(design.boot_cycles + 20)
        assert await top.frame(x[0]) == design.program(x)[0].tolist()
        for word in words[3:]:
            assert await top.write(Address.WEIGHTS, int(word) & 0xFFFFFFFF) == 0
        assert await top.write(Address.CONTROL, 2) == 0
        await top.tick(8)
        assert await top.read(Address.ERRORS) == 1 << 5
        assert await top.frame(x[0]) == design.program(x)[0].tolist()

    Top(design).run(script)


class TestRefused:
    def test_systems_that_cannot_be_built(self):
        s = system(0)
        (link,) = s.links
        with pytest.raises(BittrueError, match="two programs and one link with places, this one has 2 and 0"):
            boot(System(s.programs, []))
        with pytest.raises(BittrueError, match="does not say with which samples 'generator' boots"):
            boot(System(s.programs, s.links))
        where = link.places.copy()
        where[4] = -1
        with pytest.raises(BittrueError, match="207 of 216 entries.*make the others constants"):
            boot(System(s.programs, [replace(link, places=where, partial=True)], s.boots))
        with pytest.raises(BittrueError, match="3 banks; what is held has 1 or 2"):
            boot(s, banks=3)
        with pytest.raises(BittrueError, match="plan was made for another program"):
            BootDesign(s, plan(s.programs[GENERATOR]), plan(system(1).programs[NETWORK]))

    def test_held_inputs_without_a_link_are_constants(self):
        s = system(0)
        first = s.programs[NETWORK].written["conv0.weight"].size
        where = s.links[0].places[8:] - first
        second = System(
            s.programs,
            [Link(GENERATOR, NETWORK, "conv1.weight", where)],
            {GENERATOR: [v[8:] for v in s.boots[GENERATOR]]},
        )
        design = boot(second)
        assert list(design.program.written) == ["conv1.weight"]
        (x,) = codes(design.program, 3, np.random.default_rng(0))
        np.testing.assert_array_equal(design.program(x), second({NETWORK: [x]})[NETWORK])


class TestFit:
    """The fastest accelerator beside a generator."""

    @pytest.fixture
    def given(self):
        s = system(3, 3, ((6, 4), (4, 6)))
        return s, plan(s.programs[GENERATOR], 60)

    def test_it_is_the_smallest_that_fits(self, given, monkeypatch):
        """Against every interval; one multiplier less, and it is a slower one."""
        s, generator = given
        target = written_target(s)
        found = []
        for interval in intervals(target):
            try:
                made = BootDesign(s, generator, plan(target, interval), 1)
            except BittrueError:
                continue
            found.append((made.estimate.dsp, made.accelerator.estimated_interval))
        most = sorted({dsp for dsp, _ in found})[-3:]
        for dsp in (most[1], most[1] - 1):
            monkeypatch.setitem(DEVICES, "mine", replace(DEVICES["ecp5-85k"], dsp=dsp))
            made = fit(s, generator, "mine", banks=1)
            assert made.interval == min(interval for used, interval in found if used <= dsp)
            assert made.banks == 1
            assert not made.estimate.over(DEVICES["mine"])

    def test_what_does_not_fit(self, given, monkeypatch):
        s, generator = given
        with pytest.raises(BittrueError, match="no device 'mine'; known are ecp5-25k"):
            fit(s, generator, "mine")
        dsp = generator.estimate.dsp
        monkeypatch.setitem(DEVICES, "mine", replace(DEVICES["ecp5-85k"], dsp=dsp))
        with pytest.raises(BittrueError, match="even the slowest accelerator does not fit mine beside .*: dsp"):
            fit(s, generator, "mine")
        monkeypatch.setitem(DEVICES, "mine", replace(DEVICES["ecp5-85k"], dsp=dsp - 1))
        with pytest.raises(BittrueError, match="the generator alone does not fit mine: dsp .* more cycles than"):
            fit(s, generator, "mine")


def test_what_it_takes_is_told():
    """Fewer block RAMs of one bank; the places' bits; the energy of a boot is that of its samples."""
    s = system(3, 3, ((16, 8), (16, 16)))
    designs = {banks: boot(s, {"interval": 60}, {"interval": 60000}, banks) for banks in (1, 2)}
    assert designs[1].estimate.bram < designs[2].estimate.bram
    assert designs[2].describe()["place_bits"] == 128 * 7 + 256 * 8
    effort = designs[2].boot_effort
    products = sum(effort.multiplications.values())
    assert products == 384 * (3 * 8 + 8 * 6 + 6 * 9)
    assert sum(t.written for t in effort.memory if t.purpose == "weights") >= 8 * 9 * 384
