"""An approximate first stage for large catalogs: items in lists, of which a search looks at the most promising ones.

Directions are codes; an item is with the direction c that is nearest by its bits, and rows of bits move to the majority
of theirs, as in k-means (Huang 1998 has modes in place of means):

    direction(i) = argmax_c  sum_s |w_s| mean(|a_s|) <c_s, q_is>

A list has the items of one direction whose lengths are alike. With l_i = sum_s |w_s a_is| dim_s,

    class(i) = floor(log(max l / l_i) / log RATIO)

since the largest inner products are those of long items, and most short ones need no look. A list is ranked as an item
is: its code is the majority of its items' codes, its scale in every segment the largest one of theirs. In the first
lists of a query every item has its exact score, and among equal scores the lower id is first.

How many lists that takes was counted for users of the index: ``shares`` (lists, 2) has, after so many lists, which
share of their exact Top-20 was found and which share of all items was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import packed as kernels
from l2q.kernels import packed_lists
from l2q.progress import Progress
from l2q.representations import Rows
from l2q.retrieval.index import PackedIndex, factors_of, packed_rows, rows_of_queries, stored, take

K = 20
MOST_USERS = 1000  # whose exact rankings are made for ``shares``
RATIO, CLASSES = 1.25, 32
ROUNDS = 8
SAMPLE = 256  # items of a direction, of which the directions are made
_MANY = 64  # a share of the lists above which bins find the best ones sooner than a heap
_AT_ONCE = 64, 1 << 20  # users whose lists, and items whose directions, are in memory


@dataclass(frozen=True, eq=False)
class Lists:
    """``codes`` (lists, row bytes) uint8, ``scales`` (lists, segments) float32, ``shares`` (lists, 2) float32. List l
    has ``items[indptr[l]:indptr[l + 1]]``, in ascending order."""

    codes: np.ndarray
    scales: np.ndarray
    indptr: np.ndarray
    items: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Lists | None:
        """Those among the arrays of an index."""
        names = cls.__dataclass_fields__
        return cls(**{name: arrays[f"lists.{name}"] for name in names}) if "lists.items" in arrays else None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """As an index keeps them."""
        return {f"lists.{name}": array for name, array in vars(self).items()}

    def share(self, exact: float) -> float:
        """Of users' exact Top-20, what was found in these: at least ``exact``."""
        return float(self.shares[self.probes(exact) - 1, 0])

    def whole(self) -> bool:
        """Whether every item is in one list, at one place."""
        indptr, size = self.indptr, len(self.items)
        if not (len(indptr) > 1 and indptr[0] == 0 and indptr[-1] == size and (np.diff(indptr) >= 0).all()):
            return False
        seen = np.zeros(size, bool)
        if size and self.items.min() >= 0 and self.items.max() < size:
            seen[self.items] = True
        return bool(seen.all())

    def probes(self, exact: float) -> int:
        """The least lists in which this share of the exact Top-20 was found. Raises L2QError for what is no share."""
        if not isinstance(exact, int | float | np.number) or not 0 < exact <= 1:
            raise L2QError(
                f"exact={exact!r}: it is a share of the exact ranking, above 0 and at most 1, such as 0.99"
            )
        return int(np.searchsorted(self.shares[:, 0], np.float32(exact))) + 1


