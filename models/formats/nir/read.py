"""A NIR network as an integer program of `Linear`, `Affine` and `Lif` operations over T time steps.

The equations are those of `models.formats.nir.graph`. What becomes an integer, and how:

* Consecutive linear nodes, the neuron's gain and its drift become one matrix and one bias. Each output channel has a
  unit of its own, 2^-f, with the largest f for which its weights fit `weight_bits`, 8 by default:
  `weight = round(W 2^f)`, `bias = round(b 2^f)`. A spike does not depend on the unit of the membrane that fires it.
* The membrane has `guard` more bits: its unit is 2^-(f + guard). `threshold = floor(v_threshold 2^(f + guard))`, which
  loses nothing since firing is `v > threshold` on integers; `reset = round(v_reset 2^(f + guard))`.
* `keep = round((1 - dt/tau) 2^shift)`, with the smallest shift that is exact, or else enough of them that the leak is
  right to within 1 %, and at least `keep_bits`, 10 by default.

No current and no membrane saturates. A network whose weights are multiples of 2^-f within 8 bits, whose decays are
fractions of powers of two and whose membranes need no more than `guard` bits below their weights is computed exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np

from bittrue.models.formats.nir import graph as nir_graph
from bittrue.models.formats.nir.linear import LinearMap
from bittrue.models.formats.nir.values import FRACTION_KEY, GUARD_KEY, SHIFT_KEY
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format, check_bits, product_sum_range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.operations.lif import MAX_SHIFT, Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

#: The most fraction bits of a current, for channels whose weights are tiny or all zero.
MAX_FRACTION = 24
#: A bias in units of the last place of its weights is less than this: integers of 64 bits hold it.
MOST_BIAS = 2.0**62
#: Fraction bits of `keep` where none are exact.
SHIFT = 10
#: Bits of the membrane below the step of its weights.
GUARD = 4
#: Relative error with which a number of a file counts as a multiple of the step that the file says it has.
EXACT = 2.0**-20

METHOD = (
    "forward Euler: v[t] = (1 - dt/tau) m[t-1] + (dt/tau) (r I[t] + v_leak), IF: v[t] = m[t-1] + r I[t]; "
    "z = v > v_threshold; {}"
)


def read_program(path: str | Path, steps: int, dt: float, **options: Any) -> Program:
    """Read a NIR file into a program; the arguments are those of `program`."""
    return program(nir_graph.read(path), steps, dt, **options)


def program(
    graph: nir.NIRGraph,
    steps: int,
    dt: float,
    *,
    reset: str = "value",
    input_format: Format = SPIKE,
    input_scale: float = 1.0,
    guard: int = GUARD,
    weight_bits: int = 8,
    keep_bits: int = SHIFT,
) -> Program:
    """The network as a program: input `[T, size]` in `input_format`, a code worth `input_scale`; output `[T, size]`.

    steps   T, the number of time steps of a sample
    dt      time step, in the unit of the file's time constants
    reset   "value" (as NIR has it), "subtract" (of v_threshold) or "snntorch" (as its neurons have it by default);
            no file says which
    guard   bits of each membrane below the step of its weights
    weight_bits, keep_bits  of each weight, and least fraction bits of a decay that none hold exactly: what a program
            differs in from the float network is their rounding
    Raises BittrueError, naming the node, for what `models.formats.nir.graph.network` refuses, for nodes that add up
    several tensors, and for membranes wider than 48 bits.
    """
    if steps < 1:
        raise BittrueError(f"a NIR network runs for at least one time step; {steps} were asked for")
    if not (np.isfinite(input_scale) and input_scale > 0):
        raise BittrueError(f"input scale {input_scale}: the worth of one input code is positive")
    network = nir_graph.network(graph, dt, reset)
    _chain(network)
    if not 2 <= weight_bits <= 16:
        raise BittrueError(f"weights of {weight_bits} bits were asked for; they have 2 to 16")
    if not 1 <= keep_bits <= MAX_SHIFT:
        raise BittrueError(f"decays of {keep_bits} fraction bits were asked for; they have 1 to {MAX_SHIFT}")
    grow = _Growing(network, steps, input_format, input_scale, guard, Format(weight_bits), keep_bits)
    for layer in network.layers:
        try:
            grow.layer(layer)
        except BittrueError as error:
            raise BittrueError(f"NIR node {layer.name!r}: {error}") from error
    meta = {
        "source": "nir",
        "nir": {
            "dt": dt,
            "reset": reset,
            "steps": steps,
            "discretisation": METHOD.format(nir_graph.RESETS[reset]),
            "input": {"shape": list(network.input_shape), "format": str(input_format), "scale": input_scale},
            "layers": grow.notes,
        },
    }
    return grow.program(meta)


def _chain(network: nir_graph.NirNetwork) -> None:
    """Refuse sums and branches, by name."""
    previous = network.input
    for layer in network.layers:
        if layer.sources != (previous,):
            raise BittrueError(
                f"NIR node {layer.name!r} reads {', '.join(map(repr, layer.sources))}, not {previous!r} alone; only "
                "chains of layers become a program, so leave out branches and sums"
            )
        previous = layer.name
    if network.output != previous:
        raise BittrueError(f"NIR node {previous!r} leads nowhere; only chains of layers become a program")


class _Growing:
    """A program under construction: the last tensor, the worth of its codes, and the linear map not yet applied."""

    def __init__(
        self,
        network: nir_graph.NirNetwork,
        steps: int,
        fmt: Format,
        scale: float,
        guard: int,
        weights: Format,
        keep_bits: int,
    ) -> None:
        size = int(np.prod(network.input_shape))
        self.build = Builder({network.input: TensorType((steps, size), fmt)})
        self.last, self.unit, self.guard = network.input, np.full(size, scale), guard
        self.weights, self.keep_bits = weights, keep_bits
        self.pending: LinearMap | None = None
        self.pending_name, self.fraction = "", None
        self.notes: dict[str, Any] = {}

    def layer(self, layer: nir_graph.Layer) -> None:
        if layer.linear is not None:
            if not _is_identity(layer.linear):
                alone = self.pending is None
                self.pending = layer.linear if alone else layer.linear.after(self.pending)
                self.pending_name = layer.name
                self.fraction = layer.hints.get(FRACTION_KEY) if alone else None
            return
        for position, membrane in enumerate(layer.membranes):
            name = layer.name if position == len(layer.membranes) - 1 else f"{layer.name}.synapse"
            self.current(membrane, name)
            self.membrane(membrane, name, layer.hints)

    def current(self, membrane: nir_graph.Membrane, name: str) -> None:
        """The input of a membrane: one matrix product, or nothing where only the unit changes."""
        if self.pending is None and (membrane.gain > 0).all() and not membrane.drift.any():
            self.unit = self.unit * membrane.gain
            return
        total = LinearMap(membrane.gain, membrane.drift)
        if self.pending is not None:
            total = total.after(self.pending)
        self.product(total, self.pending_name or f"{name}.current")

    def product(self, total: LinearMap, name: str) -> None:
        """Quantise a map of the last tensor's values and add it."""
        kind = self.build.types[self.last]
        with np.errstate(over="ignore", invalid="ignore"):
            matrix = total.matrix * self.unit
        if not (np.isfinite(matrix).all() and np.isfinite(total.bias).all()):
            raise BittrueError(f"the weights of {name!r} are too large: in the unit of its input they are infinite")
        rows = matrix if matrix.ndim == 2 else matrix[:, None]
        f = fraction_bits(rows, total.bias, self.weights)
        if self.fraction is not None:
            f = np.full(len(rows), self.fraction, np.int64)
            if not (_whole(rows * np.exp2(f)[:, None]) and _whole(total.bias * np.exp2(f))):
                raise BittrueError(
                    f"metadata {FRACTION_KEY} is {self.fraction}, but its weights are no multiples of "
                    f"2^-{self.fraction}; the file was altered after it was written: remove that key from it"
                )
        scaled = np.rint(total.bias * np.exp2(f))
        if (np.abs(scaled) >= MOST_BIAS).any():
            raise BittrueError(
                f"the bias of {name!r} is too large beside its weights: {np.abs(scaled).max():.3g} of their last "
                f"place, and less than 2^62 can be held; scale it or its weights"
            )
        weight, bias = np.rint(rows * np.exp2(f)[:, None]).astype(np.int64), scaled.astype(np.int64)
        low, high = (ends + bias for ends in product_sum_range(weight, kind.format, 1, f"the product before {name!r}"))
        fmt = Format.covering(low, high, signed=True)
        requantize = Requantize(len(weight), 0, bias_acc=bias, format=fmt)
        if matrix.ndim == 1:
            operation = Affine(kind, weight[:, 0], requantize, self.weights)
        else:
            operation = Linear(kind, weight, requantize, self.weights)
        self.last = self.build.add(name, operation, self.last)
        self.unit = np.exp2(-f.astype(np.float64))
        self.notes[name] = {"fraction_bits": _span(f)}
        self.pending, self.pending_name, self.fraction = None, "", None

    def membrane(self, membrane: nir_graph.Membrane, name: str, hints: dict[str, int]) -> None:
        guard = hints.get(GUARD_KEY, self.guard)
        shift = hints[SHIFT_KEY] if SHIFT_KEY in hints else decay_bits(membrane.keep, self.keep_bits)
        if SHIFT_KEY in hints and not holds(membrane.keep, shift):
            raise BittrueError(
                f"metadata {SHIFT_KEY} is {shift}, but its decay is no multiple of 2^-{shift}; the file was altered "
                "after it was written: remove that key from it"
            )
        keep = np.rint(membrane.keep * (1 << shift)).astype(np.int64)
        unit = self.unit / (1 << guard)
        threshold = reset = None
        if membrane.threshold is not None:
            with np.errstate(over="ignore"):  # what is infinite is refused
                threshold = _codes(np.floor(membrane.threshold / unit), f"the threshold of {name!r}")
                reset = _codes(np.rint(membrane.reset / unit), f"the reset of {name!r}")
        kind = self.build.types[self.last]
        how = (shift, guard, membrane.subtract, membrane.delayed)
        operation = Lif(kind, _shared(threshold), _shared(reset), _shared(keep), *how)
        self.last = self.build.add(name, operation, self.last)
        self.unit = np.ones(kind.channels) if operation.fires else unit
        self.notes[name] = {
            "keep": _span(membrane.keep),
            "keep_stored": _span(keep / (1 << shift)),
            "membrane": str(operation.membrane),
            "membrane_fraction_bits": _span(np.log2(1 / unit)),
        }

    def program(self, meta: dict[str, Any]) -> Program:
        if self.pending is not None:
            self.product(self.pending, self.pending_name)
        if not self.build.nodes:
            raise BittrueError("NIR graph: it holds no operation, only changes of shape")
        meta["nir"]["output_unit"] = self.unit.tolist()
        return self.build.program(self.last, **meta)


