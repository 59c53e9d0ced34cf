"""What a source may do with TLAST: right, never, always, once early, late or missing, at random."""

from __future__ import annotations

import numpy as np

CASES = ("right", "never", "always", "early", "late", "missing", "random")


def flags(case: str, beats: int, rng: np.random.Generator) -> list[bool]:
    """TLAST of every beat that a source sends, without a frame at the end that is not whole."""
    right = [False] * (beats - 1) + [True]
    k = (beats - 1) // 2
    if case == "random":
        found = [bool(rng.random() < 1.5 / beats) for _ in range(5 * beats)]
        at = 0
        for flag in found:
            at = 0 if flag or at == beats - 1 else at + 1
        return found + [False] * (beats - 1 - at) + [True] if at else found
    return {
        "right": 3 * right,
        "never": [False] * 3 * beats,
        "always": [True] * 5,
        "early": right + [False] * k + [True] + 2 * right,
        "late": right + [False] * beats + [False] * k + [True] + 2 * right,
        "missing": right + [False] * beats + 2 * right,
    }[case]
