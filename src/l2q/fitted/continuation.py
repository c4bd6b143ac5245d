"""A fit that goes on from an index: tomorrow's events, with yesterday's codes and yesterday's choice of the teacher.

Users and items are found by name. A row that the index lacks starts as the map of the known ones says,

    codes = sign(x W),    W = argmin |X W - A|^2 + l |W|^2    over the known rows A and their base X

and everything is then fitted to the lists of today's teacher in a few rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from l2q import exchange
from l2q.errors import L2QError
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.new_users import of_bytes
from l2q.fitted.state import Side, State
from l2q.fitted.teacher import CosineEmbeddings, Teacher
from l2q.fitted.weights import PairWeights
from l2q.interactions import Interactions, normalize
from l2q.kernels import dense
from l2q.kernels.rows import own
from l2q.kernels.svd import product
from l2q.names import FiledNames
from l2q.representations import Representations

RIDGE = 1e-3  # l, in parts of the mean of the diagonal


class Earlier(Protocol):
    """What is asked of an index (``l2q.retrieval.named``), which is a room further up."""

    @property
    def manifest(self) -> dict[str, Any]: ...

    @property
    def arrays(self) -> dict[str, np.ndarray]: ...

    @property
    def names(self) -> dict[str, list[str] | None]: ...

    @property
    def dims(self) -> tuple[int, ...]: ...

    @property
    def num_users(self) -> int: ...

    @property
    def num_items(self) -> int: ...

    @property
    def representations(self) -> Representations: ...


@dataclass(frozen=True, eq=False)
class Known:
    """What an index knows of the users and items of ``train``: ``users`` (M,) and ``items`` (N,) are their rows in the
    index, -1 where it has none."""

    index: Earlier
    users: np.ndarray
    items: np.ndarray

    @classmethod
    def of(cls, index: Earlier, train: Interactions, bits: int) -> Known:
        """Raises L2QError for an index of other codes than ``bits`` of ``l2q_plus``, and for one without names in
        common."""
        if "items.codes" not in index.arrays or "filter" not in index.manifest:
            raise L2QError(
                "start: the index keeps no filter to go on from; give one of l2q_plus, fitted with new_users=true"
            )
        if index.dims != (bits,):
            raise L2QError(
                f"start: the index has {index.dims[0]} bits, bits={bits}; give bits={index.dims[0]}"
            )
        users = _rows(index.names["users"], index.num_users, train.user_names, train.num_users)
        items = _rows(index.names["items"], index.num_items, train.item_names, train.num_items)
        for side, rows in (("user", users), ("item", items)):
            if not (rows >= 0).any():
                raise L2QError(
                    f"start: no {side} of the index is named like one of train; give the same names"
                )
        return cls(index, users, items)

    def teacher(self, filter: SpectralFilter | None, embeddings: CosineEmbeddings) -> Teacher:
        """The index's choice, apart from what is given."""
        chosen: Mapping[str, Any] = self.index.manifest["filter"]
        if filter is None:
            names = "gamma_user", "gamma_item", "popularity", "rank", "tail"
            if any(name not in chosen for name in names):
                raise L2QError(
                    "start: the index does not say which filter it has; fit it anew with this version"
                )
            filter = SpectralFilter(**{name: chosen[name] for name in names})
        weight = chosen.get("embeddings", 0.0) if embeddings.weight is None else embeddings.weight
        return Teacher(filter, replace(embeddings, weight=float(weight)))

    def weights(self, train: Interactions, halvings: float | None, value_power: float | None) -> PairWeights:
        """The index's choice, apart from what is given, and from that of times or values that train has none of."""
        chosen: Mapping[str, Any] = self.index.manifest["filter"]
        given = {"halvings": (halvings, train.times), "value_power": (value_power, train.values)}
        return PairWeights(**{
            option: value if value is not None else float(chosen.get(option, 0.0)) if known is not None else 0.0
            for option, (value, known) in given.items()
        })  # fmt: skip

    def directions(self, train: Interactions, filter: SpectralFilter) -> tuple[np.ndarray, np.ndarray]:
        """About the singular vectors of train, the own rows of users' and items', those of new items zero."""
        arrays = self.index.arrays
        V = _taken(of_bytes(arrays["items.filter"], arrays.get("filter.roots")).rows(slice(None)), self.items)
        U = product(normalize(train, filter.gamma_user, filter.gamma_item), V)
        return U[own(len(U))], V[own(len(V))]

    def embeddings(self, dim: int) -> tuple[np.ndarray, np.ndarray]:
        """The codes in the ``dim`` directions in which they differ most, users' and items'; zero for new ones."""
        users, items = (self._scaled(side) for side in ("users", "items"))
        _, vectors = np.linalg.eigh(dense.gram(items).astype(np.float64))
        W = vectors[:, ::-1][:, :dim].astype(np.float32)
        X, Y = _taken(users @ W, self.users), _taken(items @ W, self.items)
        return X / max(X.std(), 1e-12), Y / max(Y.std(), 1e-12)

    def state(self, base: tuple[np.ndarray, np.ndarray], lists: sparse.csr_array) -> State:
        """Where the descent begins. Every process computes all of it and keeps its own rows."""
        sides: list[Side] = []
        for side, part, numbers in zip(("users", "items"), base, (self.users, self.items), strict=True):
            A, X = _taken(self._scaled(side), numbers), exchange.joined(part)
            known = numbers >= 0
            if not known.all():
                gram = dense.gram(X[known])
                gram += RIDGE * max(np.trace(gram) / len(gram), 1e-30) * np.eye(len(gram), dtype=gram.dtype)
                A[~known] = X[~known] @ np.linalg.solve(gram, X[known].T @ A[known])
            A = A[own(len(A))]
            sides.append(Side(np.where(A >= 0, 1, -1).astype(np.int8), np.abs(A).mean(axis=1)))
        users, items = sides
        return State(0, users, items, lists)

    def _scaled(self, side: str) -> np.ndarray:
        rows = getattr(self.index.representations, side)
        return rows.values.astype(np.float32) * (1 if rows.scales is None else rows.scales)


def _rows(
    known: Sequence[str] | FiledNames | None, size: int, names: Iterable[str] | None, wanted: int
) -> np.ndarray:
    """The rows by which a side of an index knows names; without names the row numbers are the names."""
    if known is None and names is None:
        rows = np.arange(wanted)
        return np.where(rows < size, rows, -1)
    numbers = {name: row for row, name in enumerate(known or map(str, range(size)))}
    return np.array([numbers.get(name, -1) for name in (map(str, range(wanted)) if names is None else names)])


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``values[rows]``, zero where the row is -1."""
    taken = values[rows]
    taken[rows < 0] = 0
    return taken