def fraction_bits(rows: np.ndarray, bias: np.ndarray, fmt: Format) -> np.ndarray:
    """The largest f a row for which round(row 2^f) fits the format and round(bias 2^f) 31 bits; int64 `[N]`."""
    largest = np.abs(rows).max(axis=1, initial=0)
    wanted = np.full(len(rows), MAX_FRACTION, np.int64)
    for values, limit in ((largest, fmt.high), (np.abs(bias), (1 << 30) - 1)):
        some = values > 0
        # One more than the estimate where rounding still brings the largest value within the format. The quotient of
        # the two would be infinite for the smallest values.
        f = np.minimum(np.floor(np.log2(limit) - np.log2(values[some])).astype(np.int64) + 1, MAX_FRACTION)
        f -= np.rint(values[some] * np.exp2(f)) > limit
        wanted[some] = np.minimum(wanted[some], f)
    # A row of zeros has no step of its own: that of the finest other row will do.
    zero = largest == 0
    if zero.any() and not zero.all():
        wanted[zero] = np.minimum(wanted[zero], wanted[~zero].max())
    return wanted


def decay_bits(keep: np.ndarray, least: int = SHIFT) -> int:
    """Fraction bits for `keep`: the fewest that hold it exactly, or enough for 1 % of the leak, `least` at least."""
    leak = 1 - keep
    for shift in range(least + 1):
        if holds(keep, shift):
            return shift
    smallest = leak[leak > 0].min()
    needed = int(np.ceil(np.log2(50 / smallest)))
    if needed > MAX_SHIFT:
        raise BittrueError(
            f"the leak dt/tau = {smallest:.3g} is too small for {MAX_SHIFT} fraction bits; use a larger time step or "
            "an IF neuron"
        )
    return max(least, needed)


