"""No register of a data path is wider than what it can hold needs: over all inputs, every signed one uses its top bit.

That none is too narrow is what the equality of codes says. Words of weights are as wide as their declared format.
"""

import re

import numpy as np
import pytest

from bittrue.rtl.dataflow.folding import divisors
from bittrue.rtl.dataflow.plan import Plan, size_fifos
from bittrue.rtl.dataflow.stage import realisation
from bittrue.sim.contract import Range
from bittrue.sim.program import Node, Program
from tests.helpers.small import SMALL, every_input
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import architectures

#: What works on codes of any format, and may have nothing signed.
ONLY_CODES = ("Clamp", "Encode", "Transpose")
DECLARED = re.compile(r"w\d+_\d+|weight\d+")


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


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SMALL)
def test_every_register_is_as_wide_as_it_must_be(name, seed):
    op = SMALL[name](np.random.default_rng([seed, len(name)]))
    if name == "Lif" and op.threshold is not None:
        op = type(op)(op.input, None, None, op.keep[:1], op.shift)  # else bounds, of all channels together
    x = every_input(op)
    for plan in plans(op):
        bench = StageBench(plan)
        signals, seen = watched(bench)
        bench.run(list(x))
        assert signals or name in ONLY_CODES
        for (signal, wire), found in zip(signals, seen, strict=True):
            if not DECLARED.fullmatch(wire):
                assert len(signal) == found.bits, f"{wire} of {plan.folding}, {found}"
