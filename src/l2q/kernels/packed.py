"""Exact Top-K over packed codes: xor, popcount, scales and the running best K in one pass.

    score(u, i) = sum_s (f_us * float32(<q_us, q_is>)) * a_is      f_us = w_s a_us, a_is = 1 without scales

in float32, operation by operation as written, s ascending; equal scores: lower item id first.
Queries choose the mode:

- codes:       <q_us, q_is> = dim_s - 2 popcount(q_us xor q_is), an exact integer. Scaled with f and a; plain
               Hamming ranking with f = 1 and no item scales.
- float rows:  <q_us, q_is> = sum over groups of four values g, ascending, of
               ((v_4g b_4g + v_4g+1 b_4g+1) + v_4g+2 b_4g+2) + v_4g+3 b_4g+3 in float32, b in {-1, +1}; the
               last group of a segment is filled up with v = 0 (asymmetric: float query, 1-bit items).

Layout. 16 items make a block, item 16 b + l lies in lane l of block b. A block holds word w of its 16 items
side by side, so that one 512-bit vector is one word of 16 items. ``packed_scores`` scores a few queries
against a few blocks in one pass. A lane is looked at only where its score passes its query's K-th best so
far. Exclusion is decided there, by bisection, so that it costs nothing for all other items.

Rounding. With u = 2^-24 and S segments, |score - exact| <= g sum_s |term_s|, g = (S + 1) u / (1 - (S + 1) u),
for codes; for float rows add ceil(dim / 4) + 3 to S + 1 and take the terms with |v|. (No underflow assumed.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import compiling, packing
from l2q.kernels.packed_scores import LANES, LONE, PASS, lowest_bit, score_lone, score_many

_NO_ITEM = np.iinfo(np.int64).min
_TILE_BYTES = 1 << 18  # items that all queries of a task visit before the next ones: half of a small L2
_TASK_ROWS = 64


@dataclass(frozen=True)
class PackedItems:
    """Items in the kernels' layout, converted once.

    ``words`` (blocks, row words, 16) uint32; ``scales`` (blocks, segments, 16) float32 or None. Blocks come in fours,
    filled up with zeros.
    """

    words: np.ndarray
    scales: np.ndarray | None
    dims: tuple[int, ...]
    num_items: int

    @classmethod
    def from_packed(
        cls, packed: np.ndarray, dims: Sequence[int], scales: np.ndarray | None = None
    ) -> PackedItems:
        """From rows as ``packing.pack`` makes them (memory-mapped ones too) and (items, segments) scales."""
        num_items = len(packed)
        blocks = -(-num_items // (4 * LANES)) * 4
        if scales is not None and scales.shape != (num_items, len(dims)):
            raise L2QError(f"item scales: expected ({num_items}, {len(dims)}), got {scales.shape}")
        words = _aligned_zeros((blocks, packing.row_words(dims), LANES), np.uint32)
        for start in range(0, num_items, 1 << 16):  # in parts, for the sake of memory
            _fill_blocks(words, packing.to_words(packed[start : start + (1 << 16)], dims), start)
        if scales is None:
            return cls(words, None, tuple(dims), num_items)
        factors = _aligned_zeros((blocks, len(dims), LANES), np.float32)
        _fill_blocks(factors, scales, 0)
        return cls(words, factors, tuple(dims), num_items)

    def with_scales(self, scales: np.ndarray) -> PackedItems:
        """The same words with other scales (blocks, segments, 16)."""
        factors = _aligned_zeros(scales.shape, np.float32)  # the kernels read whole vectors
        factors[:] = scales
        return replace(self, scales=factors)

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + (0 if self.scales is None else self.scales.nbytes)


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
    words = (
        _tables(queries, items.dims) if queries.dtype == np.float32 else packing.to_words(queries, items.dims)
    )
    num_queries = len(words)
    factors = np.array(np.broadcast_to(factors, (num_queries, len(items.dims))), np.float32, order="C")
    first_words = np.cumsum([0] + [packing.row_words((dim,)) for dim in items.dims])
    dims = np.array(items.dims, np.float32)

    # Tasks are rows x parts of the catalogue; parts only where the rows alone leave cores idle.
    threads, step = numba.get_num_threads(), PASS[words.dtype][0]
    task_rows = min(_TASK_ROWS, max(-(-num_queries // threads) // step * step, step))
    parts = -(-threads // max(-(-num_queries // task_rows), 1))
    keys = np.full((num_queries, parts, k), _NO_ITEM)
    operands = (words, factors, items.words, items.scales, first_words, dims)
    exclusions = _exclusions(exclude, rows, num_queries)
    _search(operands, items.num_items, exclusions, task_rows, PASS[words.dtype], keys)
    found = keys.reshape(num_queries, parts * k)
    found.sort(axis=1)
    return _decode(found[:, : -k - 1 : -1])


def _aligned_zeros(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Zeros that start on a 64-byte line, so that no vector crosses one."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _fill_blocks(blocks: np.ndarray, rows: np.ndarray, start: int) -> None:
    """Write rows (n, columns) from item ``start``, a multiple of 16, into (blocks, columns, 16)."""
    whole = len(rows) // LANES
    first = start // LANES
    columns = rows.shape[1]
    blocks[first : first + whole] = rows[: whole * LANES].reshape(whole, LANES, columns).transpose(0, 2, 1)
    rest = rows[whole * LANES :]
    if len(rest):
        blocks[first + whole, :, : len(rest)] = rest.T


def _tables(values: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """The 16 signed sums of every group of four values, (n, 8 row words, 16): value j is added where bit j is 1."""
    if values.shape[1:] != (sum(dims),):
        raise L2QError(f"queries: expected (rows, {sum(dims)}), got {values.shape}")
    groups = np.zeros((len(values), 8 * packing.row_words(dims), 4), np.float32)
    start = at = 0
    for dim in dims:
        words = packing.row_words((dim,))
        filled = np.pad(values[:, start : start + dim], ((0, 0), (0, 32 * words - dim)))
        groups[:, at : at + 8 * words] = filled.reshape(len(values), 8 * words, 4)
        start, at = start + dim, at + 8 * words
    signs = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.float32) * 2 - 1  # (16, 4)
    tables = _aligned_zeros((*groups.shape[:2], 16), np.float32)
    np.multiply(groups[:, :, 0, None], signs[:, 0], out=tables)
    for j in range(1, 4):
        tables += groups[:, :, j, None] * signs[:, j]
    return tables


def _exclusions(
    exclude: Interactions | None, rows: np.ndarray | None, num_queries: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each query's excluded items start and end, and all of them."""
    if exclude is None:
        return np.zeros(num_queries, np.int64), np.zeros(num_queries, np.int64), np.empty(0, np.int32)
    rows = np.arange(num_queries) if rows is None else np.asarray(rows, np.int64)
    return exclude.indptr[rows], exclude.indptr[rows + 1], exclude.items


