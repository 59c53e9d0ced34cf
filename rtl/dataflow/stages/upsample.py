"""An image made larger: a ring of pixels in one memory, read by address as often as they are repeated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import C, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folding import Folding, check_folding, divisors
from bittrue.rtl.dataflow.stage import (
    Stage,
    Storage,
    Structure,
    advance,
    counting,
    realises,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.timing import Phase, Phases, enough_credits
from bittrue.sim.contract import Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.upsample import Upsample

#: Cycles from a beat's issue to its code: place in the ring 1, memory 1, code 1.
ARRIVAL = 3


@dataclass(frozen=True, eq=False)
class Order:
    """The beats of a row of pixels in order: `down` times over its pixels, `lanes` codes a beat.

    A *unit* is what one pixel gives in one of these times: `unit` beats. In the first time it waits for the pixel, and
    after the last one the pixel is forgotten.
    """

    operation: Upsample
    lanes: int

    @property
    def word(self) -> int:
        """Beats of a pixel of the result."""
        return self.operation.channels // self.lanes

    @property
    def unit(self) -> int:
        return self.word * self.operation.factors[1]

    @property
    def pixel(self) -> int:
        """Beats of a pixel of the image that comes in."""
        return self.operation.input.channels // self.lanes

    @property
    def interval(self) -> int:
        """Cycles between frames, when the ring has room enough."""
        return self.operation.output.size // self.lanes

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """Those of a row of pixels."""
        (_, columns, _), (down, _) = self.operation.input.shape, self.operation.factors
        found: list[Phase] = []
        for time in range(down):
            need, free = (self.pixel if time == 0 else 0), (self.pixel if time == down - 1 else 0)
            if not (need or free):
                found.append(Phase((0,), (0,), times=columns * self.unit))
            elif self.unit == 1:
                found.append(Phase((need,), (free,), times=columns))
            else:
                one = [Phase((need,), (0,)), Phase((0,), (0,), times=self.unit - 2), Phase((0,), (free,))]
                found += [phase for phase in one if phase.times] * columns
        return tuple(found)

    @cached_property
    def room(self) -> int:
        """Words of the ring: the least power of two with which rows follow each other without a bubble."""
        (rows, columns, _), (down, _) = self.operation.input.shape, self.operation.factors
        most = self.pixel * (columns if down > 1 else 1)
        room = 1 << (most - 1).bit_length()
        while room < 2 * most and Phases(self.phases, (room,), credits=2, frame=rows).interval > self.interval:
            room *= 2
        return max(room, 2)

    @property
    def jumps(self) -> tuple[int, ...]:
        """What is added to the place in the ring for the next beat: in a pixel of the result, at its end, at the end of
        a unit, of a time, of a row."""
        columns, across = self.operation.input.shape[1], self.operation.factors[1]
        jumps = (1, 1 - self.word, 1, 1 - columns * self.pixel, 1)
        if self.operation.parts:
            jumps = (1, 1, self.pixel - across * self.word + 1, 1 - (columns - 1) * self.pixel, 1)
        return tuple(jump % self.room for jump in jumps)


@realises(Upsample)
class UpsampleStage(Stage):
    """`y[r, s, c] = x[r // fy, s // fx, p C' + c]`, `lanes` channels a beat.

    Latency     until the first pixel has come, and depth = place 1, memory 1, code 1, output FIFO 1
    Throughput  one beat a cycle; a frame every fy H fx W C' / lanes cycles
    Memory      a ring of pixels: one row, or a pixel where rows are not repeated, to the next power of two
    """

    folds = True
    whole_beats = True

    def __init__(self, operation: Upsample, *, lanes: int, simd: int, pe: int):
        check_folding("upsample", simd=(simd, operation.channels), pe=(pe, 1))
        if lanes != simd:
            raise BittrueError(f"upsample: it takes simd = {simd} codes in every beat, not {lanes}")
        self.operation = operation
        self.order = Order(operation, lanes)
        self.storage = Storage(lanes * operation.input.format.bits, self.order.room)
        depth = ARRIVAL + 1
        self.timing = Phases(
            self.order.phases, (self.order.room,), depth=depth, credits=enough_credits(depth),
            frame=operation.input.shape[0],
        )  # fmt: skip
        kind = operation.input.format, lanes
        super().__init__([kind], kind)

    # -- planning --------------------------------------------------------------------------------------
    @classmethod
    def foldings(cls, operation: Upsample) -> list[Folding]:
        """Any number of lanes that divides the channels of a result's pixel."""
        return [Folding(lanes, 1) for lanes in divisors(operation.channels)]

    @classmethod
    def intervals(cls, operation: Upsample) -> set[int]:
        return {Order(operation, f.simd).interval for f in cls.foldings(operation)}

    @classmethod
    def fold(cls, operation: Upsample, interval: int, name: str) -> Folding:
        """The fewest lanes."""
        for folding in cls.foldings(operation):
            if Order(operation, folding.simd).interval <= interval:
                return folding
        least = min(cls.intervals(operation))
        raise BittrueError(
            f"{name}: with all {operation.channels} channels of a pixel in a beat it takes {least} cycles a frame, "
            f"more than {interval}; ask for an interval of {least} or more"
        )

    # -- what it is built of ---------------------------------------------------------------------------
    def structure(self) -> Structure:
        built, op, order = super().structure(), self.operation, self.order
        place, (down, across) = (order.room - 1).bit_length(), op.factors
        built.count(order.word - 1, across - 1, op.input.shape[1] - 1, down - 1, order.room - 1)  # the last: written
        built.add(place)  # the place that is read
        built.registers += 2 * place + 1 + 2 * self.storage.width  # it again; what is written, and where; the code
        built.store(self.storage)
        built.add(self._lacking.bits)
        built.add(order.room.bit_length())
        built.registers += 5 + (3 if down > 1 else 0)  # active, room; three ends; the first time, the last
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every code is written once, and read as often as it is given out."""
        effort, op = Effort(), self.operation
        bits = op.input.format.bits
        effort.access("values", self.storage.bits, op.output.size * bits, op.input.size * bits)
        return effort

    @property
    def _lacking(self) -> Range:
        """Beats that are there beyond those that the unit needs; less than 0: that lack."""
        return Range(-self.order.pixel, self.order.room)

    # -- hardware --------------------------------------------------------------------------------------
    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        order, pixel = self.order, self.order.pixel
        room, active = Signal(init=1, name="room"), Signal(name="active")
        write, go = Signal(), Signal(name="advance")
        m.d.comb += [self.i.ready.eq(room), write.eq(self.i.valid & room)]
        m.d.comb += [go.eq(active & outlet.available), outlet.issue.eq(go)]
        ends, first, last = self._flags(m, go)
        release = go & ends[1]
        there = Signal(shape_of(self._lacking), init=-pixel, name="there")
        level = Signal(range(order.room + 1), name="level")
        for count, step, told in ((there, release & first, active), (level, release & last, room)):
            after = Signal.like(count, name=f"{count.name}_next")
            m.d.comb += after.eq(count + write - Mux(step, pixel, 0))
            m.d.sync += count.eq(after)
            m.d.sync += told.eq(after >= 0 if told is active else after != order.room)
        m.d.comb += outlet.push.eq(valid_chain(m, go, ARRIVAL)[-1])
        code = self._ring(m, write, go, (*ends, ends[2] & last))
        m.d.comb += [outlet.payload[lane].eq(c) for lane, c in enumerate(code)]
        return m

    def _flags(self, m: Module, go: Value) -> tuple[list[Value], Value, Value]:
        """Of the step that is issued, from counters of the one after it: which ends it is, of a pixel of the result, of
        a unit, of a time; whether the unit behind it is of a row's first time; whether it is of the last time."""
        op, order = self.operation, self.order
        down, across = op.factors
        enable, at_end, flags = go, C(1, 1), []
        moved, alone = False, True  # whether one of them counts at all, the first of which has counted once
        for name, size in {"word": order.word, "copy": across, "column": op.input.shape[1]}.items():
            counter = Signal(counting(size), init=int(size > 1 and not moved), name=name)
            moved, alone = moved or size > 1, alone and size == 1
            last = advance(m, counter, size - 1, enable)
            at_end, enable = at_end & last, enable & last
            flag = Signal(init=int(alone), name=f"{name}_ends")
            with m.If(go):
                m.d.sync += flag.eq(at_end)
            flags.append(flag)
        if down == 1:
            return flags, C(1, 1), C(1, 1)
        time = Signal(
            counting(down), init=int(not moved), name="time"
        )  # where nothing else counts, it has counted once
        last = advance(m, time, down - 1, enable)
        # the counters are those of the step after the one that is issued, so that its unit is the next one's
        first, final, ends = (
            Signal(init=int(moved), name="time_first"),
            Signal(init=int(not moved and down == 2), name="time_last"),
            Signal(name="last_issued"),
        )
        with m.If(enable):
            m.d.sync += [first.eq(last), final.eq(time == down - 2)]
        with m.If(go):
            m.d.sync += ends.eq(final)
        return flags, first, ends

    def _ring(self, m: Module, write: Value, go: Value, ends: tuple[Value, ...]) -> list[Value]:
        """The memory: beats go in one after the other; the codes that come out, `ARRIVAL` cycles after `go`.

        A word is written two cycles after it came and read two cycles after its beat's issue, which is a cycle later
        at the earliest; it is written again two cycles after it was forgotten, which is in the cycle of a last issue.
        """
        order, layout = self.order, data.ArrayLayout(shape_of(self.operation.input.format), self.lanes_in)
        m.submodules.ring = memory = self.storage.memory(layout, apart=True)
        port, read = memory.write_port(), memory.read_port(domain="sync")
        written, place = Signal(range(order.room), name="written"), Signal(range(order.room), name="place")
        advance(m, written, order.room - 1, write)
        m.d.comb += [
            port.addr.eq(register(m, written, name="write_at")),
            port.data.eq(register(m, self.i.payload, layout, name="write_word")),
            port.en.eq(valid_chain(m, write, 1)[-1]),
        ]
        jump = Const(order.jumps[0], range(order.room))
        for end, step in zip(ends, order.jumps[1:], strict=True):
            jump = Mux(end, Const(step, range(order.room)), jump)
        with m.If(go):
            m.d.sync += place.eq((place + jump)[: len(place)])
        m.d.comb += [read.addr.eq(register(m, place, name="read_at")), read.en.eq(1)]
        word = register(m, read.data, layout, name="code")
        return [word[lane] for lane in range(self.lanes_in)]
