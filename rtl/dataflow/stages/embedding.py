"""Rows of a table by an index: one ROM, read a beat of a row at a time."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folding import Folding, check_folding, divisors
from bittrue.rtl.dataflow.stage import (
    Stage,
    Storage,
    Structure,
    advance,
    counting,
    realises,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.timing import Phase, Phases, enough_credits
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.embedding import Embedding

#: Cycles from a beat's issue to its codes: address 1, memory 1, codes 1.
ARRIVAL = 3


@realises(Embedding)
class EmbeddingStage(Stage):
    """`y[..., d] = entries[min(x[...], R - 1), d]`, `pe` codes of a row a beat, an index (`simd` = 1) for each row.

    The ROM has a row for every index that there can be, so that none is compared with R; its address is the index
    behind the number of the beat within the row, so that none is multiplied.

    Latency     4 cycles: address 1, memory 1, codes 1, output FIFO 1
    Throughput  one beat a cycle; a frame every indices D / pe cycles
    """

    folds = True
    whole_beats = True

    def __init__(self, operation: Embedding, *, lanes: int, simd: int, pe: int):
        check_folding("embedding", simd=(simd, 1), pe=(pe, operation.dimension))
        if lanes != 1:
            raise BittrueError(f"embedding: it takes one index in every beat, not {lanes}")
        self.operation = operation
        self.beats = operation.dimension // pe
        depth = ARRIVAL + 1
        phases = [Phase((1,), (1,)), Phase((0,), (0,), times=self.beats - 1)]
        self.timing = Phases(
            tuple(phase for phase in phases if phase.times), (0,), depth=depth, credits=enough_credits(depth),
            frame=operation.input.size,
        )  # fmt: skip
        super().__init__([(operation.input.format, 1)], (operation.format, pe))

    # -- planning --------------------------------------------------------------------------------------
    @classmethod
    def foldings(cls, operation: Embedding) -> list[Folding]:
        """Any number of codes that divides a row."""
        return [Folding(1, pe) for pe in divisors(operation.dimension)]

    @classmethod
    def intervals(cls, operation: Embedding) -> set[int]:
        return {operation.output.size // folding.pe for folding in cls.foldings(operation)}

    @classmethod
    def fold(cls, operation: Embedding, interval: int, name: str) -> Folding:
        """The fewest codes a beat."""
        for folding in cls.foldings(operation):
            if operation.output.size // folding.pe <= interval:
                return folding
        raise BittrueError(
            f"{name}: with a whole row in a beat it takes {operation.input.size} cycles a frame, more than {interval}; "
            f"ask for an interval of {operation.input.size} or more"
        )

    @classmethod
    def gives(cls, folding: Folding) -> int | None:
        return folding.pe

    # -- what it is built of ---------------------------------------------------------------------------
    @property
    def storage(self) -> Storage:
        op = self.operation
        return Storage(self.lanes_out * op.format.bits, self.beats * op.input.format.levels, table=True)

    def structure(self) -> Structure:
        built, op = super().structure(), self.operation
        built.count(self.beats - 1)
        built.store(self.storage)
        built.registers += op.input.format.bits + (self.beats - 1).bit_length() + self.storage.width
        built.select_bits += op.input.format.bits if self.beats > 1 else 0
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every code that it gives is read."""
        effort = Effort()
        effort.access("weights", self.storage.bits, self.operation.output.size * self.operation.format.bits)
        return effort

    # -- hardware --------------------------------------------------------------------------------------
    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        op = self.operation
        outlet = self.outlet(m)
        layout = data.ArrayLayout(shape_of(op.format), self.lanes_out)
        content = [
            [int(code) for code in row[beat * self.lanes_out : (beat + 1) * self.lanes_out]]
            for beat in range(self.beats)
            for row in op.complete
        ]
        m.submodules.entries = rom = self.storage.memory(layout, content)
        port = rom.read_port(domain="sync")
        go, at = Signal(name="go"), Signal(counting(self.beats), name="at")
        advance(m, at, self.beats - 1, go)
        begins = at == 0 if self.beats > 1 else 1
        m.d.comb += [
            go.eq(outlet.available & (Mux(begins, self.i.valid, 1) if self.beats > 1 else self.i.valid)),
            self.i.ready.eq(outlet.available & begins),
        ]
        # the index stays where it is until that of the next row comes
        index = Signal(op.input.format.bits, name="index", reset_less=True)
        with m.If(go & begins):
            m.d.sync += index.eq(self.i.payload[0])
        address = Cat(index, register(m, at, name="beat")) if self.beats > 1 else index
        m.d.comb += [port.addr.eq(address), port.en.eq(1)]
        m.d.comb += outlet.payload.eq(register(m, port.data, layout, name="y"))
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid_chain(m, go, ARRIVAL)[-1])]
        return m
