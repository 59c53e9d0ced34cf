"""The machine's own errors as sentences."""

import errno
import os
import subprocess
import sys

import pytest

from bittrue.sim.errors import BittrueError, sentence
from bittrue.sim.extras import explained


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


@pytest.mark.parametrize(
    ("output", "stderr", "said"),
    [("made it", "broke", ": broke"), ("made it", "", ": made it"), (None, None, ""), (b"a\nb \n", None, ": b")],
)
def test_of_what_a_program_said_the_last_line_of_its_errors_is_told(output, stderr, said):
    failed = subprocess.CalledProcessError(3, ("tool", "x"), output, stderr)
    assert sentence(failed) == f"tool ended with status 3{said}; see `bittrue doctor`"


@pytest.mark.parametrize(("name", "extra"), [("torch.nn", "train"), ("numpy", None), ("odd", None), (None, None)])
def test_an_import_that_fails_is_explained_where_an_extra_brings_it(name, extra):
    with pytest.raises(ModuleNotFoundError if extra is None else BittrueError) as failed, explained():
        raise ModuleNotFoundError("no such module", name=name)
    assert isinstance(failed.value, BittrueError) == (extra is not None)
    assert str(failed.value).endswith(f"run pip install 'bittrue[{extra}]'" if extra else "no such module")


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
