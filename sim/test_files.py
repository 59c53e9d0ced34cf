"""Writing: whole or not at all, what a name stands for is kept, and a place is tried without a trace."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from bittrue.sim import files
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import beside, make_folder, try_file, try_folder, write_whole

ROOT = Path(files.__file__).resolve().parents[1]
#: Bytes of more than a pipe holds.
CONTENT = bytes(range(256)) * 1024


@pytest.fixture(params=["unnamed", "named"])
def kind(request, monkeypatch):
    """Both ways of a temporary file: without a name, and with one where the file system has no other."""
    if request.param == "named":
        monkeypatch.setattr(files, "_NAMED_ONLY", (95,))
        real = os.open

        def refuse(path, flags, *mode, **at):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "Operation not supported")
            return real(path, flags, *mode, **at)

        monkeypatch.setattr(files.os, "open", refuse)
    return request.param


@contextmanager
def umask(value: int):
    old = os.umask(value)
    try:
        yield
    finally:
        os.umask(old)


@contextmanager
def unwritable(folder: Path):
    """A folder that takes no new files; for root, whom no mode keeps out, a file system mounted for reading."""
    if os.geteuid():
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], capture_output=True).returncode:
        pytest.skip("neither a user without rights nor one who may mount")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


class TestKinds:
    @pytest.mark.usefixtures("kind")
    def test_new_and_replaced(self, tmp_path):
        place = tmp_path / "a" / "b" / "file"
        assert write_whole(place, CONTENT) == place
        assert place.read_bytes() == CONTENT
        write_whole(place, b"other")
        assert place.read_bytes() == b"other"
        assert [p.name for p in place.parent.iterdir()] == ["file"]

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    @pytest.mark.usefixtures("kind")
    def test_the_umask_is_kept(self, mask, tmp_path):
        with umask(mask):
            write_whole(tmp_path / "file", b"")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask

    @pytest.mark.usefixtures("kind")
    def test_a_replaced_file_keeps_its_mode_and_owner(self, tmp_path):
        place = tmp_path / "file"
        place.write_bytes(b"old")
        place.chmod(0o640)
        owner = 1234 if os.geteuid() == 0 else os.geteuid()
        os.chown(place, owner, -1)
        write_whole(place, b"new")
        assert (stat.S_IMODE(place.stat().st_mode), place.stat().st_uid) == (0o640, owner)

    @pytest.mark.usefixtures("kind")
    def test_a_link_stays_and_its_target_is_written(self, tmp_path):
        (tmp_path / "far").mkdir()
        for name, target in (("absolute", tmp_path / "far" / "a"), ("relative", Path("far/b")), ("twice", "relative")):
            (tmp_path / name).symlink_to(target)
            write_whole(tmp_path / name, name.encode())
            assert (tmp_path / name).is_symlink()
            assert (tmp_path / name).resolve().parent == tmp_path / "far"
            assert (tmp_path / name).resolve().read_bytes() == name.encode()
            assert not (tmp_path / name).resolve().is_symlink()

    def test_a_pipe_is_written_into(self, tmp_path):
        pipe, got = tmp_path / "pipe", []
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
        reader.start()
        try_file(pipe)
        write_whole(pipe, CONTENT)
        reader.join(10)
        assert got == [CONTENT]
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_a_device_is_written_into(self, tmp_path):
        for name, number in (("null", 3), ("full", 7)):  # not the machine's own, which a fault would replace
            if os.geteuid():
                (tmp_path / name).symlink_to(f"/dev/{name}")
            else:
                os.mknod(tmp_path / name, 0o666 | stat.S_IFCHR, os.makedev(1, number))
        for name in ("null", "full"):
            try_file(tmp_path / name)
        write_whole(tmp_path / "null", CONTENT)
        with pytest.raises(BittrueError, match=r"full: cannot be written \(No space left on device\); free space"):
            write_whole(tmp_path / "full", CONTENT)
        for name in ("null", "full"):
            assert stat.S_ISCHR((tmp_path / name).stat().st_mode)

    @pytest.mark.parametrize("kind_of_output", ["pipe", "file"])
    def test_standard_output_is_written_in_order(self, kind_of_output, tmp_path):
        code = (
            "import sys; from bittrue.sim.files import write_whole\n"
            "print('before'); write_whole(sys.argv[1], b'content\\n'); print('after')"
        )
        (tmp_path / "link").symlink_to("/dev/stdout")  # a fault may replace this, not the machine's own
        with (tmp_path / "out").open("wb") as out:
            where = out if kind_of_output == "file" else subprocess.PIPE
            done = subprocess.run([sys.executable, "-c", code, tmp_path / "link"], stdout=where, cwd=ROOT, check=True)
        got = (tmp_path / "out").read_bytes() if kind_of_output == "file" else done.stdout
        assert got == b"before\ncontent\nafter\n"


class TestRefused:
    @pytest.mark.parametrize("place", ["folder", "file/x", "file/x/y", "loop", "sealed"])
    @pytest.mark.parametrize("act", [lambda p: write_whole(p, b"x"), try_file], ids=["write", "try"])
    def test_places(self, place, act, tmp_path, monkeypatch):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "sealed").write_bytes(b"old")
        real = os.access
        monkeypatch.setattr(files.os, "access", lambda p, how: Path(p).name != "sealed" and real(p, how))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(BittrueError, match=f"{place}: cannot be written .*; choose another place") as refused:
            act(tmp_path / place)
        assert str(tmp_path / place) in str(refused.value)
        assert sorted(tmp_path.rglob("*")) == before
        assert (tmp_path / "sealed").read_bytes() == b"old"

    def test_folders(self, tmp_path):
        (tmp_path / "file").touch()
        (tmp_path / "nowhere").symlink_to("file/x")
        for name in ("file", "file/x", "nowhere"):
            for act in (try_folder, make_folder):
                with pytest.raises(BittrueError, match=f"{name}: cannot be written"):
                    act(tmp_path / name)

    @pytest.mark.usefixtures("kind")
    def test_a_folder_that_takes_nothing(self, tmp_path):
        folder = tmp_path / "closed"
        folder.mkdir()
        with unwritable(folder):
            for act in (lambda p: write_whole(p, b"x"), try_file, try_folder, make_folder):
                with pytest.raises(BittrueError, match=r"cannot be written \((Read-only|Permission)"):
                    act(folder / "new")

    @pytest.mark.usefixtures("kind")
    def test_trying_leaves_nothing(self, tmp_path):
        (tmp_path / "file").write_bytes(b"old")
        for act in (try_file, try_folder):
            act(tmp_path / "a" / "b")
        try_file(tmp_path / "file")
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() == b"old"

    def test_nothing_stands_beside_a_device(self, tmp_path):
        assert beside(tmp_path / "a.v", "a.svd", "an SVD file") == tmp_path / "a.svd"
        with pytest.raises(BittrueError, match="/dev/null: an SVD file is written beside it"):
            beside("/dev/null", "a.svd", "an SVD file")


class TestKilled:
    @pytest.mark.usefixtures("kind")
    def test_an_error_and_an_interrupt_leave_the_old_file(self, tmp_path, monkeypatch):
        place = tmp_path / "file"
        place.write_bytes(b"old")
        for error in (KeyboardInterrupt, OSError(28, "No space left on device")):
            monkeypatch.setattr(files.os, "replace", lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises((KeyboardInterrupt, BittrueError)):
                write_whole(place, b"new")
            assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}

    def test_a_kill_leaves_the_old_file_and_nothing_else(self, tmp_path):
        """Killed at any moment of writing 64 MB again and again."""
        code = (
            "import sys; from bittrue.sim.files import write_whole; print(flush=True)\n"
            "while True: write_whole(sys.argv[1], bytes(1 << 26))"
        )
        (tmp_path / "file").write_bytes(b"old")
        for moment in range(4):
            words = [sys.executable, "-c", code, tmp_path / "file"]
            with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as writing:
                writing.stdout.readline()
                time.sleep(0.013 * moment)
                writing.send_signal(signal.SIGKILL)
            assert [p.name for p in tmp_path.iterdir()] == ["file"]
            assert (tmp_path / "file").stat().st_size in (3, 1 << 26)

    def test_nothing_stays_open(self, kind, tmp_path):  # noqa: ARG002
        write_whole(tmp_path / "file", b"1")
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            write_whole(tmp_path / "file", b"2")
        assert os.listdir("/proc/self/fd") == before

    def test_where_files_have_names_the_next_write_removes_what_was_left(self, kind, tmp_path):
        left, young, foreign = tmp_path / ".x.0.bittrue-part", tmp_path / ".y.0.bittrue-part", tmp_path / ".z.part"
        for file in (left, young, foreign):
            file.touch()
        for file in (left, foreign):
            os.utime(file, (0, 0))
        write_whole(tmp_path / "file", b"")
        assert young.exists()
        assert foreign.exists()
        assert left.exists() == (kind == "unnamed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_in_a_folder_that_takes_no_new_ones_is_written_in_place(tmp_path):
    """A file bound over another, as containers have them: nothing can be moved onto it."""
    place, real = tmp_path / "file", tmp_path / "real"
    place.touch()
    real.touch()
    if subprocess.run(["mount", "--bind", real, place], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        write_whole(place, b"content")
    finally:
        subprocess.run(["umount", place], check=True)
    assert real.read_bytes() == b"content"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "real"]
