"""The register map of the photonic controller, and the memory of its offsets.

SETTLING, IMAGE, BATCH, TIMEOUT and the offsets are written, and offsets read, when the controller is idle. Whatever is
illegal is answered with SLVERR, changes nothing and sets a bit of ERRORS; every access is answered. Reset puts back all
registers but the offsets, which stay as they were calibrated.

A group of codes that does not come in time counts as 0, as do all groups after it of that measurement; the work goes
on, and ERRORS says TIMEOUT. Codes that come after that, while nobody waits for codes, are dropped, and ERRORS says
CONVERTER; those that come while the next measurement waits for its own are taken for them. So the limit has to be
longer than the converter ever takes, and after a TIMEOUT the results of the batch are not to be trusted.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Array, Cat, Module, Mux
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.bus.lite import WindowPort, index
from bittrue.rtl.bus.registers import FAULTS, Field, Register, RegisterMap, Window, errors
from bittrue.rtl.dataflow.stage import Storage, register, shape_of
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.light.ports import INDEX_BITS, SETTLING_BITS, TIMEOUT_BITS
from bittrue.sim.errors import BittrueError

#: TIMEOUT after reset, in cycles: about 10 ms at 100 MHz.
PATIENCE = (1 << TIMEOUT_BITS) - 1
#: Cycles from the read of an offset on the bus to its value: memory, register, choice of the lane.
LATENCY = 3


class Address(IntEnum):
    """Of the registers, in bytes."""

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


#: What goes wrong in the controller, beside `FAULTS` of accesses: the bits of ERRORS from bit 4 on.
TROUBLES = {
    "FRAME": "an image whose TLAST is not on its last beat",
    "CONVERTER": "codes from the converter that nobody waits for",
    "WEIGHTS": "the weight stream's TLAST is not where a batch's weights end",
    "TIMEOUT": "codes from the converter that did not come in time",
}
#: Bits of the register ERRORS.
Errors = IntEnum("Errors", [*FAULTS, *TROUBLES], start=0)


def register_map(jobs: Jobs, settling: int, images: int) -> RegisterMap:
    """The map for jobs, a least settling time, which is also the one after reset, and a batch's capacity."""
    if not 1 <= settling < 1 << SETTLING_BITS:
        raise BittrueError(f"photonic controller: a settling time of {settling} cycles; it is 1 to 65535")
    if not 1 <= images < 1 << 16:
        raise BittrueError(f"photonic controller: batches of {images} images; they have 1 to 65535")
    if jobs.offset.bits > 32:
        raise BittrueError(f"photonic controller: offsets of {jobs.offset} do not fit a register of 32 bits")
    g = jobs.geometry

    def number(name: str, text: str, bits: int = 32, *, idle: bool = False, **options) -> Register:
        return Register(name, Address[name], (Field(name, 0, bits, description=text, **options),), idle=idle)

    def constant(name: str, text: str, value: int) -> Register:
        return number(name, text, access="ro", reset=value, constant=True)

    def halves(name: str, low: tuple[str, int], high: tuple[str, int]) -> Register:
        fields = (Field(n, k, 16, "ro", "", value, constant=True) for k, (n, value) in ((0, low), (16, high)))
        return Register(name, Address[name], tuple(fields))

    columns, work = g.columns, len(jobs.work)
    span = 4 << (columns - 1).bit_length() + (work - 1).bit_length()
    auto = Field("auto", 0, 1, "rw", "batches start as images arrive", reset=1)
    start = Field("start", 1, 1, "w1s", "one batch; only without `auto`, and when no start still waits")
    done = "not busy, and at least one image was finished"
    most = "most images that a batch takes, 1 to CAPACITY"
    limit = (
        "cycles after the sample, and after each group of codes, in which the next group has to come; what is missing "
        "then counts as code 0; 0: it waits for ever"
    )
    registers = (
        Register("CONTROL", Address.CONTROL, (auto, start), checked=True),
        Register("STATUS", Address.STATUS, (Field("busy", 0, 1, "ro"), Field("done", 1, 1, "ro", done))),
        errors(
            "ERRORS",
            Address.ERRORS,
            *(Field(name, Errors[name], 1, "w1c", text) for name, text in TROUBLES.items()),
            description="sticky, 1 clears",
        ),
        number("FRAMES", "images finished", access="ro"),
        number(
            "SETTLING",
            "cycles from new inputs to the sample, at least those it was built for",
            SETTLING_BITS,
            idle=True,
            reset=settling,
            values=(settling, (1 << SETTLING_BITS) - 1),
        ),
        number(
            "IMAGE",
            "index of the batch's first image or, when idle, of the next image; it seeds the noise of a twin",
            INDEX_BITS,
            idle=True,
            hardware=True,
        ),
        halves("GEOMETRY", ("rows", g.rows), ("columns", columns)),
        halves("WORK", ("jobs", work), ("layers", len(jobs.layers))),
        constant("PROGRAM", "the first 32 bits of the program's SHA-256", int(jobs.program.sha256[:8], 16)),
        number("BATCH", most, images.bit_length(), idle=True, reset=images, values=(1, images)),
        number("TIMEOUT", limit, TIMEOUT_BITS, idle=True, reset=PATIENCE),
        constant("CAPACITY", "most images that a batch can have", images),
    )
    offsets = Window(
        "CALIBRATION",
        max(0x100, span),
        (work, columns),
        jobs.offset,
        idle=True,
        latency=LATENCY,
        description="offset of a converter, `[job, column]`: + 4 (2^k job + column), 2^k the next power of two of the "
        "columns",
        where="upper half",
    )
    text = f"Controller of a photonic array of {g.rows} rows and {columns} columns"
    return RegisterMap("PHOTONIC", registers, (offsets,), errors="ERRORS", description=text)


