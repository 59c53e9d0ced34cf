"""Swap tokens and channels through a ping-pong frame buffer."""

from __future__ import annotations

import math

from amaranth.hdl import Array, Module, Mux, Signal

from bittrue.rtl.dataflow.buffered import BufferedStage
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Storage, Structure, advance, counting, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.transpose import Transpose


@realises(Transpose)
class TransposeStage(BufferedStage):
    """`y[c, t] = x[t, c]`, `lanes` codes a beat on both sides.

    Element (t, c) lives in bank (t + c) mod lanes, so that a beat of channels can be written and a beat of tokens
    read in one cycle each, without conflict.

    Latency     T * C / lanes + depth cycles
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Transpose, *, lanes: int):
        tokens, channels = operation.input.shape
        if tokens % lanes or channels % lanes:
            raise BittrueError(f"transpose: {lanes} lanes do not divide both {tokens} tokens and {channels} channels")
        self.operation = operation
        beats = tokens * channels // lanes
        depth = 3 if lanes == 1 else 5
        self.storage = Storage(operation.input.format.bits, 2 * beats)
        self.timing = Blocks(beats_in=beats, beats_out=beats, blocks=2, depth=depth, credits=enough_credits(depth))
        super().__init__([(operation.input.format, lanes)], (operation.input.format, lanes))

    def structure(self) -> Structure:
        built = super().structure()
        tokens, channels = self.operation.input.shape
        lanes, last, bits = self.lanes_in, self.storage.depth - 1, self.operation.input.format.bits
        built.store(self.storage, lanes)
        built.count(last, last, last, channels // lanes - 1, tokens // lanes - 1, lanes - 1, lanes - 1)
        built.registers += lanes * bits
        built.add(last.bit_length(), registered=False)
        if lanes > 1:
            for _ in range(lanes):
                built.add(last.bit_length())
                built.select_bits += 2 * bits * (lanes - 1)
                built.registers += bits
            built.registers += 3 * (lanes - 1).bit_length()
        return built

    @classmethod
    def legal_lanes(cls, operation: Transpose, offered: int) -> int:
        """The most lanes that divide both axes and what is offered."""
        return math.gcd(offered, *operation.input.shape)

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every code is written and read once."""
        effort, bits = Effort(), self.operation.input.size * self.operation.input.format.bits
        effort.access("values", self.lanes_in * self.storage.bits, bits, bits)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        lanes, beats, depth = self.lanes_in, self.timing.beats_in, self.timing.depth
        tokens, channels = self.operation.input.shape
        row = channels // lanes  # addresses of a token
        shape = shape_of(self.operation.input.format)

        # Writing runs straight through both blocks.
        where = Signal(range(2 * beats))
        advance(m, where, 2 * beats - 1, control.write)
        write_column, write_turn = (
            Signal(counting(row), name="write_column"),
            Signal(counting(lanes), name="write_turn"),
        )
        column_last = advance(m, write_column, row - 1, control.write)
        advance(m, write_turn, lanes - 1, control.write & column_last)

        # Reading walks down the tokens of a channel, `lanes` at a time.
        base, corner = (Signal(range(2 * beats), name=name) for name in ("base", "corner"))
        group, turn = Signal(counting(tokens // lanes), name="group"), Signal(counting(lanes), name="channel_turn")
        group_last = advance(m, group, tokens // lanes - 1, control.advance)
        turn_last = advance(m, turn, lanes - 1, control.advance & group_last)
        following = Signal(range(2 * beats))  # of no interest but in a cycle with `advance`: so it need not wait for it
        m.d.comb += following.eq(
            Mux(control.word_last, Mux(control.read_block == 0, beats, 0), Mux(turn_last, corner + 1, corner))
        )
        with m.If(control.advance):
            m.d.sync += base.eq(base + lanes * row)
            with m.If(group_last):
                m.d.sync += [base.eq(following), corner.eq(following)]

        # A block is written again a cycle after its last step at the earliest, its first address first. With several
        # lanes the last step reads in that cycle: other addresses, unless it reads and writes all there are at once.
        apart = lanes == 1 or not tokens == channels == lanes
        banks = []
        for bank in range(lanes):
            m.submodules[f"bank{bank}"] = memory = self.storage.memory(shape, apart=apart)
            write, read = memory.write_port(), memory.read_port(domain="sync")
            m.d.comb += [write.addr.eq(where), write.en.eq(control.write), read.en.eq(1)]
            if lanes == 1:
                m.d.comb += [write.data.eq(self.i.payload[0]), read.addr.eq(base)]
            else:
                # Lane j of a beat of token t is written to bank (t + j) mod lanes.
                m.d.comb += write.data.eq(Array(self.i.payload[(bank - t) % lanes] for t in range(lanes))[write_turn])
                offset = Array(((bank - c) % lanes) * row for c in range(lanes))[turn]
                m.d.comb += read.addr.eq(register(m, base + offset, range(2 * beats), name=f"address{bank}"))
            banks.append(register(m, read.data, shape, name=f"code{bank}"))
        if lanes == 1:
            result = banks
        else:
            turned = register(m, turn, name="turned", cycles=3)
            result = [
                register(m, Array(banks[(lane + c) % lanes] for c in range(lanes))[turned], shape, name=f"y{lane}")
                for lane in range(lanes)
            ]
        m.d.comb += outlet.push.eq(valid_chain(m, control.issue, depth - 1)[-1])
        m.d.comb += [outlet.payload[lane].eq(v) for lane, v in enumerate(result)]
        return m
