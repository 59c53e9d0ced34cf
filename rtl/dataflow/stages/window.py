"""Windows of an image: a ring of pixels in one memory, read by address, a word a beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import C, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folding import Folding, check_folding
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
from bittrue.rtl.dataflow.windows import Order, lane_choices
from bittrue.sim.contract import Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.window import Window


class Axis:
    """Where the first tap that is read lies along rows or columns: counted where padding is seen, else of no interest.

    taps  of a beat, along this axis
    """

    def __init__(self, operation: Window, axis: int, taps: int):
        self.size, self.taps, self.steps = operation.input.shape[axis], taps, operation.kernel[axis] // taps
        self.step, self.spread = operation.stride[axis], operation.dilation[axis]
        self.places = operation.places(axis)[:, ::taps]
        self.padded = not operation.seen(axis).all()
        self.range = Range.of(self.places.min(), self.places.max())

    @property
    def bits(self) -> int:
        return self.range.bits if self.padded else 0

    def build(self, m: Module, name: str, go: Value, tap_ends: Value, windows_end: Value, moves: Value) -> list[Value]:
        """Which of the taps of a beat lie in the image.

        go           in a cycle in which the taps change
        tap_ends     they were the last of their window: back to the first
        moves        and the window the last that begins there: on by a step
        windows_end  and that window the last of the axis: back to the first
        """
        if not self.padded:
            return [C(1, 1)] * self.taps
        onto = self.taps * self.spread
        first, back = int(self.places.min()), (self.steps - 1) * onto
        place = Signal(shape_of(self.range), init=first, name=name)
        onward = Mux(moves, C(self.step - back, signed(32)), C(-back, signed(32)))
        with m.If(go):
            m.d.sync += place.eq(place + Mux(tap_ends, onward, C(onto, signed(32))))
            with m.If(tap_ends & moves & windows_end):
                m.d.sync += place.eq(first)
        inside = Signal(self.taps, name=f"{name}_inside")
        for k, is_inside in enumerate(inside):
            m.d.comb += is_inside.eq((place >= -k * self.spread) & (place < self.size - k * self.spread))
        return list(inside)


def _sum(a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry in one chain: the carry is that of a bit below, of 1 and of what comes in."""
    low, high = (Cat(bit, v).as_signed() if v.shape().signed else Cat(bit, v) for bit, v in ((C(1, 1), a), (carry, b)))
    return (low + high)[1:]


@dataclass(frozen=True)
class Ahead:
    """Which ends the step that is issued is, in registers: of a pixel, a row of taps, a window, a row of windows, a
    frame; each only where it is those before. And row and column of the window that the step after it belongs to."""

    flags: tuple[Signal, ...]
    line: Signal
    column: Signal


