"""Layers with three placements, and both ways to store what a network of shallow layers reads."""

from __future__ import annotations

from types import SimpleNamespace

from bench import placed


def test_every_seed_is_placed_and_both_memories_are_mapped(monkeypatch):
    """A small layer, and a synthesis that looks at nothing but its seed and where the weights lie."""
    monkeypatch.setattr(placed, "PLACED", {"8x8": ((8, 8), 16)})
    clocks = {1: 150.0, 2: 160.0, 3: 200.0}
    monkeypatch.setattr(
        placed, "synthesize", lambda *told: SimpleNamespace(lut=9, ff=8, dsp=4, bram=0, fmax_mhz=clocks[told[-1]])
    )
    styles = []

    def cells(texts, _):
        (text,) = texts.values()
        styles.append(text.count('rom_style = "block"'))
        return {"packed": 7, "ff": 5, "dsp": 133, "bram": 28}

    monkeypatch.setattr(placed, "cells", cells)
    rows = {row["what"]: row for row in placed.measure()}
    assert rows["8x8 at an interval of 16: area"]["value"] == 9
    assert rows["8x8 at an interval of 16: area"]["note"].startswith("8 FF, 4 DSP, 0 block RAM; planned ")
    assert rows["8x8 at an interval of 16: clock"]["value"] == 170
    assert rows["8x8 at an interval of 16: clock"]["note"] == "150.0, 160.0, 200.0 by seed"
    assert rows["jet taggers at an interval of 32, weights in LUTs"]["value"] == 7
    assert styles == [3, 0]  # of the four layers' weights
