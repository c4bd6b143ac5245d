"""An index as the service holds it: all of it in memory, with tables of its names; answers by row numbers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.representations import Rows
from l2q.retrieval import manifest as manifests
from l2q.retrieval import shared, storage
from l2q.retrieval.index import similar_items
from l2q.retrieval.lists import share_of
from l2q.retrieval.named import Index
from l2q.serving.names import Names

KERNELS = threading.Lock()
"""Held by the thread that is at kernels. Without OpenMP Numba falls back to its workqueue, which ends the process where
two threads are at them."""
ITEM_ROWS = ("items.codes", "items.values", "items.filter")
_NONE = np.empty(0, np.int64)


class Lists(NamedTuple):
    """What a question says of items: rows to leave out, and the only rows to rank (None: all)."""

    exclude: np.ndarray = _NONE
    only: np.ndarray | None = None

    @property
    def empty(self) -> bool:
        return self.only is None and not len(self.exclude)


Ranked = tuple[np.ndarray, np.ndarray]
"""Item rows, best first, and their scores."""


@dataclass(frozen=True, eq=False)
class Served:
    """``version`` is the beginning of the manifest's checksum: two indexes that differ have different ones. ``state``
    tells whether the folder still has the manifest that was opened. ``exact`` below 1: users are shown the best of some
    lists of items, with this ``share`` of their exact Top-20 (``Index.search``)."""

    name: str
    index: Index
    users: Names
    items: Names
    version: str
    state: tuple[int, ...] | None
    exact: float = 1.0
    share: float = 1.0

    @classmethod
    def open(cls, name: str, folder: Path, exact: float = 1.0) -> Served:
        """Reads the whole folder, so that no later change of a file reaches an answer; rows of items stay where they
        are if other processes share them. Raises L2QError for what is no sound index, and where it lacks lists."""
        state = storage.state(folder)
        opened = storage.load_index(folder)
        if not (opened.num_users and opened.num_items):
            raise L2QError(f"index {folder} has no users or no items; there is nothing to serve")
        left = ITEM_ROWS if shared.group() else ()
        index = replace(
            opened,
            arrays={key: array if key in left else np.array(array) for key, array in opened.arrays.items()},
        )
        with KERNELS:
            share = share_of(index.arrays, exact)
            index.search(np.array([0]), 1, index.exclude, exact)  # lays out what a search needs
            similar_items(index.index, np.array([0]), 1)
        users = Names("users", index.user_names, index.exclude.user_degrees)
        items = Names("items", index.item_names, index.arrays["items.degrees"])
        version = manifests.checksum(index.manifest)[:12]
        return cls(name, index, users, items, version, state, exact, share)

    def popular(self, users: np.ndarray) -> list[bool]:
        """Who of the users has no train items and is shown popular ones."""
        return self.index.without_items(users).tolist()

    def recommend(self, users: np.ndarray, k: int, lists: Lists) -> list[Ranked]:
        """The ``k`` best items for each user, without the user's train items."""
        return self._ranked(users, self.index.exclude, users, k, lists)

    def recommend_new(self, owned: Sequence[Sequence[int]], k: int, lists: Lists) -> list[Ranked]:
        """The same for new users, each by the rows of the items that they have."""
        rows = np.repeat(np.arange(len(owned)), [len(items) for items in owned])
        train = Interactions.from_pairs(rows, np.concatenate(owned), len(owned), self.index.num_items)
        return self._ranked(self.index.fold_in(owned), train, np.arange(len(owned)), k, lists)

    def similar(self, items: np.ndarray, k: int, lists: Lists) -> list[Ranked]:
        """The ``k`` items nearest to each item."""
        if lists.only is not None:
            return [self._similar_among(item, k, lists.exclude, lists.only) for item in items]
        ask = min(k + len(lists.exclude), self.index.num_items)
        scores, found = similar_items(self.index.index, items, ask)
        return [_first(*pair, lists.exclude, k) for pair in zip(found, scores, strict=True)]

    def _similar_among(self, item: int, k: int, exclude: np.ndarray, only: np.ndarray) -> Ranked:
        chosen = np.union1d(np.setdiff1d(only, exclude), [item])
        place = np.searchsorted(chosen, [item])
        scores, found = similar_items(self._part(chosen).index, place, min(k, len(chosen)))
        return _first(np.where(found[0] >= 0, chosen[found[0]], -1), scores[0], exclude, k)

    def _ranked(
        self, queries: np.ndarray | Rows, train: Interactions, rows: np.ndarray, k: int, lists: Lists
    ) -> list[Ranked]:
        """``queries`` are rows of users or new users' codes; row ``rows[j]`` of ``train`` is what query j has."""
        if lists.only is None:  # what is to be left out takes at most so many places
            ask = min(k + len(lists.exclude), self.index.num_items)
            scores, items = self.index.search(queries, ask, train, self.exact)
            return [_first(*pair, lists.exclude, k) for pair in zip(items, scores, strict=True)]
        chosen = np.setdiff1d(lists.only, lists.exclude)
        if not len(chosen):
            return [(_NONE, np.empty(0, np.float32))] * len(rows)
        ask = int(min(k + np.diff(train.indptr)[rows].max(initial=0), len(chosen)))
        scores, found = self._part(chosen).search(queries, ask)
        items = chosen[found]
        if not isinstance(queries, Rows) and (unknown := self.index.without_items(rows)).any():
            degrees = self.index.arrays["items.degrees"][chosen]
            best = np.argsort(-degrees.astype(np.int64), kind="stable")[:ask]
            items[unknown], scores[unknown] = chosen[best], degrees[best]
        return [_first(items[j], scores[j], train[row], k) for j, row in enumerate(rows)]

    def _part(self, items: np.ndarray) -> Index:
        """The index with some of its items, in ascending order, so that ties fall as they do among all."""
        arrays = {
            key: array[items] if key.startswith("items.") else array
            for key, array in self.index.arrays.items()
        }
        manifest = {key: value for key, value in self.index.manifest.items() if key != "filter"}
        return replace(self.index, arrays=arrays, manifest=manifest | {"num_items": len(items)}, folder=None)


def _first(items: np.ndarray, scores: np.ndarray, left_out: np.ndarray, k: int) -> Ranked:
    keep = items >= 0
    if len(left_out):
        keep &= ~np.isin(items, left_out)
    return items[keep][:k], scores[keep][:k]
