"""A sample of the corpus of damaged files (`make damage` runs 10,000), and what the corpus itself would notice."""

import time

import numpy as np
import pytest

from bittrue.sim.errors import BittrueError
from tests.helpers.corpus import Corpus
from tests.helpers.corpus_formats import FORMATS
from tests.helpers.corpus_kinds import Format

#: Cases of each format: some three hundred in all.
EACH = 15


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"), seed=0)


@pytest.mark.parametrize("index", range(len(FORMATS)), ids=[of.name for of in FORMATS])
def test_a_sentence_or_the_same_content(corpus, index):
    outcomes = [corpus.run(index + k * len(FORMATS)) for k in range(EACH)]
    assert not [str(outcome) for outcome in outcomes if outcome.fault]
    assert any(outcome.kind == "a sentence" for outcome in outcomes)


def careless(name: str, read) -> Format:
    """A format of a text of one word, with a reader that takes no care."""
    make = lambda place: (place / "x").write_text("0123456789")  # noqa: E731
    damage = ("letter", lambda rng, content: bytes([65 + rng.integers(26)]) + content[1:], True)
    return Format(name, make, lambda place: read((place / "x").read_text()), {"x": (damage,)})


def other_exception(text: str) -> int:
    return int(text)


def silence(text: str) -> str:
    return text


def no_sentence(text: str) -> str:
    if text.isdigit():
        return text
    raise BittrueError("two\nlines")


def memory(text: str) -> str:
    return text if text.isdigit() else str(np.ones(1 << 30).size)


def overflow(text: str) -> str:
    return text if text.isdigit() else str(np.float64(1e308) * np.float64(10))


def endless(text: str) -> str:
    begin = time.monotonic()
    while not text.isdigit() and time.monotonic() < begin + 60:
        try:
            time.sleep(0.01)
        except Exception:
            continue
    return text


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (other_exception, "ValueError"),
        (silence, "other content"),
        (no_sentence, "no sentence"),
        (memory, "MemoryError"),
        (overflow, "RuntimeWarning"),
        (endless, "no end"),
    ],
)
def test_what_the_corpus_notices(read, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.helpers.corpus.SECONDS", 0.5)
    outcome = Corpus(tmp_path, 0, (careless("careless", read),)).run(0)
    assert outcome.fault
    assert outcome.kind == kind
