"""No register of a data path is wider than what it can hold needs: over all inputs, every signed one uses its top bit.
No memory is deeper than what is kept in it needs: its last word is used, or one in the half of the highest address bit.

That none is too narrow is what the equality of codes says. Words of weights are as wide as their declared format, and
counters of outlets as their places ask, which only a sink that refuses fills (`tests/formal/test_outlet.py`).
"""

import re
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl._mem import MemoryInstance

from bittrue.rtl.dataflow.folding import divisors
from bittrue.rtl.dataflow.plan import Plan, size_fifos
from bittrue.rtl.dataflow.stage import realisation
from bittrue.rtl.dataflow.stages.add import AddStage
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.contract import Format, Range
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.lengths import long_but
from tests.helpers.small import SMALL, every_input
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import architectures

#: What works on codes of any format, and may have nothing signed.
ONLY_CODES = ("Clamp", "Encode", "Transpose")
#: Every result of `SMALL`.
WIDE = Format(40)
DECLARED = re.compile(r"w\d+_\d+|weight\d+|beyond|spare")


def plans(op):
    """The operation alone, in every architecture, folding and number of lanes."""
    inputs = {f"x{k}": kind for k, kind in enumerate(op.inputs)}
    program = Program(inputs, (Node("y", op, tuple(inputs)),), "y")
    realisation(op)  # imports its module
    for architecture in architectures(op):
        made = realisation(op, architecture)
        for lanes in divisors(op.inputs[0].channels):
            for folding in made.foldings(op) if made.folds else [None]:
                yield size_fifos(Plan(program, {"y": folding} if folding else {}, dict.fromkeys(inputs, lanes)))


def watched(bench: StageBench) -> tuple[list, list[Range | None]]:
    """The signed signals of the design, with their names, and what each was seen to hold in the runs to come.

    Amaranth lists the signals of a design only in the simulator that is made of it.
    """
    fragments = bench.sim._design.fragments.values()
    signals = [(s, name) for part in fragments for s, name in part.signal_names.items() if s.shape().signed]
    seen: list[Range | None] = [None] * len(signals)

    async def watch(ctx) -> None:
        async for _ in ctx.tick():
            for k, (signal, _) in enumerate(signals):
                value = ctx.get(signal)
                if seen[k] is None or not seen[k].low <= value <= seen[k].high:
                    seen[k] = Range(value, value) | (seen[k] or Range(value, value))

    bench.sim.add_testbench(watch, background=True)
    return signals, seen


def addressed(bench: StageBench) -> dict[str, list[int]]:
    """By name of the memory: its words, and the highest address that is written in the runs to come, of one that
    nothing is written into the highest that is read."""
    parts = [(info, part) for part, info in bench.sim._design.fragments.items() if isinstance(part, MemoryInstance)]
    ports = {".".join(info.name): (part._write_ports or part._read_ports) for info, part in parts}
    seen = {".".join(info.name): [part._data.depth, 0] for info, part in parts}

    async def watch(ctx) -> None:
        async for _ in ctx.tick():
            for name, found in seen.items():
                found[1] = max(found[1], *(ctx.get(port._addr) for port in ports[name]))

    bench.sim.add_testbench(watch, background=True)
    return seen


@pytest.mark.parametrize("seed", long_but(range(2), 0))
@pytest.mark.parametrize("name", long_but(SMALL, *[*SMALL][::2]))
def test_every_register_is_as_wide_as_it_must_be(name, seed):
    op = SMALL[name](np.random.default_rng([seed, len(name)]))
    if name == "Lif" and op.threshold is not None:
        op = type(op)(op.input, None, None, op.keep[:1], op.shift)  # else bounds, of all channels together
    x = every_input(op)
    for plan in plans(op):
        bench = StageBench(plan)
        (signals, seen), memories = watched(bench), addressed(bench)
        bench.run(list(x))
        for memory, (depth, highest) in memories.items():
            whole = depth & (depth - 1) == 0 and 2 * (highest + 1) > depth  # rows apart by a power of two
            assert depth == max(2, highest + 1) or whole, f"{memory} of {plan.folding}: {highest} of {depth}"
        assert signals or name in ONLY_CODES
        for (signal, wire), found in zip(signals, seen, strict=True):
            if not DECLARED.fullmatch(wire):
                assert len(signal) == found.bits, f"{wire} of {plan.folding}, {found}"


def unclipped(op):
    """The same operation whose results have all the room that they may need."""
    if isinstance(op, Add):
        return replace(op, format=WIDE)
    return replace(op, requantize=replace(op.requantize, format=WIDE, floor=None))


@pytest.mark.parametrize("seed", long_but(range(8), 0, 1))
@pytest.mark.parametrize("name", ["Add", "Affine", "Linear", "Mean", "SpikingLinear", "TileSum"])
def test_what_clips_is_there_where_an_input_needs_it(name, seed):
    op = SMALL[name](np.random.default_rng([seed, len(name)]))
    x = every_input(op)
    needed = not np.array_equal(op.run(*x)[0], unclipped(op).run(*x)[0])
    for plan in plans(op):
        (stage,) = (e.stage for e in plan.network.elements if e.name == "y")
        pipes = [part for part in vars(stage).values() if isinstance(part, RequantizePipe)]
        there = [step.kind for pipe in pipes for step in pipe.steps].count("saturate")
        assert (stage.saturates if name == "Add" else there) == needed, plan.folding


@pytest.mark.parametrize("multiplied", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_requantiser_by_channel_is_as_wide_as_its_ends_make_it(seed, multiplied):
    """Every step only ascends, so that the lowest and the highest sum give the ends of each, by channel."""
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.integers(-4000, 4001, (2, 6)), axis=0)
    shift, bias, bias_acc = rng.integers(0, 10, 6), rng.integers(-9, 10, 6), rng.integers(-500, 500, 6)
    factor = rng.integers(2, 9, 6) if multiplied else np.ones(6, int)
    pipe = RequantizePipe(Requantize(6, shift, bias, bias_acc, factor, format=Format(40)), low, high, 1)
    half = (1 << shift) >> 1
    before = np.array([low, high]) + bias_acc + (0 if multiplied else half)
    after = before * factor + half if multiplied else before
    wanted = {"before": before, "shift": after >> shift, "bias": (after >> shift) + bias}
    wanted |= {"multiply": before * factor, "after": after} if multiplied else {}
    found = {step.kind: [step.low.tolist(), step.high.tolist()] for step in pipe.steps}  # the last one of each kind
    assert found == {kind: ends.tolist() for kind, ends in wanted.items()}
    assert [step.kind for step in pipe.steps].count("shift") > 1


@pytest.mark.parametrize(
    ("signed", "floor"), [(True, None), (True, -3), (True, 0), (True, 2), (False, None), (False, 2)]
)
@pytest.mark.parametrize(("below", "above"), [(0, 0), (1, 0), (0, 1)])
def test_what_just_fits_is_not_clipped(signed, floor, below, above):
    fmt = Format(4, signed)
    r = Requantize(2, np.array(0), format=fmt, floor=floor)
    low, high = fmt.low if floor is None else floor, fmt.high
    pipe = RequantizePipe(r, np.array([low, low + 1 - 2 * below]), np.array([high - 1 + 2 * above, high]), 1)
    assert [step.kind for step in pipe.steps] == ["saturate"] * (below or above)


def test_a_sum_that_just_fits_is_not_clipped():
    for bits, saturates in ((3, True), (4, False), (5, False)):
        kind = TensorType((1, 1), Format(3))
        assert AddStage(Add(kind, kind, Format(bits)), lanes=1).saturates == saturates
