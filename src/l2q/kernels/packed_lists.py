"""Top-K over some lists of packed items, which lie list by list, and the codes that most items of a list agree with.

Scores, modes and rounding are those of ``l2q.kernels.packed``, to the bit; among equal scores the lower item id is
first. A list is a run of places, which need not begin or end with a block.

A query alone looks at lists in the order in which it names them, its best first, so that few items of the later ones
pass the K-th best score. Many queries look at their first lists so. Then every list is looked at for all that name it:
a pass scores several queries, and a list is read once for them.
"""

from __future__ import annotations

import numba
import numpy as np

from l2q.kernels import best_keys, compiling
from l2q.kernels import packed_values as floats
from l2q.kernels.packed import (
    CHUNK,
    ONE_THREAD,
    PackedItems,
    aligned_zeros,
    most_differing,
    offer,
    one_thread,
    prepared,
)
from l2q.kernels.packed_scores import (
    CODES_PASS,
    LONE,
    bound_lone,
    bound_single,
    score_lone,
    score_many,
    score_single,
)
from l2q.kernels.vectors import LANES

_STEP = LONE[1]  # blocks of a pass
TOGETHER = 1024  # queries of a thread that look through lists together,
_SHARED = 2  # where so many of them look at a list
_ONE_THREAD = 1024  # queries' lists, through which one thread has looked before another one has woken up
_ALONE = 8  # lists that each looks through before, for a K-th best score
_PAIRS, _SCORES = 1 << 24, 1 << 24  # queries' lists of a thread, and queries' scores, that are in memory
_TILE = 128  # blocks
_BINS = 4096


