"""Small operations and stages that read and give out in ways of convolution, and one of three operands.

`Moved` is one operation of several kinds on tensors `[H, C]`; a beat is `lanes` channels of a row:

window    `y[h] = sum_k x[h + k]` over `ROWS` rows: a window of rows slides, and gives `H - ROWS + 1` rows
pool      `y[h] = max(x[2h], x[2h + 1])`: fewer rows than come in
upsample  `y[h] = x[h // 2]`: more rows than come in
concat    `y[h] = (a[h], b[h], c[h])`, three operands, one after the other
held      the same from memories, which take the operands as they come
sum       `y = a + b + c`, three operands at once

Not in the package of operations, so that no other test finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory

from bittrue.rtl.dataflow.stage import Stage, advance, counting, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, Phase, Phases, enough_credits
from bittrue.sim.contract import INT8, Format, Range
from bittrue.sim.operation import Operation, TensorType

ROWS = 3
KINDS = ("window", "pool", "upsample", "concat", "held", "sum")


@dataclass(frozen=True, eq=False)
class Moved(Operation):
    """See above; `b` and `c` are the further operands."""

    kind: str
    a: TensorType
    b: TensorType | None = None
    c: TensorType | None = None

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return tuple(kind for kind in (self.a, self.b, self.c) if kind is not None)

    @property
    def output(self) -> TensorType:
        rows, channels = self.a.shape
        rows = {"window": rows - ROWS + 1, "pool": rows // 2, "upsample": 2 * rows}.get(self.kind, rows)
        if self.kind in ("concat", "held"):
            channels = sum(kind.channels for kind in self.inputs)
        return TensorType((rows, channels), Format(10) if self.kind in ("window", "sum") else INT8)

    @property
    def accumulator(self) -> Range:
        return Range(self.output.format.low, self.output.format.high)

    @property
    def constants(self):
        return {}

    def wide(self, *x: np.ndarray) -> np.ndarray:
        a = x[0]
        if self.kind == "window":
            return sum(a[:, k : a.shape[1] - ROWS + 1 + k] for k in range(ROWS))
        if self.kind == "pool":
            return np.maximum(a[:, 0::2], a[:, 1::2])
        if self.kind == "upsample":
            return a.repeat(2, axis=1)
        return np.concatenate(x, axis=2) if self.kind in ("concat", "held") else sum(x)

    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        return self.reference(*x).astype(self.output.format.dtype), 0

    @classmethod
    def example(cls, rng: np.random.Generator) -> Moved:
        kind, rows, lanes = str(rng.choice(KINDS)), 2 * int(rng.integers(2, 5)), int(rng.integers(1, 3))
        a, b, c = (TensorType((rows, lanes * int(rng.integers(1, 5))), INT8) for _ in range(3))
        if kind == "sum":
            return cls(kind, a, a, a)
        return cls(kind, a, b, c) if kind in ("concat", "held") else cls(kind, a)


def phases_of(operation: Moved, lanes: int) -> tuple[list[Phase], list[list[tuple[int, int]]], tuple[int, ...]]:
    """The phases of a frame, for each what its output beat is made of, and the rooms.

    An input beat is named by operand and place, counted from the oldest that is not forgotten.
    """
    rows, beats = operation.a.shape[0], [kind.channels // lanes for kind in operation.inputs]
    b = beats[0]
    phases, picks = [], []

    def phase(needed, freed, *picked, cycles=1) -> None:
        phases.append(Phase(needed, freed, cycles))
        picks.append(list(picked))

    if operation.kind == "window":  # a beat more for every beat, and a cycle for every row
        for n in range((rows - ROWS + 1) * b):
            first, last = n == 0, n == (rows - ROWS + 1) * b - 1
            here = [(0, k * b) for k in range(ROWS)]
            phase(((ROWS - 1) * b + 1 if first else 1,), ((ROWS - 1) * b + 1 if last else 1,), *here, cycles=ROWS)
        return phases, picks, ((ROWS - 1) * b + 2,)
    if operation.kind == "pool":
        for _ in range(rows // 2):
            for n in range(b):
                here = [(0, 0), (0, b)]
                phase((b + 1 if n == 0 else 1,), (b + 1 if n == b - 1 else 1,), *here)
        return phases, picks, (2 * b,)
    if operation.kind == "upsample":
        for _ in range(rows):
            for n in range(b):
                phase((1,), (0,), (0, n))
            for _ in range(b):
                phase((0,), (1,), (0, 0))
        return phases, picks, (b + 1,)
    for _ in range(rows):
        for operand, count in enumerate(beats):
            one = tuple(int(k == operand) for k in range(3))
            for _ in range(count):
                phase(one, one, (operand, 0))
    return phases, picks, (0, 0, 0) if operation.kind == "concat" else tuple(count + 1 for count in beats)


@realises(Moved)
class MovedStage(Stage):
    """Any of the kinds: counters of what has come and what is held, by operand, and a table of the phases."""

    DEPTH = 3

    def __init__(self, operation: Moved, *, lanes: int):
        self.operation = operation
        credits = enough_credits(self.DEPTH)
        if operation.kind == "sum":
            frame = operation.output.size // lanes
            self.timing = Blocks(depth=self.DEPTH, credits=credits, operands=3, frame=frame)
        else:
            phases, self.picks, rooms = phases_of(operation, lanes)
            self.timing = Phases(tuple(phases), rooms, depth=self.DEPTH, credits=credits)
        super().__init__([(kind.format, lanes) for kind in operation.inputs], (operation.output.format, lanes))

    @classmethod
    def legal_lanes(cls, operation: Moved, offered: int) -> int:
        return int(np.gcd.reduce([offered, *(kind.channels for kind in operation.inputs)]))

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        timing, lanes = self.timing, self.lanes_out
        if self.operation.kind == "sum":
            issue = self.accept(m, outlet)
            beats = [operand.payload for operand in self.operands]
            results = [sum((beat[lane] for beat in beats[1:]), beats[0][lane]) for lane in range(lanes)]
        else:
            issue, results = self.phased(m, outlet)
        m.d.comb += [outlet.issue.eq(issue), outlet.push.eq(valid_chain(m, issue, timing.depth - 1)[-1])]
        for lane, result in enumerate(results):
            code = register(m, result, shape_of(self.operation.output.format), name=f"y{lane}", cycles=timing.depth - 1)
            m.d.comb += outlet.payload[lane].eq(code)
        return m

    def phased(self, m: Module, outlet):
        """The issue of a beat and its codes."""
        phases, lanes = self.timing.phases, self.lanes_out
        at, cycle = Signal(counting(len(phases))), Signal(counting(max(p.cycles for p in phases)))
        last, ready, go = Signal(), Signal(), Signal()
        m.d.comb += last.eq(cycle == Array(p.cycles - 1 for p in phases)[at])
        m.d.comb += go.eq(ready & (outlet.available | ~last))
        done = Signal()
        m.d.comb += done.eq(go & last)
        advance(m, at, len(phases) - 1, done)
        with m.If(go):
            m.d.sync += cycle.eq(Mux(last, 0, cycle + 1))
        enough, reads = [], []
        for k, (operand, room) in enumerate(zip(self.operands, self.timing.rooms, strict=True)):
            need = Array(p.needed[k] for p in phases)[at]
            if not room:
                enough.append(operand.valid | (need == 0))
                m.d.comb += operand.ready.eq(outlet.available & last & (need != 0))
                reads.append(lambda _, operand=operand: operand.payload)
                continue
            come, held = Signal(range(room + 1), name=f"come{k}"), Signal(range(room + 1), name=f"held{k}")
            write, read = Signal(range(room), name=f"write{k}"), Signal(range(2 * room), name=f"read{k}")
            taken = Signal(name=f"taken{k}")
            free = Array(p.freed[k] for p in phases)[at]
            m.d.comb += [operand.ready.eq(held != room), taken.eq(operand.valid & operand.ready)]
            m.d.sync += come.eq(come + taken - Mux(done, need, 0))
            m.d.sync += held.eq(held + taken - Mux(done, free, 0))
            advance(m, write, room - 1, taken)
            moved = Signal(range(2 * room), name=f"moved{k}")
            m.d.comb += moved.eq(read + Mux(done, free, 0))
            m.d.sync += read.eq(Mux(moved >= room, moved - room, moved))
            enough.append((come >= need) | (cycle != 0))
            m.submodules[f"memory{k}"] = memory = Memory(
                shape=data.ArrayLayout(shape_of(self.operation.inputs[k].format), lanes), depth=max(room, 2), init=[]
            )
            port = memory.write_port()
            m.d.comb += [port.addr.eq(write), port.data.eq(operand.payload), port.en.eq(taken)]

            def beat(place, memory=memory, read=read, room=room):
                port, where = memory.read_port(domain="comb"), Signal(range(3 * room))
                m.d.comb += where.eq(read + place)
                m.d.comb += port.addr.eq(Mux(where >= room, where - room, where))
                return port.data

            reads.append(beat)
        if not any(self.timing.rooms):  # one operand at a time: the others do not hold it up
            m.d.comb += ready.eq(Array(enough[next(k for k, n in enumerate(p.needed) if n)] for p in phases)[at])
        else:
            together = enough[0]
            for one in enough[1:]:
                together = together & one
            m.d.comb += ready.eq(together)
        most = max(map(len, self.picks))
        wanted = [[pick[min(j, len(pick) - 1)] for pick in self.picks] for j in range(most)]
        beats = []
        for places in wanted:
            by_operand = [reads[k](Array(place for _, place in places)[at]) for k in range(len(reads))]
            chosen = Signal(by_operand[0].shape(), name="chosen")
            m.d.comb += chosen.eq(Array(by_operand)[Array(k for k, _ in places)[at]])
            beats.append(chosen)
        results = []
        for lane in range(lanes):
            values = [beat[lane] for beat in beats]
            result = values[0]
            for value in values[1:]:
                result = Mux(value > result, value, result) if self.operation.kind == "pool" else result + value
            results.append(result)
        return done, results
