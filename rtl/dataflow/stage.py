"""The shell every component shares: streams in and out, credits, an output FIFO, and timing known in advance.

A stage is one of two kinds, described by its `Timing` (`timing.py`):

*direct*    every accepted input beat enters a free-running pipeline; of each block of them the last ones come out
            (element-wise functions, sums, widening).
*buffered*  input beats fill a memory; what has come is worked through while more comes in (matrix products,
            transposes, FIFOs, narrowing). Where a result takes several blocks (time steps), only the last of them
            gives output; where the work depends on the data, the schedule is told it.

Nothing in the pipeline ever stops: a beat is let in only when a credit says that its result will find room in the
output FIFO. So no enable fans out, `ready` and `valid` come from registers, and both kinds are modelled to the cycle
by `rtl.dataflow.schedule`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from amaranth.hdl import Cat, Elaboratable, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.structure import Storage, Structure
from bittrue.rtl.dataflow.timing import Timing
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation

if TYPE_CHECKING:
    from bittrue.rtl.dataflow.folding import Folding


def shape_of(fmt: Format | Range) -> Shape:
    """The Amaranth shape of a code or of a value within a range."""
    if isinstance(fmt, Range):
        fmt = fmt.format
    return Shape(fmt.bits, fmt.signed)


def counting(values: int) -> range:
    """The shape of a counter 0..values-1; one bit at least, for Verilog reads the bounds [-1:0] as two bits."""
    return range(max(values, 2))


def counting_bits(values: int) -> int:
    """The bits of such a counter."""
    return max(1, (values - 1).bit_length())


def beat(fmt: Format, lanes: int) -> data.ArrayLayout:
    """Payload of a stream between stages: `lanes` codes, lane 0 the innermost channel."""
    return data.ArrayLayout(shape_of(fmt), lanes)


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


class Outlet(Elaboratable):
    """The end of a free-running pipeline: a FIFO and the credits that guard it.

    `available` says that a beat may be issued now; `issue` takes the credit; some cycles later `push` brings the
    `payload`. A beat pushed in one cycle is offered at `o` in the next. An issue may be of several beats `at_once`,
    which are pushed one after the other.
    """

    def __init__(self, layout: data.Layout, credits: int, at_once: int = 1):
        self.layout, self.credits, self.at_once = layout, credits, at_once
        self.storage = Storage(layout.size, credits, clocked=False)
        self.available = Signal()
        self.issue = Signal()
        self.push = Signal()
        self.payload = Signal(layout)
        self.o = stream.Signature(layout).create(path=("outlet",))

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.memory = memory = self.storage.memory(self.layout)
        write, read = memory.write_port(), memory.read_port(domain="comb")
        head, tail = (Signal(range(self.credits), name=name) for name in ("head", "tail"))
        # Beats beyond one, and credits beyond those of an issue: their sign alone tells, so nothing is compared.
        beyond = Signal(range(-1, self.credits), init=-1, name="beyond")
        spare = Signal(
            range(-self.at_once, self.credits - self.at_once + 1), init=self.credits - self.at_once, name="spare"
        )
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
        m.d.comb += [self.o.valid.eq(~beyond[-1]), self.available.eq(~spare[-1])]
        with m.If(self.push ^ pop):
            m.d.sync += beyond.eq(beyond + Mux(self.push, 1, -1))
        if self.at_once == 1:
            with m.If(self.issue ^ pop):
                m.d.sync += spare.eq(spare + Mux(self.issue, -1, 1))
        else:
            m.d.sync += spare.eq(spare - Mux(self.issue, self.at_once, 0) + pop)
        return m


def _wrap(counter: Signal, last: int):
    """The counter's next value, counting 0..last."""
    return counter + 1 if last + 1 == 1 << len(counter) else Mux(counter == last, 0, counter + 1)


def tally(m: Module, count: Signal, most: int, up: Value, down: Value) -> tuple[Value, Value]:
    """Count up and down, 0..most; whether it is not 0 and whether it is not `most` in the next cycle.

    Both are told from what the count is now, so that no late `up` or `down` waits for an addition.
    """
    moves = Signal(name=f"{count.name}_moves")
    m.d.comb += moves.eq(up ^ down)
    with m.If(moves):
        m.d.sync += count.eq(count + Mux(up, 1, -1))
    return Mux(moves, up | (count != 1), count != 0), Mux(moves, down | (count != most - 1), count != most)


def advance(m: Module, counter: Signal, last: int, enable) -> Signal:
    """Count 0..last on `enable`; the returned signal says that the counter is at `last`."""
    at_last = Signal(name=f"{counter.name}_at_last")
    m.d.comb += at_last.eq(counter == last)
    if last:
        with m.If(enable):
            m.d.sync += counter.eq(_wrap(counter, last))
    return at_last


