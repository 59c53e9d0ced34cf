"""Groups of frames: how many frames go together, told with every group to the stages that bring them together or part
them (`sim.groups`)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Stage, Storage, Structure, advance, counting
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.sim.groups import Grouping

#: Bits of the count of frames that filled groups.
COUNT_BITS = 8


class GroupStage:
    """What a stage that regroups has beside the others: a stream that tells n for every group, where n is written.

    It is offered while the group is worked on, and taken with the last step of it.
    """

    def tell(self, modes: tuple[int, ...], written: bool) -> None:
        """Make the stream."""
        self.modes = modes
        self.size = stream.Signature(counting(max(modes) + 1)).create(path=("size",)) if written else None

    @property
    def told(self) -> Value | int:
        """n of the group at hand."""
        return self.modes[0] if self.size is None else self.size.payload

    @property
    def known(self) -> Value | None:
        """Whether there is a group at hand; None where it need not be asked."""
        return None if self.size is None else self.size.valid

    def of_group(self, numbers: dict[int, int]) -> Value | int:
        """One of these numbers, by n."""
        if self.size is None:
            return numbers[self.modes[0]]
        most = max(self.modes)
        return Array([numbers.get(n, 0) for n in range(most + 1)])[self.size.payload]


class Groups(Elaboratable):
    """Counts the frames that come in, and tells every stage that regroups n of each group when it begins.

    n is that of the set that the group's first frame meets: what is written within a group holds from the next one on,
    and no frame is ever held up. A group that is not complete waits for the rest of its frames. With `flush` what lacks
    is filled with frames of code 0, as soon as no frame is half in; their results are taken out at the end (`Passing`).

    grouping  of the program
    stages    those that regroup, in order
    most      groups that can be on their way at once
    beats     of a frame that comes in;  results  those of a frame of each output
    taken     a beat goes in in this cycle
    flush     strobe: fill the group at hand, if it has any frame
    filling   beats of code 0 go in in place of those that come
    waiting   frames that wait for the rest of their group
    filled    frames of code 0 that went in, modulo 2^8
    """

    _MustUse__silence = True  # planning makes one that is never elaborated

    def __init__(self, grouping: Grouping, stages: list[Stage], most: int, beats: int, results: list[int]):
        self.grouping, self.stages, self.most, self.beats, self.results = grouping, stages, most, beats, results
        n = counting(max(grouping.modes) + 1)
        self.taken, self.flush, self.filling = Signal(name="taken"), Signal(name="flush"), Signal(name="filling")
        self.waiting, self.filled = Signal(n, name="waiting"), Signal(COUNT_BITS, name="filled")
        self.exchange: Exchange | None = None
        layout = data.StructLayout({"size": n, "present": n})
        self.groups = [stream.Signature(layout).create(path=(f"result{k}",)) for k in range(len(results))]

    @cached_property
    def tables(self) -> list[Table]:
        """n, where it is written: one word of a set."""
        held = self.grouping.held
        return [] if held is None else [Table(held, np.zeros((1, 1), np.int64))]

    def structure(self) -> Structure:
        built = Structure()
        bits = max(self.grouping.modes).bit_length()
        built.count(self.beats - 1, (1 << COUNT_BITS) - 1, *[(1 << bits) - 1] * 3)
        built.registers += 3
        fifos = [2 * bits] * len(self.groups)
        if self.tables:
            built.registers += 3 * bits
            built.select_bits += 2 * bits
            fifos += [bits] * len(self.stages)
        for width in fifos:
            built.store(self._queue(width))
            built.count(self.most - 1, self.most - 1, self.most)
            built.registers += width + 1
        for beats in self.results:
            built.count(beats - 1)
            built.registers += bits + 1
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        size = self._size(m)
        n = len(self.waiting)
        beat = Signal(counting(self.beats), name="beat")
        whole = advance(m, beat, self.beats - 1, self.taken)
        first = Signal(name="first", init=1)  # `beat` is 0: a comparison would be early in a long path
        with m.If(self.taken):
            m.d.sync += first.eq(whole)
        begins, begun, ends = Signal(name="begins"), Signal(name="group_begins"), Signal(name="group_ends")
        missing, at_hand, lacking = Signal(n, name="missing"), Signal(n, name="at_hand"), Signal(n, name="lacking")
        asked = Signal(name="asked")
        remaining, own, empty = Signal(n, name="remaining"), Signal(n, name="own"), Signal(n, name="empty")
        m.d.comb += [
            begins.eq(self.taken & first),
            begun.eq(begins & (missing == 0)),
            own.eq(Mux(missing == 0, size, at_hand)),
            remaining.eq(Mux(missing == 0, size, missing) - 1),
            ends.eq(begins & (remaining == 0)),
            empty.eq(Mux(missing == 0, 0, lacking) + self.filling),
        ]
        with m.If(begins):
            m.d.sync += [
                missing.eq(remaining),
                at_hand.eq(own),
                lacking.eq(empty),
                self.filled.eq(self.filled + self.filling),
            ]
        # Between two frames: what is asked for begins, and ends with the group.
        between = Signal(name="between")
        m.d.comb += between.eq(Mux(self.taken, whole, first))
        wanted = asked | self.flush
        after = Mux(begins, remaining, missing)
        m.d.sync += asked.eq(wanted & ~between)
        with m.If(between):
            m.d.sync += self.filling.eq((wanted | self.filling) & (after != 0))
        m.d.comb += self.waiting.eq(Mux(missing == 0, 0, at_hand - missing))
        if self.tables:
            for k, stage in enumerate(self.stages):
                self._tell(m, f"sizes{k}", size, begun, stage.size)
        told = Signal(data.StructLayout({"size": n, "present": n}), name="told")
        m.d.comb += [told.size.eq(own), told.present.eq(own - empty)]
        for k, result in enumerate(self.groups):
            self._tell(m, f"results{k}", told, ends, result)
        return m

    def _size(self, m: Module) -> Value | int:
        """n of a group that begins in this cycle."""
        if not self.tables:
            return self.grouping.size
        port, bits = self.tables[0].port, max(self.grouping.modes).bit_length()
        row = Signal(bits, name="written", reset_less=True)
        banks = [Signal(bits, init=self.grouping.size, reset_less=True, name=f"size_{k}") for k in range(2)]
        with m.If(port.shift):
            m.d.sync += row.eq(port.value)
        with m.If(port.write):
            m.d.sync += Array(banks)[port.bank].eq(row)
        m.d.comb += self.exchange.settled.eq(1)  # the bank that holds no more is not read in any later cycle
        return Mux(self.exchange.bank, banks[1], banks[0])

    def _queue(self, width: int) -> Storage:
        """The memory of a queue of what is told: read without a clock, for a block's slow output would be in the path
        of the stage that decides by it."""
        return Storage(width, self.most, clocked=False)

    def _tell(self, m: Module, name: str, value: Value, when: Value, to) -> None:
        """Through a queue; what is offered is in registers, for its readers decide by it in the same cycle."""
        width = len(Value.cast(value))
        m.submodules[name] = memory = self._queue(width).memory(width)
        write, read = memory.write_port(), memory.read_port(domain="comb")
        head, tail = (Signal(counting(self.most), name=f"{name}_{end}") for end in ("head", "tail"))
        left = Signal(range(self.most + 1), name=f"{name}_left")
        current, known = Signal(width, name=f"{name}_current", reset_less=True), Signal(name=f"{name}_known")
        following, pop = Signal(name=f"{name}_following"), Signal(name=f"{name}_pop")
        m.d.comb += [following.eq(~known | to.ready), pop.eq(following & (left != 0))]
        m.d.comb += [write.addr.eq(tail), write.data.eq(value), write.en.eq(when), read.addr.eq(head)]
        m.d.comb += [Value.cast(to.payload).eq(current), to.valid.eq(known)]
        advance(m, tail, self.most - 1, when)
        advance(m, head, self.most - 1, pop)
        with m.If(when ^ pop):
            m.d.sync += left.eq(left + Mux(when, 1, -1))
        with m.If(following):
            m.d.sync += [current.eq(read.data), known.eq(left != 0)]


class Passing(wiring.Component):
    """Lets the frames of a result pass, but those of the frames that filled a group: they are its last.

    groups  n of every group, and how many of its frames came in
    beats   of a frame

    Latency 0. What it is told of a group is there before the first beat of its results.
    """

    def __init__(self, payload: data.Layout, beats: int, groups):
        self.groups, self.beats = groups, beats
        super().__init__({"i": In(stream.Signature(payload)), "o": Out(stream.Signature(payload))})

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        group = self.groups
        beat, frame = Signal(counting(self.beats)), Signal.like(group.payload.size, name="frame")
        # A group has a frame that came in: its first is real, and of each other it is known when the one before ends.
        real, taken = Signal(name="real", init=1), Signal(name="taken")
        m.d.comb += [
            self.o.valid.eq(self.i.valid & group.valid & real),
            self.o.payload.eq(self.i.payload),
            self.i.ready.eq(group.valid & (self.o.ready | ~real)),
            taken.eq(self.i.valid & self.i.ready),
        ]
        whole = taken & advance(m, beat, self.beats - 1, taken)
        last = frame == group.payload.size - 1
        m.d.comb += group.ready.eq(whole & last)
        with m.If(whole):
            following = Signal.like(frame, name="following")
            m.d.comb += following.eq(frame + 1)
            m.d.sync += [frame.eq(Mux(last, 0, following)), real.eq(last | (following < group.payload.present))]
        return m
