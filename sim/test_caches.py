"""Caches: where the user's own cannot be written, every tool finds another, and people are told."""

import os
from pathlib import Path

import pytest

from bittrue.sim import caches
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels import jit


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing remembered, another temporary folder, no cache named."""
    monkeypatch.setattr(caches, "_replaced", {})
    monkeypatch.setattr(caches.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for function in (caches._refused, caches._temporary):
        function.cache_clear()
    yield
    for function in (caches._refused, caches._temporary):
        function.cache_clear()


def test_what_is_named_is_used_and_made_by_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert caches.folder("rtl") == tmp_path / "cache" / "bittrue" / "rtl"
    assert caches.complaint() is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.folder("rtl") == tmp_path / ".cache" / "bittrue" / "rtl"
    assert "XDG_CACHE_HOME" not in os.environ


@pytest.mark.parametrize("where", ["home", "cache", "bittrue", "YoWASP", "wasmtime", "ccache"])
def test_one_that_cannot_be_written_is_replaced_for_all_tools(where, monkeypatch, tmp_path):
    """A file stands where the folder of any of them would be."""
    blocked = {"home": tmp_path / "home", "cache": tmp_path / "home" / ".cache"}
    blocked = blocked.get(where, tmp_path / "home" / ".cache" / where)
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = caches.prepare()
    assert place == tmp_path / f"bittrue-cache-{os.geteuid()}"
    assert os.environ["XDG_CACHE_HOME"] == str(place)
    assert place.stat().st_mode & 0o777 == 0o700
    for _ in range(2):  # once replaced, it is still known why
        assert str(tmp_path / "home" / ".cache") in caches.complaint()
        assert "XDG_CACHE_HOME" in caches.complaint()
    assert caches.folder("hls") == place / "bittrue" / "hls"


def test_a_user_without_a_home(monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(caches.Path, "home", homeless)
    assert caches.prepare().parent == tmp_path
    assert "no home directory" in caches.complaint()


def test_a_folder_that_somebody_else_made_is_not_trusted(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    (tmp_path / f"bittrue-cache-{os.geteuid()}").mkdir(mode=0o755)
    place = caches.prepare()
    assert place.parent == tmp_path
    assert place.name != f"bittrue-cache-{os.geteuid()}"
    assert place.stat().st_mode & 0o777 == 0o700


def test_without_any_place_it_is_a_sentence(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    monkeypatch.setattr(caches.tempfile, "tempdir", "/dev/null/tmp")
    told = r"neither the cache nor a temporary folder can be written \(Not a directory\); set TMPDIR"
    with pytest.raises(BittrueError, match=told):
        caches.prepare()


KERNELS = Path(jit.__file__).parent


@pytest.mark.parametrize("module", sorted(p.name for p in KERNELS.glob("*.py") if not p.name.startswith("test_")))
def test_compiled_code_is_kept_as_long_as_no_kernel_changes(module, monkeypatch):
    """Whatever module changes: one function is compiled into another, across files."""
    stamp, read = jit._stamp.__wrapped__, Path.read_bytes
    before = stamp(jit.__file__)
    monkeypatch.setattr(Path, "read_bytes", lambda p: read(p) + b"\n" * (p.name == module))
    assert stamp(jit.__file__) != before
