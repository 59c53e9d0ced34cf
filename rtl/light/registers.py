"""AXI4-Lite registers of the photonic controller, and the memory of its offsets.

    0x00 CONTROL   rw  bit 0 `auto`: batches start as images arrive (1 after reset); bit 1 `start`: the next batch, once
    0x04 STATUS    ro  bit 0 `busy`; bit 1 `done`: not busy, and at least one image was finished
    0x08 ERRORS    rw  sticky, writing 1 clears: see `Errors`
    0x0C FRAMES    ro  images finished
    0x10 SETTLING  rw  cycles from new inputs to the sample
    0x14 IMAGE     rw  index of the first image of the batch at hand or, when idle, of the next image; it seeds the
                       noise of a twin
    0x18 GEOMETRY  ro  rows, and columns from bit 16 on
    0x1C WORK      ro  jobs a batch, and layers from bit 16 on
    0x20 PROGRAM   ro  the first 32 bits of the program's SHA-256
    0x24 BATCH     rw  most images that a batch takes, 1 to the capacity, which it is after reset
    0x28 TIMEOUT   rw  cycles after the sample, and after each group of codes, in which the next group has to come;
                       0: wait for ever; 0xFFFFF after reset
    0x2C CAPACITY  ro  most images that a batch can have
    CALIBRATION + 4 * (job * 2^k + column)   rw  offset of a column in a job, 2^k the next power of two of the columns

SETTLING, IMAGE, BATCH, TIMEOUT and the offsets are written, and offsets read, when the controller is idle. Whatever is
illegal is answered with SLVERR, changes nothing and sets a bit of ERRORS; every access is answered. Reset puts back all
registers but the offsets, which stay as they were calibrated.

A group of codes that does not come in time counts as 0, as do all groups after it of that measurement; the work goes
on, and ERRORS says TIMEOUT. Codes that come after that, while nobody waits for codes, are dropped, and ERRORS says
CONVERTER; those that come while the next measurement waits for its own are taken for them. So the limit has to be
longer than the converter ever takes, and after a TIMEOUT the results of the batch are not to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Storage, register, shape_of
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.light.ports import INDEX_BITS, SETTLING_BITS, TIMEOUT_BITS, AxiLite
from bittrue.sim.errors import BittrueError

OKAY, SLVERR = 0, 2
#: TIMEOUT after reset, in cycles: about 10 ms at 100 MHz.
PATIENCE = (1 << TIMEOUT_BITS) - 1


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
    BATCH = 0x24
    TIMEOUT = 0x28
    CAPACITY = 0x2C


class Errors(IntEnum):
    """Bits of the register ERRORS."""

    ADDRESS = 0  # no register at this address
    READ_ONLY = 1  # a write to a register that cannot be written
    VALUE = 2  # a write of an illegal value, or of a part of a word
    BUSY = 3  # an access that has to wait until the controller is idle
    FRAME = 4  # an image of the wrong length; it was dropped
    CONVERTER = 5  # codes from the converter that nobody waits for
    WEIGHTS = 6  # the weight stream's TLAST is not where a batch's weights end
    TIMEOUT = 7  # codes from the converter that did not come in time


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


@dataclass(frozen=True)
class _State:
    """The signals behind the registers; `fail` and `clear` are the bits of ERRORS that an access sets and clears."""

    auto: Signal
    start: Signal
    errors: Signal
    frames: Signal
    settling: Signal
    image: Signal
    batch: Signal
    timeout: Signal
    fail: Signal
    clear: Signal


class Registers(wiring.Component):
    """The registers; `settling` is the least settling time, and the one after reset, `images` a batch's capacity.

    batch_done, fail   strobes of the controller: `size` images are finished; a bit for each of `Errors`
    started            the controller has used `start`
    address            of the offsets a sender reads when the controller is busy; they are there two cycles later
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, settling: int, images: int):
        if not 1 <= settling < 1 << SETTLING_BITS:
            raise BittrueError(f"photonic controller: a settling time of {settling} cycles; it is 1 to 65535")
        if not 1 <= images < 1 << 16:
            raise BittrueError(f"photonic controller: batches of {images} images; they have 1 to 65535")
        if jobs.offset.bits > 32:
            raise BittrueError(f"photonic controller: offsets of {jobs.offset} do not fit a register of 32 bits")
        self.jobs, self.least, self.capacity = jobs, settling, images
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
                "batch": Out(range(images + 1)),
                "timeout": Out(TIMEOUT_BITS),
                "busy": In(1),
                "batch_done": In(1),
                "size": In(range(images + 1)),
                "fail": In(len(Errors)),
                "address": In(range(self.depth)),
                "offsets": Out(self.layout),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        state = self.state(m)
        m.submodules.offsets = memory = Storage(self.layout.size, self.depth).memory(
            self.layout, [self.word(k) for k in range(self.depth)]
        )
        self.write_channel(m, state, memory.write_port(granularity=1))
        self.read_channel(m, state, memory.read_port(domain="sync"))
        return m

    def state(self, m: Module) -> _State:
        """The registers, as the controller changes them."""
        state = _State(
            auto=Signal(init=1, name="auto_now"),
            start=Signal(name="start_now"),
            errors=Signal(len(Errors), name="errors"),
            frames=Signal(32, name="frames"),
            settling=Signal(SETTLING_BITS, init=self.least, name="settling_now"),
            image=Signal(INDEX_BITS, name="image_now"),
            batch=Signal(range(self.capacity + 1), init=self.capacity, name="batch_now"),
            timeout=Signal(TIMEOUT_BITS, init=PATIENCE, name="timeout_now"),
            # Only the bits that are set here: of a signal that nothing drives, Icarus says X.
            fail=Signal(Errors.BUSY + 1, name="refused"),
            clear=Signal(len(Errors), name="clear"),
        )
        for name in ("auto", "start", "settling", "image", "batch", "timeout"):
            m.d.comb += getattr(self, name).eq(getattr(state, name))
        m.d.sync += state.errors.eq((state.errors & ~state.clear) | state.fail | self.fail)
        with m.If(self.batch_done):
            m.d.sync += [state.frames.eq(state.frames + self.size), state.image.eq(state.image + self.size)]
        with m.If(self.started):
            m.d.sync += state.start.eq(0)
        return state

    # -- writes ----------------------------------------------------------------------------------------
    def write_channel(self, m: Module, state: _State, memory) -> None:
        """Address and data are taken one by one, then both are looked at; two cycles later the answer is there."""
        axi = self.axi
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
        accepted, whole = Signal(), Signal()
        window, job, column = self.place(awaddr)
        m.d.comb += [whole.eq(wstrb == 0xF), memory.addr.eq(self.entry(job, column))]
        m.d.comb += [memory.data[lane].eq(wdata) for lane in range(self.jobs.geometry.lanes)]
        fmt = self.jobs.offset
        offset = wdata.as_signed() if fmt.signed else wdata
        in_range = register(m, (offset >= fmt.low) & (offset <= fmt.high), name="in_range")
        rules = self.rules(m, state, wdata)
        compared = register(m, have_address & have_data, name="compared")  # what is compared has its own cycle
        with m.If(have_address & have_data & compared & ~answering):
            m.d.sync += [have_address.eq(0), have_data.eq(0), answering.eq(1), response.eq(Mux(accepted, OKAY, SLVERR))]
            with m.If(awaddr[:2].any()):
                m.d.comb += state.fail[Errors.ADDRESS].eq(1)
            with m.Elif(window):
                self.write_offset(m, state, memory, awaddr, in_range, whole, accepted)
            with m.Else():
                self.write_register(m, state, awaddr, wdata, whole, accepted, rules)

    def rules(self, m: Module, state: _State, wdata) -> dict[Register, tuple]:
        """For every register that can be written: may it be now, is the value legal (a cycle later), what then."""
        idle = ~state.start | self.started
        begin = wdata[1] & ~wdata[0] & idle  # `start` needs `auto` off, and no start that still waits
        now, soon = Const(1), ~self.busy
        return {
            Register.CONTROL: (
                now,
                ~wdata[2:].any() & (~wdata[1] | begin),
                [state.auto.eq(wdata[0]), state.start.eq(wdata[1] | (state.start & ~self.started))],
            ),
            Register.ERRORS: (now, ~wdata[len(Errors) :].any(), []),
            Register.SETTLING: (
                soon,
                register(m, (wdata >= self.least) & ~wdata[SETTLING_BITS:].any(), name="settling_legal"),
                [state.settling.eq(wdata)],
            ),
            Register.IMAGE: (soon, Const(1), [state.image.eq(wdata)]),
            Register.BATCH: (
                soon,
                register(m, (wdata >= 1) & (wdata <= self.capacity), name="batch_legal"),
                [state.batch.eq(wdata)],
            ),
            Register.TIMEOUT: (soon, ~wdata[TIMEOUT_BITS:].any(), [state.timeout.eq(wdata)]),
        }

    def write_register(self, m: Module, state: _State, awaddr, wdata, whole, accepted, rules) -> None:
        """A write that has arrived, to a register: carried out, or the reason why it is not."""
        with m.Switch(awaddr):
            for address, (ready, legal, then) in rules.items():
                with m.Case(address):
                    with m.If(~ready):
                        m.d.comb += state.fail[Errors.BUSY].eq(1)
                    with m.Elif(~(whole & legal)):
                        m.d.comb += state.fail[Errors.VALUE].eq(1)
                    with m.Else():
                        m.d.comb += accepted.eq(1)
                        m.d.sync += then
                        if address == Register.ERRORS:
                            m.d.comb += state.clear.eq(wdata)
            with m.Case(*(address for address in Register if address not in rules)):
                m.d.comb += state.fail[Errors.READ_ONLY].eq(1)
            with m.Default():
                m.d.comb += state.fail[Errors.ADDRESS].eq(1)

    def write_offset(self, m: Module, state: _State, memory, awaddr, in_range, whole, accepted) -> None:
        """A write that has arrived, to an offset."""
        _, job, column = self.place(awaddr)
        legal = whole & in_range
        with m.If(~self.known(job, column)):
            m.d.comb += state.fail[Errors.ADDRESS].eq(1)
        with m.Elif(self.busy):
            m.d.comb += state.fail[Errors.BUSY].eq(1)
        with m.Elif(~legal):
            m.d.comb += state.fail[Errors.VALUE].eq(1)
        with m.Else():
            m.d.comb += [accepted.eq(1), memory.en.eq(1 << column[: self.lane_bits] if self.lane_bits else 1)]

    # -- reads -----------------------------------------------------------------------------------------
    def read_channel(self, m: Module, state: _State, memory) -> None:
        """Registers are answered at once, offsets two cycles later; the sender of weights reads the memory, too."""
        axi, g = self.axi, self.jobs.geometry
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
        window, job, column = self.place(araddr)
        m.d.comb += [
            memory.addr.eq(Mux(self.busy, self.address, self.entry(job, column))),
            memory.en.eq(1),
            self.offsets.eq(register(m, memory.data, name="offsets_read")),
        ]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [araddr.eq(axi.araddr), taken.eq(1)]
        with m.If(taken):
            m.d.sync += [taken.eq(0), given.eq(1), answer.eq(SLVERR), value.eq(0)]
            with m.If(araddr[:2].any()):
                m.d.comb += state.fail[Errors.ADDRESS].eq(1)
            with m.Elif(window):
                with m.If(~self.known(job, column)):
                    m.d.comb += state.fail[Errors.ADDRESS].eq(1)
                with m.Elif(self.busy):
                    m.d.comb += state.fail[Errors.BUSY].eq(1)
                with m.Else():
                    m.d.sync += [given.eq(0), looking.eq(1), lane.eq(column[: self.lane_bits])]
            with m.Else():
                with m.Switch(araddr):
                    for address, content in self.contents(state).items():
                        with m.Case(address):
                            m.d.sync += [answer.eq(OKAY), value.eq(content)]
                    with m.Default():
                        m.d.comb += state.fail[Errors.ADDRESS].eq(1)
        with m.If(looking):
            m.d.sync += [looking.eq(0), found.eq(1)]
        with m.If(found):
            m.d.sync += [found.eq(0), given.eq(1), answer.eq(OKAY)]
            m.d.sync += value.eq(Array(self.offsets[k] for k in range(g.lanes))[lane])
        with m.If(given & axi.rready):
            m.d.sync += given.eq(0)

    def contents(self, state: _State) -> dict[Register, Value]:
        """What a read of each register gives."""
        jobs, g = self.jobs, self.jobs.geometry
        return {
            Register.CONTROL: Cat(state.auto, state.start),
            Register.STATUS: Cat(self.busy, ~self.busy & state.frames.any()),
            Register.ERRORS: state.errors,
            Register.FRAMES: state.frames,
            Register.SETTLING: state.settling,
            Register.IMAGE: state.image,
            Register.GEOMETRY: Const(g.rows | g.columns << 16, 32),
            Register.WORK: Const(len(jobs.work) | len(jobs.layers) << 16, 32),
            Register.PROGRAM: Const(int(jobs.program.sha256[:8], 16), 32),
            Register.BATCH: state.batch,
            Register.TIMEOUT: state.timeout,
            Register.CAPACITY: Const(self.capacity, 32),
        }

    # -- the memory of the offsets ---------------------------------------------------------------------
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

    def known(self, job, column):
        """Whether there is such an offset."""
        return (job < len(self.jobs.work)) & (column < self.jobs.geometry.columns)

    def entry(self, job, column):
        """The word of the memory that holds a column's offset."""
        return Cat(column[self.lane_bits :], job)
