"""Search kernels of the fit: the exact error of a candidate from its pieces, and annealing over candidates.

A neuron is piecewise constant: the inputs with the same spikes so far are intervals, and step t cuts each of them at
most once, where v = T[t]. So on a sorted grid a candidate (h, T) is a short list of pieces (first point, spike word)
and everything that the error needs is a difference of prefix sums over the grid: the grid's size costs nothing.
Given the pieces the best d is linear least squares (`worth`), so only h and T are searched.
"""

from __future__ import annotations

import numpy as np

from bittrue.sim.kernels.jit import jit

#: Most pieces of a candidate; one with more is refused (its error is infinite).
MAX_PIECES = 2048
#: Added to the diagonal of the normal equations, relative to the total weight: steps that never fire are worth 0.
RIDGE = 1e-7


@jit
def _cut(h, threshold, low, step, points, starts, offsets, words):
    """Pieces of the candidate, ascending: first point and spike word (step t is bit t) of each; how many, or -1.

    `starts`, `offsets`, `words` are `[2, MAX_PIECES + 1]`: read from one row, written to the other.
    """
    count, now = 1, 0
    starts[0, 0], offsets[0, 0], words[0, 0] = 0, 0.0, 0
    for t in range(threshold.size):
        after, made, bit = 1 - now, 0, np.int64(1) << t
        for p in range(count):
            first = starts[now, p]
            end = starts[now, p + 1] if p + 1 < count else points
            offset, word = offsets[now, p], words[now, p]
            place = np.floor((threshold[t] + offset - low) / step) + 1.0  # first point that exceeds the threshold
            middle = first if place <= first else (end if place >= end else np.int64(place))
            if made + 2 > starts.shape[1] - 1:
                return -1, now
            if middle > first:
                starts[after, made], offsets[after, made], words[after, made] = first, offset, word
                made += 1
            if middle < end:
                starts[after, made], words[after, made] = middle, word | bit
                offsets[after, made] = offset + h[t]
                made += 1
        count, now = made, after
    return count, now


@jit
def _equations(count, starts, words, points, steps, mass, moment, gram, right):
    """Normal equations of d: `gram[s, t] = sum w z_s z_t`, `right[t] = sum w z_t y`, from the prefix sums."""
    gram[:] = 0.0
    right[:] = 0.0
    fired = np.empty(steps, np.int64)
    for p in range(count):
        first = starts[p]
        end = starts[p + 1] if p + 1 < count else points
        m, b = mass[end] - mass[first], moment[end] - moment[first]
        n = 0
        for t in range(steps):
            if (words[p] >> t) & 1:
                fired[n] = t
                n += 1
        for i in range(n):
            right[fired[i]] += b
            for j in range(i + 1):
                gram[fired[i], fired[j]] += m


@jit
def _solve(gram, right, ridge, factor, d):
    """`(gram + ridge I) d = right` by Cholesky; only the lower triangle of gram is read."""
    n = right.size
    for i in range(n):
        for j in range(i + 1):
            value = gram[i, j] + (ridge if i == j else 0.0)
            for k in range(j):
                value -= factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(max(value, ridge * 1e-6)) if i == j else value / factor[j, j]
    for i in range(n):
        value = right[i]
        for k in range(i):
            value -= factor[i, k] * d[k]
        d[i] = value / factor[i, i]
    for i in range(n - 1, -1, -1):
        value = d[i]
        for k in range(i + 1, n):
            value -= factor[k, i] * d[k]
        d[i] = value / factor[i, i]


@jit
def _snap(gram, right, levels, d):
    """Round d to signed codes of `2 levels` values on the finest power-of-two grid that holds it, then improve.

    One code at a time moves to the best integer given the others, until none does: the error is quadratic in each.
    """
    n = right.size
    largest = 0.0
    for t in range(n):
        largest = max(largest, abs(d[t]))
    unit = 2.0 ** np.ceil(np.log2(max(largest, 1e-6) / (levels - 1)))
    top = levels - 1.0
    for t in range(n):
        d[t] = min(max(np.floor(d[t] / unit + 0.5), -levels), top) * unit
    for _ in range(8):
        moved = False
        for t in range(n):
            if gram[t, t] <= 0.0:
                d[t] = 0.0
                continue
            rest = right[t]
            for s in range(n):
                if s != t:
                    rest -= (gram[t, s] if s < t else gram[s, t]) * d[s]
            value = min(max(np.floor(rest / gram[t, t] / unit + 0.5), -levels), top) * unit
            if value != d[t]:
                d[t] = value
                moved = True
        if not moved:
            break


@jit
def _error(gram, right, square, d):
    """`sum w (y - sum d z)^2` from the normal equations."""
    total = square
    for i in range(right.size):
        total -= 2.0 * right[i] * d[i]
        total += gram[i, i] * d[i] * d[i]
        for j in range(i):
            total += 2.0 * gram[i, j] * d[i] * d[j]
    return max(total, 0.0)


