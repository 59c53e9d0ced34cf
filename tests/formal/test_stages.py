"""Every stage keeps its promise to its output FIFO and to its input memory, whatever comes in and whoever is not ready.

To the FIFO: it issues only with a credit, and pushes each beat that it issued, so many cycles later as its timing says.
With what `test_outlet` proves of the FIFO this means that no stage loses or doubles a beat, and that `valid` and the
beat stay until it is taken, at every port between stages. To the memory: there is room for what is written, and what
is worked through lies in another block than what comes in.
"""

from __future__ import annotations

import numpy as np
import pytest

from bittrue.rtl.dataflow.plumbing import Fifo, Narrow, Widen
from bittrue.rtl.dataflow.stage import REALISATIONS, Stage, architectures, realisation, valid_chain
from bittrue.sim.contract import Format
from bittrue.sim.operation import Operation
from tests.helpers.formal import Bench, Driven, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
architectures()  # imports them all
U2 = Format(2, signed=False)
JOINS = {
    "fifo of 2": lambda: Fifo(U2, 1, 2, 4),
    "fifo of 5": lambda: Fifo(U2, 2, 5, 1),
    "narrow": lambda: Narrow(U2, 6, 2, 3),
    "widen": lambda: Widen(U2, 2, 6, 3),
}


def of_operation(kind: type[Operation], architecture: str, seed: int) -> Stage:
    """The stage of a random operation of this kind, in a random folding."""
    rng = np.random.default_rng(seed)
    operation = kind.example(rng)
    make = realisation(operation, architecture)
    while make.refusal(operation):
        operation = kind.example(rng)
    if not make.folds:
        return make(operation, lanes=make.legal_lanes(operation, operation.inputs[0].channels))
    foldings = make.foldings(operation)
    folding = foldings[int(rng.integers(len(foldings)))]
    lanes = min(folding.simd, operation.inputs[0].channels) if make.whole_beats else 1
    return make(operation, lanes=lanes, simd=folding.simd, pe=folding.pe)


STAGES = {f"{kind.__name__}, {name}": (kind, name) for (kind, name), make in REALISATIONS.items() if not make.wires}


def promises(stage: Stage) -> tuple[Bench, int]:
    dut = Driven(stage)
    b, end, depth = dut.b, dut.outlet, stage.timing.depth
    b.holds("issues_only_with_a_credit", ~end.issue | end.available)
    due = valid_chain(b.m, end.issue, depth - 2 + end.at_once)[depth - 1 :]
    b.holds("pushes_what_it_issued", end.push == sum(due))
    here, there = stage.o.payload.as_value(), end.o.payload.as_value()
    b.holds("offers_what_the_fifo_offers", (stage.o.valid == end.o.valid) & (here == there))
    b.holds("the_fifo_sees_its_reader", end.o.ready == stage.o.ready)
    if dut.control is not None:
        c, held = dut.control, dut.held()
        b.holds("works_on_whole_blocks", ~c.advance | (held != 0))
        b.holds("never_reads_where_it_writes", ~(c.write & c.advance) | (c.write_block != c.read_block))
    return b, depth + end.at_once


@pytest.mark.parametrize("name", long_but([*STAGES, *JOINS], *[*STAGES, *JOINS][::2]))
def test_keeps_its_promises(name):
    stage = JOINS[name]() if name in JOINS else of_operation(*STAGES[name], 1)
    assert prove(*promises(stage)) == "proved"


#: Where a fault is planted, the text it replaces and what stands there then; and a stage whose proof must notice.
BUFFERED, STAGE, PLUMBING = (
    f"rtl.dataflow.{name}" for name in ("buffered:BufferedStage.control", "stage:Stage", "plumbing")
)
FAULTS = {
    "a block is never given up": (BUFFERED, "held + write_full - release", "held + write_full", "narrow"),
    "room a cycle late": (BUFFERED, "room.eq(after != t.blocks)", "room.eq(held != t.blocks)", "fifo of 2"),
    "work a cycle late": (BUFFERED, "active.eq(after != 0)", "active.eq(held != 0)", "fifo of 2"),
    "work of many blocks a cycle late": (BUFFERED, "active.eq(some)", "active.eq(held != 0)", "fifo of 5"),
    "room for many blocks a cycle late": (BUFFERED, "room.eq(more)", "room.eq(held != t.blocks)", "fifo of 5"),
    "one block too many": (
        BUFFERED,
        "room.eq(after != t.blocks)",
        "room.eq(after != t.blocks + 1)",
        "narrow",
    ),
    "another block is read": (BUFFERED, "read_block, t.blocks - 1, release", "read_block, t.blocks - 1, go", "narrow"),
    "work without a credit": (BUFFERED, " & (outlet.available | ~final)", "", "Transpose, parallel"),
    "beats without a credit": (
        f"{STAGE}.accept",
        "Cat(outlet.available, *valids).all()",
        "Cat(*valids).all()",
        "Add, parallel",
    ),
    "pushed too early": (f"{PLUMBING}:Fifo.elaborate", "control.issue, 2)", "control.issue, 1)", "fifo of 2"),
    "every part is pushed": (
        f"{PLUMBING}:Widen.elaborate",
        "outlet.push.eq(go & complete)",
        "outlet.push.eq(go)",
        "widen",
    ),
    "always ready": (f"{STAGE}.outlet", "outlet.o.ready.eq(self.o.ready)", "outlet.o.ready.eq(1)", "widen"),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, name = FAULTS[fault]
    with planted(*place):
        stage = JOINS[name]() if name in JOINS else of_operation(*STAGES[name], 1)
        bench, steps = promises(stage)
        assert prove(bench, steps, 24).startswith("refuted: ")
