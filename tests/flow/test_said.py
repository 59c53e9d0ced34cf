"""What is told of designs, energies and spikes is what was told before; see `tests.helpers.said`."""

import json

import pytest

from tests.helpers import said

REMEDY = "if that is meant, write the table with `python -m tests.helpers.said`, and say in the commit why"


@pytest.mark.parametrize("name", said.SAID)
def test_what_is_told_is_what_was_told(name):
    kept, found = json.loads(said.KEPT.read_text()).get(name, {}), said.found(name)
    changed = [
        f"{key}: {kept.get(key)} became {found.get(key)}" for key in kept | found if kept.get(key) != found.get(key)
    ]
    assert not changed, f"{name}: {changed[:20]}; {REMEDY}"
