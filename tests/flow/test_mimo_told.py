"""What the report tells of networks that take several images in one pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow.systems.mimo import told
from bittrue.flow.systems.mimo.section import Modes, crossover, spectrum
from bittrue.models.superposition import macs
from bittrue.models.superposition.settings import SuperpositionSettings
from bittrue.sim.operations.bundle import Bundle, circulant
from bittrue.sim.program import Program
from tests.helpers.bundled import grouped, images


def with_keys(program: Program, keys: np.ndarray) -> Program:
    """The program with other keys."""
    nodes = [
        replace(node, operation=replace(node.operation, weight=circulant(keys)))
        if isinstance(node.operation, Bundle)
        else node
        for node in program.nodes
    ]
    return Program(program.inputs, tuple(nodes), program.results)


class TestTold:
    def test_keys(self):
        """Of an impulse the spectrum is flat; keys that are each other turned are orthogonal, or opposite."""
        program = grouped(3, slots=3, turned=True)
        d = program["bundle"].weight.shape[1]
        keys = np.zeros((3, d), np.int64)
        keys[0, 0], keys[1, 1], keys[2, 0] = 40, 40, -80
        found = told.keys(with_keys(program, keys))
        assert [row["cosines"] for row in found] == [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]
        assert [row["length"] for row in found] == pytest.approx([0.75, 0.75, 1.5])
        assert found[0]["spectrum"] == found[1]["spectrum"] == [0.5] * (d // 2 + 1)
        assert found[2]["spectrum"] == [1.0] * (d // 2 + 1)
        assert told.keys(grouped(2, slots=2, turned=False))[0]["spectrum"] == []

    def test_cross_talk(self):
        """Results of images whose companions have keys of zero depend on none; of others they do."""
        program = grouped(5, slots=2, turned=True)
        x = images(program, 61)
        assert told.cross_talk(program, x, 2) > 0.05
        keys = program["bundle"].keys.copy()
        keys[1] = 0
        alone = with_keys(program, keys).in_groups_of(1)
        assert alone.grouping is None  # each image fills both slots, and the second adds nothing
        kept = with_keys(program, np.zeros_like(keys))
        assert told.cross_talk(kept, x, 2) == 0

    def test_multiply_accumulates_by_mode(self):
        network = SuperpositionSettings(slots=4, initial_width=2, stem_stride=2)
        found = told.of(grouped(1, slots=4), images(grouped(1, slots=4), 8), network, (28, 28, 1), 10)
        assert set(found["macs"]) == {"1", "2", "4"}
        assert found["macs"]["4"]["macs"] == 1030656  # as counted from the program of this network
        assert found["ordinary"] == pytest.approx(found["macs"]["1"]["macs"] * found["macs"]["1"]["speed_up"])
        assert set(found["cross_talk"]) == {"2", "4"}
        assert found["bound"] == 32

    @pytest.mark.long
    def test_where_binding_costs_more_than_it_saves(self):
        """Against counts of each mode by themselves, and of the published network."""
        network = SuperpositionSettings(slots=4, initial_width=2, stem_stride=2)
        shape, options = (28, 28, 1), {"shape": (28, 28, 1), "classes": 10, "summed": True}
        found = told.crossover(network, shape, 10, (1, 2, 4))
        ordinary = macs.count(macs.baseline(network), 1, **options).total
        for n in (1, 2, 4):
            points = dict(map(tuple, found["curves"][str(n)]))
            assert list(points) == [16 * wide for wide in range(1, 17)]
            for wide in (1, 2, 5):
                one = macs.count(network.model_copy(update={"initial_width": wide}), n, **options).total
                assert points[16 * wide] == pytest.approx(ordinary / one, abs=1e-4)
        assert found["bound"]["1"] == 0  # one at a time never saves anything
        bounds = [found["bound"][n] for n in ("1", "2", "4")]
        assert bounds == sorted(bounds)
        for n in ("2", "4"):
            curve = found["curves"][n]
            above, below = max(d for d, v in curve if v >= 1), min(d for d, v in curve if v < 1)
            assert above <= found["bound"][n] <= below
            assert below - above == 16
        one = macs.count(network, 1, **options)
        share = (one.bulk + one.unbind) / found["images"]
        assert one.stem + one.binding + share + one.classifier == pytest.approx(ordinary)
        published = SuperpositionSettings(depth=28, width=10, initial_width=4, slots=4)
        found = told.crossover(published, (32, 32, 3), 10, (4,))
        assert found["images"] == pytest.approx(1.016, abs=5e-4)
        assert found["bound"] == {"4": None}
        wide = network.model_copy(update={"initial_width": 40})
        found = told.crossover(wide, shape, 10, (4,))
        assert found["images"] is None
        assert max(d for d, _ in found["curves"]["4"]) == 16 * 80

    def test_a_curve_that_falls(self):
        assert told._falls_below([(16, 0.9), (32, 0.8)]) == 0
        assert told._falls_below([(16, 1.5), (32, 1.1), (48, 0.6)]) == 35.2
        assert told._falls_below([(16, 1.5), (32, 1.0)]) is None


def test_rows_of_the_section():
    quantized = {
        "modes": {"1": {"float": 0.8, "golden": 0.7}, "4": {"float": 0.6, "golden": 0.5}},
        "macs": {n: {"macs": 1e6, "speed_up": 2.0, "over_one_slot": 1.0} for n in ("1", "4")},
        "slots": 4,
        "ordinary": 2e6,
        "keys": [],
        "cross_talk": {"4": 0.1},
        "history": None,
    }
    results = {"quantize": quantized, "rtl": {"modes": {"1": [10, 1001], "4": [20, 1001]}}}
    results["synth"] = {"targets": [{"target": "t", "design": "pipeline", "fmax_mhz": 100.0}]}
    told_of = Modes().collect(results)["images_at_a_time"]
    one, four = told_of["modes"]
    assert (one["latency"], one["cycles"], one["rate"], one["changed"]) == (10, 1001, 99900, None)
    assert (four["latency"], four["cycles"], four["rate"], four["changed"]) == (20, 251, 399600, 0.1)
    assert not told_of["trained"]
    assert Modes().collect({"quantize": {}}) == {}
    without = Modes().collect({"quantize": quantized})["images_at_a_time"]
    assert [row["rate"] for row in without["modes"]] == [None, None]
    assert [row["pj"] for row in without["modes"]] == [None, None]
    assert without["beside"] == []
    results["modes"] = {
        "energy": {"1": {"total": 5.0}, "4": {"total": 2.0}},
        "beside": [{"name": "ordinary network", "macs": 4e6, "cycles": 1000}],
    }
    results["modes"] |= {"interval": 1001, "products": 9, "estimated": {"lut": 1}, "source": "s"}
    costs = Modes().collect(results)["images_at_a_time"]
    assert [row["pj"]["total"] for row in costs["modes"]] == [5.0, 2.0]
    assert [(row["speed_up"], row["rate"]) for row in costs["beside"]] == [(0.5, 100000)]
    assert (costs["interval"], costs["products"], costs["source"]) == (1001, 9, "s")


def test_the_picture_of_the_crossover():
    found = {"curves": {"1": [[16, 1.0], [32, 0.5]], "4": [[16, 3.0], [32, 1.5]]}}
    drawn = crossover(found, 32)
    assert drawn.count("<circle") == 2  # where the network is, in either mode
    for words in ("1 at a time", "4 at a time", "as many", "channels that are bound"):
        assert words in drawn
    assert spectrum([0.5, 1.0]).count("<rect") == 4
