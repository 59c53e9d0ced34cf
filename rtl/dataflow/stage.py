"""The shell every component shares: streams in and out, credits, an output FIFO, and timing known in advance.

A stage is one of two kinds, described by a `Timing`:

*direct*    every accepted input beat enters a free-running pipeline; of each `beats_in` the last `beats_out`
            come out (element-wise functions, sums, widening).
*buffered*  input beats fill one of `blocks` blocks of `beats_in`; a full block is worked through in
            `beats_out * steps` cycles while the next one fills (matrix products, transposes, FIFOs, narrowing).
            Where a result takes several blocks (the time steps of a spike train), only the last of every `gather`
            blocks gives output; where the work depends on the data (`work` is its bound), the schedule is told it.

Nothing in the pipeline ever stops: a beat is let in only when a credit says that its result will find room in the
output FIFO. So no enable fans out, `ready` and `valid` come from registers, and both kinds are modelled to the cycle
by `rtl.dataflow.schedule`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from amaranth.hdl import Elaboratable, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.effort import Effort
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation


@dataclass(frozen=True)
class Timing:
    """How a stage moves beats; all the planner, the schedule and the tests know about it.

    beats_in   input beats of a block (of every operand)
    beats_out  output beats of a block (of the last of `gather` blocks)
    steps      cycles spent on each output beat (buffered stages)
    blocks     input blocks held; 0 for a direct stage
    gather     input blocks that make one block of output
    work       most cycles spent on a block, when that depends on the data; 0: always beats_out * steps
    depth      cycles from the issue of a beat (its last step) to its being offered at the output
    credits    entries of the output FIFO
    frame      blocks of a frame
    """

    beats_in: int = 1
    beats_out: int = 1
    steps: int = 1
    blocks: int = 0
    depth: int = 1
    credits: int = 2
    frame: int = 1
    gather: int = 1
    work: int = 0

    @property
    def period(self) -> int:
        """Cycles between blocks in steady state, unstalled; the most there can be, when it depends on the data."""
        return max(self.beats_in, self.work or self.beats_out * self.steps)

    @property
    def interval(self) -> int:
        """Cycles between frames in steady state, unstalled."""
        return self.frame * self.period

    @property
    def latency(self) -> int:
        """Cycles from the first input beat to the first output beat, input always valid (the most there can be)."""
        if self.blocks:
            before_output = max(0, self.work - self.beats_out * self.steps)
            return (self.gather - 1) * self.period + self.beats_in + before_output + self.steps - 1 + self.depth
        return self.beats_in - self.beats_out + self.depth


def enough_credits(depth: int, spacing: int = 1) -> int:
    """The smallest output FIFO that never makes a stage wait when its reader is ready.

    A credit taken at issue comes back one cycle after its beat left, `depth` + 1 cycles later.
    """
    return -(-(depth + 1) // spacing) + (spacing > 1)


def shape_of(fmt: Format | Range) -> Shape:
    """The Amaranth shape of a code or of a value within a range."""
    if isinstance(fmt, Range):
        fmt = fmt.format
    return Shape(fmt.bits, fmt.signed)


def counting(values: int) -> range:
    """The shape of a counter 0..values-1; one bit at least, for Verilog reads the bounds [-1:0] as two bits."""
    return range(max(values, 2))


def beat(fmt: Format, lanes: int) -> data.StructLayout:
    """Payload of a stream: `lanes` codes, lane 0 the innermost channel, and `last` on the last beat of a frame."""
    return data.StructLayout({"data": data.ArrayLayout(shape_of(fmt), lanes), "last": 1})


def register(m: Module, value, shape=None, *, name: str, cycles: int = 1) -> Signal:
    """The value `cycles` cycles later, in registers without reset."""
    for k in range(cycles):
        signal = Signal(
            shape if shape is not None else value.shape(), name=f"{name}_{k}" if k else name, reset_less=True
        )
        m.d.sync += signal.eq(value)
        value = signal
    return value


def valid_chain(m: Module, valid, cycles: int) -> list[Signal]:
    """`chain[k]` is `valid` k cycles later; these registers are reset."""
    chain = [valid]
    for k in range(cycles):
        signal = Signal(name=f"valid_{k + 1}")
        m.d.sync += signal.eq(chain[-1])
        chain.append(signal)
    return chain


@dataclass(frozen=True)
class Storage:
    """One memory of a stage and what it is made of: decided here, so that the estimate and the netlist agree.

    Tables go to block RAM from 4,096 bits on, else to LUTs; written memories from 2,048 bits or 65 words on, else to
    distributed RAM. What is read without a clock can only be distributed RAM.
    """

    width: int
    depth: int
    table: bool = False
    clocked: bool = True

    @property
    def bits(self) -> int:
        return self.width * self.depth

    @property
    def style(self) -> str:
        if self.table:
            return "block" if self.bits >= 4096 else "logic"
        return "block" if self.clocked and (self.bits >= 2048 or self.depth > 64) else "distributed"

    @property
    def block_rams(self) -> int:
        """18 kbit block RAMs (ECP5 DP16KD), in the best of their shapes."""
        if self.style != "block":
            return 0
        shapes = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
        return min(-(-self.width // w) * -(-self.depth // d) for w, d in shapes)

    @property
    def lutrams(self) -> int:
        """16x4 distributed RAMs (ECP5 DPR16X4)."""
        return -(-self.width // 4) * -(-self.depth // 16) if self.style == "distributed" else 0

    def memory(self, shape, init=()) -> Memory:
        """The Amaranth memory, with the attribute that makes synthesis follow `style`."""
        style = {"rom_style" if self.table else "ram_style": self.style}
        return Memory(shape=shape, depth=self.depth, init=init, attrs=style)


@dataclass
class Structure:
    """What a stage is built of, counted from the same numbers its hardware is made from; `rtl.dataflow.estimate`
    prices it.

    adder_bits, adders   bits and number of adders
    select_bits          bits of multiplexers and clamps
    counter_bits         bits of counters and their comparisons
    table_bits           bits of tables in LUTs
    lutrams              16x4 distributed RAMs
    block_rams           18 kbit block RAMs
    multipliers          products
    registers            flip-flops
    """

    adder_bits: int = 0
    adders: int = 0
    select_bits: int = 0
    counter_bits: int = 0
    table_bits: int = 0
    lutrams: int = 0
    block_rams: int = 0
    multipliers: int = 0
    registers: int = 0

    def add(self, bits: int, registered: bool = True) -> None:
        """An adder of so many bits, with its register."""
        self.adder_bits += bits
        self.adders += 1
        self.registers += bits if registered else 0

    def select(self, bits: int) -> None:
        """A registered multiplexer or clamp."""
        self.select_bits += bits
        self.registers += bits

    def count(self, *lasts: int) -> None:
        """Counters that run from 0 to each of these."""
        bits = sum(last.bit_length() for last in lasts)
        self.counter_bits += bits
        self.registers += bits

    def store(self, storage: Storage, copies: int = 1) -> None:
        self.block_rams += copies * storage.block_rams
        self.lutrams += copies * storage.lutrams
        if storage.style == "logic":
            self.table_bits += copies * storage.bits

    def __add__(self, other: Structure) -> Structure:
        return Structure(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Outlet(Elaboratable):
    """The end of a free-running pipeline: a FIFO and the credits that guard it.

    `available` says that a beat may be issued now; `issue` takes the credit; some cycles later `push` brings the
    `payload`. A beat pushed in one cycle is offered at `o` in the next.
    """

    def __init__(self, layout: data.Layout, credits: int):
        self.layout, self.credits = layout, credits
        self.storage = Storage(layout.size, credits, clocked=False)
        self.available = Signal(init=1)
        self.issue = Signal()
        self.push = Signal()
        self.payload = Signal(layout)
        self.o = stream.Signature(layout).create(path=("outlet",))

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.memory = memory = self.storage.memory(self.layout)
        write, read = memory.write_port(), memory.read_port(domain="comb")
        head, tail = (Signal(range(self.credits), name=name) for name in ("head", "tail"))
        level, free = Signal(range(self.credits + 1)), Signal(range(self.credits + 1), init=self.credits)
        pop = Signal()
        last = self.credits - 1
        m.d.comb += [
            pop.eq(self.o.valid & self.o.ready),
            write.addr.eq(tail),
            write.data.eq(self.payload),
            write.en.eq(self.push),
            read.addr.eq(head),
            self.o.payload.eq(read.data),
        ]
        with m.If(self.push):
            m.d.sync += tail.eq(_wrap(tail, last))
        with m.If(pop):
            m.d.sync += head.eq(_wrap(head, last))
        valid, after = Signal(), Signal.like(level)
        m.d.comb += [self.o.valid.eq(valid), after.eq(level + self.push - pop)]
        m.d.sync += [level.eq(after), valid.eq(after != 0)]
        left = Signal.like(free)
        m.d.comb += left.eq(free - self.issue + pop)
        m.d.sync += [free.eq(left), self.available.eq(left != 0)]
        return m


def _wrap(counter: Signal, last: int):
    """The counter's next value, counting 0..last."""
    return Mux(counter == last, 0, counter + 1)


