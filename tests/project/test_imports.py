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


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The sources, to be spoiled."""
    folder = tmp_path_factory.mktemp("house")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=lambda _, names: [n for n in names if _foreign(n)])
    shutil.copytree(ROOT / "bittrue", folder / "bittrue", symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _foreign(name: str) -> bool:
    return name == "__pycache__" or ("." in name and not name.endswith(".py"))


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("sim/program.py", "import bittrue.hls.host", "bittrue.sim.program -> bittrue.hls.host"),
        ("sim/noise.py", "import torch", "bittrue.sim is not allowed to import torch"),
        ("rtl/parts/state.py", "import bittrue.models.settings", "bittrue.rtl.parts.state -> bittrue.models.settings"),
        ("models/int8/quantize.py", "import bittrue.models.fs.sets", "bittrue.models.int8 is not allowed to import"),
        (
            "models/layers/exact.py",
            "import bittrue.models.light.alpha",
            "bittrue.models.layers is not allowed to import",
        ),
        ("rtl/dataflow/stage.py", "import bittrue.rtl.light.jobs", "bittrue.rtl.dataflow is not allowed to import"),
        ("flow/verify/verify.py", "import bittrue.models.light.array", "bittrue.flow.verify is not allowed to import"),
        ("flow/run/arrays.py", "import bittrue.flow.systems.fs.spikes", "bittrue.flow.run is not allowed to import"),
        (
            "flow/systems/lerp_psa/steps.py",
            "import bittrue.flow.systems.fs",
            "bittrue.flow.systems.lerp_psa is not allowed",
        ),
        ("flow/newcomer.py", "import numpy", "newcomer"),
    ],
)
def test_a_breach_is_found_and_named(copy, file, line, says):
    path = copy / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        status, said = lint(copy)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert status == 1
    assert says in said
