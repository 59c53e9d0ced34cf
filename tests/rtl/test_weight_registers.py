"""Weights over AXI4-Lite: what every access is answered with, what STATUS and ERRORS say, and the map."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from bittrue.rtl import readback
from bittrue.rtl.bus.registers import OKAY, SLVERR
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.loader import Loader, Words
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.weight_registers import Address, WeightRegisters, register_map
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from tests.helpers.sets import drawn, network

BUSY, VALUE, WEIGHTS = 1 << 3, 1 << 2, 1 << 4


class Bus:
    """One access after the other."""

    def __init__(self, ctx, axi) -> None:
        self.ctx, self.axi = ctx, axi

    async def write(self, address: int, value: int) -> int:
        ctx, axi = self.ctx, self.axi
        for name, given in (("awaddr", address), ("wdata", value & 0xFFFFFFFF), ("wstrb", 15), ("bready", 1)):
            ctx.set(getattr(axi, name), given)
        ctx.set(axi.awvalid, 1)
        ctx.set(axi.wvalid, 1)
        await ctx.tick()
        ctx.set(axi.awvalid, 0)
        ctx.set(axi.wvalid, 0)
        while not ctx.get(axi.bvalid):
            await ctx.tick()
        answer = ctx.get(axi.bresp)
        await ctx.tick()
        return answer

    async def read(self, address: int) -> int:
        ctx, axi = self.ctx, self.axi
        ctx.set(axi.araddr, address)
        ctx.set(axi.arvalid, 1)
        ctx.set(axi.rready, 1)
        await ctx.tick()
        ctx.set(axi.arvalid, 0)
        while not ctx.get(axi.rvalid):
            await ctx.tick()
        value = ctx.get(axi.rdata)
        await ctx.tick()
        return value


def drive(script, low: int = -8, high: int = 7) -> None:
    """Run a script against the registers of one held input of four values, `settled` at first."""
    words = Words([Table(Held("w", (4,), low, high), np.arange(4).reshape(2, 2))])
    exchange = Exchange(4)
    loader = Loader(words, [exchange], 1)
    registers = WeightRegisters(words, loader)
    m = Module()
    m.submodules.loader, m.submodules.registers = loader, registers

    async def bench(ctx):
        ctx.set(exchange.settled, 1)
        await script(ctx, Bus(ctx, registers.slave.axi), exchange, loader)

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


async def send(bus: Bus, *words: int) -> list[int]:
    return [await bus.write(Address.WEIGHTS + 4 * (k % 3), word) for k, word in enumerate(words)]


def test_a_set_and_its_commit():
    async def script(ctx, bus, exchange, loader):  # noqa: ARG001
        assert await bus.read(Address.WORDS) == 4
        assert await send(bus, 1, -2, 7, -8) == [OKAY] * 4
        assert await bus.read(Address.SETS) == 0, "nothing takes effect before the commit"
        assert await bus.write(Address.CONTROL, 1) == OKAY
        await ctx.tick().repeat(4)
        assert (await bus.read(Address.STATUS)) == 1
        assert await bus.read(Address.SETS) == 1
        assert ctx.get(exchange.bank) == 1
        assert await bus.read(Address.ERRORS) == 0

    drive(script)


def test_sets_that_are_refused():
    """Short, long, empty, out of bounds: STATUS counts, ERRORS says so until it is cleared, the bank stays."""

    async def script(ctx, bus, exchange, loader):  # noqa: ARG001
        for count, words in enumerate(((1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 6), (-7, 2, 3, 4)), 1):
            assert await send(bus, *words) == [OKAY] * len(words)
            assert await bus.write(Address.CONTROL, 1) == OKAY
            assert await bus.read(Address.STATUS) == 1 | count << 8, words
            assert await bus.read(Address.ERRORS) == WEIGHTS
            assert await bus.write(Address.ERRORS, WEIGHTS) == OKAY
            assert await bus.read(Address.ERRORS) == 0
        assert await bus.write(Address.CONTROL, 1) == OKAY
        assert await bus.read(Address.ERRORS) == WEIGHTS, "a commit without words"
        assert ctx.get(exchange.bank) == 0
        assert await send(bus, 1, 2, 3, 4) == [OKAY] * 4
        assert await bus.write(Address.CONTROL, 1) == OKAY
        await ctx.tick().repeat(4)
        assert await bus.read(Address.STATUS) == 1 | 4 << 8
        assert ctx.get(exchange.bank) == 1

    drive(script, -6, 5)


def test_a_value_that_the_bus_format_lacks_is_refused_at_once():
    async def script(ctx, bus, exchange, loader):  # noqa: ARG001
        assert await send(bus, 1, 8, 3, 4) == [OKAY, SLVERR, OKAY, OKAY]
        assert await bus.read(Address.ERRORS) == VALUE
        await bus.write(Address.CONTROL, 1)
        assert await bus.read(Address.STATUS) == 1 | 1 << 8, "so the set is short"

    drive(script)


def test_words_wait_for_the_exchange():
    """While frames still meet the old set, words and commits are refused and can be written again."""

    async def script(ctx, bus, exchange, loader):
        ctx.set(exchange.settled, 0)
        await send(bus, 1, 2, 3, 4)
        assert await bus.write(Address.CONTROL, 1) == OKAY
        assert await send(bus, 5) == [SLVERR]
        assert await bus.write(Address.CONTROL, 1) == SLVERR
        assert await bus.read(Address.ERRORS) == BUSY
        assert await bus.read(Address.STATUS) & 1 == 0
        ctx.set(exchange.settled, 1)
        await ctx.tick().repeat(2)
        assert await send(bus, 5, 6, 7, 0) == [OKAY] * 4
        assert await bus.write(Address.CONTROL, 1) == OKAY
        await ctx.tick().repeat(4)
        assert ctx.get(loader.sets) == 2
        assert ctx.get(loader.errors) == 0

    drive(script)


def test_plans_of_both_buses():
    """The bus is part of the plan; the Verilog has its ports and no others."""
    program = network(21, most=6, kinds=["linear", "affine"])
    lite = plan(program, 20, weights="written", weight_bus="lite")
    text = emit(lite)
    readback.check(PipelineDesign(lite), text)
    assert "s_axi_awaddr" in text
    assert "s_axis_weights" not in text
    assert emit(Plan.from_json(lite.program, lite.to_json())) == text
    stream = plan(program, 20, weights="written")
    assert lite.estimate.ff > stream.estimate.ff
    values = drawn(lite.program, np.random.default_rng(0))
    assert PipelineDesign(lite).write_set(values, 0, 1)
    with pytest.raises(BittrueError, match="none of its weights are written over AXI4-Lite"):
        PipelineDesign(stream).write_set(values, 0, 1)
    with pytest.raises(BittrueError, match="none of its weights are written over AXI4-Lite"):
        PipelineDesign(plan(program, 20)).write_set({}, 0, 1)
    with pytest.raises(BittrueError, match="no bus for weights 'apb'; use one of stream, lite"):
        plan(program, 20, weights="written", weight_bus="apb")


def test_words_wider_than_a_register_are_refused():
    words = Words([Table(Held("layer.bias_acc", (2,), -(1 << 33), 5), np.arange(2).reshape(1, 2))])
    with pytest.raises(BittrueError, match=r"'layer\.bias_acc' .* needs words of 34 bits, a register has 32"):
        register_map(words)


def test_the_map():
    words = Words([Table(Held("w", (4,), -8, 7), np.arange(4).reshape(2, 2))])
    table = register_map(words).markdown()
    assert "| `0x400` to `0x7FF` | WEIGHTS (256) | wo |" in table
