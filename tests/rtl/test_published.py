"""The published ReLU-96 model in golden, compiled RTL and HLS: 8 images, 5 boundary tensors, logits, bit for bit.

The RTL is built as it is planned, whole, for its logits, latency and interval; and once more in six segments (the
embedding, four blocks, the head), each fed with the published tensor before it and held to the one after it, because
a top has one output. The segments' stages have the foldings of the whole design.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.hls import host, project
from bittrue.models.formats.headers import PARAMETERS, Samples, read, read_samples
from bittrue.rtl.dataflow.plan import fold_all, natural_interval, plan
from bittrue.rtl.verilog import emit
from bittrue.sim.program import Program
from tests.helpers.programs import segment

PUBLISHED = Path(
    os.environ.get("BITTRUE_PUBLISHED", Path(__file__).parents[2] / ".." / "shared" / "data" / "psa-relu-96")
)
pytestmark = pytest.mark.skipif(
    not (PUBLISHED / PARAMETERS).exists(),
    reason=f"the published ReLU-96 headers are not in {PUBLISHED}; name their folder in BITTRUE_PUBLISHED",
)
#: Tensors that are published, in order: the input, what is between the blocks, the logits.
TENSORS = ("x", "embed", "block0", "block1", "block2", "block3", "classifier")


@pytest.fixture(scope="module")
def program() -> Program:
    return read(PUBLISHED)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return read_samples(PUBLISHED)


@pytest.fixture(scope="module")
def tensors(program, samples) -> dict[str, np.ndarray]:
    """The published tensors by the program's names."""
    assert tuple(program.meta["boundaries"]) == TENSORS[1:-1]
    assert program.result == TENSORS[-1]
    assert len(samples.input) == 8
    return dict(zip(TENSORS, (samples.input, *samples.boundaries, samples.output), strict=True))


def test_golden(program, tensors):
    trace = program.trace(tensors["x"])
    for name, expected in tensors.items():
        np.testing.assert_array_equal(trace.tensors[name], expected, err_msg=name)
    np.testing.assert_array_equal(program(tensors["x"]), tensors["classifier"])


@pytest.mark.slow
def test_hls(program, tensors, tmp_path):
    kernel = host.build(project.write(program, tmp_path))
    traced = kernel.trace(tensors["x"])
    for name, expected in tensors.items():
        np.testing.assert_array_equal(traced[name], expected, err_msg=name)
    np.testing.assert_array_equal(kernel.predict(tensors["x"]), tensors["classifier"])


@pytest.mark.slow
@pytest.mark.parametrize(("start", "stop"), list(pairwise(TENSORS)))
def test_segment_of_the_compiled_rtl(program, tensors, start, stop):
    part, interval = segment(program, start, stop), natural_interval(program)
    whole = fold_all(program, interval)
    planned = plan(part, interval=interval)
    assert planned.folding == {node.name: whole[node.name] for node in part.nodes if node.name in whole}
    rtl = CompiledRtl(emit(planned), planned.inputs, planned.outputs)
    run = rtl.run(tensors[start]).check(tensors[stop])
    assert (run.latency, run.interval) == (planned.estimated_latency, planned.estimated_interval)
    rtl.run(tensors[start], stall_seed=1, idle=0.3, backpressure=0.3).check(tensors[stop])


@pytest.mark.slow
def test_compiled_rtl(program, tensors):
    planned = plan(program)
    rtl = CompiledRtl(emit(planned), planned.inputs, planned.outputs)
    frames = 2 * (planned.estimated_latency // planned.estimated_interval) + 8
    again = np.arange(frames) % len(tensors["x"])
    run = rtl.run(tensors["x"][again]).check(tensors["classifier"][again])
    assert (run.latency, run.interval) == (planned.estimated_latency, planned.estimated_interval)
    rtl.run(tensors["x"], stall_seed=1, idle=0.3, backpressure=0.3).check(tensors["classifier"])