def advance(m: Module, counter: Signal, last: int, enable) -> Signal:
    """Count 0..last on `enable`; the returned signal says that the counter is at `last`."""
    at_last = Signal(name=f"{counter.name}_at_last")
    m.d.comb += at_last.eq(counter == last)
    if last:
        with m.If(enable):
            m.d.sync += counter.eq(_wrap(counter, last))
    return at_last


class Stage(wiring.Component):
    """A component with streams `i` (and `right` for a second operand) and `o`, and a known `timing`.

    Subclasses set `timing` before calling `__init__` with the formats and lanes of their streams.

    latency    cycles from the first input beat to the first output beat, unstalled
    interval   cycles per frame, steady state, unstalled
    """

    timing: Timing
    #: The memories of its held inputs, in the order in which they are written; none in most stages.
    tables: Sequence[Any] = ()
    #: Where it has any: when it goes over to the next set (`rtl.parts.held.Exchange`), and the bits of its frame count.
    exchange: Any = None
    exchange_bits: int = 8
    _MustUse__silence = True  # planning makes stages that are never elaborated

    def __init__(self, inputs: list[tuple[Format, int]], output: tuple[Format, int]):
        names = ("i", "right")
        members = {name: In(stream.Signature(beat(*kind))) for name, kind in zip(names, inputs, strict=False)}
        super().__init__(members | {"o": Out(stream.Signature(beat(*output)))})
        self.lanes_in, self.lanes_out = inputs[0][1], output[1]
        self.operands = [getattr(self, name) for name in names[: len(inputs)]]

    @property
    def latency(self) -> int:
        return self.timing.latency

    @property
    def interval(self) -> int:
        return self.timing.interval

    def structure(self) -> Structure:
        """The output FIFO, its credits and the valid chain; subclasses add their own."""
        built = Structure(registers=2 + 2 * self.timing.depth)
        built.store(Storage(self.o.payload.shape().size, self.timing.credits, clocked=False))
        built.count(*[self.timing.credits] * 4)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """What it does for one frame: additions, products, traffic of memories.

        seen    the mean of what `counts` gives for a frame, of a stage whose cycles depend on the data
        """
        raise BittrueError(
            f"{type(self).__name__}: what it adds, multiplies and reads is not counted; give it a method `effort`"
        )

    def counts(self, *operands: np.ndarray) -> dict[str, int]:  # noqa: ARG002
        """What `effort` must be told of these frames `[n, *shape]`, summed over them; nothing by default."""
        return {}

    def outlet(self, m: Module) -> Outlet:
        """The output FIFO with its credits, connected to `o`."""
        m.submodules.outlet = outlet = Outlet(self.o.payload.shape(), self.timing.credits)
        m.d.comb += [
            self.o.valid.eq(outlet.o.valid),
            self.o.payload.eq(outlet.o.payload),
            outlet.o.ready.eq(self.o.ready),
        ]
        return outlet

    def accept(self, m: Module, outlet: Outlet) -> Signal:
        """Direct stages: whether a beat of every operand is taken in this cycle."""
        go = Signal(name="go")
        if len(self.operands) == 1:
            m.d.comb += [go.eq(self.i.valid & outlet.available), self.i.ready.eq(outlet.available)]
        else:
            left, right = self.operands
            m.d.comb += [
                go.eq(outlet.available & left.valid & right.valid),
                left.ready.eq(outlet.available & right.valid),
                right.ready.eq(outlet.available & left.valid),
            ]
        return go


