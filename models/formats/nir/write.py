"""A spiking program as a NIR graph, as far as NIR can express it; what it cannot is an error that names the operation.

Programs over time (`Linear`, `Affine`, `Lif`). One NIR step is one of the T steps. A `Lif` becomes LIF, IF, LI, I or
Threshold with dt as time step. NIR knows no rounding: a membrane that decays is an unrounded one there. The metadata of
each node hold the bits after the point, from which `models.formats.nir.read` restores the same integers.

FS networks (`Encode`, `SpikingLinear`, `FsNeuron`). NIR has no such neuron, but its K steps can be laid out in space,
so that one NIR step is one sample, and nothing has a state:

    z[t] = Threshold(v[t]),   v[t+1] = v[t] + Scale(-reset[t]) z[t],   y = Affine(sum_t Scale(decode[t]) z[t])

This is exact, rounding included: the resets are integers, so the rounding of v = floor(u + 1/2) moves into the
thresholds: v - n > T for integers n and T just when u - n > T + 1/2 - 2^-(shift+1), where u is a multiple of 2^-shift.
Two things have no counterpart: a clip of the neuron's input that changes a spike, and the rounding of a result that no
neuron reads. The latter can be left to the reader of the file (`round_outside`).
"""

from __future__ import annotations

import io
from pathlib import Path

import nir
import numpy as np

from bittrue.models.formats.nir.values import FRACTION_KEY, GUARD_KEY, SHIFT_KEY
from bittrue.sim.contract import Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.operation import Operation
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.encode import Encode
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize

#: Most input values of an FS-neuron that are tried to see whether its clip changes a spike.
MAX_TRIED = 1 << 22


def save(graph: nir.NIRGraph, path: str | Path) -> Path:
    """Write a graph to a NIR file, whole or not at all."""
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    return write_whole(Path(path), buffer.getvalue())


def graph(program: Program, dt: float = 1e-4, round_outside: bool = False) -> nir.NIRGraph:
    """The program as a NIR graph. Values are the program's codes.

    dt             time step of leaky neurons, in the unit that the file's time constants shall have
    round_outside  leave out the last operation's rounding and saturation: the program's result is then
                   `saturate(floor(y + 1/2))` of the graph's y
    Raises BittrueError naming the operation that NIR cannot express.
    """
    if not (np.isfinite(dt) and dt > 0):
        raise BittrueError(f"the time step dt is {dt}; give a positive one")
    return _Writer(program, dt, round_outside).graph()


def _cannot(node: Node, why: str) -> BittrueError:
    kind = type(node.operation).__name__
    return BittrueError(f"operation {node.name!r} ({kind}) cannot be expressed in NIR: {why}")


