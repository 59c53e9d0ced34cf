"""What holds for every command, found by walking through all of them: help, JSON, places that are written, locks."""

import errno
import inspect
import json
import os
import stat
import threading
import time
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, get_args, get_origin

import nir
import numpy as np
import pytest
from typer.models import ArgumentInfo, OptionInfo

from bittrue.flow.cli import main as cli
from bittrue.flow.cli import options
from bittrue.flow.cli.main import app
from bittrue.flow.cli.program import synth
from bittrue.flow.engine.recipe import load
from bittrue.flow.report import report
from bittrue.flow.synth import designs
from bittrue.flow.systems.fs import fit as fits
from bittrue.flow.verify import verify as verify_module
from bittrue.models.formats import headers
from bittrue.models.formats.nir import graph as nir_graph
from bittrue.models.formats.nir import read as nir_read
from bittrue.sim import locks
from bittrue.sim.locks import locked
from bittrue.sim.program import Program
from bittrue.sim.reading import sealed
from tests.helpers import nir_graphs
from tests.helpers.flows import batch, program
from tests.helpers.programs import spiking, stimulus
from tests.helpers.reports import synthesised

#: Options that name something to read; every other one of a path is written, and has to be tried first.
READ = {"--inputs", "--verilog", "--hls", "--network", "--config", "--data"}
#: Words with which each command that writes files runs; the options of what it writes are added.
RUNS = {
    "simulate": ["p.npz", "x.npy"],
    "rtl": ["p.npz"],
    "fit": ["relu", "--steps", "2", "--restarts", "1", "--tries", "20"],
    "import-headers": ["headers"],
    "import-nir": ["net.nir", "--steps", str(nir_graphs.STEPS), "--samples", "1"],
    "export-nir": ["lif.npz"],
    "raster": ["s.npz", "s.npy"],
    "nern original": ["ResNet8", "--dataset", "digits", "--epochs", "1", "--batch", "512"],
}
#: Words with which each command that works in folders begins; what it needs is there.
FOLDERS = {
    "flow": ["relu-digits"],
    "train": ["relu-digits"],
    "quantize": ["relu-digits"],
    "mimo validate": ["mimonet-fashion-mnist"],
    "mimo keys": ["mimonet-fashion-mnist"],
    "nern tours": ["ResNet8"],
    "sweep": ["photonic-mlp-digits", "--over", "array.adc_bits=4,6"],
    "hls": ["p.npz"],
    "verify": ["p.npz", "--backends", "reference"],
    "synth": ["p.npz", "--target", "ecp5-25k"],
}
#: Those whose folder only keeps files, each by its content, so that any number may work with it.
SHARED = {"nern tours"}


class Parameter:
    """A parameter of a command as it was declared."""

    def __init__(self, command: str, name: str, annotation: Any) -> None:
        kind, self.info = get_args(annotation)[:2] if get_origin(annotation) is Annotated else (annotation, None)
        self.command, self.name = command, name
        kinds = [k for k in get_args(kind) if k is not NoneType] if get_origin(kind) is UnionType else [kind]
        self.kinds, self.is_path = kinds, kinds == [Path]
        words = (getattr(self.info, "default", None), *(getattr(self.info, "param_decls", None) or ()))
        declared = [word for word in words if isinstance(word, str) and word.startswith("--")]
        self.option = declared[0] if declared else f"--{name.replace('_', '-')}"
        self.is_option = isinstance(self.info, OptionInfo)
        self.callback = getattr(self.info, "callback", None)

    def __repr__(self) -> str:
        return f"{self.command} {self.option}"


def name_of(command) -> str:
    return command.name or command.callback.__name__.replace("_", "-")


#: What is called, by the words of its command: those of groups have two.
CALLED = {name_of(command): command.callback for command in app.registered_commands}
for group in app.registered_groups:
    of = group.typer_instance
    CALLED |= {f"{of.info.name} {name_of(command)}": command.callback for command in of.registered_commands}
