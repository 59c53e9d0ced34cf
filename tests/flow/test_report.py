"""The report from a made-up flow: its keys, its page without scripts or links, its pictures, its verdict."""

import re
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from bittrue.flow.engine import machine
from bittrue.flow.report import figures, report
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program
from bittrue.sim.reading import sealed
from tests.helpers.flows import batch, program
from tests.helpers.reports import well_formed


def test_keys_that_others_rely_on(content):
    assert content["recipe"] == "lerp-psa-digits"
    assert content["dataset"] == "digits"
    assert content["seconds"] == {"train": 1.5, "verify": 20.25}
    assert content["program"] == {
        "sha256": program().sha256,
        "operations": 9,
        "macs": program().macs,
        "weights": program().weights,
    }
    accuracies = {"float": 0.91, "converted": 0.85, "quantized": 0.9, "golden": 0.9, "rtl": 0.9, "hls": 0.9}
    assert content["accuracy"] == accuracies
    assert content["confidence"] == pytest.approx([0.69897, 0.97213], abs=1e-5)  # 18 of 20, by scipy
    for key in "backend simulator images values mismatches stalls interval estimated_interval latency".split():
        assert all(key in entry for entry in content["verify"])
    assert content["saturation"] == program().trace(batch(program(), 20)).saturation
    for key in ("target", "lut", "ff", "dsp", "bram", "fmax_mhz", "estimated"):
        assert all(key in entry for entry in content["synth"])


def test_functions_hold_the_integer_tables(content):
    (function,) = content["functions"]
    np.testing.assert_array_equal(function["knots"], program()["curve"].knots)
    assert (function["operation"], function["low"], function["high"]) == ("curve", -128, 127)


def test_page_is_self_contained_and_well_formed(content):
    text = report.render(content)
    well_formed(text)
    assert "&lt;script&gt;alert(1)" in text
    assert "url(" not in text
    for picture in re.findall(r"<svg.*?</svg>", text, re.S):
        ET.fromstring(picture)


def test_page_shows_what_it_should(content):
    text = report.render(content)
    assert "equal, bit for bit" in text
    for words in (
        "90.00 %",
        "112.5 MHz",
        "Verilator is not installed",
        "placed out of context",
        "(+10 %)",
        "curve",
        "skipped",
    ):
        assert words in text, words
    assert program().sha256 in text
    assert all(f"{value:5d}" in text for value in program()["curve"].knots[0])
    assert all(node.name in text for node in program().nodes)


def test_page_tells_what_writing_weights_costs(content):
    """Where weights are written, and only there; a design that knows nothing of it has a page, too."""
    described = PipelineDesign(plan(program(), weights="written")).describe()
    words = sum(row["words"] for row in described["written"].values())
    cost = described["written_costs"]
    assert min(cost["lut"], cost["ff"]) > 0
    page = " ".join(report.render(content | {"pipeline": described}).split())
    assert f"{len(described['written'])} held inputs, {words:,} words a set" in page
    assert f"are {cost['lut']:,} LUT, {cost['ff']:,} FF and {cost['bram']:,} block RAM" in page
    assert "held inputs" not in report.render(content)
    without = {k: v for k, v in content["pipeline"].items() if not k.startswith("written")}
    assert "held inputs" not in report.render(content | {"pipeline": without})


def test_page_of_a_mismatch_says_so_first(content):
    divergence = {"text": "mix (linear), image 3, [0, 1]: expected 5, got 6 in cycle 77"}
    content["verify"][0] |= {"mismatches": 2, "divergence": divergence}
    text = report.render(content)
    assert "equal, bit for bit" not in text
    assert text.index("not equal") < text.index("got 6 in cycle 77") < text.index("Accuracy along the chain")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["verify"][0].update(mismatches=1), "rtl/compiled: 1 of 60 values differ"),
        (lambda c: c["verify"][2].update(errors=["m_axis: deadlock"]), "rtl/icarus with stalls: m_axis: deadlock"),
        (lambda c: c["verify"][0].update(interval=25), "interval is 25 cycles, the design promised 24"),
        (lambda c: c["verify"][0].update(latency=None), "latency is None cycles, the design promised 132"),
        (lambda c: c["golden"].update(mismatches=3), "golden: 3 of 12 values differ from the reference"),
        (lambda c: c.update(mismatches_with_network=4), "golden: 4 outputs differ from the quantised network"),
    ],
)
def test_each_problem_is_told(change, sentence, content):
    assert report.problems(content) == []
    change(content)
    assert any(sentence in problem for problem in report.problems(content))


