"""The FIFOs of joins: the smallest depths that change no output time, from the schedule of the whole network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from bittrue.rtl.dataflow.network import Network
from bittrue.rtl.dataflow.stage import Stage
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.rtl.dataflow.plan import Plan

#: Stages made for a program, by node, lanes and folding: for networks that are planned with and never built.
Stages = dict[tuple[Hashable, ...], Stage]
#: Depths that were enough, by that which never fills and by how much shorter the way is.
Answers = dict[tuple[int, int], int]


def size_fifos(plan: Plan, stages: Stages | None = None) -> Plan:
    """The plan with the smallest FIFOs that change no output time, and the exact latency and interval.

    Where frames go in groups, a FIFO is as deep as any size of them needs it; the two are those of the size at first,
    the interval that of a group in equal parts, rounded up (`Plan.modes` has all).
    """
    grouping = plan.program.grouping
    if grouping is None:
        return _sized(plan, stages)
    answers: Answers = {}  # mostly those of one size are those of the others, so that they are tried first
    each = [_sized(plan, stages, n, answers) for n in grouping.modes]
    fifos = {edge: max(one.fifos.get(edge, 0) for one in each) for one in each for edge in one.fifos}
    found = replace(plan, fifos=fifos)
    latency, interval = found.modes[grouping.size]
    return replace(found, estimated_latency=latency, estimated_interval=-(-interval // grouping.size))


def _sized(plan: Plan, stages: Stages | None = None, size: int = 1, answers: Answers | None = None) -> Plan:
    """The plan with the smallest FIFOs that change no output time (`Flow.due`), and the exact latency and interval.

    Every operand of a join gets a FIFO at first, deep enough never to fill; those without which no frame ends later go,
    the others shrink by bisection as long as every frame still ends in the same cycle. Of several outputs, each ends
    its first frame in the same cycle, too; later frames wait for each other in the stages that the outputs share.

    `answers` are those of other sizes of groups, which are tried first, and are added to.
    """
    program = plan.program
    joins = [node for node in program.nodes if len(node.operands) > 1]
    needed = {
        f"{node.name}.{k}": 4 * program.types[node.operands[k]].size
        for node in joins
        for k in range(len(node.operands))
    }
    network = Network(program, plan.folding, plan.input_lanes, needed, stages)
    schedule = network.schedule if program.grouping is None else partial(network.schedule, modes=[size])
    frames = size * ((schedule(2 * size).latency or 0) // network.bottleneck + 5)
    goal = schedule(frames, needed)
    # Mostly the longest way to a join needs none, and each of the others one: tried first, all of them in one run.
    ways = _ways(network)
    together = [edge for edge, shorter in ways.items() if not shorter]
    for edges in (together, *([edge] for edge in needed if edge not in together), *([edge] for edge in together)):
        if edges and all(needed[edge] for edge in edges):
            fewer = needed | dict.fromkeys(edges, 0)
            without = schedule(frames, fewer, goal.due, early=True)
            if without.interval == goal.interval:
                needed, goal = fewer, without

    def unchanged(entries: Mapping[str, int]) -> bool:
        return schedule(frames, entries, goal.due, early=len(goal.first) > 1).keeps(goal)

    # Joins that are alike mostly need the same depth: all of them are tried at once, and then whether less is enough.
    edges = [edge for edge, most in needed.items() if most]
    answers = {} if answers is None else answers
    settled = False  # whether what is known so far is enough for all that are still deep
    if edges and all((needed[edge], ways[edge]) in answers for edge in edges):
        settled = unchanged(needed | {edge: answers[needed[edge], ways[edge]] for edge in edges})
    for place, edge in enumerate(edges):
        most, alike, others = needed[edge], (needed[edge], ways[edge]), dict(needed)
        enough = cache(lambda n, edge=edge, others=others: unchanged(others | {edge: n}))
        known = answers.get(alike, 0)
        if known and (settled or enough(known)) and (known == 1 or not enough(known - 1)):
            needed[edge] = known
            continue
        # Without a guess from below: what is too shallow shows soon.
        needed[edge] = answers[alike] = _smallest(enough, most, known or 1)
        rest = {e: answers.get((needed[e], ways[e]), needed[e]) for e in edges[place + 1 :]}
        settled = any(rest[e] != needed[e] for e in rest) and unchanged(needed | rest)
    needed = {edge: entries for edge, entries in needed.items() if entries}
    if goal.interval is None or goal.latency is None:
        raise BittrueError("the pipeline deadlocks in its schedule; this is a fault of the planner, please report it")
    return replace(plan, fifos=needed, estimated_latency=goal.latency, estimated_interval=goal.interval)


def _ways(network: Network) -> dict[str, int]:
    """By FIFO, how much shorter the way through it is than the longest to the same join: cycles of latency."""
    latency: list[int] = []
    shorter: dict[str, int] = {}
    for element in network.elements:
        ways = [latency[source] for source in element.reads]
        latency.append(max(ways, default=0) + element.stage.latency)
        for source, way in zip(element.reads, ways, strict=True):
            while len(ways) > 1 and network.elements[source].fifo is None:  # before a converter
                source = network.elements[source].reads[0]
            if len(ways) > 1:
                shorter[str(network.elements[source].fifo)] = max(ways) - way
    return shorter


def _smallest(enough: Callable[[int], bool], most: int, guess: int) -> int:
    """The smallest n in 1..most with `enough(n)`, which holds from there on; quick when it lies near the guess."""
    low, high, stride = 1, most, 1
    if enough(guess):
        high = guess
        while high > low and enough(max(low, high - stride)):
            high, stride = max(low, high - stride), 4 * stride
        low = max(low, high - stride + 1) if high > low else low
    else:
        low = guess + 1
        while low < high and not enough(min(high, low + stride - 1)):
            low, stride = min(high, low + stride), 4 * stride
        high = min(high, low + stride - 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high
