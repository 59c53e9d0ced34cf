"""Which cases of a parametrised test `make test` leaves to `make test-all`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def long_but(cases: Iterable[Any], *short: Any) -> list[Any]:
    """These cases, all of them marked `long` but for the short ones, which must be among them.

    A case is what `pytest.mark.parametrize` takes for one name, or a tuple for several names.
    """
    cases = list(cases)
    unknown = [case for case in short if case not in cases]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of the cases")
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*value, marks=() if case in short else pytest.mark.long)
        for case, value in zip(cases, values, strict=True)
    ]
