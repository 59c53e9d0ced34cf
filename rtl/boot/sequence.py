"""The samples of a boot, from counters where they count, else from a memory.

Which it is, and the runs of counters, says `sim.sequence`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Storage, Structure, beat, counting, shape_of
from bittrue.rtl.parts.rom import Rom
from bittrue.sim.operation import TensorType
from bittrue.sim.sequence import Run, counted


class Samples(wiring.Component):
    """One input of the generator: beats of its samples, a beat in every cycle in which it is taken, once a `start`.

    kind     of the input;  lanes  codes of a beat
    samples  int64 `[n, columns]` of all inputs, side by side;  first  the column with which this one begins
    start    strobe: the first beat is offered in the next cycle
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, kind: TensorType, lanes: int, samples: np.ndarray, first: int):
        self.kind, self.lanes, self.samples, self.first = kind, lanes, samples, first
        self.runs = counted(samples)
        self.beats = kind.size // lanes
        own = samples[:, first : first + kind.size]
        self.storage = Storage(kind.format.bits * lanes, len(samples) * self.beats, table=True)
        self.words = own.reshape(-1, lanes)
        super().__init__({"o": Out(stream.Signature(beat(kind.format, lanes))), "start": In(1)})

    def structure(self) -> Structure:
        built = Structure()
        built.count(self.beats - 1, len(self.samples) - 1)
        if self.runs is None:
            built.store(self.storage)
            return built
        for column in range(self.samples.shape[1]):
            bits = int(self.samples[:, column].max()).bit_length()
            built.add(bits)
            built.select_bits += 2 * bits * len(self.runs) // 4
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        running, taken, last = Signal(), Signal(), Signal()
        m.d.comb += [self.o.valid.eq(running), taken.eq(running & self.o.ready)]
        with m.If(taken & last):
            m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += running.eq(1)
        if self.runs is None:
            self._read(m, taken, last)
        else:
            self._count(m, self.runs, taken, last)
        return m

    def _read(self, m: Module, taken: Value, last: Value) -> None:
        """From a memory, whose next word is read in the cycle in which this one is taken."""
        count = len(self.words)
        at, after = Signal(counting(count), name="at"), Signal(counting(count), name="after")
        m.d.comb += [last.eq(at == count - 1), after.eq(Mux(taken, Mux(last, 0, at + 1), at))]
        m.d.sync += at.eq(after)
        m.submodules.memory = memory = Rom(self.storage, shape_of(self.kind.format), self.words)
        m.d.comb += [memory.addr.eq(after), self.o.payload.as_value().eq(memory.data.as_value())]

    def _count(self, m: Module, found: Sequence[Run], taken: Value, last: Value) -> None:
        """From a counter for every column."""
        beat_at, run = Signal(counting(self.beats), name="beat"), Signal(counting(len(found)), name="run")
        step, over = Signal(name="step"), Signal(name="run_ends")
        next_run = Signal(counting(len(found)), name="next_run")
        m.d.comb += [
            step.eq(taken & (beat_at == self.beats - 1)),
            next_run.eq(Mux(run == len(found) - 1, 0, run + 1)),
            last.eq((beat_at == self.beats - 1) & over & (run == len(found) - 1)),
        ]
        with m.If(taken):
            m.d.sync += beat_at.eq(Mux(step, 0, beat_at + 1))
        with m.If(step & over):
            m.d.sync += run.eq(next_run)
        carry: Value = Const(1)
        columns: list[Value] = []
        bits = self.kind.format.bits
        for column in reversed(range(self.samples.shape[1])):
            own = self.first <= column < self.first + self.kind.size
            spread = int(np.ptp(self.samples[:, column])).bit_length()
            width = bits if own else max(1, spread)
            firsts = [int(each.first[column]) & (1 << width) - 1 for each in found]
            lasts = [int(each.last[column]) & (1 << width) - 1 for each in found]
            if len({*firsts, *lasts}) == 1:
                columns.insert(0, Const(firsts[0], width))
                continue
            value, ends = Signal(width, name=f"column_{column}", init=firsts[0]), Signal(name=f"ends_{column}")
            m.d.comb += ends.eq(value == _of(run, lasts, width))
            with m.If(step & over):
                m.d.sync += value.eq(_of(next_run, firsts, width))
            with m.Elif(step & carry):
                m.d.sync += value.eq(Mux(ends, _of(run, firsts, width), value + 1))
            columns.insert(0, value)
            carry = carry & ends
        m.d.comb += over.eq(carry)
        for lane in range(self.lanes):
            places = [columns[self.first + k * self.lanes + lane] for k in range(self.beats)]
            m.d.comb += self.o.payload[lane].eq(Array(places)[beat_at] if len(places) > 1 else places[0])


def _of(at: Value, numbers: Sequence[int], width: int) -> Value:
    """The number that holds for this run."""
    if len(set(numbers)) == 1:
        return Const(numbers[0], width)
    return Array(Const(number, width) for number in numbers)[at]
