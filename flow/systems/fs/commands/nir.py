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
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
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
    reset: Annotated[
        str, typer.Option(help="`value`, as NIR has it, `subtract`, or `snntorch`: subtracted after the next decay.")
    ] = "value",
    input_format: Annotated[str, typer.Option("--input", help="Format of the input: `u1` spikes, `u8`, `s8`.")] = "u1",
    input_scale: Annotated[float, typer.Option(help="What one input code is worth.")] = 1.0,
    guard: Annotated[int, typer.Option(help="Bits of a membrane below the step of its weights.")] = 4,
    weight_bits: Annotated[int, typer.Option(help="Bits of the weights, 2 to 16.")] = 8,
    keep_bits: Annotated[int, typer.Option(help="Fraction bits of a decay that none hold exactly, at least.")] = 10,
    samples: Annotated[int, typer.Option(help="Random samples for the comparison with the float network.")] = 64,
    model: Annotated[
        str | None,
        typer.Option(help="Compare with this torch model too; the file is run.", metavar="FILE.py:NAME"),
    ] = None,
    agreement: Annotated[
        float, typer.Option(help="Least share of equal spikes and silences; with less, status 1.", min=0, max=1)
    ] = 0.9,
    as_json: AsJson = False,
) -> None:
    """Make a program of a spiking network in a NIR file (integrate-and-fire neurons, linear layers, convolutions).

    It is compared with a float simulation of the same discretisation on random input; the shares of equal spikes and
    silences are printed, layer by layer. No NIR file says how a neuron is reset: what is assumed is printed, and
    --model compares with the network that was exported.

    Examples:

        bittrue import-nir net.nir --steps 25 --out program.npz

        bittrue import-nir net.nir --steps 25 --out program.npz --reset snntorch --model my_net.py:net
    """
    from bittrue.models.formats.nir import compare
    from bittrue.models.formats.nir import graph as nir_graph
    from bittrue.models.formats.nir import read as nir_read

    exported = compare.load_model(model) if model else None
    graph = nir_graph.read(file)
    program = nir_read.program(
        graph,
        steps,
        dt,
        reset=reset,
        input_format=Format.parse(input_format),
        input_scale=input_scale,
        guard=guard,
        weight_bits=weight_bits,
        keep_bits=keep_bits,
    )
    program.save(out)
    ((name, kind),) = program.inputs.items()
    x = np.random.default_rng(0).integers(kind.format.low, kind.format.high + 1, (max(samples, 1), *kind.shape))
    layers = nir_read.agreement(program, graph, x, dt=dt, reset=reset)
    beside = compare.with_model(program, exported, x) if model else None
    result = {"program": str(out), "input": f"{name} {kind}", "output": str(program.output), "agreement": layers}
    result |= {"reset": reset, "model": beside}
    if as_json:
        print(json.dumps(result))
    else:
        _tell(name, kind, program, out, reset, layers, beside)
    nir_read.check_agreement(layers, agreement)
    if beside and beside["equal"] < agreement:
        others = " or ".join(other for other in nir_graph.RESETS if other != reset)
        more = "another --dt, more --weight-bits and --keep-bits"
        raise BittrueError(
            f"{model}: {percent(beside['equal'])} of its spikes and silences are those of the program, and at least "
            f"{percent(agreement)} are asked for (--agreement); try --reset {others}, {more}"
        )


def _tell(
    name: str, kind: TensorType, program: Program, out: Path, reset: str, layers: dict, beside: dict | None
) -> None:
    from bittrue.models.formats.nir.graph import RESETS

    line(f"{name} {kind} to {program.result} {program.output}, {len(program.nodes)} operations; {out}")
    line(f"assumed, since no NIR file says it: {RESETS[reset]} (--reset {reset})")
    for layer, seen in layers.items():
        line(f"{layer}: {percent(seen['equal'])} as in float, {percent(seen['rate'])} of the neurons' steps spike")
    if beside:
        shares = percent(beside["equal"]), percent(beside["rate"])
        line(f"{program.result}: {shares[0]} as in the torch model, where {shares[1]} of the neurons' steps spike")


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
