"""Prices of area estimates: fitted to what was counted, and told beside what is in use."""

from __future__ import annotations

import numpy as np
import pytest

from bench import area
from bench.results import stored
from bittrue.rtl.dataflow.estimate import PRICES


def test_prices_that_made_the_counts_are_found_again():
    rng = np.random.default_rng(1)
    paid = rng.integers(1, 500, (20, len(PRICES)))
    prices = rng.uniform(0, 5, len(PRICES))
    prices[2] = 0
    assert list(area.fitted(paid, paid @ prices).values()) == pytest.approx(prices.tolist(), abs=1e-9)


def test_each_sample_has_what_was_planned_beside_what_was_counted(monkeypatch):
    """Two samples; what a synthesis counts is what the prices in use make, and a quarter more."""
    few = [pair for pair in area.samples() if pair[0] in ("Mean", "Transpose")][:2]
    whole = area.samples()[0][1]
    monkeypatch.setattr(area, "samples", lambda: few)
    monkeypatch.setattr(area, "RECIPES", ("some",))
    monkeypatch.setattr(area, "untrained", {"some": whole}.get)
    monkeypatch.setattr(area, "emit", lambda planned: planned)
    monkeypatch.setattr(area, "synthesise", lambda planned: planned.estimate.lut * 1.25)
    rows = area.measure()
    for (kinds, planned), row in zip(few, rows, strict=False):
        told = sum(count * price for count, price in zip(area.parts(planned), PRICES.values(), strict=True))
        assert row["what"].startswith(f"{kinds} (")
        assert row["planned"] == planned.estimate.lut == pytest.approx(told, abs=2)
        assert row["value"] == 1.25 * row["planned"]
        assert row["note"].endswith(", -20.0%")
    assert (rows[2]["what"], rows[2]["planned"]) == ("some (not trained)", whole.estimate.lut)
    assert [row["what"] for row in rows[3:]] == [f"price of {part}" for part in PRICES]
    assert rows[3]["note"] == f"{PRICES['stage']:g} in use"
    fitted = area.fitted([area.parts(planned) for _, planned in few], [row["value"] for row in rows[:2]])
    assert [row["value"] for row in rows[3:]] == list(fitted.values())


def test_prices_in_use_are_those_that_were_measured():
    """What is stored tells what was in use then; what it fits is at most an eighth away."""
    (run, *_) = stored.load("area", "bench")["runs"][-1:]
    rows = {row["what"].removeprefix("price of "): row for row in run["rows"] if row["what"].startswith("price of ")}
    assert rows.keys() == PRICES.keys()
    for part, price in PRICES.items():
        assert rows[part]["note"] == f"{price:g} in use"
        assert price == pytest.approx(rows[part]["value"], rel=1 / 8), part


def test_the_samples_have_every_kind_of_part():
    """No price is fitted to nothing; and names tell the kinds of stages."""
    found = area.samples()
    assert np.array([area.parts(planned) for _, planned in found]).any(axis=0).all()
    assert {kinds for kinds, _ in found} >= {"Linear", "Affine", "Lerp", "Mean", "Transpose", "Window, Linear"}