@realises(Window)
class WindowStage(Stage):
    """`y[r, s, i, j, c] = x[r sy + i dy - top, s sx + j dx - left, c]`, `simd` codes a beat: some channels of a tap, or
    all of some taps, down to a whole window.

    Latency     until the first window's last pixel has come, and depth = place 1, memory 1, code 1 where it is block
                RAM, output FIFO 1
    Throughput  one beat a cycle; a frame every max(H W C / lanes, OH OW taps C / simd) cycles, lanes = min(simd, C)
    Memory      a ring of pixels: about kernel rows - 1 + stride rows, to the next power of two; one for each tap of a
                beat, written so much earlier that all are read at one address
    """

    folds = True
    whole_beats = True

    def __init__(self, operation: Window, *, lanes: int, simd: int, pe: int):
        check_folding("window", pe=(pe, 1))
        if simd not in (legal := lane_choices(operation)):
            raise BittrueError(
                f"window: simd = {simd} is none of {', '.join(map(str, legal))}: channels, or whole taps"
            )
        self.operation = operation
        self.order = Order(operation, simd)
        if lanes != self.order.lanes_in:
            raise BittrueError(f"window: it takes {self.order.lanes_in} codes in every beat, not {lanes}")
        self.storage = Storage(lanes * operation.input.format.bits, self.order.room)
        self.axes = tuple(Axis(operation, axis, taps) for axis, taps in enumerate(self.order.taps))
        depth = self.arrival + 1
        self.timing = Phases(self.order.phases, (self.order.room,), depth=depth, credits=enough_credits(depth))
        super().__init__([(operation.input.format, lanes)], (operation.input.format, simd))

    # -- planning --------------------------------------------------------------------------------------
    @classmethod
    def foldings(cls, operation: Window) -> list[Folding]:
        """By codes a beat: what divides the channels, or whole taps."""
        return [Folding(lanes, 1) for lanes in lane_choices(operation)]

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
            f"{name}: with a pixel in and a window out in every cycle it takes {least} cycles a frame, more than "
            f"{interval}; ask for an interval of {least} or more"
        )

    @classmethod
    def gives(cls, folding: Folding) -> int:
        return folding.simd

    # -- what it is built of ---------------------------------------------------------------------------
    def _steps(self) -> list[np.ndarray]:
        """What is needed two windows ahead, and freed one ahead, of the window that is given out, by the place of the
        next."""
        return [self.order.table(self.order.needed, ahead=1), self.order.table(self.order.freed)]

    def structure(self) -> Structure:
        built, op, order = super().structure(), self.operation, self.order
        place = (order.room - 1).bit_length()
        (down, across), (rows, columns), copies = op.windows, order.steps, len(order.offsets)
        built.count(order.pixel - 1, columns - 1, rows - 1, across - 1, down - 1, order.room - 1)  # the last: written
        built.add(place)  # the place that is read
        built.registers += place + 1 + self.storage.width  # it again; what is written
        built.registers += copies * place  # and where
        for _ in range(copies - 1):
            built.add(place, registered=False)
        built.store(self.storage, copies)
        built.registers += (self.arrival - 2) * copies * self.storage.width  # the code
        for table, count in zip(self._steps(), (self._lacking.bits, place + 1), strict=True):
            built.add(count)
            if (table != table.flat[0]).any():
                built.registers += self._range(-table).bits
                built.select_bits += self._range(-table).bits
        built.registers += 7  # whether it is active, and has room; five ends
        for axis in self.axes:
            if axis.padded:
                built.add(axis.bits)
        if self._masked:
            built.registers += self.arrival * copies
            built.select_bits += copies * self.storage.width
        return built

    @property
    def arrival(self) -> int:
        """Cycles from a beat's issue to its code: place in the ring 1, memory 1, and 1 that a block RAM takes in."""
        return 2 + (self.storage.style == "block")

    @property
    def _masked(self) -> bool:
        """Whether some taps lie outside the image."""
        return any(axis.padded for axis in self.axes)

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every code is written once to each ring, and read as often as a window sees it."""
        effort, op = Effort(), self.operation
        bits = op.input.format.bits
        copies = len(self.order.offsets)
        effort.access("values", self.storage.bits, op.output.size * bits, copies * op.input.size * bits)
        return effort

    @staticmethod
    def _range(table: np.ndarray) -> Range:
        return Range(int(table.min()), int(table.max()))

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
            self._grows(m, name, -table, -int(now), release, last.line, last.column)
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
        if self._masked:
            taps = Cat(y & x for y in insides[0] for x in insides[1])
            inside = register(m, taps, len(taps), name="inside", cycles=self.arrival)
            fill = Const(op.fill, shape_of(op.input.format))
            code = [Mux(inside[k // self.lanes_in], c, fill) for k, c in enumerate(code)]
        m.d.comb += outlet.push.eq(valid_chain(m, go, self.arrival)[-1])
        m.d.comb += [outlet.payload[lane].eq(c) for lane, c in enumerate(code)]
        return m

    def _flags(self, m: Module, go: Value) -> Ahead:
        """Counters of the step after the one that is issued, and what they said of the latter."""
        op, order = self.operation, self.order
        (down, across), (rows, columns) = op.windows, order.steps
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
        number = Signal(shape_of(self._range(table)), init=now, name=name)
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
        """Whether the window has all that it needs, and whether the ring has room, both for the next cycle.

        need, free  less what the next window needs beyond this one, and less what is forgotten after this one: numbers
                    that are added, so that a word that is written is the carry that comes in
        """
        first = int(self.order.needed[0])
        there = Signal(shape_of(self._lacking), init=-first, name="there")
        level = Signal(range(self.order.room + 1), name="level")
        # Both numbers that may be next, and what the one at hand tells: `release`, which comes late, only chooses.
        kept, less = Signal.like(there, name="kept"), Signal.like(there, name="less")
        m.d.comb += [kept.eq(there + write), less.eq(_sum(there, need, write))]
        m.d.sync += [there.eq(Mux(release, less, kept)), active.eq(Mux(release, ~less[-1], ~kept[-1]))]
        full = level[-1] | (write & level[:-1].all())  # so it stays, unless something is forgotten
        m.d.sync += [
            level.eq(_sum(level, Mux(release, free, 0), write)),
            room.eq(~full | (release & Value.cast(free).any())),
        ]

    def _ring(self, m: Module, write: Value, go: Value, last: tuple[Value, ...]) -> list[Value]:
        """The memories: beats go in one after the other; the codes that come out, `arrival` cycles after `go`.

        In that of a tap of a beat every word lies so far before its place as the tap lies behind the first of them.
        A word is written two cycles after it came and read two cycles after its beat's issue, which is a cycle later
        at the earliest; it is written again two cycles after it was forgotten, which is in the cycle of a last issue.
        """
        order, shape = self.order, shape_of(self.operation.input.format)
        layout = data.ArrayLayout(shape, self.lanes_in)
        written = Signal(range(order.room), name="written")
        advance(m, written, order.room - 1, write)
        given, enable = register(m, self.i.payload, layout, name="write_word"), valid_chain(m, write, 1)[-1]
        place = Signal(range(order.room), init=order.origin, name="place")
        jump = Const(order.jumps[0], range(order.room))
        for ends, step in zip(last, order.jumps[1:], strict=True):
            jump = Mux(ends, Const(step, range(order.room)), jump)
        with m.If(go):
            m.d.sync += place.eq((place + jump)[: len(place)])
        read_at, codes = register(m, place, name="read_at"), []
        for tap, offset in enumerate(order.offsets):
            m.submodules[f"ring{tap}" if tap else "ring"] = memory = self.storage.memory(layout, apart=True)
            port, read = memory.write_port(), memory.read_port(domain="sync")
            at = register(m, (written - offset)[: len(written)], name=f"write_at{tap}")
            m.d.comb += [
                port.addr.eq(at),
                port.data.eq(given),
                port.en.eq(enable),
                read.addr.eq(read_at),
                read.en.eq(1),
            ]
            word_read = register(m, read.data, layout, name=f"code{tap}", cycles=self.arrival - 2)
            codes += [word_read[lane] for lane in range(self.lanes_in)]
        return codes
