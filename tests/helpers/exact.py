"""Equality of a planned program in RTL with the golden simulator, in every bit and to the cycle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.rtl.dataflow.plan import Plan
from tests.helpers.programs import stimulus
from tests.helpers.stage_bench import StageBench


def settled(planned: Plan) -> int:
    """Frames after which the pipeline is full and every further frame takes the same time."""
    return planned.estimated_latency // planned.estimated_interval + 5


# -- Amaranth's simulator: many geometries and foldings -----------------------------------------------------
def exact(planned: Plan, seed: int, built: Plan | None = None) -> None:
    """Codes, latency, interval and the end of every frame without stalls; codes with.

    `built` is what is simulated, if it is not what was planned.
    """
    frames = settled(planned)
    x = stimulus(planned.program, frames, seed)
    expected = every_result(planned.program.reference(*x))
    bench = StageBench(built or planned)
    plain = bench.run(x)
    equal(plain.results, expected)
    assert plain.latency == planned.estimated_latency
    assert plain.interval == planned.estimated_interval
    promised = planned.network.schedule(frames)
    assert plain.ends == promised.ends.tolist()
    assert (plain.firsts, plain.output_ends) == (promised.first.tolist(), promised.output_ends.tolist())
    stalled = bench.run([v[:4] for v in x], idle=0.3, backpressure=0.4, seed=seed)
    equal(stalled.results, [codes[:4] for codes in expected])


def every_result(codes: np.ndarray | tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """What a program gives, as a tuple also where it has one result."""
    return codes if isinstance(codes, tuple) else (codes,)


def equal(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Every result, in order."""
    for k, (got, wanted) in enumerate(zip(results, expected, strict=True)):
        np.testing.assert_array_equal(got, wanted, err_msg=f"result {k}")


def exact_compiled(planned: Plan, verilog: str, x: list[np.ndarray]) -> None:
    """Codes, protocol, latency and interval of the compiled Verilog without stalls; codes and protocol with."""
    expected = planned.program(*x)
    rtl = CompiledRtl(verilog, planned.inputs, planned.outputs)
    plain = rtl.run(*x, watchdog=20_000).check(expected)
    assert (plain.latency, plain.interval) == (planned.estimated_latency, planned.estimated_interval)
    promised = planned.network.schedule(len(x[0]))
    np.testing.assert_array_equal(plain.output_end_cycles - plain.first_input_cycle, promised.output_ends)
    for seed, (idle, backpressure) in enumerate([(0.5, 0.0), (0.0, 0.5), (0.3, 0.3), (0.05, 0.9)]):
        stalled = rtl.run(*x, stall_seed=seed, idle=idle, backpressure=backpressure, watchdog=20_000)
        stalled.check(expected)
