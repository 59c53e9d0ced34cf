"""The command `bittrue fit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bittrue.flow.cli import console, options


def fit(
    function: Annotated[
        str,
        typer.Argument(
            help="A name (`gelu`), an expression in x (`x * tanh(x)`), or `module:function`.", metavar="FUNCTION"
        ),
    ],
    steps: Annotated[int, typer.Option(help="Time steps K of the neuron.", min=1, max=32)] = 16,
    interval: Annotated[
        tuple[float, float] | None, typer.Option("--range", help="Inputs to fit, and valid range of the result.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="Bits of each parameter; default: not quantised.", min=2, max=16)
    ] = None,
    importance: Annotated[str, typer.Option(help="`uniform`, or MEAN,SIGMA of the inputs that matter.")] = "uniform",
    spike_cost: Annotated[
        float, typer.Option(help="Relative error that one spike per value less may cost; 0: fit alone.", min=0)
    ] = 0.1,
    restarts: Annotated[int, typer.Option(help="Starting points.", min=1)] = 32,
    tries: Annotated[int, typer.Option(help="Candidates of each start in the first round.", min=1)] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the starts and of the search.", min=0)] = 0,
    out: Annotated[
        Path | None, options.to_file(help="The neuron set, `.json`; default `<function>-k<steps>.json`.")
    ] = None,
    picture: Annotated[Path | None, options.to_file(help="The picture, `.svg`; default beside the set.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Fit an FS-neuron to a function, and draw function, error, spikes and parameters.

    The file it writes names the neuron wherever a neuron set is asked for. The same seed gives the same set.

    Examples:

        bittrue fit swish --steps 16 --range -8 12 --out swish.json

        bittrue fit gelu --bits 8 --importance 0,1.5

        bittrue fit "where(x > 0, x, 0.1 * x)" --steps 10 --range -4 4 --out leaky.json
    """
    from bittrue.flow.systems.fs import fit as fits
    from bittrue.sim.files import beside, try_file

    target, settings = fits.settings(
        function, steps, interval, importance,
        bits=bits, spike_cost=spike_cost, restarts=restarts, tries=tries, seed=seed,
    )  # fmt: skip
    out = out or Path(f"{fits.default_name(target, steps, bits)}.json")
    picture = picture or beside(out, f"{out.stem}.svg", "without --picture, the picture")
    files: dict[str, tuple[str, Path]] = {}
    options.apart(files, "--out", try_file(out))
    options.apart(files, "--picture", try_file(picture))
    with console.Bars() as bars:
        bars.begin("fit")
        result = fits.run(target, settings, out, picture, bars.progress)
    if as_json:
        print(json.dumps(result))
        return
    console.show(console.table(f"FS-neuron for {target.name}, K = {steps}", ("measured", "figure"), fits.rows(result)))
    console.line(f"{result['seconds']:.1f} s; set in {out}, picture in {result['picture']}")
