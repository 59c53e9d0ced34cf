"""README's tables of results: they are what is stored, which is of reports that were verified and equal."""

import json
import re
from functools import cache

import pytest

from bench.results import document, stored, tables
from bench.results.cells import Bench, Flow, span
from bench.results.collect import collect
from bench.results.command import main
from bittrue.flow.engine import durations
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.report import report
from bittrue.sim.errors import BittrueError
from bittrue.sim.reading import sealed
from tests.helpers.lengths import long_but

README = document.README.read_text()
#: Each is made once here: what is stored stays as it is.
TABLES = {name: cache(make) for name, make in tables.TABLES.items()}


@pytest.fixture
def flow(content, tmp_path):
    """A folder with a report as a flow leaves it; `changes` are keys of the report."""

    def write(seed: int = 1, placer: int = 1, recipe: dict | None = None, name: str | None = None, **changes):
        made = json.loads(json.dumps(content)) | {"skipped": []} | changes
        values = {"train.seed": seed, "qat.seed": seed, **(recipe or {})}
        given = recipes.load("lerp-psa-digits", [f"{key}={value}" for key, value in values.items()])
        made["recipe_yaml"] = given.to_yaml()
        for row in made["synth"]:
            row["seed"] = placer
        folder = tmp_path / (name or f"seed-{seed}-{placer}")
        folder.mkdir()
        report.write(made, folder)
        return folder

    return write


@pytest.fixture
def into(tmp_path):
    """Where `collect` writes in these tests."""
    (tmp_path / "results").mkdir()
    return {"into": tmp_path / "results", "times": tmp_path / "durations.json"}


class TestReadme:
    def test_has_the_tables_of_the_stored_results(self):
        assert document.difference(README, TABLES, stored.FOLDER) is None
        assert main(["check"]) == 0

    @pytest.mark.parametrize("name", long_but(TABLES, *[*TABLES][::4]))
    def test_a_figure_changed_by_hand_is_seen(self, name):
        (place,) = (found for found in document.PLACE.finditer(README) if found["name"] == name)
        digit = re.compile(r"(\d)").search(README, place.start("text"))
        other = str((int(digit[1]) + 1) % 10)
        edited = README[: digit.start(1)] + other + README[digit.end(1) :]
        told = document.difference(edited, TABLES, stored.FOLDER)
        assert told.startswith(f"README: the table {name!r} is not what the stored results give")
        assert "python -m bench results write" in told
        assert document.drawn(edited, TABLES, stored.FOLDER) == README

    def test_a_line_too_many_or_too_few_is_seen(self):
        for edited in (README.replace("|\n\n", "|\n| one | more |\n\n", 1), README.replace("|---|", "", 1)):
            assert edited != README
            assert "is not what the stored results give" in document.difference(edited, TABLES, stored.FOLDER)

    def test_check_says_it_with_status_1(self, tmp_path, monkeypatch, capsys):
        path = tmp_path / "README.md"
        path.write_text(README.replace(" % ±", " % +-", 1))
        monkeypatch.setattr("bench.results.command.README", path)
        assert main(["check"]) == 1
        assert "error: README: the table" in capsys.readouterr().err
        assert main(["write"]) == 0
        assert path.read_text() == README

    def test_places_are_complete(self):
        begin = "<!-- results: layer -->"
        for text, words in (
            (README.replace(begin, ""), "begins or ends alone"),
            (README.replace(begin, begin.replace("layer", "layers")), "no table of results is named 'layers'"),
            (README + f"\n{begin}\n<!-- /results -->\n", "has two places"),
            (document.PLACE.sub("", README, 1), "there is no place for the table"),
        ):
            with pytest.raises(BittrueError, match=words):
                document.drawn(text, TABLES, stored.FOLDER)


