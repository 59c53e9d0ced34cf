"""What the options and arguments of all commands share: places are tried before any work, and shells complete names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from bittrue.flow.engine import recipe as recipes
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import try_file, try_folder


# -- values that are written in one word -------------------------------------------------------------------
def numbers(text: str, low: int, high: int | None, wanted: str, twice: str = "") -> list[int]:
    """`1,2,4` as numbers.

    Raises BittrueError for others than `low` to `high`: what is `wanted`; and, if `twice` is one named, for one that is
    there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and low <= int(part) and (high is None or int(part) <= high) for part in parts):
        raise BittrueError(wanted)
    found = [int(part) for part in parts]
    if twice and len(set(found)) != len(found):
        raise BittrueError(f"{twice} is there twice; give each once")
    return found


def image(text: str) -> tuple[int, int, int]:
    """The option `--image`, `32x32x3`: height, width and channels."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and 0 < int(part) <= 4096 for part in parts):
        raise BittrueError(f"--image {text!r}: write height, width and channels, such as 32x32x3")
    height, width, channels = map(int, parts)
    return height, width, channels


# -- places that are written -------------------------------------------------------------------------------
def tried_file(ctx: typer.Context, param: typer.CallbackParam, value: Path | None) -> Path | None:
    """The callback of an option that names a file to write: an error now, not after the work.

    Two options of a command that name the same file are refused, for one result would replace the other.
    """
    if value is not None:
        apart(ctx.meta.setdefault("bittrue.files", {}), param.opts[-1], try_file(value))
    return value


def apart(named: dict[str, tuple[str, Path]], option: str, place: Path) -> None:
    """Enter the file that an option names, or refuse one that another option names; devices and pipes take both.

    named    by real path what was entered before: the option and its path
    """
    real = os.path.realpath(place)
    other, path = named.setdefault(real, (option, place))
    if other != option and (place.is_file() or not place.exists()):
        raise BittrueError(f"{place}: {other} ({path}) and {option} name the same file; give each a file of its own")


def tried_folder(value: Path | None) -> Path | None:
    """The callback of an option that names a folder to fill."""
    return value and try_folder(value)


def to_file(*names: str, help: str, **more: Any) -> Any:
    """An option that names a file to write; it can be a device, a pipe, or a link."""
    return typer.Option(*names, help=help, metavar="FILE", callback=tried_file, **more)


def to_folder(*names: str, help: str, **more: Any) -> Any:
    """An option that names a folder to fill."""
    return typer.Option(*names, help=help, metavar="FOLDER", callback=tried_folder, **more)


def from_file(*names: str, help: str, **more: Any) -> Any:
    """An option that names a file to read."""
    return typer.Option(*names, help=help, metavar="FILE", **more)


# -- names that shells complete ----------------------------------------------------------------------------
def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    return _starting(recipes.shipped(), incomplete)


def complete_step(incomplete: str) -> list[str]:
    from bittrue.flow import stages

    names = dict.fromkeys(step.name for name in recipes.shipped() for step in stages.steps(recipes.load(name)))
    return _starting(names, incomplete)


def complete_target(incomplete: str) -> list[str]:
    from bittrue.flow.synth.targets import TARGETS

    return _starting(TARGETS, incomplete)


def complete_device(incomplete: str) -> list[str]:
    from bittrue.rtl.dataflow.estimate import DEVICES

    return _starting(DEVICES, incomplete)


def complete_architecture(incomplete: str) -> list[str]:
    from bittrue.rtl.dataflow.stage import architectures

    return _starting(sorted(architectures()), incomplete)


def complete_backends(incomplete: str) -> list[str]:
    """The last of comma-separated names."""
    from bittrue.flow.verify.verify import DEFAULT

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _starting(DEFAULT, last)]


# -- what several commands take ----------------------------------------------------------------------------
Recipe = Annotated[
    str,
    typer.Argument(help="A shipped recipe by name, or a YAML file.", metavar="RECIPE", autocompletion=complete_recipe),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes of the recipe, e.g. `train.epochs=5`.", metavar="[KEY.SUB=VALUE]...")
]
ProgramFile = Annotated[Path, typer.Argument(help="A program, `.npz`.", metavar="PROGRAM")]
InputsFile = Annotated[
    Path, typer.Argument(help="Batch `[n, ...]` of codes, `.npy`; `.npz` by name for several inputs.", metavar="INPUTS")
]
FlowFolder = Annotated[Path | None, to_folder("--out", help="Folder of the flow; default `build/<recipe>`.")]
Interval = Annotated[int | None, typer.Option(help="Wanted cycles per frame.", min=1)]
Device = Annotated[
    str | None,
    typer.Option(help="Instead: the fastest plan that fits, e.g. `ecp5-85k`.", autocompletion=complete_device),
]
Weights = Annotated[
    str | None,
    typer.Option(help="`written`: the weights can be written while it runs; or comma-separated names of operations."),
]
WeightBus = Annotated[str, typer.Option(help="What written weights come over: `stream` or `lite` (registers).")]
Architecture = Annotated[
    str | None,
    typer.Option(
        help="Of operations that have several: `parallel`, `packed` (two products in a multiplier), `adders` (constant "
        "weights as shared adders, a vector a cycle; taken by itself where --interval leaves no more), `events`.",
        autocompletion=complete_architecture,
    ),
]
BlockLuts = Annotated[
    int | None,
    typer.Option(
        help="LUTs that a block RAM is worth in matrix layers: more move shallow memories from blocks to LUTs; default "
        "54, or 30 with two products in a multiplier.",
        min=0,
    ),
]
Rings = Annotated[
    bool | None,
    typer.Option(
        "--rings/--no-rings",
        help="Whether convolutions multiply what they read from the ring of pixels, and store no vectors: wherever "
        "they can, or nowhere; default where it takes less.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
