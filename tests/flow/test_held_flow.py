"""Weights written at run time through the flow: verification, the recipe's key, the commands' option."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow import stages
from bittrue.flow.cli import main as cli
from bittrue.flow.engine.recipe import load
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.synth import designs
from bittrue.flow.verify import verify
from bittrue.flow.verify.backends import BACKENDS, Build, Stalls
from bittrue.flow.verify.exchanges import Exchanges
from bittrue.hls import project
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.sim.errors import BittrueError
from bittrue.sim.written import written
from tests.helpers.flows import batch, program
from tests.helpers.lengths import long_but
from tests.helpers.sets import codes, network

FAST = {"reference": 20, "compiled": 20, "gxx": 20}


def run(design, tmp_path, counts=FAST):
    return verify.verify(design, [batch(design.program, 20)], counts, Stalls(0.3, 0.3, 5), tmp_path)


@pytest.mark.parametrize(
    ("frames", "first", "second"), [(1, 0, 0), (3, 1, 2), (4, 1, 2), (5, 1, 3), (20, 6, 13), (1000, 333, 666)]
)
def test_sets_change_after_each_third(frames, first, second):
    given = Exchanges(written(program()), 0)
    assert [at for at, _ in given.held(frames)] == sorted({first, second})
    assert given.held(frames)[-1][1] is given.contents[2]


class TestVerify:
    def test_sets_are_written_in_every_back_end(self, tmp_path):
        counts = FAST | {name: 5 for name in ("icarus", "verilator") if not BACKENDS[name].missing()}
        found = run(Build(written(program())), tmp_path, counts)
        assert found.problems == []
        assert found.golden["mismatches"] == 0
        stalled = [row for row in found.rows if row["stalls"]]
        assert len(stalled) == len(counts) - 2
        assert all(row["sets"] == 3 for row in stalled)
        plain = next(row for row in found.rows if row["simulator"] == "compiled" and not row["stalls"])
        assert (plain["interval"], plain["sets"]) == (plain["estimated_interval"], 1)

    def test_spikes_are_counted_with_the_sets_that_made_them(self, tmp_path):
        """Events of a layer behind written weights, in the run in which these change; spikes drive the cycles."""
        p = written(network(1, kinds=["linear", "spiking"]))
        x = codes(p, 20, np.random.default_rng(0))
        build = Build(p, interval=1000, options={"architecture": "events"})
        found = verify.verify(build, x, FAST, Stalls(0.3, 0.3, 5), tmp_path)
        assert found.problems == []
        counted = [row["events"]["spiking1_bits"] for row in found.rows if row.get("events")]
        plain, stalled = (seen["golden"] for seen in counted)
        assert plain != stalled
        assert found.rows[1]["sets"] == 3

    @pytest.mark.long
    def test_a_set_over_registers(self, tmp_path, monkeypatch):
        """One set half way, over AXI4-Lite, in every simulator; with two of its words swapped it is found."""
        counts = {"compiled": 8} | {name: 4 for name in ("icarus", "verilator") if not BACKENDS[name].missing()}
        design = Build(written(program(), ["embed"]), options={"weight_bus": "lite"})
        found = run(design, tmp_path / "right", counts)
        assert found.problems == []
        assert all(row["sets"] == 2 for row in found.rows if row["stalls"])
        right = PipelineDesign.write_set

        def wrong(self, values, frame, sets):
            first, second, *others = right(self, values, frame, sets)
            return (replace(first, value=second.value), replace(second, value=first.value), *others)

        monkeypatch.setattr(PipelineDesign, "write_set", wrong)
        found = run(design, tmp_path / "wrong", {"compiled": 8})
        assert re.search(r"compiled with stalls: \d+ of \d+ values differ", " ".join(found.problems))
        assert re.search(r"first divergence: embed \(linear\), image 4 with set 1 of its", " ".join(found.problems))

    @pytest.mark.long
    def test_two_words_in_the_wrong_order_are_found(self, tmp_path, monkeypatch):
        right = Exchanges.writes

        def wrong(self, plan, frames):
            writes = right(self, plan, frames)
            for w in writes:
                w.words[:2] = w.words[1::-1]
            return writes

        monkeypatch.setattr(Exchanges, "writes", wrong)
        found = run(Build(written(program(), ["embed"])), tmp_path, {"compiled": 20})
        assert re.search(r"compiled with stalls: \d+ of \d+ values differ", " ".join(found.problems))
        assert re.search(r"first divergence: embed \(linear\), image \d with set 1 of its", " ".join(found.problems))

    @pytest.mark.long
    def test_a_fault_of_one_bank_is_found_at_its_operation(self, tmp_path, monkeypatch):
        """Rows of a matrix change places when they are written to the first bank, so that only the second set is wrong:
        the operation, that set, the codes, the cycle, a waveform."""
        build, address = Table.build, Table.address
        written_now = []

        def planted(self, *arguments, **options):
            written_now.append(self.held.name == "mix.weight")
            try:
                return build(self, *arguments, **options)
            finally:
                written_now.pop()

        def elsewhere(self, row, at):
            return address(self, row ^ ~at if any(written_now) else row, at)

        p = written(program(), ["embed", "mix"])
        right = PipelineDesign(plan(p))
        with monkeypatch.context() as patch:
            patch.setattr(Table, "build", planted)
            patch.setattr(Table, "address", elsewhere)
            text = PipelineDesign(plan(p)).verilog()
        found = run(Build(p, design=right, verilog=text), tmp_path, {"compiled": 20})
        plain, stalled = found.rows
        assert (plain["mismatches"], plain["divergence"]) == (0, None)
        place = stalled["divergence"]
        assert (place["operation"], place["held"]) == ("mix", 2)
        frame = place["frame"]
        golden = p.trace(batch(p, 20), held=Exchanges(p, 5).contents[2]).tensors["mix"]
        assert place["expected"] == golden[(frame, *place["index"])] != place["got"]
        assert 1 < frame <= 13, "the frame that waits for the second set"
        assert place["cycle"] > 0
        assert (tmp_path / "divergence.vcd").exists()
        assert f"mix (linear), image {frame} with set 2 of its weights" in found.problems[0]

    @pytest.mark.long
    def test_a_stage_that_changes_late_is_found(self, tmp_path, monkeypatch):
        """One frame too late, at whatever exchange: it is that operation, and the frame with which the set came."""
        follow = Exchange.follow
        made: list[Exchange] = []

        def late(self, *arguments):
            made.append(self)
            turn = self.turn
            if len(made) == 4:  # after those of embed, mix and residual
                self.turn = (turn + 1)[: self.bits]
            banks = follow(self, *arguments)
            self.turn = turn
            return banks

        p = written(program(), ["embed", "mix", "residual", "classify"])
        right = PipelineDesign(plan(p))
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "follow", late)
            text = PipelineDesign(plan(p)).verilog()
        assert len(made) == 4
        found = run(Build(p, design=right, verilog=text), tmp_path, {"compiled": 20})
        place = found.rows[1]["divergence"]
        assert (place["operation"], place["held"]) == ("classify", 1)
        frame, x = place["frame"], batch(p, 20)
        old, new, _ = Exchanges(p, 5).contents
        mixed = new | {name: values for name, values in old.items() if name.startswith("classify")}
        seen, expected = (p(x, held=values)[(frame, *place["index"])] for values in (mixed, new))
        assert (place["expected"], place["got"]) == (expected, seen)

    def test_a_kernel_that_holds_on_to_one_array_is_found(self, tmp_path):
        p = written(program(), ["embed", "mix"])
        folder = project.write(p, tmp_path / "kernel")
        text = (folder / "host" / "batch.cpp").read_text()
        (fill,) = {line for line in text.splitlines() if "fill(" in line and "held_mix_weight" in line}
        once = f"    {{ static bool done = false; if (!done) {fill.strip()} done = true; }}"
        (folder / "host" / "batch.cpp").write_text(text.replace(fill, once))
        found = run(Build(p, kernel=folder), tmp_path / "out", {"gxx": 20})
        place = found.rows[0]["divergence"]
        assert (place["operation"], place["frame"], place["held"]) == ("mix", 6, 1)
        assert "mix (linear), image 6 with set 1 of its weights" in found.problems[0]

    def test_kernels_that_hold_on_to_the_first_set_are_found(self, tmp_path, monkeypatch):
        from bittrue.hls.host import HostKernel

        runs = HostKernel.run
        monkeypatch.setattr(HostKernel, "run", lambda self, *x, first=0, held=None: runs(self, *x, first=first))  # noqa: ARG005
        found = run(Build(written(program(), ["embed"])), tmp_path, {"gxx": 20})
        assert re.search(r"gxx: \d+ of \d+ values differ", " ".join(found.problems))


class TestRecipe:
    @pytest.mark.parametrize(
        ("bus", "port"),
        long_but([("stream", "s_axis_weights_tdata"), ("lite", "s_axi_wdata")], ("lite", "s_axi_wdata")),
    )
    def test_the_keys(self, bus, port, tmp_path):
        """`rtl.weights` reaches plan, Verilog, HLS project and verification, and the design is found again."""
        p = program()
        lowered = tmp_path / "lower"
        p.save(lowered / "program.npz")
        np.save(lowered / "inputs.npy", batch(p, 12))
        np.save(lowered / "labels.npy", np.zeros(12, np.int64))
        overrides = [
            f"rtl.weight_bus={bus}",
            "rtl.weights=[embed,classify]",
            "rtl.interval=64",
            "rtl.block_luts=41",
            "verify.compiled=12",
            "verify.reference=12",
        ]
        recipe = load("lerp-psa-digits", [*overrides, "verify.gxx=12", "verify.icarus=0", "verify.verilator=0"])
        upstream, results = {"lower": lowered}, {}
        for name in ("rtl", "hls", "verify"):
            work = Workspace(tmp_path / name, upstream, results, {}, tmp_path / "scratch", lambda *_: None)
            work.folder.mkdir()
            results[name] = getattr(stages, name)(recipe, work)
            upstream[name] = work.folder
        assert port in (tmp_path / "rtl" / "instance.v").read_text()
        assert "held_embed_weight" in (tmp_path / "hls" / "top.hpp").read_text()
        assert results["verify"]["problems"] == []
        assert max(row.get("sets", 0) for row in results["verify"]["rows"]) == {"stream": 3, "lite": 2}[bus]
        design, _ = stages.read_design(written(p, ["embed", "classify"]), upstream["rtl"])
        assert {folded.block_luts for folded in design.plan.folding.values()} == {41}
        assert set(results["rtl"]["written"]) == {name for name in written(p, ["embed", "classify"]).written}

    def test_by_default_nothing_is_written(self):
        recipe = load("lerp-psa-digits")
        p = program()
        assert recipe.rtl.weights == "constant"
        assert stages.built(recipe, p) is p

    def test_an_unknown_operation(self):
        recipe = load("lerp-psa-digits", ["rtl.weights=[conv]"])
        with pytest.raises(BittrueError, match="weights of 'conv' cannot be written; those of embed"):
            stages.built(recipe, program())


class TestCommands:
    @pytest.fixture
    def bittrue(self, capsys):
        def command(*words):
            with pytest.raises(SystemExit) as stop:
                cli.main([str(word) for word in words])
            out, err = capsys.readouterr()
            return int(stop.value.code or 0), out, err

        return command

    @pytest.fixture
    def saved(self, tmp_path):
        return program().save(tmp_path / "program.npz")

    def test_rtl_and_hls(self, bittrue, saved, tmp_path):
        status, out, _ = bittrue("rtl", saved, "--out", tmp_path / "top.v", "--weights", "written", "--json")
        assert status == 0
        assert "s_axis_weights_tdata" in (tmp_path / "top.v").read_text()
        assert set(json.loads(out)["written"]) == set(written(program()).written)
        lite = ("--weights", "written", "--weight-bus", "lite")
        assert bittrue("rtl", saved, "--out", tmp_path / "lite.v", *lite)[0] == 0
        assert "s_axi_wdata" in (tmp_path / "lite.v").read_text()
        status, _, _ = bittrue("hls", saved, "--out", tmp_path / "hls", "--weights", "embed, mix")
        assert status == 0
        assert "held_mix_weight" in (tmp_path / "hls" / "top.hpp").read_text()
        assert "held_classify_weight" not in (tmp_path / "hls" / "top.hpp").read_text()
        status, _, err = bittrue("rtl", saved, "--out", tmp_path / "no.v", "--weights", "curve")
        assert status != 0
        assert "weights of 'curve' cannot be written" in " ".join(err.split())
        assert not (tmp_path / "no.v").exists()

    @pytest.mark.parametrize("bus", ["stream", "lite"])
    def test_verify(self, bus, bittrue, saved, tmp_path):
        words = ["--backends", "compiled", "--images", 12, "--out", tmp_path / "v", "--weights", "written", "--json"]
        status, out, _ = bittrue("verify", saved, *words, "--weight-bus", bus)
        assert status == 0
        assert max(row["sets"] for row in json.loads(out)["rows"]) == {"stream": 3, "lite": 2}[bus]

    def test_synth(self, bittrue, saved, tmp_path, monkeypatch):
        """The design that is synthesised is the one with written weights."""
        seen = []
        monkeypatch.setattr(designs, "synthesize_design", lambda design, *rest: seen.append((design, rest[-1])) or {})
        words = ["--target", "ecp5-85k", "--interval", 64, "--out", tmp_path / "s", "--json"]
        status, _, _ = bittrue("synth", saved, *words, "--weights", "written")
        assert status == 0
        ((design, text),) = seen
        assert design.weights is not None
        assert "s_axis_weights_tdata" in text