class _Writer:
    def __init__(self, program: Program, dt: float, round_outside: bool) -> None:
        self.program, self.dt, self.round_outside = program, dt, round_outside
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        #: NIR nodes whose sum is the tensor; of a spike train, those of each step.
        self.made: dict[str, list[str]] = {}
        self.over_time = any(isinstance(node.operation, Lif) for node in program.nodes)

    def graph(self) -> nir.NIRGraph:
        program = self.program
        if len(program.inputs) != 1:
            raise BittrueError(f"NIR export: the program has {len(program.inputs)} inputs, expected one")
        if len(program.results) != 1:
            raise BittrueError(
                f"NIR export: the program has {len(program.results)} results ({', '.join(program.results)}), expected "
                "one; export a program with one of them"
            )
        ((entry, kind),) = program.inputs.items()
        if len(kind.shape) != 1 + self.over_time:
            axes = "time and channels" if self.over_time else "channels"
            raise BittrueError(
                f"NIR export: input {entry!r} is {kind}, expected {axes}; NIR's linear layers take vectors, so several "
                "tokens cannot be expressed"
            )
        self.nodes[entry] = nir.Input(input_type={"input": np.array([kind.channels])})
        self.made[entry] = [entry]
        for node in program.nodes:
            if "/" in node.name:
                raise _cannot(node, "its name holds a '/', which separates groups in the file")
            writer = _WRITERS.get(type(node.operation))
            if writer is None:
                raise _cannot(node, "it has no counterpart among NIR's primitives")
            writer(self, node, node.operation)
        if len(self.made[program.result]) != 1:
            raise BittrueError(f"NIR export: the result {program.result!r} is a spike train of several steps")
        leave = "output"
        while leave in self.nodes:
            leave += "_"
        outputs = np.array([program.output.channels])
        self.add(leave, nir.Output(output_type={"output": outputs}), self.made[program.result])
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges)

    def add(self, name: str, node: nir.NIRNode, sources: list[str]) -> str:
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    # -- linear ------------------------------------------------------------------------------------------
    def product(self, node: Node, matrix: np.ndarray, sources: list[str]) -> None:
        """A matrix with its requantiser as one Affine; whoever reads it must round, or nothing must be rounded."""
        r: Requantize = node.operation.requantize  # type: ignore[attr-defined]
        readers = self.program.readers[node.name]
        absorbed = bool(readers) and all(isinstance(reader.operation, FsNeuron) for reader in readers)
        left = self.round_outside and node.name == self.program.result and not readers
        if not (absorbed or left) and _rounds(node.operation):
            last = "; it is the result, so the rounding can be left to the reader" if not readers else ""
            raise _cannot(node, f"its requantiser rounds or clips what {_who(readers)}{last}")
        factor = r.multiplier / np.exp2(r.shift)
        bias = r.bias_acc * factor + r.bias
        meta = {FRACTION_KEY: 0} if not r.shift.any() else {}
        affine = nir.Affine(weight=matrix * factor[:, None], bias=bias, metadata=meta)
        self.made[node.name] = [self.add(node.name, affine, sources)]

    def linear(self, node: Node, operation: Linear) -> None:
        self.product(node, operation.weight.astype(np.float64), self.values(node))

    def affine(self, node: Node, operation: Affine) -> None:
        self.product(node, np.diag(operation.weight.astype(np.float64)), self.values(node))

    def spiking_linear(self, node: Node, operation: SpikingLinear) -> None:
        producer = next((n for n in self.program.nodes if n.name == node.operands[0]), None)
        weight = operation.weight.astype(np.float64)
        if producer is not None and isinstance(producer.operation, Encode):
            if not np.array_equal(operation.decode, producer.operation.decode):
                raise _cannot(node, "it gives the bits of a code other weights than their places")
            return self.product(node, weight, self.values(producer))
        steps = self.made[node.operands[0]]
        if len(steps) != operation.steps:
            raise _cannot(node, "its spike train comes from no FS-neuron")
        size = operation.input.channels
        scaled = [
            self.add(f"{node.name}.decode{t}", nir.Scale(scale=np.full(size, float(worth))), [step])
            for t, (worth, step) in enumerate(zip(operation.decode, steps, strict=True))
        ]
        return self.product(node, weight, scaled)

    def values(self, node: Node) -> list[str]:
        """The node that makes the operand, which is no spike train of an FS-neuron."""
        made = self.made[node.operands[0]]
        if len(made) != 1:
            raise _cannot(node, "it reads a spike train step by step")
        return made

    # -- neurons -----------------------------------------------------------------------------------------
    def lif(self, node: Node, operation: Lif) -> None:
        size, unit = operation.input.channels, 2.0**-operation.guard
        meta = {GUARD_KEY: operation.guard, SHIFT_KEY: operation.shift}
        rate = 1 - operation.keep / (1 << operation.shift)
        if operation.subtract:
            raise _cannot(node, "it is reset by subtraction, and NIR's neurons are reset to a value")
        if rate.any() and not rate.all():
            raise _cannot(node, "some of its channels leak and some do not; NIR has LIF or IF nodes for all channels")
        one = np.ones(size)
        firing = {}
        if operation.fires:
            firing = {"v_threshold": operation.threshold * unit, "v_reset": operation.reset * unit}
        if operation.fires and not operation.keep.any():
            made: nir.NIRNode = nir.Threshold(threshold=firing["v_threshold"], metadata=meta)
        elif not rate.any():
            made = (nir.IF if operation.fires else nir.I)(r=one, metadata=meta, **firing)
        else:
            kind = nir.LIF if operation.fires else nir.LI
            made = kind(tau=self.dt / rate, r=1 / rate, v_leak=0 * one, metadata=meta, **firing)
        sources = self.values(node)
        if operation.fires:
            self.made[node.name] = [self.add(node.name, made, sources)]
            return
        # The membrane in units of its input, then as the code that the program has.
        bare = self.add(f"{node.name}.membrane", made, sources)
        codes = nir.Scale(scale=one / unit, metadata={FRACTION_KEY: 0})
        self.made[node.name] = [self.add(node.name, codes, [bare])]

    def encode(self, node: Node, operation: Encode) -> None:  # noqa: ARG002
        """The reader takes the value itself."""
        self.made[node.name] = self.values(node)

    def fs_neuron(self, node: Node, operation: FsNeuron) -> None:
        size, source = operation.input.channels, node.operands[0]
        producer = next((n.operation for n in self.program.nodes if n.name == source), None)
        requantize = getattr(producer, "requantize", None)
        shift, floor = np.zeros(size, np.int64), operation.input.format.low
        values = Range(operation.input.format.low, operation.input.format.high)
        if requantize is not None:
            shift, floor, values = requantize.shift, requantize.low, producer.ranges[2]  # type: ignore[union-attr]
        lowest, highest = max(operation.lowest, floor), operation.highest  # type: ignore[type-var]
        if not _clip_is_idle(operation, values, lowest, highest):
            raise _cannot(
                node,
                f"it clips its input {values} to {lowest}..{highest}, which changes spikes, and NIR has no such node",
            )
        grid = 0.5 - np.where(shift > 0, np.exp2(-shift - 1.0), 0.0)
        current, spikes = self.values(node), []
        for t, (threshold, reset) in enumerate(zip(operation.threshold, operation.reset, strict=True)):
            spikes.append(self.add(f"{node.name}.spike{t}", nir.Threshold(threshold=threshold + grid), current))
            if t < operation.steps - 1:
                drop = nir.Scale(scale=np.full(size, -float(reset)))
                dropped = self.add(f"{node.name}.reset{t}", drop, [spikes[-1]])
                kept = nir.Scale(scale=np.ones(size))
                current = [self.add(f"{node.name}.membrane{t + 1}", kept, [*current, dropped])]
        self.made[node.name] = spikes


