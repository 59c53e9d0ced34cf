"""Verification of designs whose images go in groups: n changes all the time, faults are told with slot and group."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from bittrue.flow.cli.console import verification
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.sets import Write
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.flow.verify.exchanges import Exchanges, OneSize, Sizes, together, whole
from bittrue.flow.verify.verify import verify
from bittrue.hls import project
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
        drawn = [tuple(Exchanges.of(program, seed).sizes(sets.fewest)) for seed in range(20)]
        assert sets.fewest == 7
        assert set(drawn) == {(4, 1, 2), (4, 2, 1)}  # each once, and at random
        assert len({tuple(Exchanges.of(program, seed).sizes(101)) for seed in range(20)}) == 20
        assert {b for a, b in pairwise(sets.sizes(101)) if a == 1} == {1, 2, 4}
        assert OneSize(program, 2).sizes(6) == [2, 2, 2]
        assert [whole(program, n) for n in (1, 4, 5)] == [4, 4, 8]
        assert whole(program, 5, 2) == 6

    def test_frames_that_run_once_more_meet_the_sizes_that_they_met(self):
        """From wherever such a run may begin to the end of the group: each size is written once the group before it
        has begun, as words of a stream or over a bus."""
        program = grouped(1, slots=4)
        sets, frames = Exchanges.of(program, 3), 24
        run = SimpleNamespace(results=(np.zeros(frames),))
        stream = SimpleNamespace(weights="a stream", pack_set=lambda values: values["images"])
        bus = SimpleNamespace(weights=None, write_set=lambda values, frame, number: [(values["images"], frame, number)])
        groups = list(walk(program.grouping, frames, 0, sets.held(frames)))
        for frame in range(frames):
            stop = sets.stop(frame, run)
            assert frame < stop <= frame + 4
            for start in sets.starts(frame, run):
                mine = [(group.start - start, group.size) for group in groups if start <= group.start < stop]
                assert mine[0][0] == 0
                writes = sets.replay(stream, run, start, stop - 1)["writes"]
                held = [(write.by, {"images": write.words}) for write in writes]
                again = list(walk(program.grouping, stop - start, 0, held))
                assert [(group.start, group.size) for group in again] == mine
                begun = [max((at for at, _ in mine if at < write.by), default=-1) + 1 for write in writes]
                assert [write.after for write in writes] == begun
                asked = sets.replay(bus, run, start, stop - 1)
                assert asked.get("accesses", ()) == tuple((w.words, w.by, k + 1) for k, w in enumerate(writes))


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

    @pytest.mark.needs("iverilog", "g++")
    def test_short_runs_meet_every_size_too(self, design, tmp_path):
        """In cocotb with stalls, in the kernels and in the reference: one stream in which n changes."""
        x = [images(design.program, 3)]
        counts = {"compiled": 2, "icarus": 1, "gxx": 2, "reference": 1}
        found = verify(design, x, counts, Stalls(0.3, 0.4, 5), tmp_path)
        assert found.problems == []
        rows = {(row["simulator"], row["stalls"]): row for row in found.rows}
        for key in (("compiled", True), ("icarus", True), ("gxx", False)):
            row = rows[key]
            assert (row["together"], row["changes"], row["seed"]) == ([1, 2, 4], 2, 5), key
            assert together(row) == "1, 2, 4: 2 changes, seed 5"
        row = rows["icarus", True]  # without stalls one group alone: what is between its images is no interval
        assert (row["interval"], row["estimated_interval"]) == (None, None)
        assert row["latency"] == row["estimated_latency"] is not None
        assert rows["icarus", True]["images"] == rows["compiled", True]["images"] == 7
        assert (found.golden["together"], found.golden["changes"]) == ([1, 2, 4], 2)
        assert together(next(row for row in found.rows if row["together"] == [2])) == "2"
        drawn = verification(found.rows)
        assert [column.header for column in drawn.columns][1] == "at a time"
        assert together({"images": 3}) == ""

    @pytest.mark.needs("g++")
    def test_kernels_that_take_one_size_for_another_are_seen(self, design, tmp_path):
        """A run of the size at first is right all the same."""
        folder = project.write(design.program, tmp_path / "hls")
        text, old = (folder / "contract.hpp").read_text(), "told != 0 && SLOTS % int(told) == 0 ? told : T(INITIAL)"
        (folder / "contract.hpp").write_text(text.replace(old, "T(INITIAL)"))
        build = Build(design.program, design=design, kernel=folder)
        x = [images(design.program, 8)]
        np.testing.assert_array_equal(build.host.predict(*x), design.program(*x))
        found = verify(build, x, {"gxx": None}, Stalls(), tmp_path / "out")
        (row,) = found.rows
        assert row["mismatches"] or row["errors"]
        assert found.problems

    @pytest.mark.long
    def test_a_fault_is_told_with_slot_and_group(self, design, tmp_path):
        """A wrong sum where a second image is added shows in groups of two or four, and nowhere else."""
        text = design.verilog()
        place = text.index("module \\bittrue_top.pipeline.bundle ")
        body = text[place : text.index("endmodule", place)]
        line = next(line for line in body.splitlines() if "first_then" in line and "?" in line)
        broken = line.replace("?", "^ 1'h1 ?", 1) if "^ 1'h1" not in line else line
        build_text = text.replace(line, broken, 1)
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