def test_what_is_wrong_first_on_the_way_to_hardware_is_told_first(content):
    content["verify"][0].update(mismatches=1)
    content["golden"].update(mismatches=3)
    content.update(mismatches_with_network=4)
    network, golden, hardware = report.problems(content)
    assert network.startswith("golden: 4 outputs differ from the quantised network")
    assert golden.startswith("golden: 3 of 12 values differ from the reference")
    assert hardware.startswith("rtl/compiled: 1 of 60 values differ")


def test_the_clock_is_of_a_pipeline_that_was_placed(content):
    """What was only counted, and what is another design, has none that could head the page."""
    known = report.headline(content)
    assert [tile[0] for tile in known if tile[0] in ("clock", "throughput")] == ["clock", "throughput"]
    placed = next(row for row in content["synth"] if row["fmax_mhz"])
    others = [placed | {"fmax_mhz": None, "target": "xilinx-7"}, placed | {"fmax_mhz": 999.0, "design": "controller"}]
    assert report.headline(content | {"synth": [*others, *content["synth"]]}) == known
    assert [tile[0] for tile in report.headline(content | {"synth": others})] == [tile[0] for tile in known[:-2]]


def test_accuracy_before_and_after_integer_training_is_shown(content):
    """On the page and on the terminal, with the epoch that was kept; once where nothing was trained in integers."""
    sentence = "float training: epoch 2 of 2, the best on validation images; integer training: epoch 1 of 1, the best"

    def terminal():
        console = Console(record=True, width=250)
        report.show(content, console)
        return " ".join(console.export_text().split())

    for shown in (report.render(content), terminal()):
        assert "85.00 %" in shown
        assert "trained" in shown
        assert sentence in shown
        assert "20 test images; 95 % interval 69.90 to 97.21 %" in shown
    content["training"]["quantize"]["kept"] = 0
    assert "integer training: as before, since none of 1 epochs did better on validation images" in terminal()
    content["training"]["quantize"]["history"] = []
    content["accuracy"]["converted"] = None
    for shown in (report.render(content), terminal()):
        assert "85.00 %" not in shown
        assert "trained" not in shown.replace("trained and quantised", "")
        assert "integer training" not in shown


def test_the_epoch_that_was_kept_has_a_dot():
    history = [{"loss": 2.0, "accuracy": 0.5}, {"loss": 1.0, "accuracy": 0.7}, {"loss": 0.5, "accuracy": 0.6}]
    picture = figures.curves({"t": history}, {"t": 2})
    lines = re.findall(r'<polyline points="([^"]*)" fill="none" stroke="var\(--accent', picture)
    dots = re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"', picture)
    assert dots == [tuple(points.split()[1].split(",")) for points in lines]
    assert picture.count("3 epochs; epoch 2 kept") == 2
    none = figures.curves({"t": history}, {"t": 0})
    assert "<circle" not in none
    assert "3 epochs; none kept" in none
    assert "<circle" not in figures.curves({"t": history})


def test_files_are_written_and_read_back(content, tmp_path):
    report.write(content, tmp_path)
    assert report.read(tmp_path / "report.json") == content
    page = (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    assert report.write_html(report.read(tmp_path / "report.json"), tmp_path).read_text() == page
    report.publish(tmp_path, tmp_path / "copy")
    assert (tmp_path / "copy" / "report.html").read_text() == page


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"{", "not JSON: .*; run `bittrue flow` again"),
        (b"{}", "does not match its seal"),
        (b"[]", "does not match its seal"),
        (sealed({"recipe": "a"}).replace(b'"a"', b'"b"'), "does not match its seal"),
        (sealed({}), "it has no key 'recipe'"),
    ],
)
def test_bad_report_is_refused(text, sentence, tmp_path):
    (tmp_path / "report.json").write_bytes(text)
    with pytest.raises(BittrueError, match=sentence):
        report.read(tmp_path / "report.json")


def test_absent_report_says_what_to_do(tmp_path):
    with pytest.raises(BittrueError, match="run `bittrue flow` into this folder first"):
        report.read(tmp_path / "report.json")


def test_terminal_table(content):
    console = Console(record=True, width=160)
    report.show(content, console)
    text = console.export_text()
    for words in ("91.00 %", "rtl icarus + stalls", "1,000 (~1,100)", "112.5 MHz", "skipped"):
        assert words in text, words


