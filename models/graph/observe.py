"""What the tensors of a float graph are on data: which share a scale, how large they are, and whether the data fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bittrue.models.data.batches import Batch
from bittrue.models.graph.floats import (
    Add,
    Affine,
    Cat,
    Expand,
    Function,
    Graph,
    Mean,
    Multiply,
    Node,
    Pool,
    Unbundle,
    Upsample,
    View,
)
from bittrue.sim.errors import BittrueError

#: Samples that run together, and values of a tensor that are kept of each such batch.
BATCH, KEPT = 64, 1 << 13
#: Candidates of a range, as shares of the largest value.
SHARES = np.linspace(0.2, 1, 41)
#: How many times as large as one of the tensors that share a step another one may be, before they are parted.
GROWN = 2.0
#: Statistics that differ from those that a normalisation learned by more than this are of other data.
FOREIGN = 8.0


class Groups:
    """Sets of nodes whose tensors have one code step (union-find)."""

    def __init__(self) -> None:
        self._above: dict[Node, Node] = {}

    def of(self, node: Node) -> Node:
        """The node that stands for the group of this one."""
        above = self._above.get(node, node)
        if above is node:
            return node
        self._above[node] = self.of(above)
        return self._above[node]

    def join(self, node: Node, *others: Node) -> None:
        for other in others:
            self._above[self.of(other)] = self.of(node)


def passes_codes(node: Node) -> bool:
    """Whether a node's codes are some of those that it reads, or lie between them: views, copies, maxima, clamps,
    means of the copies of a sample."""
    return (
        isinstance(node, View | Upsample | Expand | Unbundle)
        or (isinstance(node, Pool) and not node.divisor)
        or is_clamp(node)
    )


def is_clamp(node: Node) -> bool:
    return isinstance(node, Function) and node.limits is not None


def follows(node: Node) -> bool:
    """Whether the step of a result follows from what is read, where sums are shifted: averages, products of tensors."""
    return isinstance(node, Mean | Multiply) or (isinstance(node, Pool) and node.divisor is not None)


def groups(graph: Graph) -> Groups:
    """Tensors that are added, put together, passed on or clamped have one step with what they are made of."""
    found = Groups()
    for node in graph.nodes:
        if isinstance(node, Add | Cat) or passes_codes(node):
            found.join(node, *node.operands)
    return found


def free_steps(graph: Graph) -> None:
    """Put a factor of 1 behind every average or product of tensors that is added to something or put beside it.

    The step of one that is brought to codes by a shift follows from what it reads, so that it can be no one else's.
    """
    for node in [node for node in graph.nodes if follows(node)]:
        pending, joined = [node], False
        while pending:
            for reader in graph.readers(pending.pop()):
                joined |= isinstance(reader, Add | Cat)
                pending += [reader] if passes_codes(reader) else []
        if joined:
            readers, factor = graph.readers(node), identity(graph, node, "scale")
            for reader in readers:
                reader.operands = [factor if operand is node else operand for operand in reader.operands]


def part_sums(graph: Graph, seen: Observed) -> None:
    """Put a factor of 1 in front of an addition whose sum is `GROWN` times as large as the smallest tensor of what it
    would share a step with, so that this has a step of its own.

    What nobody else reads is as fine as the sum that it goes into, and needs none.
    """
    found, least = Groups(), dict[Node, float]()
    for node in list(graph.nodes):
        size = seen.largest(node)
        if isinstance(node, Add):
            for operand in [operand for operand in node.operands if not graph.alone(operand)]:
                if size > GROWN * least[found.of(operand)]:
                    factor = identity(graph, operand, "residual")
                    seen.magnitudes[factor] = seen.magnitudes[operand]
                    least[factor] = size
                    node.operands = [factor if one is operand else one for one in node.operands]
        if isinstance(node, Add | Cat) or passes_codes(node):
            size = min(size, *(least[found.of(operand)] for operand in node.operands if not graph.alone(operand)), size)
            found.join(node, *node.operands)
        least[found.of(node)] = size


def identity(graph: Graph, node: Node, name: str) -> Affine:
    """A factor of 1 behind a node, which nobody reads yet."""
    made = Affine(f"{node.name}_{name}", node.place, [node], node.shape, torch.ones(1), torch.zeros(1))
    graph.nodes.insert(graph.nodes.index(node) + 1, made)
    return made


def batches(x: Batch, n: int = 1) -> Iterator[Batch]:
    """Samples that run together, as far as they fill groups of n."""
    size = n * max(1, BATCH // n)
    yield from (x[first : first + size] for first in range(0, len(x) // n * n, size))


@dataclass(frozen=True)
class Observed:
    """Magnitudes of every node's tensor, sorted, as far as its readers see them; those of the results are all there."""

    magnitudes: dict[Node, np.ndarray]

    def largest(self, node: Node) -> float:
        return float(self.magnitudes[node][-1])


