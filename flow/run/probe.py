"""What a design shows in a waveform of the compiled RTL: tensors of its program, seen by its `Tap`.

Cycle 0 is the first rising edge of `aclk` with `aresetn` high, as in `flow.run.result`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bittrue.rtl.design import TOP, Design, Sighting
from bittrue.sim.errors import BittrueError

#: The top in a waveform.
ROOT = ("TOP", TOP)


def sightings(design: Design, waves: Path) -> dict[str, list[Sighting]]:
    """What the design's tap sees in a VCD file of the compiled RTL, by node, in the order of time."""
    tap = design.tap()
    wanted = {("aclk",): (*ROOT, "aclk"), ("aresetn",): (*ROOT, "aresetn")}
    wanted |= {("tap", key): (*ROOT, *path) for key, path in tap.signals.items()}
    found: dict[str, list[Sighting]] = {}
    for cycle, value in enumerate(edges(waves, wanted)):
        for sighting in tap.see(cycle, lambda key, value=value: value("tap", key)):
            found.setdefault(sighting.node, []).append(sighting)
    return found


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
