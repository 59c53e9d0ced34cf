"""Running values: stages that take in groups of channels as they pass, and give out the last value of each channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.stage import Stage, Storage, Structure, advance, counting, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.held import Exchange
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.rtl.parts.state import PIPELINED
from bittrue.sim.contract import Format, Range


class RunningStage(Stage):
    """One running value per channel, in distributed RAM, over `terms` vectors that follow each other.

    The last values leave while the last vector passes, requantised where there is a `requantize`. A subclass says what
    a vector brings (`terms_of`) and what becomes of a value (`following`).

    operation   has `input` and `output`
    terms       vectors that go into a value
    totals      exact range of the running values, by lane
    frame       values of a channel in a frame
    arrival     cycles from a beat to the values that it makes
    requantize  what the last values go through, if anything
    step        zeros appended to them before

    Latency     (terms - 1) * C / lanes + depth cycles; depth = arrival, requantiser, output FIFO 1
    Throughput  one input beat a cycle, C / lanes output beats for `terms` vectors
    """

    def __init__(
        self,
        operation,
        *,
        lanes: int,
        terms: int,
        totals: Sequence[Range],
        frame: int,
        arrival: int = 2,
        requantize: RequantizePipe | None = None,
        step: int = 0,
    ):
        self.operation, self.terms, self.totals, self.step = operation, terms, totals, step
        self.requantize, self.arrival = requantize, arrival
        self.tables = [] if requantize is None else [*requantize.tables.values()]
        beats = operation.input.channels // lanes
        depth = arrival + (0 if requantize is None else requantize.cycles) + 1
        self.timing = Blocks(
            beats_in=terms * beats, beats_out=beats, depth=depth, credits=enough_credits(depth), frame=frame
        )
        super().__init__([(operation.input.format, lanes)], (operation.output.format, lanes))

    @property
    def group_bits(self) -> int:
        """Bits of the number of a group of channels."""
        return (self.timing.beats_out - 1).bit_length()

    @property
    def early(self) -> bool:
        """Whether a running value is read a cycle before it is needed: not where it is still being written then."""
        return self.timing.beats_out >= PIPELINED

    def structure(self) -> Structure:
        built = super().structure()
        groups, bits = self.timing.beats_out, sum(total.bits for total in self.totals)
        built.count(groups - 1, self.terms - 1)
        # the group and whether it is the first, until there is a sum; that one moves, and where it is written, later
        built.registers += (self.arrival - 1) * (max(1, self.group_bits) + 1)
        built.registers += (groups > 1) * self.group_bits + self.arrival - 1 + (groups > 1)
        built.lutrams += -(-bits // 4) * -(-groups // 16)
        built.registers += self.early * bits
        for total in self.totals:
            built.add(total.bits)
            built.select_bits += total.bits
        if self.requantize is not None:
            built += self.requantize.structure()
        if self.tables:
            built += Exchange.structure(self.exchange_bits, self.arrival)
            built.count(self.timing.frame - 1)
        return built

    def terms_of(self, m: Module, go: Value, bank: Value | None) -> Sequence[Value]:
        """What the beat of a cycle with `go` brings to each lane, `arrival` - 1 cycles later."""
        raise NotImplementedError

    def following(self, first: Value, before: Value, term: Value) -> Value:
        """The value after a term: `before` it, unless it is the `first`."""
        raise NotImplementedError

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        terms, groups, arrival = self.terms, self.timing.beats_out, self.arrival
        group, token = Signal(counting(groups)), Signal(counting(terms))
        group_last = advance(m, group, groups - 1, go)
        token_last = advance(m, token, terms - 1, go & group_last)
        m.d.comb += outlet.issue.eq(go & token_last)
        banks, row = None, None
        if self.tables:
            total, ends = Signal(counting(self.timing.frame), name="frame_sum"), outlet.issue & group_last
            banks = self.exchange.follow(m, ends & advance(m, total, self.timing.frame - 1, ends), arrival)
        moving = valid_chain(m, go, arrival - 1 + (groups > 1))
        valid = valid_chain(m, outlet.issue, self.timing.depth - 1)

        shapes = [shape_of(total | Range(0, 0)) for total in self.totals]
        layout = data.StructLayout({f"lane{lane}": shape for lane, shape in enumerate(shapes)})
        m.submodules.sums = memory = Storage(layout.size, groups, clocked=False).memory(layout)
        read, write = memory.read_port(domain="comb"), memory.write_port()
        soon = register(m, group, name="soon", cycles=arrival - 2)
        where = register(m, soon, name="where")
        first = register(m, token == 0, name="first", cycles=arrival - 1)
        # A sum is written from its register, a cycle later, unless it is read again by then; and read into one, a cycle
        # before, where it comes round so late.
        late = int(groups > 1)
        written = register(m, where, name="written", cycles=late) if late else where
        m.d.comb += read.addr.eq(soon if self.early else where)
        m.d.comb += [write.addr.eq(written), write.en.eq(moving[arrival - 1 + late])]
        before = register(m, read.data, layout, name="before") if self.early else read.data
        brought = self.terms_of(m, go, None if banks is None else banks[0])
        values = []
        for lane, term in enumerate(brought):
            total = Signal(shapes[lane], name=f"total{lane}")
            m.d.comb += total.eq(self.following(first, before[f"lane{lane}"], term))
            values.append(register(m, total, name=f"sum{lane}"))
            m.d.comb += write.data[f"lane{lane}"].eq(values[lane] if late else total)
        if self.requantize is not None:
            if banks is not None:
                row = Cat(soon[: self.group_bits], banks[arrival - 2])
            values = self.requantize.build(m, [v << self.step for v in values], valid[arrival - 1], held=row)
        m.d.comb += outlet.push.eq(valid[-1])
        m.d.comb += [outlet.payload[lane].eq(v) for lane, v in enumerate(values)]
        return m


class SumStage(RunningStage):
    """`y[c] = requantize((sum_t x[t, c]) << step)`; `operation` has `requantize` and the exact ranges of its argument
    (`sums`, low and high per channel). Depth = code 1, sum 1, requantiser, output FIFO 1.
    """

    def __init__(self, operation, *, lanes: int, terms: int, frame: int = 1, step: int = 0):
        super().__init__(
            operation,
            lanes=lanes,
            terms=terms,
            totals=lanes_of(operation.sums, lanes, step),
            frame=frame,
            requantize=RequantizePipe(operation.requantize, *operation.sums, lanes),
            step=step,
        )

    def structure(self) -> Structure:
        built = super().structure()
        built.registers += self.lanes_in * self.operation.input.format.bits
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """An addition to a running sum for each code."""
        op, effort = self.operation, Effort()
        bits = width(*op.sums)
        effort.add(bits, op.input.size)
        effort.access("state", op.input.channels * bits, op.input.size * bits, op.input.size * bits)
        effort.requantize(self.requantize, op.output.tokens)
        return effort

    def terms_of(self, m: Module, go: Value, bank: Value | None) -> Sequence[Value]:  # noqa: ARG002
        return codes(self, m)

    def following(self, first: Value, before: Value, term: Value) -> Value:
        return Mux(first, 0, before) + term


def lanes_of(sums: tuple[np.ndarray, np.ndarray], lanes: int, step: int = 0) -> list[Range]:
    """The range of each lane's running sums, from those of the totals of all channels; each holds 0."""
    return [Range.of(*(ends[lane::lanes] >> step for ends in sums)) for lane in range(lanes)]


def codes(stage: Stage, m: Module, cycles: int = 1) -> list[Value]:
    """The codes of a beat in registers."""
    shape = shape_of(stage.operation.input.format)  # type: ignore[attr-defined]
    return [register(m, c, shape, name=f"x{lane}", cycles=cycles) for lane, c in enumerate(stage.operands[0].payload)]


def stored_bits(weight, lanes: int) -> int:
    """Bits a beat of constants that differ from beat to beat, of those `[..., C]` of all beats in order."""
    of = [weight.reshape(-1)[lane::lanes] for lane in range(lanes)]
    return sum(Format.covering(mine).bits for mine in of if (mine != mine[0]).any())
