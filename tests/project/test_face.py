"""The public face, `import bittrue`: what it gives, what it loads, and what it says where a package is absent."""

import ast
import inspect
import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import bittrue
from bittrue.sim import extras
from tests.helpers import programs

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bittrue", "sim", "models", "rtl", "hls", "flow")
#: What the golden simulator may load besides Python's own modules.
GOLDEN = {"numpy", "numba", "llvmlite"}
#: Starts a script in a Python that finds none of the packages named in $ABSENT.
WITHOUT = """
import os, sys
class Blind:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in os.environ["ABSENT"].split()
        return None if absent else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Blind(finder) for finder in sys.meta_path]
"""


def run(script: str, *arguments: str, absent: str = "") -> subprocess.CompletedProcess:
    """A script in a new Python without some packages."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + script, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "ABSENT": absent},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Path]:
    """A program on disk, and a batch for it."""
    folder = tmp_path_factory.mktemp("saved")
    program = programs.resmlp(seed=1)
    (x,) = programs.stimulus(program, 8, seed=2)
    np.save(folder / "x.npy", x)
    return bittrue.save(program, folder / "program.npz"), folder / "x.npy"


def test_every_name_is_there_typed_and_explained():
    typed = next(node for node in ast.parse(Path(bittrue.__file__).read_text()).body if isinstance(node, ast.If))
    seen_by_type_checkers = {
        alias.asname or alias.name: (node.module, alias.name) for node in typed.body for alias in node.names
    }
    assert seen_by_type_checkers == bittrue._PLACES
    assert list(bittrue._PLACES) == sorted(bittrue.__all__) == bittrue.__all__
    assert set(bittrue.__all__) <= set(dir(bittrue))
    for name in bittrue.__all__:
        assert inspect.getdoc(getattr(bittrue, name)), f"{name} has no docstring"
        assert f"{name}" in bittrue.__doc__.replace(",", " ").replace("`", " ").split(), f"{name} is not explained"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"has no attribute 'verfiy'; it has .*verify"):
        bittrue.verfiy  # noqa: B018
    assert not hasattr(bittrue, "verfiy")


def test_import_loads_nothing_and_a_golden_run_only_numpy_and_numba(saved):
    done = run(
        """
import json
before = set(sys.modules)
import bittrue
at_import = set(sys.modules) - before
import numpy
program = bittrue.load(sys.argv[1])
y = program(numpy.load(sys.argv[2]))
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([sorted(at_import), sorted(roots - sys.stdlib_module_names), y.tolist()]))
""",
        *map(str, saved),
        absent="torch typer rich pydantic yaml jinja2 " + " ".join(extras.EXTRAS),
    )
    assert done.returncode == 0, done.stderr
    at_import, loaded, y = json.loads(done.stdout)
    assert {name for name in at_import if name.partition(".")[0] not in sys.stdlib_module_names} == {"bittrue"}
    unasked = {"cython_runtime", "coverage"}  # numba looks for the latter, which the tools of development bring
    assert {name for name in loaded if not name.startswith("_")} - unasked == GOLDEN | {"bittrue"}
    assert np.array_equal(y, bittrue.load(saved[0])(np.load(saved[1])))


@pytest.mark.parametrize(
    ("name", "absent", "sentence"),
    [
        ("train", "torch", "torch is not installed; run pip install 'bittrue[train]'"),
        ("to_spikes", "torch", "torch is not installed; run pip install 'bittrue[train]'"),
        ("to_light", "torch", "torch is not installed; run pip install 'bittrue[train]'"),
        ("plan", "amaranth", "amaranth is not installed; run pip install 'bittrue[rtl]'"),
        ("emit", "amaranth", "amaranth is not installed; run pip install 'bittrue[rtl]'"),
    ],
)
def test_without_a_package_the_extra_is_named(name, absent, sentence):
    script = f"""
import bittrue
try:
    bittrue.{name}
except bittrue.BittrueError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    done = run(script, absent=absent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(sentence)


@pytest.mark.parametrize(
    ("module", "absent", "extra"),
    [
        ("rtl.verilog", "amaranth", "rtl"),
        ("models.networks.mlp", "torch", "train"),
        ("models.graph.lower", "torch", "train"),
        ("models.formats.nir.read", "nir", "formats"),
    ],
)
def test_a_package_that_is_imported_by_its_own_name_names_the_extra_too(module, absent, extra):
    done = run(f"\nimport bittrue.{module}\n", absent=absent)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"{absent} is not installed; run pip install 'bittrue[{extra}]'")


def test_without_any_extra_the_command_simulates_and_names_the_extra_of_what_it_cannot_do(saved, tmp_path):
    program, x = map(str, saved)
    y = str(tmp_path / "y.npy")
    refused = {
        ("rtl", program, "--out", str(tmp_path / "top.v")): "rtl]",
        ("verify", program): "rtl]",
        ("synth", program, "--target", "ecp5-25k"): "rtl]",
        ("train", "lerp-psa-digits", "--out", str(tmp_path / "flow")): "",  # a recipe needs many: whichever comes first
        ("fit", "swish"): "train]",
        ("import-nir", "net.nir", "--steps", "4", "--out", str(tmp_path / "nir.npz")): "formats]",
    }
    commands = [("--help",), ("simulate", program, x, "--out", y), *refused]
    done = run(
        """
import contextlib, io, json
from bittrue.flow.cli.main import main
for command in json.loads(sys.argv[1]):
    said, status = io.StringIO(), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(command)
        except SystemExit as stop:
            status = stop.code or 0
    print(json.dumps([status, said.getvalue()]))
""",
        json.dumps(commands),
        absent=" ".join(extras.EXTRAS),
    )
    assert done.returncode == 0, done.stderr
    answers = dict(zip(commands, map(json.loads, done.stdout.splitlines()), strict=True))
    for command in commands[:2]:
        assert answers[command][0] == 0, answers[command]
    assert np.array_equal(np.load(y), bittrue.load(saved[0])(np.load(saved[1])))
    for command, extra in refused.items():
        status, said = answers[command]
        assert status == 1, command
        assert f"is not installed; run pip install 'bittrue[{extra}" in said, (command, said)


def distributions(extra: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {text.split("[")[0].split(">")[0].split("<")[0].lower() for text in texts}


def test_every_package_that_is_imported_is_declared_in_the_extra_that_errors_name():
    providers = metadata.packages_distributions()
    base = distributions("")
    for module, extra in extras.EXTRAS.items():
        names = {name.lower() for name in providers[module]}
        assert names & distributions(extra), f"{module} does not come with the extra {extra}"
    brought = {"numba": {"llvmlite"}, "jinja2": {"markupsafe"}}  # by a package of the base, as part of its interface
    base |= {name for package in base for name in brought.get(package, ())}
    foreign: dict[str, str] = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            if file.name.startswith("test_") or file.name == "conftest.py":
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
                foreign |= {name.partition(".")[0]: str(file) for name in names}
    for module in set(foreign) - sys.stdlib_module_names - {"bittrue"} - extras.EXTRAS.keys():
        names = {name.lower() for name in providers.get(module, ())}
        assert names & base, f"{foreign[module]} imports {module}, which no requirement of bittrue brings"
