"""What the tests of models share."""

import itertools

import pytest

from bittrue.models.training import loop


@pytest.fixture
def last_epoch_kept(monkeypatch):
    """Every epoch counts as better than all before it, so that a training ends with its last parameters."""
    better = itertools.count()
    monkeypatch.setattr(loop, "accuracy_and_loss", lambda *_: (float(next(better)), 0.0))
