"""Running sums: a stage that adds up groups of channels as they pass and requantises the totals."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.stage import Stage, Storage, Structure, advance, counting, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.held import Exchange
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.contract import Range

#: Cycles from a beat to its sum: code 1, sum 1.
ARRIVAL = 2


class SumStage(Stage):
    """`y[c] = requantize((sum_t x[t, c]) << step)`, the sum over `terms` vectors that follow each other.

    One running sum per channel, in distributed RAM; the totals leave while the last vector passes.

    operation   has `requantize`, the exact ranges of its argument (`sums`, low and high per channel) and `input`
    terms       vectors of a sum
    frame       sums of a frame
    step        zeros appended to a total before it is requantised

    Latency     (terms - 1) * C / lanes + depth cycles; depth = code 1, sum 1, requantiser, output FIFO 1
    Throughput  one input beat a cycle, C / lanes output beats a sum
    """

    def __init__(self, operation, *, lanes: int, terms: int, frame: int = 1, step: int = 0):
        self.operation, self.terms, self.step = operation, terms, step
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, lanes)
        self.tables = [*self.requantize.tables.values()]
        self.total = Range.of(*(ends >> step for ends in operation.sums))
        beats = operation.input.channels // lanes
        depth = ARRIVAL + self.requantize.cycles + 1
        self.timing = Blocks(
            beats_in=terms * beats, beats_out=beats, depth=depth, credits=enough_credits(depth), frame=frame
        )
        super().__init__([(operation.input.format, lanes)], (operation.output.format, lanes))

    def structure(self) -> Structure:
        built = super().structure() + self.requantize.structure()
        groups, bits = self.timing.beats_out, self.total.bits
        built.count(groups - 1, self.terms - 1, groups - 1, groups - 1)
        built.registers += 3  # the first, and that a sum moves; that it is written later, or where, of one bit at least
        built.lutrams += -(-self.lanes_in * bits // 4) * -(-groups // 16)
        for _ in range(self.lanes_in):
            built.add(bits)
            built.select_bits += bits
            built.registers += self.operation.input.format.bits
        if self.tables:
            built += Exchange.structure(self.exchange_bits, ARRIVAL)
            built.count(self.timing.frame - 1)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """An addition to a running sum for each code."""
        op, effort = self.operation, Effort()
        bits = width(*op.sums)
        effort.add(bits, op.input.size)
        effort.access("state", op.input.channels * bits, op.input.size * bits, op.input.size * bits)
        effort.requantize(self.requantize, op.output.tokens)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        terms, groups = self.terms, self.timing.beats_out
        group, token = Signal(counting(groups)), Signal(counting(terms))
        group_last = advance(m, group, groups - 1, go)
        token_last = advance(m, token, terms - 1, go & group_last)
        m.d.comb += outlet.issue.eq(go & token_last)
        row = None
        if self.tables:
            total, ends = Signal(counting(self.timing.frame), name="frame_sum"), outlet.issue & group_last
            banks = self.exchange.follow(m, ends & advance(m, total, self.timing.frame - 1, ends), ARRIVAL)
            row = Cat(group[: (groups - 1).bit_length()], banks[ARRIVAL - 2])
        moving = valid_chain(m, go, 1 + (groups > 1))
        valid = valid_chain(m, outlet.issue, self.timing.depth - 1)

        exact = shape_of(self.total | Range(0, 0))
        layout = data.ArrayLayout(exact, self.lanes_in)
        m.submodules.sums = memory = Storage(layout.size, groups, clocked=False).memory(layout)
        read, write = memory.read_port(domain="comb"), memory.write_port()
        where = register(m, group, name="where")
        first = register(m, token == 0, name="first")
        # A sum is written from its register, a cycle later, unless it is read again by then.
        late = int(groups > 1)
        written = register(m, where, name="written", cycles=late) if late else where
        m.d.comb += [read.addr.eq(where), write.addr.eq(written), write.en.eq(moving[1 + late])]
        sums = []
        for lane in range(self.lanes_in):
            x = register(m, self.i.payload[lane], shape_of(self.operation.input.format), name=f"x{lane}")
            total = Signal(exact, name=f"total{lane}")
            m.d.comb += total.eq(Mux(first, 0, read.data[lane]) + x)
            sums.append(register(m, total, name=f"sum{lane}"))
            m.d.comb += write.data[lane].eq(sums[lane] if late else total)
        sums = [total << self.step for total in sums]
        result = self.requantize.build(m, sums, valid[ARRIVAL - 1], held=row)
        m.d.comb += outlet.push.eq(valid[-1])
        m.d.comb += [outlet.payload[lane].eq(v) for lane, v in enumerate(result)]
        return m
