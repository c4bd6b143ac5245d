"""Top-K over some lists of packed items, which lie list by list, and the codes that most items of a list agree with.

Scores, modes and rounding are those of ``l2q.kernels.packed``, to the bit; among equal scores the lower item id is
first. A list is a run of places, which need not begin or end with a block. Lists are looked at in the order in which a
query names them, its best first, so that few items of the later ones pass the K-th best score.
"""

from __future__ import annotations

import numba
import numpy as np

from l2q.interactions import Interactions
from l2q.kernels import best_keys, compiling
from l2q.kernels import packed_values as floats
from l2q.kernels.packed import CHUNK, PackedItems, exclusions_of, prepared
from l2q.kernels.packed_scores import LONE, bound_lone, score_lone
from l2q.kernels.vectors import LANES, lowest_bit

_STEP = LONE[1]  # blocks of a pass


def top_k_of_lists(
    queries: np.ndarray,
    factors: np.ndarray,
    items: PackedItems,
    ids: np.ndarray,
    indptr: np.ndarray,
    lists: np.ndarray,
    k: int,
    exclude: Interactions,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each query among the items of its lists: scores (n, k) float32 and items (n, k) int32.

    ``items`` lie in the order of ``ids`` (items,) int32; list l has the places ``indptr[l]`` to ``indptr[l + 1]``.
    ``lists`` (n, most) int32 are those of each query, best first, then -1. Row ``rows[j]`` of ``exclude`` belongs to
    query j. Everything else is as in ``packed.top_k``.
    """
    num_queries = len(queries)
    scores, found = np.empty((num_queries, k), np.float32), np.empty((num_queries, k), np.int32)
    threads = numba.get_num_threads()
    parts = -(-threads // max(num_queries, 1))
    for start in range(0, num_queries, CHUNK * threads):
        part = slice(start, start + CHUNK * threads)
        some = np.array(factors[part], np.float32, order="C")
        tables, values, firsts, dims = prepared(queries[part], some, items.dims)
        keys = np.full((len(some), parts, k), best_keys.NO_ITEM)
        _search(
            tables, values, some, items.planes, items.scales, firsts, dims, ids, indptr, lists[part],
            exclusions_of(exclude, rows[part]), keys,
        )  # fmt: skip
        best = keys.reshape(len(some), parts * k)
        best.sort(axis=1)
        scores[part], found[part] = best_keys.decode(best[:, : -k - 1 : -1])
    return scores, found


@numba.njit(forceinline=True)
def _within(passed, first_place, first, last):
    """The bits of those lanes of a block that lie in the places from ``first`` to ``last``."""
    low, high = max(first - first_place, 0), min(last - first_place, LANES)
    if low >= high:
        return np.int64(0)
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    mask = (ones >> np.uint64(LANES - (high - low))) << np.uint64(low)
    return passed & np.int64(mask)


@numba.njit(forceinline=True)
def _offer(heaps, heap, bar, passed, totals, first_total, first_place, ids, excluded, start, end):
    """Takes in the items whose bit is set; returns the query's new limit.

    Items come in any order, and one that equals the K-th best may win by its id: the limit lies just below that score.
    """
    while passed:
        lane = lowest_bit(passed)  # type: ignore[call-arg, var-annotated]
        passed &= passed - 1
        score, item = totals[first_total + lane], np.int64(ids[first_place + lane])
        if score > bar and not best_keys.is_among(item, excluded, start, end):
            bar = np.nextafter(best_keys.offer(heaps, heap, score, item), np.float32(-np.inf))
    return bar


@compiling.njit(parallel=True, nogil=True, cache=True)
def _search(tables, values, factors, planes, scales, firsts, dims, ids, indptr, lists, exclusions, keys):
    """Fill ``keys`` (queries, parts, k): a part of a query has every ``parts``-th of its lists."""
    num_queries, parts, k = keys.shape
    heaps = keys.reshape(num_queries * parts, k)
    limits = np.full((parts, num_queries), np.float32(-np.inf))
    for index in numba.prange(num_queries * parts):
        heap = np.int64(index)
        row, part = heap // parts, heap % parts
        _look_through(
            lists[row, part::parts], tables, values, factors, planes, scales, firsts, dims, ids, indptr,
            exclusions, limits[part], row, heaps, heap,
        )  # fmt: skip


@numba.njit
def _look_through(
    lists, tables, values, factors, planes, scales, firsts, dims, ids, indptr, exclusions, bars, row, heaps, heap
):  # fmt: skip
    """Offers the items of these lists to a heap of query ``row``."""
    start, end, excluded = exclusions[0][row], exclusions[1][row], exclusions[2]
    totals, passed = np.empty(LANES * _STEP, np.float32), np.empty(_STEP, np.int64)
    if values is not None:
        lines, exact = values
        waiting, bounds, sizes, lows = floats.room(1, heaps.shape[1])
    for which in lists:
        if which < 0:
            break
        first, last = indptr[which], indptr[which + 1]
        for block in range(first // (LANES * _STEP) * _STEP, -(-last // LANES), _STEP):
            if values is None:
                hit = score_lone(
                    tables, factors, planes, scales, firsts[0], dims, bars, row, block, totals, passed
                )
            else:
                hit = bound_lone(tables, lines, planes, scales, firsts, bars, row, block, totals, passed)
            if not hit:
                continue
            for cell in range(_STEP):
                first_place = (block + cell) * LANES
                some = _within(passed[cell], first_place, first, last)
                if not some:
                    continue
                if values is None:
                    bars[row] = _offer(
                        heaps, heap, bars[row], some, totals, cell * LANES, first_place, ids, excluded, start, end
                    )  # fmt: skip
                    continue
                if sizes[0] > waiting.shape[1] - LANES:
                    floats.keep_above(waiting, bounds, sizes, 0, bars[row])
                    if sizes[0] > waiting.shape[1] // 2:
                        above = floats.settle(
                            waiting, bounds, sizes, 0, bars[row], exact, factors, planes, scales, firsts, row,
                            heaps, heap, ids,
                        )  # fmt: skip
                        bars[row] = max(bars[row], above)
                bars[row] = floats.wait(
                    waiting, bounds, sizes, lows, 0, bars[row], some, totals, cell * LANES, first_place, last,
                    excluded, start, end, lines, scales, row, ids,
                )  # fmt: skip
    if values is not None:
        floats.settle(
            waiting, bounds, sizes, 0, bars[row], exact, factors, planes, scales, firsts, row, heaps, heap, ids
        )  # fmt: skip


@compiling.njit(parallel=True, nogil=True, cache=True)
def majorities(packed, order, indptr, codes):
    """Sets row l of ``codes`` (lists, row bytes) to the bits that at least half of the rows ``order[indptr[l]]`` to
    ``order[indptr[l + 1] - 1]`` of ``packed`` have. A list without rows keeps what it has."""
    for which in numba.prange(len(codes)):
        first, last = indptr[which], indptr[which + 1]
        if first == last:
            continue
        counts = np.zeros((packed.shape[1], 8), np.int32)
        for place in range(first, last):
            row = packed[order[place]]
            for byte in range(len(row)):
                for bit in range(8):
                    counts[byte, bit] += row[byte] >> bit & 1
        for byte in range(packed.shape[1]):
            value = 0
            for bit in range(8):
                if 2 * counts[byte, bit] >= last - first:
                    value |= 1 << bit
            codes[which, byte] = value