def test_the_last_line_is_one_in_a_narrow_terminal(content):
    """To be copied as it is: the rest are tables, which have lines of their own."""
    console = Console(record=True, width=60)
    report.show(content, console)
    last = console.export_text().splitlines()[-1]
    program, total = content["program"], sum(content["seconds"].values())
    said = f"{program['operations']} operations, {program['macs']:,} MACs, {program['weights']:,} weights, program "
    assert last == f"{said}{program['sha256'][:12]}; {total:,.0f} s of work"


class TestFigures:
    def test_pipeline_draws_every_stage_and_every_branch(self):
        drawn = plan(program())
        rows = drawn.stages()
        picture = figures.pipeline(rows, drawn.estimated_interval)
        ET.fromstring(picture)
        assert all(f">{stage['name']}<" in picture for stage in rows)
        place = {stage["name"]: k for k, stage in enumerate(rows)}
        edges = [(place[source], k) for k, stage in enumerate(rows) for source in stage["reads"]]
        assert picture.count("<polyline") == len(edges)
        depth = next(iter(drawn.fifos.values()))
        assert f"{depth} deep" in picture

    def test_a_curve_goes_through_its_knots(self):
        picture = figures.functions([[-128, 127, 0]], -128, 127)
        line = re.findall(r'points="([^"]*)"', picture)[-1]
        assert line == "0.0,52.0 26.0,0.0 52.0,25.9"

    def test_only_so_many_channels_are_drawn(self):
        picture = figures.functions([[0, 1]] * 70, -128, 127, most=64)
        assert 'aria-label="64 learned functions"' in picture

    def test_accuracy_that_was_not_measured(self):
        picture = figures.accuracy_chain({"float": 0.5, "quantized": 0.5, "golden": 0.5, "rtl": None, "hls": 0.25})
        assert picture.count("not run") == 1
        assert picture.count(">=<") == 2

    def test_accuracy_of_fewer_images_is_not_compared(self, content):
        content["verify"] = [row | {"images": 7} if row["backend"] == "hls" else row for row in content["verify"]]
        assert report.fewer(content) == {"hls": 7}
        scores = {"float": 0.5, "quantized": 0.5, "golden": 0.5, "rtl": 0.5, "hls": 1.0}
        picture = figures.accuracy_chain(scores, report.fewer(content))
        assert "the first 7 images" in picture
        assert "+50.00" not in picture
        assert "+50.00" in figures.accuracy_chain(scores)
        assert picture.count(">=<") == 3
        assert "the first 7 images" in report.render(content)

    def test_more_than_all_is_red(self):
        assert "--bad" in figures.bar(1.2)
        assert "--bad" not in figures.bar(1.0)


def test_program_meta_is_not_needed(content):
    """A program that was imported has no scales; its functions are shown all the same."""
    bare = Program(program().inputs, program().nodes, program().results)
    assert report.functions(bare)[0]["x_scale"] is None
    assert content["functions"][0]["x_scale"] is None


def test_steps_of_a_table_are_said_unless_each_channel_has_its_own(content):
    (first, *_), alone = content["functions"], "every channel has steps of its own"
    content["functions"] = [first | {"x_scale": 0.0037, "y_scale": 0.5}]
    assert "one input step is 0.0037, one output step 0.5" in (page := report.render(content))
    assert alone not in page
    for scales in ({"x_scale": [0.1, 0.2], "y_scale": 0.5}, {"x_scale": 0.5, "y_scale": [0.1, 0.2]}):
        content["functions"] = [first | scales]
        assert alone in (page := report.render(content))
        assert "one input step" not in page


def test_the_commit_it_was_made_of(tmp_path):
    """Of the checkout itself; sources that were changed are marked, documents do not count."""
    folder = tmp_path / "project"
    (folder / "inner").mkdir(parents=True)
    assert report.commit(folder) is None

    def git(*words: str) -> str:
        named = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *named, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    for name in ("a.py", "inner/b.hpp", "README.md"):
        (folder / name).write_text("old")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "--short=8", "HEAD").strip()
    assert report.commit(folder) == commit
    assert report.commit(folder / "inner") is None
    (folder / "README.md").write_text("new")
    assert report.commit(folder) == commit
    (folder / "inner" / "b.hpp").write_text("new")
    assert report.commit(folder) == f"{commit}+"


def test_where_it_was_made(content):
    assert content["made"].keys() == {"date", "machine", "commit"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", content["made"]["date"])
    assert content["made"]["machine"] == machine.described()
