"""Exact Top-K over packed codes: xor, popcount, scales and the running best K in one pass.

    score(u, i) = sum_s (f_us * float32(<q_us, q_is>)) * a_is      f_us = w_s a_us, a_is = 1 without scales

in float32, operation by operation as written, s ascending; equal scores: lower item id first.
Queries choose the mode:

- codes:       <q_us, q_is> = dim_s - 2 popcount(q_us xor q_is), an exact integer. Scaled with f and a; plain
               Hamming ranking with f = 1 and no item scales.
- float rows:  <q_us, q_is> = sum over groups of four values g, ascending, of
               ((v_4g b_4g + v_4g+1 b_4g+1) + v_4g+2 b_4g+2) + v_4g+3 b_4g+3 in float32, b in {-1, +1}; the
               last group of a segment is filled up with v = 0 (asymmetric: float query, 1-bit items).

Layout. 64 items make a block, item 64 b + l lies in lane l of block b. A block holds byte w of its 64 items side by
side, so that one vector is eight values of 64 codes. ``packed_scores`` scores a few queries against a few blocks in one
pass. A lane is looked at only where its score passes its query's K-th best so far; float rows come there by an upper
bound of the score (``packed_values``). Exclusion is decided there, by bisection, so that it costs nothing for all other
items.

Less than all. Items may lie with the longest first (``PackedItems.longest_first``). With A_bs the largest |a_is| of the
blocks from b on, no item of them has a score above

    sum_s |f_us| dim_s A_bs        in float32, as scores are summed, so that no rounding breaks it

and a query stops where that does not pass its K-th best. Of one segment with scales that are not negative, an item with
c differing bits among those that were counted so far has at most f a (dim - 2 c): a pass ends where no item of it can
reach the K-th best any more. Either way the results are those of a look at all, to the bit.

Rounding. With u = 2^-24 and S segments, |score - exact| <= g sum_s |term_s|, g = (S + 1) u / (1 - (S + 1) u),
for codes; for float rows add ceil(dim / 4) + 3 to S + 1 and take the terms with |v|. (No underflow assumed.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numba
import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import best_keys, compiling, packing
from l2q.kernels import packed_values as floats
from l2q.kernels.packed_scores import (
    CODES_PASS,
    LONE,
    VALUES_PASS,
    bound_lone,
    bound_many,
    score_lone,
    score_many,
    table_of_counts,
)
from l2q.kernels.vectors import BITS, COUNTS, LANES, UNIT, lowest_bit

_TILE_BYTES = 1 << 18  # items that all queries of a task visit before the next ones: half of a small L2
_TASK_ROWS = 64
CHUNK = 256  # queries of a thread whose tables are made at a time,
_SORTED = 1024  # or so many, where those go together that end about as early
ONE_THREAD = 1 << 23  # bytes of items times queries that one thread has seen before another has woken up,
_FEW = 8  # or float queries that it has prepared
_LARGE = 2.0**100
_WIDEST = 65_528  # bits of a segment: its counts fit into 16 bits
_TABLE_OF_COUNTS = table_of_counts().reshape(256, 32).view("V32")[:, 0]


@dataclass(frozen=True)
class PackedItems:
    """Items in the kernels' layout, converted once.

    ``planes`` (blocks, row bytes, 64) uint8; ``scales`` (blocks, segments, 64) float32 or None. Blocks come in twos,
    filled up with zeros. Where items lie in another order than that of their ids, ``ids`` (places,) int32 has the id of
    every place, and ``reach`` (blocks, segments) float32 the largest scale of the items from a block on.
    """

    planes: np.ndarray
    scales: np.ndarray | None
    dims: tuple[int, ...]
    num_items: int
    ids: np.ndarray | None = None
    reach: np.ndarray | None = None

    @classmethod
    def from_packed(
        cls,
        packed: np.ndarray,
        dims: Sequence[int],
        scales: np.ndarray | None = None,
        order: np.ndarray | None = None,
    ) -> PackedItems:
        """From rows as ``packing.pack`` makes them (memory-mapped ones too) and (items, segments) scales, in the
        ``order`` of these row numbers.

        Raises L2QError for rows or scales of another shape, and for segments above 65,528 bits.
        """
        num_items = len(packed)
        blocks = -(-num_items // (2 * LANES)) * 2
        if max(dims) > _WIDEST:
            raise L2QError(
                f"a segment of {max(dims):,} bits cannot be searched packed; at most {_WIDEST:,} can"
            )
        packing.check_width(packed, packing.row_bytes(dims), "packed rows")
        if scales is not None and scales.shape != (num_items, len(dims)):
            raise L2QError(f"item scales: expected ({num_items}, {len(dims)}), got {scales.shape}")
        planes = aligned_zeros((blocks, packing.row_bytes(dims), LANES), np.uint8)
        _fill_planes(planes, packed, order)
        if scales is None:
            return cls(planes, None, tuple(dims), num_items)
        factors = aligned_zeros((blocks, len(dims), LANES), np.float32)
        _fill_blocks(factors, np.asarray(scales, np.float32), order)
        return cls(planes, factors, tuple(dims), num_items)

    @classmethod
    def longest_first(
        cls, packed: np.ndarray, dims: Sequence[int], scales: np.ndarray | None = None
    ) -> PackedItems:
        """The same items, laid out so that a search may end before it has seen all: by falling sum_s a_is dim_s.
        Without scales, or with negative ones, they lie as they come."""
        if scales is None or not len(scales) or not np.min(scales) >= 0:
            return cls.from_packed(packed, dims, scales)
        order = _by_falling_length(np.asarray(scales, np.float32), np.asarray(dims, np.float32))
        items = cls.from_packed(packed, dims, scales, order)
        assert items.scales is not None
        return replace(items, ids=order, reach=_reach(items.scales))

    def with_scales(self, scales: np.ndarray) -> PackedItems:
        """The same codes with other scales (blocks, segments, 64), of which none is negative where none was."""
        factors = aligned_zeros(scales.shape, np.float32)  # the kernels read whole vectors
        factors[:] = scales
        return replace(self, scales=factors, reach=None if self.reach is None else _reach(factors))

    @cached_property
    def segments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first byte and the first unit of each segment, (2, segments + 1); its bits, int64 and float32."""
        bytes_ = np.array([packing.row_bytes((dim,)) for dim in self.dims])
        firsts = np.zeros((2, len(bytes_) + 1), np.int64)
        np.cumsum([bytes_, -(-bytes_ // UNIT)], axis=1, out=firsts[:, 1:])
        return firsts, np.array(self.dims), np.array(self.dims, np.float32)

    @property
    def nbytes(self) -> int:
        return sum(
            part.nbytes for part in (self.planes, self.scales, self.ids, self.reach) if part is not None
        )


def top_k(
    queries: np.ndarray,
    factors: np.ndarray,
    items: PackedItems,
    k: int,
    exclude: Interactions | None = None,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each query: scores (n, k) float32 and items (n, k) int32, best first.

    ``queries`` (n, row bytes) uint8 as ``packing.pack`` makes them, or (n, sum of dims) float32;
    ``factors`` (n, segments) or (segments,) float32; row ``rows[j]`` of ``exclude`` (default: row j) belongs
    to query j. Where fewer than k items are left: score -inf, item -1. A zero score is returned as +0.
    Threads are as many as ``numba.set_num_threads`` says. Scores must not be NaN. Raises L2QError for k < 1 and for
    queries of another width.

    >>> codes = np.int8([[1, 1, 1, 1], [1, 1, -1, 1], [-1, -1, -1, -1]])
    >>> items = PackedItems.from_packed(packing.pack(codes, (4,)), (4,))
    >>> top_k(packing.pack(codes[:1], (4,)), np.float32([1]), items, k=2)
    (array([[4., 2.]], dtype=float32), array([[0, 1]], dtype=int32))
    """
    if k < 1:
        raise L2QError(f"k is {k}; it must be at least 1")
    width = sum(items.dims) if queries.dtype == np.float32 else packing.row_bytes(items.dims)
    packing.check_width(queries, width, "queries")
    num_queries = len(queries)
    if factors.shape != (num_queries, len(items.dims)):
        factors = np.broadcast_to(factors, (num_queries, len(items.dims)))
    factors = np.ascontiguousarray(factors, np.float32)
    rows = np.arange(num_queries) if rows is None else np.asarray(rows, np.int64)
    exclusions = starts, ends, excluded = exclusions_of(exclude, rows)
    early = items.reach is not None and queries.dtype != np.float32
    chunk = (_SORTED if early else CHUNK) * numba.get_num_threads()
    if num_queries <= chunk:
        return _top_k(queries, factors, items, k, exclusions)
    scores, found = np.empty((num_queries, k), np.float32), np.empty((num_queries, k), np.int32)
    for start in range(0, num_queries, chunk):
        part = slice(start, start + chunk)
        some = starts[part], ends[part], excluded
        scores[part], found[part] = _top_k(queries[part], factors[part], items, k, some)
    return scores, found


def _reach(scales: np.ndarray) -> np.ndarray:
    """For every block and segment, the largest of the scales (blocks, segments, 64) from it on."""
    return np.ascontiguousarray(np.maximum.accumulate(scales.max(axis=2)[::-1])[::-1])


def _top_k(queries, factors, items, k, exclusions) -> tuple[np.ndarray, np.ndarray]:
    num_queries, threads = len(queries), numba.get_num_threads()
    tables, values, firsts, dims = prepared(queries, factors, items)
    shape = CODES_PASS if values is None else VALUES_PASS
    blocks, block_bytes = len(items.planes), LANES * items.planes.shape[1]
    # Tasks are rows x parts of the catalogue; parts only where the rows alone leave cores idle.
    step = shape[0]
    task_rows = min(_TASK_ROWS, max(-(-num_queries // threads) // step * step, step))
    parts = -(-threads // max(-(-num_queries // task_rows), 1))
    few = parts > 1 and num_queries <= step
    if few and num_queries * blocks * block_bytes <= ONE_THREAD:
        parts = 1
    most = None
    if values is None and len(dims) == 1 and (items.scales is None or items.reach is not None):
        most = np.empty((parts, num_queries), np.uint16)
    tile = max(_TILE_BYTES // block_bytes // 2 * 2, 2)
    early = items.reach is not None and values is None
    order = None

    def search(
        keys: np.ndarray, first_block: int, last_block: int, floors: np.ndarray | None = None
    ) -> np.ndarray:
        parts = keys.shape[1]
        size = tile if parts == 1 else max(min(tile, (last_block - first_block) // (8 * parts) * 2), 2)
        with one_thread(of=threads if few and parts == 1 else 1):
            _search(
                tables, values, factors, items.planes, items.scales, firsts, dims, items.num_items, items.ids,
                items.reach, most, exclusions, first_block, last_block, size, task_rows, threads, shape, floors, keys,
            )  # fmt: skip
        return keys

    if few and items.reach is not None and parts > 1:
        # what is left behind the first tile is often too little for a second thread
        first = min(tile, blocks)
        keys = search(_no_items(num_queries, 1, k), 0, first)
        spans = np.abs(factors) * dims if values is None else np.abs(values[0][:, :, 1]) + values[0][:, :, 2]
        floors, end = _left(items.reach, first, blocks, spans, keys)
        end += (end - first) % LONE[1]
        if num_queries * (end - first) * block_bytes > ONE_THREAD:
            keys = np.concatenate([keys, _no_items(num_queries, parts - 1, k)], axis=1)
        keys = search(keys, first, end, floors)
    elif not early or num_queries <= step:
        keys = search(_no_items(num_queries, parts, k), 0, blocks)
    else:
        # a pass goes on for the query that needs it longest, so those go together that end about as early
        first = min(tile, blocks)
        keys = search(_no_items(num_queries, parts, k), 0, first)
        order = np.argsort(keys[:, 0, 0])
        starts, ends, excluded = exclusions
        tables, factors, keys = tables[order], factors[order], keys[order]
        exclusions = starts[order], ends[order], excluded
        keys = search(keys, first, blocks)
    found = keys.reshape(num_queries, keys.shape[1] * k)
    found.sort(axis=1)
    scores, ids = best_keys.decode(found[:, : -k - 1 : -1])
    if order is None:
        return scores, ids
    back = np.argsort(order)
    return scores[back], ids[back]


def _no_items(num_queries: int, parts: int, k: int) -> np.ndarray:
    return np.full((num_queries, parts, k), best_keys.NO_ITEM)


@contextmanager
def one_thread(of: int) -> Iterator[None]:
    """Kernels in one of ``of`` threads, the caller, so that nobody is woken up."""
    if of > 1:
        numba.set_num_threads(1)
    try:
        yield
    finally:
        if of > 1:
            numba.set_num_threads(of)


def prepared(queries: np.ndarray, factors: np.ndarray, items: PackedItems) -> tuple:
    """What the passes read of queries and segments: ``tables``, ``values`` (None for codes), ``firsts``, ``dims``."""
    firsts, widths, dims = items.segments
    if queries.dtype != np.float32:
        return _code_tables(queries), None, firsts, dims
    tables = aligned_zeros((len(queries), int(firsts[1, -1]), 4, 2**BITS), np.uint8)
    exact = aligned_zeros((len(queries), int(firsts[0, -1]), 2, 16), np.float32)
    lines = np.empty((len(queries), len(dims), 3), np.float32)
    with one_thread(of=numba.get_num_threads() if len(queries) <= _FEW else 1):
        floats.prepare(np.ascontiguousarray(queries), factors, widths, firsts, exact, tables, lines)
    return tables, (lines, exact), firsts, dims


def _code_tables(packed: np.ndarray) -> np.ndarray:
    """What a pass reads of queries with codes: each byte four times, or its table of counts (2, 16)."""
    if COUNTS:
        return np.multiply(packed, np.uint32(0x01010101), order="C")
    tables = aligned_zeros((*packed.shape, 2, 16), np.uint8)
    np.take(
        _TABLE_OF_COUNTS,
        np.ascontiguousarray(packed),
        out=tables.reshape(*packed.shape, 32).view("V32")[:, :, 0],
    )
    return tables


def aligned_zeros(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Zeros that start on a 64-byte line, so that no vector crosses one."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 192, np.uint8)  # a pass over float rows may read two vectors beyond
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


@compiling.njit(nogil=True, cache=True)
def _by_falling_length(scales, dims):
    """Row numbers, int32, by falling sum_s a_is dim_s >= 0; those of about one length stay in their order.

    Seven bits of the mantissa are order enough: sign, exponent and these are 16 bits, which can be counted.
    """
    keys, places = np.empty(len(scales), np.uint16), np.zeros((1 << 16) + 1, np.int64)
    for row in range(len(scales)):
        length = np.float32(0)
        for segment in range(len(dims)):
            length += abs(scales[row, segment]) * dims[segment]  # without a -0
        keys[row] = np.uint32(0xFFFF) - (np.float32(length).view(np.uint32) >> np.uint32(16))
        places[np.int64(keys[row]) + 1] += 1
    places = np.cumsum(places)
    order = np.empty(len(scales), np.int32)
    for row in range(len(scales)):
        order[places[keys[row]]] = row
        places[keys[row]] += 1
    return order


@compiling.njit(parallel=True, nogil=True, cache=True)
def _fill_blocks(blocks, rows, order):
    """Writes rows (n, columns), all of them in this order, into (blocks, columns, 64)."""
    for block in numba.prange(-(-len(rows) // LANES)):
        first = block * LANES
        for column in range(rows.shape[1]):
            for lane in range(min(LANES, len(rows) - first)):
                row = first + lane if order is None else order[first + lane]
                blocks[block, column, lane] = rows[row, column]


@compiling.njit(parallel=True, nogil=True, cache=True)
def _fill_planes(planes, rows, order):
    """The same for wide rows, each of which is read once: in another order they lie far apart."""
    for block in numba.prange(-(-len(rows) // LANES)):
        first = block * LANES
        lanes = min(LANES, len(rows) - first)
        near = np.empty((LANES, rows.shape[1]), rows.dtype)
        for lane in range(lanes):
            row = first + lane if order is None else order[first + lane]
            for column in range(rows.shape[1]):
                near[lane, column] = rows[row, column]
        for column in range(rows.shape[1]):
            for lane in range(lanes):
                planes[block, column, lane] = near[lane, column]


def exclusions_of(
    exclude: Interactions | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each query's excluded items start and end, and all of them."""
    if exclude is None:
        return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64), np.empty(0, np.int32)
    return exclude.indptr[rows], exclude.indptr[rows + 1], exclude.items


@numba.njit(forceinline=True)
def offer(heaps, heap, bar, passed, scores, first_score, first_place, num_items, ids, excluded, start, end):
    """Takes in the items whose bit is set; returns the query's new limit, which a score has to be above.

    Items in the order of their ids need a score above the K-th best. In any other order one that equals it may win by
    its id: the limit lies just below it.
    """
    while passed:
        lane = lowest_bit(passed)  # type: ignore[call-arg, var-annotated]
        passed &= passed - 1
        place, score = first_place + lane, scores[first_score + lane]
        if not score > bar or place >= num_items:
            continue
        item = floats.id_of(place, ids)
        if best_keys.is_among(item, excluded, start, end):
            continue
        if ids is None:
            bar = best_keys.take_in(heaps, heap, score, item)
        else:
            bar = np.nextafter(best_keys.offer(heaps, heap, score, item), np.float32(-np.inf))
    return bar


@numba.njit
def _end_of(reach, first, last, spans, row, bar):
    """The first of the blocks from ``first`` to ``last`` of which no item passes, nor any behind it."""
    while first < last:
        middle = (first + last) >> 1
        bound = np.float32(0)
        for segment in range(reach.shape[1]):
            bound += spans[row, segment] * reach[middle, segment]
        if bound <= bar:
            last = middle
        else:
            first = middle + 1
    return first


@compiling.njit(cache=True)
def _left(reach, first, last, spans, keys):
    """The K-th best score of each query in ``keys`` (queries, 1, k), and the first block behind which none has more."""
    floors, end = np.empty(len(keys), np.float32), first
    for row in range(len(keys)):
        floors[row] = best_keys.worst(keys[:, 0], row)
        bar = np.nextafter(floors[row], np.float32(-np.inf))
        end = max(end, _end_of(reach, first, last, spans, row, bar))
    return floors, end


@numba.njit
def most_differing(factor, dim, size, bar):
    """With more differing bits than these, f a (dim - 2 c) does not pass for any scale a up to ``size``."""
    product = np.float64(factor) * np.float64(size)
    if not (0 <= bar < _LARGE and 1 / _LARGE < product < _LARGE):
        return np.uint16(0xFFFF)
    return np.uint16(max(dim - bar / product + 1, 0) / 2)  # 1: far more than what float32 rounds off


@compiling.njit(parallel=True, nogil=True, cache=True)
def _search(
    tables, values, factors, planes, scales, firsts, dims, num_items, ids, reach, most, exclusions, first_block,
    last_block, tile, task_rows, threads, shape, floors, keys,
):  # fmt: skip
    """Takes the items of these blocks into ``keys`` (queries, parts, k), each a heap over one part of the catalogue.
    ``values`` is None for codes. ``floors`` (queries,): scores that K items
    of other blocks have; or None."""
    num_queries, parts, k = keys.shape
    heaps = keys.reshape(num_queries * parts, k)
    starts, ends, excluded = exclusions
    limits = np.full((parts, num_queries), np.float32(-np.inf))
    tasks = -(-num_queries // task_rows) * parts
    each = -(-tasks // threads)
    for index in numba.prange(each * threads):
        # a thread has tasks from everywhere: neighbors may end about as early
        task = np.int64(index) % each * threads + np.int64(index) // each
        if task >= tasks:
            continue
        part, first_row = task % parts, task // parts * task_rows
        last_row = min(first_row + task_rows, num_queries)
        bars, first_bytes = limits[part], firsts[0]
        cells = max(shape[0] * shape[1], LONE[0] * LONE[1])
        totals, passed = np.empty(LANES * cells, np.float32), np.empty(cells, np.int64)
        if values is not None:
            lines, exact = values
            waiting, bounds, sizes, lows = floats.room(last_row - first_row, k)
        if reach is not None:
            spans = np.empty((last_row - first_row, len(dims)), np.float32)
            for row in range(first_row, last_row):
                for segment in range(len(dims)):
                    if values is None:
                        spans[row - first_row, segment] = abs(factors[row, segment]) * dims[segment]
                    else:
                        spans[row - first_row, segment] = abs(lines[row, segment, 1]) + lines[row, segment, 2]
        for row in range(first_row, last_row):
            bars[row] = best_keys.worst(heaps, row * parts + part)
            if floors is not None:
                bars[row] = max(bars[row], floors[row])
            if ids is not None:
                bars[row] = np.nextafter(bars[row], np.float32(-np.inf))
        # parts have every so many tiles, so that each has long items
        for tile_start in range(first_block + part * tile, last_block, parts * tile):
            tile_end = min(tile_start + tile, last_block)
            row = first_row
            while row < last_row:
                many = row + shape[0] <= last_row
                count, step = shape if many else LONE
                end = tile_end
                if reach is not None:
                    end = tile_start
                    for who in range(row, row + count):
                        end = max(
                            end, _end_of(reach, tile_start, tile_end, spans, who - first_row, bars[who])
                        )
                    end += (end - tile_start) % step
                if most is not None:
                    size = np.float32(1) if reach is None else reach[tile_start, 0]
                    for who in range(row, row + count):
                        most[part, who] = most_differing(factors[who, 0], dims[0], size, bars[who])
                for block in range(tile_start, end, step):
                    if values is None:
                        codes = tables, factors, planes, scales, first_bytes, dims, bars
                        # two calls: a variable for limits or None would be no array, and no pass would end early
                        if most is None:
                            if many:
                                hit = score_many(*codes, None, row, block, totals, passed)
                            else:
                                hit = score_lone(*codes, None, row, block, totals, passed)
                        else:
                            limit = most[part]
                            if many:
                                hit = score_many(*codes, limit, row, block, totals, passed)
                            else:
                                hit = score_lone(*codes, limit, row, block, totals, passed)
                    else:
                        rows = tables, lines, planes, scales, firsts, bars
                        if many:
                            hit = bound_many(*rows, row, block, totals, passed)
                        else:
                            hit = bound_lone(*rows, row, block, totals, passed)
                    if not hit:
                        continue
                    for cell in range(count * step):
                        if not passed[cell]:
                            continue
                        who, first_item = row + cell // step, (block + cell % step) * LANES
                        if values is None:
                            bars[who] = offer(
                                heaps, who * parts + part, bars[who], passed[cell], totals, cell * LANES, first_item,
                                num_items, ids, excluded, starts[who], ends[who],
                            )  # fmt: skip
                        else:
                            place, heap = who - first_row, who * parts + part
                            if sizes[place] > waiting.shape[1] - LANES:
                                floats.keep_above(waiting, bounds, sizes, place, bars[who])
                                if sizes[place] > waiting.shape[1] // 2:
                                    above = floats.settle(
                                        waiting, bounds, sizes, place, bars[who], exact, factors, planes, scales,
                                        firsts, who, heaps, heap, ids,
                                    )  # fmt: skip
                                    bars[who] = max(bars[who], above)
                            bars[who] = floats.wait(
                                waiting, bounds, sizes, lows, place, bars[who], passed[cell], totals,
                                cell * LANES, first_item, num_items, excluded, starts[who], ends[who],
                                lines, scales, who, ids,
                            )  # fmt: skip
                row += count
        if values is not None:
            for row in range(first_row, last_row):
                place, heap = row - first_row, row * parts + part
                floats.settle(
                    waiting, bounds, sizes, place, bars[row], exact, factors, planes, scales, firsts, row, heaps,
                    heap, ids,
                )  # fmt: skip
