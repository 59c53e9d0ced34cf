"""What everything downstream asks of hardware: a `Design` realises a program, however it is built.

Verification, synthesis, reports, compiled and cocotb runs take a `Design` and nothing else. Every design has

    aclk, aresetn       clock, and reset (active low, synchronous)
    s_axis..., m_axis... an AXI4-Stream slave for each streamed input of the program, a master for each result

and what it declares beyond: weights that are written, streams that go in again and again, AXI4-Lite, other ports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bittrue.rtl.bus.lite import AxiLite
from bittrue.rtl.bus.ports import ERROR_BITS
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.reading import shown

if TYPE_CHECKING:
    from bittrue.rtl.bus.access import Access
    from bittrue.rtl.bus.ports import StreamPort
    from bittrue.rtl.bus.registers import RegisterMap
    from bittrue.rtl.dataflow.estimate import Area
    from bittrue.sim.held import Set
    from bittrue.sim.program import Program
    from bittrue.sim.system import System

#: The top module of every design, and the prefix of its AXI4-Lite port.
TOP, BUS = "bittrue_top", "s_axi"
#: Bits of the counters of written and of refused sets.
COUNT_BITS = 8


@dataclass(frozen=True)
class Port:
    """One port of the top: its direction (`input` or `output`), width in bits, and value while nobody drives it."""

    name: str
    direction: str
    width: int
    idle: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.direction} {self.name}, {self.width} bit" + ("s" if self.width > 1 else "")


@dataclass(frozen=True, eq=False)
class Feed:
    """A stream that goes in beside the inputs: `words`, uint8 `[beats, bytes]`, again and again, TLAST on the last."""

    prefix: str
    words: np.ndarray


@dataclass(frozen=True, eq=False)
class Cycles:
    """When frames end, unstalled, in cycles from the first input beat that is accepted.

    first         int64 `[outputs]`, of the first beat of every output; a number, where there is one output
    output_ends   int64 `[outputs, n]`, of the last beat of every frame on every output; `[n]`, where there is one
    """

    first: np.ndarray
    output_ends: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", np.atleast_1d(np.asarray(self.first, np.int64)))
        object.__setattr__(self, "output_ends", np.atleast_2d(np.asarray(self.output_ends, np.int64)))

    @property
    def latency(self) -> int:
        """Of the first beat of the output that begins last."""
        return int(self.first.max())

    @property
    def ends(self) -> np.ndarray:
        """Of the end of every frame, int64 `[n]`: of the last beat of the output that ends it last."""
        return self.output_ends.max(axis=0)


@dataclass(frozen=True)
class Part:
    """An instance below the top that is worth a row of its own: a stage, a controller.

    name, path   for people; the instances from the top down
    node         the operation that it realises, if it is one
    """

    name: str
    path: tuple[str, ...]
    node: str | None = None


@dataclass(frozen=True)
class Probe:
    """A stream within the design that carries a tensor of the program, frame after frame.

    node, format, lanes   which tensor, the format of its codes, codes a beat: lane 0 in the low bits of the payload
    path                  the instance whose stream it is, from the top down; it has `clk` and `rst`
    payload, valid, ready its signals there
    """

    node: str
    format: Format
    lanes: int
    path: tuple[str, ...]
    payload: str = "o__payload"
    valid: str = "o__valid"
    ready: str = "o__ready"


@dataclass(frozen=True, eq=False)
class Sighting:
    """Some codes of a tensor, seen in a cycle.

    node, frame   which tensor of which frame of the run
    places        int64, where in the flat tensor the codes are; `codes` int64
    known         False when a bit was neither 0 nor 1: then the codes mean nothing
    """

    node: str
    frame: int
    places: np.ndarray
    codes: np.ndarray
    cycle: int
    known: bool = True


class Tap(ABC):
    """Sees tensors of the program within the design, cycle by cycle.

    signals   the nets that it looks at: a key of its own -> their path, from the top down
    """

    signals: Mapping[str, tuple[str, ...]]

    @abstractmethod
    def see(self, cycle: int, value: Callable[[str], str]) -> Iterable[Sighting]:
        """What there is at a rising edge of the clock out of reset; `value(key)` is the text of a net's bits."""


