"""What is built for users: the wheel and the source distribution, and what the wheel does on its own.

Built with hatchling alone, as pip would; the tests skip where the environment does not hold it.
"""

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling, which pip fetches to build, is not in this environment")

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sim/", "models/", "rtl/", "hls/", "flow/")


def tracked() -> list[str]:
    """The files of the project."""
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


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
