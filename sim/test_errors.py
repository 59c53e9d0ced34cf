"""The machine's own errors as sentences."""

import errno
import os
import subprocess
import sys

import pytest

from bittrue.sim.errors import BittrueError, sentence


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EMFILE, errno.EIO])
def test_a_place_and_a_remedy(number):
    told = sentence(OSError(number, os.strerror(number), "some/file"))
    assert told.startswith(f"some/file: {os.strerror(number)}; ")
    assert any(word in told for word in ("choose", "free space", "ulimit"))


def test_an_error_without_a_place():
    assert sentence(OSError("No usable temporary directory found")).startswith("the machine refused: No usable")


def test_both_places_of_a_move():
    assert sentence(OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")).startswith("a and b: Invalid")


def test_programs():
    words = [sys.executable, "-c", "import sys; sys.exit('it is broken')"]
    with pytest.raises(subprocess.CalledProcessError) as failed:
        subprocess.run(words, check=True, capture_output=True)
    assert sentence(failed.value) == f"{sys.executable} ended with status 1: it is broken; see `bittrue doctor`"
    assert "took longer than 2 s" in sentence(subprocess.TimeoutExpired("yosys", 2))


def test_memory():
    assert "the memory is full (Unable to allocate 9 EiB); close" in sentence(MemoryError("Unable to allocate 9 EiB"))
    assert "the memory is full; close" in sentence(MemoryError())


def test_ours_and_faults():
    assert sentence(BittrueError("x: y; z")) == "x: y; z"
    assert sentence(KeyError("x")) is None
    assert sentence(AssertionError("x")) is None


def test_words_without_end_are_cut():
    """The longest that stays, and what stays of one that is a letter longer."""
    whole, cut = "ab" * 249 + "c", "ab" * 50 + "x" * 380 + "yz" * 10
    assert (len(whole), len(cut)) == (499, 500)
    assert str(BittrueError(f"a {whole} b {whole}")) == f"a {whole} b {whole}"
    assert str(BittrueError(f"a {cut} b")) == f"a {'ab' * 50}...{'yz' * 10} b"
