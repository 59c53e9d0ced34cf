"""What the hardware of each operation does in one inference: additions, products, bits read from memories and written.

The numbers follow from the plan's stages: architecture, folding, widths of the exact ranges. Counted are sums, the
comparison and the reset of neurons, products, parameters read from memories or the read-only memories of constants,
blocks of input that are held, and state. Left out are shifts, clamps, counters, the small output FIFOs and control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bittrue.rtl.dataflow.stage import Stage
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.encode import SPIKE, Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.operations.transpose import Transpose

#: What memories hold.
PURPOSES = ("weights", "state", "values")


@dataclass(frozen=True)
class Access:
    """Bits read and written in a memory of `size` bits, an inference."""

    purpose: str
    size: int
    read: float
    written: float = 0.0


@dataclass
class Work:
    """What one stage does in one inference; the mean over the inputs, where it depends on them.

    additions        how many, by width in bits
    multiplications  how many, by the widths of the two factors
    memory           the accesses of every memory
    """

    additions: Counter = field(default_factory=Counter)
    multiplications: Counter = field(default_factory=Counter)
    memory: list[Access] = field(default_factory=list)

    def add(self, bits: int, times: float) -> None:
        if times:
            self.additions[bits] += times

    def multiply(self, a: int, b: int, times: float) -> None:
        if times:
            self.multiplications[a, b] += times

    def access(self, purpose: str, size: int, read: float, written: float = 0.0) -> None:
        if size and (read or written):
            self.memory.append(Access(purpose, size, read, written))

    def requantize(self, pipe: RequantizePipe, vectors: int) -> None:
        """The adders and multipliers of a requantiser."""
        values, bits = vectors * pipe.requantize.channels, _bits(*pipe.input_range)
        for step in pipe.steps:
            width = _bits(step.low, step.high)
            if step.kind in ("before", "after", "bias"):
                self.add(width, values)
            elif step.kind == "multiply":
                self.multiply(bits, Format.covering(pipe.requantize.multiplier).bits, values)
            bits = width


@dataclass(frozen=True)
class Activity:
    """Of an event-driven stage, an inference: spikes that come in, and cycles in which accumulators move."""

    events: float
    moves: float


def activity(operation: SpikingLinear, stage: Stage, spikes: np.ndarray) -> tuple[int, int]:
    """Spikes and moves of an event-driven stage for spike trains `[n, ..., K, C]`, whole numbers over all of them."""
    beats = spikes.reshape(-1, operation.steps, stage.parts, stage.lanes_in).any(axis=3)
    passed = ~beats  # a beat without a spike takes a cycle in which nothing moves, unless outputs wait for it
    passed[:, -1, -1] = False
    if stage.doubles:
        passed[:, :, 0] = False
    return int(spikes.sum(dtype=np.int64)), int(stage.work(spikes).sum()) - int(np.count_nonzero(passed))


def of_stage(operation: Operation, stage: Stage, seen: Activity | None = None) -> Work:
    """The work of an operation in the stage that makes it; `seen` is needed where the stage is event-driven."""
    count = WORK.get(type(operation))
    if count is None:
        if isinstance(operation, PhotonicMac | TileSum):
            raise BittrueError(
                "energy: a program does not say what an array of light and its converters cost; "
                "the report of a photonic flow estimates it from the recipe (see `bittrue flow --help`)"
            )
        raise BittrueError(
            f"energy: the work of {type(operation).__name__.lower()} is not counted; add it to flow/report/work.py"
        )
    work = Work()
    if seen is not None:
        _events(work, operation, stage, seen)
    else:
        count(work, operation, stage)
    return work


def of_twin(operation: Operation, stage: Stage) -> Work:
    """The work of the INT8 twin: a dense layer for a spiking one, a clamp for a neuron, nothing for an encoder."""
    if isinstance(operation, Encode):
        return Work()
    work = Work()
    if isinstance(operation, FsNeuron):
        work.add(INT8.bits, operation.input.size)
    elif isinstance(operation, SpikingLinear):
        (n, c), bits, vectors = operation.weight.shape, INT8.bits, operation.tokens
        work.multiply(bits, bits, operation.macs)
        work.add(2 * bits + (c - 1).bit_length(), operation.macs)
        work.access("weights", n * c * bits, vectors * n * c * bits)
        work.access("values", 2 * c * bits, vectors * c * bits * (n // stage.pe), vectors * c * bits)
        work.requantize(stage.requantize, vectors)
    else:
        return of_stage(operation, stage)
    return work


# -- operations ----------------------------------------------------------------------------------------
def _parallel(work: Work, op: SpikingLinear, stage) -> None:
    """All weights are added in every step, spike or not; then the sum of the step joins the accumulator."""
    (n, c), steps, step_bits = op.weight.shape, op.tokens * op.steps, _bits(*op.step_sums)
    held = _accumulators(stage)
    work.add(step_bits, steps * n * (c - 1))
    work.add(held // n, steps * n)
    if not op.halving:
        work.multiply(step_bits, Format.covering(op.decode, signed=True).bits, steps * n)
    if not stage.wired:
        work.access("weights", stage.weights.bits, steps * n * c * op.weight_format.bits)
    work.access("values", stage.vectors.bits, steps * c * (n // stage.pe), steps * c)
    work.access("state", held, steps * held, steps * held)
    work.requantize(stage.requantize, op.tokens)


def _events(work: Work, op: SpikingLinear, stage, seen: Activity) -> None:
    """A row of weights is read and added for every spike; accumulators also move where they double."""
    n, held = len(op.weight), _accumulators(stage)
    work.add(held // n, seen.events * n)
    if not op.halving:
        work.multiply(op.weight_format.bits, Format.covering(op.decode, signed=True).bits, seen.events * n)
    work.access("weights", stage.weights.bits, seen.events * n * op.weight_format.bits)
    moved = seen.moves * stage.pe * held / n
    work.access("state", held, moved, moved)
    work.requantize(stage.requantize, op.tokens)


def _fs_neuron(work: Work, op: FsNeuron, stage) -> None:
    """A comparison and a reset in every step; the values are held while their steps are given out."""
    _train(work, op, stage)
    work.add(op.membrane.bits, 2 * op.output.size)
    moved = op.output.size * op.membrane.bits
    work.access("state", op.input.channels * op.membrane.bits, moved, moved)


def _train(work: Work, op: Encode | FsNeuron, stage) -> None:
    bits = op.input.format.bits
    work.access("values", 2 * stage.groups * stage.lanes_in * bits, op.output.size * bits, op.input.size * bits)


def _lif(work: Work, op: Lif, stage) -> None:  # noqa: ARG001
    """In every step: the leak, the input, and where it fires a comparison and a reset."""
    bits = op.membrane.bits
    work.add(bits, (2 + op.subtract if op.fires else 1) * op.input.size)
    work.multiply(bits, Format.covering(op.keep).bits, op.macs)
    work.access("state", op.input.channels * bits, op.input.size * bits, op.input.size * bits)
    constants = 2 * bits * op.input.channels if op.fires else 0
    work.access("weights", constants, 2 * bits * op.input.size)


def _linear(work: Work, op: Linear, stage) -> None:
    """A product and an addition each; single bits choose weights, so that nothing is multiplied."""
    (n, c), fmt, vectors = op.weight.shape, op.input.format, op.input.tokens
    if fmt != SPIKE:
        work.multiply(fmt.bits, op.weight_format.bits, op.macs)
    work.add(_bits(*op.sums), op.macs)
    if not stage.wired:
        work.access("weights", stage.weights.bits, vectors * n * c * op.weight_format.bits)
    work.access("values", stage.vectors.bits, vectors * c * fmt.bits * (n // stage.pe), vectors * c * fmt.bits)
    work.requantize(stage.requantize, vectors)


def _affine(work: Work, op: Affine, stage) -> None:
    bits = op.weight_format.bits
    work.multiply(op.input.format.bits, bits, op.input.size)
    work.access("weights", op.input.channels * bits, op.input.size * bits)
    work.requantize(stage.requantize, op.input.tokens)


def _lerp(work: Work, op: Lerp, stage) -> None:
    """A knot and the difference to the next are read; one product, and two additions with the rounding."""
    size = op.input.size
    if op.fraction_bits:
        work.multiply(stage.difference.bits, op.fraction_bits, size)
        work.add(op.accumulator.bits, 2 * size)
    work.access("weights", stage.lanes_in * stage.storage.bits, size * stage.storage.width)


def _add(work: Work, op: Add, stage) -> None:  # noqa: ARG001
    work.add(op.accumulator.bits, op.output.size)


def _mean(work: Work, op: Mean, stage) -> None:
    bits = _bits(*op.sums)
    work.add(bits, op.input.size)
    work.access("state", op.input.channels * bits, op.input.size * bits, op.input.size * bits)
    work.requantize(stage.requantize, 1)


def _transpose(work: Work, op: Transpose, stage) -> None:
    bits = op.input.size * op.input.format.bits
    work.access("values", stage.lanes_in * stage.storage.bits, bits, bits)


def _clamp(work: Work, op: Clamp, stage) -> None:
    """Clamps are left out everywhere."""


WORK: dict[type[Operation], Callable] = {
    SpikingLinear: _parallel,
    FsNeuron: _fs_neuron,
    Encode: _train,
    Lif: _lif,
    Linear: _linear,
    Affine: _affine,
    Lerp: _lerp,
    Add: _add,
    Mean: _mean,
    Transpose: _transpose,
    Clamp: _clamp,
}


def _accumulators(stage) -> int:
    """Bits of the accumulators of all outputs."""
    return stage.accumulators.groups * sum(r.bits for r in stage.accumulators.ranges)


def _bits(low: np.ndarray, high: np.ndarray) -> int:
    """Width of values between these bounds, given per channel."""
    return Format.covering(int(np.min(low)), int(np.max(high))).bits