class TestStored:
    def test_every_file_is_shown(self):
        """No stored file is left over: each is drawn by some table, which fails without it."""
        for path in stored.FOLDER.glob("*.json"):
            content = json.loads(path.read_text())
            assert stored.load(path.stem, content["kind"]) is not None
            source = (stored.FOLDER / "tables.py").read_text()
            assert f'"{path.stem}"' in source, path.name

    def test_a_figure_changed_by_hand_is_refused(self, tmp_path):
        text = (stored.FOLDER / "layer.json").read_text()
        digit = re.search(r'"speed-up": [\d.]*([1-8])', text)
        (tmp_path / "layer.json").write_text(text[: digit.start(1)] + "9" + text[digit.end(1) :])
        with pytest.raises(BittrueError, match="layer.json: it does not match its seal.*python -m bench layer --store"):
            Bench("layer", tmp_path).content  # noqa: B018

    def test_other_kinds_and_versions_are_refused(self, tmp_path):
        good = {"kind": "bench", "bench": "layer", "runs": [], "note": ""}
        for content, words in (
            (good | {"version": 2}, "it is of version 2, not 1"),
            (good | {"version": 1, "kind": "pictures"}, "there is no kind 'pictures'"),
            ({"kind": "bench", "version": 1, "bench": "layer"}, "it has no key 'note'"),
            ({"kind": "table", "version": 1, "columns": [], "rows": [], "note": ""}, "it holds table, not bench"),
        ):
            (tmp_path / "layer.json").write_bytes(sealed(content))
            with pytest.raises(BittrueError, match=words):
                stored.load("layer", "bench", tmp_path)
        with pytest.raises(BittrueError, match="spikes.json: No such file"):
            stored.load("spikes", "bench", tmp_path)
        with pytest.raises(BittrueError, match="it has no key 'runs'"):
            stored.save("layer", {"kind": "bench", "bench": "layer", "note": ""}, tmp_path)

    def test_a_row_that_is_not_there(self, tmp_path):
        stored.save("layer", {"kind": "bench", "bench": "layer", "note": "", "runs": [{"rows": []}]}, tmp_path)
        with pytest.raises(BittrueError, match="no row is named 'bittrue, vnni'.*--store"):
            Bench("layer", tmp_path).gain("bittrue, vnni")


