"""What hardware is made of, in numbers that are kept: of each operation's stages, in twelve architectures, foldings and
numbers of lanes, and of whole designs.

That a netlist is right says nothing of what it costs: a register one bit wider, a memory one row deeper, an adder that
nobody needs change no code. They change a number of the table `sizes.json`, and whoever changes one sees it among the
differences of the commit, and says there why. Written anew by `python -m tests.helpers.sizes`.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stage import Stage
from bittrue.rtl.dataflow.stages.photonic_mac import PhotonicMacStage
from bittrue.rtl.dataflow.top import Accelerator
from bittrue.rtl.light.jobs import Geometry
from bittrue.rtl.light.system import PhotonicSystem
from bittrue.sim.written import written
from tests.helpers.photonic_programs import photonic_network
from tests.helpers.programs import resmlp, several, spiking
from tests.helpers.stages import OPERATIONS, planned

KEPT = Path(__file__).with_name("sizes.json")
SEEDS = range(12)
CELL = re.compile(r"cell \$(\w+) \S+\n(.*?)\n\s*end\n", re.DOTALL)
WIDTH = re.compile(r"parameter \\(?:Y_)?WIDTH (\d+)\n")
MEMORY = re.compile(r"memory width (\d+) size (\d+) ")


def cells(text: str) -> Counter[str]:
    """Bits of the results of all cells of Amaranth's RTLIL, by the kind of the cell, and of its memories; `number` is
    how many there are."""
    found: Counter[str] = Counter()
    for kind, parameters in CELL.findall(text):
        width = WIDTH.search(parameters)
        found[kind] += int(width[1]) if width else 1
        found["number"] += 1
    for width, words in MEMORY.findall(text):
        found["memory"] += int(width) * int(words)
    return found


def flip_flops(text: str) -> int:
    """Bits of the registers."""
    return sum(bits for kind, bits in cells(text).items() if "dff" in kind)


def flat(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """The numbers in a nested value, by their names; of an array the sum of what it holds, each by its place."""
    if isinstance(value, np.ndarray):
        yield name, int(value.reshape(-1) @ np.arange(1, value.size + 1))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name} {key}")
    elif isinstance(value, list | tuple):
        yield f"{name} entries", len(value)
        for inner in value:
            yield from flat(inner, name)
    elif is_dataclass(value):
        yield from flat({f.name: getattr(value, f.name) for f in fields(value)}, name)
    elif isinstance(value, bool | int | float | np.number):
        yield name, float(value)


def of_plan(made: Plan, texts: Iterable[str]) -> Iterator[tuple[str, float]]:
    """What the stages of the plan of one operation are made of: their RTLIL, what they say themselves, what they do for
    a frame of highest codes, and their times; and what the operation says of itself, and tells hardware."""
    yield from flat({"latency": made.estimated_latency, "interval": made.estimated_interval}, "cycles")
    yield from flat(made.estimate, "estimated")
    for text in texts:
        yield from cells(text).items()
    codes = [np.full((1, *kind.shape), kind.format.high, kind.format.dtype) for kind in made.program.inputs.values()]
    for stage in (element.stage for element in made.network.elements):
        yield from flat(stage.structure(), "said")
        counted = type(stage).effort is not Stage.effort and not isinstance(stage, PhotonicMacStage)
        if counted:  # what light costs, a program does not say
            yield from flat(stage.effort(**stage.counts(*codes)), "effort")
    for op in (node.operation for node in made.program.nodes):
        own = {"macs": op.macs, "weights": op.weights, "accumulator": op.accumulator, "shape": op.output.shape}
        yield from flat(own, "own")
        yield from flat(dict(op.constants), "told")


def total(numbers: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sums of what has the same name."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, value in numbers:
        found[name] += value
    return {name: round(value, 6) for name, value in sorted(found.items())}


#: Tops: a residual network, one whose weights are written, two results, spikes, and the controller of an array.
DESIGNS: dict[str, Callable[[], Elaboratable]] = {
    "residual": lambda: Accelerator(plan(resmlp(tokens=3, channels=4, features=4, hidden=8, seed=4))),
    "written": lambda: Accelerator(plan(written(resmlp(tokens=2, channels=4, features=4, hidden=4, seed=4)))),
    "several": lambda: Accelerator(plan(several(tokens=2, channels=2, outputs=2, seed=3))),
    "spiking": lambda: Accelerator(plan(spiking(shape=(3, 4), halving=False, steps=2, seed=11))),
    "light": lambda: PhotonicSystem(photonic_network(), Geometry(4, 4, 2)),
    "light streamed": lambda: PhotonicSystem(photonic_network(noise=True), Geometry(4, 4, 2), weights="stream"),
}


def of_design(top: Elaboratable) -> Counter[str]:
    return cells(rtlil.convert(top, ports=list(top.ports)))


def of_operations(name: str) -> Iterator[tuple[str, float]]:
    """Of an operation and of its stages, in all seeds."""
    for seed in SEEDS:
        made, _ = planned(name, seed)
        yield from of_plan(made, [rtlil.convert(element.stage) for element in made.network.elements])


def main() -> None:
    found = {name: total(of_operations(name)) for name in OPERATIONS}
    found |= {name: total(of_design(make()).items()) for name, make in DESIGNS.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in found.items()]
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
