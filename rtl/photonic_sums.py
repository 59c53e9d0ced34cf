"""What the photonic controller does with the converter's codes: sums over row tiles, requantiser, activation table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.photonic_jobs import Jobs
from rtl.requantize import RequantizePipe, channel_constants
from rtl.stage import Storage, counting, register, shape_of, valid_chain
from sim.contract import Format, Range


@dataclass(frozen=True)
class LayerNumbers:
    """What differs from layer to layer on the way of a sum: indices into and bounds for the common hardware.

    step       index of the converter's step among those of the program
    low, high  of the requantised code
    tabled     an activation table follows
    base       the code of its first entry
    groups     beats of the layer's outputs
    """

    step: int
    low: int
    high: int
    tabled: int
    base: int
    groups: int


class Sums(wiring.Component):
    """`y = table(clip(requantize((sum_k code[k]) << step)))` for the outputs of a layer, `lanes` a beat.

    adc_valid, adc_data   codes of a group of columns, groups in order
    first, final          they belong to the first, the last row tile
    groups                of columns that the job uses; codes of the others are left out
    numbers               of the layer; they stay while anything of the layer is on its way
    write, group, codes   results of a group of outputs
    layer_done            strobe with the last write of a layer
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs):
        self.jobs = jobs
        g = jobs.geometry
        self.steps = sorted({layer.total.shift for layer in jobs.layers})
        self.pipe = RequantizePipe(jobs.requantize, *jobs.sums, g.lanes)
        most = max(layer.mac.tiles for layer in jobs.layers)
        self.total = Range(0, most * jobs.adc.high)
        requantizers = [layer.total.requantize for layer in jobs.layers]
        self.clipped = Format.covering(*((r.low, r.format.high) for r in requantizers))
        self.tables = [jobs.tables(lane) for lane in range(g.lanes)]
        self.bases = [layer.table.input.format.low if layer.table else 0 for layer in jobs.layers]
        self.tabled = any(layer.table for layer in jobs.layers)
        results = [jobs.output.format, *([jobs.codes] if len(jobs.layers) > 1 else [])]
        self.result = Format.covering(*((fmt.low, fmt.high) for fmt in results))
        self.layout = data.StructLayout(
            {
                "step": counting(len(self.steps)),
                "low": shape_of(self.clipped),
                "high": shape_of(self.clipped),
                "tabled": 1,
                "base": shape_of(Format.covering(*self.bases)),
                "groups": range(max(layer.groups for layer in jobs.layers) + 1),
            }
        )
        super().__init__(
            {
                "adc_valid": In(1),
                "adc_data": In(data.ArrayLayout(shape_of(jobs.adc), g.lanes)),
                "column_group": In(counting(g.groups)),
                "first": In(1),
                "final": In(1),
                "groups": In(range(g.groups + 1)),
                "numbers": In(self.layout),
                "write": Out(1),
                "group": Out(counting(max(layer.groups for layer in jobs.layers))),
                "codes": Out(data.ArrayLayout(shape_of(self.result), g.lanes)),
                "layer_done": Out(1),
            }
        )

    def numbers_of(self, layer: int) -> LayerNumbers:
        """The numbers of a layer."""
        entry = self.jobs.layers[layer]
        requantize = entry.total.requantize
        return LayerNumbers(
            step=self.steps.index(entry.total.shift),
            low=requantize.low,
            high=requantize.format.high,
            tabled=int(entry.table is not None),
            base=self.bases[layer],
            groups=entry.groups,
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        numbers = self.numbers
        # codes 1, sum 1, step 1, requantiser, clip 1, table 2, result 1
        requantized = 3 + self.pipe.cycles
        read = requantized + 1
        done = read + (2 if self.tabled else 0) + 1
        counted = Signal()
        m.d.comb += counted.eq(self.adc_valid & (self.column_group < self.groups))
        moving = valid_chain(m, counted, 1)[1]
        valid = valid_chain(m, counted & self.final, done)

        sums = self.accumulate(m, moving)
        scaled = [register(m, self.scale(total), name=f"scaled{lane}") for lane, total in enumerate(sums)]
        codes = self.pipe.build(m, scaled, valid[2])
        clipped = []
        for lane, code in enumerate(codes):
            y = Mux(code > numbers.high, numbers.high, Mux(code < numbers.low, numbers.low, code))
            clipped.append(register(m, y, shape_of(self.clipped), name=f"clipped{lane}"))
        result = self.activate(m, clipped, valid[read - 1]) if self.tabled else clipped
        for lane, code in enumerate(result):
            m.d.comb += self.codes[lane].eq(register(m, code, shape_of(self.result), name=f"result{lane}"))

        group = Signal.like(self.group, name="group_at")
        last = Signal()
        m.d.comb += [
            last.eq(group == numbers.groups - 1),
            self.write.eq(valid[done]),
            self.group.eq(group),
            self.layer_done.eq(self.write & last),
        ]
        with m.If(self.write):
            m.d.sync += group.eq(Mux(last, 0, group + 1))
        return m

    def accumulate(self, m: Module, moving: Value) -> list[Signal]:
        """The sums with the codes at hand, two cycles after those came in."""
        g = self.jobs.geometry
        exact = shape_of(Format.covering(self.total.high))
        layout = data.ArrayLayout(exact, g.lanes)
        m.submodules.sums = memory = Memory(
            shape=layout, depth=len(counting(g.groups)), init=[], attrs={"ram_style": "distributed"}
        )
        read, write = memory.read_port(domain="comb"), memory.write_port()
        where = register(m, self.column_group, name="where")
        first = register(m, self.first, name="first_at")
        m.d.comb += [read.addr.eq(where), write.addr.eq(where), write.en.eq(moving)]
        sums = []
        for lane in range(g.lanes):
            code = register(m, self.adc_data[lane], shape_of(self.jobs.adc), name=f"code{lane}")
            total = Signal(exact, name=f"total{lane}")
            m.d.comb += [total.eq(Mux(first, 0, read.data[lane]) + code), write.data[lane].eq(total)]
            sums.append(register(m, total, name=f"sum{lane}"))
        return sums

    def scale(self, total: Signal) -> Value:
        """The sum in counts of light."""
        scaled: Value = total << self.steps[0]
        for index, step in enumerate(self.steps[1:], 1):
            scaled = Mux(self.numbers.step == index, total << step, scaled)
        return scaled

    def activate(self, m: Module, codes: list[Signal], early: Value) -> list[Value]:
        """The codes of the activation tables, two cycles later; codes of a layer without one as they are."""
        use = self.uses()
        tables = channel_constants(m, "activation", use, 1, early)
        result = []
        for lane, code in enumerate(codes):
            rows, _ = self.tables[lane]
            bits = rows.shape[1].bit_length() - 1
            values = Format.covering(rows)
            offset = Signal(bits, name=f"entry{lane}")
            m.d.comb += offset.eq(code - self.numbers.base)
            storage = Storage(values.bits, rows.size, table=True)
            m.submodules[f"table{lane}"] = rom = storage.memory(shape_of(values), [int(v) for v in rows.ravel()])
            port = rom.read_port(domain="sync")
            address = Cat(offset, tables[f"lane{lane}"][0]) if len(rows) > 1 else offset
            m.d.comb += [port.addr.eq(address), port.en.eq(1)]
            read = register(m, port.data, name=f"read{lane}")
            kept = register(m, code, name=f"kept{lane}", cycles=2)
            result.append(Mux(self.numbers.tabled, read, kept))
        return result

    def uses(self) -> dict[str, np.ndarray]:
        """Which table every beat uses, per lane, in the order of the beats."""
        return {f"lane{lane}": use for lane, (_, use) in enumerate(self.tables)}
