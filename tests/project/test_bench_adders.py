"""Shared adders beside da4ml's: the same integers, layers added up, and who is absent is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bench import adders, peer_rows


@pytest.fixture
def quick(monkeypatch):
    """A small network, a synthesis that only looks which module it is, and nothing compiled."""
    used = {"bittrue_top": 1000, "theirs": 30}
    monkeypatch.setattr(adders, "JETS", (6, 5, 3))
    monkeypatch.setattr(adders, "verified", lambda _: [])
    monkeypatch.setattr(
        adders,
        "cells",
        lambda texts, top: {"lut": used[top], "ff": 2, "dsp": 0, "bram": 0, "packed": used[top] + len(texts) // 99},
    )


@pytest.mark.usefixtures("quick")
def test_who_is_absent_is_a_row_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "da4ml", None)
    rows = {row["what"]: row for row in adders.measure()}
    assert rows["layer0, 6 x 5: da4ml"]["note"] == f"not installed: {peer_rows.INSTALL['da4ml']}"
    assert rows["layer1, 5 x 3: bittrue"]["value"] == 1000
    assert "adders, latency" in rows["layer1, 5 x 3: bittrue"]["note"]
    assert rows["all layers: bittrue"]["value"] == 2000
    assert "all layers: da4ml" not in rows
    assert {row["bench"] for row in rows.values()} == {"adders"}


@pytest.mark.needs("da4ml")
@pytest.mark.usefixtures("quick")
def test_da4ml_is_given_the_same_layers(monkeypatch):
    rows = {row["what"]: row for row in adders.measure()}
    assert rows["all layers: da4ml"]["value"] == 60
    mlp = peer_rows.network((6, 5))
    (layer,) = mlp.layers
    _, count, latency = adders.theirs(layer, mlp.codes)
    assert 5 < count < 100
    assert latency >= 2
    monkeypatch.setattr(type(layer), "reference", lambda _, x: np.zeros((len(x), 5), int))
    with pytest.raises(AssertionError, match="da4ml gives other codes than the reference"):
        adders.theirs(layer, mlp.codes)


def test_codes_that_differ_are_an_error(monkeypatch):
    """The whole network is verified before anything is counted."""

    class Wrong:
        latency, interval = 6, 1

        def __init__(self, *_):
            pass

        def run(self, *_, **__):
            return self

        def check(self, _):
            return self

        def mismatches(self, _):
            return 1

    monkeypatch.setattr(adders, "CompiledRtl", Wrong)
    with pytest.raises(AssertionError, match="3 codes differ"):
        adders.verified(peer_rows.network((6, 3)))