def observe(graph: Graph, x: Batch) -> Observed:
    """Run the graph on samples, in every mode, and look at every tensor."""
    seen: dict[Node, list[np.ndarray]] = {node: [] for node in graph.nodes}
    limits = {node: _limits(graph, node) for node in graph.nodes}
    draws = torch.Generator().manual_seed(1)
    for part in (part for n in graph.modes() for part in batches(x, n)):
        for node, value in graph.run(part).items():
            magnitudes = value.clamp(*limits[node]).abs().flatten()
            largest = magnitudes.max()
            if not torch.isfinite(largest):
                raise BittrueError(
                    f"calibration: {node.place}: a value is {float(largest)}; look for infinite weights or data, or "
                    "limit what goes in"
                )
            if node not in graph.results and len(magnitudes) > KEPT:
                chosen = torch.randint(len(magnitudes), (KEPT,), generator=draws)  # a stride would leave channels out
                magnitudes = torch.cat([magnitudes[chosen], largest[None]])
            seen[node].append(magnitudes.numpy())
    return Observed({node: np.sort(np.concatenate(parts)) for node, parts in seen.items()})


def _limits(graph: Graph, node: Node) -> tuple[float, float]:
    """Within which values the readers of a node tell one from another."""
    readers = graph.readers(node)
    if node in graph.results or not readers or not all(is_clamp(reader) for reader in readers):
        return -torch.inf, torch.inf
    return min(reader.limits[0] for reader in readers), max(reader.limits[1] for reader in readers)


def reach(magnitudes: np.ndarray, high: int, ranges: str | float) -> float:
    """The largest magnitude that codes up to `high` are to stand for: a percentile, or `mse`, the least mean square of
    what rounding and clipping change."""
    if not isinstance(ranges, str):
        return float(np.percentile(magnitudes, ranges))
    top = float(magnitudes[-1])
    few = magnitudes[np.linspace(0, len(magnitudes) - 1, min(len(magnitudes), 4096)).astype(int)].astype(np.float64)
    if top <= 0:
        return 0.0
    steps = SHARES * top / high
    errors = [float(np.square(few - np.minimum(np.rint(few / step), high) * step).mean()) for step in steps]
    return float(steps[int(np.argmin(errors))] * high)


def refuse_foreign(what: str, graph: Graph, x: Batch) -> None:
    """Raise where normalisations see data that are far from what they were trained on, or a channel that never changed.

    A channel that was constant in training and is so here is left with a factor of 0: what it gives is constant.
    """
    norms = [node for node in graph.nodes if isinstance(node, Affine) and node.learned is not None]
    if not norms:
        return
    seen = graph.run(x[: 4 * BATCH], {node.operands[0] for node in norms})
    for node in norms:
        mean, variance, least, begun = node.learned
        values = seen[node.operands[0]].movedim(node.axis + 1, 0).flatten(1)
        std, learned = values.std(1, correction=0), variance.sqrt()
        still = learned <= 1e-6 * (1 + mean.abs())
        changing = still & (std > 1e-3 * (1 + mean.abs()))
        if changing.any():
            raise BittrueError(
                f"{what}: {node.place}: channel {int(changing.nonzero()[0, 0])} was constant when it was trained (its "
                "running_var is 0) and is not on the calibration data; calibrate on data like those of the training"
            )
        value = torch.where(still, values.mean(1) * node.weight + node.bias, node.bias)
        node.weight, node.bias = torch.where(still, 0, node.weight), value
        live = ~still & (std > 0)
        if not live.any():
            continue
        told = [_apart(values[live], mean[live], variance[live] + least)]
        if 0 < begun < 1:  # after few batches; without what it began with
            rest = ((variance - begun) / (1 - begun)).clamp(min=0)
            told.append(_apart(values[live], mean[live] / (1 - begun), rest[live] + least))
        if all(not 1 / FOREIGN < ratio < FOREIGN or shift > FOREIGN for ratio, shift in told):
            ratio, shift = told[0]
            raise BittrueError(
                f"{what}: {node.place}: what it normalises has {ratio:.3g} times the standard deviation that it was "
                f"trained on, and a mean {shift:.3g} of those away; the calibration data are scaled otherwise than "
                "those of the training: give them as the model takes them"
            )


def _apart(values: Tensor, mean: Tensor, variance: Tensor) -> tuple[float, float]:
    """How many times the deviation of a normalisation that of channels `[C, values]` is, and how many of them apart
    their means are."""
    learned = variance.sqrt()
    ratio = (values.std(1, correction=0) / learned).log().mean().exp()
    return float(ratio), float(((values.mean(1) - mean).abs() / learned).median())