@jit
def _judge(
    h, threshold, low, step, mass, moment, square, levels, price, starts, offsets, words, gram, right, factor, d
):
    """Mean squared error of the candidate with its best d, written to `d`, times (1 + price * spikes per value).

    levels 0: d is not quantised; else it has codes -levels .. levels - 1.
    """
    points = mass.size - 1
    count, row = _cut(h, threshold, low, step, points, starts, offsets, words)
    if count < 0:
        return np.inf
    _equations(count, starts[row], words[row], points, h.size, mass, moment, gram, right)
    _solve(gram, right, RIDGE * mass[points], factor, d)
    if levels:
        _snap(gram, right, levels, d)
    spikes = 0.0
    for t in range(h.size):
        spikes += gram[t, t]
    return _error(gram, right, square, d) / mass[points] * (1.0 + price * spikes / mass[points])


@jit
def judge(h, threshold, low, step, mass, moment, square, levels, price):
    """(error, d) of one candidate, float64; see `_judge`."""
    steps = h.size
    starts = np.empty((2, MAX_PIECES + 1), np.int64)
    offsets, words = np.empty((2, MAX_PIECES + 1)), np.empty((2, MAX_PIECES + 1), np.int64)
    gram, factor = np.zeros((steps, steps)), np.zeros((steps, steps))
    right, d = np.zeros(steps), np.zeros(steps)
    error = _judge(
        h, threshold, low, step, mass, moment, square, levels, price, starts, offsets, words, gram, right, factor, d
    )
    return error, d


@jit
def _propose(rng, h, threshold, units, tops, bound, reach, fineness):
    """Change h and T in place: one or two entries, by steps from the whole range down to a thousandth of it.

    units > 0 keeps an entry on its grid and within its format: h on units[0], T on units[1].
    """
    steps = h.size
    for _ in range(1 if rng.random() < 0.6 else 2):
        t = rng.integers(0, steps)
        size = reach * 10.0 ** (-fineness * rng.random()) * rng.standard_normal()
        kind = rng.random()
        if kind < 0.45:
            h[t] += size
        elif kind < 0.9:
            threshold[t] += size
        elif kind < 0.96:  # both: a step takes more and later
            h[t] += size
            threshold[t] += size
        else:  # exchange two neighbouring steps
            s = min(t + 1, steps - 1)
            h[t], h[s] = h[s], h[t]
            threshold[t], threshold[s] = threshold[s], threshold[t]
    for which in range(2):
        unit = units[which]
        entries = h if which == 0 else threshold
        for t in range(steps):
            entries[t] = min(max(entries[t], -bound), bound)
            if unit > 0.0:
                code = np.floor(entries[t] / unit + 0.5)
                entries[t] = min(max(code, -tops[which] - 1.0), tops[which]) * unit


@jit
def anneal(rng, h, threshold, best_h, best_t, best, tries, heat, size, units, tops, levels, price, target):
    """Anneal every restart `[R, K]` on its own, for `tries` candidates each, in place.

    rng:                  a numpy Generator, which moves on
    h, threshold:         float64 `[R, K]`, where each restart is
    best_h, best_t, best: the best that each has seen, and its error `[R]`
    heat = (hot, cold):   the temperature falls geometrically between them. It is relative: a candidate whose error is
                          (1 + temperature) times as large is accepted with probability 1/e
    size = (bound, reach, fineness): |h|, |T| <= bound; changes of up to about reach, down to reach 10^-fineness
    units, tops:          `[R, 2]`, the grid of h and of T and its highest code; 0: not quantised
    levels, price:        see `_judge`
    target:               (low, step, mass, moment, square) of the grid
    """
    low, step, mass, moment, square = target
    hot, cold = heat
    bound, reach, fineness = size
    restarts, steps = h.shape
    starts = np.empty((2, MAX_PIECES + 1), np.int64)
    offsets, words = np.empty((2, MAX_PIECES + 1)), np.empty((2, MAX_PIECES + 1), np.int64)
    gram, factor = np.zeros((steps, steps)), np.zeros((steps, steps))
    right, d = np.zeros(steps), np.zeros(steps)
    new_h, new_t = np.empty(steps), np.empty(steps)
    for r in range(restarts):
        here = np.inf
        for k in range(tries + 1):
            new_h[:] = h[r]
            new_t[:] = threshold[r]
            if k:
                _propose(rng, new_h, new_t, units[r], tops[r], bound, reach, fineness)
            error = _judge(
                new_h, new_t, low, step, mass, moment, square, levels, price,
                starts, offsets, words, gram, right, factor, d,
            )  # fmt: skip
            temperature = hot * (cold / hot) ** (k / tries)
            if error <= here or rng.random() < np.exp(-(error / here - 1.0) / temperature):
                here = error
                h[r] = new_h
                threshold[r] = new_t
                if error < best[r]:
                    best[r] = error
                    best_h[r] = new_h
                    best_t[r] = new_t
