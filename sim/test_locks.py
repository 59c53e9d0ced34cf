"""A folder belongs to one process at a time, and to nobody once that has ended."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bittrue.sim import locks
from bittrue.sim.errors import BittrueError
from bittrue.sim.locks import locked

ROOT = Path(locks.__file__).resolve().parents[1]
HOLD = (
    "import sys, time; from bittrue.sim.locks import locked\n"
    "with locked(sys.argv[1]): print(1, flush=True); time.sleep(60)"
)


def test_a_second_one_is_refused_at_once_and_nothing_is_left(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder) as made:
        assert made == folder
        with pytest.raises(BittrueError, match="a/b: another bittrue is working in this folder; wait"):
            locked(folder).__enter__()
        with locked(tmp_path / "a"):
            pass
    assert list(folder.iterdir()) == []
    with locked(folder):
        pass


def test_an_error_lets_it_go(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_it_goes_with_a_process_that_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(BittrueError, match="another bittrue"):
            locked(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_folder(tmp_path):
    """A file that is open when the disk is full says nothing of its place."""
    for error in (OSError(28, "No space left on device"), OSError(28, "No space left on device", "some/file")):
        with pytest.raises((BittrueError, OSError), match=f"{tmp_path}: cannot be written|some/file"), locked(tmp_path):
            raise error
    with pytest.raises(ConnectionError), locked(tmp_path):
        raise ConnectionError(111, "Connection refused")


def test_many_at_once_never_share_it(tmp_path):
    inside, most, entered = [0], [0], [0]

    def work():
        for _ in range(300):
            try:
                with locked(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    entered[0] += 1
                    inside[0] -= 1
            except BittrueError:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert entered[0] > 100


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BittrueError, match="file/x: cannot be written"):
        locked(tmp_path / "file" / "x").__enter__()
    (tmp_path / locks.LOCK).mkdir()
    with pytest.raises(BittrueError, match="cannot be written"):
        locked(tmp_path).__enter__()
