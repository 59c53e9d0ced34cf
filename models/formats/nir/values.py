"""The fields of a NIR node as numbers in the range that they can have, or a sentence that names the field."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.lif import MAX_SHIFT
from bittrue.sim.reading import shown

#: Keys of a node's metadata that `models.formats.nir.write` leaves, so that reading back gives the same integers, and
#: between what their values lie.
FRACTION_KEY, GUARD_KEY, SHIFT_KEY = "bittrue_fraction", "bittrue_guard", "bittrue_shift"
HINTS = {FRACTION_KEY: (-48, 48), GUARD_KEY: (0, 32), SHIFT_KEY: (0, MAX_SHIFT)}
#: Most axes of a tensor, and of its entries.
MAX_AXES, MAX_SIZE = 8, 1 << 24


def numbers(node: nir.NIRNode, name: str, key: str) -> np.ndarray:
    """A field as finite float64, of whatever shape."""
    given = getattr(node, key, None)
    try:
        values = np.asarray(given)
    except ValueError:  # rows of other lengths
        values = np.asarray(None)
    if values.dtype.kind not in "biuf" or not values.size:
        raise refused(node, name, f"{key} is {shown(given)}, and not numbers")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        more = "; export a neuron without leak as an IF" if key.startswith("tau") else ""
        raise refused(node, name, f"{key} is not finite{more}")
    return values


def whole(node: nir.NIRNode, name: str, key: str, axes: int | None, low: int, high: int = 1 << 20) -> tuple[int, ...]:
    """A field of whole numbers in low..high: one for every axis or for all, or, where `axes` is None, any number."""
    return whole_numbers(getattr(node, key, None), (node, name, key), axes, low, high)


def whole_numbers(
    given: Any, place: tuple[nir.NIRNode, str, str], axes: int | None, low: int, high: int
) -> tuple[int, ...]:
    """As `whole`, of a value that is at hand; `place` is the node, its name and the field's name."""
    node, name, key = place
    values = np.asarray(given)
    fits = values.dtype.kind in "iu" and values.ndim <= 1 and values.size > 0
    if fits and (values.min() < low or values.max() > high):
        raise refused(node, name, f"{key} is {shown(values.tolist())}, and {low} to {high} can be")
    if not fits or (axes is not None and values.size not in (1, axes)):
        many = "whole numbers" if axes is None else "a whole number" if axes == 1 else f"{axes} whole numbers"
        raise refused(node, name, f"{key} is {shown(given)}, and not {many}")
    found = tuple(int(v) for v in values.reshape(-1))
    return found * axes if axes is not None and len(found) == 1 else found


def shape(node: nir.NIRNode, name: str, types: Any, key: str) -> tuple[int, ...]:
    """The shape that an Input or Output declares."""
    given = types.get(key) if isinstance(types, dict) else types
    found = whole_numbers(given, (node, name, "shape"), None, 1, MAX_SIZE)
    size = 1
    for n in found:
        size *= n
    if len(found) > MAX_AXES or size > MAX_SIZE:
        raise refused(node, name, f"its shape is {shown(list(found))}; at most {MAX_SIZE} values are read")
    return found


def hints(node: nir.NIRNode, name: str) -> dict[str, int]:
    """The metadata of a node that say with which integers it was written."""
    if not isinstance(node.metadata, dict):
        raise refused(node, name, f"metadata is {shown(node.metadata)}, and not keys with values")
    found = {key: node.metadata[key] for key in HINTS if key in node.metadata}
    return {
        key: whole_numbers(value, (node, name, f"metadata {key}"), 1, *HINTS[key])[0] for key, value in found.items()
    }


def refused(node: nir.NIRNode, name: str, why: str) -> BittrueError:
    return BittrueError(f"NIR node {name!r} ({type(node).__name__}): {why}")
