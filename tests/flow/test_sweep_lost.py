"""Sweeps on a cluster of processes that are killed: what happens to workers and scheduler is told; work done stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import LocalCluster

from bittrue.flow.engine import cluster, steps, sweep
from bittrue.flow.systems.light.sweep import Conversions
from bittrue.sim.errors import BittrueError

SMALL = ["network.hidden=[8]", "train.epochs=1", "array.images=60", "array.noise.thermal=0.3"]
GRID = ["array.adc_bits=3,8", "array.rows=16,64"]
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def swept(flow, address, out, **options):
    given = {"overrides": SMALL, "flow": flow, "out": out, "scheduler": address} | options
    return sweep.run("photonic-mlp-digits", GRID, 1, 40, **given)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A flow with a finished sweep, by a worker in this process: what every other one has to give."""
    folder = tmp_path_factory.mktemp("flow")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as local:
        swept(folder, local.scheduler_address, folder / "sweep")
    return folder


@contextmanager
def processes(tmp_path, workers, sources=ROOT):
    """A scheduler and workers as processes of their own: the address, and the processes, the scheduler first."""
    place = tmp_path / "scheduler.json"
    known = {"PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
    quiet = {"cwd": tmp_path, "env": os.environ | known, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(kind, *arguments):
        return subprocess.Popen([sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments], **quiet)

    begun = [start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(place))]
    try:
        while not place.exists():
            assert begun[0].poll() is None
            time.sleep(0.1)
        address = json.loads(place.read_text())["address"]
        options = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--death-timeout", "60")
        begun += [start("worker", address, *options) for _ in range(workers)]
        from distributed import Client

        with Client(address, timeout=120) as client:
            client.wait_for_workers(workers, timeout=240)
        yield address, begun
    finally:
        for process in begun:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


class At(steps.Silent):
    """Calls something once, when so many points are there."""

    def __init__(self, points, action):
        self.points, self.action = points, action

    def progress(self, text, done, total):  # noqa: ARG002
        if "points" in text and done == self.points and self.action:
            self.action, action = None, self.action
            action()


def same(flow, out):
    return (out / sweep.JSON).read_bytes() == (flow / "sweep" / sweep.JSON).read_bytes()


@pytest.mark.long
def test_a_worker_lost_while_it_gets_the_data_costs_nothing(flow, tmp_path):
    """It stands still when the points begin, so that it has not taken the data when it is killed."""
    with processes(tmp_path, 2) as (address, begun):

        def lose():
            begun[1].send_signal(signal.SIGSTOP)
            threading.Timer(3, begun[1].kill).start()

        swept(flow, address, tmp_path / "s", listener=At(0, lose))
        assert begun[1].wait(60) == -signal.SIGKILL
    assert same(flow, tmp_path / "s")


def test_workers_and_scheduler_that_are_gone_are_told_and_the_rest_is_done_later(flow, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 4)
    out = tmp_path / "s"
    (tmp_path / "a").mkdir()
    with processes(tmp_path / "a", 1) as (address, begun):
        with pytest.raises(BittrueError, match="all workers are lost, and for 4 s none came; what is done stays"):
            swept(flow, address, out, listener=At(1, begun[1].kill))
    there = len(list((out / "points").iterdir()))
    assert 1 <= there < 4
    (tmp_path / "b").mkdir()
    with processes(tmp_path / "b", 1) as (address, begun):
        with pytest.raises(BittrueError, match=f"connection to the scheduler at {address} is lost.*what is done stays"):
            swept(flow, address, out, listener=At(there + 1, begun[0].kill))
    assert there < len(list((out / "points").iterdir())) < 5
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as local:
        swept(flow, local.scheduler_address, out)
    assert same(flow, out)


@pytest.mark.long
def test_workers_of_another_version_are_refused_before_any_point(flow, tmp_path):
    other = tmp_path / "other"
    for name in ("bittrue", "sim", "models", "rtl", "hls", "flow"):
        shutil.copytree(ROOT / name, other / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "sim" / "errors.py").open("a") as file:
        file.write("# of last year\n")
    with (
        processes(tmp_path, 1, other) as (address, _),
        pytest.raises(BittrueError, match="the worker at tcp://.* has other sources of bittrue, or another numpy"),
    ):
        swept(flow, address, tmp_path / "s")
    assert not (tmp_path / "s" / "points").exists()


def test_a_worker_without_bittrue_is_refused():
    with pytest.raises(
        BittrueError, match="worker at tcp://w cannot run this bittrue .ModuleNotFoundError: No module na"
    ):
        sweep._compare(Conversions(), {"tcp://w": ModuleNotFoundError("No module named 'bittrue'")})