_WRITERS = {
    Linear: _Writer.linear,
    Affine: _Writer.affine,
    SpikingLinear: _Writer.spiking_linear,
    Lif: _Writer.lif,
    Encode: _Writer.encode,
    FsNeuron: _Writer.fs_neuron,
}


def _rounds(operation: Operation) -> bool:
    """Whether the requantiser does anything but scale by integers and add."""
    r: Requantize = operation.requantize  # type: ignore[attr-defined]
    reached: Range = operation.ranges[2]  # type: ignore[attr-defined]
    return bool(r.shift.any()) or reached.low < r.low or reached.high > r.format.high


def _who(readers: list[Node]) -> str:
    if not readers:
        return "leaves the program"
    return f"{readers[0].name!r} ({type(readers[0].operation).__name__}) reads"


def _clip_is_idle(operation: FsNeuron, values: Range, lowest: int, highest: int) -> bool:
    """Whether the neuron fires the same spikes without its clip, for every value that can arrive; tried on all."""
    if values.high - values.low >= MAX_TRIED:
        return lowest <= values.low and values.high <= highest
    v = np.arange(values.low, values.high + 1, dtype=np.int64)
    clipped = np.clip(v, lowest, highest)
    for threshold, reset in zip(operation.threshold, operation.reset, strict=True):
        z, z_clipped = v > threshold, clipped > threshold
        if not np.array_equal(z, z_clipped):
            return False
        v, clipped = v - reset * z, clipped - reset * z_clipped
    return True
