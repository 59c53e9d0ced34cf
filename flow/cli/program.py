"""The commands that take a program file: `bittrue simulate`, `rtl`, `hls`, `verify`, `synth`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bittrue.flow.cli import console, options
from bittrue.sim.program import Program


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (simulate, rtl, hls, verify, synth):
        app.command()(command)


def simulate(
    program: options.ProgramFile,
    inputs: options.InputsFile,
    out: Annotated[Path, options.to_file(help="Where to write the outputs, `.npy`.")],
    trace: Annotated[Path | None, options.to_file(help="Also write every tensor, by name, to this `.npz`.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Run a batch through the golden simulator.

    Example: `bittrue simulate program.npz inputs.npy --out outputs.npy --trace trace.npz`
    """
    from bittrue.flow.run import arrays

    loaded = Program.load(program)
    x = arrays.read_inputs(inputs, loaded)
    if trace is None:
        outputs, saturation = loaded.run(*x), None
    else:
        traced = loaded.trace(*x)
        outputs, saturation = tuple(traced.tensors[name] for name in loaded.results), traced.saturation
        arrays.write(trace, traced.tensors)
    arrays.write_results(out, loaded, outputs)
    shapes = {name: list(codes.shape) for name, codes in zip(loaded.results, outputs, strict=True)}
    result = {"images": len(x[0]), "shapes": shapes, "outputs": str(out), "saturation": saturation}
    made = ", ".join(f"{name} {y.dtype} {list(y.shape)}" for name, y in zip(loaded.results, outputs, strict=True))
    console.say(as_json, result, f"{len(x[0])} samples, outputs {made} in {out}")


