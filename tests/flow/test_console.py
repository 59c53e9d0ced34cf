"""The first screen and the terminal: version, recipes, completion, tables whose names stay whole, signs of life."""

import io
import json
import platform
import re
import time
from contextlib import suppress

import pytest
import yaml
from rich.console import Console
from rich.text import Text

import bittrue
from bittrue.flow.cli import console
from bittrue.flow.cli import main as cli
from bittrue.flow.engine import durations, machine
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine.steps import Expected, Outcome
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim import caches
from tests.helpers.flows import program


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command: (status, stdout, stderr)."""

    def run(*words: object, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


class TestFirstScreen:
    def test_version(self, run):
        assert run("--version") == (0, f"bittrue {bittrue.__version__}\n", "")

    def test_recipes_are_listed_and_printed(self, run, tmp_path):
        status, out, _ = run("recipes")
        assert status == 0
        assert all(name in out for name in recipes.shipped())
        listed = json.loads(run("recipes", "--json")[1])
        assert listed.keys() == recipes.shipped().keys()
        assert listed["relu-digits"]["dataset"] == "digits"
        for name in recipes.shipped():
            (tmp_path / "copy.yaml").write_text(run("recipes", name)[1])
            assert recipes.load(tmp_path / "copy.yaml") == recipes.load(name)
            assert json.loads(run("recipes", name, "--json")[1]) == yaml.safe_load((tmp_path / "copy.yaml").read_text())

    @pytest.mark.parametrize("command", ["flow", "train", "quantize", "recipes"])
    def test_an_unknown_recipe_and_a_near_one(self, command, run):
        status, _, err = run(command, "relu-digit")
        assert status == 1
        assert "did you mean 'relu-digits'?" in " ".join(err.split())
        status, _, err = run(command, "nothing-like-it")
        assert status == 1
        assert f"shipped are {min(recipes.shipped())}, " in " ".join(err.split())

    @pytest.mark.parametrize(
        ("word", "said"),
        [
            ("flwo", "Did you mean 'flow'"),
            ("relu-digits", "bittrue flow relu-digits"),
            ("a.yaml", "bittrue flow a.yaml"),
        ],
    )
    def test_an_unknown_command(self, word, said, run):
        status, _, err = run(word)
        assert status == 2
        assert said in " ".join(err.replace("│", " ").split())

    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("bittrue flow relu-", {"relu-digits", "relu-fashion-mnist"}),
            ("bittrue recipes photonic-mlp-d", {"photonic-mlp-digits"}),
            ("bittrue flow relu-digits --until s", {"simulate", "spikes", "synth"}),
            ("bittrue synth p.npz --target ice40-u", {"ice40-up5k"}),
            ("bittrue rtl p.npz --device ecp5-2", {"ecp5-25k"}),
            ("bittrue verify p.npz --backends gxx,ver", {"gxx,verilator"}),
            ("bittrue rec", {"recipes"}),
        ],
    )
    def test_the_shell_completes(self, line, offered, run):
        words = line.split()
        environment = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        _, out, err = run(_BITTRUE_COMPLETE="complete_bash", **environment)
        assert set(out.split()) == offered
        assert err == ""

    def test_a_cache_that_was_replaced_is_told_once(self, run, monkeypatch):
        monkeypatch.setattr(caches, "_replaced", {"/tmp/x": "~/.cache: cannot be written; or set XDG_CACHE_HOME"})
        status, _, err = run("recipes")
        assert status == 0
        assert err.count("note: ~/.cache: cannot be written") == 1


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OSError(28, "No space left on device", "/x/y"), "error: /x/y: No space left on device; free space there"),
            (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y: Permission denied; choose another place"),
            (MemoryError("Unable to allocate 9 EiB"), "error: the memory is full (Unable to allocate 9 EiB)"),
        ],
    )
    def test_the_machines_own_are_sentences(self, error, said, run, monkeypatch):
        def fail(*_):
            raise error

        monkeypatch.setattr(recipes, "load", fail)
        status, out, err = run("recipes", "relu-digits")
        assert (status, out) == (1, "")
        assert said in " ".join(err.split())
        assert "Traceback" not in err
        with pytest.raises(type(error)):
            cli.main(["recipes", "relu-digits", "--debug"])

    def test_a_fault_keeps_its_traceback(self, monkeypatch):
        monkeypatch.setattr(recipes, "load", lambda *_: [][0])
        with pytest.raises(IndexError):
            cli.main(["recipes", "relu-digits"])


class TestTables:
    NAMES = ("fc2_width0_narrow", "blocks_11_token_mixer_fifo", "photonic_mac")

    def shown(self, drawn, width: int, monkeypatch) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        screen = Console(file=io.StringIO(), width=width)
        console.show(drawn, screen)
        return screen.file.getvalue().splitlines()

    @pytest.mark.parametrize("width", [40, 80, 200])
    def test_names_and_figures_stay_whole(self, width, monkeypatch):
        rows = [(name, 123_456_789, f"some words about {name} and more of them") for name in self.NAMES]
        lines = self.shown(console.table("Title", ("name", "figure", "words"), rows), width, monkeypatch)
        for name in self.NAMES:
            assert any(name in line and "123,456,789" in line for line in lines)
        assert max(map(len, lines)) <= max(width, 70)

    @pytest.mark.parametrize("width", [20, 80, 200])
    def test_headings_of_several_words_take_no_digits_from_others(self, width, monkeypatch):
        """In a terminal that is too narrow, too."""
        heads = ("network", "at a time", "multiply-accumulates for an input", "/ N = 1")
        row = ("MIMONet-28", 4, Text("5242.88", justify="right"), Text("0.997"))
        lines = self.shown(console.table("T", heads, [row]), width, monkeypatch)
        assert "MIMONet-28 4 5242.88 0.997".split() in [line.split() for line in lines]
        assert any(all(head in line for head in heads) for line in lines)

    def test_a_pipeline_fits_into_80_columns(self, monkeypatch):
        stages = [stage | {"name": "fc2_width0_narrow"} for stage in plan_of_program()]
        lines = self.shown(console.pipeline(stages), 80, monkeypatch)
        assert max(len(line.rstrip()) for line in lines) <= 80
        assert sum("fc2_width0_narrow" in line for line in lines) == len(stages)

    def test_a_pipe_is_as_wide_as_it_needs(self, monkeypatch):
        monkeypatch.delenv("COLUMNS", raising=False)
        words = " ".join(["word"] * 60)
        screen = Console(file=io.StringIO())
        console.show(console.table("Title", ("name", "words"), [("a", words)]), screen)
        assert words in screen.file.getvalue()

    def test_brackets_are_not_markup(self, monkeypatch):
        lines = self.shown(console.table("T", ("a", "b"), [("x[bold]", "pip install 'bittrue[rtl]'")]), 80, monkeypatch)
        assert any("x[bold]" in line and "'bittrue[rtl]'" in line for line in lines)

    def test_a_line_is_printed_as_it_is(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "40")
        text = "a [red]path[/] " + "x" * 100
        console.line(text)
        assert capsys.readouterr().out == text + "\n"


class TestSignsOfLife:
    """What a listener says where stderr is no terminal."""

    @pytest.fixture
    def said(self, monkeypatch):
        screen = Console(file=io.StringIO(), width=80)
        monkeypatch.setattr(console, "ERR", screen)
        monkeypatch.setattr(console.Bars, "SOON", 0.02)
        monkeypatch.setattr(console.Bars, "BEAT", 0.05)
        return lambda: screen.file.getvalue().splitlines()

    def test_a_long_step_begins_and_beats(self, said):
        with console.Bars() as bars:
            bars.begin("train")
            time.sleep(0.1)
            bars.progress("epoch 3 of 10", 3, 10)
            time.sleep(0.2)
            bars.end("train", Outcome("train", None, True, "for the first time", 0.3))
        lines = said()
        assert lines[0] == "train: began"
        assert len(lines) >= 4
        assert any(re.fullmatch(r"train: \d+ s, epoch 3 of 10 \(30 %\)", line) for line in lines)
        assert lines[-1] == "train: done in 0.3 s (for the first time)"

    def test_about_how_long_it_takes_is_said_beforehand(self, said):
        here = {"class": "AVX2", "cores": 2}
        with console.Bars() as bars:
            bars.expect([Expected("train", True, 170.4, here), Expected("synth", True, None)])
            bars.begin("train")
            time.sleep(0.2)
        todo, *beats = said()[:3]
        assert todo.startswith("to do: about 2 min 50 s, as on 2 cores with AVX2 (train 2 min 50 s); ")
        assert todo.endswith("; how long synth takes was never measured")
        assert beats == ["train: began, about 2 min 50 s", "train: 0 s of about 2 min 50 s, at work"]

    def test_one_that_says_nothing_beats_too(self, said):
        with console.Bars() as bars:
            bars.begin("synth")
            time.sleep(0.3)
        assert sum(bool(re.fullmatch(r"synth: \d+ s, at work", line)) for line in said()) >= 2

    def test_nothing_after_its_end(self, said):
        with console.Bars() as bars:
            bars.begin("a")
            time.sleep(0.1)
        count = len(said())
        time.sleep(0.2)
        assert len(said()) == count

    def test_a_short_step_is_one_line(self, said):
        with console.Bars() as bars:
            for step in ("a", "b"):
                bars.begin(step)
                bars.end(step, Outcome(step, None, False, "up to date", 1.0))
        assert said() == ["a: up to date (took 1.0 s)", "b: up to date (took 1.0 s)"]

    @pytest.mark.parametrize("error", [None, KeyError])
    def test_a_bar_is_full_when_its_step_is_done_and_not_before(self, error, monkeypatch):
        monkeypatch.setattr(console, "ERR", Console(file=io.StringIO(), width=80, force_terminal=True))
        bars = console.Bars()
        with suppress(KeyError), bars:
            bars.begin("verify")
            bars.progress("all images of one back end", 8, 8)
            assert not bars.bars.tasks[0].finished
            if error:
                raise error
        assert bars.bars.tasks[0].finished == (error is None)

    def test_an_error_ends_it(self, said):
        bars = console.Bars()
        with bars:
            bars.begin("a")
            bars.__exit__(KeyError, KeyError(), None)
        count = len(said())
        time.sleep(0.1)
        assert len(said()) == count


AVX2, VNNI = {"class": "AVX2", "cores": 2}, {"class": "AVX512-VNNI", "cores": 1}


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([Expected("a", False, 9.0)], "all steps are up to date"),
        ([Expected("a", True, 17.2), Expected("b", False, 99.0)], "to do: about 17 s, as last time (a 17 s)"),
        (
            [Expected("a", True, 50.4), Expected("b", True, 0.3), Expected("c", True, 3700.0, VNNI)],
            "to do: about 1 h 2 min, as last time or as on 1 core with AVX512-VNNI (a 50 s, c 1 h 1 min)",
        ),
        (
            [Expected("a", True, None), Expected("b", True, None)],
            "to do: a, b; how long this takes was never measured for this recipe",
        ),
    ],
)
def test_forecast_in_words(steps, words):
    assert console.forecast(steps) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (120, "2 min"),
        (121, "2 min 1 s"),
        (170, "2 min 50 s"),
        (3600, "1 h"),
        (7259, "2 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert durations.told(seconds) == words


@pytest.mark.parametrize(
    ("flags", "name"),
    [("avx avx2", "AVX2"), ("avx2 avx512f", "AVX512"), ("avx2 avx512f avx512_vnni", "AVX512-VNNI"),
     ("avx2 avx512f avx512_vnni amx_int8", "AMX"), ("avx2 avx_vnni", "AVX-VNNI"), ("sse2", platform.machine())],
)  # fmt: skip
def test_class_of_a_machine(flags, name, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CPU", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"model name\t: avx2\nflags\t\t: fpu {flags}\n")
    found = machine.described()
    assert found["class"] == name
    assert found["cores"] >= 1
    assert machine.words(found | {"cores": 1}) == f"1 core with {name}"


def plan_of_program() -> list[dict]:
    from bittrue.rtl.dataflow.design import PipelineDesign

    return PipelineDesign(plan(program())).describe()["stages"]
