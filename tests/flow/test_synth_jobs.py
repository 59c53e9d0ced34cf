"""Several designs synthesised side by side: rows in order, what is told, what fails, how many at a time."""

import threading
from types import SimpleNamespace

import pytest

from bittrue.flow.engine import machine
from bittrue.flow.synth import designs
from bittrue.flow.synth.designs import MEMORY, Job, side_by_side, synthesize_designs
from bittrue.sim.errors import BittrueError


def jobs(*names, folder):
    return [Job(SimpleNamespace(name=name), f"module {name}", "ecp5-85k", folder / name) for name in names]


def nothing(*_):
    pass


def test_rows_are_in_the_order_of_the_jobs_and_some_run_at_once(tmp_path, monkeypatch):
    """The first cannot end before the second has begun, and the third waits for a place."""
    begun, at_once, most = threading.Barrier(2, timeout=30), [], []
    told = []

    def synthesize(design, target, folder, frequency, tell, verilog, seed):
        at_once.append(design.name)
        most.append(len(at_once))
        tell("yosys reads")
        if design.name != "c":
            begun.wait()
        at_once.remove(design.name)
        return {"row": [design.name, target, folder.name, frequency, verilog, seed]}

    monkeypatch.setattr(designs, "synthesize_design", synthesize)
    monkeypatch.setattr(designs, "PAUSE", 0.001)
    rows = synthesize_designs(jobs("a", "b", "c", folder=tmp_path), 120, 7, lambda *one: told.append(one), workers=2)
    assert [row["row"] for row in rows] == [[n, "ecp5-85k", n, 120, f"module {n}", 7] for n in "abc"]
    assert max(most) == 2
    for words, done, of in told:
        assert 0 <= done <= of == 3
        assert len(words.split("; ")) <= 2


def test_what_they_do_is_told(tmp_path, monkeypatch):
    """Of those that run, and no more of one that has ended: a waits until both are told, b until it is told alone."""
    told, both, alone = [], threading.Event(), threading.Event()

    def synthesize(design, target, folder, frequency, tell, *_):  # noqa: ARG001
        tell(f"{design.name} is mapped")
        assert (both if design.name == "a" else alone).wait(10)
        return {}

    def progress(*one):
        told.append(one)
        if one == ("a on ecp5-85k: a is mapped; b on ecp5-85k: b is mapped", 0, 2):
            both.set()
        elif both.is_set() and one[0] == "b on ecp5-85k: b is mapped":
            alone.set()

    monkeypatch.setattr(designs, "synthesize_design", synthesize)
    monkeypatch.setattr(designs, "PAUSE", 0.001)
    assert synthesize_designs(jobs("a", "b", folder=tmp_path), 100, 1, progress, workers=2) == [{}, {}]
    assert told[-1][0] == "b on ecp5-85k: b is mapped"
    assert told[-1][1] <= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_fails_ends_the_others(workers, tmp_path, monkeypatch):
    """Those that run end at their next stage, those that wait never begin."""
    begun, failed, ended = [], threading.Event(), threading.Event()

    def synthesize(design, target, folder, frequency, tell, *_):  # noqa: ARG001
        begun.append(design.name)
        if design.name == "b" and workers == 2:
            try:
                while True:
                    failed.wait(0.001)
                    tell("the next stage")
            finally:
                ended.set()
        if design.name == "a" and workers == 2:
            while "b" not in begun:
                failed.wait(0.001)
        raise BittrueError("synth: it does not fit")

    monkeypatch.setattr(designs, "synthesize_design", synthesize)
    with pytest.raises(BittrueError, match="it does not fit"):
        synthesize_designs(jobs("a", "b", "c", folder=tmp_path), 100, 1, nothing, workers=workers)
    assert begun == ["a", "b"][:workers]
    assert ended.is_set() == (workers == 2)


@pytest.mark.parametrize(
    ("count", "cores", "memory", "expected"),
    [
        (3, 2, 100 * MEMORY, 2),
        (1, 2, 100 * MEMORY, 1),
        (3, 8, 100 * MEMORY, 3),
        (3, 8, 2 * MEMORY, 2),
        (3, 8, 2 * MEMORY - 1, 1),
        (3, 8, MEMORY - 1, 1),
        (3, 8, None, 3),
    ],
)
def test_how_many_at_a_time(count, cores, memory, expected, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "memory", lambda: memory)
    assert side_by_side(count) == expected


def test_memory_is_what_the_system_says_is_available(tmp_path, monkeypatch):
    told = tmp_path / "meminfo"
    monkeypatch.setattr(machine, "_MEMORY", told)
    assert machine.memory() is None
    told.write_text("MemTotal:       24689764 kB\nMemFree:          521344 kB\nMemAvailable:    4194304 kB\n")
    assert machine.memory() == 4 << 30
    told.write_text("MemTotal:       24689764 kB\n")
    assert machine.memory() is None