def rtl(
    program: options.ProgramFile,
    out: Annotated[Path | None, options.to_file(help="Where to write the Verilog; default: only plan.")] = None,
    interval: options.Interval = None,
    device: options.Device = None,
    weights: options.Weights = None,
    weight_bus: options.WeightBus = "stream",
    architecture: options.Architecture = None,
    block_luts: options.BlockLuts = None,
    rings: options.Rings = None,
    clock: Annotated[float | None, typer.Option(help="Say frames a second at so many MHz.", min=1e-3)] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write Verilog, top module `bittrue_top` with AXI4-Stream ports; without --out say what the plan would need.

    Without --interval and --device the plan works at one code a cycle. Areas are estimates in units of an ECP5.

    Examples:

        bittrue rtl program.npz --out top.v --interval 1024

        bittrue rtl program.npz --out top.v --device ecp5-85k

        bittrue rtl program.npz --out top.v --weights written

        bittrue rtl program.npz --interval 250000 --architecture packed --clock 250
    """
    from bittrue.flow.verify.backends import Build
    from bittrue.rtl.dataflow.choice import hindered
    from bittrue.rtl.verilog import Verilog
    from bittrue.sim.files import beside, write_whole

    settings = plan_options(weight_bus, architecture, block_luts, rings)
    loaded = read(program, weights)
    design = Build(loaded, interval=interval, device=device, options=settings).design
    text = "" if out is None else design.verilog()
    if out is not None:
        svd = beside(out, f"{out.stem}.svd", "an SVD file of the registers") if design.map is not None else None
        Verilog(text).write(out)
        if svd is not None:
            write_whole(svd, design.map.svd().encode())
    against = hindered(loaded, interval) if interval and architecture is None else {}
    result = design.describe() | {"hindered": against}
    if as_json:
        print(json.dumps(result))
        return
    console.show(console.pipeline(result["stages"]))
    for name, reason in against.items():
        console.line(f"{name}: {reason}")
    estimated = ", ".join(f"{value:,} {name.upper()}" for name, value in result["estimated"].items())
    console.line(f"interval {design.interval}, latency {design.latency} cycles; about {estimated}")
    for line in rates(design.interval, result["modes"], clock):
        console.line(line)
    if out is not None:
        console.line(f"{text.count(chr(10)):,} lines in {out}")


def rates(interval: int, modes: Mapping[str, Sequence[int]], clock: float | None) -> list[str]:
    """What a plan says of every number of frames that go together, and frames a second at a clock of so many MHz."""

    def at(frames: int, cycles: int) -> str:
        return "" if clock is None else f"{1e6 * clock * frames / cycles:,.1f} frames a second at {clock:g} MHz"

    if not modes:
        return [at(1, interval)] if clock is not None else []
    said = [(f"{n} at a time: a group every {c:,} cycles, latency {d:,}", at(int(n), c)) for n, (d, c) in modes.items()]
    return ["; ".join(filter(None, words)) for words in said]


def hls(
    program: options.ProgramFile,
    out: Annotated[Path, options.to_folder(help="Folder of the Vitis HLS project.")],
    weights: options.Weights = None,
    interval: Annotated[int, typer.Option(help="Wanted cycles between frames; 0: one code a cycle.", min=0)] = 0,
    inputs: Annotated[Path | None, options.from_file(help="Inputs of the test bench, `.npy`; default random.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a Vitis HLS project: kernels, parameters, test bench with vectors, `run_hls.tcl`.

    Example: `bittrue hls program.npz --out hls_project`
    """
    from bittrue.flow.run import arrays
    from bittrue.hls import project

    loaded = read(program, weights)
    x = None if inputs is None else arrays.read_inputs(inputs, loaded)
    project.write(loaded, out, x, interval)
    result = {"project": str(out), "files": sum(path.is_file() for path in out.rglob("*"))}
    console.say(as_json, result, f"HLS project in {out}; build it with `vitis_hls -f run_hls.tcl`")


def verify(
    program: options.ProgramFile,
    inputs: Annotated[
        Path | None, options.from_file(help="Batch of codes, `.npy`; default: random codes and corners.")
    ] = None,
    backends: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated, of reference, compiled, gxx, icarus, verilator (default: these), netlist.",
            autocompletion=options.complete_backends,
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="Run at most this many samples on every back end.", min=1)] = None,
    interval: options.Interval = None,
    device: options.Device = None,
    weights: options.Weights = None,
    weight_bus: options.WeightBus = "stream",
    architecture: options.Architecture = None,
    block_luts: options.BlockLuts = None,
    rings: options.Rings = None,
    target: Annotated[
        str, typer.Option(help="ECP5 that `netlist` is mapped for.", autocompletion=options.complete_target)
    ] = "ecp5-85k",
    verilog: Annotated[
        Path | None, options.from_file(help="Check this Verilog instead of freshly emitted one.")
    ] = None,
    hls_folder: Annotated[
        Path | None, typer.Option("--hls", help="Check this HLS project instead of a fresh one.", metavar="FOLDER")
    ] = None,
    idle: Annotated[float, typer.Option(help="Probability of a silent input cycle.", min=0, max=0.99)] = 0.3,
    backpressure: Annotated[float, typer.Option(help="Probability of a refusing output cycle.", min=0, max=0.99)] = 0.3,
    seed: Annotated[int, typer.Option(help="Seed of the stalls and of random inputs.", min=0)] = 0,
    out: Annotated[Path, options.to_folder(help="Folder for JUnit, logs and waveforms.")] = Path("build/verify"),
    as_json: options.AsJson = False,
) -> None:
    """Hold RTL and HLS kernels to the golden simulator, bit for bit, with stalls, and count cycles.

    On a mismatch: the first operation that is wrong, the code, the cycle, and the waveform to open; status 1.
    `netlist` is what yosys maps the RTL to, with registers moved into multipliers and block RAMs, simulated cell by
    cell.

    Examples:

        bittrue verify program.npz

        bittrue verify program.npz --inputs x.npy --backends compiled,gxx

        bittrue verify program.npz --verilog top.v --interval 1024

        bittrue verify program.npz --backends netlist --target ecp5-45k --images 20
    """
    from bittrue.flow.run import arrays
    from bittrue.flow.verify.backends import Build, Stalls
    from bittrue.flow.verify.verify import DEFAULT
    from bittrue.flow.verify.verify import verify as check
    from bittrue.rtl.verilog import Verilog

    loaded = read(program, weights)
    x = arrays.read_inputs(inputs, loaded) if inputs else corners(loaded, max(images or 0, 64), seed)
    names = [name.strip() for name in backends.split(",")] if backends else list(DEFAULT)
    counts = {name: images if images else DEFAULT.get(name) for name in names}
    text = Verilog.read(verilog) if verilog else None
    settings = plan_options(weight_bus, architecture, block_luts, rings)
    build = Build(
        loaded, interval=interval, device=device, options=settings, verilog=text, kernel=hls_folder, target=target
    )
    with console.Bars() as bars:
        bars.begin("verify")
        found = check(build, x, counts, Stalls(idle, backpressure, seed), out, bars.progress, strict=bool(backends))
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        console.show(console.verification(found.rows, found.skipped))
        if found.golden:
            console.line(
                f"golden against reference: {found.golden['mismatches']} of {found.golden['values']} values differ"
            )
        console.line(f"JUnit in {out / 'junit.xml'}")
    console.conclude(found.problems)


