"""Constants, defaults and what decorators made are those that are kept; see `tests.helpers.numbers`."""

import pytest

from tests.helpers import numbers

REMEDY = "if that is meant, write the table with `python -m tests.helpers.numbers`, and say in the commit why"


@pytest.mark.parametrize("package", numbers.PACKAGES)
def test_what_is_said_once_is_said_twice(package):
    kept = {name: told for name, told in numbers.read().items() if name.startswith(f"{package}.")}
    found = {module.__name__: numbers.said(module) for module in numbers.modules(package)}
    found = {name: told for name, told in found.items() if told}
    assert len(kept) > 30
    for name in kept | found:
        before, now = kept.get(name, {}), found.get(name, {})
        changed = [
            f"{key}: {before.get(key)} became {now.get(key)}" for key in before | now if before.get(key) != now.get(key)
        ]
        assert not changed, f"{name}: {changed}; {REMEDY}"
