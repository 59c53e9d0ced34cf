"""A network's forward as a list of calls of layers: what torch.fx sees, normalised.

Layers may be called by position or by keyword, with tensors in lists, tuples and dictionaries, from modules within
modules, in loops, several times; what is no tensor may be given where it is the layer's default anyway. The network's
own forward takes the codes, its other arguments have their defaults. Calls whose result nobody reads are left out.
Anything else that a forward computes is refused with its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from bittrue.models.layers.integer import IntegerInput, IntegerLayer
from bittrue.sim.errors import BittrueError

#: Name of the tensor that enters a network.
INPUT = "x"


@dataclass(frozen=True)
class Call:
    """One call of a layer in a forward: the name of its result, the layer, its path, the names it reads."""

    name: str
    layer: IntegerLayer
    path: str
    operands: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Traced:
    """A forward that was traced.

    inputs   by name of its result the layer that codes go through first, in the order of the forward's arguments; of
             one that has no label it is the tensor `INPUT`
    calls    the other layers in the order in which they are called
    results  names of the tensors that the forward gives
    """

    inputs: dict[str, IntegerInput]
    calls: list[Call]
    results: tuple[str, ...]
    module: fx.GraphModule
    names: dict[fx.Node, str]

    def run(self, *codes: Tensor) -> dict[str, Tensor]:
        """Every tensor of the forward on these codes of its inputs, by name."""
        recorder = _Recorder(self.module, self.names)
        recorder.run(codes[0] if len(codes) == 1 else codes)
        return recorder.tensors


class _Recorder(fx.Interpreter):
    """Runs a traced forward and keeps what it names."""

    def __init__(self, module: fx.GraphModule, names: dict[fx.Node, str]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.names, self.tensors = names, {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.names:
            self.tensors[self.names[n]] = value
        return value


class _Root(nn.Module):
    """Calls a network with its codes alone, so that every other argument has its default."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.inputs = network, _inputs(network)

    def forward(self, codes: Any) -> Any:
        return self.network(codes) if self.inputs == 1 else self.network(*(codes[k] for k in range(self.inputs)))


def _inputs(network: nn.Module) -> int:
    """How many tensors of codes a network takes: arguments without default; of any number as many as its `inputs`."""
    parameters = inspect.signature(network.forward).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return len(network.inputs) if isinstance(getattr(network, "inputs", None), nn.ModuleList) else 1
    own = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return max(1, len(own))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return isinstance(m, IntegerLayer)


def trace(model: nn.Module) -> Traced:
    """The layers that a forward calls."""
    what = f"cannot lower {type(model).__name__}"
    root = _Root(model)
    try:
        graph = _Tracer().trace(root)
    except fx.proxy.TraceError as error:
        raise BittrueError(f"{what}: its forward depends on its data ({error})") from error
    except Exception as error:  # whatever the network's own code raises for what is no tensor
        raise BittrueError(
            f"{what}: its forward cannot be followed with codes alone ({type(error).__name__}: {error}); it takes one "
            "tensor, whatever else it takes has a default, and it calls layers that are registered in it"
        ) from error
    graph.eliminate_dead_code(lambda node: node.op != "call_module")  # what is no layer may write into a tensor
    names: dict[fx.Node, str] = {}
    inputs: dict[str, IntegerInput] = {}
    read: dict[fx.Node, IntegerInput] = {}
    calls: list[Call] = []
    taken = {INPUT, *(one.label or INPUT for one in root.modules() if isinstance(one, IntegerInput))}
    (given,) = (node for node in graph.nodes if node.op == "placeholder")
    sources = [given] if root.inputs == 1 else [node for node in graph.nodes if given in node.all_input_nodes]
    for node in graph.nodes:
        if node is given or node in sources:
            continue
        if node.op == "output":
            break
        if node.op != "call_module":
            raise BittrueError(_no_layer(node, model))
        path, layer = _path(node.target), root.get_submodule(node.target)
        nodes = _operands(node, layer, path)
        if isinstance(layer, IntegerInput):
            again = read.get(nodes[0])
            if nodes[0] not in sources or again not in (None, layer) or (again is None and layer in read.values()):
                raise BittrueError(
                    f"{what}: a network has one IntegerInput for each tensor of codes, which reads it; "
                    f"{path or 'it'} is another, or reads the result of a layer"
                )
            if again is None:
                name = _unique(layer.label or INPUT, set(inputs))
                read[nodes[0]], inputs[name] = layer, layer
            names[node] = next(name for name, one in inputs.items() if one is layer)
            continue
        if any(n in sources for n in nodes):
            raise BittrueError(
                f"{what}: the layer {path or '(the network itself)'} ({type(layer).__name__}) reads the network's "
                "codes; its first layer is no IntegerInput, so let them go through one"
            )
        names[node] = _unique(layer.label or path.replace(".", "_"), taken | set(names.values()))
        calls.append(Call(names[node], layer, path, tuple(names[n] for n in nodes)))
    if len(read) < root.inputs > 1:
        raise BittrueError(
            f"{what}: it takes {root.inputs} tensors and reads {len(read)} of them; leave the others out"
        )
    order = {source: k for k, source in enumerate(sources)}
    inputs = dict(sorted(inputs.items(), key=lambda pair: next(order[n] for n, one in read.items() if one is pair[1])))
    return Traced(inputs, calls, _results(what, graph, names, inputs), fx.GraphModule(root, graph), names)


