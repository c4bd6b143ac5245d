"""One search protocol over users and items: dense (float sign products) and packed (xor and popcount).

    score(u, i) = sum_s ((w_s * a_us) * <q_us, q_is>) * a_is        in float32, s ascending

Best first; among equal scores the lower item id first. The two back ends share no scoring code, so that
one can be held to the other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numba
import numpy as np

from l2q.errors import L2QError
from l2q.evaluation import Ranker
from l2q.interactions import Interactions
from l2q.kernels import compiling, packing, selection
from l2q.kernels import packed as kernels
from l2q.representations import Representations, Rows

TILE = 4096  # items of a tile
_CACHE_BYTES = 2**24  # of the products of a chunk and a tile


class Backend(Protocol):
    """``search`` takes user ids or query rows. Row u of ``exclude`` belongs to user id u, or to query u.

    Returns scores float32 and items int32, both (queries, k); where fewer than k candidates are left, the
    rest of the row has score -inf and item -1. Raises L2QError for k < 1 and for unknown users.
    """

    num_users: int
    num_items: int

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def item_rows(self, items: np.ndarray) -> Rows:
        """Items as query rows."""
        ...

    @property
    def near(self) -> Backend:
        """The items alone, whose rows as queries find items like themselves (``similar_items``)."""
        ...

    def with_users(self, users: Rows) -> Backend:
        """The same items with other users, whose rows are as they are stored."""
        ...


class DenseIndex:
    """Float values, or codes as float32 matrix products of -1 and +1, which are exact integers.

    A chunk of queries meets a tile of items at a time: their products are ranked while they are in the cache. A chunk
    is halved when memory runs out. Items that are whole tiles of a catalogue of ``of`` items have the same products to
    the bit as among all of them, since those have the same shapes.

    >>> values = Rows(np.float32([[1, 0], [1, 2], [0, 3]]))
    >>> index = DenseIndex(Representations(values, values, (2,), np.ones(1, np.float32)))
    >>> index.search(np.array([0]), k=2)
    (array([[1., 1.]], dtype=float32), array([[0, 1]], dtype=int32))
    """

    def __init__(self, representations: Representations, of: int | None = None):
        self.representations = representations
        self._of = of
        self.num_users = representations.num_users
        self.num_items = representations.num_items
        self._segments = [
            slice(start, start + dim)
            for start, dim in zip(representations.offsets[:-1], representations.dims, strict=True)
        ]
        values = representations.items.values
        self._items = [np.array(values[:, segment], np.float32, order="C") for segment in self._segments]
        self._item_scales = np.ascontiguousarray(_scales(representations.items, len(self._segments)).T)
        row_bytes = 4 * min(self.num_items if of is None else of, TILE) * len(self._segments)
        self._chunk = max(_CACHE_BYTES // max(row_bytes, 1), 1)

    def item_rows(self, items: np.ndarray) -> Rows:
        return take(self.representations.items, items)

    @cached_property
    def near(self) -> DenseIndex:
        rows, dims, weights = (
            self.representations.items,
            self.representations.dims,
            self.representations.weights,
        )
        if rows.binary:
            items = Rows(rows.values, None if rows.scales is None else _roots(rows.scales))
            return DenseIndex(Representations(items, items, dims, weights), self._of)
        factors = np.sqrt(weights) * _scales(rows, len(dims))
        values = rows.values * np.repeat(factors, dims, axis=1)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        unit = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
        return DenseIndex(Representations.floats(unit, unit), self._of)

    def with_users(self, users: Rows) -> DenseIndex:
        index, users = copy(self), unpacked(users, self.representations.dims)
        index.representations, index.num_users = replace(self.representations, users=users), len(users)
        return index

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        side, rows = rows_of_queries(self, self.representations.users, users, k, exclude)
        scores, items = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int32)
        start, chunk = 0, min(self._chunk, max(len(rows), 1))
        products = None
        while start < len(rows):
            try:
                if products is None:
                    products = np.empty(len(self._segments) * chunk * min(self.num_items, TILE), np.float32)
                part = slice(start, start + chunk)
                self._search(side, rows[part], exclude, products, scores[part], items[part])
            except MemoryError:
                if chunk == 1:
                    raise
                products, chunk = None, chunk // 2
            else:
                start += chunk
        return scores, items

    def _search(self, side, rows, exclude, products, scores, items) -> None:
        queries = take(side, rows)
        sides = [np.array(queries.values[:, segment], np.float32, order="C") for segment in self._segments]
        factors = factors_of(queries, self.representations.weights)
        scaled = len(self._segments) > 1 or not (np.all(factors == 1) and np.all(self._item_scales == 1))
        scores[:], items[:] = -np.inf, -1
        next_excluded, ends, excluded = kernels.exclusions_of(exclude, rows)
        for first in range(0, self.num_items, TILE):
            tile = slice(first, min(first + TILE, self.num_items))
            shape = len(sides), len(rows), tile.stop - first
            some = products[: np.prod(shape)].reshape(shape)
            for product, side_, values in zip(some, sides, self._items, strict=True):
                _matmul(side_, values[tile].T, product)
            _rank(
                some, scaled, factors, np.ascontiguousarray(self._item_scales[:, tile]), first, next_excluded,
                ends, excluded, scores, items,
            )  # fmt: skip
        selection.sort_heaps(scores, items)


def _matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a b, by torch in a process that has it loaded: its MKL is faster than NumPy's OpenBLAS.

    A process without torch uses NumPy, since loading torch takes longer than a query.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        np.matmul(a, b, out=out)
    else:
        torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))


@compiling.njit(parallel=True, nogil=True, cache=True)
def _rank(
    products, scaled, factors, item_scales, first_item, next_excluded, excluded_ends, excluded, scores, items
):
    """Offers a tile of items, from ``first_item`` on, to the heap of each query (row of ``scores`` and ``items``).

    ``products`` (segments, queries, items of the tile) are overwritten. ``next_excluded`` (queries,) is where each
    query's excluded items go on, and is moved behind the tile.
    """
    segments, num_queries, num_items = products.shape
    for query in numba.prange(num_queries):
        total = products[0, query]
        if scaled:
            for item in range(num_items):
                total[item] = factors[query, 0] * total[item] * item_scales[0, item]
        for segment in range(1, segments):
            for item in range(num_items):
                total[item] += (
                    factors[query, segment] * products[segment, query, item] * item_scales[segment, item]
                )
        place = next_excluded[query]
        while place < excluded_ends[query] and excluded[place] < first_item + num_items:
            total[excluded[place] - first_item] = -np.inf
            place += 1
        next_excluded[query] = place
        selection.offer(total, first_item, scores[query], items[query])


class PackedIndex:
    """Item codes as packed bits: an item costs ``packing.row_bytes(dims)`` bytes and its scales.

    ``items`` hold packed bytes instead of codes. ``users`` and queries hold packed bytes or float32 values.

    >>> codes = Rows(np.int8([[1, 1, 1], [1, 1, -1], [-1, -1, -1]]))
    >>> index = PackedIndex.from_representations(Representations(codes, codes, (3,), np.ones(1, np.float32)))
    >>> index.search(np.array([0]), k=2)
    (array([[3., 1.]], dtype=float32), array([[0, 1]], dtype=int32))
    """

    def __init__(self, users: Rows, items: Rows, dims: tuple[int, ...], weights: np.ndarray):
        self.num_users, self.num_items = len(users), len(items)
        self._users, self._items, self._dims, self._weights = users, items, dims, weights
        self._packed = kernels.PackedItems.longest_first(items.values, dims, items.scales)

    @classmethod
    def from_representations(cls, representations: Representations) -> PackedIndex:
        if not representations.items.binary:
            raise L2QError("a packed index needs codes (int8) of the items, these are float values")
        dims = representations.dims
        users, items = packed_rows(representations.users, dims), packed_rows(representations.items, dims)
        return cls(users, items, dims, representations.weights)

    def item_rows(self, items: np.ndarray) -> Rows:
        packed = take(self._items, items)
        return Rows(packing.unpack(packed.values, self._dims), packed.scales)

    @cached_property
    def near(self) -> PackedIndex:
        index = copy(self)  # its words are these
        if self._items.scales is not None and self._packed.scales is not None:
            index._items = Rows(self._items.values, _roots(self._items.scales))
            index._packed = self._packed.with_scales(_roots(self._packed.scales))
        return index.with_users(index._items)

    def with_users(self, users: Rows) -> PackedIndex:
        index = copy(self)
        index._users, index.num_users = users, len(users)
        return index

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(users, Rows):
            users = packed_rows(users, self._dims)
        side, rows = rows_of_queries(self, self._users, users, k, exclude)
        queries = take(side, rows)
        factors = factors_of(queries, self._weights)
        return kernels.top_k(queries.values, factors, self._packed, k, exclude, rows)


def backend(
    users: Rows, items: Rows, dims: tuple[int, ...], weights: np.ndarray, of: int | None = None
) -> PackedIndex | DenseIndex:
    """What searches rows as they are stored, packed bytes or float values: packed for item codes, else dense. Items may
    be a part of a catalogue of ``of``."""
    if items.values.dtype == np.uint8:
        return PackedIndex(users, items, dims, weights)
    return DenseIndex(Representations(unpacked(users, dims), items, dims, weights), of)


def stored(arrays: Mapping[str, np.ndarray], side: str, rows: slice | np.ndarray = slice(None)) -> Rows:
    """Rows of "users" or "items" as files have them: packed bytes, or float values."""
    values = arrays[f"{side}.codes" if f"{side}.codes" in arrays else f"{side}.values"][rows]
    scales = arrays.get(f"{side}.scales")
    return Rows(values, None if scales is None else scales[rows].astype(np.float32))


def unpacked(side: Rows, dims: tuple[int, ...]) -> Rows:
    """Packed bytes as codes; float values as they are."""
    packed = side.values.dtype == np.uint8
    return Rows(packing.unpack(side.values, dims), side.scales) if packed else side


def packed_rows(side: Rows, dims: tuple[int, ...]) -> Rows:
    """Codes as packed bytes; float values as they are."""
    values = packing.pack(side.values, dims) if side.binary else np.asarray(side.values, np.float32)
    return Rows(values, side.scales)


def similar_items(index: Backend, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest to each of ``items`` (n,), which is left out itself: scores and items, both (n, k).

    Of codes the score is that of a recommendation with roots of both items' scales:

        near(i, j) = sum_s w_s sqrt(a_is) <q_is, q_js> sqrt(a_js)

    With the scales themselves, lists fill up with what is popular; with none, they miss much of what people have
    together (docs/results/similar.md). Of float rows it is the cosine s(i, j) / sqrt(s(i, i) s(j, j)).
    """
    itself = Interactions.from_pairs(np.arange(len(items)), items, len(items), index.num_items)
    return index.near.search(index.near.item_rows(items), k, itself)