class TestCollect:
    def test_seeds_and_placements(self, flow, into, content):
        """Mean and deviation by hand: of 0.90 and 0.94 they are 0.92 and 0.02 sqrt(2)."""
        accuracy = content["accuracy"] | {"golden": 0.94, "rtl": 0.94, "hls": 0.94, "quantized": 0.94}
        synth = json.loads(json.dumps(content["synth"]))
        synth[0] |= {"fmax_mhz": 120.25, "lut": 990}
        folders = [flow(1), flow(1, placer=2, synth=synth), flow(2, accuracy=accuracy)]
        collect(folders, **into)
        kept = Flow("lerp-psa-digits", folder=into["into"])
        assert [run["seed"] for run in kept.runs] == [1, 2]
        assert kept.share("golden") == "92.00 % ± 2.83"
        assert kept.share("float") == "91.00 % ± 0.00"
        assert kept.checked("compiled") == "2 x 20, 0"
        assert kept.checked("icarus", stalls=True) == "2 x 20, 0"
        assert kept.checked("verilator") == "not run"
        assert kept.clock("ecp5-85k") == "112.5 to 120.2 MHz in 3 placements"
        assert kept.resource("lut", "ecp5-85k") == "990 to 1,000 (1,100)"
        assert kept.clock("gowin") == "not run"
        assert "mean ± standard deviation over seeds 1, 2" in kept.source()

    def test_one_seed_is_said_to_be_one(self, flow, into):
        collect([flow(3)], **into)
        kept = Flow("lerp-psa-digits", folder=into["into"])
        assert (kept.share("golden"), kept.seeds()) == ("90.00 %", "one seed")
        assert kept.source().startswith("one seed; ")
        assert kept.checked("compiled") == "20, 0"

    def test_mismatches_are_counted(self, flow, into):
        """None is taken up; were one stored, the table would have it."""
        collect([flow(1), flow(2)], **into)
        content = stored.load("lerp-psa-digits", "flows", into["into"])
        for run in content["runs"]:
            run["verify"][0]["mismatches"] = 1000
        stored.save("lerp-psa-digits", content, into["into"])
        assert Flow("lerp-psa-digits", folder=into["into"]).checked("compiled") == "2 x 20, 2,000"

    def test_variants_are_apart(self, flow, into):
        collect([flow(1), flow(1, name="other", recipe={"rtl.interval": 2048})], **into)
        assert len(Flow("lerp-psa-digits", folder=into["into"]).runs) == 1
        assert len(Flow("lerp-psa-digits", {"rtl.interval": 2048}, into["into"]).runs) == 1
        with pytest.raises(BittrueError, match="no run with rtl.interval=7 changed"):
            Flow("lerp-psa-digits", {"rtl.interval": 7}, into["into"]).runs  # noqa: B018

    def test_steps_are_timed(self, flow, into):
        """The least of the runs, and of recipes that are not given what was known of them."""
        into["times"].write_bytes(durations.text({"relu-digits": {"machine": None, "seconds": {}}}))
        collect([flow(1), flow(2, seconds={"train": 2.5, "verify": 19.75})], **into)
        known = json.loads(into["times"].read_text())
        assert known.keys() == {"relu-digits", "lerp-psa-digits"}
        assert known["lerp-psa-digits"]["seconds"] == {"train": 1.5, "verify": 19.8}
        assert known["lerp-psa-digits"].keys() == {"machine", "date", "commit", "seconds"}
        assert set(known["lerp-psa-digits"]["machine"]) == {"class", "cores"}

    def refused(self, folders, into, words):
        with pytest.raises(BittrueError, match=words):
            collect(folders, **into)
        assert not list(into["into"].iterdir())
        assert not into["times"].exists()

    def test_mismatches_are_refused(self, flow, into, content):
        rows = [content["verify"][0] | {"mismatches": 3}, *content["verify"][1:]]
        self.refused([flow(1), flow(2, verify=rows)], into, r"seed-2-1.report.json: it is not taken, as not everything")

    def test_codes_that_differ_from_the_network_are_refused(self, flow, into):
        self.refused([flow(1, mismatches_with_network=1)], into, "1 outputs differ from the quantised network")

    def test_skipped_back_ends_are_refused(self, flow, into, content):
        self.refused([flow(1, skipped=content["skipped"])], into, "skipped: verilator .Verilator is not installed")

    def test_what_was_not_verified_is_refused(self, flow, into):
        self.refused([flow(1, verify=[], golden=None)], into, "nothing was verified")
        only_golden = flow(2, verify=[])
        self.refused([only_golden], into, "no back end was compared")

    def test_damaged_reports_are_refused(self, flow, into):
        folder = flow(1)
        good = (folder / "report.json").read_text()
        for text in (good.replace("0.9", "0.99", 1), good[:-20], "[]", "", sealed({"recipe": "x"}).decode()):
            (folder / "report.json").write_text(text)
            self.refused([folder], into, "report .*report.json: ")
        (folder / "report.json").unlink()
        self.refused([folder], into, "cannot be read .No such file or directory.; run `bittrue flow`")

    def test_where_it_was_made_has_to_be_said(self, flow, into):
        folder = flow(1)
        content = report.read(folder / "report.json")
        del content["made"]
        report.write(content, folder)
        self.refused([folder], into, "it does not say when and where it was made")

    def test_seeds_of_one_training_are_equal(self, flow, into):
        self.refused([flow(1, recipe={"qat.seed": 2})], into, "different seeds .train.seed=1, qat.seed=2.")

    def test_recipes_of_ones_own_are_refused(self, flow, into):
        self.refused([flow(1, recipe={"name": "mine"})], into, "no recipe named 'mine' comes with bittrue")

    def test_the_same_placement_twice_is_refused(self, flow, into):
        self.refused([flow(1), flow(1, name="again")], into, "pipeline for ecp5-85k with the placer's seed 1, too")

    def test_one_seed_has_one_program(self, flow, into, content):
        other = flow(1, placer=2, program=content["program"] | {"sha256": "0" * 64})
        self.refused([flow(1), other], into, "that has another program")

    def test_no_folder(self, into):
        self.refused([], into, "no folder was given")

    def test_the_command_ends_with_a_sentence(self, tmp_path, capsys):
        assert main(["collect", str(tmp_path / "nowhere")]) == 1
        assert capsys.readouterr().err.startswith("error: report ")


def test_span():
    assert span([3, 3]) == "3"
    assert span([12000, 9]) == "9 to 12,000"
    assert span([1.25, 1.31, 1.24], "{:.1f}") == "1.2 to 1.3"