def synth(
    program: options.ProgramFile,
    target: Annotated[
        list[str],
        typer.Option(
            help="What to synthesise for; may be given more than once.", autocompletion=options.complete_target
        ),
    ],
    interval: options.Interval = None,
    device: options.Device = None,
    weights: options.Weights = None,
    weight_bus: options.WeightBus = "stream",
    architecture: options.Architecture = None,
    block_luts: options.BlockLuts = None,
    rings: options.Rings = None,
    frequency: Annotated[float, typer.Option(help="Clock asked of place and route, MHz.", min=1)] = 100.0,
    check: Annotated[
        int, typer.Option(help="Hold the netlist of an ECP5 to the golden simulator on so many random images.", min=0)
    ] = 0,
    out: Annotated[Path, options.to_folder(help="Folder for netlists and logs.")] = Path("build/synth"),
    as_json: options.AsJson = False,
) -> None:
    """Synthesise, and place and route where there is an open tool for it.

    Without --interval and --device the fastest plan for an ECP5 target is taken, else one code a cycle. AMD's targets
    multiply two pairs at once (`packed`), unless --architecture says otherwise.

    Examples:

        bittrue synth program.npz --target ecp5-85k

        bittrue synth program.npz --target ecp5-25k --target xilinx-7 --interval 2048 --json

        bittrue synth program.npz --target ecp5-85k --check 200
    """
    from bittrue.flow.synth.designs import synthesize_design
    from bittrue.flow.synth.netlist import require
    from bittrue.flow.synth.targets import target as find_target
    from bittrue.flow.verify.backends import Build
    from bittrue.flow.verify.verify import verify as hold
    from bittrue.rtl.dataflow.estimate import DEVICES
    from bittrue.rtl.dataflow.packed import suited

    for name in target:
        found = find_target(name)
        if check:
            require(found)
    loaded = read(program, weights)
    if interval is None and device is None:
        device = next((name for name in target if name in DEVICES), None)
    builds: dict[str | None, Build] = {}  # one for all targets that the same plan suits
    rows, wrong = [], []
    with console.Bars() as bars:
        for name in target:
            bars.begin(name)
            tell = lambda words: bars.progress(words, 0, 1)  # noqa: E731
            suits = architecture or suited([name])
            if suits not in builds:
                settings = plan_options(weight_bus, suits, block_luts, rings)
                builds[suits] = Build(loaded, interval=interval, device=device, options=settings)
            build = builds[suits]
            row = synthesize_design(build.design, name, out / name, frequency, tell, build.verilog)
            if check:
                placed = Build(loaded, design=build.design, target=name, placed=out / name)
                x, folder = corners(loaded, check, 0), out / name / "check"
                row["check"] = hold(placed, x, {"netlist": check}, folder=folder, progress=bars.progress).to_dict()
                wrong += [f"{name}: {problem}" for problem in row["check"]["problems"]]
            rows.append(row)
            bars.progress("done", 1, 1)
    if as_json:
        print(json.dumps(rows))
    else:
        console.show(console.synthesis(rows))
        for row in rows:
            helps = [f"what would help: {'; '.join(row['helps'])}"] if row["helps"] else []
            for line in (row["where"], *helps, *row["notes"]):
                if line:
                    console.line(f"  {row['target']}: {line}")
            if check:
                console.show(console.verification(row["check"]["rows"], row["check"]["skipped"]))
    console.conclude(wrong)


def plan_options(
    weight_bus: str, architecture: str | None, block_luts: int | None, rings: bool | None
) -> dict[str, Any]:
    """What commands hand on to the planner: what was said, and nothing of what was not."""
    told = {"weight_bus": weight_bus, "architecture": architecture, "block_luts": block_luts, "rings": rings}
    return {name: value for name, value in told.items() if value is not None}


def read(path: Path, weights: str | None = None) -> Program:
    """The program of a file, with those of its weights held inputs that shall be written."""
    from bittrue.sim.written import ALL, written

    program = Program.load(path)
    if weights is None:
        return program
    return written(program, ALL if weights == ALL else [name.strip() for name in weights.split(",")])


# -- helpers -------------------------------------------------------------------------------------------
def corners(program: Program, images: int, seed: int) -> list[np.ndarray]:
    """Random codes over the whole range of every input, after one sample all low and one all high, if so many."""
    rng = np.random.default_rng(seed)
    batches = []
    for kind in program.inputs.values():
        codes = rng.integers(kind.format.low, kind.format.high + 1, (images, *kind.shape))
        for sample, end in zip(codes, (kind.format.low, kind.format.high), strict=False):
            sample[:] = end
        batches.append(codes.astype(kind.format.dtype))
    return batches
