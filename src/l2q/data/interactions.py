"""Implicit feedback as one record: which user has which items."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from l2q.errors import L2QError


@dataclass(frozen=True)
class Interactions:
    """Binary interactions R in {0, 1}^(num_users x num_items) in compressed rows.

    ``indptr`` (num_users + 1,) int64 and ``items`` (nnz,) int32; the items of user u are
    ``items[indptr[u]:indptr[u + 1]]``, ascending, without duplicates.
    """

    indptr: np.ndarray
    items: np.ndarray
    num_items: int

    @classmethod
    def from_pairs(cls, users, items, num_users: int, num_items: int) -> Interactions:
        """Rows from pairs in any order; a repeated pair counts once. O(edges) apart from one sort.

        Raises L2QError for an id outside 0 .. num_users - 1 or 0 .. num_items - 1.
        """
        users = np.asarray(users, dtype=np.int64)
        items = np.asarray(items, dtype=np.int64)
        for name, ids, size in (("user", users, num_users), ("item", items, num_items)):
            if len(ids) and not (0 <= ids.min() and ids.max() < size):
                worst = ids.min() if ids.min() < 0 else ids.max()
                raise L2QError(f"{name} id {worst} is outside 0 .. {size - 1}")
        keys = np.unique(users * num_items + items)
        indptr = np.zeros(num_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(keys // max(num_items, 1), minlength=num_users), out=indptr[1:])
        return cls(indptr, (keys % max(num_items, 1)).astype(np.int32), num_items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, user: int) -> np.ndarray:
        """Items of one user, ascending."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    @property
    def num_users(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def users(self) -> np.ndarray:
        """The user of every pair, (nnz,) int32, beside ``items``."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.user_degrees)

    @cached_property
    def user_degrees(self) -> np.ndarray:
        return np.diff(self.indptr)

    @cached_property
    def item_degrees(self) -> np.ndarray:
        return np.bincount(self.items, minlength=self.num_items)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the shape and the sorted pairs: the same whatever the order inside a file's lines."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}\n".encode())
        digest.update(self.indptr.astype("<i8").tobytes())
        digest.update(self.items.astype("<i4").tobytes())
        return digest.hexdigest()

    def transpose(self) -> Interactions:
        """Items as rows: which item has which users."""
        return Interactions.from_pairs(self.items, self.users, self.num_items, self.num_users)

    def to_csr(self, dtype=np.float32) -> sparse.csr_array:
        """R as a SciPy matrix of ones, int32 indices."""
        ones = np.ones(len(self.items), dtype=dtype)
        return sparse.csr_array(
            (ones, self.items, self.indptr.astype(np.int32)), shape=(self.num_users, self.num_items)
        )
