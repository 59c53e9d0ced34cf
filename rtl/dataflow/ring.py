"""A ring of pixels and what reads windows from it: a window stage, or a matrix stage that multiplies what it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from amaranth.hdl import C, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import Storage, Structure, advance, counting, register, shape_of, valid_chain
from bittrue.rtl.dataflow.structure import BLOCK_LUTS
from bittrue.rtl.dataflow.windows import Order
from bittrue.sim.contract import Range
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
class Ends:
    """Which ends the step that is issued is, in registers: of a pixel, a row of taps, a window, the last time that this
    is given out, a row of windows, a frame; each only where it is those before. And row and column of the window that
    the step after it belongs to."""

    word: Signal
    tap: Signal
    window: Signal
    last: Signal
    line: Signal
    frame: Signal
    row_after: Signal
    column_after: Signal


@dataclass(frozen=True)
class Reading:
    """What goes on in a ring.

    write   a beat that comes in is stored
    advance (from the stage) a step is issued: `active` says that its window is there
    release the step is the last that reads its window
    """

    write: Signal
    advance: Signal
    active: Signal
    release: Signal
    ends: Ends


class Ring:
    """The last pixels that came, a word a time, in a memory for each tap of a beat; and where a window lies in them.

    Beats that come in may have a part of a word. A word is read so many cycles after its step is issued: of its address
    `wait`, of the memory 1, and 1 that a block RAM takes in (`registered`).

    order   the windows, how often each is given out, codes a beat of both sides
    """

    def __init__(self, order: Order, block_luts: int = BLOCK_LUTS):
        self.order, self.operation = order, order.operation
        self.format = self.operation.input.format
        self.storage = Storage(order.lanes_in * self.format.bits, order.room, worth=block_luts)
        self.axes = tuple(Axis(self.operation, axis, taps) for axis, taps in enumerate(order.taps))

    @property
    def style(self) -> str:
        return self.storage.style

    @property
    def registered(self) -> int:
        """Registers behind the memory, before the codes of taps outside the image."""
        return int(self.style == "block")

    @property
    def bits(self) -> int:
        return self.storage.bits

    @property
    def masked(self) -> bool:
        """Whether some taps lie outside the image."""
        return any(axis.padded for axis in self.axes)

    def steps(self) -> list[np.ndarray]:
        """What is needed two windows ahead, and freed one ahead, of the window that is given out, by the place of the
        next."""
        return [self.order.table(self.order.needed, ahead=1), self.order.table(self.order.freed)]

    @property
    def _lacking(self) -> Range:
        """Beats that are there beyond those that the window needs; less than 0: that lack."""
        return Range(-int(np.diff(self.order.needed, prepend=0).max()), self.order.most)

    @staticmethod
    def _range(table: np.ndarray) -> Range:
        return Range(int(table.min()), int(table.max()))

    def _part(self) -> Storage:
        """Distributed RAM of the codes of a beat that comes in."""
        return replace(self.storage, width=self.order.supplied * self.format.bits, worth=10**6)

    def structure(self, wait: int = 1) -> Structure:
        """All up to what is read; addresses wait so many cycles."""
        built, order = Structure(), self.order
        place = (order.room - 1).bit_length()
        (down, across), (rows, columns), copies = self.operation.windows, order.steps, len(order.offsets)
        built.count(order.pixel - 1, columns - 1, rows - 1, order.repeat - 1, across - 1, down - 1)
        built.count(order.room - 1)  # where is written
        built.add(place)  # the place that is read
        # It again; what is written, and whether; and where.
        built.registers += wait * place + order.supplied * self.format.bits + copies * place
        built.registers += (wait - 1) * (order.supplied * self.format.bits + 1)
        built.registers += 1 if order.parts == 1 else 2 * order.parts
        built.select_bits += order.parts if order.parts > 1 else 0
        for _ in range(copies - 1):
            built.add(place, registered=False)
        if self.style == "block":
            built.store(self.storage, copies)
        else:
            built.store(self._part(), copies * order.parts)
        built.registers += self.registered * copies * self.storage.width  # the code
        for table, count in zip(self.steps(), (self._lacking.bits, order.most.bit_length()), strict=True):
            built.add(count)
            if (table != table.flat[0]).any():
                built.registers += self._range(-table).bits
                built.select_bits += self._range(-table).bits
        built.registers += 7 + (order.repeat > 1)  # whether it is active, and has room; five ends, or six
        for axis in self.axes:
            if axis.padded:
                built.add(axis.bits)
        if self.masked:
            built.registers += (wait + 1 + self.registered) * copies
            built.select_bits += copies * self.storage.width
        return built

    def access(self, effort: Effort) -> None:
        """Every code is written once to each memory, and read as often as a window sees it, and is given out."""
        bits, copies, op = self.format.bits, len(self.order.offsets), self.operation
        read = self.order.repeat * op.output.size * bits
        effort.access("values", self.storage.bits, read, copies * op.input.size * bits)

    # -- hardware --------------------------------------------------------------------------------------
    def follow(self, m: Module, i, advance: Signal) -> Reading:
        """Take beats in from the stream `i`, and count the steps that are issued: `advance`, while it is `active`."""
        order = self.order
        room, active = Signal(init=1, name="room"), Signal(name="active")
        write, release = Signal(name="write"), Signal(name="release")
        m.d.comb += [i.ready.eq(room), write.eq(i.valid & room)]
        ends = self._ends(m, advance)
        m.d.comb += release.eq(advance & ends.last)
        need, free = (
            self._grows(m, name, -table, -int(now), release, ends.row_after, ends.column_after)
            for name, table, now in zip(
                ("need", "free"),
                self.steps(),
                (np.roll(np.diff(order.needed, prepend=0), -1)[0], order.freed[0]),
                strict=True,
            )
        )
        self._levels(m, write, release, need, free, active, room)
        return Reading(write, advance, active, release, ends)

    def build(self, m: Module, at: Reading, payload: data.View, wait: int = 1) -> list[Value]:
        """The codes of the step at hand, of what came as `payload`."""
        go, ends, order = at.advance, at.ends, self.order
        codes = self._codes(m, at, payload, wait)
        insides = [
            self.axes[0].build(m, "y", go & ends.tap, ends.window, ends.frame, ends.line),
            self.axes[1].build(m, "x", go & ends.word, ends.tap, ends.line, ends.last),
        ]
        if self.masked:
            taps = Cat(y & x for y in insides[0] for x in insides[1])
            inside = register(m, taps, len(taps), name="inside", cycles=wait + 1 + self.registered)
            fill = Const(self.operation.fill, shape_of(self.format))
            codes = [Mux(inside[k // order.lanes_in], c, fill) for k, c in enumerate(codes)]
        return codes

    def _ends(self, m: Module, go: Value) -> Ends:
        """Counters of the step after the one that is issued, and what they said of the latter."""
        order = self.order
        (down, across), (rows, columns) = self.operation.windows, order.steps
        sizes = {"word": order.pixel, "tap": columns, "tap_row": rows, "time": order.repeat}
        sizes |= {"column": across, "line": down}
        ahead, enable, ends, flags, first = {}, go, C(1, 1), [], True
        moved = False  # the first of them that counts at all has counted once
        for name, size in sizes.items():
            if name == "time" and size == 1:
                flags.append(flags[-1])
                continue
            counter = Signal(counting(size), init=int(size > 1 and not moved), name=name)
            moved = moved or size > 1
            last = advance(m, counter, size - 1, enable)
            ends, enable, first = ends & last, enable & last, first and size == 1
            flag = Signal(init=int(first), name=f"{name}_ends")
            with m.If(go):
                m.d.sync += flag.eq(ends)
            flags.append(flag)
            ahead[name] = counter
        return Ends(*flags, ahead["line"], ahead["column"])

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
        level = Signal(range(self.order.most + 1), name="level")
        # Both numbers that may be next, and what the one at hand tells: `release`, which comes late, only chooses.
        kept, less = Signal.like(there, name="kept"), Signal.like(there, name="less")
        m.d.comb += [kept.eq(there + write), less.eq(_sum(there, need, write))]
        m.d.sync += [there.eq(Mux(release, less, kept)), active.eq(Mux(release, ~less[-1], ~kept[-1]))]
        full = level[-1] | (write & level[:-1].all())  # so it stays, unless something is forgotten
        m.d.sync += [
            level.eq(_sum(level, Mux(release, free, 0), write)),
            room.eq(~full | (release & Value.cast(free).any())),
        ]

    def _codes(self, m: Module, at: Reading, payload: data.View, wait: int) -> list[Value]:
        """The memories: beats go in one after the other, and the codes of the step at hand come out.

        In that of a tap of a beat every word lies so far before its place as the tap lies behind the first of them.
        A word is written two cycles after it came and read two cycles after its step's issue, or later, which is a
        cycle later at the earliest; it is written again two cycles after it was forgotten, which is in the cycle of a
        last issue. So where its address waits longer, so does what is written.
        """
        order, shape = self.order, shape_of(self.format)
        written = Signal(range(order.room), name="written")
        came = valid_chain(m, at.write, wait - 1)[-1]
        payload = register(m, payload, payload.shape(), name="came", cycles=wait - 1)
        parts, lanes = order.parts, order.supplied
        if parts == 1:
            advance(m, written, order.room - 1, came)
            enable: Value = valid_chain(m, came, 1)[-1]
        else:
            part = Signal(parts, init=1, name="part")  # one bit says which: a comparison for every part would cost more
            enable = Signal(parts, name="write_enable")
            m.d.sync += enable.eq(part & came.replicate(parts))
            with m.If(came):
                m.d.sync += part.eq(part.rotate_left(1))
            advance(m, written, order.room - 1, came & part[-1])
        given = register(m, payload, data.ArrayLayout(shape, lanes), name="write_word")
        place = Signal(range(order.room), init=order.origin, name="place")
        ends = at.ends
        jump = Const(order.jumps[0], range(order.room))
        ways = [ends.word, ends.tap, ends.window, ends.last, ends.line, ends.frame]
        for n, (end, step) in enumerate(zip(ways, order.jumps[1:], strict=True)):
            if n != 2 or order.repeat > 1:
                jump = Mux(end, Const(step, range(order.room)), jump)
        with m.If(at.advance):
            m.d.sync += place.eq((place + jump)[: len(place)])
        read_at, codes = register(m, place, name="read_at", cycles=wait), []
        block = self.style == "block"
        layout = data.ArrayLayout(shape, order.lanes_in)
        for tap, offset in enumerate(order.offsets):
            name, read_codes = f"ring{tap}" if tap else "ring", []
            where = register(m, (written - offset)[: len(written)], name=f"write_at{tap}")
            for k in range(1 if block else parts):
                storage = self.storage if block else self._part()
                wide = parts * lanes if block else lanes
                memory = storage.memory(data.ArrayLayout(shape, wide), apart=True)
                m.submodules[f"{name}_{k}" if k else name] = memory
                write = memory.write_port(granularity=lanes if block and parts > 1 else None)
                read = memory.read_port(domain="sync")
                m.d.comb += [write.addr.eq(where), write.en.eq(enable if block else enable[k]), read.addr.eq(read_at)]
                m.d.comb += [write.data[lane].eq(given[lane % lanes]) for lane in range(wide)] + [read.en.eq(1)]
                read_codes += [read.data[lane] for lane in range(wide)]
            flat = Signal(layout, name=f"read{tap}")
            m.d.comb += [flat[lane].eq(code) for lane, code in enumerate(read_codes)]
            word = register(m, flat, layout, name=f"code{tap}", cycles=self.registered)
            codes += [word[lane] for lane in range(order.lanes_in)]
        return codes
