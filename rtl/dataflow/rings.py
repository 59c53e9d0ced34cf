"""Which matrix stages read the rings of their windows themselves: those for which that takes less."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from math import gcd

import numpy as np

from bittrue.rtl.dataflow.choice import budget, windows_read
from bittrue.rtl.dataflow.estimate import estimate
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.network import Network
from bittrue.rtl.dataflow.stage import Stage, Structure, realisation
from bittrue.rtl.dataflow.windows import lane_choices
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Program

#: What parts of a program cost, in LUTs, by node, foldings and the codes of a beat that they are offered.
Costs = dict[tuple[Hashable, ...], float]


def with_rings(
    program: Program,
    folding: Mapping[str, Folding],
    interval: int,
    input_lanes: Mapping[str, int],
    fixed: Mapping[str, Folding] | None = None,
    wanted: bool | None = None,
    stages: dict[tuple[Hashable, ...], Stage] | None = None,
    costs: Costs | None = None,
) -> dict[str, Folding]:
    """The foldings, without those of windows whose rings are read by the stages of others (`Folding.ring`).

    Both are compared with the converters of widths before them: LUTs, and for each block RAM as many as it is worth.

    fixed    foldings that were asked for: they and their windows stay as they are
    wanted   True: wherever a ring can be read; False: nowhere
    stages, costs  those known from before, which are added to
    """
    result, fixed = dict(folding), fixed or {}
    stages, costs = {} if stages is None else stages, {} if costs is None else costs
    ways = {} if wanted is False and not any(f.ring for f in fixed.values()) else windows_read(program)
    for node, way in ways.items():
        window, now = program[way[0]], result.get(node)
        assert isinstance(window, Window)
        if node in fixed or way[0] in fixed or wanted is False:
            if now is not None and now.ring:
                result.pop(way[0], None)
            continue
        choices = [] if now is None else _foldings(program, node, window, now, interval)
        if now is None or not choices:
            continue
        draft = Network(program, result, input_lanes, {}, stages)
        source = next(n for n in program.nodes if n.name == way[0]).operands[0]
        offered = gcd(draft.elements[draft.made[source]].stage.lanes_out, window.input.channels)

        def cost(folded: Mapping[str, Folding], node=node, way=way, source=source, offered=offered) -> float:
            key = (node, *folded.items(), offered)
            if key not in costs:
                part = _part(program, source, [*way, node])
                area = estimate(Network(part, folded, {source: offered}, {}, stages), Structure())
                worth = folded[node].block_luts
                make = realisation(program[node], folded[node].architecture)
                costs[key] = area.lut + area.bram * (make.block_luts if worth is None else worth)
            return costs[key]

        best = min(choices, key=lambda choice: cost({node: choice}))
        if wanted or cost({node: best}) < cost({way[0]: result[way[0]], node: now}):
            result[node] = best
            del result[way[0]]
    return result


def _foldings(program: Program, node: str, window: Window, now: Folding, interval: int) -> list[Folding]:
    """How a stage that reads a ring can be folded, with no more products than `now`: as it is, where it can be."""
    operation, interval = program[node], budget(program, node, interval)
    make = realisation(operation, now.architecture)
    if make.convolved is None:
        return []
    legal, outputs, found = lane_choices(window), operation.weight.shape[0], []
    for f in make.foldings(operation):
        cycles = int(np.prod(window.windows)) * (outputs // f.pe) * (operation.weight.shape[1] // f.simd)
        if f.simd in legal and f.simd * f.pe <= now.simd * now.pe and cycles <= interval:
            found.append(replace(f, ring=True, block_luts=now.block_luts))
    same = [f for f in found if (f.simd, f.pe) == (now.simd, now.pe)]
    return same or found


def _part(program: Program, source: str, names: list[str]) -> Program:
    """Some nodes of a program, one behind the other, as a program of their own."""
    nodes = tuple(n for n in program.nodes if n.name in names)
    return Program({source: program.types[source]}, nodes, names[-1])
