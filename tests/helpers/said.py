"""What is told of designs, energies and spikes, in numbers and texts that are kept in `said.json`.

Reports, tables and files for drivers are made of these; a change of one is seen among the differences of the commit
that makes it. Written anew by `python -m tests.helpers.said`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bittrue.flow.report import energy, report
from bittrue.flow.systems.fs import energy as spiking_energy
from bittrue.flow.systems.fs import raster, spikes
from bittrue.flow.systems.light.energy import estimate
from bittrue.models.light.settings import Array, ArrayNoise
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.design import Design
from bittrue.rtl.light.design import PhotonicDesign
from bittrue.rtl.light.jobs import Geometry
from bittrue.sim.program import Program
from bittrue.sim.written import written
from tests.helpers.photonic_programs import photonic_network
from tests.helpers.programs import resmlp, several, spiking, stimulus

KEPT = Path(__file__).with_name("said.json")
SPIKING = spiking(shape=(3, 4), halving=False, steps=3, seed=11)
RESIDUAL = resmlp(tokens=3, channels=4, features=4, hidden=8, seed=4)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested value by their places; of long texts and of rows of numbers a sum."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name} {key}".strip())
    elif isinstance(value, list | tuple) and value and all(isinstance(one, int | float | str | None) for one in value):
        yield name, value if len(value) < 4 else zlib.crc32(json.dumps(value, default=int).encode())
    elif isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            yield from flat(inner, f"{name} {k}".strip())
    elif isinstance(value, str):
        yield name, value if len(value) <= 80 and "\n" not in value else zlib.crc32(value.encode())
    elif isinstance(value, float):
        yield name, float(f"{value:.9g}")
    elif value is not None:
        yield name, value


def of_design(design: Design) -> dict[str, Any]:
    x = stimulus(design.program, 5, seed=1)
    cycles = design.expect(*x)
    return {
        "describe": design.describe(),
        "json": design.to_json(),
        "parts": [str(part) for part in design.parts],
        "instances": design.instances,
        "probes": [f"{p.node} {p.format} {p.lanes} {'.'.join(p.path)}" for p in design.probes],
        "ports": [str(port) for port in design.others],
        "map": {} if design.map is None else {"svd": design.map.svd(), "end": design.map.end, "table": str(design.map)},
        "first": cycles.first.tolist(),
        "ends": cycles.output_ends.tolist(),
        "patience": design.patience,
    }


def of_program(program: Program) -> dict[str, Any]:
    x = stimulus(program, 4, seed=2)
    trace = program.trace(*x)
    ranges = {name: (int(v.min()), int(v.max())) for name, v in trace.tensors.items()}
    told = {"ranges": ranges, "saturation": trace.saturation, "images": 4}
    return {"text": repr(program), "html": program._repr_html_(), "operations": report.operations(program, told)}


def of_spikes(architecture: str) -> dict[str, Any]:
    x = stimulus(SPIKING, 6, seed=3)
    planned = plan(SPIKING, interval=400, architecture=architecture)
    found = spiking_energy.view(planned, x, toggled=0)
    return {"view": found, "rows": spiking_energy.rows(found), "summary": spiking_energy.summary(found)}


ARRAYS = {
    "plain": Array(rows=64, columns=64, adc_bits=9),
    "lit": Array(rows=8, columns=16, input_bits=6, weight_bits=5, adc_bits=7, noise=ArrayNoise(photons=1000)),
}

#: By name: what is asked, when it is asked.
SAID: dict[str, Callable[[], Any]] = {
    "pipeline": lambda: of_design(PipelineDesign(plan(RESIDUAL))),
    "pipeline in few cycles": lambda: of_design(PipelineDesign(plan(RESIDUAL, interval=12))),
    "written": lambda: of_design(PipelineDesign(plan(written(several(tokens=2, channels=2, outputs=2, seed=3))))),
    "registers": lambda: of_design(
        PipelineDesign(plan(written(resmlp(tokens=2, channels=2, features=2, hidden=2)), weight_bus="lite"))
    ),
    "light": lambda: of_design(PhotonicDesign(photonic_network(noise=True), Geometry(4, 4, 2))),
    "light streamed": lambda: of_design(PhotonicDesign(photonic_network(), Geometry(4, 4, 2), 3, "stream", 5)),
    "program": lambda: of_program(RESIDUAL),
    "spiking program": lambda: of_program(SPIKING),
    "energy": lambda: energy.view(plan(RESIDUAL), stimulus(RESIDUAL, 3, seed=1), toggled=0),
    "energy of spikes": lambda: of_spikes("parallel"),
    "energy of events": lambda: of_spikes("events"),
    "energy of light": lambda: [estimate((100, 70, 10), array, n) for array in ARRAYS.values() for n in (1, 16)],
    "spikes": lambda: spikes.count(SPIKING, stimulus(SPIKING, 6, seed=3)).to_json(),
    "raster": lambda: [layer.to_json() for layer in raster.of_program(SPIKING, stimulus(SPIKING, 6, seed=3), 2)],
}


def found(name: str) -> dict[str, Any]:
    """As it comes back from JSON."""
    return json.loads(json.dumps(dict(flat(SAID[name]())), default=int))


def main() -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(found(name))}" for name in SAID]
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
