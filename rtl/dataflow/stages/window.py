"""Windows of an image: a ring of pixels in one memory, read by address, a word a beat."""

from __future__ import annotations

from amaranth.hdl import Module, Signal

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folding import Folding, check_folding
from bittrue.rtl.dataflow.ring import Ring
from bittrue.rtl.dataflow.stage import Stage, Structure, realises, valid_chain
from bittrue.rtl.dataflow.timing import Phases, enough_credits
from bittrue.rtl.dataflow.windows import Order, lane_choices
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.window import Window


@realises(Window)
class WindowStage(Stage):
    """`y[r, s, i, j, c] = x[r sy + i dy - top, s sx + j dx - left, c]`, `simd` codes a beat: some channels of a tap, or
    all of some taps, down to a whole window.

    Latency     until the first window's last pixel has come, and depth = place 1, memory 1, code 1 where it is block
                RAM, output FIFO 1
    Throughput  one beat a cycle; a frame every max(H W C / lanes, OH OW taps C / simd) cycles, lanes = min(simd, C)
    Memory      a ring of pixels: about kernel rows - 1 + stride rows, to the next power of two; one for each tap of a
                beat, written so much earlier that all are read at one address
    """

    folds = True
    whole_beats = True

    def __init__(self, operation: Window, *, lanes: int, simd: int, pe: int):
        check_folding("window", pe=(pe, 1))
        if simd not in (legal := lane_choices(operation)):
            raise BittrueError(
                f"window: simd = {simd} is none of {', '.join(map(str, legal))}: channels, or whole taps"
            )
        self.operation = operation
        self.order = Order(operation, simd)
        if lanes != self.order.lanes_in:
            raise BittrueError(f"window: it takes {self.order.lanes_in} codes in every beat, not {lanes}")
        self.ring = Ring(self.order)
        self.storage = self.ring.storage
        depth = self.arrival + 1
        self.timing = Phases(self.order.phases(), (self.order.room,), depth=depth, credits=enough_credits(depth))
        super().__init__([(operation.input.format, lanes)], (operation.input.format, simd))

    # -- planning --------------------------------------------------------------------------------------
    @classmethod
    def foldings(cls, operation: Window) -> list[Folding]:
        """By codes a beat: what divides the channels, or whole taps."""
        return [Folding(lanes, 1) for lanes in lane_choices(operation)]

    @classmethod
    def intervals(cls, operation: Window) -> set[int]:
        return {Order(operation, f.simd).interval for f in cls.foldings(operation)}

    @classmethod
    def fold(cls, operation: Window, interval: int, name: str) -> Folding:
        """The fewest lanes."""
        for folding in cls.foldings(operation):
            if Order(operation, folding.simd).interval <= interval:
                return folding
        least = min(cls.intervals(operation))
        raise BittrueError(
            f"{name}: with a pixel in and a window out in every cycle it takes {least} cycles a frame, more than "
            f"{interval}; ask for an interval of {least} or more"
        )

    @classmethod
    def gives(cls, folding: Folding) -> int:
        return folding.simd

    # -- what it is built of ---------------------------------------------------------------------------
    def structure(self) -> Structure:
        return super().structure() + self.ring.structure()

    @property
    def arrival(self) -> int:
        """Cycles from a beat's issue to its code: place in the ring 1, memory 1, and 1 that a block RAM takes in."""
        return 2 + self.ring.registered

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every code is written once to each ring, and read as often as a window sees it."""
        effort = Effort()
        self.ring.access(effort)
        return effort

    # -- hardware --------------------------------------------------------------------------------------
    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        go = Signal(name="advance")
        at = self.ring.follow(m, self.i, go)
        m.d.comb += [go.eq(at.active & outlet.available), outlet.issue.eq(go)]
        m.d.comb += outlet.push.eq(valid_chain(m, go, self.arrival)[-1])
        m.d.comb += [outlet.payload[lane].eq(c) for lane, c in enumerate(self.ring.build(m, at, self.i.payload))]
        return m
