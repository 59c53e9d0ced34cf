"""The report of a network that takes several images in one pass: every mode, its cost, where binding does not pay."""

import json

import pytest

from bittrue.flow.report import report
from bittrue.flow.systems.mimo import beside, told
from bittrue.flow.systems.mimo.section import Modes
from bittrue.models.superposition.settings import SuperpositionSettings
from bittrue.rtl.dataflow.plan import plan
from tests.helpers.bundled import grouped, images
from tests.helpers.reports import synthesised, well_formed

NETWORK = SuperpositionSettings(slots=4, initial_width=2, stem_stride=2)


@pytest.fixture
def page_of(content):
    """The content of a report with everything that such a flow adds."""
    program = grouped(1, slots=4)
    made = plan(program, interval=2000)
    accuracies = {"float": 0.8, "converted": 0.79, "quantized": 0.81, "golden": 0.81}
    quantized = {"modes": dict.fromkeys(("1", "2", "4"), accuracies), "slots": 4, "history": [{}]}
    quantized |= told.of(program, images(program, 8), NETWORK, (28, 28, 1), 10)
    pj = beside.by_mode(made)
    cost = beside.told("ordinary network", made) | {"macs": 1.2e6, "pj": pj["4"]}
    modes = {"energy": pj, "beside": [cost, cost | {"name": "one slot"}], "source": "a book", "interval": 2000}
    modes |= {"products": 17, "estimated": cost["estimated"]}
    results = {
        "quantize": quantized,
        "rtl": {"modes": {str(n): cycles for n, cycles in made.modes.items()}},
        "modes": modes,
        "synth": {"targets": [synthesised("ecp5-85k")]},
    }
    content["system"] = "mimo"
    content |= Modes().collect(results)
    content["verify"][0] |= {"together": [4], "changes": 0}
    content["verify"][2] |= {"together": [1, 2, 4], "changes": 1234, "seed": 7}
    return json.loads(json.dumps(content))


def test_figures_of_a_mode_are_those_of_an_image():
    """Cycles of a group are shared by its images, a part of one counts whole; the rate is that of the pipeline."""
    modes = dict.fromkeys(("1", "2", "4"), {"golden": 0.5})
    quantized = {"modes": modes, "macs": dict.fromkeys(modes, {"macs": 7}), "slots": 4, "keys": [], "ordinary": 100}
    quantized |= {"cross_talk": {"2": 3}}
    results = {
        "quantize": quantized,
        "rtl": {"modes": {"1": (50, 400), "2": (60, 401), "4": (70, 400)}},
        "modes": {"beside": [{"macs": 25, "cycles": 50}], "energy": {"4": 9}},
        "synth": {"targets": [{"design": "other", "fmax_mhz": 7}, {"fmax_mhz": None}, {"fmax_mhz": 100}]},
    }
    found = Modes().collect(results)["images_at_a_time"]
    figures = ("images", "latency", "cycles", "rate", "changed", "pj", "macs", "golden")
    assert [tuple(row[name] for name in figures) for row in found["modes"]] == [
        (1, 50, 400, 250_000, None, None, 7, 0.5),
        (2, 60, 201, 498_753, 3, None, 7, 0.5),
        (4, 70, 100, 1_000_000, None, 9, 7, 0.5),
    ]
    assert found["mhz"] == 100
    assert [(row["speed_up"], row["rate"]) for row in found["beside"]] == [(4, 2_000_000)]
    (first, *_) = Modes().collect({"quantize": quantized})["images_at_a_time"]["modes"]
    assert (first["latency"], first["cycles"], first["rate"]) == (None, None, None)
    assert Modes().collect({"quantize": {}}) == {}


def test_page_is_well_formed_and_shows_all_parts(page_of):
    text = report.render(page_of)
    well_formed(text)
    words = " ".join(text.split())
    for part in (
        "1, 2, 4: 1,234 changes, seed 7",
        "energy an image, nJ",
        "one slot",
        "products a cycle",
        "Where binding costs more than it saves",
        "channels that are bound",
        "a book",
    ):
        assert part in words, part
    pj = page_of["images_at_a_time"]["modes"][2]["pj"]["total"]
    assert f"{pj / 1000:,.1f}</td>" in text
    crossover = page_of["images_at_a_time"]["crossover"]
    assert f"from <b>{crossover['images']:.2f}</b> images at a time on" in words
    assert f"with 4 at a time from D = {crossover['bound']['4']:.0f} on" in words
    assert "with 1 at a time at any D" in words


def test_an_older_report_has_no_costs(page_of):
    """A flow that was not run to its step `modes`, and whose quantisation told of no crossover."""
    told_of = page_of["images_at_a_time"]
    for row in told_of["modes"]:
        row["pj"] = None
    told_of |= {"beside": [], "crossover": None, "products": None, "interval": None, "source": None}
    page_of["images_at_a_time"]["mhz"] = None
    text = " ".join(report.render(page_of).split())
    assert "ordinary network" in text
    assert "products a cycle" not in text
    assert "Where binding costs" not in text


def test_binding_that_never_pays(page_of):
    page_of["images_at_a_time"]["crossover"] |= {"images": None, "bound": {"4": None}}
    text = " ".join(report.render(page_of).split())
    assert "no number of images at a time makes up for that" in text
    assert "with 4 at a time at no D that is drawn" in text


def test_energy_of_every_mode_falls_with_the_images_that_share_a_pass():
    made = plan(grouped(1, slots=4, bulk=4), interval=4000)
    found = [beside.by_mode(made)[n]["total"] for n in ("1", "2", "4")]
    assert found == sorted(found, reverse=True)
    alone = plan(grouped(1, slots=4, images=1), interval=4000)
    assert list(beside.by_mode(alone)) == ["1"]