def _decode(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and items of ``_key``s."""
    bits = (keys >> 32).astype(np.int32)
    empty = keys == _NO_ITEM
    scores = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
    scores[empty] = -np.inf
    return scores, np.where(empty, -1, 0xFFFFFFFF - (keys & 0xFFFFFFFF)).astype(np.int32)


# The running best K: a heap of 64-bit keys whose order is the order of the ranking.


@numba.njit
def _key(score, item):
    """Larger for a larger score, and among equal scores for a lower item."""
    bits = np.float32(score + np.float32(0)).view(np.int32)  # + 0: -0 and +0 are one score
    return (np.int64(bits ^ ((bits >> 31) & 0x7FFFFFFF)) << 32) | (0xFFFFFFFF - item)


@numba.njit
def _replace_least(heap, key):
    """Put a key in the place of the least one, ``heap[0]``."""
    at, child = 0, 1
    while child < len(heap):
        if child + 1 < len(heap):
            child += heap[child + 1] < heap[child]
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = key


@numba.njit
def _offer(heap, threshold, scores, passed, first_score, first_item, num_items, excluded, start, end):
    """Takes in the items whose bit is set; returns the heap's new threshold.

    Items come in ascending order. An item that equals the K-th best has the higher id and stays out, so a strict
    comparison is enough.
    """
    while passed:
        lane = lowest_bit(passed)  # type: ignore[call-arg, var-annotated]
        passed &= passed - 1
        item, score = first_item + lane, scores[first_score + lane]
        if score > threshold and item < num_items:
            low, high = start, end
            while low < high:
                middle = (low + high) >> 1
                if excluded[middle] < item:
                    low = middle + 1
                else:
                    high = middle
            if low < end and excluded[low] == item:
                continue
            _replace_least(heap, _key(score, item))
            if heap[0] != _NO_ITEM:
                bits = np.int32(heap[0] >> 32)
                threshold = np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
    return threshold


@compiling.njit(parallel=True, nogil=True, cache=True)
def _search(operands, num_items, exclusions, task_rows, shape, keys):
    """Fill ``keys`` (queries, parts, k), each a heap over one part of the catalogue."""
    num_queries, parts, _ = keys.shape
    blocks, row_words, _ = operands[2].shape
    starts, ends, excluded = exclusions
    limits = np.full((parts, num_queries), np.float32(-np.inf))
    part_blocks = -(-blocks // (4 * parts)) * 4
    tile = max(_TILE_BYTES // (4 * LANES * row_words) // 4 * 4, 4)
    for index in numba.prange(-(-num_queries // task_rows) * parts):
        task = np.int64(index)
        part, first_row = task % parts, task // parts * task_rows
        last_row = min(first_row + task_rows, num_queries)
        last_block = min((part + 1) * part_blocks, blocks)
        bars = limits[part]
        scores = np.empty(LANES * max(shape[0] * shape[1], LONE[0] * LONE[1]), np.float32)
        passed = np.empty(shape[0], np.int64)
        for tile_start in range(part * part_blocks, last_block, tile):
            tile_end = min(tile_start + tile, last_block)
            row = first_row
            while row < last_row:
                many = row + shape[0] <= last_row
                count, step = shape if many else LONE
                for block in range(tile_start, tile_end, step):
                    if many:
                        hit = score_many(*operands, bars, row, block, scores, passed)
                    else:
                        hit = score_lone(*operands, bars, row, block, scores, passed)
                    if hit:
                        for query in range(count):
                            if passed[query]:
                                who, at, item = row + query, query * step * LANES, block * LANES
                                bars[who] = _offer(
                                    keys[who, part], bars[who], scores, passed[query], at, item, num_items,
                                    excluded, starts[who], ends[who],
                                )  # fmt: skip
                row += count
