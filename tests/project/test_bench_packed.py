"""Designs with two products in a multiplier beside the same with one: what is counted, and of which stages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench import packed
from bench.results import stored
from bench.results.tables import packed as table
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize


def small():
    """A layer of 4 products a cycle behind an affine stage, which multiplies as well."""
    kind, rng = TensorType((8, 8), INT8), np.random.default_rng(1)
    build = Builder({"x": kind})
    build.add("scale", Affine(kind, rng.integers(1, 9, 8), Requantize(8, 3)), "x")
    build.add("layer", Linear(kind, rng.integers(-128, 128, (4, 8)), Requantize(4, 9)), "scale")
    return plan(build.program("layer"), interval=64)


def test_dsps_of_linear_layers_are_told_from_the_others(monkeypatch, tmp_path):
    texts = []

    def synthesize(verilog, target, folder):
        texts.append(str(verilog))
        wide = len(texts) > 1
        names = [f"$flatten\\pipeline.\\layer.$mul${k}" for k in range(2 if wide else 4)]
        names += ["$flatten\\pipeline.\\scale.$mul$9", "pipeline.layer_behind.product0"]
        cells = {name: {"type": "DSP48E2"} for name in names} | {"pipeline.layer.sum": {"type": "LUT2"}}
        (Path(folder) / "netlist.json").write_text(json.dumps({"modules": {packed.TOP: {"cells": cells}}}))
        assert target == "xilinx-us+"
        return SimpleNamespace(lut=104 if wide else 100, ff=7, dsp=len(names), bram=1)

    monkeypatch.setattr(packed, "synthesize", synthesize)
    monkeypatch.setattr(packed, "untrained", {"relu-digits": small()}.get)
    rows = packed.measure(["relu-digits"])
    assert [row["what"].split(": ")[1] for row in rows] == ["plain", "packed"]
    assert [(row["products"], row["linear"]) for row in rows] == [(4, 4), (4, 2)]
    assert rows[1]["note"] == "7 FF, 4 DSP, 1 block RAM"
    made = {"date": "2026-11-29", "machine": {"class": "AVX2", "cores": 2}, "commit": "abc"}
    stored.save(
        "packed", {"kind": "bench", "bench": "packed", "runs": [{"made": made, "rows": rows}], "note": ""}, tmp_path
    )
    lines = table(tmp_path).splitlines()[2:4]
    assert lines[0] == "| relu-digits | plain | 4 for 4: 1.00 | 100 | 7 FF, 6 DSP, 1 block RAM |"
    assert lines[1] == "| relu-digits | packed | 2 for 4: 0.50 | 104 (+4.0%) | 7 FF, 4 DSP, 1 block RAM |"


def test_an_unknown_design_is_refused():
    with pytest.raises(BittrueError, match="packed: no design is named 'x'; there are lerp-psa-digits; relu-digits; "):
        packed.measure(["x"])