class StreamTap(Tap):
    """Looks at every `Probe`."""

    def __init__(self, probes: Sequence[Probe], sizes: Mapping[str, int]) -> None:
        self.probes, self.sizes = tuple(probes), sizes
        self.beats = [0] * len(self.probes)
        self.signals = {
            f"{k} {name}": (*probe.path, name)
            for k, probe in enumerate(self.probes)
            for name in (probe.payload, probe.valid, probe.ready)
        }

    def see(self, cycle: int, value: Callable[[str], str]) -> Iterable[Sighting]:
        for k, probe in enumerate(self.probes):
            if value(f"{k} {probe.valid}") == "1" and value(f"{k} {probe.ready}") == "1":
                frame, beat = divmod(self.beats[k], self.sizes[probe.node] // probe.lanes)
                self.beats[k] += 1
                places = np.arange(beat * probe.lanes, (beat + 1) * probe.lanes)
                codes, known = read_codes(value(f"{k} {probe.payload}"), probe.format, probe.lanes)
                yield Sighting(probe.node, frame, places, codes, cycle, known)


def read_codes(bits: str, fmt: Format, count: int) -> tuple[np.ndarray, bool]:
    """The lowest `count` codes of a word of a waveform, lane 0 lowest, and whether all of their bits are known."""
    bits = bits.rjust(fmt.bits * count, "0" if bits[:1] in ("0", "1") else bits[:1])[-fmt.bits * count :]
    known = set(bits) <= {"0", "1"}
    word = int("".join(bit if bit in "01" else "0" for bit in bits), 2)
    codes = np.array([word >> fmt.bits * k & fmt.levels - 1 for k in range(count)], np.int64)
    return (np.where(codes > fmt.high, codes - fmt.levels, codes) if fmt.signed else codes), known


class Design(ABC):
    """Hardware that realises a program.

    kind       of the class, in JSON: the folder below `rtl` with its module `design`
    name       in rows of reports and names of files;  `title` for people
    program    what it realises
    inputs     AXI4-Stream slave ports, in the order of the program's inputs
    outputs    AXI4-Stream master ports, in the order of the program's results
    weights    AXI4-Stream slave port at which sets of held inputs are written, a frame a set; with it come the outputs
               `weights_sets` and `weights_errors` (`rtl.dataflow.loader`)
    feeds      streams that go in beside them, again and again
    map        of the AXI4-Lite registers at `s_axi_*`, if there are any
    system     the programs that it boots from, where what is held is made by another program (`sim.system`)
    others     ports beyond all these; inputs of them stay at `idle`
    interval   cycles between frames in steady state, unstalled
    latency    cycles from the first input beat to the first output beat, of several outputs that of the one that
               begins last, unstalled
    steady     whether the two hold whatever the frames are; if not, they are what there is in general, and `expect`
               knows the cycles of every frame
    patience   cycles without a handshake on any stream that are no deadlock
    shown      most frames that a waveform of it should have; None: no limit
    """

    kind: ClassVar[str]
    name: str
    title: str
    program: Program
    inputs: tuple[StreamPort, ...]
    outputs: tuple[StreamPort, ...]
    weights: StreamPort | None = None
    feeds: tuple[Feed, ...] = ()
    map: RegisterMap | None = None
    system: System | None = None
    others: tuple[Port, ...] = ()
    interval: int
    latency: int
    steady: bool = True
    patience: int = 1 << 14
    shown: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind := cls.__dict__.get("kind"):
            KINDS[kind] = cls

    # -- what it must have -----------------------------------------------------------------------------
    @abstractmethod
    def verilog(self) -> str:
        """Its text, with the module `bittrue_top`; same design, same bytes."""

    @abstractmethod
    def expect(self, *x: np.ndarray) -> Cycles:
        """The exact cycles of these very frames, one after the other, unstalled.

        Of a program whose frames go in groups it also takes `held`, what is written meanwhile.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that it depends on besides the program; `load` reads it back."""

    @classmethod
    @abstractmethod
    def from_json(cls, program: Program, value: Mapping[str, Any]) -> Design:
        """The design of `to_json`; a BittrueError when it was made for another program."""

    # -- what it may have ------------------------------------------------------------------------------
    @property
    def estimate(self) -> Area | None:
        """Its area before synthesis, in the units of an ECP5."""
        return None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Instances for tables of toggles."""
        return ()

    @property
    def instances(self) -> Mapping[str, tuple[str, ...]]:
        """By the path of an instance (`pipeline`), all instances directly below it; the Verilog is held to that."""
        return {}

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Streams within it that carry tensors of the program."""
        return ()

    def tap(self) -> Tap:
        """What finds the first divergence: by default the `probes`."""
        return StreamTap(self.probes, {name: kind.size for name, kind in self.program.types.items()})

    def accesses(self, frames: int) -> tuple[Access, ...]:  # noqa: ARG002
        """Accesses to its registers in a verification of so many frames, and what must come back."""
        return ()

    def describe(self) -> dict[str, Any]:
        """For reports: cycles, stages, lanes, FIFOs, the estimated area."""
        area = self.estimate
        return {
            "design": self.name,
            "title": self.title,
            "estimated_interval": self.interval,
            "estimated_latency": self.latency,
            "input_lanes": {n: port.lanes for n, port in zip(self.program.inputs, self.inputs, strict=True)},
            "output_lanes": {n: port.lanes for n, port in zip(self.program.results, self.outputs, strict=True)},
            "fifos": {},
            "stages": [],
            "estimated": area and {name: getattr(area, name) for name in ("lut", "ff", "dsp", "bram")},
        }

    def pack_set(self, values: Set) -> np.ndarray:  # noqa: ARG002
        """The words of a set of held inputs, int64, in the order in which the port `weights` takes them."""
        raise BittrueError(f"{self.title}: none of its weights are written while it runs")

    def write_set(self, values: Set, frame: int, sets: int) -> tuple[Access, ...]:  # noqa: ARG002
        """The accesses on AXI4-Lite that write a set, which holds from this frame of a run on; the `sets`-th of it."""
        raise BittrueError(f"{self.title}: none of its weights are written over AXI4-Lite")

    def unsuited(self, target: str) -> str | None:  # noqa: ARG002
        """Why it cannot be what it is on a target, as a sentence; None where it can."""
        return None

    def remedy(self, target: str) -> str:  # noqa: ARG002
        """What to do when it does not fit a target."""
        return "choose a larger target"

    # -- for all ---------------------------------------------------------------------------------------
    @property
    def ports(self) -> tuple[Port, ...]:
        """Every port of the top, in order."""
        ports = [Port("aclk", "input", 1), Port("aresetn", "input", 1)]
        for stream, along, against in [
            *((port, "input", "output") for port in self.inputs),
            *((port, "output", "input") for port in self.outputs),
        ]:
            ports += stream_ports(stream.prefix, stream.width, along, against)
            ports += [Port(stream.framing_errors, "output", ERROR_BITS)] if stream.counts_errors else []
        if self.weights is not None:
            ports += stream_ports(self.weights.prefix, self.weights.width, "input", "output")
            ports += [Port(name, "output", COUNT_BITS) for name in ("weights_sets", "weights_errors")]
        return (*ports, *other_ports(self.feeds, self.map, self.others))


#: Every class by its kind.
KINDS: dict[str, type[Design]] = {}


def load(program: Program, value: Mapping[str, Any]) -> Design:
    """The design that `to_json` wrote."""
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str):
        raise BittrueError("design: its file is not one that bittrue writes; make the design again")
    package = f"bittrue.rtl.{kind}"
    if kind not in KINDS and kind.isidentifier() and find_spec(package) and find_spec(f"{package}.design"):
        import_module(f"{package}.design")
    if kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise BittrueError(f"design: no kind {shown(kind)}; known are {known}; make the design again")
    try:
        return KINDS[kind].from_json(program, value)
    except BittrueError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, MemoryError) as error:
        raise BittrueError(
            f"design: its file is not one that bittrue writes ({shown(error)}); make the design again"
        ) from error


def other_ports(feeds: Sequence[Feed], registers: RegisterMap | None, others: Sequence[Port]) -> tuple[Port, ...]:
    """The ports beside the streams of the program, in order."""
    ports: list[Port] = []
    for feed in feeds:
        ports += stream_ports(feed.prefix, 8 * feed.words.shape[1], "input", "output")
    if registers is not None:
        for name, member in AxiLite(registers.address_bits).members.items():
            ports.append(Port(f"{BUS}_{name}", "input" if member.flow.name == "In" else "output", member.shape))
    return (*ports, *others)


def stream_ports(prefix: str, width: int, along: str, against: str) -> list[Port]:
    """The ports of an AXI4-Stream, `along` being the direction of its data."""
    return [
        Port(f"{prefix}_tdata", along, width),
        Port(f"{prefix}_tvalid", along, 1),
        Port(f"{prefix}_tlast", along, 1),
        Port(f"{prefix}_tready", against, 1),
    ]