COMMANDS = {
    words: [
        Parameter(words, name, parameter.annotation)
        for name, parameter in inspect.signature(called, eval_str=True).parameters.items()
    ]
    for words, called in CALLED.items()
}
PARAMETERS = [parameter for command in COMMANDS.values() for parameter in command]
TO_FILE = [p for p in PARAMETERS if p.callback is options.tried_file]
TO_FOLDER = [p for p in PARAMETERS if p.callback is options.tried_folder]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with an input of every kind."""
    folder = tmp_path_factory.mktemp("given")
    p, s = program(), spiking(shape=(3, 4), halving=False, steps=5, seed=11)
    p.save(folder / "p.npz")
    np.save(folder / "x.npy", batch(p, 3))
    s.save(folder / "s.npz")
    np.save(folder / "s.npy", stimulus(s, 2, 2)[0])
    nir.write(folder / "net.nir", nir_graphs.small())
    nir_read.program(nir_graph.read(folder / "net.nir"), 5, nir_graphs.DT).save(folder / "lif.npz")
    return folder


@pytest.fixture
def here(given, monkeypatch):
    """In that folder, with a program for whatever headers there are, and without builds."""
    monkeypatch.chdir(given)
    monkeypatch.setattr(headers, "read", lambda _: program())
    return given


# -- defaults ------------------------------------------------------------------------------------------------
def defaults(function) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("command", app.registered_commands, ids=name_of)
def test_a_flag_is_off_until_it_is_given(command):
    """But for those that have a word for both; and every other option takes a value of some kind."""
    for parameter in COMMANDS[name_of(command)]:
        assert NoneType not in parameter.kinds, f"{parameter} takes nothing"
        value = defaults(command.callback).get(parameter.name)
        assert value is not True or "/--no-" in parameter.option, parameter


@pytest.mark.parametrize(
    ("command", "function"),
    [("import-nir", nir_read.program), ("synth", designs.synthesize_design)],
)
def test_what_is_left_out_is_what_python_takes_for_it(command, function):
    """An option and a parameter of one name stand for the same, and so do their defaults."""
    (callback,) = (made.callback for made in app.registered_commands if name_of(made) == command)
    said, taken = defaults(callback), defaults(function)
    plain = {name for name, value in taken.items() if isinstance(value, int | float | str)}
    shared = plain & set(said)
    assert shared
    assert {name: said[name] for name in shared} == {name: taken[name] for name in shared}


# -- the first screen ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for word in ("-h", "--help"):
        status, out, _ = run(*command.split(), word)
        assert status == 0
        assert f"bittrue {command}" in out
        assert "Example" in out
        assert max(map(len, out.splitlines())) <= 80


def test_help_lists_every_command(run):
    status, out, _ = run("-h")
    assert status == 0
    assert all(command.split()[0] in out for command in COMMANDS)
    assert {"mimo macs", "mimo validate", "mimo keys"} <= COMMANDS.keys()
    assert len(COMMANDS) > 18


def test_every_command_speaks_json():
    assert [name for name, parameters in COMMANDS.items() if "--json" not in {p.option for p in parameters}] == []


@pytest.mark.parametrize("command", CALLED)
def test_what_is_on_or_off_is_off_unless_it_is_asked_for(command):
    """JSON, force, debug: tables and sentences for people are what nobody has to ask for."""
    declared = inspect.signature(CALLED[command], eval_str=True).parameters.values()
    switches = {p.name: p.default for p in declared if get_args(p.annotation)[:1] == (bool,)}
    assert "as_json" in switches
    assert not any(switches.values())


def test_what_plans_takes_a_device():
    """Wherever cycles a frame are asked for, so is the device to fill; HLS has none, its tool plans."""
    planned = {p.command for p in PARAMETERS if p.option == "--interval"}
    assert planned - {p.command for p in PARAMETERS if p.option == "--device"} == {"hls", "fit"} & planned


def test_arguments_are_named_alike():
    """An argument is shown in capitals, as all tools have it."""
    arguments = [p for p in PARAMETERS if isinstance(p.info, ArgumentInfo)]
    assert len(arguments) > 15
    assert [p for p in arguments if p.info.metavar is None or p.info.metavar != p.info.metavar.upper()] == []


@pytest.mark.parametrize("words", [["--debug", "report", "nowhere"], ["report", "nowhere", "--debug"]])
def test_debug_before_and_behind_a_command(words):
    with pytest.raises(ValueError, match="nowhere/report.json: cannot be read"):
        cli.main(words)


# -- places that are written ---------------------------------------------------------------------------------
def test_every_place_is_tried_or_read():
    """An option that names a place is one of those that are read, or it is tried before any work."""
    places = [p for p in PARAMETERS if p.is_path and p.is_option]
    assert [p for p in places if p.option not in READ and p not in TO_FILE and p not in TO_FOLDER] == []
    assert {p.command for p in TO_FILE} == set(RUNS)
    assert {p.command for p in TO_FOLDER} == set(FOLDERS)


@pytest.mark.parametrize("parameter", [*TO_FILE, *TO_FOLDER], ids=repr)
def test_a_place_that_cannot_be_is_told_before_any_work(parameter, run, here, tmp_path, monkeypatch):
    """Nothing is read, trained or built for a result that has no place."""

    def work(*_, **__):
        raise AssertionError("work began")

    monkeypatch.setattr(Program, "load", work)
    monkeypatch.setattr(cli, "_flow", work)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    words = (RUNS | FOLDERS)[parameter.command]
    others = [p for p in TO_FILE + TO_FOLDER if p.command == parameter.command and p.option != parameter.option]
    words = [*words, *(word for p in others for word in (p.option, tmp_path / "good" / p.option[2:]))]
    for place in ["file/x", "folder"] if parameter in TO_FILE else ["file", "file/x"]:
        before = sorted(tmp_path.rglob("*")), sorted(here.rglob("*"))
        status, out, err = run(*parameter.command.split(), *words, parameter.option, tmp_path / place)
        assert status == 1
        assert out == ""
        assert f"error: {tmp_path / place}: cannot be written" in err
        assert "choose another place" in err
        assert (sorted(tmp_path.rglob("*")), sorted(here.rglob("*"))) == before


#: What a command needs beside this package, and those that build or fit for more than ten seconds.
MARKS = {"raster": [pytest.mark.needs("verilator", "g++"), pytest.mark.long], "fit": [pytest.mark.long]}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", [pytest.param(name, marks=MARKS.get(name, [])) for name in RUNS])
def test_links_devices_and_pipes_are_written(command, run, tmp_path):
    """What every option of a file writes into a new file, it writes into whatever stands there."""
    written = [p.option for p in TO_FILE if p.command == command]

    def go(places: dict[str, Path]) -> None:
        status, _, err = run(
            *command.split(), *RUNS[command], *(w for option in written for w in (option, places[option]))
        )
        assert status == 0, err

    def names(kind: str) -> dict[str, Path]:
        (tmp_path / kind).mkdir()
        return {option: tmp_path / kind / f"{option[2:]}.out" for option in written}

    plain = names("plain")
    old = os.umask(0o027)
    try:
        go(plain)
    finally:
        os.umask(old)
    expected = {option: plain[option].read_bytes() for option in written}
    assert {stat.S_IMODE(place.stat().st_mode) for place in plain.values()} == {0o640}
    assert all(expected.values())

    links, far = names("links"), tmp_path / "far"
    for option, place in links.items():
        place.symlink_to(far / option)
    far.mkdir()
    go(links)
    assert all(place.is_symlink() for place in links.values())
    same(command, {option: (far / option).read_bytes() for option in written}, expected)

    if command == "fit":
        return  # it takes seconds each time
    pipes, got = names("pipes"), {}
    for place in pipes.values():
        os.mkfifo(place)
    readers = [threading.Thread(target=lambda o=o: got.update({o: pipes[o].read_bytes()}), daemon=True) for o in pipes]
    for reader in readers:
        reader.start()
    go(pipes)
    for reader in readers:
        reader.join(10)
    assert all(stat.S_ISFIFO(place.stat().st_mode) for place in pipes.values())
    assert sorted((tmp_path / "pipes").iterdir()) == sorted(pipes.values())  # nothing belongs beside a pipe
    same(command, got, expected)


def same(command: str, got: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """The same bytes; of formats that hold times or are written anew by another library, as many."""
    assert got.keys() == expected.keys()
    for option in expected:
        if (command, option) in {("raster", "--waves"), ("export-nir", "--out"), ("import-nir", "--out")}:
            assert abs(len(got[option]) - len(expected[option])) < 200
        elif command != "fit" or option != "--out":
            assert got[option] == expected[option], option


SEVERAL = [c for c in RUNS if sum(p.command == c for p in TO_FILE) > 1]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", SEVERAL)
def test_two_results_in_one_file_are_refused(command, run, tmp_path, monkeypatch):
    """By whichever path it is named; before any work, and nothing is written."""
    monkeypatch.setattr(Program, "load", lambda *_: pytest.fail("work began"))
    monkeypatch.setattr(fits, "run", lambda *_: pytest.fail("work began"))
    first, second, *_ = (p.option for p in TO_FILE if p.command == command)
    (tmp_path / "link").symlink_to(tmp_path / "same")
    for place in (tmp_path / "same", tmp_path / "x" / ".." / "same", tmp_path / "link"):
        status, out, err = run(*command.split(), *RUNS[command], first, tmp_path / "same", second, place)
        assert (status, out) == (1, "")
        assert f"{place}: {first} ({tmp_path / 'same'}) and {second} name the same file" in err
        assert not (tmp_path / "same").exists()


def test_two_results_that_one_default_puts_into_one_file_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(fits, "run", lambda *_: pytest.fail("work began"))
    status, _, err = run("fit", "relu", "--out", tmp_path / "relu.svg")
    assert status == 1
    assert "--out" in err
    assert "--picture name the same file" in err


@pytest.mark.usefixtures("here")
def test_one_device_takes_two_results(run):
    status, _, err = run("simulate", *RUNS["simulate"], "--out", os.devnull, "--trace", os.devnull)
    assert (status, err) == (0, "")
    assert SEVERAL == ["simulate", "fit", "raster"]


def test_a_report_is_shown_where_nothing_can_be_written(content, run, tmp_path, monkeypatch):
    report.write(content, tmp_path)
    status, out, err = run("report", tmp_path)
    assert (status, err) == (0, "")
    assert f"report: {tmp_path / 'report.html'}" in out
    (tmp_path / "report.html").unlink()

    def refuse(_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(locks, "_taken", refuse)
    closed = run("report", tmp_path)
    assert closed[0] == 0
    assert closed[1] == out.replace(f"report: {tmp_path / 'report.html'}\n", "")
    assert f"note: {tmp_path}: cannot be written (Read-only file system)" in closed[2]
    assert not (tmp_path / "report.html").exists()


# -- synthesis ---------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ([], {"xilinx-us+": "packed", "ecp5-25k": "parallel", "xilinx-7": "packed"}),
        (["--architecture", "parallel"], dict.fromkeys(("xilinx-us+", "ecp5-25k", "xilinx-7"), "parallel")),
        (["--block-luts", 40], {"xilinx-us+": "packed", "ecp5-25k": "parallel"}),
    ],
)
def test_each_target_gets_the_architecture_that_suits_it(words, taken, run, tmp_path, monkeypatch):
    """Targets that the same one suits share a plan; the clock is that of the command."""
    seen, built, worth = {}, [], 40 if "--block-luts" in words else None

    def synthesize(design, target, folder, frequency, *_):
        seen[target] = {folded.architecture for folded in design.plan.folding.values()}
        assert {folded.block_luts for folded in design.plan.folding.values()} == {worth}
        built.append(design)
        assert (folder, frequency) == (tmp_path / target, 120.0)
        return {"target": target}

    monkeypatch.setattr(designs, "synthesize_design", synthesize)
    targets = [word for target in taken for word in ("--target", target)]
    asked = ["--interval", 400, "--frequency", 120, "--out", tmp_path, "--json", *words]
    status, out, _ = run("synth", "p.npz", *targets, *asked)
    assert (status, json.loads(out)) == (0, [{"target": target} for target in taken])
    for target, architecture in taken.items():
        assert architecture in seen[target] <= {architecture, "parallel"}
    assert len({id(design) for design in built}) == len(set(taken.values()))


@pytest.mark.usefixtures("here")
def test_people_are_told_where_a_design_is_slow_and_what_would_help(run, tmp_path, monkeypatch):
    rows = {
        "ecp5-25k": synthesised("ecp5-25k", helps=["one thing", "another"]),
        "xilinx-7": synthesised("xilinx-7", where="", helps=[], notes=["cell counts only", "and more"]),
    }
    monkeypatch.setattr(designs, "synthesize_design", lambda _, target, *__: rows[target])
    status, out, _ = run("synth", "p.npz", "--target", "ecp5-25k", "--target", "xilinx-7", "--out", tmp_path / "s")
    told = [line.strip() for line in out.splitlines() if line.strip().startswith(tuple(f"{name}: " for name in rows))]
    assert (status, told) == (
        0,
        [
            "ecp5-25k: 3.6 ns through 1 cell",
            "ecp5-25k: what would help: one thing; another",
            "ecp5-25k: placed out of context",
            "xilinx-7: cell counts only",
            "xilinx-7: and more",
        ],
    )


@pytest.mark.usefixtures("here")
def test_a_netlist_is_held_to_the_codes_that_the_design_is_held_to(run, tmp_path, monkeypatch):
    """`synth --check` and `verify` draw the same."""
    seen = []

    def hold(_, x, *__, **___):
        seen.append(x)
        return SimpleNamespace(to_dict=lambda: {"problems": [], "rows": [], "skipped": []}, problems=[], rows=[])

    monkeypatch.setattr(designs, "synthesize_design", lambda _, target, *__: synthesised(target))
    monkeypatch.setattr(verify_module, "verify", hold)
    asked = ["--target", "ecp5-25k", "--out", tmp_path / "s", "--check", 64, "--json"]
    assert run("synth", "p.npz", *asked)[0] == 0
    assert run("verify", "p.npz", "--out", tmp_path / "v", "--json")[0] == 0
    (netlist,), (design,) = seen
    np.testing.assert_array_equal(netlist, design)


def test_defaults_of_synthesis_are_those_of_recipes():
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(designs.synthesize_design).parameters.items()
    }
    asked = load("lerp-psa-digits").synth
    assert defaults["frequency"] == asked.frequency_mhz == inspect.signature(synth).parameters["frequency"].default
    assert defaults["seed"] == asked.seed


# -- side by side --------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", [*(name for name in FOLDERS if name not in SHARED), "report"])
def test_two_in_one_folder_are_refused(command, run, tmp_path):
    """Every command with a working folder has it alone; the other one says so at once and writes nothing."""
    folder = tmp_path / "work"
    folder.mkdir()
    words = [*FOLDERS.get(command, []), "--flow" if command == "sweep" else "--out", folder]
    busy = folder / "ecp5-25k" if command == "synth" else folder
    if command == "report":
        content = {key: [] for key in ("accuracy", "verify", "golden", "skipped", "synth", "operations", "functions")}
        (folder / "report.json").write_bytes(sealed(content | {"recipe": "r", "system": "fs", "pipeline": {}}))
        words = [folder]
    with locked(busy):
        before = {path for path in folder.rglob("*")}
        begin = time.perf_counter()
        status, _, err = run(*command.split(), *words)
        assert time.perf_counter() - begin < 20
        assert status == 1
        assert f"{busy}: another bittrue is working in this folder" in err
        assert {path for path in folder.rglob("*")} == before
