"""Which steps of a tile may be added up in 16 bits before they are widened: chosen so that no sum can leave them.

`vpmaddubsw` multiplies unsigned codes with signed weights and adds neighbouring products in a word, saturating. A word
of a group of steps holds at most `largest code * (sum of its positive weights)`, and at least the same of its negative
ones. Where both fit in a word the group is exact whatever the codes are: words that wrap on the way have wrapped back.
Fewer groups are faster, and steps may be made in any order, so this is bin packing: heavy steps first, each to the
fullest group that still holds it.
"""

from __future__ import annotations

import numpy as np

from bittrue.sim.contract import Range

#: Ends of a word.
LOW, HIGH = -(1 << 15), (1 << 15) - 1


def loads(weight: np.ndarray, largest: int) -> np.ndarray:
    """What each step adds at most and at least to its words, by weights `[outputs, steps, 4]`: int64 `[2, steps,
    words]`, the second negative."""
    outputs, steps, _ = weight.shape
    pairs = weight.astype(np.int64).reshape(outputs, steps, 2, 2).transpose(1, 0, 2, 3).reshape(steps, -1, 2)
    return largest * np.stack([np.maximum(pairs, 0).sum(-1), np.minimum(pairs, 0).sum(-1)])


def exact(weight: np.ndarray, codes: Range) -> bool:
    """Whether any two products fit in a word, so that there are such groups whatever lies side by side."""
    if codes.low < 0 or codes.high > 255:
        return False
    most, least = (2 * codes.high * int(end(initial=0)) for end in (weight.max, weight.min))
    return LOW <= least and most <= HIGH


def choose(weight: np.ndarray, largest: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, list[int]]:
    """Steps of a panel in the order in which they are made, and how many groups there are of each of `sizes`.

    weight   `[outputs, steps, 4]`
    """
    most, least = loads(weight, largest)
    load = np.concatenate([most, -least], axis=1)
    limit = np.repeat([HIGH, -LOW], most.shape[1])
    members: list[list[int]] = []
    held, size = np.zeros_like(load), np.zeros(len(load), np.int64)
    for step in np.argsort(-load.max(1, initial=0), kind="stable"):
        opened = len(members)
        total = held[:opened] + load[step]
        fits = (total <= limit).all(1) & (size[:opened] < sizes[0])
        if fits.any():
            group = int(np.where(fits, total.max(1), -1).argmax())
        else:
            group = opened
            members.append([])
        held[group] += load[step]
        size[group] += 1
        members[group].append(int(step))
    of = [[group for group in members if len(group) == k] for k in sizes]
    return np.array([step for groups in of for group in groups for step in group], np.int64), [len(g) for g in of]
