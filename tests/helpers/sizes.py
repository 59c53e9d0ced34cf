"""What hardware is made of, in numbers that are kept: of each operation's stages, in twelve architectures, foldings and
numbers of lanes, and of whole designs.

That a netlist is right says nothing of what it costs: a register one bit wider, a memory one row deeper, an adder that
nobody needs change no code. They change a number of the table `sizes.json`, and whoever changes one sees it among the
differences of the commit, and says there why. Written anew by `python -m tests.helpers.sizes`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from bittrue.rtl.dataflow.plan import Plan, plan
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


def of_plan(made: Plan, texts: Iterable[str]) -> Counter[str]:
    """What the stages of a plan are made of: their RTLIL, what they say themselves, depths of FIFOs, and times."""
    found: Counter[str] = Counter()
    for text in texts:
        found += cells(text)
    for element in made.network.elements:
        found += Counter({f"said {name}": value for name, value in vars(element.stage.structure()).items()})
    found["latency"], found["interval"] = made.estimated_latency, made.estimated_interval
    for name, value in vars(made.estimate).items():
        found[f"estimated {name}"] += value
    return found


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


def measured() -> dict[str, dict[str, int]]:
    found = {}
    for name in OPERATIONS:
        total: Counter[str] = Counter()
        for seed in SEEDS:
            made, _ = planned(name, seed)
            total += of_plan(made, (rtlil.convert(element.stage) for element in made.network.elements))
        found[name] = dict(sorted(total.items()))
    return found | {name: dict(sorted(of_design(make()).items())) for name, make in DESIGNS.items()}


def main() -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in measured().items()]
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