class Stage(wiring.Component):
    """A component with a stream for every operand (`i`, `i1`, `i2`, ...), a stream `o`, and a known `timing`.

    Subclasses set `timing` before calling `__init__` with the formats and lanes of their streams.

    operands   the streams of the operands
    latency    cycles from the first input beat to the first output beat, unstalled
    interval   cycles per frame, steady state, unstalled

    What the planner may ask a stage's class, before there is a stage, are the class methods below.
    """

    timing: Timing
    #: The memories of its held inputs, in the order in which they are written; none in most stages.
    tables: Sequence[Any] = ()
    #: Where it has any: when it goes over to the next set (`rtl.parts.held.Exchange`), and the bits of its frame count.
    exchange: Any = None
    exchange_bits: int = 8
    _MustUse__silence = True  # planning makes stages that are never elaborated

    #: Whether the stage can be folded: then `foldings`, `intervals` and `fold` answer.
    folds: ClassVar[bool] = False
    #: LUTs that a block RAM is worth in its memories; None where a plan has no say in that.
    block_luts: int | None = None
    #: Whether a folded stage takes `simd` codes, or all channels, in every beat, so that a narrower stream is widened.
    whole_beats: ClassVar[bool] = False
    #: Whether `fold` may be told the `lanes` of its operand's stream.
    told_lanes: ClassVar[bool] = False
    #: Whether it is nothing but the stream of its operand: then no stage is made.
    wires: ClassVar[bool] = False
    #: Whether the cycles of a frame depend on its data: then `fold` may be told an `activity`, and `work` answers.
    dynamic: ClassVar[bool] = False

    #: What realises it together with the window that it reads, where there is such a stage (`rtl.dataflow.convolved`).
    convolved: ClassVar[type[Stage] | None] = None

    #: Which one it is of those that its operation has.
    architecture: ClassVar[str]

    @classmethod
    def refusal(cls, operation: Operation) -> str | None:  # noqa: ARG003
        """Why this architecture cannot be that of an operation; None where it can."""
        return None

    @classmethod
    def preferred(cls, operation: Operation, interval: int) -> bool:  # noqa: ARG003
        """Whether the planner takes it before the others to work a frame off in `interval`, if it is not refused."""
        return False

    @classmethod
    def foldings(cls, operation: Operation) -> list[Folding]:  # noqa: ARG003
        """Every legal folding; none, where there is nothing to fold."""
        return []

    @classmethod
    def intervals(cls, operation: Operation) -> set[int]:  # noqa: ARG003
        """The cycles per frame that its foldings give."""
        return set()

    @classmethod
    def fold(cls, operation: Operation, interval: int, name: str) -> Folding:
        """The smallest folding that works a frame off within `interval` cycles; the error of none names the node.

        A dynamic stage takes the share of ones in what it reads, too, as `activity`.
        """
        raise NotImplementedError(f"{cls.__name__} cannot be folded")

    @classmethod
    def gives(cls, folding: Folding) -> int | None:  # noqa: ARG003
        """The codes of a beat that a stage so folded gives, where its readers should go by them."""
        return None

    @classmethod
    def legal_lanes(cls, operation: Operation, offered: int) -> int:  # noqa: ARG003
        """The codes of a beat that a stage which is not folded takes, when so many are offered."""
        return offered

    def work(self, *tensors: np.ndarray) -> np.ndarray:
        """Dynamic stages: the cycles of every block of a batch of operands `[n, *shape]`, in stream order."""
        raise NotImplementedError(f"the cycles of {type(self).__name__} do not depend on its data")

    def __init__(self, inputs: list[tuple[Format, int]], output: tuple[Format, int]):
        if len(inputs) != self.timing.operands:
            raise ValueError(f"{type(self).__name__}: {len(inputs)} inputs, but timing for {self.timing.operands}")
        names = [f"i{k}" if k else "i" for k in range(len(inputs))]
        members = {name: In(stream.Signature(beat(*kind))) for name, kind in zip(names, inputs, strict=True)}
        super().__init__(members | {"o": Out(stream.Signature(beat(*output)))})
        self.lanes_in, self.lanes_out = inputs[0][1], output[1]
        self.operands = [getattr(self, name) for name in names]

    def timed(self, modes: Sequence[int]) -> Timing:  # noqa: ARG002
        """Its timing where the frames go in groups of these sizes, one after the other; only of stages that regroup
        does it depend on that."""
        return self.timing

    @property
    def behind(self) -> Stage | None:
        """A stage that has to follow at once: what puts its output in order, or holds it; None where there is none."""
        return None

    @property
    def latency(self) -> int:
        return self.timing.latency

    @property
    def interval(self) -> int:
        return self.timing.interval

    def structure(self) -> Structure:
        """The output FIFO, its credits and the valid chain; subclasses add their own."""
        credits = self.timing.credits
        built = Structure(registers=2 + self.timing.depth - 1)  # two signs; the outlet is the last cycle
        built.store(Storage(self.o.payload.shape().size, credits, clocked=False))
        built.count(credits - 1, credits - 1, credits - 1, max(self.timing.at_once - 1, credits - self.timing.at_once))
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
        m.submodules.outlet = outlet = Outlet(self.o.payload.shape(), self.timing.credits, self.timing.at_once)
        m.d.comb += [
            self.o.valid.eq(outlet.o.valid),
            self.o.payload.eq(outlet.o.payload),
            outlet.o.ready.eq(self.o.ready),
        ]
        return outlet

    def accept(self, m: Module, outlet: Outlet) -> Signal:
        """Direct stages: whether a beat of every operand is taken in this cycle."""
        go = Signal(name="go")
        valids = [operand.valid for operand in self.operands]
        m.d.comb += go.eq(Cat(outlet.available, *valids).all())
        for k, operand in enumerate(self.operands):
            m.d.comb += operand.ready.eq(Cat(outlet.available, *valids[:k], *valids[k + 1 :]).all())
        return go


#: (Operation type, architecture) -> the class that makes its stage: `make(operation, lanes=..., **folding)`.
REALISATIONS: dict[tuple[type[Operation], str], type[Stage]] = {}

#: The package of the stages.
STAGES = "bittrue.rtl.dataflow.stages"

#: The architecture of an operation that has only one, and the first choice of one that has several.
PARALLEL = "parallel"


def realises(operation: type[Operation], architecture: str = PARALLEL):
    """Register the component of an operation."""

    def enter(make):
        REALISATIONS[operation, architecture], make.architecture = make, architecture
        return make

    return enter


def realisation(operation: Operation, architecture: str = PARALLEL) -> type[Stage]:
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
