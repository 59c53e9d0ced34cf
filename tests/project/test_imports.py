"""Who may import whom: the rules stand in `pyproject.toml`, import-linter reads them."""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import bittrue

ROOT = Path(__file__).parents[2]
FOLDERS = ("sim", "models", "rtl", "hls", "flow")
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> tuple[int, str]:
    """Status and text of import-linter on the sources in a folder, words parted by single spaces."""
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_imports_keep_the_rules():
    status, said = lint(ROOT)
    assert status == 0, said
    assert " 0 broken" in said


@pytest.fixture(scope="module")
def imports():
    """What every module imports, those for types alone apart: they do not run."""
    graph = grimp.build_graph("bittrue", exclude_type_checking_imports=True, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_no_import_goes_in_a_circle(imports):
    assert circles(imports) == []
    assert circles(imports | {"bittrue.sim.errors": {"bittrue.sim.program"}}) != []


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports, in the end, itself: what is left when modules that import nothing left are gone,
    and then those which nothing left imports."""
    left = {name: set(imported) for name, imported in imports.items()}
    while gone := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in gone}
    while gone := left.keys() - {name for imported in left.values() for name in imported}:
        left = {name: imported for name, imported in left.items() if name not in gone}
    return sorted(left)


#: Packages of `models` that dialects share. Every other one is a dialect of a system, whether a rule names it or not.
SHARED = {"int8", "networks", "training", "graph", "layers", "data", "settings"}


def test_only_its_system_knows_a_dialect(imports):
    assert strangers(imports) == []
    for importer in ("bittrue.models.layers.exact", "bittrue.models.int8.quantize", "bittrue.flow.run.arrays"):
        assert strangers({importer: {"bittrue.models.newcomer.layers"}}) == [
            f"{importer} -> bittrue.models.newcomer.layers"
        ]
    assert strangers({"bittrue.flow.systems.newcomer": {"bittrue.models.newcomer.layers"}}) == []


def strangers(imports: dict[str, set[str]]) -> list[str]:
    """Imports of a dialect from outside of it and of the systems."""
    found = []
    for importer, modules in imports.items():
        place = importer.split(".")[1:3]
        for module in modules:
            of = module.split(".")[1:3]
            dialect = of[:1] == ["models"] and len(of) > 1 and of[1] not in SHARED
            if dialect and place not in (of, ["flow", "systems"]):
                found.append(f"{importer} -> {module}")
    return found


#: Imports that a rule forbids: the file, and what it must not import.
BREACHES = [
    ("sim/program.py", "bittrue.hls.host"),
    ("sim/noise.py", "torch"),
    ("rtl/parts/state.py", "bittrue.models.settings"),
    ("rtl/bus/ports.py", "bittrue.rtl.light.jobs"),
    ("rtl/dataflow/stage.py", "bittrue.rtl.light.noise"),
    ("hls/network.py", "bittrue.rtl.verilog"),
    ("models/int8/quantize.py", "bittrue.models.fs.sets"),
    ("models/fs/sets.py", "bittrue.models.light.settings"),
    ("models/layers/exact.py", "bittrue.models.graph.lower"),
    ("models/training/loop.py", "bittrue.models.networks.mlp"),
    ("models/data/sets.py", "bittrue.flow.run.arrays"),
    ("flow/verify/verify.py", "bittrue.models.light.array"),
    ("flow/run/arrays.py", "bittrue.flow.systems.fs.spikes"),
    ("flow/systems/lerp_psa/steps.py", "bittrue.flow.systems.fs.figures"),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What import-linter says about the sources with all of these imports, and a module that no rule names."""
    folder = tmp_path_factory.mktemp("house")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=lambda _, names: [n for n in names if _foreign(n)])
    shutil.copytree(ROOT / "bittrue", folder / "bittrue", symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for file, imported in BREACHES:
        with (folder / file).open("a") as text:
            text.write(f"\nimport {imported}\n")
    (folder / "flow" / "newcomer.py").write_text("import numpy\n")
    status, text = lint(folder)
    assert status == 1
    return text


def _foreign(name: str) -> bool:
    return name == "__pycache__" or ("." in name and not name.endswith(".py"))


@pytest.mark.parametrize(("file", "imported"), BREACHES)
def test_a_breach_is_found_and_named(said, file, imported):
    module = "bittrue." + file.removesuffix(".py").replace("/", ".")
    assert f"{module} -> {imported} (l." in said


def test_a_module_that_no_rule_names_is_found(said):
    assert "not listed as layers: - bittrue.flow.newcomer" in said


def test_every_module_can_be_imported():
    """Each by itself, in one process: a name that has moved is found here, whichever tests run."""
    names = [module.name for module in pkgutil.walk_packages(bittrue.__path__, "bittrue.")]
    names = [name for name in names if not name.rpartition(".")[2].startswith(("test_", "conftest", "__main__"))]
    assert len(names) > 150
    for name in names:
        importlib.import_module(name)


def test_no_test_module_imports_another():
    """What several of them use is a helper: a file's tests, and its fixtures, are its own."""
    files = [file for folder in ("tests", "sim") for file in (ROOT / folder).rglob("test_*.py")]
    assert len(files) > 100
    assert [str(f) for f in files if re.search(r"^\s*from tests\.\w+\.test_\w+ import", f.read_text(), re.M)] == []
