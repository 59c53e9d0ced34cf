"""The command of INT8 networks with learnable functions: `bittrue import-headers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bittrue.flow.cli import console, options


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import-headers")(import_headers)


def import_headers(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with `quant_params.h`, and `lerp_psa_params.h` if there are tables.", metavar="FOLDER"
        ),
    ],
    out: Annotated[Path, options.to_file(help="Where to write the program, `.npz`.")],
    as_json: options.AsJson = False,
) -> None:
    """Read the published C header format into a program.

    Example: `bittrue import-headers psa-relu-96 --out program.npz`
    """
    from bittrue.models.formats import headers

    program = headers.read(folder)
    program.save(out)
    weights, digest = program.weights, program.sha256
    result = {"program": str(out), "operations": len(program.nodes), "weights": weights, "sha256": digest}
    console.say(as_json, result, f"{len(program.nodes)} operations, {weights:,} weights, sha256 {digest[:12]} in {out}")
