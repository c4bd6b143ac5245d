"""The best K of dense scores: one comparison for each score, and a heap that few of them enter.

The packed path has a selection of its own (``l2q.kernels.packed``), so that each path can be held to the other.
Best first; among equal scores the lower item id is first.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from l2q.kernels import compiling

_BLOCK = 64  # scores that are compared at once


def top_items(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest scores of each row: item ids (n, k) int32 and scores (n, k), for ``scores`` (n, items).

    A row with fewer than k scores above -inf is filled up with the id -1 and the score -inf.

    >>> top_items(np.array([[1.0, 3.0, 3.0, 2.0]]), k=3)
    (array([[1, 2, 3]], dtype=int32), array([[3., 3., 2.]]))
    """
    best = np.full((len(scores), k), -np.inf, scores.dtype)
    items = np.full((len(scores), k), -1, np.int32)
    _select(scores, best, items)
    sort_heaps(best, items)
    return items, best


@compiling.njit(parallel=True, cache=True)
def _select(scores, best, items):
    for row in prange(len(scores)):
        offer(scores[row], 0, best[row], items[row])


@compiling.njit(cache=True)
def offer(scores, first_item, best, items):
    """Offers one row's scores of the items ``first_item``, ``first_item`` + 1, ... to its heap.

    The heap is ``best`` (k,) and ``items`` (k,), its worst entry first. It starts as -inf and -1. Items come in
    ascending order over all calls, so a score that equals the worst one has the higher id and stays out.
    """
    for start in range(0, len(scores), _BLOCK):
        block = scores[start : start + _BLOCK]
        worst = best[0]
        if len(block) == _BLOCK:  # a fixed length for the vector units: few blocks hold a better score
            better = np.int32(0)
            for place in range(_BLOCK):
                better += np.int32(block[place] > worst)
            if better == 0:
                continue
        for place in range(len(block)):
            if block[place] > best[0]:
                _sink(best, items, len(best), block[place], np.int32(first_item + start + place))


@compiling.njit(parallel=True, cache=True)
def sort_heaps(best, items):
    """Puts each row's heap in order, best first."""
    for row in prange(len(best)):
        sort_heap(best[row], items[row])


@compiling.njit(cache=True)
def sort_heap(best, items):
    """Puts a heap in order, best first."""
    for size in range(len(best) - 1, 0, -1):  # the worst leaves the heap for the place behind it
        score, item = best[0], items[0]
        _sink(best, items, size, best[size], items[size])
        best[size], items[size] = score, item


@compiling.njit(cache=True)
def _sink(best, items, size, score, item):
    """Puts an entry in the place of the worst one of a heap of ``size`` entries."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(best[child], items[child], best[child + 1], items[child + 1]):
            child += 1
        if not _before(score, item, best[child], items[child]):
            break
        best[place], items[place] = best[child], items[child]
        place = child
    best[place], items[place] = score, item


@njit(inline="always")
def _before(score, item, other_score, other_item):
    return score > other_score or (score == other_score and item < other_item)
