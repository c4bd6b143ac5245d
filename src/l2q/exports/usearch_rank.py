"""Ranks the items of this folder by usearch: scores of the index that it was exported from.

scores, items = Ranking(".").search([0, 5], k=20)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, cfunc, types
from numba.extending import intrinsic
from usearch.index import CompiledMetric, Index, MetricKind, MetricSignature, ScalarKind


class Ranking:
    """The folder of an export to usearch, opened."""

    def __init__(self, folder: str | Path = ".") -> None:
        self.folder = Path(folder)
        self.users = np.load(self.folder / "users.npy", mmap_mode="r")
        self.index = Index(
            ndim=8 * self.users.shape[1], metric=MetricKind.Hamming, dtype=ScalarKind.B1, multi=False
        )
        self.index.view(str(self.folder / "items.usearch"))
        self.metric = metric(json.loads((self.folder / "dims.json").read_text()))
        self.index.metric = self.metric
        self.indptr, self.train = self._load("train.indptr"), self._load("train.items")
        self.user_degrees, self.item_degrees = self._load("users.degrees"), self._load("items.degrees")

    def search(self, users: Sequence[int], k: int, exact: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Scores (n, k) float32 and items (n, k) int64 of user rows, best first, without what a user has in train;
        a user who has nothing gets the most popular items. Where fewer than k are left: -inf and -1."""
        scores, items = np.full((len(users), k), -np.inf, np.float32), np.full((len(users), k), -1)
        for place, user in enumerate(users):
            if self.user_degrees is not None and self.user_degrees[user] == 0:
                found = np.argsort(-self.item_degrees, kind="stable")[:k]
                values = self.item_degrees[found]
            else:
                owned = () if self.train is None else self.train[self.indptr[user] : self.indptr[user + 1]]
                most = min(k + len(owned), len(self.index))
                matches = self.index.search(self.users[user], most, exact=exact)
                left = ~np.isin(matches.keys, owned)
                found, values = matches.keys[left][:k], -matches.distances[left][:k]
            scores[place, : len(found)], items[place, : len(found)] = values, found
        return scores, items

    def _load(self, name: str) -> Any:
        path = self.folder / f"{name}.npy"
        return np.load(path) if path.exists() else None


@intrinsic
def _popcount(context, word):
    return types.uint64(types.uint64), lambda context, builder, signature, values: builder.ctpop(values[0])


def metric(dims: Sequence[int]) -> CompiledMetric:
    """Minus the score of two vectors: sum over segments s, ascending, of (user factor_s * (dim_s - 2 popcount(xor))) *
    item factor_s in float32."""
    ends = np.cumsum([-(-dim // 64) for dim in dims])
    widths, segments, words = np.array(dims), len(dims), int(ends[-1])
    starts = np.concatenate([[0], ends[:-1]])
    size = words + -(-segments // 2)
    pointer = types.CPointer(types.uint64)

    @cfunc(types.float32(pointer, pointer))
    def distance(user, item):
        a, b = carray(user, size), carray(item, size)
        of_user, of_item = a[words:].view(np.float32), b[words:].view(np.float32)
        score = np.float32(0)
        for s in range(segments):
            differing = np.uint64(0)
            for word in range(starts[s], ends[s]):
                differing += _popcount(a[word] ^ b[word])  # type: ignore[call-arg]
            dot = np.float32(widths[s] - 2 * np.int64(differing))
            score += (of_user[s] * dot) * of_item[s]
        return -score

    compiled = CompiledMetric(
        pointer=int(distance.address or 0), kind=MetricKind.Hamming, signature=MetricSignature.ArrayArray
    )
    _KEPT.append(distance)  # its machine code lives as long as it does
    return compiled


_KEPT: list = []
