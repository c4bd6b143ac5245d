"""Ranks the items of this folder by FAISS: scores of the index that it was exported from.

scores, items = Ranking(".").search([0, 5], k=20)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np


class Ranking:
    """The folder of an export to FAISS, opened."""

    def __init__(self, folder: str | Path = ".") -> None:
        self.folder = Path(folder)
        self.index = faiss.read_index(str(self.folder / "items.faiss"))
        self.query = np.load(self.folder / "query.npy")
        self.users = np.load(self.folder / "users.npy", mmap_mode="r")
        self.indptr, self.train = self._load("train.indptr"), self._load("train.items")
        self.user_degrees, self.item_degrees = self._load("users.degrees"), self._load("items.degrees")

    def vectors(self, users: Sequence[int]) -> np.ndarray:
        """The vectors of user rows, (n, D) float32: signs of bits times magnitudes."""
        bits = np.unpackbits(self.users[users], axis=1, bitorder="little")
        return (bits * np.float32(2) - np.float32(1)) * self.query

    def search(self, users: Sequence[int], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (n, k) float32 and items (n, k) int64 of user rows, best first, without what a user has in train;
        a user who has nothing gets the most popular items. Where fewer than k are left: -inf and -1."""
        scores, items = np.full((len(users), k), -np.inf, np.float32), np.full((len(users), k), -1)
        for place, user in enumerate(users):
            if self.user_degrees is not None and self.user_degrees[user] == 0:
                found = np.argsort(-self.item_degrees, kind="stable")[:k]
                scores[place, : len(found)], items[place, : len(found)] = self.item_degrees[found], found
                continue
            options = faiss.RaBitQSearchParameters(qb=1, centered=True)  # type: ignore[call-arg]
            if self.train is not None:
                owned = self.train[self.indptr[user] : self.indptr[user + 1]]
                options.sel = faiss.IDSelectorNot(faiss.IDSelectorBatch(owned.astype(np.int64)))
            scores[[place]], items[[place]] = self.index.search(self.vectors([user]), k, params=options)
        scores[items < 0] = -np.inf
        return scores, items

    def _load(self, name: str) -> Any:
        path = self.folder / f"{name}.npy"
        return np.load(path) if path.exists() else None