def top_k_of_lists(
    queries: np.ndarray,
    factors: np.ndarray,
    items: PackedItems,
    ids: np.ndarray,
    indptr: np.ndarray,
    longest: np.ndarray | None,
    lists: np.ndarray,
    k: int,
    exclusions: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each query among the items of its lists: scores (n, k) float32 and items (n, k) int32.

    ``items`` lie in the order of ``ids`` (items,) int32; list l has the places ``indptr[l]`` to ``indptr[l + 1]``.
    ``longest`` (lists,) float32 has the largest scale of each list's items, where they have one segment and no scale is
    negative; else None.
    ``lists`` (n, most) int32 are those of each query, best first, then -1. ``exclusions`` are those of the queries
    (``packed.exclusions_of``). Everything else is as in ``packed.top_k``.
    """
    num_queries = len(queries)
    scores, found = np.empty((num_queries, k), np.float32), np.empty((num_queries, k), np.int32)
    threads = numba.get_num_threads()
    small = num_queries * lists.shape[1] <= _ONE_THREAD
    parts = 1 if small else -(-threads // max(num_queries, 1))
    if queries.dtype == np.float32:
        longest = None
    chunk = threads * max(min(_PAIRS // max(lists.shape[1], 1), TOGETHER), CHUNK)
    for start in range(0, num_queries, chunk):
        part = slice(start, start + chunk)
        some = np.array(factors[part], np.float32, order="C")
        tables, values, firsts, dims = prepared(queries[part], some, items)
        keys = np.full((len(some), parts, k), best_keys.NO_ITEM)
        excluded = exclusions[0][part], exclusions[1][part], exclusions[2]
        of_lists = firsts, dims, ids, indptr, longest, lists[part], excluded
        tasks = min(threads, len(some))
        if values is None and len(some) // tasks * lists.shape[1] > _SHARED * (len(indptr) - 1):
            mine = aligned_zeros((tasks, CODES_PASS[0], *tables.shape[1:]), tables.dtype)
            _search_together(
                tables, some, items.planes, items.scales, *of_lists, CODES_PASS, mine, keys[:, 0]
            )
        else:
            with one_thread(of=threads if small else 1):
                _search(tables, values, some, items.planes, items.scales, *of_lists, keys)
        best = keys.reshape(len(some), parts * k)
        best.sort(axis=1)
        scores[part], found[part] = best_keys.decode(best[:, : -k - 1 : -1])
    return scores, found


def best_rows(queries: np.ndarray, factors: np.ndarray, items: PackedItems, count: int) -> np.ndarray:
    """The items of ``packed.top_k`` for many of few items, in no order: (n, count) int32, for queries with codes. Of
    equal scores those of the first places are taken.

    A heap of ``count`` items costs more than the scores. Here all scores are put into bins, from which the best are
    read.
    """
    found, threads = np.empty((len(queries), count), np.int32), numba.get_num_threads()
    chunk = max(_SCORES // items.num_items, CODES_PASS[0] * threads)
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        some = np.array(factors[part], np.float32, order="C")
        tables, _, firsts, dims = prepared(queries[part], some, items)
        scores = np.empty((len(some), LANES * len(items.planes)), np.float32)
        tiles = -(-len(items.planes) // (2 * _TILE))
        with one_thread(of=threads if len(some) * items.planes.nbytes <= ONE_THREAD else 1):
            _score_all(
                tables,
                some,
                items.planes,
                items.scales,
                firsts[0],
                dims,
                CODES_PASS,
                2 * _TILE,
                tiles,
                scores,
            )
            _select(scores, items.num_items, found[part])
    return found if items.ids is None else items.ids[found]


@numba.njit(forceinline=True)
def _within(passed, first_place, first, last):
    """The bits of those lanes of a block that lie in the places from ``first`` to ``last``."""
    low, high = max(first - first_place, 0), min(last - first_place, LANES)
    if low >= high:
        return np.int64(0)
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    mask = (ones >> np.uint64(LANES - (high - low))) << np.uint64(low)
    return passed & np.int64(mask)


@compiling.njit(parallel=True, nogil=True, cache=True)
def _search(
    tables, values, factors, planes, scales, firsts, dims, ids, indptr, longest, lists, exclusions, keys
):
    """Fill ``keys`` (queries, parts, k): a part of a query has every ``parts``-th of its lists."""
    num_queries, parts, k = keys.shape
    heaps = keys.reshape(num_queries * parts, k)
    limits = np.full((parts, num_queries), np.float32(-np.inf))
    for index in numba.prange(num_queries * parts):
        heap = np.int64(index)
        row, part = heap // parts, heap % parts
        _look_through(
            lists[row, part::parts], tables, values, factors, planes, scales, firsts, dims, ids, indptr, longest,
            exclusions, limits[part], row, heaps, heap,
        )  # fmt: skip


@numba.njit
def _look_through(
    lists, tables, values, factors, planes, scales, firsts, dims, ids, indptr, longest, exclusions, bars, row,
    heaps, heap,
):  # fmt: skip
    """Offers the items of these lists to a heap of query ``row``."""
    start, end, excluded = exclusions[0][row], exclusions[1][row], exclusions[2]
    totals, passed = np.empty(LANES * _STEP, np.float32), np.empty(_STEP, np.int64)
    most = None if longest is None else np.empty(len(bars), np.uint16)
    if values is not None:
        lines, exact = values
        waiting, bounds, sizes, lows = floats.room(1, heaps.shape[1])
    for which in lists:
        if which < 0:
            break
        first, last = indptr[which], indptr[which + 1]
        if longest is not None and most is not None:
            most[row] = most_differing(factors[row, 0], dims[0], longest[which], bars[row])
        next_block, end_block = first // LANES, -(-last // LANES)
        while next_block < end_block:
            block, step = next_block, min(end_block - next_block, _STEP)
            next_block += step
            if values is None:
                codes = tables, factors, planes, scales, firsts[0], dims, bars, most, row, block
                hit = score_lone(*codes, totals, passed) if step > 1 else score_single(*codes, totals, passed)
            else:
                rows = tables, lines, planes, scales, firsts, bars, row, block
                hit = bound_lone(*rows, totals, passed) if step > 1 else bound_single(*rows, totals, passed)
            if not hit:
                continue
            for cell in range(step):
                first_place = (block + cell) * LANES
                some = _within(passed[cell], first_place, first, last)
                if not some:
                    continue
                if values is None:
                    bars[row] = offer(
                        heaps, heap, bars[row], some, totals, cell * LANES, first_place, last, ids, excluded,
                        start, end,
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
def _search_together(
    tables, factors, planes, scales, firsts, dims, ids, indptr, longest, lists, exclusions, shape, mine, keys
):
    """Fill ``keys`` (queries, k). ``mine`` (tasks, queries of a pass, ...) is room for tables of queries."""
    num_queries, tasks = keys.shape[0], mine.shape[0]
    starts, ends, excluded = exclusions
    bars = np.full(num_queries, np.float32(-np.inf))
    size = -(-num_queries // tasks)
    for index in numba.prange(tasks):
        task = np.int64(index)
        first_row = task * size
        last_row = min(first_row + size, num_queries)
        for row in range(first_row, last_row):
            _look_through(
                lists[row, :_ALONE], tables, None, factors, planes, scales, firsts, dims, ids, indptr, longest,
                exclusions, bars, row, keys, row,
            )  # fmt: skip
        at, rows = _by_list(lists[first_row:last_row, _ALONE:], len(indptr) - 1)
        table, some = mine[task], np.empty((shape[0], factors.shape[1]), np.float32)
        limits, who = np.empty(shape[0], np.float32), np.empty(shape[0], np.int64)
        most = None if longest is None else np.empty(shape[0], np.uint16)
        totals, passed = np.empty(LANES * shape[0], np.float32), np.empty(shape[0], np.int64)
        for which in range(len(indptr) - 1):
            first, last = indptr[which], indptr[which + 1]
            for start in range(at[which], at[which + 1], shape[0]):
                count = min(shape[0], at[which + 1] - start)
                for place in range(shape[0]):
                    # Beyond the last query nothing passes.
                    row = first_row + rows[start + min(place, count - 1)]
                    who[place], limits[place] = row, bars[row] if place < count else np.float32(np.inf)
                    table[place], some[place] = tables[row], factors[row]
                    if longest is not None and most is not None:
                        most[place] = most_differing(some[place, 0], dims[0], longest[which], limits[place])
                for block in range(first // LANES, -(-last // LANES)):
                    if not score_many(
                        table, some, planes, scales, firsts[0], dims, limits, most, 0, block, totals, passed
                    ):
                        continue
                    first_place = block * LANES
                    for place in range(count):
                        inside = _within(passed[place], first_place, first, last)
                        if inside:
                            row = who[place]
                            limits[place] = offer(
                                keys, row, limits[place], inside, totals, place * LANES, first_place, last, ids,
                                excluded, starts[row], ends[row],
                            )  # fmt: skip
                            bars[row] = limits[place]


@numba.njit
def _by_list(lists, count):
    """Where the queries of every list start, and the queries."""
    starts = np.zeros(count + 2, np.int64)
    for row in range(lists.shape[0]):
        for which in lists[row]:
            if which < 0:
                break
            starts[which + 2] += 1
    for which in range(2, count + 2):
        starts[which] += starts[which - 1]
    rows = np.empty(starts[-1], np.int32)
    for row in range(lists.shape[0]):
        for which in lists[row]:
            if which < 0:
                break
            rows[starts[which + 1]] = row
            starts[which + 1] += 1
    return starts, rows


@compiling.njit(parallel=True, nogil=True, cache=True)
def _score_all(tables, factors, planes, scales, firsts, dims, shape, tile, tiles, scores):
    """Set ``scores`` (queries, 64 blocks) to all scores of codes."""
    num_queries = len(scores)
    bars = np.full(num_queries, np.float32(-np.inf))
    for index in numba.prange(-(-num_queries // shape[0]) * tiles):
        task = np.int64(index)
        first_row, first_block = task // tiles * shape[0], task % tiles * tile
        last_block = min(first_block + tile, len(planes))
        cells = max(shape[0], LONE[1])
        totals, passed = np.empty(LANES * cells, np.float32), np.empty(cells, np.int64)
        if first_row + shape[0] <= num_queries:
            for block in range(first_block, last_block):
                score_many(
                    tables,
                    factors,
                    planes,
                    scales,
                    firsts,
                    dims,
                    bars,
                    None,
                    first_row,
                    block,
                    totals,
                    passed,
                )
                for place in range(shape[0]):
                    for lane in range(LANES):
                        scores[first_row + place, LANES * block + lane] = totals[LANES * place + lane]
        else:
            for row in range(first_row, num_queries):
                for block in range(first_block, last_block, _STEP):
                    score_lone(
                        tables, factors, planes, scales, firsts, dims, bars, None, row, block, totals, passed
                    )
                    for lane in range(LANES * _STEP):
                        scores[row, LANES * block + lane] = totals[lane]


@numba.njit(forceinline=True)
def _bin(score, high, scale):
    return int((high - score) * scale) if scale > 0 else 0


@compiling.njit(parallel=True, nogil=True, cache=True)
def _select(scores, num_items, found):
    """Fill ``found`` (queries, count) with the places of the best scores; of equal ones the lower place is better."""
    for index in numba.prange(len(scores)):
        row = np.int64(index)
        some, best = scores[row][:num_items], found[row]
        low, high = some[0], some[0]
        for score in some:
            low, high = min(low, score), max(high, score)
        # A better score is in the same or an earlier bin, however the product rounds.
        spread, scale = high - low, np.float32(0)
        if np.float32(1e-30) < spread < np.float32(np.inf):
            scale = np.float32(_BINS - 1) / spread
        counts = np.zeros(_BINS + 1, np.int64)
        for score in some:
            counts[_bin(score, high, scale)] += 1
        last, before = 0, 0
        while before + counts[last] < len(best):
            before += counts[last]
            last += 1
        at, waiting = 0, np.empty(counts[last], np.int64)
        size = 0
        for place in range(len(some)):
            which = _bin(some[place], high, scale)
            if which < last:
                best[at] = place
                at += 1
            elif which == last:
                waiting[size] = best_keys.key(some[place], place)
                size += 1
        waiting.sort()
        for rank in range(len(best) - at):
            best[at + rank] = best_keys.item_of(waiting[size - 1 - rank])


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