def holds(keep: np.ndarray, shift: int) -> bool:
    """Whether so many fraction bits hold the decays, to within a millionth of the leak."""
    return bool((np.abs(keep - np.rint(keep * (1 << shift)) / (1 << shift)) <= (1 - keep) * EXACT).all())


def _whole(values: np.ndarray) -> bool:
    return bool((np.abs(values - np.rint(values)) <= np.abs(values) * EXACT).all())


def _is_identity(linear: LinearMap) -> bool:
    return linear.matrix.ndim == 1 and bool((linear.matrix == 1).all()) and not linear.bias.any()


def _codes(values: np.ndarray, name: str) -> np.ndarray:
    check_bits(float(np.abs(values).max()), name)
    return values.astype(np.int64)


def _shared(values: np.ndarray | None) -> np.ndarray | None:
    """One value where all channels have the same."""
    return values[:1] if values is not None and (values == values[0]).all() else values


def _span(values: np.ndarray) -> list[float]:
    return [float(np.min(values)), float(np.max(values))]


def check_agreement(layers: dict[str, dict[str, float]], least: float) -> None:
    """Refuse a program whose spikes are not those of the float network, in a layer, to at least this share."""
    for name, seen in layers.items():
        if not seen["equal"] >= least:
            raise BittrueError(
                f"NIR node {name!r}: {100 * seen['equal']:.2f} % of its spikes and silences are those of the float "
                f"network, and at least {100 * least:g} % are asked for; more bits of the weights may help"
            )


def agreement(
    program: Program, graph: nir.NIRGraph, x: np.ndarray, *, dt: float, reset: str = "value"
) -> dict[str, dict[str, float]]:
    """How the program's spikes compare with the float simulation's on codes `[n, T, size]`, per spiking layer.

    `equal` is the share of equal spikes and silences, `rate` the share of spikes in the float simulation.
    """
    scale = program.meta["nir"]["input"]["scale"]
    truth = nir_graph.network(graph, dt, reset).reference(x * scale)
    tensors = program.trace(x).tensors
    result = {}
    for node in program.nodes:
        if isinstance(node.operation, Lif) and node.operation.fires:
            expected = truth[node.name]
            equal = float((tensors[node.name] == expected).mean())
            result[node.name] = {"equal": equal, "rate": float(expected.mean())}
    return result