def _roots(scales: np.ndarray) -> np.ndarray:
    """sign(a) sqrt(|a|), float32."""
    scales = np.asarray(scales, np.float32)
    return np.copysign(np.sqrt(np.abs(scales)), scales)


def rows_of_queries(
    index: Ranker, stored: Rows, users: np.ndarray | Rows, k: int, exclude: Interactions | None
) -> tuple[Rows, np.ndarray]:
    """The rows to draw from, and which of them. Row numbers of ``exclude`` are theirs."""
    if k < 1:
        raise L2QError(f"k is {k}; it must be at least 1")
    if isinstance(users, Rows):
        side, rows = users, np.arange(len(users))
    else:
        side, rows = stored, np.asarray(users, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(stored)):
            raise L2QError(f"user ids {rows.min()} .. {rows.max()} are not all in 0 .. {len(stored) - 1}")
    if exclude is not None and (exclude.num_users, exclude.num_items) != (len(side), index.num_items):
        raise L2QError(
            f"exclude holds {exclude.num_users} users x {exclude.num_items} items, "
            f"the index is searched with {len(side)} x {index.num_items}"
        )
    return side, rows


def take(side: Rows, rows: np.ndarray) -> Rows:
    """Some of the rows."""
    return Rows(side.values[rows], None if side.scales is None else side.scales[rows])


def factors_of(queries: Rows, weights: np.ndarray) -> np.ndarray:
    """w_s a_us, (queries, segments) float32."""
    if queries.scales is None:
        return np.repeat(weights[None], len(queries), axis=0)
    return weights * _scales(queries, len(weights))


def _scales(side: Rows, segments: int) -> np.ndarray:
    """(rows, segments) float32, ones where there are none."""
    if side.scales is None:
        return np.ones((len(side), segments), np.float32)
    return np.asarray(side.scales, np.float32)
