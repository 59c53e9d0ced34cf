"""What is built for users: the wheel and the source distribution, and what the wheel does on its own.

Built with hatchling alone, as pip would; the tests skip where the environment does not hold it.
"""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import bittrue
from tests.helpers import programs

pytestmark = pytest.mark.needs("hatchling")

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sim/", "models/", "rtl/", "hls/", "flow/")


def tracked() -> list[str]:
    """The files of the project: those of its history, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [file for file in listed if (ROOT / file).exists()]


def belongs_to_a_test(file: str) -> bool:
    return Path(file).name.startswith("test_") or Path(file).name == "conftest.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def test_the_wheel_holds_every_file_of_the_packages_and_no_test(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {f"bittrue/{file}" for file in tracked() if file.startswith(PACKAGES) and not belongs_to_a_test(file)}
    expected |= {"bittrue/__init__.py", "bittrue/__main__.py", "bittrue/py.typed"}
    kinds = {Path(name).suffix for name in expected}
    assert kinds >= {".py", ".hpp", ".h", ".tcl", ".cpp", ".html", ".yaml", ".json", ".typed"}
    assert names == expected


def test_the_wheel_says_who_wrote_it_and_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(n).decode() for n in archive.namelist() if n.endswith("METADATA"))
        (license,) = (archive.read(n).decode() for n in archive.namelist() if n.endswith("licenses/LICENSE"))
    lines = metadata.partition("\n\n")[0].splitlines()
    assert {"License-Expression: Apache-2.0", "Author: the bittrue authors"} <= set(lines)
    assert "Copyright 2026 the bittrue authors" in license
    needs = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist:")]
    assert not [need for need in needs if "==" in need.partition(";")[0]], "users cannot meet an exact version"
    base = {need.split(">")[0] for need in needs if "extra ==" not in need}
    assert base == {"numpy", "numba", "pydantic", "pyyaml", "typer", "rich", "jinja2"}


def test_the_source_distribution_holds_the_packages_once(tmp_path):
    from hatchling.builders.sdist import SdistBuilder

    with tarfile.open(next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path)))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {f"bittrue/{file}" if file.startswith(PACKAGES) else file for file in tracked()}
    links = {f"bittrue/{package.rstrip('/')}" for package in PACKAGES}
    assert expected - links <= names
    assert not [name for name in names if name.startswith(PACKAGES)]


#: What a user's folder may hold besides the script: names that bittrue's own packages have in its repository.
OF_THE_USER = ("sim/__init__.py", "models.py", "rtl.py", "hls.py", "flow.py", "tests.py")
SCRIPT = """
import sys

import numpy as np

import bittrue
import models

program: bittrue.Program = bittrue.load("program.npz")
y: np.ndarray = program(np.load("x.npy"))
np.save("y.npy", y)
plan = bittrue.plan(program)
bittrue.emit(plan).write("top.v")
print(bittrue.__file__, models.MINE, *(name for name in sys.modules if name in ("sim", "rtl", "hls", "flow")))
"""


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the installed wheel; what it needs is this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", folder, wheel]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return folder


@pytest.fixture
def user(tmp_path) -> Path:
    """A user's folder, elsewhere, with modules that have the names of bittrue's folders."""
    for name in OF_THE_USER:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("MINE = 'mine'\n")
    program = programs.resmlp(seed=3)
    bittrue.save(program, tmp_path / "program.npz")
    np.save(tmp_path / "x.npy", programs.stimulus(program, 6, seed=1)[0])
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def run(installed: Path, user: Path, *arguments: str, **environment: str) -> str:
    """Python in the user's folder, with the wheel and without the repository; what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=user,
        env=os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "120"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_beside_modules_of_the_same_names_the_library_works(installed, user):
    printed = run(installed, user, "script.py").split()
    assert printed == [str(installed / "bittrue" / "__init__.py"), "mine"]
    assert np.array_equal(np.load(user / "y.npy"), bittrue.load(user / "program.npz")(np.load(user / "x.npy")))
    assert "module bittrue_top" in (user / "top.v").read_text()


def test_beside_modules_of_the_same_names_the_command_works(installed, user):
    assert "Usage: bittrue" in run(installed, user, "-m", "bittrue", "--help")
    run(installed, user, "-m", "bittrue", "simulate", "program.npz", "x.npy", "--out", "y.npy")
    assert np.array_equal(np.load(user / "y.npy"), bittrue.load(user / "program.npz")(np.load(user / "x.npy")))
    run(installed, user, "-m", "bittrue", "hls", "program.npz", "--out", "kernels")
    assert (user / "kernels" / "linear.hpp").read_text() == (ROOT / "hls" / "kernels" / "linear.hpp").read_text()
    run(installed, user, str(installed / "bin" / "bittrue"), "rtl", "program.npz", "--out", "top.v")
    assert "module bittrue_top" in (user / "top.v").read_text()


@pytest.mark.long
@pytest.mark.needs("mypy")
def test_a_type_checker_knows_the_public_face(installed, user):
    """mypy on the user's script and README's example: right as they stand; a wrong argument or name is found."""
    (user / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = true\nfollow_imports = silent\n"
        + "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("torch", "numba", "amaranth", "llvmlite"))
    )
    example = re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]
    (user / "example.py").write_text(example)
    check = ("-m", "mypy", "--no-error-summary", "script.py", "example.py")
    assert run(installed, user, *check, MYPYPATH=str(installed)) == ""
    wrong = SCRIPT + "bittrue.load(3)\nbittrue.plan(program, intervall=3)\nbittrue.verfiy\nplan.program.sha256.foo\n"
    (user / "script.py").write_text(wrong)
    done = subprocess.run(
        [sys.executable, *check],
        cwd=user,
        env=os.environ | {"MYPYPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.partition("error: ")[2] for line in done.stdout.splitlines() if "error:" in line]
    expected = (
        'Argument 1 to "load"',
        'Unexpected keyword argument "intervall"',
        "verfiy",
        '"str" has no attribute "foo"',
    )
    assert len(found) == len(expected), done.stdout
    for text in expected:
        assert any(text in line for line in found), (text, done.stdout)
