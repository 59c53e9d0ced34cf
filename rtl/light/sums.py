"""What the photonic controller does with the converter's codes: sums over row tiles, requantiser, activation table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Storage, counting, register, shape_of, valid_chain
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.parts.requantize import RequantizePipe, channel_constants, outside
from bittrue.sim.contract import Format, Range


@dataclass(frozen=True)
class LayerNumbers:
    """What differs from layer to layer on the way of a sum: indices into and bounds for the common hardware.

    step       index of the converter's step among those of the program
    clip       index of its ends of a requantised code among those of the program
    tabled     an activation table follows
    base       the code of its first entry
    start      number of its first beat of outputs, among those of all layers
    """

    step: int
    clip: int
    tabled: int
    base: int
    start: int


class Sums(wiring.Component):
    """`y = table(clip(requantize((sum_k code[k]) << step)))` for a layer, `lanes` outputs a beat, image by image.

    With the codes of a group of columns:
    adc_valid, adc_data   groups of a measurement in order; two measurements at least four cycles apart
    column_group, image   which group, and of which image of the batch: a sum for every group of every image is kept
    first, final          they belong to the first, the last row tile
    ends                  they belong to the last measurement of the layer
    groups                of columns that the job uses; codes of the others are left out
    place                 of the job's first group among the beats of the outputs of all layers
    numbers               of the layer; they stay while anything of the layer is on its way

    write, result_image, group, codes   results of a group of outputs of the layer, `cycles` after its last codes
    layer_done                          strobe with the last write of a layer
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, images: int):
        self.jobs, self.images = jobs, images
        g = jobs.geometry
        self.steps = sorted({layer.total.shift for layer in jobs.layers})
        self.pipe = RequantizePipe(jobs.requantize, *jobs.sums, g.lanes)
        most = max(layer.mac.tiles for layer in jobs.layers)
        self.total = Range(0, most * jobs.adc.high)
        requantizers = [layer.total.requantize for layer in jobs.layers]
        self.clips = sorted({(r.low, r.format.high) for r in requantizers})
        self.clipped = Format.covering(*self.clips)
        self.tables = [jobs.tables(lane) for lane in range(g.lanes)]
        self.bases = [layer.table.input.format.low if layer.table else 0 for layer in jobs.layers]
        self.tabled = any(layer.table for layer in jobs.layers)
        results = [jobs.output.format, *([jobs.codes] if len(jobs.layers) > 1 else [])]
        self.result = Format.covering(*((fmt.low, fmt.high) for fmt in results))
        # sum 3 (memory, register, adder), step 1, requantiser, clip 2 (comparison, choice), table 2, result 1
        self.requantized = 4 + self.pipe.cycles
        self.cycles = self.requantized + 2 + (2 if self.tabled else 0) + 1
        beats = counting(sum(layer.groups for layer in jobs.layers))
        self.layout = data.StructLayout(
            {
                "step": counting(len(self.steps)),
                "clip": counting(len(self.clips)),
                "tabled": 1,
                "base": shape_of(Format.covering(*self.bases)),
                "start": beats,
            }
        )
        super().__init__(
            {
                "adc_valid": In(1),
                "adc_data": In(data.ArrayLayout(shape_of(jobs.adc), g.lanes)),
                "column_group": In(counting(g.groups)),
                "image": In(counting(images)),
                "first": In(1),
                "final": In(1),
                "ends": In(1),
                "groups": In(range(g.groups + 1)),
                "place": In(beats),
                "numbers": In(self.layout),
                "write": Out(1),
                "result_image": Out(counting(images)),
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
            clip=self.clips.index((requantize.low, requantize.format.high)),
            tabled=int(entry.table is not None),
            base=self.bases[layer],
            start=sum(before.groups for before in self.jobs.layers[:layer]),
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        # In registers of their own, for they come a long way; a layer begins with some cycles without codes.
        numbers = register(m, self.numbers, self.layout, name="numbers_here")
        read = self.requantized + 2
        counted = Signal()
        m.d.comb += counted.eq(self.adc_valid & (self.column_group < self.groups))
        valid = valid_chain(m, counted & self.final, self.cycles)
        # Where the results belong goes with them: `beat[k]` is their number among all beats of outputs, k cycles later.
        beat = [Signal.like(self.place, name="beat")]
        m.d.comb += beat[0].eq(self.place + self.column_group)
        for k in range(1, self.cycles):
            beat.append(register(m, beat[-1], name=f"beat_{k}"))

        sums = self.accumulate(m, counted)
        scaled = [register(m, self.scale(total, numbers.step), name=f"scaled{lane}") for lane, total in enumerate(sums)]
        codes = self.pipe.build(m, scaled, valid[3], beat[2])
        clipped = [self.clip(m, lane, code, numbers.clip) for lane, code in enumerate(codes)]
        result = self.activate(m, clipped, numbers, valid[read - 1], beat[read - 2]) if self.tabled else clipped
        for lane, code in enumerate(result):
            m.d.comb += self.codes[lane].eq(register(m, code, shape_of(self.result), name=f"result{lane}"))

        ends = self.ends & self.final & (self.column_group + 1 == self.groups)
        m.d.comb += [
            self.write.eq(valid[-1]),
            self.group.eq(register(m, beat[-1] - numbers.start, self.group.shape(), name="group_at")),
            self.result_image.eq(register(m, self.image, name="image_at", cycles=self.cycles)),
            self.layer_done.eq(valid_chain(m, counted & ends, self.cycles)[-1]),
        ]
        return m

    def accumulate(self, m: Module, counted: Value) -> list[Signal]:
        """The sums with the codes at hand, three cycles after those came in."""
        g = self.jobs.geometry
        exact = shape_of(Format.covering(self.total.high))
        layout = data.ArrayLayout(exact, g.lanes)
        group_bits = (g.groups - 1).bit_length()
        # A sum is read again for another tile, four cycles later or more; it is written in the third.
        storage = Storage(layout.size, max(2, self.images << group_bits))
        m.submodules.sums = memory = storage.memory(layout, apart=True)
        read, write = memory.read_port(domain="sync"), memory.write_port()
        where = Signal(len(read.addr))
        m.d.comb += [
            where.eq(Cat(self.column_group[:group_bits], self.image)),
            read.addr.eq(where),
            read.en.eq(1),
            write.addr.eq(register(m, where, name="where", cycles=3)),
            write.en.eq(valid_chain(m, counted, 3)[3]),
        ]
        first = register(m, self.first, name="first_at", cycles=2)
        before = register(m, read.data, name="before")
        sums = []
        for lane in range(g.lanes):
            code = register(m, self.adc_data[lane], shape_of(self.jobs.adc), name=f"code{lane}", cycles=2)
            total = Signal(exact, name=f"total{lane}")
            m.d.comb += total.eq(Mux(first, 0, before[lane]) + code)
            sums.append(register(m, total, name=f"sum{lane}"))
            m.d.comb += write.data[lane].eq(sums[lane])
        return sums

    def clip(self, m: Module, lane: int, code: Value, chosen: Value) -> Signal:
        """The code within the ends of its layer, two cycles later."""
        beyond = [Cat(outside(code, low, high)) for low, high in self.clips]
        over, under = register(m, _chosen(chosen, beyond), 2, name=f"beyond{lane}")
        code = register(m, code, name=f"unclipped{lane}")
        low, high = (_chosen(chosen, [Const(end) for end in ends]) for ends in zip(*self.clips, strict=True))
        return register(m, Mux(over, high, Mux(under, low, code)), shape_of(self.clipped), name=f"clipped{lane}")

    def scale(self, total: Signal, chosen: Value) -> Value:
        """The sum in counts of light."""
        return _chosen(chosen, [total << step for step in self.steps])

    def activate(self, m: Module, codes: list[Signal], numbers: data.View, early: Value, which: Value) -> list[Value]:
        """The codes of the activation tables, two cycles later; codes of a layer without one as they are."""
        tables = channel_constants(m, "activation", self.uses(), 1, early, which)
        result = []
        for lane, code in enumerate(codes):
            rows, _ = self.tables[lane]
            bits = rows.shape[1].bit_length() - 1
            values = Format.covering(rows)
            offset = Signal(bits, name=f"entry{lane}")
            m.d.comb += offset.eq(code - numbers.base)
            storage = Storage(values.bits, rows.size, table=True)
            m.submodules[f"table{lane}"] = rom = storage.memory(shape_of(values), [int(v) for v in rows.ravel()])
            port = rom.read_port(domain="sync")
            address = Cat(offset, tables[f"lane{lane}"][0]) if len(rows) > 1 else offset
            m.d.comb += [port.addr.eq(address), port.en.eq(1)]
            read = register(m, port.data, name=f"read{lane}")
            kept = register(m, code, name=f"kept{lane}", cycles=2)
            result.append(Mux(numbers.tabled, read, kept))
        return result

    def uses(self) -> dict[str, np.ndarray]:
        """Which table every beat uses, per lane, in the order of the beats."""
        return {f"lane{lane}": use for lane, (_, use) in enumerate(self.tables)}


def _chosen(index: Value, values: Sequence[Value]) -> Value:
    """The value of that index."""
    result = values[0]
    for k, value in enumerate(values[1:], 1):
        result = Mux(index == k, value, result)
    return result
