"""Windows of an image: a ring of pixels in one memory, read by address, a word a beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import C, Const, Module, Mux, Signal, Value, signed
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
from bittrue.rtl.dataflow.timing import Phases, enough_credits
from bittrue.rtl.dataflow.windows import Order
from bittrue.sim.contract import Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.window import Window

#: Cycles from a beat's issue to its code: place in the ring 1, memory 1, code 1.
ARRIVAL = 3


class Axis:
    """Where the tap that is read lies along rows or columns: counted where padding is seen, else of no interest."""

    def __init__(self, operation: Window, axis: int):
        self.size, self.taps = operation.input.shape[axis], operation.kernel[axis]
        self.step, self.spread = operation.stride[axis], operation.dilation[axis]
        self.places = operation.places(axis)
        self.padded = not operation.seen(axis).all()
        self.range = Range.of(self.places.min(), self.places.max())

    @property
    def bits(self) -> int:
        return self.range.bits if self.padded else 0

    def build(self, m: Module, name: str, go: Value, tap_ends: Value, windows_end: Value, moves: Value) -> Value:
        """Whether the tap lies in the image.

        go           in a cycle in which the tap changes
        tap_ends     it was the last of its window: back to the first
        moves        and the window the last that begins there: on by a step
        windows_end  and that window the last of the axis: back to the first
        """
        if not self.padded:
            return C(1, 1)
        first, back = int(self.places.min()), (self.taps - 1) * self.spread
        place = Signal(shape_of(self.range), init=first, name=name)
        onward = Mux(moves, C(self.step - back, signed(32)), C(-back, signed(32)))
        with m.If(go):
            m.d.sync += place.eq(place + Mux(tap_ends, onward, C(self.spread, signed(32))))
            with m.If(tap_ends & moves & windows_end):
                m.d.sync += place.eq(first)
        inside = Signal(name=f"{name}_inside")
        m.d.comb += inside.eq((place >= 0) & (place < self.size))
        return inside


@dataclass(frozen=True)
class Ahead:
    """Which ends the step that is issued is, in registers: of a pixel, a row of taps, a window, a row of windows, a
    frame; each only where it is those before. And row and column of the window that the step after it belongs to."""

    flags: tuple[Signal, ...]
    line: Signal
    column: Signal


@realises(Window)
class WindowStage(Stage):
    """`y[r, s, i, j, c] = x[r sy + i dy - top, s sx + j dx - left, c]`, `lanes` channels a beat.

    Latency     until the first window's last pixel has come, and depth = place 1, memory 1, code 1, output FIFO 1
    Throughput  one beat a cycle; a frame every max(H W, OH OW taps) * C / lanes cycles
    Memory      a ring of pixels: about kernel rows - 1 + stride rows, to the next power of two
    """

    folds = True
    whole_beats = True

    def __init__(self, operation: Window, *, lanes: int, simd: int, pe: int):
        check_folding("window", simd=(simd, operation.input.channels), pe=(pe, 1))
        if lanes != simd:
            raise BittrueError(f"window: it takes simd = {simd} codes in every beat, not {lanes}")
        self.operation = operation
        self.order = Order(operation, lanes)
        self.storage = Storage(lanes * operation.input.format.bits, self.order.room)
        self.axes = Axis(operation, 0), Axis(operation, 1)
        depth = ARRIVAL + 1
        self.timing = Phases(self.order.phases, (self.order.room,), depth=depth, credits=enough_credits(depth))
        kind = operation.input.format, lanes
        super().__init__([kind], kind)

    # -- planning --------------------------------------------------------------------------------------
    @classmethod
    def foldings(cls, operation: Window) -> list[Folding]:
        """Any number of lanes that divides the channels."""
        return [Folding(lanes, 1) for lanes in divisors(operation.input.channels)]

    @classmethod
    def intervals(cls, operation: Window) -> set[int]:
        return {Order(operation, f.simd).interval for f in cls.foldings(operation)}

    @classmethod
    def fold(cls, operation: Window, interval: int, name: str) -> Folding:
        """The fewest lanes."""
        for folding in cls.foldings(operation):
            if Order(operation, folding.simd).interval <= interval:
                return folding
        least = min(cls.intervals(operation))
        raise BittrueError(
            f"{name}: with all {operation.input.channels} channels in a beat its windows take {least} cycles a frame, "
            f"more than {interval}; ask for an interval of {least} or more"
        )

    # -- what it is built of ---------------------------------------------------------------------------
    def _steps(self) -> list[np.ndarray]:
        """What is needed two windows ahead, and freed one ahead, of the window that is given out, by the place of the
        next."""
        return [self.order.table(self.order.needed, ahead=1), self.order.table(self.order.freed)]

    def structure(self) -> Structure:
        built, op, order = super().structure(), self.operation, self.order
        place = (order.room - 1).bit_length()
        (down, across), (rows, columns) = op.windows, op.kernel
        built.count(order.pixel - 1, columns - 1, rows - 1, across - 1, down - 1, order.room - 1)  # the last: written
        built.add(place)  # the place that is read
        built.registers += 2 * place + 1 + self.storage.width  # it again; what is written, and where
        built.store(self.storage)
        built.registers += self.storage.width  # the code
        for table, count in zip(self._steps(), (self._lacking.bits, place + 1), strict=True):
            built.add(count)
            if (table != table.flat[0]).any():
                built.registers += int(table.max()).bit_length()
                built.select_bits += int(table.max()).bit_length()
        built.registers += 7  # whether it is active, and has room; five ends
        for axis in self.axes:
            if axis.padded:
                built.add(axis.bits)
        if any(axis.padded for axis in self.axes):
            built.registers += ARRIVAL
            built.select_bits += self.storage.width
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every code is written once, and read as often as a window sees it."""
        effort, op = Effort(), self.operation
        bits = op.input.format.bits
        effort.access("values", self.storage.bits, op.output.size * bits, op.input.size * bits)
        return effort

    @property
    def _lacking(self) -> Range:
        """Beats that are there beyond those that the window needs; less than 0: that lack."""
        return Range(-int(np.diff(self.order.needed, prepend=0).max()), self.order.room)

    # -- hardware --------------------------------------------------------------------------------------
    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        op, order = self.operation, self.order
        room, active = Signal(init=1, name="room"), Signal(name="active")
        write, go = Signal(), Signal(name="advance")
        m.d.comb += [self.i.ready.eq(room), write.eq(self.i.valid & room)]
        m.d.comb += [go.eq(active & outlet.available), outlet.issue.eq(go)]

        last = self._flags(m, go)
        word, tap, window, line_ends, frame_ends = last.flags
        release = Signal()
        m.d.comb += release.eq(go & window)
        need, free = (
            self._grows(m, name, table, int(now), release, last.line, last.column)
            for name, table, now in zip(
                ("need", "free"),
                self._steps(),
                (np.roll(np.diff(order.needed, prepend=0), -1)[0], order.freed[0]),
                strict=True,
            )
        )
        self._levels(m, write, release, need, free, active, room)
        code = self._ring(m, write, go, last.flags)
        insides = [
            self.axes[0].build(m, "y", go & tap, window, frame_ends, line_ends),
            self.axes[1].build(m, "x", go & word, tap, line_ends, window),
        ]
        if any(axis.padded for axis in self.axes):
            inside = register(m, insides[0] & insides[1], 1, name="inside", cycles=ARRIVAL)
            code = [Mux(inside, c, Const(op.fill, shape_of(op.input.format))) for c in code]
        m.d.comb += outlet.push.eq(valid_chain(m, go, ARRIVAL)[-1])
        m.d.comb += [outlet.payload[lane].eq(c) for lane, c in enumerate(code)]
        return m

    def _flags(self, m: Module, go: Value) -> Ahead:
        """Counters of the step after the one that is issued, and what they said of the latter."""
        op, order = self.operation, self.order
        (down, across), (rows, columns) = op.windows, op.kernel
        sizes = {"word": order.pixel, "tap": columns, "tap_row": rows, "column": across, "line": down}
        ahead, enable, ends, flags, first = [], go, C(1, 1), [], True
        moved = False  # the first of them that counts at all has counted once
        for name, size in sizes.items():
            counter = Signal(counting(size), init=int(size > 1 and not moved), name=name)
            moved = moved or size > 1
            last = advance(m, counter, size - 1, enable)
            ends, enable, first = ends & last, enable & last, first and size == 1
            flag = Signal(init=int(first), name=f"{name}_ends")
            with m.If(go):
                m.d.sync += flag.eq(ends)
            flags.append(flag)
            ahead.append(counter)
        return Ahead(tuple(flags), ahead[4], ahead[3])

    def _grows(
        self, m: Module, name: str, table: np.ndarray, now: int, release: Value, line: Signal, column: Signal
    ) -> Value:
        """A number that changes with every window, from `now` on to what the table has at the next one's place."""
        if (table == table.flat[0]).all():
            return Const(int(table.flat[0]))
        number = Signal(range(int(table.max()) + 1), init=now, name=name)
        following = Signal.like(number, name=f"{name}_next")
        patterns, kinds = np.unique(table, axis=0, return_inverse=True)
        usual = np.bincount(kinds.reshape(-1)).argmax()
        with m.Switch(line):
            for kind in (*(k for k in range(len(patterns)) if k != usual), usual):
                lines = np.flatnonzero(kinds.reshape(-1) == kind).tolist()
                with m.Default() if kind == usual else m.Case(*lines):
                    values, places = np.unique(patterns[kind], return_inverse=True)
                    common = np.bincount(places.reshape(-1)).argmax()
                    m.d.comb += following.eq(int(values[common]))
                    with m.Switch(column):
                        for v, value in enumerate(values):
                            if v != common:
                                with m.Case(*np.flatnonzero(places.reshape(-1) == v).tolist()):
                                    m.d.comb += following.eq(int(value))
        with m.If(release):
            m.d.sync += number.eq(following)
        return number

    def _levels(
        self, m: Module, write: Value, release: Value, need: Value, free: Value, active: Signal, room: Signal
    ) -> None:
        """Whether the window has all that it needs, and whether the ring has room, both for the next cycle."""
        first = int(self.order.needed[0])
        there = Signal(shape_of(self._lacking), init=-first, name="there")
        level = Signal(range(self.order.room + 1), name="level")
        for count, step, told in ((there, need, active), (level, free, room)):
            after = Signal.like(count, name=f"{count.name}_next")
            m.d.comb += after.eq(count + write - Mux(release, step, 0))
            m.d.sync += count.eq(after)
            m.d.sync += told.eq(after >= 0 if told is active else after != self.order.room)

    def _ring(self, m: Module, write: Value, go: Value, last: tuple[Value, ...]) -> list[Value]:
        """The memory: beats go in one after the other; the codes that come out, `ARRIVAL` cycles after `go`.

        A word is written two cycles after it came and read two cycles after its beat's issue, which is a cycle later
        at the earliest; it is written again two cycles after it was forgotten, which is in the cycle of a last issue.
        """
        order, shape = self.order, shape_of(self.operation.input.format)
        layout = data.ArrayLayout(shape, self.lanes_in)
        m.submodules.ring = memory = self.storage.memory(layout, apart=True)
        port, read = memory.write_port(), memory.read_port(domain="sync")
        written = Signal(range(order.room), name="written")
        advance(m, written, order.room - 1, write)
        m.d.comb += [
            port.addr.eq(register(m, written, name="write_at")),
            port.data.eq(register(m, self.i.payload, layout, name="write_word")),
            port.en.eq(valid_chain(m, write, 1)[-1]),
        ]
        place = Signal(range(order.room), init=order.origin, name="place")
        jump = Const(order.jumps[0], range(order.room))
        for ends, step in zip(last, order.jumps[1:], strict=True):
            jump = Mux(ends, Const(step, range(order.room)), jump)
        with m.If(go):
            m.d.sync += place.eq((place + jump)[: len(place)])
        m.d.comb += [read.addr.eq(register(m, place, name="read_at")), read.en.eq(1)]
        word_read = register(m, read.data, layout, name="code")
        return [word_read[lane] for lane in range(self.lanes_in)]
