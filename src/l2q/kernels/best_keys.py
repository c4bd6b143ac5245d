"""The running best K of packed search: a heap of 64-bit keys whose order is the order of the ranking."""

from __future__ import annotations

import numpy as np
from numba import njit

from l2q.kernels import compiling

NO_ITEM = np.iinfo(np.int64).min


def decode(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and items of keys (rows, k)."""
    scores, items = np.empty(keys.shape, np.float32), np.empty(keys.shape, np.int32)
    _decode(keys, scores, items)
    return scores, items


@compiling.njit(nogil=True, cache=True)
def _decode(keys, scores, items):
    for row in range(keys.shape[0]):
        for place in range(keys.shape[1]):
            key = keys[row, place]
            scores[row, place] = _score_of(key)
            items[row, place] = -1 if key == NO_ITEM else item_of(key)


# Heaps are rows of an array that is passed whole: a view for every item costs more than its place in the heap.


@njit(forceinline=True)
def take_in(heaps, row, score, item):
    """Takes an item whose score is above the worst of a row's heap into it; returns the new worst: the K-th best score.

    Items come in ascending order. An item that equals the K-th best has the higher id and stays out, so a strict
    comparison is enough.
    """
    _replace_least(heaps, row, key(score, item))
    return worst(heaps, row)


@njit(forceinline=True)
def offer(heaps, row, score, item):
    """The same for items that come in any order: one that equals the K-th best enters by its lower id."""
    new = key(score, item)
    if new > heaps[row, 0]:
        _replace_least(heaps, row, new)
    return worst(heaps, row)


@njit(forceinline=True)
def worst(heaps, row):
    """The K-th best score; -inf where there are fewer."""
    return _score_of(heaps[row, 0])


@njit(forceinline=True)
def _score_of(key):
    if key == NO_ITEM:
        return np.float32(-np.inf)
    bits = np.int32(key >> 32)
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


@njit(forceinline=True)
def key(score, item):
    """Larger for a larger score, and among equal scores for a lower item."""
    bits = np.float32(score + np.float32(0)).view(np.int32)  # + 0: -0 and +0 are one score
    return (np.int64(bits ^ ((bits >> 31) & 0x7FFFFFFF)) << 32) | (0xFFFFFFFF - item)


@njit(forceinline=True)
def item_of(key):
    return np.int64(0xFFFFFFFF - (key & 0xFFFFFFFF))


@njit(forceinline=True)
def _replace_least(heaps, row, key):
    """Put a key in the place of the least one, the first of its heap."""
    at, child, size = 0, 1, heaps.shape[1]
    while child < size:
        if child + 1 < size:
            child += heaps[row, child + 1] < heaps[row, child]
        if heaps[row, child] >= key:
            break
        heaps[row, at] = heaps[row, child]
        at, child = child, 2 * child + 1
    heaps[row, at] = key


@njit(forceinline=True)
def is_among(item, ascending, low, end):
    """Whether an item is among ``ascending`` from ``low`` to ``end``."""
    high = end
    while low < high:
        middle = (low + high) >> 1
        if ascending[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low < end and ascending[low] == item
