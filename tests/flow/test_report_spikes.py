"""The report of a spiking network: neurons, counts in the RTL, sweep, rasters, energy; a difference is a problem."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bittrue.flow import stages
from bittrue.flow.engine import steps
from bittrue.flow.engine.recipe import load
from bittrue.flow.report import report
from bittrue.flow.systems.fs import energy, raster, spikes
from bittrue.flow.systems.fs import figures as spike_figures
from bittrue.flow.systems.fs.raster import Raster
from bittrue.rtl.dataflow.plan import plan
from tests.helpers.programs import spiking, stimulus
from tests.helpers.reports import well_formed

PROGRAM = spiking(shape=(3, 4), halving=True, steps=5, seed=11)
X = stimulus(PROGRAM, 6, 2)


@pytest.fixture
def page_of(content):  # noqa: F811
    """The content of a report with everything that a spiking flow adds."""
    sweep = [
        {"steps": k, "fraction_bits": None, "bits": bits, "accuracy": 0.9 - 0.3 / k - 0.1 / bits}
        for k in (4, 6, 10)
        for bits in (4, 8)
    ]
    content["training"]["quantize"] |= {
        "neuron_set": "relu",
        "steps": 10,
        "fraction_bits": None,
        "accuracy_float": 0.9125,
        "accuracy_converted": 0.9,
        "sweep": sweep,
        "spikes": spikes.count(PROGRAM, X).to_json(),
    }
    content["training"]["quantize"].setdefault("history", [])
    layers = [
        Raster(r.name, r.kind, r.golden, r.golden.copy(), np.zeros_like(r.golden))
        for r in raster.of_program(PROGRAM, X)
    ]
    content["system"] = "fs"
    content["rasters"] = {"image": 0, "layers": [r.to_json() for r in layers]}
    content["energy"] = energy.view(plan(PROGRAM), X, toggled=0)
    content["verify"][0]["events"] = {"fire": {"golden": 12345, "rtl": 12345}}
    return json.loads(json.dumps(content))


def test_page_is_well_formed_and_shows_all_parts(page_of):
    text = report.render(page_of)
    well_formed(text)
    for heading in ("Neurons and spikes", "Spikes counted in the RTL", "Rasters", "Energy"):
        assert heading in text
    for words in ("12,345", "91.25 %", "Horowitz", "block.fire (fsneuron)"):
        assert words in text
    for picture in re.findall(r"<svg.*?</svg>", text, re.S):
        ET.fromstring(picture)
    assert report.problems(page_of) == []


def test_a_raster_that_differs_is_a_problem(page_of):
    value = page_of["rasters"]["layers"][1]
    value["rtl"] = f"{int(value['rtl'][:2], 16) ^ 0x80:02x}{value['rtl'][2:]}"
    (problem,) = report.problems(page_of)
    assert problem.startswith("block.fire: 1 of ")
    assert problem.endswith("first neuron 0, step 0, token 0")
    assert "not equal" in report.render(page_of)


def test_a_wrong_count_is_a_problem_and_its_row_is_not_equal(page_of):
    before = report.render(page_of).count(">differs<")
    page_of["verify"][0]["events"]["fire"]["rtl"] += 1
    (problem,) = report.problems(page_of)
    assert problem.endswith("12346 events left fire, in the golden simulator 12345")
    assert report.render(page_of).count(">differs<") == before + 1 + (not page_of["verify"][0]["stalls"])


def test_sweep_has_a_line_for_each_width(page_of):
    picture = spike_figures.sweep(page_of["training"]["quantize"]["sweep"], {"steps": 10, "fraction_bits": None})
    assert "8 bits" in picture
    assert "4 bits" in picture
    assert picture.count("<circle") == 6
    fractions = [{"steps": 16, "fraction_bits": f, "bits": 8, "accuracy": 0.5 + f / 100} for f in (2, 4)]
    assert "fraction bits" in spike_figures.sweep(fractions, {"steps": 16, "fraction_bits": 4})


def test_only_spiking_flows_have_the_step_and_its_sources_exist():
    made = {step.name: step for step in stages.steps(load("fs-mlp-digits"))}
    assert "spikes" in made["report"].needs
    assert all((steps.ROOT / path).exists() for path in made["spikes"].code)
    assert "spikes" not in [step.name for step in stages.steps(load("lerp-psa-digits"))]
