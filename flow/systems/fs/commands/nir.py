"""The commands `bittrue import-nir` and `bittrue export-nir`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bittrue.flow.cli import options
from bittrue.flow.cli.console import line, percent
from bittrue.sim.contract import Format
from bittrue.sim.program import Program

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of sentences.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(name="import-nir")(import_nir)
    app.command(name="export-nir")(export_nir)


def import_nir(
    file: Annotated[Path, typer.Argument(help="A NIR file, as nir.write makes it.", metavar="FILE")],
    steps: Annotated[int, typer.Option(help="T, the time steps of a sample.")],
    out: Annotated[Path, options.to_file(help="Where to write the program, `.npz`.")],
    dt: Annotated[float, typer.Option(help="Time step in the file's unit: 1e-4 in snnTorch, 1e-3 in Norse.")] = 1e-4,
    reset: Annotated[str, typer.Option(help="`value`, as NIR has it, or `subtract`.")] = "value",
    input_format: Annotated[str, typer.Option("--input", help="Format of the input: `u1` spikes, `u8`, `s8`.")] = "u1",
    input_scale: Annotated[float, typer.Option(help="What one input code is worth.")] = 1.0,
    guard: Annotated[int, typer.Option(help="Bits of a membrane below the step of its weights.")] = 4,
    samples: Annotated[int, typer.Option(help="Random samples for the comparison with the float network.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Make a program of a spiking network in a NIR file (integrate-and-fire neurons, linear layers, convolutions).

    It is compared with a float simulation of the same discretisation on random input; the shares of equal spikes and
    silences are printed, layer by layer.

    Example: `bittrue import-nir net.nir --steps 25 --out program.npz`
    """
    from bittrue.models.formats.nir import graph as nir_graph
    from bittrue.models.formats.nir import read as nir_read

    graph = nir_graph.read(file)
    program = nir_read.program(
        graph,
        steps,
        dt,
        reset=reset,
        input_format=Format.parse(input_format),
        input_scale=input_scale,
        guard=guard,
    )
    program.save(out)
    ((name, kind),) = program.inputs.items()
    x = np.random.default_rng(0).integers(kind.format.low, kind.format.high + 1, (max(samples, 1), *kind.shape))
    layers = nir_read.agreement(program, graph, x, dt=dt, reset=reset)
    result = {"program": str(out), "input": f"{name} {kind}", "output": str(program.output), "agreement": layers}
    if as_json:
        print(json.dumps(result))
        return
    line(f"{name} {kind} to {program.result} {program.output}, {len(program.nodes)} operations; {out}")
    for layer, seen in layers.items():
        line(f"{layer}: {percent(seen['equal'])} as in float, {percent(seen['rate'])} of the neurons' steps spike")


def export_nir(
    program: options.ProgramFile,
    out: Annotated[Path, options.to_file(help="Where to write the NIR file.")],
    dt: Annotated[float, typer.Option(help="Time step of leaky neurons, in the unit the file shall have.")] = 1e-4,
    round_outside: Annotated[
        bool, typer.Option("--round-outside", help="Leave out the rounding of the result, which NIR cannot express.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a spiking program (LIF networks, FS networks of vectors) as a NIR graph; what NIR cannot express is named.

    Example: `bittrue export-nir program.npz --out net.nir`
    """
    from bittrue.models.formats.nir import write as nir_write

    graph = nir_write.graph(Program.load(program), dt, round_outside)
    nir_write.save(graph, out)
    result = {"file": str(out), "nodes": len(graph.nodes), "edges": len(graph.edges)}
    if as_json:
        print(json.dumps(result))
    else:
        line(f"{len(graph.nodes)} nodes and {len(graph.edges)} edges in {out}")
