"""A NIR file as a checked, ordered network: shapes, linear maps, discretised neurons, and its float simulation.

NIR (the Neuromorphic Intermediate Representation) describes neurons by differential equations in continuous time.
What is computed here is their forward Euler discretisation with a time step dt, as snnTorch and Norse simulate it:

    LIF, LI      v[t] = (1 - dt/tau) m[t-1] + (dt/tau) r I[t] + (dt/tau) v_leak
    IF, I        v[t] = m[t-1] + r I[t]                     (the input of a step is a charge: dt does not enter)
    CubaLIF/LI   i[t] = (1 - dt/tau_syn) i[t-1] + (dt/tau_syn) w_in S[t], then as LIF with tau_mem and I = i
    Threshold    z[t] = I[t] > threshold
    firing       z[t] = v[t] > v_threshold;  m[t] = v_reset where z[t] = 1, else v[t];  m[-1] = 0, i[-1] = 0

With reset "subtract", m[t] = v[t] - v_threshold where z[t] = 1 (then v_reset must be 0). With "snntorch", the default
of snnTorch's Leaky and Synaptic (reset_mechanism="subtract", reset_delay=True), a spike is subtracted one step later,
from what has decayed: v[t] = (1 - dt/tau) v[t-1] - v_threshold z[t-1] + ... What each option of snnTorch is here:

    subtract, reset_delay=True     "snntorch"
    zero (Leaky)                   "value", whether delayed or not: the spikes are the same
    subtract, reset_delay=False    "subtract", as long as no membrane exceeds twice its threshold; beyond, snnTorch
                                   subtracts once more before it compares
    none                           not supported

dt is in no NIR file: it is 1e-4 s in snnTorch's exporter and 1e-3 s in Norse's. The exporters do not record the reset
either; NIR says "to v_reset", and so does snnTorch's importer.

Files hold float32: a factor within one part in 2^20 of a multiple of 2^-12 is taken to be that multiple, so that decays
and gains like 3/4 and 1 are what they were before dt/tau was stored.

Source: Pedersen et al., "Neuromorphic intermediate representation", 2024, and the `nir` package's docstrings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nir
import numpy as np

from bittrue.models.formats.nir import hdf5, values
from bittrue.models.formats.nir.linear import LINEAR, LinearMap, linear_map
from bittrue.sim.errors import BittrueError
from bittrue.sim.reading import shown

NEURONS = (nir.LIF, nir.LI, nir.IF, nir.I, nir.CubaLIF, nir.CubaLI, nir.Threshold)
SUPPORTED = (nir.Input, nir.Output, *LINEAR, *NEURONS)
#: The resets of neurons, and what each assumes.
RESETS = {
    "value": "a spike sets the membrane to v_reset, at once",
    "subtract": "a spike takes the threshold off the membrane, at once",
    "snntorch": "a spike takes the threshold off the membrane one step later, after the decay",
}


@dataclass(frozen=True, eq=False)
class Membrane:
    """`v[t] = keep m[t-1] + gain I[t] + drift`, float64 `[C]`; without a threshold nothing fires.

    With `delayed` a spike's reset is subtracted from the next v.
    """

    keep: np.ndarray
    gain: np.ndarray
    drift: np.ndarray
    threshold: np.ndarray | None = None
    reset: np.ndarray | None = None
    subtract: bool = False
    delayed: bool = False

    def __call__(self, current: np.ndarray) -> np.ndarray:
        """Simulate in float: currents `[n, T, C]` to spikes, or to membranes where there is no threshold."""
        m = np.zeros((len(current), current.shape[2]))
        due = 0.0
        results = np.empty(current.shape)
        for t in range(current.shape[1]):
            m = self.keep * m + self.gain * current[:, t] + self.drift - due
            results[:, t] = m
            if self.threshold is not None:
                z = m > self.threshold
                results[:, t] = z
                if self.delayed:
                    due = z * self.reset
                    continue
                m = np.where(z, m - self.reset if self.subtract else self.reset, m)
        return results


@dataclass(frozen=True, eq=False)
class Layer:
    """One node: a linear map, or the membranes that follow one another in it (two for current-based neurons).

    `hints` are those of `values.HINTS`.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    linear: LinearMap | None = None
    membranes: tuple[Membrane, ...] = ()
    hints: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NirNetwork:
    """The nodes of a NIR graph in an order in which each one's sources come first, without Input and Output."""

    input: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    output: str

    def reference(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The float simulation: values `[n, T, ...]` to every node's output `[n, T, size]`, by name."""
        live = {self.input: np.asarray(x, np.float64).reshape(*np.shape(x)[:2], -1)}
        for layer in self.layers:
            y = sum(live[source] for source in layer.sources)
            if layer.linear is not None:
                y = layer.linear(y)
            for membrane in layer.membranes:
                y = membrane(y)
            live[layer.name] = y
        return live


def float_reference(graph: nir.NIRGraph, x: np.ndarray, dt: float, reset: str = "value") -> np.ndarray:
    """Simulate a graph in float64 on values `[n, T, ...]` by the equations above; the output is `[n, T, size]`."""
    found = network(graph, dt, reset)
    return found.reference(x)[found.output]


# -- files ---------------------------------------------------------------------------------------------------
def read(path: str | Path) -> nir.NIRGraph:
    """Read a NIR file; a damaged or foreign one, and one with unknown nodes, is refused with the reason."""
    content = hdf5.read(path)
    node = content.get("node")
    kind, nodes, edges = (node.get(key) if isinstance(node, dict) else None for key in ("type", "nodes", "edges"))
    if isinstance(nodes, dict) and (not isinstance(kind, str) or kind != "NIRGraph"):
        raise BittrueError(f"NIR file {path}: it holds {shown(kind)}, and no NIRGraph; is it one that nir.write wrote?")
    if not isinstance(nodes, dict) or not isinstance(edges, np.ndarray) or (edges.size and edges.shape[1:] != (2,)):
        raise BittrueError(f"NIR file {path}: it holds no graph of nodes and edges; is it one that nir.write wrote?")
    for name, fields in nodes.items():
        kind = fields.get("type") if isinstance(fields, dict) else None
        if not isinstance(kind, str):
            raise BittrueError(
                f"NIR file {path}: the type of node {name!r} is {shown(kind)}, and not text; write it again"
            )
        if kind not in {known.__name__ for known in SUPPORTED}:
            raise _unsupported(name, kind)
    try:
        made = {name: nir.dict2NIRNode(fields) for name, fields in nodes.items()}
        pairs = [(str(start), str(stop)) for start, stop in edges.reshape(-1, 2)]
        return nir.NIRGraph(nodes=made, edges=pairs, type_check=False)
    except Exception as error:  # the package checks with asserts and whatever a constructor raises
        reason = " ".join(repr(error).split())[:200]
        raise BittrueError(f"NIR file {path}: its nodes cannot be made ({reason}); write it again") from error


def _unsupported(name: str, kind: str) -> BittrueError:
    remedy = "a nested graph is how recurrent layers are written, and those are not supported; unroll or remove it"
    if kind != "NIRGraph":
        remedy = f"supported are {', '.join(sorted(k.__name__ for k in SUPPORTED))}; replace it before exporting"
    return BittrueError(f"NIR node {name!r} is a {kind}, which is not supported: {remedy}")


# -- structure -----------------------------------------------------------------------------------------------
def network(graph: nir.NIRGraph, dt: float, reset: str = "value") -> NirNetwork:
    """The graph with its shapes, linear maps and discretised neurons.

    `dt` is the time step in the unit of the file's time constants; `reset` is one of `RESETS`.
    Raises BittrueError for recurrent connections, unknown nodes, shapes that do not fit and unusable parameters.
    """
    if not (np.isfinite(dt) and dt > 0):
        raise BittrueError(f"the time step dt is {dt}; give a positive one in the unit of the file's time constants")
    if reset not in RESETS:
        raise BittrueError(f"reset {reset!r} is unknown; it is one of {', '.join(RESETS)}")
    for name, node in graph.nodes.items():
        if not isinstance(node, SUPPORTED):
            raise _unsupported(name, type(node).__name__)
    entry = _only(graph, nir.Input)
    leave = _only(graph, nir.Output)
    shape = values.shape(graph.nodes[entry], entry, graph.nodes[entry].input_type, "input")
    shapes, layers, result = {entry: shape}, [], ""
    for name, sources in _ordered(graph, entry):
        node = graph.nodes[name]
        if len({shapes[source] for source in sources}) > 1:
            listed = ", ".join(f"{source!r} {list(shapes[source])}" for source in sources)
            raise BittrueError(f"NIR node {name!r} adds up tensors of different shapes: {listed}")
        shape = shapes[sources[0]]
        if name == leave:
            declared = values.shape(node, name, node.output_type, "output")
            if math.prod(declared) != math.prod(shape):
                raise BittrueError(f"NIR node {name!r} declares shape {list(declared)}, but {list(shape)} arrives")
            if len(sources) > 1:
                raise BittrueError(f"NIR node {name!r} adds up {len(sources)} tensors; put a Scale by 1 before it")
            result = sources[0]
            continue
        if isinstance(node, NEURONS):
            membranes = _membranes(node, name, int(np.prod(shape)), shape, dt, reset)
            layers.append(Layer(name, sources, shape, None, membranes, values.hints(node, name)))
        else:
            linear, out = linear_map(node, name, shape)
            layers.append(Layer(name, sources, out, linear, (), values.hints(node, name)))
        shapes[name] = layers[-1].shape
    if result == entry or not result:
        raise BittrueError(f"NIR graph: nothing is computed between {entry!r} and {leave!r}")
    return NirNetwork(entry, shapes[entry], tuple(layers), result)


def _only(graph: nir.NIRGraph, kind: type) -> str:
    names = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
    if len(names) != 1:
        raise BittrueError(f"NIR graph: it has {len(names)} {kind.__name__} nodes ({', '.join(names)}), expected one")
    return names[0]


def _ordered(graph: nir.NIRGraph, entry: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every node but the input with its sources, in an order in which the sources come first."""
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for start, stop in graph.edges:
        for name in (start, stop):
            if name not in sources:
                raise BittrueError(f"NIR graph: the edge {start!r} -> {stop!r} names {name!r}, which is no node")
        sources[stop].append(start)
    done, waiting = {entry}, [name for name in graph.nodes if name != entry]
    while waiting:
        ready = [name for name in waiting if sources[name] and set(sources[name]) <= done]
        if not ready:
            lone = [name for name in waiting if not sources[name]]
            if lone:
                raise BittrueError(
                    f"NIR node {lone[0]!r} ({type(graph.nodes[lone[0]]).__name__}) has no input; connect or remove it"
                )
            name = _in_cycle(waiting, sources)
            raise BittrueError(
                f"NIR node {name!r} ({type(graph.nodes[name]).__name__}) lies in a recurrent connection, which is not "
                "supported; use feed-forward layers (in snnTorch Leaky for RLeaky)"
            )
        for name in ready:
            yield name, tuple(sources[name])
        done.update(ready)
        waiting = [name for name in waiting if name not in done]


def _in_cycle(waiting: list[str], sources: dict[str, list[str]]) -> str:
    """A node of a cycle: walk against the edges until a node comes again."""
    name, seen = waiting[0], set()
    while name not in seen:
        seen.add(name)
        name = next(source for source in sources[name] if source in waiting)
    return name


# -- neurons -------------------------------------------------------------------------------------------------
def _membranes(
    node: nir.NIRNode, name: str, size: int, shape: tuple[int, ...], dt: float, reset: str
) -> tuple[Membrane, ...]:
    """The neuron's discretised equations; parameters are one for all or of the map's shape."""

    def parameter(key: str) -> np.ndarray:
        found = values.numbers(node, name, key)
        if found.size not in (1, size):
            raise values.refused(
                node,
                name,
                f"{key} has shape {list(found.shape)}, but {list(shape)} arrives; export it with one value a neuron or "
                "one for all",
            )
        return np.broadcast_to(found.reshape(-1), (size,))

    def part(key: str) -> np.ndarray:
        """dt / tau."""
        tau = parameter(key)
        if (tau < dt * (1 - 1e-6)).any():
            raise BittrueError(
                f"NIR node {name!r} ({type(node).__name__}): {key} = {tau.min():.4g} is below the time step "
                f"dt = {dt:.4g}; take dt from the simulator that wrote the file (1e-4 in snnTorch, 1e-3 in Norse)"
            )
        return _tidy(np.minimum(dt / tau, 1.0))

    none, one = np.zeros(size), np.ones(size)
    if isinstance(node, nir.Threshold):
        return (Membrane(none, one, none, parameter("threshold"), none),)
    firing: tuple = ()
    if hasattr(node, "v_threshold"):
        threshold, to = parameter("v_threshold"), parameter("v_reset")
        if reset != "value":
            if to.any():
                raise BittrueError(
                    f"NIR node {name!r} ({type(node).__name__}): v_reset is not 0, so a reset by subtraction "
                    "contradicts the file; use reset=value"
                )
            to = threshold
        if reset == "snntorch" and (threshold < 0).any():
            raise values.refused(
                node, name, "v_threshold is negative, for which snnTorch resets before the first spike"
            )
        firing = (threshold, to, reset != "value", reset == "snntorch")
    if isinstance(node, nir.IF | nir.I):
        return (Membrane(one, parameter("r"), none, *firing),)
    if isinstance(node, nir.LIF | nir.LI):
        rate = part("tau")
        return (Membrane(1 - rate, _tidy(rate * parameter("r")), rate * parameter("v_leak"), *firing),)
    synapse, rate = part("tau_syn"), part("tau_mem")
    return (
        Membrane(1 - synapse, _tidy(synapse * parameter("w_in")), none),
        Membrane(1 - rate, _tidy(rate * parameter("r")), rate * parameter("v_leak"), *firing),
    )


def _tidy(factors: np.ndarray) -> np.ndarray:
    """Without the rounding error of a float32 file: see the module's docstring."""
    with np.errstate(over="ignore"):  # infinite is near to nothing
        near = np.rint(factors * 4096) / 4096
    return np.where(np.abs(factors - near) < np.abs(factors) * 2.0**-20, near, factors)
