"""A folded matrix stage that reads the ring of pixels itself: a window and the product of its rows in one stage.

A window stage gives every window out once, beat by beat, and a matrix stage behind it stores two of them, to read each
for one group of outputs after the other. Here each window is read from the ring as often as there are groups of
outputs, and what is read is multiplied at once: no vectors are stored, and nothing waits until a vector has come. The
ring has words of `simd` codes then, or of a pixel, and keeps a window as long as it is read.

It can be where a `Window` has one reader (a `Reshape` between them is wires), and where `simd` codes are some channels
of a tap, or all of some taps (`rtl.dataflow.windows.lane_choices`); `rtl.dataflow.rings` decides where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from amaranth.hdl import Module, Signal, Value

from bittrue.rtl.dataflow.buffered import Steps
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.ring import Reading, Ring
from bittrue.rtl.dataflow.stage import Outlet, Stage, Structure, advance, counting
from bittrue.rtl.dataflow.timing import Phases, enough_credits
from bittrue.rtl.dataflow.windows import Order, lane_choices
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.window import Window


@dataclass(frozen=True)
class Passes(Steps):
    """The steps of windows that are read in place: `at`, what goes on in their ring."""

    at: Reading


def ring_lanes(window: Window, simd: int, offered: int) -> int:
    """The codes of a beat that a ring takes of a stream that offers so many: a word of it, or a part.

    A word has a power of two of parts, which take no more whole bytes of a block RAM than it does.
    """
    word = min(simd, window.input.channels)
    lanes = gcd(word, offered)
    parts, bits = word // lanes, window.input.format.bits
    small = parts & (parts - 1) or -(-lanes * bits // 9) * parts > -(-word * bits // 9)
    return word if small else lanes


class Convolved:
    """What a folded matrix stage does otherwise that reads a ring; see the module. Comes before the stage's class."""

    def __init__(
        self, operation, *, window: Window, lanes: int, simd: int, pe: int, block_luts: int | None = None
    ) -> None:
        taps, vector = window.taps * window.input.channels, operation.weight.shape[1]
        if vector != taps:
            raise BittrueError(f"window: its {taps} codes are no vectors of {vector}")
        if operation.input.format != window.input.format:
            told = f"codes {operation.input.format}: they are {window.input.format}"
            raise BittrueError(f"window: its {taps} codes are no vectors of {vector} {told}")
        if simd not in (legal := lane_choices(window)):
            raise BittrueError(
                f"window: simd = {simd} is none of {', '.join(map(str, legal))}, channels or whole taps, so the "
                "product cannot read its ring; choose one of them, or leave the window a stage of its own (ring=False)"
            )
        if lanes != ring_lanes(window, simd, lanes):
            raise BittrueError(f"window: beats of {lanes} codes are no parts of the words of its ring")
        self.window = window
        self.order = Order(window, simd, lanes, operation.weight.shape[0] // pe)
        super().__init__(operation, lanes=lanes, simd=simd, pe=pe, block_luts=block_luts)  # type: ignore[call-arg]

    def store(self) -> Ring:
        return Ring(self.order, self.block_luts)  # type: ignore[attr-defined]

    def moves(self, lanes: int, depth: int) -> Phases:  # noqa: ARG002
        steps, turns = self.products.steps, self.turns  # type: ignore[attr-defined]
        return Phases(
            self.order.phases(steps, turns),
            (self.order.most,),
            depth=depth,
            credits=enough_credits(depth, steps, turns),
        )

    @property
    def beats_of_vector(self) -> int:
        return self.order.repeat

    @property
    def vectors_of_frame(self) -> int:
        return self.operation.input.tokens  # type: ignore[attr-defined]

    def front(self) -> Structure:
        built = Stage.structure(self)  # type: ignore[arg-type]
        built.count(self.order.beats * self.order.repeat - 1)
        return built + self.vectors.structure(self.address_registers[0])  # type: ignore[attr-defined]

    def access(self, effort: Effort) -> None:
        self.vectors.access(effort)  # type: ignore[attr-defined]

    def control(self, m: Module, outlet: Outlet) -> Passes:
        go, issue = Signal(name="advance"), Signal(name="issue")
        at = self.vectors.follow(m, self.i, go)  # type: ignore[attr-defined]
        m.d.comb += [go.eq(at.active & (outlet.available | ~at.ends.window)), issue.eq(go & at.ends.window)]
        m.d.comb += outlet.issue.eq(issue)
        words = self.order.beats * self.order.repeat
        word = Signal(counting(words), name="word")
        advance(m, word, words - 1, go)
        return Passes(go, word, issue, issue, at.release, at)

    def read(self, m: Module, control: Passes) -> list[Value]:
        return self.vectors.build(m, control.at, self.i.payload, self.address_registers[0])  # type: ignore[attr-defined]
