"""What every engine gets of an index: packed codes, their factors, names, and what users have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import packing
from l2q.retrieval.named import Index

QUANTIZE = "make them one segment first: python -m l2q quantize --index DIR --out CODES"


@dataclass(frozen=True)
class Side:
    """Users or items. ``codes`` (rows, row bytes) uint8 as on disk; ``factors`` (rows, segments) float32 or None for
    ones: w_s a_us of users, a_is of items; ``names`` by row."""

    codes: np.ndarray
    factors: np.ndarray | None
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class Codes:
    """The codes of an index.

        score(u, i) = sum_s (factors_us * <q_us, q_is>) * factors_is        <q, r> = dim_s - 2 popcount(q xor r)

    ``item_degrees`` (items,) and ``user_degrees`` (users,) are counts of train; ``history`` is train itself, or None
    where it is left out.
    """

    dims: tuple[int, ...]
    users: Side
    items: Side
    item_degrees: np.ndarray
    user_degrees: np.ndarray
    history: Interactions | None

    @classmethod
    def of(cls, index: Index, history: bool) -> Codes:
        """Raises L2QError for an index of float rows on either side."""
        arrays = index.arrays
        for side in ("users", "items"):
            if f"{side}.codes" not in arrays:
                raise L2QError(
                    f"the {side} of this index are float values, and an export has codes; make codes of them first: "
                    "python -m l2q quantize --index DIR --out CODES"
                )
        users = Side(arrays["users.codes"], _user_factors(index), index.user_names)
        items = Side(arrays["items.codes"], _scales(index, "items"), index.item_names)
        train = index.exclude
        return cls(
            index.dims, users, items, arrays["items.degrees"], train.user_degrees, train if history else None
        )

    @property
    def excludes(self) -> bool:
        """Whether the index knows items that users have."""
        return bool(self.user_degrees.any())

    @property
    def popular(self) -> bool:
        """Whether users without train items are shown the most popular ones, as by the index."""
        return bool(self.item_degrees.any())

    @property
    def nbytes(self) -> int:
        """About how much an export takes."""
        return sum(side.codes.nbytes + 8 * len(side) for side in (self.users, self.items))

    @cached_property
    def slices(self) -> list[slice]:
        """The bytes of every segment within a row."""
        ends = np.cumsum([packing.row_bytes((dim,)) for dim in self.dims]).tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def one_segment(self, engine: str) -> Codes:
        """The same ranking by one segment, whose users have no factor: it cannot change a ranking. Raises L2QError
        where the segments' factors differ, which no engine of one factor an item can express."""
        for side in (self.users, self.items):
            if side.factors is not None and (side.factors != side.factors[:, :1]).any():
                raise L2QError(
                    f"{engine} ranks codes of one scale an item, these have {len(self.dims)} segments with scales of "
                    f"their own; {QUANTIZE}"
                )
        if self.users.factors is not None and (self.users.factors <= 0).any():
            raise L2QError(
                f"{engine} ranks for users whose scales are above 0, some here are not; {QUANTIZE}"
            )
        dim, factors = sum(self.dims), self.items.factors
        users, items = (_joined(side.codes, self.dims) for side in (self.users, self.items))
        return replace(
            self,
            dims=(dim,),
            users=replace(self.users, codes=users, factors=None),
            items=replace(self.items, codes=items, factors=None if factors is None else factors[:, :1]),
        )


def write_arrays(codes: Codes, folder: Path) -> str:
    """What an engine of vectors does not hold, as files of the index (``l2q.retrieval.storage``): names, counts, train.
    Returns rows of a table about them."""
    rows = []
    for side, what, names in (
        ("users", "of every user", codes.users.names),
        ("items", "of every item", codes.items.names),
    ):
        (folder / f"{side}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8", newline="\n")
        rows.append(f"| `{side}.txt` | the name {what}, by row |")
    if codes.popular:
        np.save(folder / "users.degrees.npy", codes.user_degrees.astype(np.int32))
        np.save(folder / "items.degrees.npy", codes.item_degrees)
        rows.append(
            "| `users.degrees.npy`, `items.degrees.npy` | how many train items a user has, how many users an item |"
        )
    if codes.history is not None:
        np.save(folder / "train.indptr.npy", codes.history.indptr)
        np.save(folder / "train.items.npy", codes.history.items)
        rows.append(
            "| `train.indptr.npy`, `train.items.npy` | those of user u: items[indptr[u] : indptr[u + 1]] |"
        )
    return "\n".join(rows)


def _joined(codes: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    if all(dim % 8 == 0 for dim in dims[:-1]):
        return codes
    return packing.pack(packing.unpack(codes, dims), (sum(dims),))


def _scales(index: Index, side: str) -> np.ndarray | None:
    found = index.arrays.get(f"{side}.scales")
    return None if found is None else found.astype(np.float32)


def _user_factors(index: Index) -> np.ndarray | None:
    """w_s a_us, or None where all are one."""
    scales = _scales(index, "users")
    if scales is None:
        if (index.weights == 1).all():
            return None
        return np.tile(index.weights, (index.num_users, 1))
    return index.weights * scales
