"""Who may import whom: the rules stand in `pyproject.toml`, import-linter reads them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
