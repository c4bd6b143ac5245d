"""Implicit feedback as one record: which user has which items."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from l2q.errors import L2QError
from l2q.names import FiledNames

LINE_BREAK = r"[\r\n]"  # what ends a line where text files of names are read, so that no name may hold it
TOGETHER = 1 << 24  # pairs that are counted together


@dataclass(frozen=True)
class Reading:
    """What reading a table of events came to, said before anything runs and kept with what comes of it.

    ``source``: the path, or "the table". ``columns``: the column of every role that was found, "user", "item", "time"
    or "value"; none of files of ids, whose ``rows`` are pairs. ``unread``: the other columns. ``rows`` of the source;
    ``dropped`` of them, by reason; ``merged``: further events of pairs that were there already. ``notes``: what was
    mended or looks odd, a sentence each. ``split``: how train and test were made.
    """

    source: str
    columns: Mapping[str, str]
    unread: tuple[str, ...] = ()
    rows: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    merged: int = 0
    notes: tuple[str, ...] = ()
    split: str = ""

    def lines(self) -> list[str]:
        """For people: a line for the columns, one for what is not read, one for the rows, the split, every note."""
        roles = ", ".join(f"{role}s {column!r}" for role, column in self.columns.items())
        rows = f"{self.rows:,} {'row' if self.columns else 'pair'}{'' if self.rows == 1 else 's'}"
        rows += "".join(f", {count:,} dropped ({reason})" for reason, count in self.dropped.items())
        if self.merged:
            rows += f", {self.merged:,} repeated pair{'' if self.merged == 1 else 's'} merged"
        return [
            f"{self.source}: {roles}" if roles else self.source,
            *([f"not read: {', '.join(map(repr, self.unread))}"] if self.unread else []),
            rows,
            *([self.split] if self.split else []),
            *(f"note: {note}" for note in self.notes),
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reading:
        return cls(**{**values, "unread": tuple(values["unread"]), "notes": tuple(values["notes"])})


@dataclass(frozen=True)
class Interactions:
    """Binary interactions R in {0, 1}^(num_users x num_items) in compressed rows.

    ``indptr`` (num_users + 1,) int64 and ``items`` (nnz,) int32; the items of user u are
    ``items[indptr[u]:indptr[u + 1]]``, ascending, without duplicates. Names are (num_users,) and (num_items,) arrays
    of strings (see ``name_array``), or lie in a file (``l2q.names``); None: the ids are the names.

    What is known of the events behind the pairs stands beside ``items``, (nnz,) each, None where nothing is: ``times``
    float64, seconds since 1970 where they were dates; ``values`` float32, such as ratings; ``counts`` int32, how many
    events a pair had. ``reading`` is what reading them came to. ``weights`` float32 is what each says in a fit
    (``l2q.fitted.weights``); None: all the same. ``ahead``: what is asked for comes later than all of them, as after a
    split by time. ``holdout``: the split whose held-out part asks as a test of them does; None: nobody said.

    ``given``, of a test part: what those of its users bring along who have no train items, for the fold-in; see the
    split "users".
    """

    indptr: np.ndarray
    items: np.ndarray
    num_items: int
    user_names: np.ndarray | FiledNames | None = field(default=None, repr=False)
    item_names: np.ndarray | FiledNames | None = field(default=None, repr=False)
    times: np.ndarray | None = field(default=None, repr=False)
    values: np.ndarray | None = field(default=None, repr=False)
    counts: np.ndarray | None = field(default=None, repr=False)
    weights: np.ndarray | None = field(default=None, repr=False)
    ahead: bool = field(default=False, repr=False)
    holdout: str | None = field(default=None, repr=False)
    reading: Reading | None = field(default=None, repr=False)
    given: Interactions | None = field(default=None, repr=False)

    @classmethod
    def from_pairs(
        cls,
        users,
        items,
        num_users: int,
        num_items: int,
        user_names: np.ndarray | FiledNames | None = None,
        item_names: np.ndarray | FiledNames | None = None,
    ) -> Interactions:
        """Rows from pairs in any order; a repeated pair counts once. O(edges) apart from one sort.

        Raises L2QError for an id outside 0 .. num_users - 1 or 0 .. num_items - 1, ids that are no whole numbers, and
        more of one side than of the other.

            train = l2q.Interactions.from_pairs([0, 0, 1], [2, 0, 1], num_users=2, num_items=3)
            train[0]  # array([0, 2], dtype=int32)
        """
        users, items = _ids("user", users, num_users), _ids("item", items, num_items)
        if len(users) != len(items):
            raise L2QError(
                f"{len(users):,} user ids and {len(items):,} item ids are no pairs; give as many of both"
            )
        keys = np.sort(users * num_items + items)  # faster than np.unique, which hashes
        keys = keys[np.diff(keys, prepend=-1) != 0]
        indptr = np.zeros(num_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(keys // max(num_items, 1), minlength=num_users), out=indptr[1:])
        return cls(indptr, (keys % max(num_items, 1)).astype(np.int32), num_items, user_names, item_names)

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.items)

    def __getitem__(self, user: int) -> np.ndarray:
        """Items of one user, ascending."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    @property
    def num_users(self) -> int:
        """How many users there are, those without items among them."""
        return len(self.indptr) - 1

    @cached_property
    def users(self) -> np.ndarray:
        """The user of every pair, (nnz,) int32, beside ``items``."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.user_degrees)

    @cached_property
    def user_degrees(self) -> np.ndarray:
        """How many items each user has, (num_users,) int64."""
        return np.diff(self.indptr)

    @cached_property
    def item_degrees(self) -> np.ndarray:
        """How many users each item has, (num_items,) int64."""
        degrees = np.zeros(self.num_items, np.int64)
        for first in range(0, len(self.items), TOGETHER):  # counting makes int64 of them
            degrees += np.bincount(self.items[first : first + TOGETHER], minlength=self.num_items)
        return degrees

    @cached_property
    def user_weights(self) -> np.ndarray:
        """The sum of each user's weights, (num_users,)."""
        return (
            self.user_degrees
            if self.weights is None
            else np.bincount(self.users, self.weights, self.num_users)
        )

    @cached_property
    def item_weights(self) -> np.ndarray:
        """The sum of each item's weights, (num_items,)."""
        return (
            self.item_degrees
            if self.weights is None
            else np.bincount(self.items, self.weights, self.num_items)
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the shape and the sorted pairs: the same whatever the order inside a file's lines."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}\n".encode())
        digest.update(np.ascontiguousarray(self.indptr, "<i8").data)
        digest.update(np.ascontiguousarray(self.items, "<i4").data)
        return digest.hexdigest()

    @property
    def keys(self) -> np.ndarray:
        """user * num_items + item of every pair, (nnz,) int64, ascending."""
        return self.users.astype(np.int64) * self.num_items + self.items

    def select(self, chosen: np.ndarray) -> Interactions:
        """The pairs where the mask ``chosen`` (nnz,) is true.

        All users and items stay, with their ids.

            popular = train.select(train.item_degrees[train.items] >= 10)
        """
        before = np.concatenate(([0], np.cumsum(chosen)))
        times, values, counts, weights = (
            None if beside is None else beside[chosen]
            for beside in (self.times, self.values, self.counts, self.weights)
        )
        return replace(
            self,
            indptr=before[self.indptr],
            items=self.items[chosen],
            times=times,
            values=values,
            counts=counts,
            weights=weights,
        )

    def to_csr(self, dtype=np.float32) -> sparse.csr_array:
        """R as a SciPy matrix of ones, (num_users, num_items).

        Its indices are int32.

            neighbors = train.to_csr().T @ train.to_csr()  # how many users two items share
        """
        ones = np.ones(len(self.items), dtype=dtype)
        return sparse.csr_array(
            (ones, self.items, self.indptr.astype(np.int32)), shape=(self.num_users, self.num_items)
        )


def _ids(side: str, given: Any, size: int) -> np.ndarray:
    """``given`` as int64, when all of it is in 0 .. size - 1."""
    if size < 0:
        raise L2QError(f"num_{side}s={size} is no count; give 0 or more")
    found = np.asarray(given)
    if found.dtype.kind == "f" and (np.abs(found) < 2**53).all() and (found == np.floor(found)).all():
        found = found.astype(np.int64)  # pandas makes floats of whole numbers beside a gap
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iub"):
        raise L2QError(f"{side} ids are no whole numbers in a row; number the {side}s from 0")
    if len(found) and not (found.min() >= 0 and found.max() < size):
        worst = found.min() if found.min() < 0 else found.max()
        raise L2QError(f"{side} id {worst} is outside 0 .. {size - 1}")
    return found.astype(np.int64, copy=False)


def normalize(train: Interactions, gamma_user: float = 0.5, gamma_item: float = 0.5) -> sparse.csr_array:
    """R_hat = D_u^-gamma_user R D_i^-gamma_item, float32. R has the weights of the pairs, D their sums."""
    users = power(train.user_weights, -gamma_user)
    items = power(train.item_weights, -gamma_item)
    values = np.repeat(users, train.user_degrees) * items[train.items]
    if train.weights is not None:
        values *= train.weights
    shape = (train.num_users, train.num_items)
    return sparse.csr_array((values, train.items, train.indptr.astype(np.int32)), shape=shape)


def power(degrees: np.ndarray, exponent: float) -> np.ndarray:
    """degrees^exponent in float32, 0 where the degree is 0."""
    return np.where(degrees > 0, np.where(degrees > 0, degrees, 1.0) ** exponent, 0).astype(np.float32)


@dataclass(frozen=True)
class Dataset:
    """A set by its ``name``, split into ``train`` and ``test``. Both have all users and items, and the same names.
    ``columns`` are the names of the users' and the items' column, where the set is a table."""

    name: str
    train: Interactions
    test: Interactions
    columns: tuple[str, ...] = ()

    @property
    def user_names(self) -> np.ndarray | FiledNames | None:
        """(num_users,) strings; None: the ids are the names."""
        return self.train.user_names

    @property
    def item_names(self) -> np.ndarray | FiledNames | None:
        """(num_items,) strings; None: the ids are the names."""
        return self.train.item_names


def name_array(names: list[str]) -> np.ndarray:
    """Strings as objects: in a unicode array every name would take the space of the longest one."""
    return np.array(names, dtype=object)
