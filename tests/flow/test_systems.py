"""Systems declare themselves: those of bittrue, and a package of a user's own, found by its entry point."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from bittrue.flow import stages
from bittrue.flow.engine import recipe, registry
from bittrue.flow.engine.system import System
from bittrue.sim.errors import BittrueError
from bittrue.sim.reading import sealed

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "helpers" / "toy_system"
LOADED = "import sys, bittrue.flow.cli.main; print([m for m in {} if m in sys.modules])"


def bittrue(*words: object, path: Path | None = None) -> subprocess.CompletedProcess:
    """The command in a process of its own, with this folder in front of the search path."""
    places = [str(ROOT)] if path is None else [str(path), str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "COLUMNS": "200"}
    command = [sys.executable, "-m", "bittrue", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def install(folder: Path, entry: str = "toy = toy_system") -> Path:
    """The toy system as pip would leave it in a folder: its package, and metadata with the entry point."""
    shutil.copytree(TOY, folder / "toy_system")
    metadata = folder / "toy_system-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-system\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[bittrue.systems]\n{entry}\n")
    return folder


class TestTheSystemsOfBittrue:
    def test_every_package_is_found_and_declares_all(self):
        folders = {path.parent for path in (ROOT / "flow" / "systems").glob("*/__init__.py")}
        assert {system.folder for system in registry.systems().values()} == folders
        for name, system in registry.systems().items():
            assert name == system.name
            assert system.title
            assert issubclass(system.recipe, recipe.Recipe)
            assert system.recipes(), f"{name} comes without a recipe"
            own = set(system.recipe.model_fields)
            assert {section for step in ("train", "quantize", "rtl") for section in recipe.read_by(system, step)} <= own
            assert all((ROOT / place).exists() for place in (*system.code, *system.section().code))
            for shortcut in system.shortcuts:
                assert shortcut.key.split(".")[0] in own

    def test_recipes_are_in_the_order_of_their_names(self, tmp_path):
        names = [f"recipe-{k * 7 % 30:02}" for k in range(30)]
        (tmp_path / "recipes").mkdir()
        for name in names:
            (tmp_path / "recipes" / f"{name}.yaml").touch()
        (tmp_path / "recipes" / "notes.txt").touch()
        found = System.recipes(SimpleNamespace(folder=tmp_path))
        assert list(found.items()) == [(name, tmp_path / "recipes" / f"{name}.yaml") for name in sorted(names)]

    def test_their_order_of_steps(self):
        common = "train quantize lower simulate rtl hls verify".split()
        for name in recipe.shipped():
            loaded = recipe.load(name)
            steps = [step.name for step in stages.steps(loaded)]
            first = [step.name for step in registry.find(loaded.system).first(loaded)]
            assert steps[: len(first) + 7] == first + common
            assert steps[-2:] == ["synth", "report"]

    def test_the_command_line_loads_neither_torch_nor_hardware(self):
        heavy = ("torch", "numba", "amaranth", "distributed", "cocotb", "sklearn", "jinja2")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", LOADED.format(heavy)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_defaults_read_every_section_of_their_own(self):
        class Plain(System):
            name, title = "plain", "nothing but the defaults"
            recipe = registry.find("lerp-psa").recipe
            train = quantize = lower = None

        assert set(recipe.read_by(Plain(), "train")) == {"network", "train", "quantize", "qat"}
        assert recipe.read_by(Plain(), "rtl") == ()
        assert Plain().steps(None) == []
        assert Plain().section().collect({}) == {}

    def test_an_unknown_one_is_refused_with_the_nearest(self):
        with pytest.raises(BittrueError, match=r"unknown system 'photonik'; did you mean 'photonic'\? write system:"):
            registry.find("photonik")


class TestASystemOfOnesOwn:
    def test_it_is_listed_with_its_recipes_and_options(self, tmp_path):
        folder = install(tmp_path)
        listed = json.loads(bittrue("systems", "--json", path=folder).stdout)
        assert listed["toy"] == {"title": "one linear layer, as an example", "recipes": ["toy-digits"]}
        assert "toy" not in json.loads(bittrue("systems", "--json").stdout)
        text = bittrue("flow", "--help", path=folder).stdout
        assert "toy: one linear layer, as an example (toy-digits)" in text
        assert "--epochs" in text
        assert "toy-greet" in bittrue("--help", path=folder).stdout
        assert bittrue("toy-greet", path=folder).stdout == "hello from toy\n"

    @pytest.mark.needs("verilator", "g++")
    def test_it_trains_verifies_and_reports(self, tmp_path):
        folder, out = install(tmp_path / "site"), tmp_path / "flow"
        done = bittrue("flow", "toy-digits", "--epochs", 20, "--out", out, "--json", path=folder)
        assert done.returncode == 0, done.stderr
        content = json.loads(done.stdout)
        assert content["system"] == "toy"
        assert content["accuracy"]["golden"] > 0.7
        assert content["accuracy"]["rtl"] == content["accuracy"]["hls"] == content["accuracy"]["golden"]
        assert {row["simulator"]: row["mismatches"] for row in content["verify"]} == {"compiled": 0, "gxx": 0}
        assert content["weighed"] == content["program"]["weights"]
        assert list(content["seconds"])[-2:] == ["weigh", "synth"]
        page = (out / "report.html").read_text()
        assert "<h2>What it weighs</h2>" in page
        assert "650 weights, none of them grams" in page
        assert "equal, bit for bit" in page

        # nothing is done again, until a source of the system changes
        again = bittrue("flow", "toy-digits", "--epochs", 20, "--out", out, path=folder)
        assert again.stderr.startswith("all steps are up to date\n")
        assert again.stderr.count("up to date") == 1 + 10
        module = folder / "toy_system" / "network.py"
        module.write_text(module.read_text() + "\n# changed\n")
        changed = bittrue("flow", "toy-digits", "--epochs", 20, "--out", out, "--until", "train", path=folder)
        assert "bittrue's sources changed" in " ".join(changed.stderr.split())

        # its verdict counts, and the report of a system that is gone says so
        broken = json.loads((out / "report.json").read_text()) | {"weighed": 10_000}
        (out / "report.json").write_bytes(sealed(broken))
        shown = bittrue("report", out, path=folder)
        assert shown.returncode == 1
        assert "toy: it is too heavy" in shown.stderr
        gone = bittrue("report", out)
        assert gone.returncode == 1
        assert "unknown system 'toy'" in gone.stderr

    def test_one_without_a_lower_is_told_what_its_quantize_has_to_leave(self, tmp_path):
        class Mine(System):
            def part(self, name):
                return ModuleType(name)

        work = SimpleNamespace(upstream={"quantize": tmp_path}, folder=tmp_path)
        with pytest.raises(BittrueError, match=r"quantize left no program\.npz; .*write_lowered.*a `lower`"):
            Mine().lower(None, work)

    def test_an_option_of_another_system_is_refused(self, tmp_path):
        done = bittrue("flow", "toy-digits", "--scenario", "post", "--out", tmp_path / "f", path=install(tmp_path))
        assert done.returncode == 1
        sentence = "--scenario: recipe 'toy-digits' is of the system 'toy', which has no such option"
        assert sentence in " ".join(done.stderr.split())

    @pytest.mark.parametrize(
        ("entry", "spoil", "says"),
        [
            ("toy = toy_systen", "", "No module named 'toy_systen'"),
            ("toy = toy_system", "raise RuntimeError('out of order')", "out of order"),
            ("toy = toy_system", "SYSTEM = None", "toy_system declares no SYSTEM"),
            ("toy = toy_system", "SYSTEM.name = 'fs'", "a system is named 'fs' already"),
            ("toy = toy_system", "Toy.register = lambda self, app: 1 / 0", "division by zero"),
            ("toy = toy_system", "Toy.register = lambda self, app: app.command()(recipes)", "name 'recipes' is not"),
        ],
    )
    def test_one_that_is_broken_is_told_and_harms_no_other(self, entry, spoil, says, tmp_path):
        folder = install(tmp_path, entry)
        module = folder / "toy_system" / "__init__.py"
        module.write_text(f"{module.read_text()}\n{spoil}\n")
        done = bittrue("systems", "--json", path=folder)
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)) == set(registry.systems())
        assert "the system of toy-system 1.0, entry point 'toy'" in done.stderr
        assert says in done.stderr

    def test_a_command_that_is_there_already_is_refused(self, tmp_path):
        folder = install(tmp_path)
        module = folder / "toy_system" / "__init__.py"
        module.write_text(module.read_text().replace("toy-greet", "verify"))
        done = bittrue("verify", "--help", path=folder)
        assert "a command `bittrue verify` is there already" in done.stderr
        assert "Hold RTL and HLS kernels" in done.stdout
