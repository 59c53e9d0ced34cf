"""A digital twin of the photonic array and its converters, synthesisable, with the ports of the analogue front end."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from bittrue.rtl.dataflow.stage import advance, counting, register, shape_of, valid_chain
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.light.noise import TwinNoise
from bittrue.rtl.light.ports import FrontEnd
from bittrue.rtl.parts.noise import NoiseLanes
from bittrue.sim.contract import Range, check_bits
from bittrue.sim.errors import BittrueError

#: Cycles from the last row read to the counts: memory, products, sums.
COUNTING = 3
#: Cycles from a count to its code: offset, rounding, step.
CONVERTING = 3


@dataclass(frozen=True)
class Pass:
    """The course of a pass, in which the light of some columns is counted, in cycles from its start.

    steps    it takes to read the rows
    leave    when the first counts leave, for `beats` cycles
    words    when their noise is drawn; that of the measurement, g0, is drawn in the cycle before
    """

    steps: int
    leave: int
    words: int
    beats: int

    @property
    def cycles(self) -> int:
        return self.leave + self.beats


class PhotonicTwin(wiring.Component):
    """Counts what the array would measure, in integers: `sim.operations.photonic_mac.PhotonicMac`, noise included.

        u[n] = sum_i plus[n, i] q[i] + minus[n, i] (Q - q[i]),  code = clip(round_shift(max(u + n, 0) - offset, shift))

    settling    cycles after `input_valid` before which there is no light yet: a sample taken earlier counts 0
    conversion  cycles for which counts wait before they are converted
    dac_cycles  cycles in which the weight DACs take a beat
    parallel    columns counted at a time: a multiple of the lanes that divides the columns; None: all of them
    simd        rows counted in a cycle: a power of two that divides the rows

    `swap` changes the banks of weights and offsets, `input_valid` the codes of the inputs; neither needs the other. A
    `sample` takes the input codes as they are; it is not seen while codes of the last one are still to come, and `swap`
    has to wait for them, too. The other bank may be filled at any time.

    Without noise the codes leave a group in each cycle, with noise a group every `lanes` cycles. A measurement takes

        passes * (rows / simd + 2 + conversion + parallel / lanes) + 3                   cycles without noise,
        passes * (rows / simd + 2 + conversion + parallel) + 4 + the noise's last steps  with noise,

    from `sample` to the last codes; passes = columns / parallel. Drawing the noise starts ahead of the
    counts where there is time; what is left after them is 6 cycles and one for each bit of their root, at least.
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(
        self,
        jobs: Jobs,
        settling: int = 8,
        conversion: int = 3,
        dac_cycles: int = 1,
        *,
        parallel: int | None = None,
        simd: int = 1,
    ):
        g = jobs.geometry
        parallel = g.columns if parallel is None else parallel
        if parallel < 1 or parallel % g.lanes or g.columns % parallel:
            raise BittrueError(
                f"photonic twin: parallel = {parallel} columns; it is a multiple of the {g.lanes} lanes that divides "
                f"the {g.columns} columns"
            )
        if simd < 1 or simd & (simd - 1) or g.rows % simd:
            raise BittrueError(f"photonic twin: simd = {simd} rows; it is a power of two that divides {g.rows} rows")
        if min(settling, dac_cycles) < 1 or conversion < 0:
            raise BittrueError(
                f"photonic twin: {settling} cycles of settling and {dac_cycles} for a beat, each is at least 1; "
                f"{conversion} of conversion, at least 0"
            )
        self.jobs, self.settling, self.conversion, self.dac_cycles = jobs, settling, conversion, dac_cycles
        self.parallel, self.simd = parallel, simd
        self.passes = g.columns // parallel
        steps = g.rows // simd
        leave = steps + COUNTING - 1 + conversion
        # What is drawn early waits for the counts: no earlier than the words need. The layer's numbers take a cycle.
        words = max(2, leave - NoiseLanes.WORDS)
        self.groups = parallel // g.lanes
        self.width = 1 if jobs.noisy else g.lanes
        self.course = Pass(steps, leave, words, parallel // self.width)
        self.noise = TwinNoise(jobs, leave - words) if jobs.noisy else None
        self.highest = self.noise.sums.result.high if self.noise else jobs.light.high
        step = max(layer.mac.shift for layer in jobs.layers)
        offset = max(jobs.offset.high, -jobs.offset.low)
        check_bits(float(self.highest) + float(offset) + 2.0**step, "photonic twin: light and offsets of all layers")
        super().__init__({"front": In(FrontEnd(jobs))})

    @property
    def answers(self) -> tuple[int, int]:
        """Cycles from `sample` to the first group of codes, and from one to the next; of a single pass."""
        if self.passes > 1:
            raise BittrueError(f"photonic twin: its codes come in {self.passes} passes, so they have no one pace")
        lanes, leave = self.jobs.geometry.lanes, self.course.leave
        if self.noise is None:
            return leave + CONVERTING + 1, 1
        drawn = self.noise.cycles - (leave - self.course.words)
        return leave + drawn + lanes + CONVERTING + 1, lanes

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        g, front, course = self.jobs.geometry, self.front, self.course
        bank, busy, sample = Signal(), Signal(), Signal()
        with m.If(front.swap):
            m.d.sync += bank.eq(~bank)
        m.d.comb += sample.eq(front.sample & ~busy)

        # -- the course of a measurement
        running, tick, number = Signal(), Signal(counting(course.cycles)), Signal(counting(self.passes))
        tick_last = advance(m, tick, course.cycles - 1, running)
        number_last = advance(m, number, self.passes - 1, running & tick_last)
        with m.If(sample):
            m.d.sync += [running.eq(1), busy.eq(1)]
        with m.Elif(tick_last & number_last):
            m.d.sync += running.eq(0)
        scanning, leaving = Signal(), Signal()
        m.d.comb += [
            scanning.eq(running & (tick < course.steps)),
            leaving.eq(running & (tick >= course.leave)),
        ]

        # -- the light, and with it the noise
        light = self.light(m, bank, sample, scanning, leaving, tick, number)
        counts, converting = light[: g.lanes], leaving
        if self.noise is not None:
            m.submodules.noise = noise = self.noise
            m.d.comb += [
                noise.start.eq(sample),
                noise.job.eq(front.job),
                noise.image.eq(front.image),
                noise.common.eq(running & (number == 0) & (tick == course.words - 1)),
                noise.issue.eq(running & (tick >= course.words) & (tick < course.words + course.beats)),
                noise.count.eq(light[0]),
            ]
            passed = valid_chain(m, leaving, noise.cycles - (course.leave - course.words))[-1]
            counts, converting = self.gather(m, noise.y, passed)

        # -- the converters
        group = Signal(counting(g.groups), name="group")
        group_last = advance(m, group, g.groups - 1, converting)
        offsets = self.offsets(m, bank, group)
        for lane, count in enumerate(counts):
            m.d.comb += front.adc_data[lane].eq(self.convert(m, count, offsets[lane], f"adc{lane}"))
        m.d.comb += front.adc_valid.eq(valid_chain(m, converting, CONVERTING)[-1])
        with m.If(valid_chain(m, converting & group_last, CONVERTING)[-1]):
            m.d.sync += busy.eq(0)
        return m

    def gather(self, m: Module, count: Signal, valid: Value) -> tuple[list[Signal], Signal]:
        """The counts of a group of columns, which come one by one, and a strobe when they are all there."""
        lanes = self.jobs.geometry.lanes
        kept = [Signal.like(count, name=f"noisy{lane}") for lane in range(lanes)]
        lane, full = Signal(counting(lanes), name="lane"), Signal(name="gathered")
        lane_last = advance(m, lane, lanes - 1, valid)
        with m.If(valid):
            m.d.sync += [after.eq(before) for after, before in zip(kept, [*kept[1:], count], strict=True)]
        m.d.sync += full.eq(valid & lane_last)
        return kept, full

    # -- the light -----------------------------------------------------------------------------------------
    def light(
        self, m: Module, bank: Signal, sample: Signal, scanning: Signal, leaving: Signal, tick: Signal, number: Signal
    ) -> list[Signal]:
        """The counts of the columns of a pass; on `leaving` the next ones take the place of the first."""
        jobs, g, front = self.jobs, self.jobs.geometry, self.front
        bits = jobs.codes.bits
        codes = Signal(g.rows * bits)
        dark = Signal(counting(self.settling))  # cycles without light that are left
        with m.If(front.input_valid):
            m.d.sync += [codes.eq(front.input_data), dark.eq(self.settling - 1)]
        with m.Elif(dark != 0):
            m.d.sync += dark.eq(dark - 1)

        blind, rows = Signal(), Signal(g.rows * bits)
        with m.If(sample):
            m.d.sync += [blind.eq(dark != 0), rows.eq(codes)]
        with m.Elif(scanning):
            m.d.sync += rows.eq(rows.rotate_right(self.simd * bits))
        cells = self.cells(m, bank, tick, number)
        at = valid_chain(m, scanning, COUNTING - 1)
        fresh = register(m, tick == 0, name="fresh", cycles=COUNTING - 1)
        bright, rest = [], []
        for row in range(self.simd):
            code = rows[row * bits : (row + 1) * bits]
            bright.append(register(m, Mux(blind, 0, code), name=f"bright{row}"))
            rest.append(register(m, Mux(blind, 0, jobs.codes.high - code), bits, name=f"rest{row}"))
        counts = [Signal(max(1, jobs.light.high.bit_length()), name=f"light{k}") for k in range(self.parallel)]
        shape = shape_of(Range(0, jobs.cells.high * jobs.codes.high))
        for k, count in enumerate(counts):
            member, lane = divmod(k, g.lanes)
            products = [Signal(shape, name=f"product{k}_{row}", reset_less=True) for row in range(self.simd)]
            for row, product in enumerate(products):
                cell = cells[member][row]
                with m.If(at[1]):
                    m.d.sync += product.eq(cell.plus[lane] * bright[row] + cell.minus[lane] * rest[row])
            # One expression a register: simulators skip what is not enabled.
            more = Mux(fresh, 0, count) + sum(products[1:], products[0])
            if k + self.width < self.parallel:
                with m.If(at[2] | leaving):
                    m.d.sync += count.eq(Mux(leaving, counts[k + self.width], more))
            else:
                with m.If(at[2]):
                    m.d.sync += count.eq(more)
        return counts

    def convert(self, m: Module, count: Value, offset: Value, name: str) -> Signal:
        """The code of a count, `CONVERTING` cycles later."""
        jobs, front = self.jobs, self.front
        shifts = max(layer.mac.shift for layer in jobs.layers)
        spread = Range(-jobs.offset.high, self.highest - jobs.offset.low)
        above = register(m, count - offset, shape_of(spread), name=f"{name}_above")
        half = Array(Const((1 << shift) >> 1) for shift in range(shifts + 1))[front.shift]
        rounded = register(
            m, above + half, shape_of(Range(spread.low, spread.high + (1 << shifts))), name=f"{name}_rounded"
        )
        step = rounded >> front.shift
        high = jobs.adc.high
        return register(m, Mux(step < 0, 0, Mux(step > high, high, step)), shape_of(jobs.adc), name=name)

    # -- weights and offsets -------------------------------------------------------------------------------
    def cells(self, m: Module, bank: Signal, tick: Signal, number: Signal) -> list[list[data.View]]:
        """The cells of every group of columns of a pass and every row of a step, a cycle after `tick`.

        Each group and row has its memory: a word a step, for every pass, for either bank.
        """
        course, front = self.course, self.front
        beat = front.weight.payload
        cells = beat.plus.shape()
        rails = data.StructLayout({"plus": cells, "minus": cells})
        taken, member, filled = self.taken(m)
        low, high = (self.simd - 1).bit_length(), (self.jobs.geometry.rows - 1).bit_length()
        steps, passes = (course.steps - 1).bit_length(), (self.passes - 1).bit_length()
        words = []
        for group in range(self.groups):
            words.append([])
            for row in range(self.simd):
                m.submodules[f"cells{group}_{row}"] = memory = Memory(shape=rails, depth=2 << (steps + passes), init=[])
                write, read = memory.write_port(), memory.read_port(domain="sync")
                m.d.comb += [
                    write.addr.eq(Cat(beat.row[low:high], filled[:passes], ~bank)),
                    write.data.plus.eq(beat.plus),
                    write.data.minus.eq(beat.minus),
                    write.en.eq(taken & ~beat.bias & (member == group) & (beat.row[:low] == row)),
                    read.addr.eq(Cat(tick[:steps], number[:passes], bank)),
                    read.en.eq(1),
                ]
                words[-1].append(read.data)
        return words

    def taken(self, m: Module) -> tuple[Signal, Signal, Signal]:
        """Whether the weight DACs take a beat; the place of its group of columns within a pass, and that pass."""
        g, weight = self.jobs.geometry, self.front.weight
        pause, taken = Signal(counting(self.dac_cycles)), Signal()
        m.d.comb += [weight.ready.eq(pause == 0), taken.eq(weight.valid & weight.ready)]
        m.d.sync += pause.eq(Mux(taken, self.dac_cycles - 1, Mux(pause == 0, 0, pause - 1)))
        member, number = Signal(counting(self.groups)), Signal(counting(self.passes))
        with m.Switch(weight.payload.group):
            for group in range(g.groups):
                with m.Case(group):
                    m.d.comb += [member.eq(group % self.groups), number.eq(group // self.groups)]
        return taken, member, number

    def offsets(self, m: Module, bank: Signal, group: Signal) -> data.View:
        """The offsets of a group of columns."""
        g, weight = self.jobs.geometry, self.front.weight
        bits = (g.groups - 1).bit_length()
        m.submodules.offsets = memory = Memory(shape=weight.payload.offset.shape(), depth=2 << bits, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(Cat(weight.payload.group[:bits], ~bank)),
            write.data.eq(weight.payload.offset),
            write.en.eq(weight.valid & weight.ready & weight.payload.bias),
            read.addr.eq(Cat(group[:bits], bank)),
        ]
        return read.data
