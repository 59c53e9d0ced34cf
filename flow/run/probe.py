"""Probes inside the RTL: the tensor that each stage hands on, read from a waveform.

The stage of an operation is the instance `bittrue_top.pipeline.<name>`; its output stream is `o__payload` (codes, lane
0 lowest), `o__valid` and `o__ready`. A beat passes in a cycle in which valid and ready are both
high at the rising edge of `aclk`; cycle 0 is the first with `aresetn` high, as in `flow.run.result`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bittrue.rtl.dataflow.plan import Plan
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType

TOP = ("TOP", "bittrue_top")


@dataclass(frozen=True, eq=False)
class Stream:
    """What passed one stage's output: codes `[beats, lanes]` and the cycle of every beat, in order.

    `unknown` marks beats in which a bit was neither 0 nor 1 (then its codes mean nothing).
    """

    codes: np.ndarray
    cycles: np.ndarray
    unknown: np.ndarray


def streams(plan: Plan, waves: Path) -> dict[str, Stream]:
    """The output stream of every operation's stage in a VCD file of the compiled RTL."""
    elements = {node.name: plan.network.elements[plan.network.made[node.name]] for node in plan.program.nodes}
    wanted = {("aclk",): (*TOP, "aclk"), ("aresetn",): (*TOP, "aresetn")}
    for node, element in elements.items():
        for signal in ("o__payload", "o__valid", "o__ready"):
            wanted[node, signal] = (*TOP, "pipeline", element.name, signal)
    beats: dict[str, list[tuple[int, str]]] = {node: [] for node in elements}
    for cycle, value in enumerate(edges(waves, wanted)):
        for node, found in beats.items():
            if value(node, "o__valid") == "1" and value(node, "o__ready") == "1":
                found.append((cycle, value(node, "o__payload")))
    return {
        node: _stream(found, plan.program.types[node], elements[node].stage.lanes_out) for node, found in beats.items()
    }


def _stream(beats: list[tuple[int, str]], kind: TensorType, lanes: int) -> Stream:
    bits = kind.format.bits
    codes = np.zeros((len(beats), lanes), np.int64)
    unknown = np.zeros(len(beats), bool)
    for k, (_, text) in enumerate(beats):
        if not set(text) <= {"0", "1"}:
            unknown[k] = True
            continue
        word = int(text, 2)
        codes[k] = [(word >> (bits * lane)) & (kind.format.levels - 1) for lane in range(lanes)]
    if kind.format.signed:
        codes = np.where(codes > kind.format.high, codes - kind.format.levels, codes)
    return Stream(codes, np.array([cycle for cycle, _ in beats], np.int64), unknown)


def edges(path: Path, wanted: dict[tuple, tuple[str, ...]]) -> Iterator:
    """A function (key...) -> bits, for every rising edge of the clock out of reset; values just before the edge."""
    with open(path, encoding="ascii") as lines:
        codes = _header(lines, set(wanted.values()), path)
        ids = {key: codes[name] for key, name in wanted.items()}
        clock, reset = ids["aclk",], ids["aresetn",]
        values = dict.fromkeys(codes.values(), "x")
        pending: dict[str, str] = {}

        def value(*key: str) -> str:
            return values[ids[key]]

        def edge() -> bool:
            return pending.get(clock) == "1" and values[clock] == "0" and values[reset] == "1"

        for line in lines:
            mark = line[0]
            if mark == "#":
                if edge():
                    yield value
                values.update(pending)
                pending.clear()
            elif mark in "01xzXZ":
                code = line[1:].rstrip()
                if code in values:
                    pending[code] = mark
            elif mark in "bB":
                bits, _, code = line[1:].partition(" ")
                code = code.rstrip()
                if code in values:
                    pending[code] = bits
        if edge():
            yield value


def _header(lines: Iterable[str], names: set[tuple[str, ...]], path: Path) -> dict[tuple[str, ...], str]:
    """The VCD codes of the named signals."""
    scope: list[str] = []
    found: dict[tuple[str, ...], str] = {}
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == "$scope":
            scope.append(words[2])
        elif words[0] == "$upscope":
            scope.pop()
        elif words[0] == "$var" and (*scope, words[4]) in names:
            found[(*scope, words[4])] = words[3]
        elif words[0] == "$enddefinitions":
            break
    absent = sorted(names - set(found))
    if absent:
        raise BittrueError(f"waveform {path}: it has no signal {'.'.join(absent[0])}, so the RTL cannot be probed")
    return found