class ListedIndex:
    """A back end (``l2q.retrieval.index``) that looks at the first lists of a query: at so many as ``exact`` takes, and
    at more where they do not hold ``k`` items beside the excluded ones."""

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], dims: tuple[int, ...], weights: np.ndarray) -> ListedIndex:
        """Of the arrays of an index. Raises L2QError where it has no lists."""
        return cls(stored(arrays, "users"), stored(arrays, "items"), dims, weights, _lists_of(arrays))

    def __init__(
        self, users: Rows, items: Rows, dims: tuple[int, ...], weights: np.ndarray, lists: Lists
    ) -> None:
        self.num_users, self.num_items = len(users), len(items)
        self._users, self._dims, self._weights, self._lists = users, dims, weights, lists
        self._sizes = np.diff(lists.indptr)
        self._heads = kernels.PackedItems.longest_first(lists.codes, dims, lists.scales)
        self._packed = kernels.PackedItems.from_packed(items.values, dims, items.scales, lists.items)
        positive = items.scales is None or not len(items) or bool(items.scales.min() >= 0)
        self._longest = lists.scales[:, 0].copy() if len(dims) == 1 and positive else None
        self.probes = len(self._sizes)

    def looking_at(self, exact: float) -> ListedIndex:
        """The same with as many lists as this share takes. Raises L2QError for what is no share."""
        index = copy(self)
        index.probes = self._lists.probes(exact)
        return index

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(users, Rows):
            users = packed_rows(users, self._dims)
        side, rows = rows_of_queries(self, self._users, users, k, exclude)
        starts, ends, _ = exclusions = kernels.exclusions_of(exclude, rows)
        queries = take(side, rows)
        factors = factors_of(queries, self._weights)
        lists = self._first_lists(queries.values, factors, k + ends - starts)
        found = self._lists
        return packed_lists.top_k_of_lists(
            queries.values,
            factors,
            self._packed,
            found.items,
            found.indptr,
            self._longest,
            lists,
            k,
            exclusions,
        )

    def ranks(self, users: np.ndarray) -> np.ndarray:
        """The place of every list among a user's lists, (users, lists)."""
        queries = take(self._users, users)
        every = len(self._sizes)
        order = kernels.top_k(queries.values, factors_of(queries, self._weights), self._heads, every)[1]
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(every, dtype=np.int32)[None], axis=1)
        return ranks

    def _first_lists(self, values: np.ndarray, factors: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """(queries, most) int32, best first where they are few; behind those of a query -1. They hold ``needed`` items,
        or all."""
        needed = np.minimum(needed, self.num_items)
        every = len(self._sizes)
        most = min(self.probes, every)
        if values.dtype == np.uint8 and _MANY * most > every:
            lists = packed_lists.best_rows(values, factors, self._heads, most)
        else:
            lists = kernels.top_k(values, factors, self._heads, most)[1]
        # one user with many own items is no reason to look further for all
        short = np.flatnonzero(self._sizes[lists].sum(axis=1) < needed)
        if not len(short):
            return lists
        held = np.zeros((1, 1))
        while (held[:, -1] < needed[short]).any():
            most = min(2 * most, every)
            more = kernels.top_k(values[short], factors[short], self._heads, most)[1]
            held = self._sizes[more].cumsum(axis=1)
        looked_at = (held < needed[short, None]).sum(axis=1) + 1
        more[np.arange(most) >= looked_at[:, None]] = -1
        found = np.full((len(values), most), -1, np.int32)
        found[:, : lists.shape[1]] = lists
        found[short] = more
        return found


def share_of(arrays: Mapping[str, np.ndarray], exact: float) -> float:
    """What was measured for rankings that ask for the share ``exact``. Raises L2QError for an index without lists."""
    return 1.0 if exact == 1 else _lists_of(arrays).share(exact)


def _lists_of(arrays: Mapping[str, np.ndarray]) -> Lists:
    if (found := Lists.of(arrays)) is None:
        raise L2QError("the index has no lists; make them by index.with_lists(), or leave exact out")
    return found


def made(
    arrays: Mapping[str, np.ndarray],
    dims: tuple[int, ...],
    weights: np.ndarray,
    train: Interactions,
    directions: int | None,
    seed: int,
    progress: Progress | None = None,
) -> Lists:
    """Lists of the items of an index, in so many ``directions`` (None: twice the root of the items), and their shares
    for up to 1,000 of its users. Raises L2QError for float items and for more directions than items."""
    users, items = stored(arrays, "users"), stored(arrays, "items")
    if items.values.dtype != np.uint8:
        raise L2QError("lists are made of codes, and the items of this index are floats; quantize it first")
    if directions is None:
        directions = min(round(2 * len(items) ** 0.5), len(items))
    if not len(items):
        raise L2QError("the index has no items; there is nothing to make lists of")
    if not 1 <= directions <= len(items):
        raise L2QError(f"directions={directions}: there are {len(items):,} items; give 1 to {len(items):,}")
    rng = np.random.default_rng(seed)
    scales = np.ones((len(items), len(dims)), np.float32) if items.scales is None else np.abs(items.scales)
    nearest = _directions(
        items.values, np.abs(weights) * scales.mean(axis=0), dims, directions, rng, progress
    )
    lengths = scales @ (np.abs(weights) * dims).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        classes = np.log(lengths.max() / lengths) / np.log(RATIO)
    kinds = nearest * CLASSES + np.nan_to_num(classes, nan=0, posinf=CLASSES).clip(0, CLASSES - 1).astype(int)
    order = np.argsort(kinds, kind="stable")
    starts = np.flatnonzero(np.diff(kinds[order], prepend=-1))
    indptr = np.append(starts, len(items))
    codes = np.zeros((len(starts), items.values.shape[1]), np.uint8)
    packed_lists.majorities(items.values, order, indptr, codes)
    lists = Lists(
        codes,
        np.maximum.reduceat(scales[order], starts),
        indptr,
        order.astype(np.int32),
        np.empty((0, 2), np.float32),
    )
    return _measured(users, items, dims, weights, train, lists, rng, progress)


def _directions(
    packed: np.ndarray, factors: np.ndarray, dims: tuple[int, ...], count: int, rng, progress: Progress | None
) -> np.ndarray:
    """The number of the nearest direction for every packed row."""
    size = min(SAMPLE * count, len(packed))
    sample = np.asarray(packed[np.sort(rng.choice(len(packed), size, replace=False))])
    codes = sample[np.sort(rng.choice(size, count, replace=False))]
    for turn in range(ROUNDS):
        nearest = _nearest(sample, factors, dims, codes)
        order = np.argsort(nearest, kind="stable")
        indptr = np.searchsorted(nearest[order], np.arange(count + 1))
        packed_lists.majorities(sample, order, indptr, codes)
        if progress is not None:
            progress(turn + 1, ROUNDS, "directions")
    return _nearest(packed, factors, dims, codes)


def _nearest(packed: np.ndarray, factors: np.ndarray, dims: tuple[int, ...], codes: np.ndarray) -> np.ndarray:
    heads = kernels.PackedItems.from_packed(codes, dims)
    parts = [packed[start : start + _AT_ONCE[1]] for start in range(0, len(packed), _AT_ONCE[1])]
    return np.concatenate([kernels.top_k(part, factors, heads, 1)[1][:, 0] for part in parts])


def _measured(users, items, dims, weights, train, lists, rng, progress) -> Lists:
    """The lists with their shares."""
    known = np.flatnonzero(train.user_degrees) if len(train) else np.arange(len(users))
    some = np.sort(rng.choice(known, min(MOST_USERS, len(known)), replace=False))
    if not len(some):
        raise L2QError("the index has no users, by whom lists could be measured")
    exact = PackedIndex(users, items, dims, weights)
    listed = ListedIndex(users, items, dims, weights, lists)
    sizes = np.diff(lists.indptr)
    list_of = np.empty(len(items), np.int32)
    list_of[lists.items] = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    found, looked_at = np.zeros(len(sizes), np.int64), np.zeros(len(sizes))
    for start in range(0, len(some), _AT_ONCE[0]):
        part = some[start : start + _AT_ONCE[0]]
        best = exact.search(part, min(K, len(items)), train)[1]
        ranks = listed.ranks(part)
        places = np.take_along_axis(ranks, list_of[best], axis=1)[best >= 0]
        found += np.bincount(places, minlength=len(sizes))
        for row in ranks:
            looked_at[row] += sizes
        if progress is not None:
            progress(start + len(part), len(some), "users")
    shares = np.stack([found.cumsum() / max(found.sum(), 1), looked_at.cumsum() / looked_at.sum()], axis=1)
    shares[-1] = 1
    return Lists(**{**vars(lists), "shares": shares.astype(np.float32)})
