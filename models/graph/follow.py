"""A user's own torch module, followed by torch.fx with real values: every node knows its value and its place.

Shapes, sizes, types and lengths are those of the samples that it is followed with, so that a forward may look at them.
What depends on the samples' values cannot be followed, and is refused with the line of the user's code.
"""

from __future__ import annotations

import copy
import linecache
import operator
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from bittrue.models.data.batches import Batch
from bittrue.models.graph.kinds import known
from bittrue.sim.errors import BittrueError

#: Samples that a network is followed with.
SAMPLES = 2
_ELSEWHERE = (*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[1]))
#: Methods of a tensor that say nothing of its values.
_GEOMETRY = {"dim", "ndimension", "numel", "nelement", "stride", "is_floating_point", "is_contiguous", "element_size"}
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


@dataclass(frozen=True)
class Place:
    """Where something is computed: the path of the module, and the line of the code that calls it."""

    path: str
    line: str = ""

    def __str__(self) -> str:
        return f"{self.path or 'the network itself'}{f', {self.line}' if self.line else ''}"


@dataclass(frozen=True, eq=False)
class Followed:
    """A forward that was followed.

    root     the module that the nodes' targets are paths in
    nodes    what it computes, in order, without the output
    values   what each node gave
    inputs   the nodes of the samples, in order
    output   the node that is the forward's end
    results  the nodes of what the forward gives, in order
    keys     their keys, where it gives a dictionary
    """

    root: nn.Module
    nodes: list[fx.Node]
    values: dict[fx.Node, Any]
    places: dict[fx.Node, Place]
    inputs: list[fx.Node]
    output: fx.Node
    results: list[fx.Node]
    keys: tuple[str, ...] | None

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls."""
        return self.root.get_submodule(node.target) if node.op == "call_module" else None

    def call(self, node: fx.Node, given: dict[fx.Node, Any]) -> Any:
        """What a node gives, with other values for some of the nodes that it reads."""

        def value(part: Any) -> Any:
            return (given[part] if part in given else self.values[part]) if isinstance(part, fx.Node) else part

        return compute(
            self.root, node.op, node.target, map_aggregate(node.args, value), map_aggregate(node.kwargs, value)
        )


class _Root(nn.Module):
    """Calls a network with its samples alone, so that every other argument has its default."""

    def __init__(self, network: nn.Module, inputs: int) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, x: Any) -> Any:
        y = self.network(x) if self.inputs == 1 else self.network(*(x[k] for k in range(self.inputs)))
        whole = isinstance(y, _Seen) and isinstance(y.value, tuple | list)
        return tuple(y[k] for k in range(len(y))) if whole else y


class _Seen(fx.Proxy):
    """A proxy that knows the value it stands for: what is no tensor of it is given as it is."""

    @property
    def value(self) -> Any:
        return self.tracer.values[self.node]

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    def size(self, dim: int | None = None) -> Any:
        return self.value.size() if dim is None else self.value.size(dim)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.value, tuple | list) and isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self.value)))]
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})

    def __iter__(self):
        return iter([self[k] for k in range(len(self.value))])

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)  # an attribute that a tensor lacks is said by torch
        if name in _GEOMETRY:
            return found
        if callable(found) and not isinstance(found, Tensor | torch.dtype | torch.device):
            return super().__getattr__(name)
        if isinstance(found, Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return found


class _Tracer(fx.Tracer):
    """Follows a forward, and computes every node on the samples as it goes."""

    def __init__(self, samples: Batch, leaves: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.samples, self.leaves = samples, leaves
        self.values: dict[fx.Node, Any] = {}
        self.lines: dict[fx.Node, str] = {}
        self.changed: list[tuple[fx.Node, int]] = []  # nodes that change a tensor in place, and its storage
        self.running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return known(m) or isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict) -> Any:
        return forward(*args, **kwargs) if self.running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Seen(node, self)

    def create_proxy(self, kind, target, args, kwargs, *rest, **options):
        made = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        self.lines[made.node] = _calling_line()
        if kind == "placeholder":
            self.values[made.node] = self.samples.alone
        elif kind != "output":
            first = next((a for a in (*args, *kwargs.values()) if isinstance(a, fx.Proxy)), None)
            changes = first is not None and changes_its_operand(self.root, kind, target, kwargs)

            def value(part: Any) -> Any:
                return self.values[part.node] if isinstance(part, fx.Proxy) else part

            if changes and isinstance(self.values[first.node], Tensor):
                self.changed.append((made.node, self.values[first.node].untyped_storage().data_ptr()))
            self.running = True
            try:
                given = map_aggregate(tuple(args), value), map_aggregate(dict(kwargs), value)
                self.values[made.node] = compute(self.root, kind, target, *given)
            finally:
                self.running = False
        return made


def compute(root: nn.Module, kind: str, target: Any, args: tuple, kwargs: dict) -> Any:
    """What a node of this kind gives for these values, which are left as they are."""
    if changes_its_operand(root, kind, target, kwargs):
        args = map_aggregate(args, lambda part: part.clone() if isinstance(part, Tensor) else part)
    with torch.no_grad():
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "call_module":
            return root.get_submodule(target)(*args, **kwargs)
        return attribute(root, target)


def attribute(root: nn.Module, target: str) -> Any:
    """A parameter or buffer by its path."""
    return operator.attrgetter(target)(root)


def changes_its_operand(root: nn.Module, kind: str, target: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a node writes into the tensor that it reads."""
    if kind == "call_module":
        return bool(getattr(root.get_submodule(target), "inplace", False))
    if kind == "call_method":
        return target.endswith("_") and not target.endswith("__")
    name = getattr(target, "__name__", "")
    return bool(kwargs.get("inplace")) or target in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def line_of(frames: list[tuple[str, int, str]]) -> str:
    """The innermost line of code that is no library's, in words."""
    for file, number, text in reversed(frames):
        if not file.startswith(_ELSEWHERE):
            return f"line {number} of {Path(file).name}: {text.strip()}"
    return ""


