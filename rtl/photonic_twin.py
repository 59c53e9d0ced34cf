"""A digital twin of the photonic array and its converters, synthesisable, with the ports of the analogue front end."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from rtl.photonic_jobs import Jobs
from rtl.photonic_noise import SerialNoise
from rtl.photonic_ports import FrontEnd
from rtl.stage import counting, register, shape_of
from sim.contract import Range


class PhotonicTwin(wiring.Component):
    """Counts what the array would measure, in integers: `sim.photonic_mac.PhotonicMac`, noise included.

        u[n] = sum_i plus[n, i] q[i] + minus[n, i] (Q - q[i]),  code = clip(round_shift(max(u + n, 0) - offset, shift))

    settling    cycles before which there is no light yet: a sample taken earlier counts 0
    conversion  cycles from the counts of a group of columns to its codes
    dac_cycles  cycles in which the weight DACs take a beat

    `lanes` columns at a time, a row in each cycle: columns / lanes * rows cycles for a measurement, and with noise some
    40 more for every column.
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, settling: int = 8, conversion: int = 3, dac_cycles: int = 1):
        self.jobs, self.settling, self.conversion, self.dac_cycles = jobs, settling, conversion, dac_cycles
        self.noise = SerialNoise(jobs) if jobs.noisy else None
        super().__init__({"front": In(FrontEnd(jobs))})

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        jobs, g, front = self.jobs, self.jobs.geometry, self.front
        row_bits, group_bits = (g.rows - 1).bit_length(), (g.groups - 1).bit_length()
        bank = Signal()  # in use
        with m.If(front.swap):
            m.d.sync += bank.eq(~bank)

        # -- the two banks of weights and offsets
        cells = front.weight.payload.plus.shape()
        rails = data.StructLayout({"plus": cells, "minus": cells})
        offsets = front.weight.payload.offset.shape()
        m.submodules.cells = memory = Memory(shape=rails, depth=2 << (row_bits + group_bits), init=[])
        m.submodules.offsets = biases = Memory(shape=offsets, depth=2 << group_bits, init=[])
        write, write_bias = memory.write_port(), biases.write_port()
        beat, pause = front.weight.payload, Signal(counting(self.dac_cycles))
        taken = Signal()
        m.d.comb += [
            front.weight.ready.eq(pause == 0),
            taken.eq(front.weight.valid & front.weight.ready),
            write.addr.eq(Cat(beat.group[:group_bits], beat.row[:row_bits], ~bank)),
            write.data.plus.eq(beat.plus),
            write.data.minus.eq(beat.minus),
            write.en.eq(taken & ~beat.bias),
            write_bias.addr.eq(Cat(beat.group[:group_bits], ~bank)),
            write_bias.data.eq(beat.offset),
            write_bias.en.eq(taken & beat.bias),
        ]
        m.d.sync += pause.eq(Mux(taken, self.dac_cycles - 1, Mux(pause == 0, 0, pause - 1)))

        # -- the light, which needs its time
        codes = Signal(front.input_data.shape())
        dark = Signal(counting(self.settling + 1))
        with m.If(front.input_valid):
            m.d.sync += [codes.eq(front.input_data), dark.eq(self.settling - 1)]
        with m.Elif(dark != 0):
            m.d.sync += dark.eq(dark - 1)

        # -- a measurement
        row, group, lane = (
            Signal(counting(n), name=name) for n, name in ((g.rows, "row"), (g.groups, "group"), (g.lanes, "lane"))
        )
        blind = Signal()
        scanning, clear = Signal(), Signal()
        read, bias = memory.read_port(domain="sync"), biases.read_port(domain="comb")
        m.d.comb += [
            read.addr.eq(Cat(group[:group_bits], row[:row_bits], bank)),
            read.en.eq(1),
            bias.addr.eq(Cat(group[:group_bits], bank)),
        ]
        first = jobs.codes.bits
        flat = codes.as_value()
        code = register(m, flat[:first], name="code")
        with m.If(scanning):
            m.d.sync += flat.eq(flat.rotate_right(first))
        products = register(m, scanning, name="reading")
        summing = register(m, products, name="summing")
        light = []
        for k in range(g.lanes):
            bright = read.data.plus[k] * code + read.data.minus[k] * (jobs.codes.high - code)
            product = register(m, bright, name=f"product{k}")
            count = Signal(max(1, jobs.light.high.bit_length()), name=f"light{k}")
            with m.If(clear):
                m.d.sync += count.eq(0)
            with m.Elif(summing & ~blind):
                m.d.sync += count.eq(count + product)
            light.append(count)
        counts = light
        if self.noise is not None:
            counts = [Signal.like(self.noise.y, name=f"noisy{k}") for k in range(g.lanes)]
            self.connect_noise(m, light, group, lane)
        m.d.comb += [
            front.adc_data[k].eq(self.convert(m, count, bias.data[k], f"adc{k}")) for k, count in enumerate(counts)
        ]

        delay = Signal(range(self.conversion + 5))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += clear.eq(1)
                with m.If(front.sample):
                    m.d.sync += [blind.eq(dark != 0), delay.eq(0)]
                    m.next = "SCAN" if self.noise is None else "COMMON"
            if self.noise is not None:
                with m.State("COMMON"):
                    m.d.comb += [self.noise.start.eq(1), self.noise.common.eq(1)]
                    m.next = "COMMON WAIT"
                with m.State("COMMON WAIT"):
                    with m.If(self.noise.ready):
                        m.next = "SCAN"
            with m.State("SCAN"):
                m.d.comb += scanning.eq(1)
                m.d.sync += row.eq(row + 1)
                with m.If(row == g.rows - 1):
                    m.d.sync += [row.eq(0), delay.eq(3)]
                    m.next = "SUM"
            with m.State("SUM"):
                m.d.sync += delay.eq(delay - 1)
                with m.If(delay == 0):
                    m.d.sync += delay.eq(self.conversion + 2)
                    m.next = "ADC" if self.noise is None else "NOISE"
            if self.noise is not None:
                with m.State("NOISE"):
                    m.d.comb += self.noise.start.eq(1)
                    m.next = "NOISE WAIT"
                with m.State("NOISE WAIT"):
                    with m.If(self.noise.ready):
                        with m.Switch(lane):
                            for k, count in enumerate(counts):
                                with m.Case(k):
                                    m.d.sync += count.eq(self.noise.y)
                        m.d.sync += lane.eq(lane + 1)
                        m.next = "NOISE"
                        with m.If(lane == g.lanes - 1):
                            m.d.sync += lane.eq(0)
                            m.next = "ADC"
            with m.State("ADC"):
                m.d.sync += delay.eq(delay - 1)
                with m.If(delay == 0):
                    m.d.comb += [front.adc_valid.eq(1), clear.eq(1)]
                    m.d.sync += group.eq(group + 1)
                    m.next = "SCAN"
                    with m.If(group == g.groups - 1):
                        m.d.sync += group.eq(0)
                        m.next = "IDLE"
        return m

    def convert(self, m: Module, count: Signal, offset, name: str) -> Signal:
        """The code of a count, three cycles later."""
        jobs, front = self.jobs, self.front
        most = (1 << len(count)) - 1
        shifts = max(layer.mac.shift for layer in jobs.layers)
        spread = Range(-jobs.offset.high, most - jobs.offset.low)
        above = register(m, count - offset, shape_of(spread), name=f"{name}_above")
        half = Array(Const((1 << shift) >> 1) for shift in range(shifts + 1))[front.shift]
        rounded = register(
            m, above + half, shape_of(Range(spread.low, spread.high + (1 << shifts))), name=f"{name}_rounded"
        )
        step = rounded >> front.shift
        high = jobs.adc.high
        return register(m, Mux(step < 0, 0, Mux(step > high, high, step)), shape_of(jobs.adc), name=name)

    def connect_noise(self, m: Module, light: list[Signal], group: Signal, lane: Signal) -> None:
        """The noise of the measurement at hand: its layer and sites."""
        jobs, noise = self.jobs, self.noise
        m.submodules.noise = noise
        g = jobs.geometry
        rows = []
        for job in jobs.work:
            outputs = jobs.layers[job.layer].outputs
            place = job.row_tile * (outputs + 1)
            rows.append({"layer": job.layer, "common": place + outputs, "first": place + job.column_tile * g.columns})
        layout = data.StructLayout({"layer": noise.layer.shape(), "common": len(noise.site), "first": len(noise.site)})
        m.submodules.sites = rom = Memory(shape=layout, depth=max(2, len(rows)), init=rows)
        port = rom.read_port(domain="comb")
        site = port.data.first + group * g.lanes + lane
        m.d.comb += [
            port.addr.eq(self.front.job),
            noise.layer.eq(port.data.layer),
            noise.image.eq(self.front.image),
            noise.site.eq(Mux(noise.common, port.data.common, site)),
            noise.light.eq(Array(light)[lane]),
        ]
