"""The commands of spiking networks: fit a neuron, draw rasters, count energy, read and write NIR files."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    from bittrue.flow.systems.fs.commands import fit, nir, spikes

    app.command()(fit.fit)
    nir.register(app)
    spikes.register(app)
