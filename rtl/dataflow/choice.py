"""Which stage realises each operation of a program, and how far it is folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.stage import PARALLEL, REALISATIONS, Stage, realisation
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Program


def frames_of(program: Program, name: str) -> int:
    """Frames of a tensor, or that the operation of this name takes in, for a group as large as can be; 1 where frames
    go by themselves."""
    grouping = program.grouping
    if grouping is None:
        return 1
    taken = next((node.operands[0] for node in program.nodes if node.name == name), name)
    return 1 if taken in grouping.tensors else max(grouping.modes)


def frames_shared(program: Program, name: str, size: int | None = None) -> int:
    """Frames that the work of this operation is for at once: those of a group, of this size or as it is at first, or
    one."""
    grouping = program.grouping
    return 1 if grouping is None or frames_of(program, name) > 1 else size or grouping.size


def budget(program: Program, name: str, interval: int) -> int:
    """Cycles that the operation of this name, or an input, has for a frame where a group has the interval."""
    return interval // frames_of(program, name)


def foldable(program: Program, architecture: str | Mapping[str, str] = PARALLEL) -> dict[str, type[Stage]]:
    """The stages that can be folded: by node, the class of each, in the architecture chosen for it.

    One name for `architecture` means: in every stage that has it.
    """
    found = {}
    for node in program.nodes:
        name = architecture if isinstance(architecture, str) else architecture.get(node.name, PARALLEL)
        if isinstance(architecture, str) and (type(node.operation), name) not in REALISATIONS:
            realisation(node.operation)  # imports the module, and with it every architecture
            name = name if (type(node.operation), name) in REALISATIONS else PARALLEL
        make = realisation(node.operation, name)
        if reason := make.refusal(node.operation):
            if not isinstance(architecture, str):
                raise BittrueError(f"{node.name}: not {name}: {reason}")
            make = _instead(node.operation, name)
        if make.folds:
            found[node.name] = make
    if not isinstance(architecture, str) and (unknown := sorted(set(architecture) - {n.name for n in program.nodes})):
        raise BittrueError(f"architecture: no operation is named {unknown[0]!r}; foldable are {', '.join(found)}")
    return found


#: What is tried in place of an architecture that is refused, before the first one.
INSTEAD = {"packed": "paired"}


def _instead(operation: Operation, name: str) -> type[Stage]:
    """The stage of an operation that cannot have this architecture."""
    other = REALISATIONS.get((type(operation), INSTEAD.get(name, PARALLEL)))
    return realisation(operation) if other is None or other.refusal(operation) else other


def _offered(
    program: Program, name: str, stages: Mapping[str, type[Stage]], folded: Mapping[str, Folding]
) -> int | None:
    """The codes of a beat of what a node reads, as far as the stage that gives them tells; new names change none."""
    made = {node.name: node for node in program.nodes}
    source = made[name].operands[0]
    while source in made and realisation(made[source].operation).wires:
        source = made[source].operands[0]
    return stages[source].gives(folded[source]) if source in folded else None


def windows_read(program: Program) -> dict[str, list[str]]:
    """By node, the window whose rows it alone reads, and the renamings of axes between them, in order.

    Those of a node whose vectors are whole windows.
    """
    made = {node.name: node for node in program.nodes}
    readers = Counter(name for node in program.nodes for name in node.operands) + Counter(list(program.outputs))
    found = {}
    for node in program.nodes:
        way = [source := node.operands[0]]
        while source in made and realisation(made[source].operation).wires:
            way.append(source := made[source].operands[0])
        window = made[source].operation if source in made else None
        if not isinstance(window, Window) or any(readers[name] > 1 for name in way) or len(node.operands) > 1:
            continue
        if node.operation.inputs[0].channels == window.taps * window.input.channels:
            found[node.name] = way[::-1]
    return found


def preferred(program: Program, interval: int) -> dict[str, str]:
    """By node, the architectures that are taken before the first one, as their stages tell (`Stage.preferred`)."""
    return {node: name for node, name, reason in _wanted(program, interval) if reason is None}


def hindered(program: Program, interval: int) -> dict[str, str]:
    """By node, what is against an architecture that would else be taken before the first one: `not NAME: reason`."""
    return {node: f"not {name}: {reason}" for node, name, reason in _wanted(program, interval) if reason is not None}


def _wanted(program: Program, interval: int) -> Iterator[tuple[str, str, str | None]]:
    """Nodes, the architectures that are preferred for them, and what is against those."""
    for node in program.nodes:
        realisation(node.operation)  # imports the module, and with it every architecture
        for (kind, name), make in REALISATIONS.items():
            wanted = budget(program, node.name, interval)
            if kind is type(node.operation) and make.preferred(node.operation, wanted):
                yield node.name, name, make.refusal(node.operation)


def fold_all(
    program: Program,
    interval: int,
    fixed: Mapping[str, Folding] | None = None,
    architecture: str | Mapping[str, str] = PARALLEL,
    activity: Mapping[str, float] | None = None,
    block_luts: int | None = None,
) -> dict[str, Folding]:
    """A folding of every foldable stage that works a frame off within the interval."""
    fixed, activity = fixed or {}, activity or {}
    stages = foldable(program, architecture)
    unknown = sorted(set(fixed) - set(stages))
    if unknown:
        raise BittrueError(f"folding: {unknown[0]!r} is no stage that can be folded; those are {', '.join(stages)}")
    result = {}
    for name, make in stages.items():
        told: dict[str, Any] = {"activity": activity[name]} if name in activity and make.dynamic else {}
        if make.told_lanes and (lanes := _offered(program, name, stages, result)):
            told["lanes"] = lanes
        cycles = budget(program, name, interval)
        result[name] = fixed.get(name) or make.fold(program[name], cycles, name, **told)
        if name not in fixed and isinstance(architecture, str) and make.architecture != architecture != PARALLEL:
            first = realisation(program[name]).fold(program[name], cycles, name, **told)
            if first.simd * first.pe <= result[name].simd * result[name].pe:  # it takes no fewer multipliers
                result[name] = first
        if block_luts is not None and make.block_luts is not None and name not in fixed:
            result[name] = replace(result[name], block_luts=block_luts)
    return result
