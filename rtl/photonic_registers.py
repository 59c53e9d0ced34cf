"""AXI4-Lite registers of the photonic controller, and the memory of its offsets.

    0x00 CONTROL   rw  bit 0 `auto`: images start as they arrive (1 after reset); bit 1 `start`: the next image, once
    0x04 STATUS    ro  bit 0 `busy`; bit 1 `done`: not busy, and at least one image was finished
    0x08 ERRORS    rw  sticky, writing 1 clears: see `Errors`
    0x0C FRAMES    ro  images finished
    0x10 SETTLING  rw  cycles from new weights and inputs to the sample
    0x14 IMAGE     rw  index of the image at hand or, when idle, of the next one; it seeds the noise of a twin
    0x18 GEOMETRY  ro  rows, and columns from bit 16 on
    0x1C WORK      ro  jobs an image, and layers from bit 16 on
    0x20 PROGRAM   ro  the first 32 bits of the program's SHA-256
    CALIBRATION + 4 * (job * 2^k + column)   rw  offset of a column in a job, 2^k the next power of two of the columns

SETTLING, IMAGE and the offsets are written, and offsets read, when the controller is idle. Whatever is illegal is
answered with SLVERR, changes nothing and sets a bit of ERRORS; every access is answered. Reset puts back all registers
but the offsets, which stay as they were calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.photonic_jobs import Jobs
from rtl.photonic_ports import INDEX_BITS, SETTLING_BITS, AxiLite
from rtl.stage import Storage, register, shape_of
from sim.errors import BittrueError

OKAY, SLVERR = 0, 2


class Register(IntEnum):
    """Byte addresses."""

    CONTROL = 0x00
    STATUS = 0x04
    ERRORS = 0x08
    FRAMES = 0x0C
    SETTLING = 0x10
    IMAGE = 0x14
    GEOMETRY = 0x18
    WORK = 0x1C
    PROGRAM = 0x20


class Errors(IntEnum):
    """Bits of the register ERRORS."""

    ADDRESS = 0  # no register at this address
    READ_ONLY = 1  # a write to a register that cannot be written
    VALUE = 2  # a write of an illegal value, or of a part of a word
    BUSY = 3  # an access that has to wait until the controller is idle
    FRAME = 4  # an image of the wrong length; it was dropped
    CONVERTER = 5  # codes from the converter that nobody waits for
    WEIGHTS = 6  # the weight stream's TLAST is not where an image's weights end


@dataclass(frozen=True)
class Map:
    """Where the offsets are."""

    jobs: int
    columns: int

    @property
    def column_bits(self) -> int:
        return (self.columns - 1).bit_length()

    @property
    def calibration(self) -> int:
        """Address of the first offset."""
        return max(0x100, 1 << ((self.jobs - 1).bit_length() + self.column_bits + 2))

    @property
    def address_bits(self) -> int:
        return self.calibration.bit_length()

    def offset(self, job: int, column: int) -> int:
        """Address of an offset."""
        if not (0 <= job < self.jobs and 0 <= column < self.columns):
            raise BittrueError(f"photonic controller: no offset of job {job}, column {column}")
        return self.calibration + (((job << self.column_bits) + column) << 2)


class Registers(wiring.Component):
    """The registers; `settling` is the least settling time, and the one after reset.

    frame_done, fail   strobes of the controller; `fail` has a bit for each of `Errors`
    started            the controller has used `start`
    address            of the offsets a sender reads when the controller is busy; they are there two cycles later
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, settling: int):
        if not 1 <= settling < 1 << SETTLING_BITS:
            raise BittrueError(f"photonic controller: a settling time of {settling} cycles; it is 1 to 65535")
        if jobs.offset.bits > 32:
            raise BittrueError(f"photonic controller: offsets of {jobs.offset} do not fit a register of 32 bits")
        self.jobs, self.least = jobs, settling
        g = jobs.geometry
        self.map = Map(len(jobs.work), g.columns)
        self.group_bits = (g.groups - 1).bit_length()
        self.lane_bits = (g.lanes - 1).bit_length()
        self.layout = data.ArrayLayout(shape_of(jobs.offset), g.lanes)
        self.depth = max(2, len(jobs.work) << self.group_bits)
        super().__init__(
            {
                "axi": Out(AxiLite(self.map.address_bits)),
                "auto": Out(1),
                "start": Out(1),
                "started": In(1),
                "settling": Out(SETTLING_BITS),
                "image": Out(INDEX_BITS),
                "busy": In(1),
                "frame_done": In(1),
                "fail": In(len(Errors)),
                "address": In(range(self.depth)),
                "offsets": Out(self.layout),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        jobs, g = self.jobs, self.jobs.geometry
        errors, frames = Signal(len(Errors)), Signal(32)
        auto, start = Signal(init=1), Signal()
        settling, image = Signal(SETTLING_BITS, init=self.least), Signal(INDEX_BITS)
        # Only the bits that are set here: of a signal that nothing drives, Icarus says X.
        fail, clear = Signal(Errors.BUSY + 1), Signal(len(Errors))
        m.d.comb += [self.auto.eq(auto), self.start.eq(start), self.settling.eq(settling), self.image.eq(image)]
        m.d.sync += errors.eq((errors & ~clear) | fail | self.fail)
        with m.If(self.frame_done):
            m.d.sync += [frames.eq(frames + 1), image.eq(image + 1)]
        with m.If(self.started):
            m.d.sync += start.eq(0)

        m.submodules.offsets = memory = Storage(self.layout.size, self.depth).memory(
            self.layout, [self.word(k) for k in range(self.depth)]
        )
        write_port, read_port = memory.write_port(granularity=1), memory.read_port(domain="sync")
        m.d.comb += [self.offsets.eq(register(m, read_port.data, name="offsets_read")), read_port.en.eq(1)]

        axi = self.axi
        # -- writes: address and data are taken one by one, then both are looked at
        awaddr, wdata, wstrb = Signal(self.map.address_bits), Signal(32), Signal(4)
        have_address, have_data, answering, response = Signal(), Signal(), Signal(), Signal(2)
        m.d.comb += [
            axi.awready.eq(~have_address),
            axi.wready.eq(~have_data),
            axi.bvalid.eq(answering),
            axi.bresp.eq(response),
        ]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [awaddr.eq(axi.awaddr), have_address.eq(1)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [wdata.eq(axi.wdata), wstrb.eq(axi.wstrb), have_data.eq(1)]
        with m.If(answering & axi.bready):
            m.d.sync += answering.eq(0)
        window, job, column = self.place(awaddr)
        m.d.comb += [
            write_port.addr.eq(self.entry(job, column)),
            write_port.data.eq(Const(0, self.layout.size)),
        ]
        m.d.comb += [write_port.data[lane].eq(wdata) for lane in range(g.lanes)]
        with m.If(have_address & have_data & ~answering):
            m.d.sync += [have_address.eq(0), have_data.eq(0), answering.eq(1), response.eq(SLVERR)]
            whole = wstrb == 0xF

            def accept(legal, *then):
                with m.If(whole & legal):
                    m.d.sync += [response.eq(OKAY), *then]
                with m.Else():
                    m.d.comb += fail[Errors.VALUE].eq(1)

            with m.If(awaddr[:2].any()):
                m.d.comb += fail[Errors.ADDRESS].eq(1)
            with m.Elif(window):
                known = (job < len(jobs.work)) & (column < g.columns)
                fmt, signed = jobs.offset, wdata.as_signed()
                legal = (signed >= fmt.low) & (signed <= fmt.high)
                with m.If(~known):
                    m.d.comb += fail[Errors.ADDRESS].eq(1)
                with m.Elif(self.busy):
                    m.d.comb += fail[Errors.BUSY].eq(1)
                with m.Else():
                    accept(legal)
                    lane = column[: self.lane_bits]
                    m.d.comb += write_port.en.eq(Mux(whole & legal, 1 << lane if self.lane_bits else 1, 0))
            with m.Else():
                with m.Switch(awaddr):
                    with m.Case(Register.CONTROL):
                        idle = ~start | self.started
                        legal = ~wdata[2:].any() & ~(wdata[1] & (wdata[0] | ~idle))
                        accept(legal, auto.eq(wdata[0]), start.eq(wdata[1] | (start & ~self.started)))
                    with m.Case(Register.ERRORS):
                        accept(~wdata[len(Errors) :].any())
                        with m.If(whole & ~wdata[len(Errors) :].any()):
                            m.d.comb += clear.eq(wdata)
                    with m.Case(Register.SETTLING):
                        with m.If(self.busy):
                            m.d.comb += fail[Errors.BUSY].eq(1)
                        with m.Else():
                            legal = (wdata >= self.least) & ~wdata[SETTLING_BITS:].any()
                            accept(legal, settling.eq(wdata))
                    with m.Case(Register.IMAGE):
                        with m.If(self.busy):
                            m.d.comb += fail[Errors.BUSY].eq(1)
                        with m.Else():
                            accept(Const(1), image.eq(wdata))
                    with m.Case(Register.STATUS, Register.FRAMES, Register.GEOMETRY, Register.WORK, Register.PROGRAM):
                        m.d.comb += fail[Errors.READ_ONLY].eq(1)
                    with m.Default():
                        m.d.comb += fail[Errors.ADDRESS].eq(1)

        # -- reads: registers are answered at once, offsets two cycles later
        araddr, lane = Signal(self.map.address_bits), Signal(max(1, self.lane_bits))
        taken, looking, found, given, value, answer = (
            Signal(name="read_taken"),
            Signal(name="read_looking"),
            Signal(name="read_found"),
            Signal(name="read_given"),
            Signal(32, name="read_value"),
            Signal(2, name="read_answer"),
        )
        m.d.comb += [
            axi.arready.eq(~(taken | looking | found | given)),
            axi.rvalid.eq(given),
            axi.rdata.eq(value),
            axi.rresp.eq(answer),
        ]
        read_window, read_job, read_column = self.place(araddr)
        m.d.comb += read_port.addr.eq(Mux(self.busy, self.address, self.entry(read_job, read_column)))
        constants = {
            Register.CONTROL: Cat(auto, start),
            Register.STATUS: Cat(self.busy, ~self.busy & frames.any()),
            Register.ERRORS: errors,
            Register.FRAMES: frames,
            Register.SETTLING: settling,
            Register.IMAGE: image,
            Register.GEOMETRY: Const(g.rows | g.columns << 16, 32),
            Register.WORK: Const(len(jobs.work) | len(jobs.layers) << 16, 32),
            Register.PROGRAM: Const(int(jobs.program.sha256[:8], 16), 32),
        }
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [araddr.eq(axi.araddr), taken.eq(1)]
        with m.If(taken):
            m.d.sync += [taken.eq(0), given.eq(1), answer.eq(SLVERR), value.eq(0)]
            with m.If(araddr[:2].any()):
                m.d.comb += fail[Errors.ADDRESS].eq(1)
            with m.Elif(read_window):
                with m.If(~((read_job < len(jobs.work)) & (read_column < g.columns))):
                    m.d.comb += fail[Errors.ADDRESS].eq(1)
                with m.Elif(self.busy):
                    m.d.comb += fail[Errors.BUSY].eq(1)
                with m.Else():
                    m.d.sync += [given.eq(0), looking.eq(1), lane.eq(read_column[: self.lane_bits])]
            with m.Else():
                with m.Switch(araddr):
                    for address, content in constants.items():
                        with m.Case(address):
                            m.d.sync += [answer.eq(OKAY), value.eq(content)]
                    with m.Default():
                        m.d.comb += fail[Errors.ADDRESS].eq(1)
        with m.If(looking):
            m.d.sync += [looking.eq(0), found.eq(1)]
        with m.If(found):
            m.d.sync += [found.eq(0), given.eq(1), answer.eq(OKAY)]
            m.d.sync += value.eq(Array(self.offsets[k] for k in range(g.lanes))[lane])
        with m.If(given & axi.rready):
            m.d.sync += given.eq(0)
        return m

    def word(self, address: int) -> list[int]:
        """The offsets of a word of the memory, before any calibration."""
        g = self.jobs.geometry
        job, group = divmod(address, 1 << self.group_bits)
        if job >= len(self.jobs.work) or group >= g.groups:
            return [0] * g.lanes
        return [int(v) for v in self.jobs.offsets[job, group * g.lanes : (group + 1) * g.lanes]]

    def place(self, address: Signal):
        """Whether a byte address is in the window of the offsets; its job and column."""
        words = address[2 : self.map.address_bits - 1]
        return address[-1], words[self.map.column_bits :], words[: self.map.column_bits]

    def entry(self, job, column):
        """The word of the memory that holds a column's offset."""
        return Cat(column[self.lane_bits :], job)
