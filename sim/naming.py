"""Names of tensors as identifiers of Verilog and C++, one for each tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable


def identifier(text: str, taken: set[str]) -> str:
    """An identifier of the text's ASCII letters and digits that is not yet `taken`; it is from then on.

    >>> taken = {"o"}
    >>> [identifier(name, taken) for name in ("block.0", "block_0", "o")]
    ['block_0', 'block_0_2', 'o_2']
    """
    stem = re.sub(r"\W", "_", text, flags=re.ASCII) or "_"
    found, number = stem, 1
    while found in taken:
        number += 1
        found = f"{stem}_{number}"
    taken.add(found)
    return found


def slave_prefixes(inputs: Iterable[str]) -> list[str]:
    """Prefixes of the AXI4-Stream slave ports of a program's inputs: `s_axis`, or `s_axis_<input>` each if several."""
    return _prefixes("s_axis", list(inputs))


def master_prefixes(results: Iterable[str]) -> list[str]:
    """Prefixes of the AXI4-Stream master ports of a program's results: `m_axis`, or `m_axis_<result>` each if several.

    >>> master_prefixes(["y"]), master_prefixes(["a.b", "a_b"])
    (['m_axis'], ['m_axis_a_b', 'm_axis_a_b_2'])
    """
    return _prefixes("m_axis", list(results))


def _prefixes(stem: str, names: list[str]) -> list[str]:
    taken: set[str] = set()
    return [stem] if len(names) == 1 else [f"{stem}_{identifier(name, taken)}" for name in names]
