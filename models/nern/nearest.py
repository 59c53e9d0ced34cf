"""Greedy tours of unit vectors: from each to the nearest one not yet visited, exactly, by a k-d tree that forgets.

The rule: begin with vector 0; go to the unvisited one of the largest dot product, of equal ones to that of the lowest
number. Tried one by one that is n^2 / 2 products. Here the unvisited ones are in a k-d tree of equal halves, cut where
the box of a node is widest:

* a leaf has up to `LEAF` vectors, side by side in memory; a visited one changes places with its leaf's last and is cut
  off, and every node above counts one less, so that empty parts are never looked at;
* the bound of a node is that of its box: |p - q|^2 >= sum over axes of the squared distance to the box, and with
  |p| <= 1, |q| = 1 that gives p q <= 1 - |p - q|^2 / 2; a node is left out when this is below the best product so far
  by more than roundings (`SLACK`);
* boxes do not shrink with what was visited, so when half of the vectors are visited the tree is made anew of the rest.

A vector of zeros has the product 0 with every other. Memory is a few copies of the vectors.
"""

from __future__ import annotations

import numpy as np

from bittrue.sim.kernels.jit import jit

#: Vectors of a leaf.
LEAF = 128
#: Products that differ by no more may be equal but for roundings; they are compared.
SLACK = 1e-9


def greedy(vectors: np.ndarray) -> np.ndarray:
    """The tour int64 `[n]` of vectors float64 `[n, d]`, each of length 1 or 0."""
    vectors = np.ascontiguousarray(vectors, np.float64)
    tour = np.zeros(len(vectors), np.int64)
    if len(vectors) == 0:
        return tour
    left = np.arange(1, len(vectors))
    done = 1
    while done < len(vectors):
        steps = len(left) if len(left) <= LEAF else len(left) // 2
        _walk(vectors, *_grow(vectors, left), tour, done, steps)
        visited = np.zeros(len(vectors), np.bool_)
        visited[tour[done : done + steps]] = True
        left, done = left[~visited[left]], done + steps
    return tour


def _grow(vectors, left):
    """A tree of the vectors `left` in the order of a heap: its levels, what each node has of `order`, its box."""
    levels = max(0, int(np.ceil(np.log2(len(left) / LEAF))))
    nodes, order = 2 ** (levels + 1) - 1, left.copy()
    start, end = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    low, high = np.empty((nodes, vectors.shape[1])), np.empty((nodes, vectors.shape[1]))
    end[0] = len(order)
    for node in range(nodes):
        a, b = start[node], end[node]
        own = vectors[order[a:b]]
        low[node], high[node] = own.min(axis=0), own.max(axis=0)
        if 2 * node + 2 < nodes:
            middle = (b - a) // 2
            halves = np.argpartition(own[:, (high[node] - low[node]).argmax()], middle)
            order[a:b] = order[a:b][halves]
            start[2 * node + 1], end[2 * node + 1] = a, a + middle
            start[2 * node + 2], end[2 * node + 2] = a + middle, b
    return levels, order, start, end, low, high


@jit
def _bound(q, low, high, d):
    """At most this is the product of q with anything in a box."""
    apart = 0.0
    for k in range(d):
        outside = max(max(low[k] - q[k], q[k] - high[k]), 0.0)
        apart += outside * outside
    return 1.0 - 0.5 * apart


@jit
def _walk(vectors, levels, order, start, end, low, high, tour, done, steps):
    """So many steps of the tour among the vectors of a tree."""
    d, nodes = vectors.shape[1], start.size
    first_leaf = 2**levels - 1
    points = np.zeros((nodes - first_leaf, d, LEAF))  # values of an axis beside each other, for the CPU's vectors
    products = np.empty(LEAF)
    place = np.full(vectors.shape[0], -1, np.int64)
    leaf_of = np.full(vectors.shape[0], -1, np.int64)
    count = end - start
    for node in range(first_leaf, nodes):
        for i in range(start[node], end[node]):
            points[node - first_leaf, :, i - start[node]] = vectors[order[i], :]
            place[order[i]], leaf_of[order[i]] = i, node
    stack = np.empty(2 * levels + 2, np.int64)
    bounds = np.empty(2 * levels + 2)
    now = tour[done - 1]
    lowest = 0
    for step in range(steps):
        q = vectors[now]
        best, found = -2.0, np.int64(-1)
        length = 0.0
        for k in range(d):
            length += q[k] * q[k]
        if length == 0.0:  # all products are 0, and nothing could be left out
            while place[lowest] < 0:
                lowest += 1
            found = lowest
        else:
            depth = 1
            stack[0], bounds[0] = 0, 1.0
            while depth:
                depth -= 1
                node = stack[depth]
                if bounds[depth] < best - SLACK:
                    continue
                if node >= first_leaf:
                    for i in range(LEAF):
                        products[i] = 0.0
                    for k in range(d):
                        for i in range(LEAF):
                            products[i] += q[k] * points[node - first_leaf, k, i]
                    for i in range(count[node]):
                        if products[i] >= best:
                            number = order[start[node] + i]
                            if products[i] > best or number < found:
                                best, found = products[i], number
                    continue
                one, other = 2 * node + 1, 2 * node + 2
                near = _bound(q, low[one], high[one], d) if count[one] else -3.0
                far = _bound(q, low[other], high[other], d) if count[other] else -3.0
                if near < far:
                    one, other, near, far = other, one, far, near
                if far > -3.0 and far >= best - SLACK:
                    stack[depth], bounds[depth] = other, far
                    depth += 1
                if near > -3.0 and near >= best - SLACK:
                    stack[depth], bounds[depth] = one, near
                    depth += 1
        tour[done + step] = found
        node = leaf_of[found]
        gone, last = place[found], start[node] + count[node] - 1
        points[node - first_leaf, :, gone - start[node]] = points[node - first_leaf, :, last - start[node]]
        order[gone] = order[last]
        place[order[gone]] = gone
        place[found] = -1
        while True:
            count[node] -= 1
            if node == 0:
                break
            node = (node - 1) // 2
        now = found