#: (Operation type, architecture) -> the class that makes its stage: `make(operation, lanes=..., **folding)`.
REALISATIONS: dict[tuple[type[Operation], str], Callable[..., Stage]] = {}

#: The package of the stages.
STAGES = "bittrue.rtl.dataflow.stages"

#: The architecture of an operation that has only one, and the first choice of one that has several.
PARALLEL = "parallel"


def realises(operation: type[Operation], architecture: str = PARALLEL):
    """Register the component of an operation."""

    def enter(make):
        REALISATIONS[operation, architecture] = make
        return make

    return enter


def realisation(operation: Operation, architecture: str = PARALLEL) -> Callable[..., Stage]:
    """The component of an operation, found in the module of the same stem as the operation's."""
    kind = type(operation)
    stem = kind.__module__.rpartition(".")[2]
    if (kind, PARALLEL) not in REALISATIONS:
        try:
            importlib.import_module(f"{STAGES}.{stem}")
        except ModuleNotFoundError as error:
            if error.name != f"{STAGES}.{stem}":
                raise
    known = [name for of, name in REALISATIONS if of is kind]
    if not known:
        raise BittrueError(
            f"{kind.__name__.lower()} has no RTL component; "
            f"write rtl/dataflow/stages/{stem}.py with @realises({kind.__name__})"
        )
    if architecture not in known:
        raise BittrueError(f"{stem} has no architecture {architecture!r}; choose one of {', '.join(known)}")
    return REALISATIONS[kind, architecture]


def architectures() -> set[str]:
    """The names of all architectures that any operation has."""
    package = importlib.import_module(STAGES)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{STAGES}.{module.name}")
    return {name for _, name in REALISATIONS}