def follow(model: nn.Module, samples: Batch, leaves: tuple[type[nn.Module], ...] = ()) -> Followed:
    """A forward as a list of nodes, followed with some samples of every input; the model is left as it is.

    leaves   classes of modules that are taken as a whole, as those of torch are
    """
    what = f"cannot convert {type(model).__name__}"
    count = len(samples.parts)
    root = _Root(copy.deepcopy(model).cpu().eval(), count)
    tracer = _Tracer(samples, leaves)
    try:
        graph = tracer.trace(root)
    except fx.proxy.TraceError as error:
        raise BittrueError(
            f"{what}: {_line(error)}: what it does next depends on the values of the data ({_first(error)}), and a "
            "circuit does the same for every sample; take the decision out of forward, or write it with torch.where"
        ) from error
    except Exception as error:  # whatever the network's own code raises
        raise BittrueError(
            f"{what}: {_line(error)}: it cannot be followed with samples of {samples} "
            f"({type(error).__name__}: {_first(error)}); if the samples have the shape that it takes, write this "
            "with torch functions, or put it into a module of its own, one function of each value, and name its class "
            "in leaves="
        ) from error
    for node in list(graph.nodes):
        if node.op == "get_attr" and node not in tracer.values:
            tracer.values[node] = attribute(root, node.target)
    places = {node: _place(node, tracer.lines.get(node, "")) for node in graph.nodes}
    nodes = [node for node in graph.nodes if node.op != "output"]
    inputs = nodes[:1] if count == 1 else nodes[1 : 1 + count]
    _refuse_changes(what, tracer, nodes, inputs, places)
    results, keys = _results(what, graph.output_node().args[0], tracer.values)
    return Followed(root, nodes, tracer.values, places, inputs, graph.output_node(), results, keys)


def _results(what: str, given: Any, values: dict[fx.Node, Any]) -> tuple[list[fx.Node], tuple[str, ...] | None]:
    """The nodes of what a forward gives, and their keys where it is a dictionary."""
    keys = tuple(map(str, given)) if isinstance(given, dict) else None
    parts = (
        list(given.values()) if isinstance(given, dict) else list(given) if isinstance(given, tuple | list) else [given]
    )
    for part in parts or [None]:
        value = values[part] if isinstance(part, fx.Node) else part
        if not isinstance(value, Tensor) or not isinstance(part, fx.Node):
            kind = type(value).__name__.removeprefix("immutable_")
            among = " among its results" if part is not given else ""
            raise BittrueError(
                f"{what}: its forward gives a {kind}{among}; it has to give a tensor, or several in a tuple, a list or "
                "a dictionary: wrap it in a module that gives those you want"
            )
    return parts, keys


def _refuse_changes(
    what: str, tracer: _Tracer, nodes: list[fx.Node], inputs: list[fx.Node], places: dict[fx.Node, Place]
) -> None:
    """Raise where a tensor that is changed in place is read afterwards, or is the network's input."""
    at = {node: index for index, node in enumerate(nodes)}
    for changing, storage in tracer.changed:
        where = f"{what}: {places[changing]}"
        for node in nodes:
            value = tracer.values.get(node)
            if not isinstance(value, Tensor) or value.untyped_storage().data_ptr() != storage or node.op == "get_attr":
                continue
            if node in inputs:
                raise BittrueError(
                    f"{where}: it changes the network's input in place; write it without (inplace=False)"
                )
            if any(at.get(reader, -1) > at[changing] for reader in node.users):
                raise BittrueError(
                    f"{where}: it changes in place a tensor that is read again afterwards; write it without "
                    "(inplace=False), and use its result"
                )


def _place(node: fx.Node, line: str) -> Place:
    path = node.target if node.op in ("call_module", "get_attr") else list(node.meta.get("nn_module_stack") or [""])[-1]
    return Place(path.partition(".")[2], line)


def _calling_line() -> str:
    """The line of the user's code that is being followed, in words; torch's own traces take seconds to make."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not follow.__code__:
        file, number = frame.f_code.co_filename, frame.f_lineno
        if found := line_of([(file, number, linecache.getline(file, number))]):
            return found
        frame = frame.f_back
    return ""


def _line(error: Exception) -> str:
    frames = [(f.filename, f.lineno or 0, f.line or "") for f in traceback.extract_tb(error.__traceback__)]
    return line_of(frames) or "in its forward"


def _first(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [""])[0][:200]