def _results(what: str, graph: fx.Graph, names: dict[fx.Node, str], inputs: dict[str, IntegerInput]) -> tuple[str, ...]:
    """The names of what a forward gives: a tensor that a layer made, or several in a tuple."""
    result = graph.output_node().args[0]
    parts = result if isinstance(result, tuple) and result else (result,)
    for part in parts:
        if not isinstance(part, fx.Node) or names.get(part) in (None, *inputs):
            kind = type(part).__name__.removeprefix("immutable_")
            given = "the tensor that enters it" if isinstance(part, fx.Node) else f"a {kind}"
            raise BittrueError(
                f"{what}: its forward gives {given}{' in a tuple' if len(parts) > 1 else ''}; it has to give a tensor "
                "that a layer made, or a tuple of those"
            )
    return tuple(names[part] for part in parts)


def _operands(node: fx.Node, layer: IntegerLayer, path: str) -> list[fx.Node]:
    """The tensors that a call of a layer reads, in the order of the arguments of the layer's own forward."""
    what = f"cannot lower the layer {path or '(the network itself)'} ({type(layer).__name__})"
    signature = inspect.signature(layer.forward)
    try:
        given = signature.bind(*node.args, **node.kwargs).arguments
    except TypeError as error:
        raise BittrueError(f"{what}: it is called with other arguments than it takes ({error})") from error
    operands: list[fx.Node] = []
    for name, value in given.items():
        tensors = [leaf for leaf in _leaves(value) if isinstance(leaf, fx.Node)]
        operands += tensors
        usual = isinstance(value, int | float | str | None) and value == signature.parameters[name].default
        if not usual and (not tensors or len(tensors) < len(list(_leaves(value)))):
            raise BittrueError(
                f"{what}: its argument {name!r} is given {value!r}, and a program only holds what the layer does when "
                "nothing but tensors is given; leave it out"
            )
    return operands


def _leaves(value: Any) -> Iterator[Any]:
    """What lies in lists, tuples and dictionaries, in order."""
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    else:
        yield value


def _path(target: str) -> str:
    """The path of a module in the network, of one in the `_Root`."""
    return target.partition(".")[2]


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number where a layer is called again."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _no_layer(node: fx.Node, model: nn.Module) -> str:
    """The sentence about a node that is no call of a layer."""
    place = _path(list(node.meta.get("nn_module_stack") or [""])[-1]) or type(model).__name__
    what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
    return (
        f"cannot lower {what!r} in the forward of {place}: it is not a layer; write it with the layers of "
        "models.layers.integer"
    )
