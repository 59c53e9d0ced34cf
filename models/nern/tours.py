"""Tours: the order in which the kernels of a layer get their coordinates, so that neighbours are alike.

A generator is smooth in its coordinates, and neighbouring kernels of a trained network are not alike. So the kernels
are ordered, by greedy tours: begin with kernel 0, go on to the most similar one not yet visited. The similarity of two
kernels is their cosine, 0 where one is all zeros.

crossfilter   one tour over all kernels of a layer
infilter      a tour over the kernels of each filter, and one over the filters, whose similarity is the sum over the
              toured channels of their kernels' cosines
none          as they are

Kernels of one value: within a filter the most similar is the nearest (`-(a - b)^2`), across filters the cosine is 1 for
equal signs. An order is int64 `[kernels]`: `order[r]` is the kernel, f channels + c, that gets the r-th coordinate
(r div channels, r mod channels) of its layer. So hardware that runs through the coordinates writes to `order[r]`.

Crossfilter tours go by a k-d tree with deletion (`models.nern.nearest`), exact, and several layers at once. A layer's
tour is kept in a file named by the hash of its content. Source: Ashkenazi et al. 2022 (arXiv:2212.13554), section 3.3.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bittrue.models.nern.nearest import greedy
from bittrue.sim import caches
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.reading import sealed, unsealed

#: Changes when tours of the same content become others.
VERSION = 1
MODES = ("infilter", "crossfilter", None)


@dataclass(frozen=True, eq=False)
class Tour:
    """The tour of a layer.

    order         int64 `[filters * channels]`
    similarity    the sum of the cosines of kernels that follow each other in the order of coordinates
    """

    order: np.ndarray
    similarity: float


def tours(
    weights: Sequence[np.ndarray],
    mode: str | None,
    *,
    folder: Path | None = None,
    keep: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tour]:
    """The tours of layers of weights `[filters, channels, k, k]`.

    folder      where tours are kept; by default in bittrue's cache; `keep` False: nowhere
    workers     layers at once, at most the cores
    progress    called with the kernels that have been toured, and all
    """
    if mode not in MODES:
        raise BittrueError(f"permutations: {mode!r} is no mode; take infilter, crossfilter or None")
    weights = [_checked(number, weight) for number, weight in enumerate(weights)]
    place = None if not keep or mode is None else folder or caches.folder("tours")
    total, done = sum(w.shape[0] * w.shape[1] for w in weights), 0
    found: dict[int, Tour] = {}
    # the largest first, so that no core is idle at the end; threads, as the tours hold no lock of Python's
    largest = sorted(range(len(weights)), key=lambda number: -weights[number].size)
    with ThreadPoolExecutor(max(1, min(workers or 1, os.cpu_count() or 1))) as pool:
        jobs = {number: pool.submit(_toured, weights[number], mode, place) for number in largest}
        for number, job in jobs.items():
            order = job.result()
            found[number] = Tour(order, similarity(weights[number], order))
            done += order.size
            if progress is not None:
                progress(done, total)
    return [found[number] for number in range(len(weights))]


def _checked(number: int, weight: np.ndarray) -> np.ndarray:
    weight = np.asarray(weight, np.float64)
    if weight.ndim != 4 or not weight.size or weight.shape[2] != weight.shape[3]:
        raise BittrueError(
            f"permutations: layer {number} has weights {weight.shape}; give square kernels [filters, channels, k, k]"
        )
    if not np.isfinite(weight).all():
        raise BittrueError(f"permutations: a weight of layer {number} is not finite; train the original anew")
    return weight


def _toured(weight: np.ndarray, mode: str | None, place: Path | None) -> np.ndarray:
    """The order of a layer, from its file if it has one."""
    filters, channels = weight.shape[:2]
    if mode is None:
        return np.arange(filters * channels)
    file = None
    if place is not None:
        sha = hashlib.sha256(f"tour {VERSION} {mode} {weight.shape}".encode() + np.ascontiguousarray(weight).tobytes())
        file = place / f"{mode}-{sha.hexdigest()[:32]}.json"
        if (kept := _read(file, filters * channels)) is not None:
            return kept
    order = crossfilter(weight) if mode == "crossfilter" else infilter(weight)
    if file is not None:
        write_whole(file, sealed({"order": order.tolist()}))
    return order


def _read(file: Path, kernels: int) -> np.ndarray | None:
    """A tour that was kept; None where there is none, or one that is damaged, which is made again."""
    try:
        order = np.asarray(unsealed(file.read_bytes())["order"])
    except (OSError, BittrueError, KeyError, ValueError):
        return None
    whole = order.dtype.kind == "i" and order.shape == (kernels,) and (np.sort(order) == np.arange(kernels)).all()
    return order if whole else None


def unit(weight: np.ndarray) -> np.ndarray:
    """Kernels `[..., k, k]` as vectors `[..., k^2]` of length 1; one of zeros stays so."""
    flat = weight.reshape(*weight.shape[:-2], -1)
    length = np.linalg.norm(flat, axis=-1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)


def crossfilter(weight: np.ndarray) -> np.ndarray:
    """One tour over all kernels."""
    vectors = unit(weight).reshape(-1, weight.shape[2] * weight.shape[3])
    return _signs(vectors[:, 0]) if vectors.shape[1] == 1 else greedy(vectors)


def infilter(weight: np.ndarray) -> np.ndarray:
    """Tours within the filters, and one over them."""
    filters, channels, side = weight.shape[:3]
    vectors = unit(weight)
    if side == 1:
        inner = [_values(one.reshape(-1)) for one in weight]
    else:
        inner = [greedy(one) for one in vectors]
    toured = np.stack([one[tour] for one, tour in zip(vectors, inner, strict=True)]).reshape(filters, -1)
    outer = _by_matrix(toured @ toured.T)
    return np.concatenate([f * channels + inner[f] for f in outer])


def _by_matrix(similar: np.ndarray) -> np.ndarray:
    """A greedy tour by a matrix of similarities."""
    tour, left = [0], np.ones(len(similar), bool)
    left[0] = False
    while left.any():
        tour.append(int(np.where(left, similar[tour[-1]], -np.inf).argmax()))
        left[tour[-1]] = False
    return np.array(tour)


def _values(values: np.ndarray) -> np.ndarray:
    """A greedy tour over numbers, to the nearest; of equally near ones to the first."""
    tour, left = [0], np.ones(len(values), bool)
    left[0] = False
    while left.any():
        tour.append(int(np.where(left, np.abs(values - values[tour[-1]]), np.inf).argmin()))
        left[tour[-1]] = False
    return np.array(tour)


def _signs(signs: np.ndarray) -> np.ndarray:
    """A greedy tour over -1, 0 and 1 by their products: to the first of equal sign, else to the first 0, else to the
    first; from a 0 to the first of all."""
    places = {sign: deque(np.flatnonzero(signs == sign).tolist()) for sign in (-1.0, 0.0, 1.0)}
    tour, now = [], signs[0]
    for _ in signs:
        left = [sign for sign, own in places.items() if own]
        if tour and not now:
            now = min(left, key=lambda sign: places[sign][0])
        else:
            now = max(left, key=lambda sign: now * sign) if tour else now
        tour.append(places[now].popleft())
    return np.array(tour)


def similarity(weight: np.ndarray, order: np.ndarray) -> float:
    """The sum over r of the cosine of the kernels `order[r]` and `order[r + 1]`."""
    vectors = unit(np.asarray(weight, np.float64)).reshape(-1, weight.shape[2] * weight.shape[3])[order]
    return float((vectors[1:] * vectors[:-1]).sum())
