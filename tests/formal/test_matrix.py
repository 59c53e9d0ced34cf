"""A matrix stage as a whole: every vector that comes in gives the golden simulator's results, and nothing else is used.

Of the memory of vectors synthesis is told that no word in use is read while it is written; here such a read gives
anything. Small matrices of few bits, but every vector, every stall, any reset: what depends on sizes are counters and
widths, and both are made as those of large ones are.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amaranth.hdl import Array, Cat, Const, Mux, ResetSignal, Signal

from bittrue.rtl.dataflow.stage import PARALLEL, realisation, register, shape_of, valid_chain
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize
from tests.helpers.formal import Bench, Driven, needs_solver, planted, prove
from tests.helpers.lengths import long_but

pytestmark = needs_solver
S1, S2, S4, S8 = (Format(bits) for bits in (1, 2, 4, 8))
PAIRS = "pairs in a multiplier"
WEIGHT = np.array([[3, -2, 1, -4], [-1, 2, -3, 3]])
#: Format of the codes, lanes, codes a step, outputs a step, architecture.
FOLDINGS = {
    "parts of words": (S1, 1, 2, 1),
    "two outputs": (S2, 2, 2, 2),
    "sums of one step": (S1, 2, 4, 1),
    PAIRS: (S2, 2, 2, 2, "packed"),
    "pairs, sums of one step": (S1, 4, 4, 2, "packed"),
}


def matrix(fmt: Format, lanes: int, simd: int, pe: int, architecture: str = PARALLEL) -> tuple[Bench, int, int]:
    outputs, inputs = WEIGHT.shape
    op = Linear(TensorType((1, inputs), fmt), WEIGHT, Requantize(outputs, [1, 2], [1, -1], [1, 0], format=S4, floor=-6))
    stage = realisation(op, architecture)(op, lanes=lanes, simd=simd, pe=pe)
    dut = Driven(stage)
    b, c, end, held = dut.b, dut.control, dut.outlet, dut.held()
    steps, groups, beats = inputs // simd, outputs // pe, inputs // lanes
    b.holds("counts_are_in_range", (c.word < steps * groups) & (c.write_beat < beats))
    b.holds("nothing_is_begun_before_it_came", (held != 0) | (c.word == 0))
    by_word = lambda values: Array(values)[c.word]  # noqa: E731
    b.holds("steps_are_those_of_the_word", c.step == by_word([w % steps for w in range(steps * groups)]))

    # What came in: the codes of both blocks. The memory has them a cycle later.
    codes = [[Signal(shape_of(fmt), name=f"code{n}_{k}", reset_less=True) for k in range(inputs)] for n in range(2)]
    for n, k in itertools.product(range(2), range(inputs)):
        with b.m.If(c.write & ~ResetSignal() & (c.write_block == n) & (c.write_beat == k // lanes)):
            b.m.d.sync += codes[n][k].eq(stage.i.payload[k % lanes])
    words, parts = stage.words, simd // lanes
    if stage.vectors.style == "registers":
        registers(dut, codes, held)
    for n, w in itertools.product(range(2), range(words if words > 1 else 0)):
        stored = register(b.m, Cat(codes[n][w * simd : (w + 1) * simd]), name=f"stored{n}_{w}")
        b.holds(f"word_{w}_of_block_{n}_lies_in_memory", dut.memories[0][(n << (words - 1).bit_length()) + w] == stored)
    b.holds("writes_part_after_part", dut.inside["part"] == Array(1 << k % parts for k in range(beats))[c.write_beat])
    if words > 1:
        (word,) = (signal for signal in dut.inside.signals["word"] if signal is not c.word)
        b.holds("writes_word_after_word", word == Array(k // parts for k in range(beats))[c.write_beat])

    # The running sum has the products of the steps before, so many cycles ago.
    x = [Mux(c.read_block, codes[1][k], codes[0][k]) for k in range(inputs)]
    at = stage.front_depth - 1
    calm = Signal(range(at + 1))  # cycles since a reset
    b.m.d.sync += calm.eq(Mux(calm == at, calm, calm + 1))
    b.holds("calm_ends", calm <= at)
    if steps > 1:
        for p in range(pe):
            partial = [
                sum((int(WEIGHT[w // steps * pe + p, k]) * x[k] for k in range(w % steps * simd)), Const(0))
                for w in range(steps * groups)
            ]
            ranges = [Signal(shape_of(S8), name=f"partial{p}_{w}") for w in range(steps * groups)]
            b.m.d.comb += [r.eq(value) for r, value in zip(ranges, partial, strict=True)]
            was = register(b.m, by_word(ranges), shape_of(S8), name=f"was{p}", cycles=at)
            b.holds(f"sum_{p}_of_the_steps_before", (calm < at) | (dut.inside[f"acc{p}"] == was))

    # Both halves of packed outputs leave one after the other.
    before, turns = valid_chain(b.m, c.issue, stage.timing.depth), stage.turns
    if turns == 2:
        b.holds("the_second_half_is_next", dut.inside["later"] == before[1])
        b.holds("the_second_half_is_at_hand", dut.inside["second"] == before[at + 2])

    # The constants of the channels follow the results.
    if "requantize_group" in dut.inside.signals:
        later = dut.inside["requantize_group"] + sum(sum(before[1 : at + 1 + k]) for k in range(turns))
        first = by_word([w // steps * turns % 2 for w in range(steps * groups)])
        b.holds("constants_of_the_output_at_hand", first == later[0])

    # The result.
    vectors = np.stack(np.meshgrid(*[fmt.codes()] * inputs, indexing="ij"), -1).reshape(-1, 1, inputs)
    golden = op.run(vectors.astype(fmt.dtype))[0][:, 0].astype(int)
    index = Cat(code.as_unsigned() ^ (-fmt.low) for code in reversed(x))
    for p in range(pe):
        turn, lane = divmod(p, pe // turns)
        later = stage.timing.depth - 1 + turn
        tables = [Array(Const(int(v), shape_of(S4)) for v in golden[:, g * pe + p])[index] for g in range(groups)]
        expected = by_word([tables[w // steps] for w in range(steps * groups)])
        expected = register(b.m, expected, shape_of(S4), name=f"expected{p}", cycles=later)
        b.holds(f"result_{p}_equals_golden", ~before[later] | (end.payload[lane] == expected))
    return b, stage.timing.depth + turns, beats + 2 * steps * groups + stage.timing.depth + 2


def registers(dut: Driven, codes: list[list[Signal]], held: Signal) -> None:
    """What must be known of vectors in registers: `codes` of both blocks, and the blocks `held`."""
    b, c, stage = dut.b, dut.control, dut.stage
    simd, lanes, shape = stage.simd, stage.lanes_in, codes[0][0].shape()
    came = [c.write & (c.write_beat == k // lanes) for k in range(simd)]
    gathered = [Signal(shape, name=f"gathers{k}", reset_less=True) for k in range(simd)]
    at_hand = [Signal(shape, name=f"at_hand{k}", reset_less=True) for k in range(simd)]
    for k in range(simd):
        then = Mux(came[k], stage.i.payload[k % lanes], gathered[k])
        with b.m.If(~ResetSignal()):
            b.m.d.sync += gathered[k].eq(then)
            with b.m.If(c.fresh):
                b.m.d.sync += at_hand[k].eq(then)
    here = Mux(c.read_block, Cat(codes[1]), Cat(codes[0]))
    there = Mux(c.read_block, Cat(codes[0]), Cat(codes[1]))
    filling = Mux(c.write_block, Cat(codes[1]), Cat(codes[0]))
    b.holds("the_vector_at_hand_is_that_of_the_block", (held == 0) | (Cat(at_hand) == here))
    b.holds("the_next_one_waits", (held != 2) | (Cat(gathered) == there))
    for k in range(simd):
        code = filling.word_select(k, len(codes[0][k]))
        b.holds(f"code_{k}_of_the_next_one_is_there", (c.write_beat <= k // lanes) | (Cat(gathered[k]) == code))
    inside = [dut.inside[f"gathered{k}"] for k in range(simd)]
    enable, taken = dut.inside["write_enable"], dut.inside["write_codes"]
    then = Cat(Mux(enable[k // lanes], taken[k % lanes], inside[k])[: len(inside[k])] for k in range(simd))
    b.holds("gathered_a_cycle_later", then == Cat(gathered))
    _, soon, now = valid_chain(b.m, c.fresh, 2)
    before = register(b.m, Cat(at_hand), name="at_hand_before")
    b.holds("moves_soon", ~soon | (then == Cat(at_hand)))
    b.holds("moves_now", ~now | (Cat(inside) == before))
    kept = Cat(dut.inside[f"held{k}"] for k in range(simd))
    b.holds("moved", (held == 0) | soon | now | (kept == Cat(at_hand)))


@pytest.mark.parametrize("name", FOLDINGS)
def test_equals_golden(name):
    bench, steps, _ = matrix(*FOLDINGS[name])
    assert prove(bench, steps) == "proved"


FOLDED, PACKED = "rtl.dataflow.folded:FoldedStage", "rtl.dataflow.packed:Packed"
VECTORS = "rtl.dataflow.vectors:Vectors"
FAULTS = {
    "a vector moves too early": (f"{VECTORS}._registers", "wait + 1", "wait", "sums of one step"),
    "a vector moves before it is read": (
        "rtl.dataflow.buffered:BufferedStage.control",
        "(write_full | release) & (after == 1)",
        "write_full",
        "sums of one step",
    ),
    "one block for two": (f"{VECTORS}.build", "[:size], block)", "[:size], 0)", "parts of words"),
    "a part for another": (f"{VECTORS}.build", "part.rotate_left(1)", "part", "parts of words"),
    "sums do not begin anew": (f"{FOLDED}.sums", "with m.If(ends):", "with m.If(0):", "two outputs"),
    "sums too narrow": (
        "rtl.dataflow.products:Products.grow",
        "low[:, :, p], high[:, :, p])",
        "low[:, :1, p], high[:, :1, p])",
        "two outputs",
    ),
    "weights of another row": (f"{FOLDED}.row_of", "control.word, bank", "control.step, bank", "parts of words"),
    "no borrow": (
        "rtl.dataflow.packed:pack",
        "(upper.astype(np.int64) << shift) + lower",
        "(upper.astype(np.int64) << shift) | (lower & ((1 << shift) - 1))",
        "pairs, sums of one step",
    ),
    "the second half first": (f"{PACKED}.in_turn", "Mux(second, high, low)", "Mux(second, low, high)", PAIRS),
    "the second half is not kept": (f"{PACKED}.in_turn", 'register(m, total, name=f"upper{q}")', "total", PAIRS),
    "no carry": (f"{PACKED}.trees", "if products.carries[q][k] else None", "if k else None", PAIRS),
}


@pytest.mark.parametrize("fault", long_but(FAULTS, *[*FAULTS][::2]))
def test_fault_is_found(fault):
    *place, name = FAULTS[fault]
    with planted(*place):
        bench, steps, first = matrix(*FOLDINGS[name])
        assert prove(bench, steps, first).startswith("refuted: ")