class Offsets(wiring.Component):
    """The memory of the offsets: written and read on the bus when the controller is idle, else read by the sender.

    bus        of the window CALIBRATION
    busy       the sender reads
    address    of the offsets it reads; they are there two cycles later
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, window: Window):
        self.jobs, self.window = jobs, window
        g = jobs.geometry
        self.group_bits = (g.groups - 1).bit_length()
        self.lane_bits = (g.lanes - 1).bit_length()
        self.layout = data.ArrayLayout(shape_of(jobs.offset), g.lanes)
        self.depth = max(2, len(jobs.work) << self.group_bits)
        super().__init__(
            {
                "bus": In(WindowPort(window)),
                "busy": In(1),
                "address": In(range(self.depth)),
                "offsets": Out(self.layout),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        bus, lanes = self.bus, self.jobs.geometry.lanes
        content = [self.word(k) for k in range(self.depth)]
        # The bus reads and writes in different cycles, and the sender reads when nothing is written.
        storage = Storage(self.layout.size, self.depth)
        m.submodules.memory = memory = storage.memory(self.layout, content, apart=True)
        write, read = memory.write_port(granularity=1), memory.read_port(domain="sync")
        entry, lane = self.place(bus.write_at)
        m.d.comb += [write.addr.eq(entry), write.en.eq(Mux(bus.write, 1 << lane, 0))]
        m.d.comb += [write.data[k].eq(bus.data) for k in range(lanes)]
        entry, lane = self.place(bus.read_at)
        chosen = Array(self.offsets[k] for k in range(lanes))[lane]
        m.d.comb += [
            read.addr.eq(Mux(self.busy, self.address, entry)),
            read.en.eq(1),
            self.offsets.eq(register(m, read.data, name="offsets_read")),
            bus.value.eq(register(m, chosen, shape_of(self.jobs.offset), name="offset_read")),
        ]
        return m

    def place(self, at):
        """The word of the memory that holds an offset, and the lane in it."""
        job, column = index(self.window, at)
        return Cat(column[self.lane_bits :], job), column[: self.lane_bits]

    def word(self, address: int) -> list[int]:
        """The offsets of a word of the memory, before any calibration."""
        g = self.jobs.geometry
        job, group = divmod(address, 1 << self.group_bits)
        if job >= len(self.jobs.work) or group >= g.groups:
            return [0] * g.lanes
        return [int(v) for v in self.jobs.offsets[job, group * g.lanes : (group + 1) * g.lanes]]
