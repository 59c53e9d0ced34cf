"""The commands `bittrue raster` and `bittrue energy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bittrue.flow.cli import console, options
from bittrue.sim.program import Program

Architecture = Annotated[
    str,
    typer.Option(help="Of spiking layers: `parallel` or `events`.", autocompletion=options.complete_architecture),
]
VerilogOption = Annotated[
    Path | None, options.from_file(help="This Verilog of the plan instead of freshly emitted one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(raster)
    app.command()(energy)


def raster(
    program: options.ProgramFile,
    inputs: options.InputsFile,
    out: Annotated[Path, options.to_file(help="The picture, `.svg`.")],
    image: Annotated[int, typer.Option(help="Which input of the batch.", min=0)] = 0,
    rtl: Annotated[
        bool, typer.Option("--rtl", help="Beside it the spikes of the compiled RTL, from a waveform.")
    ] = False,
    waves: Annotated[Path | None, options.to_file(help="Leave that waveform here, `.vcd`; implies --rtl.")] = None,
    interval: options.Interval = None,
    device: options.Device = None,
    architecture: Architecture = "parallel",
    verilog: VerilogOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Draw which neuron spikes when, layer by layer; with --rtl golden and RTL side by side, differences in red.

    The status is 1 if a spike differs.

    Examples:

        bittrue raster program.npz inputs.npy --out raster.svg

        bittrue raster program.npz inputs.npy --image 3 --out raster.svg --rtl --waves spikes.vcd
    """
    from bittrue.flow.run import arrays
    from bittrue.flow.systems.fs import raster as rasters
    from bittrue.sim.files import write_whole

    loaded = Program.load(program)
    x = arrays.read_inputs(inputs, loaded)
    if rtl or waves is not None or verilog is not None:
        found = rasters.of_program(loaded, x, image)  # refuses what cannot be drawn before anything is built
        planned, text = _built(loaded, x, interval, device, architecture, verilog)
        found = rasters.of_rtl(planned, text, x, image, waves)
    else:
        found = rasters.of_program(loaded, x, image)
    write_whole(out, rasters.page(found, f"{program.name}, image {image}").encode())
    problems = rasters.problems(found)
    if as_json:
        layers = [{k: v for k, v in row.to_json().items() if k not in ("golden", "rtl", "missing")} for row in found]
        print(json.dumps({"image": image, "picture": str(out), "layers": layers, "problems": problems}))
    else:
        rows = [(r.name, r.kind, str(r.golden.shape), int(r.golden.sum()), r.to_json()["differences"]) for r in found]
        console.show(console.table("Spikes", ("layer", "kind", "tokens, steps, neurons", "spikes", "differ"), rows))
        console.line(f"picture in {out}" + (f", waveform in {waves}" if waves else ""))
    console.conclude(problems)


def energy(
    program: options.ProgramFile,
    inputs: options.InputsFile,
    interval: options.Interval = None,
    device: options.Device = None,
    architecture: Architecture = "parallel",
    verilog: VerilogOption = None,
    toggles: Annotated[int, typer.Option(help="Inputs whose toggles are counted in the compiled RTL; 0: none.")] = 4,
    as_json: options.AsJson = False,
) -> None:
    """Count what an inference adds, multiplies, reads and toggles; estimate its energy beside an INT8 twin.

    Examples:

        bittrue energy program.npz inputs.npy --architecture events

        bittrue energy program.npz inputs.npy --toggles 0 --json
    """
    from bittrue.flow.run import arrays
    from bittrue.flow.systems.fs import energy as energies

    loaded = Program.load(program)
    x = arrays.read_inputs(inputs, loaded)
    planned, text = _built(loaded, x, interval, device, architecture, verilog)
    with console.Bars() as bars:
        bars.begin("energy")
        result = energies.view(planned, x, text, toggles, bars.progress)
    if as_json:
        print(json.dumps(result))
        return
    console.show(console.table(f"An inference, mean of {result['inputs']:,}", *energies.rows(result)))
    console.line(energies.summary(result))
    console.line(f"energies: {result['source']}")


def _built(
    program: Program,
    x: list[np.ndarray],
    interval: int | None,
    device: str | None,
    architecture: str,
    verilog: Path | None,
):
    """The plan, folded for the spikes of these inputs, and its Verilog."""
    from bittrue.rtl.dataflow.plan import activity, plan
    from bittrue.rtl.verilog import emit
    from bittrue.sim.errors import BittrueError

    seen = activity(program, *(v[:256] for v in x))
    planned = plan(
        program, interval=interval, device=None if interval else device, architecture=architecture, activity=seen
    )
    if verilog is None:
        return planned, emit(planned)
    try:
        return planned, verilog.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BittrueError(f"{verilog}: cannot be read ({error})") from error
