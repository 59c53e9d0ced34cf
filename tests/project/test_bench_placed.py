"""Layers with three placements, and both ways to store what a network of shallow layers reads."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from bench import __main__ as main
from bench import placed
from bittrue.sim.errors import BittrueError


def placements(*told):
    clocks = {1: 150.0, 2: 160.0, 3: 200.0}
    return [SimpleNamespace(lut=9, ff=8, dsp=4, bram=0, fmax_mhz=clocks[seed]) for seed in told[-1]]


def test_every_seed_is_placed_and_both_memories_are_mapped(monkeypatch):
    """A small layer, and a synthesis that looks at nothing but its seed and where the weights lie."""
    monkeypatch.setattr(placed, "PLACED", {"8x8": ((8, 8), 16)})
    monkeypatch.setattr(placed, "placements", placements)
    styles = []

    def cells(texts, _):
        (text,) = texts.values()
        styles.append(text.count('rom_style = "block"'))
        return {"packed": 7, "ff": 5, "dsp": 133, "bram": 28}

    monkeypatch.setattr(placed, "cells", cells)
    rows = {row["what"]: row for row in placed.measure()}
    assert rows["8x8: area"]["value"] == 9
    assert rows["8x8: area"]["note"].startswith("8 FF, 4 DSP, 0 block RAM; planned ")
    assert rows["8x8: clock"]["value"] == 170
    assert rows["8x8: clock"]["note"] == "150.0, 160.0, 200.0 by seed"
    assert rows["jet taggers at an interval of 32, weights in LUTs"]["value"] == 7
    assert styles == [3, 0]  # of the four layers' weights


def test_a_design_of_a_recipe_is_that_of_its_flow(monkeypatch):
    """What a flow left in its folder is placed; asked for by name, nothing else is."""
    monkeypatch.setattr(placed, "placements", placements)
    asked = []

    def run_recipe(recipe, changes, folder, until):
        asked.append((recipe, changes, folder.name, until))
        return folder, []

    estimate = SimpleNamespace(lut=1, ff=2, dsp=3, bram=4)
    monkeypatch.setattr(placed, "run_recipe", run_recipe)
    monkeypatch.setattr(placed.Program, "load", lambda path: path.parts[-2:])
    monkeypatch.setattr(placed, "read_design", lambda *told: (SimpleNamespace(estimate=estimate, told=told), "text"))
    rows = placed.measure(["fs-mlp-digits, events"])
    changes = ("rtl.architecture=events", "rtl.interval=2560")
    assert asked == [("fs-mlp-digits", changes, "fs-mlp-digits-events", "rtl")]
    assert [row["what"] for row in rows] == ["fs-mlp-digits, events: area", "fs-mlp-digits, events: clock"]
    assert rows[0]["note"] == "8 FF, 4 DSP, 0 block RAM; planned 1 LUT, 2 FF, 3 DSP, 4 block RAM"


def test_an_unknown_design_is_refused():
    with pytest.raises(BittrueError, match="no design is named 'x'; there are 96x96 at an interval of 288; "):
        placed.measure(["x"])


def test_what_is_measured_again_replaces_what_is_stored(monkeypatch):
    stored = {"runs": [{"made": 1, "rows": [{"what": "a"}, {"what": "b"}]}, {"made": 2, "rows": [{"what": "a"}]}]}
    monkeypatch.setattr(main.stored, "load", lambda *_: stored)
    assert main.others("placed", [{"what": "a"}]) == [{"made": 1, "rows": [{"what": "b"}]}]


def test_what_is_measured_for_the_first_time_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(main.stored, "FOLDER", tmp_path)
    assert main.others("placed", [{"what": "a"}]) == []


def test_words_in_brackets_are_words():
    """An extra that is missing is named in brackets, which are no markup."""
    rows = [{"bench": "adders", "what": "layer: da4ml", "note": "not installed: pip install 'bittrue[peers]'"}]
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(main.table(rows))
    assert "pip install 'bittrue[peers]'" in console.export_text()
