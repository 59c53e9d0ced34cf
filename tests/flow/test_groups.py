"""Verification of designs whose images go in groups: n changes all the time, faults are told with slot and group."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.sets import Write
from bittrue.flow.verify.backends import Stalls
from bittrue.flow.verify.exchanges import Exchanges, OneSize, Sizes, whole
from bittrue.flow.verify.verify import verify
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim.groups import walk
from tests.helpers.bundled import changes, grouped, images


@pytest.fixture(scope="module")
def design():
    return PipelineDesign(plan(grouped(1, slots=4), interval=2000))


class TestExchanges:
    def test_groups_are_whole_and_of_every_size(self):
        program = grouped(1, slots=4)
        sets = Exchanges.of(program, 3)
        assert isinstance(sets, Sizes)
        for frames in (1, 4, 7, 101):
            sizes = sets.sizes(frames)
            assert sum(sizes) == frames
            found = [group.size for group in walk(program.grouping, frames, 0, sets.held(frames))]
            assert found == sizes
        assert set(sets.sizes(101)) == {1, 2, 4}
        assert OneSize(program, 2).sizes(6) == [2, 2, 2]
        assert [whole(program, n) for n in (1, 4, 5)] == [4, 4, 8]
        assert whole(program, 5, 2) == 6


@pytest.mark.needs("verilator")
class TestVerified:
    def test_every_mode_and_all_of_them_in_one_stream(self, design, tmp_path):
        x = [images(design.program, 61)]
        found = verify(design, x, {"compiled": None, "reference": 9}, Stalls(0.3, 0.4, 2), tmp_path)
        assert found.problems == []
        rows = [(row["together"], row["stalls"], row["images"]) for row in found.rows]
        assert rows[0] == ([4], False, 61)
        assert sorted(together for together, stalls, _ in rows[1:-1]) == [[1], [2]]
        assert rows[-1] == ([1, 2, 4], True, 61)
        for row in found.rows[:-1]:
            assert row["latency"] == row["estimated_latency"] == design.plan.modes[row["together"][0]][0]
            assert row["interval"] == row["estimated_interval"]

    def test_a_fault_is_told_with_slot_and_group(self, design, tmp_path):
        """A wrong sum where a second image is added shows in groups of two or four, and nowhere else."""
        text = design.verilog()
        place = text.index("module \\bittrue_top.pipeline.bundle ")
        body = text[place : text.index("endmodule", place)]
        line = next(line for line in body.splitlines() if "first_then" in line and "?" in line)
        broken = line.replace("?", "^ 1'h1 ?", 1) if "^ 1'h1" not in line else line
        build_text = text.replace(line, broken, 1)
        from bittrue.flow.verify.backends import Build

        build = Build(design.program, design=design, verilog=build_text)
        found = verify(build, [images(design.program, 16)], {"compiled": None}, Stalls(0.2, 0.2, 2), tmp_path)
        told = [row["divergence"] for row in found.rows if row["divergence"]]
        assert told
        assert told[0]["operation"] == "bundle"
        assert "together)" in told[0]["text"]
        assert json.dumps(told[0])

    def test_a_set_in_the_middle_of_a_group_waits_for_the_next(self, design):
        x = images(design.program, 4 + 1 + 1 + 2)
        sizes = [4, 1, 1, 2]
        words = [design.pack_set({"images": np.array(n)}) for n in (1, 2)]
        run = CompiledRtl.of(design).run(x, writes=[Write(words[0], 2, 4), Write(words[1], 6, 6)])
        run.check()
        np.testing.assert_array_equal(run.outputs, design.program.reference(x, held=changes(sizes)))
