"""A random plan of each operation, and stimuli for it."""

from __future__ import annotations

import math
import zlib

import numpy as np

from bittrue.rtl.dataflow.folding import divisors
from bittrue.rtl.dataflow.plan import Plan, size_fifos
from bittrue.rtl.dataflow.stage import REALISATIONS, realisation
from bittrue.sim.operation import Operation, discover
from bittrue.sim.program import Node, Program
from tests.helpers.stage_bench import StageBench

OPERATIONS = discover()


def planned(name: str, seed: int) -> tuple[Plan, np.random.Generator]:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    op = OPERATIONS[name].example(rng)
    inputs = {f"x{k}": t for k, t in enumerate(op.inputs)}
    program = Program(inputs, (Node("y", op, tuple(inputs)),), "y")
    pick = lambda n: int(rng.choice(divisors(n)))  # noqa: E731
    lanes = pick(op.inputs[0].channels)
    realisation(op)  # imports its module
    architecture = str(rng.choice(architectures(op)))
    make = realisation(op, architecture)
    folding = {"y": make.foldings(op)[int(rng.integers(len(make.foldings(op))))]} if make.folds else {}
    return size_fifos(Plan(program, folding, {k: math.gcd(lanes, kind.channels) for k, kind in inputs.items()})), rng


def architectures(op: Operation) -> list[str]:
    """The names of those that can be built of an operation."""
    return [name for (kind, name), make in REALISATIONS.items() if kind is type(op) and make.refusal(op) is None]


def batches(plan: Plan, rng: np.random.Generator, frames: int) -> list[np.ndarray]:
    """Full-range random frames, the last two at the corners."""
    result = []
    for kind in plan.program.inputs.values():
        codes = rng.integers(kind.format.low, kind.format.high + 1, (frames, *kind.shape))
        codes[-2], codes[-1] = kind.format.low, kind.format.high
        result.append(codes.astype(kind.format.dtype))
    return result


def exact_to_the_cycle(bench: StageBench, x: list[np.ndarray]) -> None:
    """A component alone, unstalled: codes, latency and the end of every frame as planned."""
    plan = bench.plan
    result = bench.run(x)
    np.testing.assert_array_equal(result.outputs, plan.program.reference(*x))
    promised = plan.expect(*x)
    assert result.latency == promised.latency <= plan.estimated_latency
    assert result.ends == [end - promised.latency + result.first for end in promised.ends]
    if not plan.dynamic:
        assert (result.latency, result.interval) == (plan.estimated_latency, plan.estimated_interval)
